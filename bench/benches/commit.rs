//! What putting a commit together costs: copying, sealing and framing records of 400 bytes, without any disk.
//!
//! The log runs on a simulated machine, whose disk is memory. Appending is timed; carrying the commit out is not,
//! except in the second figure, which holds the whole of it: finishing the frame, the simulated write, and the index.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use deltadb::command::EntityRef;
use deltadb::crypto::keyring::Keyring;
use deltadb::metrics::Metrics;
use deltadb::runtime::platform::Platform;
use deltadb::runtime::sim::{Sim, SimPlatform};
use deltadb::storage::log::{LogIdentity, LogOptions, LogSizes, LogStorage};
use deltadb::storage::{Change, Mutation, Storage};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEYS: usize = 10_000;
const STORE_ID: [u8; 16] = [7; 16];

fn open(sim: &Sim) -> Rc<LogStorage<SimPlatform>> {
    let platform = sim.platform();
    let options = LogOptions {
        directory: "/shard".into(),
        create: true,
        identity: LogIdentity { store_id: STORE_ID, generation: 1, shard: 0 },
        keyring: Arc::new(Keyring::create(platform.entropy(), STORE_ID, 0)),
        salvage: false,
        metrics: Metrics::new(1),
        sizes: LogSizes::default(),
    };
    let opened = sim.run_until(LogStorage::open(platform, options));
    opened.unwrap_or_else(|halt| panic!("the simulation stopped: {halt:?}")).expect("an empty disk can be opened")
}

fn commit(criterion: &mut Criterion) {
    let keys: Vec<String> = (0..KEYS).map(|number| format!("key-{number:012}")).collect();
    let document = [b'7'; 400];
    for records in [1usize, 64, 256] {
        let mut group = criterion.benchmark_group(format!("commit_of_{records}"));
        group.throughput(Throughput::Elements(records as u64));
        group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
        for (name, is_whole) in [("assemble", false), ("assemble_and_apply", true)] {
            let sim = Sim::new(1);
            sim.set_step_limit(u64::MAX);
            let log = open(&sim);
            let mut next = (0..KEYS).cycle();
            let mut versions = Vec::new();
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..rounds {
                        versions.clear();
                        let begun = Instant::now();
                        for key in next.by_ref().take(records) {
                            let entity = EntityRef { schema: "bench", key: &keys[key] };
                            let change = Change { entity, mutation: Mutation::Put(&document) };
                            log.append(&[change], &mut versions).expect("the batch has room");
                        }
                        let appended = begun.elapsed();
                        sim.run_until(log.commit()).expect("the simulation goes on").expect("no fault was injected");
                        spent += if is_whole { begun.elapsed() } else { appended };
                    }
                    spent
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, commit);
criterion_main!(benches);
