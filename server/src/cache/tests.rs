//! The cache by example, and against the obvious one.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

fn entity(key: &str) -> EntityRef<'_> {
    EntityRef { schema: "s", key }
}

fn document(key: &str, size: usize) -> Document {
    Document::new(entity(key), &vec![b'x'; size])
}

/// Few distinct hashes, so that the table meets collisions.
fn hash_of(key: &str) -> u64 {
    key.bytes().map(u64::from).sum::<u64>() % 5
}

fn cache(bytes_max: usize, entries_max: usize, ttl_ms: u64) -> Cache {
    Cache::new(CacheOptions { bytes_max, entries_max, ttl_ms })
}

fn put(cache: &mut Cache, key: &str, version: Version, now_ms: u64) {
    cache.insert(hash_of(key), document(key, 10), version, now_ms);
}

fn version(cache: &mut Cache, key: &str, now_ms: u64) -> Option<Version> {
    cache.get(hash_of(key), entity(key), now_ms).map(|(version, _)| version)
}

#[test]
fn the_least_recently_used_goes_first() {
    let mut cache = cache(1 << 20, 2, 0);
    put(&mut cache, "a", 1, 0);
    put(&mut cache, "b", 2, 0);
    assert_eq!(version(&mut cache, "a", 0), Some(1));
    put(&mut cache, "c", 3, 0);
    assert_eq!(version(&mut cache, "b", 0), None);
    assert_eq!(version(&mut cache, "a", 0), Some(1));
    assert_eq!(version(&mut cache, "c", 0), Some(3));
    assert_eq!(cache.stats().evictions, 1);
}

#[test]
fn an_older_version_never_replaces_a_newer_one() {
    let mut cache = cache(1 << 20, 10, 0);
    put(&mut cache, "a", 7, 0);
    put(&mut cache, "a", 6, 0);
    assert_eq!(version(&mut cache, "a", 0), Some(7));
    put(&mut cache, "a", 8, 0);
    assert_eq!(version(&mut cache, "a", 0), Some(8));
    assert_eq!(cache.stats().entries, 1);
}

#[test]
fn a_document_over_an_eighth_is_not_held_and_the_stale_one_goes() {
    let mut cache = cache(8000, 10, 0);
    put(&mut cache, "a", 1, 0);
    cache.insert(hash_of("a"), document("a", 1001), 2, 0);
    assert_eq!(version(&mut cache, "a", 0), None);
    assert_eq!((cache.stats().entries, cache.stats().bytes), (0, 0));
}

#[test]
fn an_expired_entry_is_never_returned_and_sweeping_frees_it() {
    let mut cache = cache(1 << 20, 10, 100);
    put(&mut cache, "a", 1, 1000);
    put(&mut cache, "b", 2, 1050);
    assert_eq!(version(&mut cache, "a", 1099), Some(1));
    assert_eq!(version(&mut cache, "a", 1100), None);
    cache.sweep(1149, 10);
    assert_eq!(cache.stats().entries, 1);
    cache.sweep(1150, 10);
    assert_eq!((cache.stats().entries, cache.stats().expirations), (0, 2));
}

#[test]
fn nothing_is_held_without_room() {
    for mut cache in [cache(0, 10, 0), cache(1 << 20, 0, 0)] {
        put(&mut cache, "a", 1, 0);
        assert_eq!(version(&mut cache, "a", 0), None);
    }
}

#[test]
fn a_hit_hands_out_the_held_allocation() {
    let mut cache = cache(1 << 20, 10, 0);
    let held = document("a", 10);
    cache.insert(0, held.clone(), 1, 0);
    let (_, found) = cache.get(0, entity("a"), 0).expect("it was just inserted");
    assert!(std::sync::Arc::ptr_eq(held.shared().0, found.shared().0));
}

#[test]
fn reports_carry_over_differences() {
    let metrics = ShardMetrics::default();
    let mut cache = cache(1 << 20, 10, 0);
    put(&mut cache, "a", 1, 0);
    version(&mut cache, "a", 0);
    cache.report(&metrics);
    version(&mut cache, "a", 0);
    version(&mut cache, "b", 0);
    cache.report(&metrics);
    assert_eq!((metrics.cache_hits.value(), metrics.cache_misses.value()), (2, 1));
    assert_eq!(metrics.cache_entries.value(), 1);
    assert_eq!(metrics.cache_bytes.value(), cache.stats().bytes as u64);
}

#[derive(Clone, Debug)]
enum Step {
    Get(u8),
    Insert(u8, usize, Version),
    Remove(u8),
    Sweep,
    Clear,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..12).prop_map(Step::Get),
        6 => (0u8..12, 0usize..400, 0u64..50).prop_map(|(key, size, version)| Step::Insert(key, size, version)),
        2 => (0u8..12).prop_map(Step::Remove),
        1 => Just(Step::Sweep),
        1 => (1u64..40).prop_map(Step::Wait),
        1 => Just(Step::Clear),
    ]
}

/// The obvious cache: a list in order of use, most recent last.
struct Model {
    options: CacheOptions,
    held: VecDeque<(String, usize, Version, u64)>,
}

impl Model {
    fn expired(&self, inserted_ms: u64, now_ms: u64) -> bool {
        self.options.ttl_ms != 0 && now_ms - inserted_ms >= self.options.ttl_ms
    }

    fn bytes(&self) -> usize {
        self.held.iter().map(|held| held.1).sum()
    }

    fn take(&mut self, key: &str) -> Option<(String, usize, Version, u64)> {
        let position = self.held.iter().position(|held| held.0 == key)?;
        self.held.remove(position)
    }

    fn get(&mut self, key: &str, now_ms: u64) -> Option<Version> {
        let held = self.take(key)?;
        if self.expired(held.3, now_ms) {
            return None;
        }
        let version = held.2;
        self.held.push_back(held);
        Some(version)
    }

    fn insert(&mut self, key: &str, cost: usize, version: Version, now_ms: u64) {
        if self.held.iter().any(|held| held.0 == key && held.2 > version) {
            return;
        }
        self.take(key);
        for _ in 0..SWEEP_PER_INSERT {
            if self.held.front().is_some_and(|held| self.expired(held.3, now_ms)) {
                self.held.pop_front();
            }
        }
        if cost > self.options.bytes_max / SHARE_OF_ONE_DOCUMENT {
            return;
        }
        while self.held.len() >= self.options.entries_max || self.bytes() + cost > self.options.bytes_max {
            self.held.pop_front();
        }
        self.held.push_back((key.to_owned(), cost, version, now_ms));
    }
}

proptest! {
    #[test]
    fn behaves_like_the_obvious_cache(
        steps in proptest::collection::vec(step(), 1..300),
        bytes_max in 1000usize..6000,
        entries_max in 1usize..8,
        ttl_ms in prop_oneof![Just(0u64), 1u64..80],
    ) {
        let options = CacheOptions { bytes_max, entries_max, ttl_ms };
        let mut cache = Cache::new(options);
        let mut model = Model { options, held: VecDeque::new() };
        let mut now_ms = 0;
        for step in steps {
            match step {
                Step::Get(key) => {
                    let key = key.to_string();
                    prop_assert_eq!(version(&mut cache, &key, now_ms), model.get(&key, now_ms));
                }
                Step::Insert(key, size, version) => {
                    let key = key.to_string();
                    let document = document(&key, size);
                    model.insert(&key, cost_bytes(&document), version, now_ms);
                    cache.insert(hash_of(&key), document, version, now_ms);
                }
                Step::Remove(key) => {
                    let key = key.to_string();
                    cache.remove(hash_of(&key), entity(&key));
                    model.take(&key);
                }
                Step::Sweep => {
                    cache.sweep(now_ms, usize::MAX);
                    let (ttl_ms, held) = (ttl_ms, &mut model.held);
                    held.retain(|held| ttl_ms == 0 || now_ms - held.3 < ttl_ms);
                }
                Step::Clear => {
                    cache.clear();
                    model.held.clear();
                }
                Step::Wait(ms) => now_ms += ms,
            }
            cache.warm(0..50);
            let stats = cache.stats();
            prop_assert_eq!((stats.entries, stats.bytes), (model.held.len(), model.bytes()));
            prop_assert_eq!(cache.table.len(), model.held.len());
            prop_assert!(stats.bytes <= bytes_max && stats.entries <= entries_max);
        }
    }
}
