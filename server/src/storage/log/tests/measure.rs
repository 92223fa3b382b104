//! Figures, on demand: `cargo test --release -p deltadb --lib measure -- --ignored --nocapture`.

use super::*;
use crate::storage::log::testing::RealPlatform;
use std::time::Instant;

/// Time this thread spent on a processor; other load on the machine does not count.
fn processor_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<u64>().unwrap() / 1_000_000
}

#[test]
#[ignore = "writes half a gigabyte; run it in release"]
fn a_million_entities_of_400_bytes() {
    let entities: usize = std::env::var("ENTITIES").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let directory = tempfile::tempdir_in(".").unwrap();
    let keyring = Arc::new(Keyring::create(&TestPlatform::new(1).entropy, [7; 16], 0));
    let options = || LogOptions {
        create: true,
        directory: directory.path().join("shards/1/0"),
        identity: LogIdentity { store_id: [7; 16], generation: 1, shard: 0 },
        keyring: keyring.clone(),
        salvage: false,
        metrics: Metrics::new(1),
        sizes: LogSizes::default(),
    };
    let open = |label: &str| {
        let platform = RealPlatform::new();
        let (begun, processor) = (Instant::now(), processor_ms());
        let log = platform.executor.run(LogStorage::open(platform.clone(), options())).unwrap();
        let processor = processor_ms() - processor;
        println!("open {label}: {:?}, {processor} ms of processor; {:?}", begun.elapsed(), log.open_report());
        (platform, log)
    };
    let body = [b'1'; 400];
    let (platform, log) = open("fresh");
    let begun = Instant::now();
    let mut versions = Vec::new();
    let (mut append, mut commit) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
    for number in 0..entities {
        let key = format!("{:016x}", (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let started = Instant::now();
        log.append(&[put("schema", &key, &body)], &mut versions).unwrap();
        append += started.elapsed();
        if number % 256 == 255 || number + 1 == entities {
            let started = Instant::now();
            platform.executor.run(log.commit()).unwrap();
            commit += started.elapsed();
        }
    }
    println!("{} ms of processor so far", processor_ms());
    println!("wrote {entities} in {:?}: append {append:?}, commit {commit:?}", begun.elapsed());
    let status = log.status();
    let overhead = log.state.borrow().index.overhead_bytes();
    println!(
        "index: {} bytes an entity with its key, {} beyond it",
        status.index_bytes / entities as u64,
        overhead / entities
    );
    let begun = Instant::now();
    let reads = 100_000.min(entities);
    for number in 0..reads {
        let number = number * (entities / reads);
        let key = format!("{:016x}", (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        platform.executor.run(log.read(EntityRef { schema: "schema", key: &key })).unwrap().unwrap();
    }
    println!("{reads} device reads in {:?}", begun.elapsed());
    drop(log);
    let (platform, log) = open("after a kill, without a checkpoint");
    assert_eq!(log.status().entities, entities as u64);
    let begun = Instant::now();
    platform.executor.run(log.shutdown()).unwrap();
    println!("shutdown with checkpoint: {:?}", begun.elapsed());
    drop(log);
    let (_platform, log) = open("after a clean shutdown");
    assert_eq!(log.status().entities, entities as u64);
    let overhead = log.state.borrow().index.overhead_bytes();
    println!("index after loading: {} bytes an entity beyond its key", overhead / entities);
}
