//! Two tasks publish, and the disk has room for the first only: what its manifest names besides is in force. Or a sync of
//! the directory fails: what others have named meanwhile counts for nothing.

use super::*;
use crate::runtime::platform::{Clock, Disk, Platform, Spawn, TaskClass};
use crate::runtime::sim::{Effect, Fault, Operation, Sim, SimPlatform, Survival};
use crate::storage::log::format::segment::SegmentKind;
use crate::storage::log::segment::SegmentState;
use crate::storage::log::state::{SegmentOf, State};
use std::time::Duration;

const ENOSPC: i32 = 28;

type SimLog = Rc<LogStorage<SimPlatform>>;

async fn open(platform: &SimPlatform) -> SimLog {
    platform.disk().create_dir_all("/shards/1/0".as_ref()).await.unwrap();
    let options = LogOptions {
        create: true,
        directory: "/shards/1/0".into(),
        identity: LogIdentity { store_id: [7; 16], generation: 1, shard: 0 },
        keyring: Arc::new(Keyring::create(&TestPlatform::new(1).entropy, [7; 16], 0)),
        salvage: false,
        metrics: Metrics::new(1),
        sizes: small_sizes(),
    };
    let log = LogStorage::open(platform.clone(), options).await.unwrap();
    platform.clock().sleep(Duration::from_secs(1)).await;
    log
}

async fn write(log: &SimLog, count: usize) {
    for number in 0..count {
        // A few stay, so that compaction has something to move.
        let key = if number % 8 == 0 { format!("stays{number}") } else { format!("k{}", number % 5) };
        log.append(&[put("s", &key, &[7; 2000])], &mut Vec::new()).unwrap();
        log.commit().await.unwrap();
    }
}

/// A segment that is listed on disk and is to be written must not be taken for one that nobody knows.
fn must_know_what_is_listed(state: &State<SimPlatform>) {
    for named in &state.manifest.segments {
        let known = state.segments.iter().find(|segment| segment.header.id == named.id);
        let forgotten = known.is_some_and(|one| one.state.get() != SegmentState::Sealed && !one.listed.get());
        assert!(!forgotten, "{} is listed on disk only", named.number);
    }
}

/// Lets a task set out to publish something while others wait to publish as well, and lets the disk have no space for
/// one of them: the first, the second or the third to come. Then the power goes; a start must find everything as it
/// should be.
fn one_finds_no_space(
    before: impl AsyncFn(&SimLog),
    begin: impl AsyncFn(&SimLog),
    is_waiting: impl Fn(&State<SimPlatform>) -> bool,
) {
    // Who waits longest need not come first: the seed decides.
    for (seed, skip) in (0..16).flat_map(|seed| (0..3).map(move |skip| (seed, skip))) {
        let sim = Sim::new(seed);
        let platform = sim.platform();
        let run = async {
            let log = open(&platform).await;
            before(&log).await;
            let guard = log.manifest_lock.lock().await;
            let other = log.clone();
            platform.spawn().spawn(TaskClass::Background, async move {
                let _ = other.publish_manifest(false).await;
            });
            platform.clock().sleep(Duration::from_micros(10)).await;
            begin(&log).await;
            while !is_waiting(&log.state.borrow()) {
                platform.clock().sleep(Duration::from_micros(100)).await;
            }
            // Every publication tries twice.
            let full = Fault::next(&[Operation::Write], Effect::Error(ENOSPC));
            sim.inject(full.on_path("MANIFEST").after(skip).times(2));
            drop(guard);
            for _ in 0..400 {
                platform.clock().sleep(Duration::from_micros(50)).await;
                must_know_what_is_listed(&log.state.borrow());
            }
            log
        };
        let log = sim.run_until(run).unwrap();
        {
            let state = log.state.borrow();
            assert!(state.check_writable().is_ok());
            let named = state.manifest.checkpoint.as_ref().map(|checkpoint| checkpoint.number);
            assert_eq!(
                named,
                state.checkpoint.as_ref().map(|checkpoint| checkpoint.number),
                "seed {seed}, skip {skip}"
            );
            for named in state.manifest.segments.iter().filter(|named| named.compacted) {
                let installed = state.segments.iter().any(|one| one.header.id == named.id && one.installed.get());
                assert!(installed, "seed {seed}, skip {skip}: {} is listed and not used", named.number);
            }
        }
        let entities = log.status().entities;
        drop(log);
        let next = Sim::on_disk(2, sim.power_loss_image().after_power_loss(Survival::Nothing, 0));
        let log = next.run_until(open(&next.platform())).unwrap();
        assert_eq!(log.open_report().damage, []);
        assert_eq!(log.status().entities, entities);
    }
}

async fn checkpoint(log: &SimLog) {
    log.state.borrow_mut().checkpoint_forced = true;
    log.signals.maintain.notify();
}

#[test]
fn a_checkpoint_that_another_manifest_names_stays() {
    // Few enough writes that no other segment is wanted meanwhile.
    one_finds_no_space(async |log| write(log, 4).await, checkpoint, |state| state.checkpoint.is_some());
}

#[test]
fn a_segment_that_another_manifest_lists_stays() {
    let begin = async |log: &SimLog| {
        log.append(&[put("s", "large", &[7; 50 << 10])], &mut Vec::new()).unwrap();
        let log = log.clone();
        log.clone().platform.spawn().spawn(TaskClass::Background, async move {
            let _ = log.commit().await;
        });
    };
    one_finds_no_space(
        async |_| {},
        begin,
        |state| {
            let on_disk =
                |one: &SegmentOf<SimPlatform>| state.manifest.segments.iter().any(|named| named.id == one.header.id);
            state.segments.iter().any(|segment| segment.listed.get() && !on_disk(segment))
        },
    );
}

#[test]
fn what_another_manifest_lists_of_a_compaction_is_put_to_use() {
    let before = async |log: &SimLog| {
        write(log, 90).await;
        checkpoint(log).await;
        while log.figures().checkpoints.value() == 0 {
            log.platform.clock().sleep(Duration::from_micros(10)).await;
        }
    };
    one_finds_no_space(
        before,
        async |_| {},
        |state| {
            let mut listed = state.segments.iter().filter(|segment| segment.listed.get());
            listed.any(|one| one.header.kind == SegmentKind::Compacted && !one.installed.get())
        },
    );
}

#[test]
fn what_is_named_beside_a_directory_sync_that_fails_is_not_taken_for_durable() {
    for (seed, skip) in (0..32).flat_map(|seed| (2..12).map(move |skip| (seed, skip))) {
        let sim = Sim::new(seed);
        let platform = sim.platform();
        let run = async {
            let log = open(&platform).await;
            write(&log, 4).await;
            checkpoint(&log).await;
            platform.clock().sleep(Duration::from_millis(20)).await;
            write(&log, 4).await;
            sim.inject(Fault::eio(&[Operation::SyncDir]).after(skip));
            let other = log.clone();
            let clock = platform.clock().clone();
            platform.spawn().spawn(TaskClass::Background, async move {
                for _ in 0..24 {
                    let _ = other.sync_directory().await;
                    clock.sleep(Duration::from_micros(20)).await;
                }
            });
            checkpoint(&log).await;
            platform.clock().sleep(Duration::from_millis(20)).await;
            log
        };
        let log = sim.run_until(run).unwrap();
        assert!(log.status().refuses_writes.is_some(), "a sync that fails poisons");
        let entities = log.status().entities;
        drop(log);
        let next = Sim::on_disk(2, sim.power_loss_image().after_power_loss(Survival::Nothing, 0));
        let log = next.run_until(open(&next.platform())).unwrap();
        assert_eq!(log.open_report().damage, [], "seed {seed}, skip {skip}");
        assert_eq!(log.status().entities, entities, "seed {seed}, skip {skip}");
    }
}
