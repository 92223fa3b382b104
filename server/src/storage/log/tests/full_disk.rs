//! A disk without room, and one that fails before there is anything: simulated machines.

use super::*;
use crate::runtime::platform::{Clock, Disk, Platform};
use crate::runtime::sim::{Effect, Fault, Operation, Sim, SimPlatform, Survival};
use crate::storage::Refusal;
use futures_lite::future::{or, poll_once};
use std::time::Duration;

async fn open(platform: &SimPlatform) -> Result<Rc<LogStorage<SimPlatform>>, OpenError> {
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
    LogStorage::open(platform.clone(), options).await
}

/// Each document is too large for the segment planned before, so that one is planned behind another that has no space.
#[test]
fn a_commit_behind_a_segment_without_space_is_answered() {
    let sim = Sim::new(1);
    let platform = sim.platform();
    let run = async {
        let log = open(&platform).await.unwrap();
        platform.clock().sleep(Duration::from_secs(1)).await;
        sim.set_capacity_bytes(Some(sim.poke(|image| image.used_bytes()) + (8 << 10)));
        let mut refused = 0;
        for kib in [40, 50, 60, 70] {
            let body = vec![1; kib << 10];
            let appended = log.append(&[put("s", "k", &body)], &mut Vec::new());
            let late = async {
                platform.clock().sleep(Duration::from_secs(10)).await;
                panic!("a commit waits for space that does not come");
            };
            let committed = match appended {
                Ok(()) => or(log.commit(), late).await,
                Err(refusal) => Err(refusal.into()),
            };
            refused += usize::from(committed == Err(CommitError::Refused(Refusal::OutOfSpace)));
        }
        assert_eq!(refused, 4);
        sim.set_capacity_bytes(None);
        platform.clock().sleep(Duration::from_secs(2)).await;
        log.append(&[put("s", "k", b"there is room again")], &mut Vec::new()).unwrap();
        log.commit().await.unwrap();
    };
    sim.run_until(run).unwrap();
}

/// A segment that has its file, but found no space to grow, must not get the spare as another one: frames would go to a
/// file without a name.
#[test]
fn deletions_on_the_last_spare_are_where_a_restart_finds_them() {
    let sim = Sim::new(1);
    let platform = sim.platform();
    let run = async {
        let log = open(&platform).await.unwrap();
        let write = async |change: Change<'_>| -> Result<(), CommitError> {
            log.append(&[change], &mut Vec::new())?;
            log.commit().await
        };
        write(put("s", "gone", b"1")).await.unwrap();
        platform.clock().sleep(Duration::from_secs(1)).await;
        sim.set_capacity_bytes(Some(sim.poke(|image| image.used_bytes()) + (8 << 10)));
        // It fits no segment, so the planned one is to grow.
        let refused = write(put("s", "large", &[1; 60 << 10])).await;
        assert_eq!(refused, Err(CommitError::Refused(Refusal::OutOfSpace)));
        write(delete("s", "gone")).await.unwrap();
    };
    sim.run_until(run).unwrap();
    let next = Sim::on_disk(2, sim.power_loss_image().after_power_loss(Survival::Nothing, 0));
    next.set_capacity_bytes(None);
    let platform = next.platform();
    let log = next.run_until(open(&platform)).unwrap().unwrap();
    assert_eq!(log.status().entities, 0, "an acknowledged deletion is gone");
}

/// Room is made out of the spare while a new spare is made, in any order: one of the files stays.
#[test]
fn of_two_spares_one_is_kept_and_the_other_removed() {
    for steps in 0..24 {
        let mut fixture = Fixture::new();
        fixture.sizes.segment_bytes_first = 256 << 10;
        fixture.sizes.segment_bytes_max = 256 << 10;
        let log = fixture.open();
        fixture.settle();
        let mut makes_room = std::pin::pin!(log.make_room(1));
        assert!(fixture.run(poll_once(makes_room.as_mut())).is_none());
        let mut prepares = std::pin::pin!(log.prepare_segments());
        let prepared = (0..steps).any(|_| fixture.run(poll_once(prepares.as_mut())).is_some());
        fixture.run(makes_room);
        if !prepared {
            fixture.run(prepares).unwrap();
        }
        let is_spare = |path: &PathBuf| path.extension().is_some_and(|end| end == "tmp");
        let spares: Vec<_> = fixture.platform.disk.paths().into_iter().filter(is_spare).collect();
        let spare = log.state.borrow().spare.as_ref().map(|spare| spare.path.clone());
        assert_eq!(spares, Vec::from_iter(spare), "after {steps} steps of the preparation");
        assert!(prepared || steps < 23, "the preparation takes more steps");
    }
}

#[test]
fn a_file_that_finds_no_space_for_its_name_is_removed() {
    let sim = Sim::new(1);
    let platform = sim.platform();
    let run = async {
        let log = open(&platform).await.unwrap();
        platform.clock().sleep(Duration::from_secs(1)).await;
        const ENOSPC: i32 = 28;
        sim.inject(Fault::next(&[Operation::Rename], Effect::Error(ENOSPC)).on_path(".seg").times(4));
        let write = async |key: &str| -> Result<(), CommitError> {
            log.append(&[put("s", key, &[1; 4 << 10])], &mut Vec::new())?;
            log.commit().await
        };
        let mut refused = 0;
        for number in 0..60 {
            refused += usize::from(write(&format!("k{number}")).await.is_err());
            platform.clock().sleep(Duration::from_millis(100)).await;
        }
        assert!(refused > 0);
        write("there is space again").await.unwrap();
        platform.clock().sleep(Duration::from_secs(2)).await;
        let files = sim.poke(|image| image.list_files());
        let spares: Vec<_> =
            files.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "tmp")).collect();
        assert!(spares.len() == 1, "{spares:?}");
    };
    sim.run_until(run).unwrap();
}

/// Otherwise the store would count the shard as made, and take it for lost after a crash.
#[test]
fn a_shard_without_its_first_manifest_is_not_opened() {
    let sim = Sim::new(1);
    let platform = sim.platform();
    sim.inject(Fault::eio(&[Operation::Rename]).on_path("MANIFEST"));
    assert!(matches!(sim.run_until(open(&platform)).unwrap(), Err(OpenError::Io { .. })));
    sim.set_capacity_bytes(Some(0));
    let full = sim.run_until(open(&platform)).unwrap();
    assert!(matches!(full, Err(OpenError::Io { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull));
    sim.set_capacity_bytes(None);
    assert!(sim.run_until(open(&platform)).unwrap().is_ok());
}
