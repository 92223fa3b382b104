//! Writes, reads, listings, restarts.

use super::*;
use crate::storage::Refusal;

#[test]
fn what_was_written_is_read_and_survives_every_kind_of_end() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    assert!(!log.open_report().clean);
    for number in 0..40 {
        fixture.put(&log, "s", &format!("k{number:03}"), format!("{{\"n\":{number}}}").as_bytes());
    }
    fixture.put(&log, "other", "k", b"1");
    fixture.put(&log, "s", "k001", b"\"again\"");
    fixture.delete(&log, "s", "k002");
    fixture.check(&log);
    drop(log);
    fixture.power_failure();

    let log = fixture.open();
    fixture.check(&log);
    let before = fixture.model.values().map(|(version, _)| *version).max().unwrap();
    let version = fixture.put(&log, "s", "after", b"2");
    assert!(version > before + fixture.sizes.records_in_flight, "versions in flight at the crash are skipped");
    fixture.shut_down(log);

    let log = fixture.open();
    assert!(log.open_report().clean);
    assert_eq!(log.open_report().frames_replayed, 0);
    fixture.check(&log);
    assert_eq!(fixture.put(&log, "s", "more", b"3"), version + 1, "a clean end skips nothing");
    fixture.shut_down(log);
    fixture.check(&fixture.open());
}

#[test]
fn nothing_is_visible_before_its_commit_and_a_batch_is_one_frame() {
    let fixture = Fixture::new();
    let log = fixture.open();
    let mut versions = Vec::new();
    log.append(&[put("s", "a", b"1"), put("s", "b", b"2")], &mut versions).unwrap();
    log.append(&[delete("s", "a")], &mut versions).unwrap();
    assert_eq!(versions, [1, 2, 3]);
    assert!(log.has_open_batch());
    assert_eq!(log.durable_version(EntityRef { schema: "s", key: "b" }), None);
    fixture.run(log.commit()).unwrap();
    assert!(!log.has_open_batch());
    assert_eq!(log.durable_version(EntityRef { schema: "s", key: "a" }), None);
    assert_eq!(log.durable_version(EntityRef { schema: "s", key: "b" }), Some(2));
    assert_eq!(log.metrics.shards[0].commits.value(), 1);
    assert_eq!(log.status().tombstones, 1);
}

#[test]
fn a_full_batch_says_so_and_takes_writes_again_after_its_commit() {
    let fixture = Fixture::new();
    let log = fixture.open();
    let mut versions = Vec::new();
    let mut accepted = 0;
    let refusal = loop {
        match log.append(&[put("s", &format!("k{accepted}"), b"1")], &mut versions) {
            Ok(()) => accepted += 1,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((accepted, refusal), (fixture.sizes.batch_records, Refusal::BatchFull));
    fixture.run(log.commit()).unwrap();
    log.append(&[put("s", "one more", b"1")], &mut versions).unwrap();
    let large = vec![b'1'; fixture.sizes.batch_bytes];
    assert_eq!(log.append(&[put("s", "large", &large)], &mut versions), Err(Refusal::BatchFull));
    assert_eq!(versions.len(), accepted + 1);
}

#[test]
fn segments_follow_each_other_and_double() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    let body = vec![b'7'; 3000];
    for number in 0..100 {
        fixture.put(&log, "s", &format!("k{number}"), &body);
    }
    fixture.settle();
    fixture.check(&log);
    assert!(log.status().segments > 5);
    let sizes: Vec<u64> = log.state.borrow().segments.listed().iter().map(|segment| segment.capacity.get()).collect();
    assert!(sizes.iter().all(|size| *size <= fixture.sizes.segment_bytes_max));
    drop(log);
    fixture.power_failure();
    fixture.check(&fixture.open());
}

#[test]
fn a_batch_may_span_segments_and_a_large_write_gets_a_segment_of_its_own() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    let body = vec![b'7'; 1000];
    for round in 0..30 {
        let keys: Vec<String> = (0..10).map(|number| format!("k{round}-{number}")).collect();
        let mut versions = Vec::new();
        for key in &keys {
            log.append(&[put("s", key, &body)], &mut versions).unwrap();
        }
        fixture.run(log.commit()).unwrap();
        for (key, version) in keys.into_iter().zip(versions) {
            fixture.model.insert(("s".to_owned(), key), (version, body.clone()));
        }
    }
    let large = vec![b'8'; 200 << 10];
    let waits = || log.figures().segment_wait_ns.bucket_counts().iter().sum::<u64>();
    let waited_before = waits();
    fixture.put(&log, "s", "large", &large);
    assert_eq!(waits(), waited_before + 1, "its segment was made for it");
    fixture.put(&log, "s", "small", b"1");
    fixture.check(&log);
    fixture.settle();
    drop(log);
    fixture.power_failure();
    let log = fixture.open();
    fixture.check(&log);
    fixture.shut_down(log);
    fixture.check(&fixture.open());
}

#[test]
fn appends_go_on_while_a_commit_is_in_flight() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    let mut versions = Vec::new();
    fixture.put(&log, "s", "first", b"1");
    for round in 0..50 {
        let key = format!("k{round}");
        log.append(&[put("s", &key, b"2")], &mut versions).unwrap();
        let next = format!("n{round}");
        fixture.run(async {
            let mut commit = std::pin::pin!(log.commit());
            let pending = futures_lite::future::poll_once(&mut commit).await;
            assert!(pending.is_none());
            log.append(&[put("s", &next, b"3")], &mut versions).unwrap();
            assert_eq!(log.durable_version(EntityRef { schema: "s", key: &next }), None);
            commit.await.unwrap();
            assert_eq!(log.durable_version(EntityRef { schema: "s", key: &next }), None);
            log.commit().await.unwrap();
        });
        fixture.model.insert(("s".into(), key), (versions[2 * round], b"2".to_vec()));
        fixture.model.insert(("s".into(), next), (versions[2 * round + 1], b"3".to_vec()));
    }
    fixture.check(&log);
    drop(log);
    fixture.power_failure();
    fixture.check(&fixture.open());
}

#[test]
fn lists_by_prefix_and_cursor() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    for key in ["a", "ab", "abc", "b", "é"] {
        fixture.put(&log, "s", key, b"1");
    }
    let keys = |prefix: &str, after: Option<&str>, limit| {
        let entries = log.list("s", prefix, after, limit);
        entries.into_iter().map(|(key, _)| key.into_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys("", None, 10), ["a", "ab", "abc", "b", "é"]);
    assert_eq!(keys("a", None, 2), ["a", "ab"]);
    assert_eq!(keys("a", Some("ab"), 10), ["abc"]);
    assert_eq!(keys("b", Some("a"), 10), ["b"]);
    assert_eq!(keys("", Some("b"), 10), ["é"]);
    assert!(log.list("none", "", None, 10).is_empty());
}

#[test]
fn the_tail_gets_an_empty_frame_and_an_idle_log_gets_no_more() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    fixture.put(&log, "s", "k", b"1");
    fixture.settle();
    let frames = log.state.borrow().chain.0;
    assert_eq!(frames, 2);
    fixture.settle();
    assert_eq!(log.state.borrow().chain.0, frames);
}

#[test]
fn a_shutdown_leaves_no_spare_files_and_an_idle_start_and_stop_changes_no_data() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    fixture.put(&log, "s", "k", b"1");
    fixture.shut_down(log);
    let names = |fixture: &Fixture| {
        let paths = fixture.platform.disk.paths();
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&fixture), ["1.ckpt", "1.seg", "MANIFEST"]);
    let (segment, checkpoint) =
        (fixture.platform.disk.get(&fixture.path("1.seg")), fixture.platform.disk.get(&fixture.path("1.ckpt")));
    let log = fixture.open();
    fixture.settle();
    fixture.shut_down(log);
    assert_eq!(names(&fixture), ["1.ckpt", "1.seg", "MANIFEST"]);
    assert_eq!(fixture.platform.disk.get(&fixture.path("1.seg")), segment);
    assert_eq!(fixture.platform.disk.get(&fixture.path("1.ckpt")), checkpoint);
}

#[test]
fn nothing_readable_is_on_the_disk() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    fixture.put(&log, "plantedschema", "plantedkey", b"\"planteddocument\"");
    fixture.delete(&log, "plantedschema", "plantedkey");
    fixture.put(&log, "plantedschema", "plantedkey2", b"\"planteddocument\"");
    fixture.shut_down(log);
    for path in fixture.platform.disk.paths() {
        let bytes = fixture.platform.disk.get(&path);
        assert!(!bytes.windows(7).any(|window| window == b"planted"), "plaintext in {}", path.display());
    }
}

#[test]
fn what_is_appended_while_a_commit_waits_its_turn_belongs_to_the_next_one() {
    let fixture = Fixture::new();
    let log = fixture.open();
    let mut versions = Vec::new();
    log.append(&[put("s", "a", b"1")], &mut versions).unwrap();
    let tail_or_roll = log.commit_lock.try_lock().unwrap();
    let mut commit = std::pin::pin!(log.commit());
    assert!(fixture.run(futures_lite::future::poll_once(commit.as_mut())).is_none());
    log.append(&[put("s", "b", b"2")], &mut versions).unwrap();
    drop(tail_or_roll);
    fixture.run(commit).unwrap();
    let durable = |key| log.durable_version(EntityRef { schema: "s", key });
    assert_eq!((durable("a"), durable("b")), (Some(1), None));
    assert!(log.has_open_batch());
    fixture.run(log.commit()).unwrap();
    assert_eq!(durable("b"), Some(2));
}

/// At a stop a second batch is taken while the first is still being written; a compaction waits for both.
#[test]
fn a_log_is_settled_once_every_batch_that_was_taken_is_durable() {
    let fixture = Fixture::new();
    let log = fixture.open();
    let mut versions = Vec::new();
    log.append(&[put("s", "a", b"1")], &mut versions).unwrap();
    let mut first = std::pin::pin!(log.commit());
    assert!(fixture.run(futures_lite::future::poll_once(first.as_mut())).is_none());
    log.append(&[put("s", "b", b"1")], &mut versions).unwrap();
    let mut second = std::pin::pin!(log.commit());
    assert!(fixture.run(futures_lite::future::poll_once(second.as_mut())).is_none());
    fixture.run(first).unwrap();
    assert!(!log.has_open_batch() && !log.state.borrow().is_settled());
    fixture.run(second).unwrap();
    assert!(log.state.borrow().is_settled());
}

#[test]
fn a_batch_that_filled_during_a_failed_commit_goes_with_it() {
    let fixture = Fixture::new();
    let log = fixture.open();
    let mut versions = Vec::new();
    log.append(&[put("s", "a", b"1")], &mut versions).unwrap();
    let tail_or_roll = log.commit_lock.try_lock().unwrap();
    let mut commit = std::pin::pin!(log.commit());
    assert!(fixture.run(futures_lite::future::poll_once(commit.as_mut())).is_none());
    log.append(&[put("s", "b", b"2")], &mut versions).unwrap();
    log.poison("the test says so".to_owned());
    drop(tail_or_roll);
    fixture.run(commit).unwrap_err();
    assert!(!log.has_open_batch(), "it was judged against versions that never became durable");
}
