//! Failed writes, a full disk, crashes at every point.

use super::testing::Fault;
use super::*;
use crate::storage::Refusal;

#[test]
fn a_failed_short_or_torn_write_poisons_until_the_restart() {
    for fault in [Fault::Error, Fault::Short(512), Fault::Torn(700)] {
        let mut fixture = Fixture::new();
        let log = fixture.open();
        fixture.put(&log, "s", "before", b"1");
        fixture.settle();
        let mut versions = Vec::new();
        log.append(&[put("s", "in doubt", &[b'2'; 900])], &mut versions).unwrap();
        fixture.platform.disk.set_fault(fault);
        assert!(matches!(fixture.run(log.commit()), Err(CommitError::OutcomeUnknown { .. })));
        assert!(matches!(log.append(&[put("s", "k", b"1")], &mut versions), Err(Refusal::Poisoned { .. })));
        assert!(log.status().refuses_writes.is_some());
        fixture.check(&log);
        fixture.settle();
        assert!(fixture.run(log.shutdown()).is_err());
        drop(log);
        fixture.power_failure();
        let log = fixture.open();
        fixture.check(&log);
        fixture.put(&log, "s", "after", b"3");
        fixture.shut_down(log);
        fixture.check(&fixture.open());
    }
}

#[test]
fn a_write_appended_while_the_failing_one_was_in_flight_is_refused_not_unknown() {
    let fixture = Fixture::new();
    let log = fixture.open();
    let mut versions = Vec::new();
    log.append(&[put("s", "a", b"1")], &mut versions).unwrap();
    fixture.settle();
    fixture.platform.disk.set_fault(Fault::Error);
    fixture.run(async {
        let mut commit = std::pin::pin!(log.commit());
        assert!(futures_lite::future::poll_once(&mut commit).await.is_none());
        log.append(&[put("s", "b", b"1")], &mut versions).unwrap();
        assert!(matches!(commit.await, Err(CommitError::OutcomeUnknown { .. })));
        assert!(matches!(log.commit().await, Err(CommitError::Refused(Refusal::Poisoned { .. }))));
    });
}

#[test]
fn a_full_disk_refuses_writes_takes_deletions_and_heals_by_itself() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    let body = vec![b'1'; 2000];
    fixture.put(&log, "s", "k0", &body);
    fixture.settle();
    fixture.platform.disk.set_space(fixture.platform.disk.used() + (8 << 10));
    let mut number = 0;
    let refusal = loop {
        number += 1;
        fixture.settle();
        match fixture.try_put(&log, "s", &format!("k{number}"), &body) {
            Ok(_) => assert!(number < 1000, "the disk never filled"),
            Err(error) => break error,
        }
    };
    assert_eq!(refusal, CommitError::Refused(Refusal::OutOfSpace));
    assert!(log.status().refuses_writes.unwrap().contains("disk is full"));
    fixture.check(&log);
    for gone in 0..10 {
        fixture.delete(&log, "s", &format!("k{gone}"));
    }
    fixture.check(&log);
    fixture.platform.disk.set_space(u64::MAX);
    fixture.settle();
    fixture.settle();
    assert_eq!(log.status().refuses_writes, None);
    fixture.put(&log, "s", "again", &body);
    fixture.shut_down(log);
    fixture.check(&fixture.open());
}

#[test]
fn deleting_frees_a_full_disk_through_compaction() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    let body = vec![b'1'; 2000];
    fixture.platform.disk.set_space(600 << 10);
    let mut number = 0;
    while fixture.try_put(&log, "s", &format!("k{number:04}"), &body).is_ok() {
        number += 1;
        fixture.settle();
        assert!(number < 2000, "the disk never filled");
    }
    for gone in (0..number).filter(|number| number % 5 != 0) {
        let key = format!("k{gone:04}");
        fixture.delete(&log, "s", &key);
        fixture.settle();
    }
    fixture.settle();
    fixture.put(&log, "s", "again", &body);
    fixture.check(&log);
    drop(log);
    fixture.power_failure();
    fixture.check(&fixture.open());
}

/// Writes until one is refused for want of space; returns the refused one's number.
fn fill_up(fixture: &mut Fixture, log: &TestLog, body: &[u8]) -> usize {
    for number in 0.. {
        match fixture.try_put(log, "s", &format!("k{number}"), body) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, CommitError::Refused(Refusal::OutOfSpace));
                return number;
            }
        }
    }
    unreachable!("the disk never fills")
}

#[test]
fn once_a_document_is_refused_for_space_all_are_until_there_is_room_and_the_status_says_so() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    fixture.settle();
    assert!(log.takes_writes());
    fixture.platform.disk.set_space(fixture.platform.disk.used());
    assert!(log.takes_writes(), "the segment at hand has room");
    fill_up(&mut fixture, &log, &[b'1'; 3000]);
    // A small one would still fit behind the last that did.
    for _ in 0..3 {
        assert!(!log.takes_writes() && log.status().refuses_writes.is_some());
        assert_eq!(log.append(&[put("s", "small", b"1")], &mut Vec::new()), Err(Refusal::OutOfSpace));
        fixture.settle();
    }
    fixture.platform.disk.set_space(u64::MAX);
    fixture.settle();
    assert!(log.takes_writes() && log.status().refuses_writes.is_none(), "it has to be found without a write");
    fixture.put(&log, "s", "small", b"1");
    fixture.check(&log);
}

#[test]
fn where_a_full_size_segment_has_no_room_a_smaller_one_is_prepared() {
    let mut fixture = Fixture::new();
    fixture.sizes.segment_bytes_max = 1 << 20;
    let log = fixture.open();
    for number in 0..200 {
        fixture.put(&log, "s", &format!("full{number}"), &[b'1'; 6000]);
    }
    fixture.settle();
    fixture.platform.disk.set_space(fixture.platform.disk.used());
    fill_up(&mut fixture, &log, &[b'1'; 6000]);
    // Far less than the next segment wants, and more than the first one took.
    let room = 2 * fixture.sizes.segment_bytes_first + fixture.sizes.space_kept_bytes;
    fixture.platform.disk.set_space(fixture.platform.disk.used() + room);
    fixture.settle();
    assert!(log.takes_writes());
    fixture.put(&log, "s", "again", &[b'1'; 6000]);
    fixture.check(&log);
    drop(log);
    fixture.power_failure();
    fixture.check(&fixture.open());
}

/// A workload that uses every part; returns the acknowledged writes as far as it came.
fn workload(fixture: &mut Fixture) -> Result<(), String> {
    let log = fixture.try_open().map_err(|error| error.to_string())?;
    let body = vec![b'1'; 1500];
    let step = |result: Result<u64, CommitError>| result.map(drop).map_err(|error| error.to_string());
    for round in 0..3 {
        for number in 0..24 {
            let result = fixture.try_put(&log, "s", &format!("k{:02}", (number * 5 + round) % 30), &body);
            step(result)?;
        }
        for number in 0..6 {
            let result = fixture.try_delete(&log, "s", &format!("k{:02}", number * 3 + round));
            step(result)?;
        }
        log.state.borrow_mut().checkpoint_forced = true;
        log.signals.maintain.notify();
        fixture.settle();
    }
    fixture.run(log.shutdown()).map_err(|error| error.to_string())
}

#[test]
fn a_crash_at_every_change_of_the_disk_loses_nothing_acknowledged() {
    let mut whole = Fixture::new();
    workload(&mut whole).unwrap();
    let operations = whole.platform.disk.operations();
    assert!(operations > 200, "{operations} operations");
    for crash_at in (0..operations).step_by(3) {
        for power_failure in [true, false] {
            let mut fixture = Fixture::new();
            fixture.platform.disk.die_after(crash_at);
            let before = workload(&mut fixture);
            assert!(before.is_err() || crash_at + 8 > operations, "{crash_at}");
            let disk = &fixture.platform.disk;
            let disk = if power_failure { disk.after_power_failure() } else { disk.after_kill() };
            fixture.restart_on(disk);
            let log = fixture.try_open().unwrap_or_else(|error| panic!("crash at {crash_at}: {error}"));
            let found = fixture.read_all(&log).unwrap();
            // One write may have been in doubt; everything else is as acknowledged.
            let differing = found.iter().filter(|(key, value)| fixture.model.get(*key) != Some(value)).count()
                + fixture.model.keys().filter(|key| !found.contains_key(*key)).count();
            assert!(differing <= 1, "crash at {crash_at}: {differing} entities differ");
            fixture.model = found;
            fixture.put(&log, "s", "after", b"1");
            fixture.shut_down(log);
            let log = fixture.open();
            assert!(log.open_report().damage.is_empty());
            fixture.check(&log);
        }
    }
}
