//! What is asked for: the mix of operations and the keys they go to.

use crate::random::{Distribution, Random};
use anyhow::{Result, bail, ensure};
use std::collections::BTreeSet;

/// One operation on one key, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read it.
    Read(u64),
    /// Replace it.
    Update(u64),
    /// Write it for the first time.
    Insert(u64),
    /// Read it, then replace it.
    ReadModifyWrite(u64),
}

impl Operation {
    /// The number of the key it concerns.
    pub fn key(&self) -> u64 {
        match self {
            Self::Read(key) | Self::Update(key) | Self::Insert(key) | Self::ReadModifyWrite(key) => *key,
        }
    }

    /// Whether its first request, often its only one, reads.
    pub fn begins_with_a_read(&self) -> bool {
        matches!(self, Self::Read(_) | Self::ReadModifyWrite(_))
    }
}

/// Per cent of each operation; together 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    pub read: u64,
    pub update: u64,
    pub insert: u64,
    pub read_modify_write: u64,
}

impl Mix {
    /// Reads, and updates for the rest.
    pub fn reading(read_percent: u64) -> Result<Self> {
        ensure!(read_percent <= 100, "{read_percent} per cent of reads is more than there is");
        Ok(Self { read: read_percent, update: 100 - read_percent, insert: 0, read_modify_write: 0 })
    }

    /// A core workload of YCSB by its letter, and the distribution that belongs to it.
    pub fn ycsb(letter: &str) -> Result<(Self, &'static str)> {
        let (read, update, insert, read_modify_write, distribution) = match letter.to_ascii_uppercase().as_str() {
            "A" => (50, 50, 0, 0, "zipfian"),
            "B" => (95, 5, 0, 0, "zipfian"),
            "C" => (100, 0, 0, 0, "zipfian"),
            "D" => (95, 0, 5, 0, "latest"),
            "F" => (50, 0, 0, 50, "zipfian"),
            _ => bail!("there is no mix '{letter}' here; take A, B, C, D or F"),
        };
        Ok((Self { read, update, insert, read_modify_write }, distribution))
    }
}

/// Where operations come from.
pub trait Source {
    /// The next operation for a connection of `lane` (see [`Lanes`]); `None` when there is no more.
    fn next(&mut self, lane: Option<u16>, lanes: &Lanes) -> Option<Operation>;
    /// An insert was acknowledged.
    fn inserted(&mut self, _key: u64) {}
}

/// Which lane of connections a key's requests go to, for servers whose shards have addresses of their own.
#[derive(Default)]
pub struct Lanes {
    /// By key number; keys beyond it have no owner, empty without shards.
    owners: Vec<u16>,
}

impl Lanes {
    /// Asks for the owner of each key once.
    pub fn new(keys: u64, owner: impl Fn(u64) -> u16) -> Self {
        Self { owners: (0..keys).map(owner).collect() }
    }

    fn takes(&self, lane: Option<u16>, key: u64) -> bool {
        match (lane, self.owners.get(key as usize)) {
            (Some(lane), Some(owner)) => lane == *owner,
            _ => true,
        }
    }
}

/// Every key once, in order: written, or read to have it in a cache.
pub struct Preload {
    keys: u64,
    reads: bool,
    next_of_lane: Vec<u64>,
}

impl Preload {
    /// Writes so many keys.
    pub fn new(keys: u64) -> Self {
        Self { keys, reads: false, next_of_lane: Vec::new() }
    }

    /// Reads so many keys.
    pub fn reading(keys: u64) -> Self {
        Self { reads: true, ..Self::new(keys) }
    }
}

impl Source for Preload {
    fn next(&mut self, lane: Option<u16>, lanes: &Lanes) -> Option<Operation> {
        let lane_number = usize::from(lane.unwrap_or(0));
        if self.next_of_lane.len() <= lane_number {
            self.next_of_lane.resize(lane_number + 1, 0);
        }
        let next = &mut self.next_of_lane[lane_number];
        while *next < self.keys {
            *next += 1;
            if lanes.takes(lane, *next - 1) {
                let key = *next - 1;
                return Some(if self.reads { Operation::Read(key) } else { Operation::Insert(key) });
            }
        }
        None
    }
}

/// Operations drawn from a mix and a distribution, without end.
pub struct Draws {
    random: Random,
    mix: Mix,
    distribution: Distribution,
    /// Keys that are surely there: all below this number.
    keys: u64,
    next_insert: u64,
    /// Inserts acknowledged before an earlier one was.
    early: BTreeSet<u64>,
}

impl Draws {
    /// Over keys that are there already.
    pub fn new(seed: u64, mix: Mix, distribution: Distribution, keys: u64) -> Self {
        Self { random: Random::new(seed), mix, distribution, keys, next_insert: keys, early: BTreeSet::new() }
    }

    fn key(&mut self, lane: Option<u16>, lanes: &Lanes) -> u64 {
        loop {
            let key = self.distribution.draw(&mut self.random, self.keys);
            if lanes.takes(lane, key) {
                return key;
            }
        }
    }
}

impl Source for Draws {
    fn next(&mut self, lane: Option<u16>, lanes: &Lanes) -> Option<Operation> {
        let draw = self.random.below(100);
        let Mix { read, update, insert, .. } = self.mix;
        Some(if draw < read {
            Operation::Read(self.key(lane, lanes))
        } else if draw < read + update {
            Operation::Update(self.key(lane, lanes))
        } else if draw < read + update + insert {
            self.next_insert += 1;
            Operation::Insert(self.next_insert - 1)
        } else {
            Operation::ReadModifyWrite(self.key(lane, lanes))
        })
    }

    fn inserted(&mut self, key: u64) {
        self.early.insert(key);
        while self.early.remove(&self.keys) {
            self.keys += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(letter: &str, keys: u64) -> Draws {
        let (mix, distribution) = Mix::ycsb(letter).unwrap();
        Draws::new(1, mix, Distribution::by_name(distribution, keys).unwrap(), keys)
    }

    #[test]
    fn mixes_come_out_in_their_proportions() {
        for (letter, expected) in [
            ("a", [50, 50, 0, 0]),
            ("B", [95, 5, 0, 0]),
            ("C", [100, 0, 0, 0]),
            ("D", [95, 0, 5, 0]),
            ("F", [50, 0, 0, 50]),
        ] {
            let mut source = draws(letter, 100);
            let mut counts = [0f64; 4];
            for _ in 0..20_000 {
                let place = match source.next(None, &Lanes::default()).unwrap() {
                    Operation::Read(_) => 0,
                    Operation::Update(_) => 1,
                    Operation::Insert(_) => 2,
                    Operation::ReadModifyWrite(_) => 3,
                };
                counts[place] += 1.0;
            }
            for (count, percent) in counts.into_iter().zip(expected) {
                assert!((count / 200.0 - f64::from(percent)).abs() < 1.5, "{letter}: {counts:?}");
            }
        }
        assert!(Mix::ycsb("E").is_err());
        assert!(Mix::reading(101).is_err());
    }

    #[test]
    fn reads_go_only_to_keys_whose_inserts_were_acknowledged() {
        let mut source = draws("D", 10);
        let lanes = Lanes::default();
        for _ in 0..1_000 {
            if let Some(Operation::Read(key)) = source.next(None, &lanes) {
                assert!(key < 10);
            }
        }
        source.inserted(11);
        assert_eq!(source.keys, 10);
        source.inserted(10);
        assert_eq!(source.keys, 12);
    }

    #[test]
    fn lanes_get_their_own_keys_and_preload_gives_each_key_once() {
        let lanes = Lanes::new(100, |key| (key % 3) as u16);
        let mut preload = Preload::new(100);
        let mut seen = BTreeSet::new();
        for lane in [2, 0, 1] {
            while let Some(Operation::Insert(key)) = preload.next(Some(lane), &lanes) {
                assert_eq!(key % 3, u64::from(lane));
                assert!(seen.insert(key));
            }
        }
        assert_eq!(seen.len(), 100);
        let mut source = draws("C", 100);
        assert!((0..500).all(|_| matches!(source.next(Some(1), &lanes), Some(Operation::Read(key)) if key % 3 == 1)));
        let mut preload = Preload::new(2);
        let all: Vec<_> = std::iter::from_fn(|| preload.next(None, &Lanes::default())).collect();
        assert_eq!(all, [Operation::Insert(0), Operation::Insert(1)]);
        let mut reads = Preload::reading(1);
        assert_eq!(reads.next(None, &Lanes::default()), Some(Operation::Read(0)));
        assert_eq!(reads.next(None, &Lanes::default()), None);
    }
}
