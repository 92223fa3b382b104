//! Which shard owns which slot, and at what address: pure data and arithmetic.
//!
//! Slots are cut into contiguous ranges, as even as they come; the cut depends on the shard count alone, so it is
//! the same after every restart.

use crate::limits::SLOTS;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// How the slots of a store are spread over its shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Seed of the slot hash; kept in `store.json`, told to clients.
    pub hash_seed: u64,
    owner: Box<[u16; SLOTS]>,
    shards: usize,
    /// Wire address of each shard, when it listens on its own.
    pub addresses: Vec<Option<SocketAddr>>,
}

impl Topology {
    /// An even cut over `shards` (1 to 256).
    pub fn new(hash_seed: u64, shards: usize) -> Self {
        assert!((1..=SLOTS).contains(&shards), "a store has 1 to {SLOTS} shards, not {shards}");
        let owner = Box::new(std::array::from_fn(|slot| (slot * shards / SLOTS) as u16));
        Self { hash_seed, owner, shards, addresses: vec![None; shards] }
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The owner of an entity.
    #[inline]
    pub fn owner_of(&self, schema: &str, key: &str) -> usize {
        if self.shards == 1 {
            return 0;
        }
        self.owner[delta_wire::slot_of(self.hash_seed, schema, key) as usize] as usize
    }

    /// The slots of one shard.
    pub fn slots_of(&self, shard: usize) -> RangeInclusive<u8> {
        let first = (shard * SLOTS).div_ceil(self.shards);
        let end = ((shard + 1) * SLOTS).div_ceil(self.shards);
        first as u8..=(end - 1) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_one_owner_and_ranges_agree_with_it() {
        for shards in 1..=SLOTS {
            let topology = Topology::new(1, shards);
            let mut covered = 0;
            for shard in 0..shards {
                for slot in topology.slots_of(shard) {
                    assert_eq!(topology.owner[slot as usize] as usize, shard, "{shards} shards, slot {slot}");
                    covered += 1;
                }
            }
            assert_eq!(covered, SLOTS);
        }
    }
}
