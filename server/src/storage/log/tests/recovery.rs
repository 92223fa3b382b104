//! What a start must make durable and record before anything builds on it.

use super::conformance::LogUnderTest;
use super::*;
use crate::runtime::platform::{Disk, Platform};
use crate::runtime::sim::{Sim, Survival};
use crate::storage::conformance::StorageUnderTest;
use std::path::Path;

/// A kill leaves a frame in the page cache; the next start takes it, and then the power fails.
#[test]
fn a_recovered_end_is_durable_before_the_manifest_tells_of_it() {
    let mut fixture = Fixture::new();
    let path = fixture.path("1.seg");
    let log = fixture.open();
    fixture.put(&log, "s", "durable", b"1");
    let synced = fixture.platform.disk.get(&path);
    fixture.put(&log, "s", "in the page cache", b"2");
    let shown = fixture.platform.disk.get(&path);
    let disk = fixture.platform.disk.after_power_failure();
    disk.put(&path, &synced);
    disk.put_unsynced(&path, &shown);
    drop(log);
    fixture.restart_on(disk);
    let log = fixture.open();
    fixture.check(&log);
    drop(log);
    fixture.power_failure();
    fixture.check(&fixture.open());
}

#[test]
fn names_that_a_killed_start_left_unsynced_are_synced_by_the_next() {
    let directory = Path::new("/data");
    let under_test = LogUnderTest::small();
    let sim = Sim::new(1);
    let made = async {
        let platform = sim.platform();
        platform.disk().create_dir_all(&directory.join("shards/0/0")).await?;
        platform.disk().sync_dir(Path::new("/")).await
    };
    sim.run_until(made).unwrap().unwrap();
    let sim = Sim::on_disk(2, sim.kill());
    let platform = sim.platform();
    let written = async {
        let log = under_test.open(&platform, directory).await?;
        log.append(&[put("s", "k", b"1")], &mut Vec::new()).map_err(|refusal| refusal.to_string())?;
        log.commit().await.map_err(|error| error.to_string())
    };
    sim.run_until(written).unwrap().unwrap();
    let image = sim.power_loss_image().after_power_loss(Survival::Nothing, 3);
    let sim = Sim::on_disk(4, image);
    let platform = sim.platform();
    let found = sim.run_until(async {
        let log = under_test.open(&platform, directory).await?;
        Ok::<_, String>(log.durable_version(EntityRef { schema: "s", key: "k" }))
    });
    assert!(found.unwrap().unwrap().is_some());
}

#[test]
fn a_version_given_out_after_a_clean_start_is_not_given_out_again_after_a_kill() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    fixture.put(&log, "s", "k", b"1");
    fixture.shut_down(log);
    let log = fixture.open();
    assert!(log.open_report().clean);
    let mut versions = Vec::new();
    log.append(&[put("s", "k", b"2")], &mut versions).unwrap();
    drop(log);
    fixture.restart_on(fixture.platform.disk.after_kill());
    let log = fixture.open();
    assert!(!log.open_report().clean);
    log.append(&[put("s", "k", b"3")], &mut versions).unwrap();
    assert!(versions[1] > versions[0], "{versions:?}");
}

/// While no manifest can be written, versions could be given out twice: none is given out at all.
#[test]
fn a_start_on_a_full_disk_gives_out_no_version_until_there_is_room() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    fixture.put(&log, "s", "k", b"1");
    fixture.shut_down(log);
    fixture.platform.disk.set_space(0);
    let log = fixture.open();
    fixture.check(&log);
    let refused = log.append(&[delete("s", "k")], &mut Vec::new());
    assert_eq!(refused, Err(crate::storage::Refusal::OutOfSpace));
    fixture.platform.disk.set_space(u64::MAX);
    fixture.settle();
    fixture.delete(&log, "s", "k");
    fixture.check(&log);
}

#[test]
fn a_shard_that_must_be_there_but_has_no_manifest_is_a_lost_one() {
    let fixture = Fixture::new();
    let options = LogOptions { create: false, ..fixture.options(false) };
    let opened = fixture.run(LogStorage::open(fixture.platform.clone(), options));
    let Err(OpenError::Damaged(damage)) = opened else { panic!("a lost shard was opened") };
    assert_eq!(damage.file, fixture.path("MANIFEST"));
    assert!(fixture.platform.disk.paths().is_empty(), "something was made for it");
}

/// Killed again and again, a server must not fill the disk with segments that it did not fill.
#[test]
fn kills_leave_no_more_on_disk_than_was_written() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    fixture.put(&log, "s", "first", b"1");
    let path = fixture.path("1.seg");
    let at_work = fixture.platform.disk.get(&path).len();
    drop(log);
    fixture.restart_on(fixture.platform.disk.after_kill());
    drop(fixture.open());
    let recovered = fixture.platform.disk.get(&path).len();
    assert!(recovered * 2 < at_work, "{recovered} of {at_work} bytes are left of a segment with one record");
    fixture.power_failure();
    fixture.check(&fixture.open());
}

#[test]
fn segments_that_kills_leave_are_merged_however_little_they_hold() {
    let mut fixture = Fixture::new();
    let kills = 2 * crate::limits::SEGMENTS_WITHOUT_CHECKPOINT_MAX;
    for kill in 0..kills {
        let log = fixture.open();
        fixture.put(&log, "s", &format!("k{}", kill % 5), b"1");
        fixture.settle();
        drop(log);
        fixture.restart_on(fixture.platform.disk.after_kill());
    }
    let names = fixture.platform.disk.paths();
    let segments = names.iter().filter(|path| path.extension().is_some_and(|extension| extension == "seg")).count();
    assert!(segments < kills - 20, "{segments} segments are left of {kills} kills");
    fixture.check(&fixture.open());
}
