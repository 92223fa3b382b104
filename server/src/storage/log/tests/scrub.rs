//! The scrub and the offline check: what nobody reads is read, and damage in it is named.

use super::*;
use crate::limits::{SCRUB_BYTES_PER_S_MIN, SCRUB_INTERVAL_MS, SCRUB_PIECE_BYTES};
use crate::runtime::platform::Clock;
use crate::storage::log::segment::{Segment, SegmentState};
use crate::storage::log::state::FileOf;
use std::time::Duration;

type TestSegment = Rc<Segment<FileOf<TestPlatform>>>;

impl Fixture {
    fn scrubbed() -> Self {
        let mut fixture = Fixture::new();
        fixture.sizes.scrub_bytes_per_s = 1 << 20;
        // What a start has not verified is what the scrub is for.
        fixture.sizes.verify_at_open_bytes = 0;
        fixture
    }

    fn wait(&self, time: Duration) {
        self.run(self.platform.clock.sleep(time));
    }

    /// Flips a bit under a running shard.
    pub(super) fn flip(&self, path: &std::path::Path, byte: u64) {
        let mut bytes = self.platform.disk.get(path);
        bytes[byte as usize] ^= 1;
        self.platform.disk.change(path, &bytes);
    }
}

/// Several segments with a few documents, a tombstone and a checkpoint; all sealed but the last.
fn fill(fixture: &mut Fixture) {
    let log = fixture.open();
    for number in 0..60 {
        fixture.put(&log, "s", &format!("k{number}"), &[b'1'; 1500]);
    }
    fixture.delete(&log, "s", "k7");
    fixture.shut_down(log);
}

fn sealed(log: &TestLog) -> Vec<TestSegment> {
    let mut listed = log.state.borrow().segments.listed();
    listed.retain(|segment| segment.state.get() == SegmentState::Sealed);
    listed
}

fn figures(log: &TestLog) -> (u64, u64, u64) {
    let figures = log.figures();
    (figures.scrub_passes.value(), figures.scrubbed_bytes.value(), figures.scrub_damage.value())
}

#[test]
fn a_pass_reads_everything_once_a_day_and_slowly() {
    let mut fixture = Fixture::scrubbed();
    fill(&mut fixture);
    let log = fixture.open();
    let bytes: u64 = sealed(&log).iter().map(|segment| segment.capacity.get()).sum();
    // The pace is the slowest there is; a piece goes before the first rest.
    fixture.wait(Duration::from_millis((bytes - SCRUB_PIECE_BYTES as u64) * 900 / SCRUB_BYTES_PER_S_MIN));
    assert_eq!(figures(&log).0, 0, "the pass was not spread");
    fixture.wait(Duration::from_secs(10));
    let (passes, scrubbed, damage) = figures(&log);
    assert_eq!((passes, damage), (1, 0));
    assert!(scrubbed >= bytes + fixture.platform.disk.get(&fixture.path("MANIFEST")).len() as u64, "{scrubbed}");
    assert!(log.figures().scrub_last_pass_seconds.value() > 1_600_000_000);
    fixture.wait(Duration::from_millis(SCRUB_INTERVAL_MS / 2));
    assert_eq!(figures(&log).1, scrubbed, "it goes on within the day");
    fixture.wait(Duration::from_millis(SCRUB_INTERVAL_MS / 2 + 60_000));
    assert_eq!(figures(&log).0, 2);
    fixture.shut_down(log);
}

#[test]
fn damage_that_no_reader_meets_is_told_with_file_and_offset_until_it_is_gone() {
    let mut fixture = Fixture::scrubbed();
    fill(&mut fixture);
    let log = fixture.open();
    let segment = sealed(&log)[0].clone();
    // The last byte before the footer is padding: no record holds it.
    let padding = segment.end.get().unwrap().offset - 1;
    fixture.flip(&segment.path, padding);
    fixture.check(&log);
    fixture.wait(Duration::from_secs(60));
    let told = log.status().damage;
    assert_eq!((figures(&log).2, told.len()), (1, 1), "{told:?}");
    assert!(told[0].contains("1.seg is damaged at offset"), "{told:?}");
    assert!(segment.damaged.get());
    fixture.flip(&segment.path, padding);
    fixture.wait(Duration::from_millis(SCRUB_INTERVAL_MS));
    assert_eq!(log.status().damage, Vec::<String>::new());
    fixture.shut_down(log);
}

#[test]
fn a_segment_that_is_found_sound_again_is_compacted_again() {
    let mut fixture = Fixture::scrubbed();
    fill(&mut fixture);
    let log = fixture.open();
    let segment = sealed(&log)[0].clone();
    let padding = segment.end.get().unwrap().offset - 1;
    fixture.flip(&segment.path, padding);
    fixture.wait(Duration::from_secs(60));
    assert!(segment.damaged.get());
    // Nothing in it is needed any more, and it stays nevertheless.
    for number in 0..60 {
        fixture.put(&log, "s", &format!("k{number}"), b"small");
    }
    log.state.borrow_mut().checkpoint_forced = true;
    log.signals.maintain.notify();
    fixture.wait(Duration::from_secs(60));
    assert_eq!((segment.live_records.get(), segment.listed.get()), (0, true));
    fixture.flip(&segment.path, padding);
    fixture.wait(Duration::from_millis(SCRUB_INTERVAL_MS));
    assert!(!segment.damaged.get() && !segment.listed.get());
    fixture.check(&log);
    fixture.shut_down(log);
}

#[test]
fn a_damaged_checkpoint_or_manifest_is_told_and_written_anew() {
    for name in ["1.ckpt", "MANIFEST"] {
        let mut fixture = Fixture::scrubbed();
        fill(&mut fixture);
        let log = fixture.open();
        // The start publishes manifests of its own.
        fixture.wait(Duration::from_secs(60));
        fixture.flip(&fixture.path(name), 200);
        fixture.wait(Duration::from_millis(SCRUB_INTERVAL_MS));
        let told = log.status().damage;
        assert!(told.len() == 1 && told[0].contains(name), "{name}: {told:?}");
        drop(log);
        fixture.power_failure();
        let log = fixture.open();
        assert_eq!(log.open_report().damage, [], "{name} was not written anew");
        fixture.check(&log);
    }
}

#[test]
fn a_record_that_a_reader_finds_damaged_is_told_too() {
    let mut fixture = Fixture::new();
    fixture.sizes.verify_at_open_bytes = 0;
    fill(&mut fixture);
    let log = fixture.open();
    fixture.flip(&fixture.path("1.seg"), 4096 + 200);
    fixture.read_all(&log).unwrap_err();
    let told = log.status().damage;
    assert!(told.len() == 1 && told[0].contains("1.seg"), "{told:?}");
}

#[test]
fn a_pass_goes_by_while_segments_come_and_go() {
    let mut fixture = Fixture::scrubbed();
    fixture.sizes.checkpoint_due_bytes = 128 << 10;
    let log = fixture.open();
    for round in 0..6 {
        for number in 0..60 {
            fixture.put(&log, "s", &format!("k{number}"), &[b'0' + round; 1500]);
        }
        fixture.wait(Duration::from_secs(2));
    }
    fixture.wait(Duration::from_secs(60));
    assert!(log.figures().compactions.value() > 0, "nothing was retired meanwhile");
    let (passes, _, damage) = figures(&log);
    assert_eq!((passes, damage), (1, 0));
    fixture.check(&log);
    fixture.shut_down(log);
}

impl Fixture {
    fn offline_check(&self) -> ShardCheck {
        let paths = self.platform.disk.paths();
        let options = LogOptions { create: false, ..self.options(false) };
        let check = self.run(check_shard(self.platform.clone(), options, |_, key| key != "stranger")).unwrap();
        assert_eq!(self.platform.disk.paths(), paths, "a check changes nothing");
        check
    }
}

#[test]
fn the_offline_check_finds_a_sound_shard_sound_and_names_what_is_left_over() {
    let mut fixture = Fixture::new();
    fill(&mut fixture);
    fixture.platform.disk.put(&fixture.path("77.seg"), b"left over");
    let check = fixture.offline_check();
    assert_eq!(check.damage, []);
    assert_eq!(check.leftovers, [fixture.path("77.seg")]);
    assert_eq!((check.entities, check.records), (59, 61));
    let bytes: usize = fixture.platform.disk.paths().iter().map(|path| fixture.platform.disk.get(path).len()).sum();
    assert_eq!(check.bytes, bytes as u64 - 9);
    assert_eq!(check.key_ids, [fixture.keyring.active().id()]);
    // A killed shard is sound too.
    let log = fixture.open();
    fixture.put(&log, "s", "late", b"1");
    drop(log);
    fixture.power_failure();
    assert_eq!(fixture.offline_check().damage, []);
}

#[test]
fn the_offline_check_names_every_damaged_place_and_goes_on() {
    let mut fixture = Fixture::new();
    fill(&mut fixture);
    let (first, second) = (fixture.path("1.seg"), fixture.path("2.seg"));
    // A record, a padding, a frame's header, a footer.
    let end = fixture.platform.disk.get(&second).len() as u64;
    for (path, byte) in [(&first, 4096 + 200), (&first, 3 * 4096 - 1), (&second, 4096 + 20), (&second, end - 500)] {
        fixture.flip(path, byte);
    }
    let places: Vec<_> = fixture.offline_check().damage.into_iter().map(|one| (one.file, one.offset)).collect();
    let frame = |offset: u64| offset - offset % 2048;
    let expected = [(first.clone(), 4096), (first, frame(3 * 4096 - 1)), (second.clone(), 4096), (second, end - 512)];
    assert_eq!(places, expected);
}

#[test]
fn the_offline_check_finds_missing_files_keys_and_strangers() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    fixture.put(&log, "s", "stranger", b"1");
    fixture.shut_down(log);
    assert!(fixture.offline_check().damage[0].reason.contains("belong to other shards"));
    let other = Arc::new(Keyring::create(&TestPlatform::new(55).entropy, [7; 16], 0));
    let right = std::mem::replace(&mut fixture.keyring, other);
    let damage = fixture.offline_check().damage;
    assert!(damage[0].reason.contains("the keyring does not hold"), "{damage:?}");
    fixture.keyring = right;
    for name in ["1.seg", "1.ckpt", "MANIFEST"] {
        let bytes = fixture.platform.disk.get(&fixture.path(name));
        fixture.platform.disk.remove(&fixture.path(name));
        let damage = fixture.offline_check().damage;
        assert!(damage.iter().any(|damage| damage.file == fixture.path(name)), "{name}: {damage:?}");
        fixture.platform.disk.put(&fixture.path(name), &bytes);
    }
    // Whatever lies behind a footer is not part of the segment.
    let mut bytes = fixture.platform.disk.get(&fixture.path("1.seg"));
    let end = bytes.len() as u64;
    bytes.extend_from_slice(&[0; 512]);
    fixture.platform.disk.put(&fixture.path("1.seg"), &bytes);
    assert!(fixture.offline_check().damage.iter().any(|damage| damage.offset == end));
}

/// A segment that fills and is sealed, and some more; until the disk is dead.
fn fill_a_segment(fixture: &mut Fixture, log: &TestLog) {
    for number in 0..26 {
        if fixture.try_put(log, "s", &format!("k{number}"), &[b'1'; 1500]).is_err() {
            return;
        }
    }
    fixture.settle();
}

#[test]
fn what_a_crash_or_a_dead_disk_leaves_anywhere_is_not_taken_for_damage() {
    let mut whole = Fixture::scrubbed();
    let log = whole.open();
    let before = whole.platform.disk.operations();
    fill_a_segment(&mut whole, &log);
    assert!(!sealed(&log).is_empty());
    let operations = whole.platform.disk.operations() - before;
    for dead_after in 0..operations {
        let mut fixture = Fixture::scrubbed();
        let log = fixture.open();
        fixture.platform.disk.die_after(dead_after);
        fill_a_segment(&mut fixture, &log);
        fixture.wait(Duration::from_millis(SCRUB_INTERVAL_MS));
        assert_eq!(log.status().damage, Vec::<String>::new(), "on a disk that died after {dead_after}");
        let disk = fixture.platform.disk.after_power_failure();
        drop(log);
        fixture.restart_on(disk);
        let log = fixture.open();
        fixture.wait(Duration::from_secs(60));
        assert_eq!((log.status().damage, figures(&log).0), (Vec::new(), 1), "after a crash after {dead_after}");
    }
}
