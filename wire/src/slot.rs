//! Which slot of the hash space an entity falls into: shared by server and shard-aware clients.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Slots of the 64-bit hash space.
pub const SLOTS: usize = 256;

/// Longest input that is hashed without an allocation: the longest schema id, a separator, the longest key.
const NAME_BYTES_MAX: usize = 128 + 1 + 512;

/// The slot of an entity: the top eight bits of xxh3-64, seeded per store, over `schema 0x00 key`.
/// Names hold no control characters, so the separator is unambiguous.
pub fn slot_of(seed: u64, schema: &str, key: &str) -> u8 {
    let total = schema.len() + 1 + key.len();
    let hash = if total <= NAME_BYTES_MAX {
        let mut name = [0u8; NAME_BYTES_MAX];
        name[..schema.len()].copy_from_slice(schema.as_bytes());
        name[schema.len() + 1..total].copy_from_slice(key.as_bytes());
        xxh3_64_with_seed(&name[..total], seed)
    } else {
        let name = [schema.as_bytes(), &[0], key.as_bytes()].concat();
        xxh3_64_with_seed(&name, seed)
    };
    (hash >> 56) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separator_keeps_schema_and_key_apart_and_the_seed_matters() {
        let slots = |seed| (0..64).map(|n| slot_of(seed, "s", &n.to_string())).collect::<Vec<_>>();
        assert_ne!(slots(1), slots(2));
        let apart =
            (0..64).filter(|n| slot_of(7, "ab", &format!("c{n}")) != slot_of(7, "a", &format!("bc{n}"))).count();
        assert!(apart > 48, "the boundary between schema and key must count: {apart}");
    }
}
