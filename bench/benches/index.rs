//! What the index of one shard costs with a million entities: finding one, replacing, inserting, and a page of a list.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use deltadb::command::EntityRef;
use deltadb::storage::log::index::{Index, Place};
use std::hint::black_box;

const ENTITIES: u64 = 1_000_000;
const SCHEMA: &str = "users";
const PAGE: usize = 100;
/// Entities inserted between two looks at the clock.
const FRESH: u64 = 10_000;

fn key(number: u64) -> String {
    format!("user-{:012}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000_000_000_000)
}

fn place(number: u64) -> Place {
    Place { slot: (number >> 16) as u32, offset: (number as u32 & 0xffff) * 512, length: 470 }
}

fn entity(key: &str) -> EntityRef<'_> {
    EntityRef { schema: SCHEMA, key }
}

fn index(criterion: &mut Criterion) {
    let keys: Vec<String> = (0..ENTITIES).map(key).collect();
    let mut index = Index::new(0x5eed);
    for (number, key) in (0..).zip(&keys) {
        index.put(entity(key), number + 1, place(number));
    }
    assert_eq!(index.len(), ENTITIES);
    let mut turn = 0u64;
    let mut next = move || {
        turn = turn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((u128::from(turn) * u128::from(ENTITIES)) >> 64) as usize
    };
    criterion.bench_function("index_find_among_a_million", |bencher| {
        bencher.iter(|| index.find(entity(black_box(&keys[next()]))).map(|found| found.version));
    });
    criterion.bench_function("index_miss_among_a_million", |bencher| {
        bencher.iter(|| index.find(entity(black_box("user-nobody"))).is_none());
    });
    let mut version = ENTITIES;
    criterion.bench_function("index_replace_among_a_million", |bencher| {
        bencher.iter(|| {
            version += 1;
            index.put(entity(&keys[next()]), version, place(version))
        });
    });
    let mut group = criterion.benchmark_group("index_list");
    group.throughput(Throughput::Elements(PAGE as u64));
    group.bench_function("page_of_100", |bencher| {
        bencher.iter(|| index.list(SCHEMA, "user-", Some(black_box(&keys[next()])), PAGE));
    });
    group.finish();
    let mut group = criterion.benchmark_group("index_insert");
    group.throughput(Throughput::Elements(FRESH));
    group.sample_size(20);
    group.bench_function("10000_into_an_empty_one", |bencher| {
        bencher.iter_batched(
            || Index::new(0x5eed),
            |mut index| {
                for (number, key) in (0..FRESH).zip(&keys) {
                    index.put(entity(key), number + 1, place(number));
                }
                index
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, index);
criterion_main!(benches);
