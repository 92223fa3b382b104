//! What the shard's cache costs: a hit, a miss, and an insert that evicts.

use criterion::{Criterion, criterion_group, criterion_main};
use deltadb::cache::{Cache, CacheOptions};
use deltadb::command::{Document, EntityRef};
use std::hint::black_box;

const ENTITIES: u64 = 100_000;

/// Spreads numbers over the hash space, as the index's hash does.
fn hash(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn document(key: &str) -> Document {
    Document::new(EntityRef { schema: "users", key }, &[b'x'; 400])
}

fn cache(criterion: &mut Criterion) {
    let keys: Vec<String> = (0..ENTITIES).map(|number| format!("user-{number:08}")).collect();
    let options = CacheOptions { bytes_max: 1 << 30, entries_max: ENTITIES as usize, ttl_ms: 0 };
    let mut cache = Cache::new(options);
    for (number, key) in (0..).zip(&keys) {
        cache.insert(hash(number), document(key), 1, 0);
    }
    let mut turn = 0u64;
    let mut next = move || {
        turn += 1;
        hash(turn) % ENTITIES
    };
    let entity = |number: u64| EntityRef { schema: "users", key: &keys[number as usize] };

    criterion.bench_function("cache_hit", |bencher| {
        bencher.iter(|| {
            let number = next();
            cache.get(black_box(hash(number)), entity(number), 0).map(|(version, _)| version)
        })
    });
    criterion.bench_function("cache_miss", |bencher| {
        bencher.iter(|| cache.get(black_box(!hash(next())), entity(0), 0).is_none())
    });
    // Half as many places as there are keys, taken in turn: every insert finds its key gone and evicts another.
    let mut cache = Cache::new(CacheOptions { entries_max: ENTITIES as usize / 2, ..options });
    let documents: Vec<Document> = keys.iter().map(|key| document(key)).collect();
    let mut turn = 0u64;
    criterion.bench_function("cache_insert_and_evict", |bencher| {
        bencher.iter(|| {
            turn += 1;
            let number = turn % ENTITIES;
            cache.insert(hash(number), documents[number as usize].clone(), turn, 0);
        })
    });
}

criterion_group!(benches, cache);
criterion_main!(benches);
