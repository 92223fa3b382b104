//! What sealing and opening cost, by size: AES-256-GCM in place under a key whose schedule is expanded already.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use deltadb::crypto::keyring::Keyring;
use deltadb::crypto::seal::{Purpose, SealingKey};
use deltadb::runtime::platform::Platform;
use deltadb::runtime::sim::Sim;
use std::hint::black_box;

/// What a record's clear header and its place bind it by.
const AAD: [u8; 96] = [3; 96];
const NONCE: [u8; 12] = [9; 12];

fn seal(criterion: &mut Criterion) {
    let keyring = Keyring::create(Sim::new(1).platform().entropy(), [7; 16], 0);
    let mut group = criterion.benchmark_group("seal");
    for bytes in [16usize, 400, 4096, 65_536] {
        group.throughput(Throughput::Bytes(bytes as u64));
        let key = SealingKey::derive(keyring.active(), &[1; 32], Purpose::Segment);
        let mut buffer = vec![0x5a; bytes];
        group.bench_with_input(BenchmarkId::new("seal", bytes), &bytes, |bencher, _| {
            bencher.iter(|| key.seal_in_place(black_box(&NONCE), &AAD, &mut buffer).expect("it is short enough"));
        });
        let mut sealed = vec![0x5a; bytes];
        let tag = key.seal_in_place(&NONCE, &AAD, &mut sealed).expect("it is short enough");
        group.bench_with_input(BenchmarkId::new("open", bytes), &bytes, |bencher, _| {
            bencher.iter_batched_ref(
                || sealed.clone(),
                |buffer| key.open_in_place(black_box(&NONCE), &AAD, buffer, &tag).expect("it was sealed by this key"),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    criterion.bench_function("derive_a_segment_key", |bencher| {
        bencher.iter(|| SealingKey::derive(keyring.active(), black_box(&[1; 32]), Purpose::Segment));
    });
}

criterion_group!(benches, seal);
criterion_main!(benches);
