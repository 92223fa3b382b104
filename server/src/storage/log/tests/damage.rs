//! Cut, flipped, missing, swapped and replayed: found at start or at read, never served.

use super::*;
use crate::storage::log::recovery::io_error;
use std::path::Path;

impl Fixture {
    fn open_and_read(&self) -> Result<Model, String> {
        let log = self.try_open().map_err(|error| error.to_string())?;
        if !log.open_report().damage.is_empty() {
            return Err(log.open_report().damage[0].to_string());
        }
        self.read_all(&log).map_err(|error| error.to_string())
    }

    fn damaged_copy(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Fixture {
        let disk = self.platform.disk.after_power_failure();
        let mut bytes = disk.get(path);
        change(&mut bytes);
        disk.put(path, &bytes);
        Fixture {
            platform: TestPlatform::with_disk(99, disk),
            keyring: self.keyring.clone(),
            sizes: self.sizes,
            model: self.model.clone(),
            seed: 99,
        }
    }
}

fn refuse(error: Result<TestLog, OpenError>) -> Damage {
    match error {
        Err(OpenError::Damaged(damage)) => damage,
        Err(other) => panic!("another refusal: {other}"),
        Ok(_) => panic!("a damaged log was opened"),
    }
}

/// A log with one frame a write, and where each frame began.
fn log_of_frames(fixture: &mut Fixture, writes: usize) -> Vec<(u64, Model)> {
    let log = fixture.open();
    let mut states = Vec::new();
    for number in 0..writes {
        let begin = log.state.borrow().lineage.front().map_or(4096, |segment| segment.written.get());
        states.push((begin, fixture.model.clone()));
        fixture.put(&log, "s", &format!("k{number}"), b"{\"some\":\"document\"}");
    }
    states
}

#[test]
fn the_log_cut_at_every_byte_of_its_last_frames_keeps_what_is_whole() {
    let mut fixture = Fixture::new();
    let states = log_of_frames(&mut fixture, 4);
    let path = fixture.path("1.seg");
    let bytes = fixture.platform.disk.get(&path);
    let frame_bytes = |begin: u64| {
        let length = &bytes[begin as usize + 44..][..4];
        u64::from(u32::from_le_bytes(length.try_into().unwrap()))
    };
    let (second, last) = (states[1].0, states[3].0);
    for cut in second..last + 512 {
        // A frame counts when all its bytes, its padding aside, lie before the cut.
        let whole = states.iter().filter(|(begin, _)| begin + frame_bytes(*begin) <= cut).count();
        let copy = fixture.damaged_copy(&path, |bytes| bytes[cut as usize..].fill(0));
        let found = copy.open_and_read().unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert_eq!(found.len(), whole, "cut at {cut}");
        assert!(found.iter().all(|(key, value)| fixture.model.get(key) == Some(value)));
    }
}

#[test]
fn damage_to_a_frame_with_a_later_one_is_refused_by_file_and_offset() {
    let mut fixture = Fixture::new();
    let states = log_of_frames(&mut fixture, 4);
    let path = fixture.path("1.seg");
    for (begin, _) in &states[..3] {
        for at in [0, 5, 30, 90, 120, 200] {
            let copy = fixture.damaged_copy(&path, |bytes| bytes[(begin + at) as usize] ^= 4);
            let damage = refuse(copy.try_open());
            assert_eq!((damage.file, damage.offset), (path.clone(), *begin));
        }
    }
}

#[test]
fn the_tail_frame_lets_damage_to_the_last_write_be_told_from_a_torn_one() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    fixture.put(&log, "s", "k", b"1");
    fixture.settle();
    drop(log);
    let path = fixture.path("1.seg");
    let copy = fixture.damaged_copy(&path, |bytes| bytes[4096 + 100] ^= 1);
    assert_eq!(refuse(copy.try_open()).offset, 4096);
}

#[test]
fn salvage_serves_what_is_intact_and_writes_nothing() {
    let mut fixture = Fixture::new();
    let states = log_of_frames(&mut fixture, 6);
    let path = fixture.path("1.seg");
    let copy = fixture.damaged_copy(&path, |bytes| bytes[states[2].0 as usize + 100] ^= 1);
    let before: Vec<_> = copy.platform.disk.paths().iter().map(|path| copy.platform.disk.get(path)).collect();
    let log = copy.salvage();
    let found = copy.read_all(&log).unwrap();
    assert_eq!(found.len(), 5);
    assert!(!found.contains_key(&("s".to_owned(), "k2".to_owned())));
    assert_eq!(log.open_report().damage[0].offset, states[2].0);
    assert!(matches!(
        log.append(&[put("s", "x", b"1")], &mut Vec::new()),
        Err(crate::storage::Refusal::ReadOnly { .. })
    ));
    copy.run(log.shutdown()).unwrap();
    let after: Vec<_> = copy.platform.disk.paths().iter().map(|path| copy.platform.disk.get(path)).collect();
    assert!(before == after);
}

#[test]
fn salvage_goes_on_without_manifest_checkpoint_or_a_segment() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    for number in 0..60 {
        fixture.put(&log, "s", &format!("k{number}"), &[b'1'; 1500]);
    }
    fixture.shut_down(log);
    let manifest = fixture.path("MANIFEST");
    let copy = fixture.damaged_copy(&manifest, |bytes| bytes[200] ^= 1);
    refuse(copy.try_open());
    let log = copy.salvage();
    assert_eq!(copy.read_all(&log).unwrap(), fixture.model);

    let copy = fixture.damaged_copy(&manifest, |_| {});
    copy.platform.disk.remove(&manifest);
    assert!(refuse(copy.try_open()).reason.contains("missing"));
    assert_eq!(copy.read_all(&copy.salvage()).unwrap(), fixture.model);

    let copy = fixture.damaged_copy(&manifest, |_| {});
    copy.platform.disk.remove(&fixture.path("1.seg"));
    assert_eq!(refuse(copy.try_open()).file, fixture.path("1.seg"));
    let log = copy.salvage();
    let found = copy.read_all(&log).unwrap();
    assert!(!found.is_empty() && found.len() < fixture.model.len());
    assert_eq!(log.open_report().entities_lost, (fixture.model.len() - found.len()) as u64);
}

#[test]
fn after_a_clean_shutdown_every_flipped_bit_is_found_at_open_or_at_read() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    for number in 0..12 {
        fixture.put(&log, "s", &format!("k{number}"), b"{\"some\":\"document\"}");
    }
    fixture.delete(&log, "s", "k3");
    fixture.settle();
    fixture.shut_down(log);
    assert_eq!(fixture.damaged_copy(&fixture.path("MANIFEST"), |_| {}).open_and_read().unwrap(), fixture.model);
    let disk = fixture.platform.disk.after_power_failure();
    for path in disk.paths() {
        let length = disk.get(&path).len();
        for byte in (0..length).filter(|byte| byte % 13 == 0 || byte % 4096 < 160) {
            let copy = fixture.damaged_copy(&path, |bytes| bytes[byte] ^= 1 << (byte % 8));
            assert!(copy.open_and_read().is_err(), "byte {byte} of {}", path.display());
        }
        for kept in [0, 100, length - 1, length.saturating_sub(512)].into_iter().filter(|kept| *kept < length) {
            let copy = fixture.damaged_copy(&path, |bytes| bytes.truncate(kept));
            assert!(copy.open_and_read().is_err(), "{} cut to {kept}", path.display());
        }
    }
}

#[test]
fn a_missing_swapped_or_older_segment_is_refused() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    for number in 0..60 {
        fixture.put(&log, "s", &format!("k{number}"), &[b'1'; 1500]);
    }
    fixture.settle();
    let disk = fixture.platform.disk.clone();
    let listed: Vec<PathBuf> = log.state.borrow().segments.listed().iter().map(|one| one.path.clone()).collect();
    drop(log);
    for path in &listed {
        let copy = fixture.damaged_copy(path, |_| {});
        copy.platform.disk.remove(path);
        assert_eq!(refuse(copy.try_open()).file, *path);
    }
    let (first, second) = (disk.get(&listed[0]), disk.get(&listed[1]));
    let copy = fixture.damaged_copy(&listed[0], |bytes| *bytes = second);
    copy.platform.disk.put(&listed[1], &first);
    refuse(copy.try_open());
}

#[test]
fn an_old_frame_put_back_is_refused() {
    let mut fixture = Fixture::new();
    let states = log_of_frames(&mut fixture, 3);
    let path = fixture.path("1.seg");
    let frame = (states[1].0 - states[0].0) as usize;
    let end = states[2].0 as usize + frame;
    let copy = fixture.damaged_copy(&path, |bytes| {
        let old = bytes[4096..4096 + frame].to_vec();
        bytes[end..end + frame].copy_from_slice(&old);
    });
    let damage = refuse(copy.try_open());
    assert_eq!(damage.offset as usize, end);
    assert!(damage.reason.contains("does not follow"));
    // Taking out a frame and moving the rest up shows as well.
    let copy = fixture.damaged_copy(&path, |bytes| {
        let last = bytes[states[2].0 as usize..end].to_vec();
        bytes[states[1].0 as usize..][..frame].copy_from_slice(&last);
        bytes[states[2].0 as usize..end].fill(0);
    });
    assert!(refuse(copy.try_open()).reason.contains("does not follow"));
}

#[test]
fn an_older_copy_of_a_listed_segment_is_refused() {
    let mut fixture = Fixture::new();
    let path = fixture.path("1.seg");
    let log = fixture.open();
    fixture.put(&log, "s", "k", b"1");
    let old = fixture.platform.disk.get(&path);
    for number in 0..60 {
        fixture.put(&log, "s", &format!("k{number}"), &[b'1'; 1500]);
    }
    // Segments follow: what the older copy lacks is missing in the chain.
    let copy = fixture.damaged_copy(&path, |bytes| *bytes = old.clone());
    assert_eq!(refuse(copy.try_open()).file, path);
    fixture.shut_down(log);
    let copy = fixture.damaged_copy(&path, |bytes| *bytes = old);
    assert_eq!(refuse(copy.try_open()).file, path);
}

/// A manifest from before a segment was listed would have the data in it removed as leftovers.
#[test]
fn an_older_manifest_is_refused_and_nothing_is_removed() {
    let mut fixture = Fixture::new();
    let manifest = fixture.path("MANIFEST");
    let log = fixture.open();
    fixture.put(&log, "s", "k", b"1");
    let old = fixture.platform.disk.get(&manifest);
    for number in 0..60 {
        fixture.put(&log, "s", &format!("k{number}"), &[b'1'; 1500]);
    }
    fixture.settle();
    let copy = fixture.damaged_copy(&manifest, |bytes| *bytes = old.clone());
    let paths = copy.platform.disk.paths();
    let damage = refuse(copy.try_open());
    assert_eq!(damage.file, manifest);
    assert!(damage.reason.contains("it is older than"), "{damage}");
    assert_eq!(copy.platform.disk.paths(), paths);
    let salvaged = copy.read_all(&copy.salvage()).unwrap();
    assert!(salvaged == fixture.model, "{} of {} entities", salvaged.len(), fixture.model.len());
    fixture.shut_down(log);
    refuse(fixture.damaged_copy(&manifest, |bytes| *bytes = old).try_open());
}

#[test]
fn a_damaged_checkpoint_is_reported_and_everything_is_scanned() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    for number in 0..60 {
        fixture.put(&log, "s", &format!("k{number:02}"), &[b'1'; 1500]);
    }
    for number in 0..30 {
        fixture.delete(&log, "s", &format!("k{number:02}"));
    }
    fixture.shut_down(log);
    let path = fixture.path("1.ckpt");
    let mut copy = fixture.damaged_copy(&path, |bytes| bytes[5000] ^= 1);
    for round in 0..2 {
        // A crash before the new checkpoint must not make it worse.
        let log = copy.open();
        assert_eq!(log.open_report().damage[0].file, path, "round {round}");
        drop(log);
        copy.power_failure();
    }
    let log = copy.open();
    assert_eq!(log.open_report().damage.len(), 1);
    copy.settle();
    copy.check(&log);
    copy.put(&log, "s", "new", b"1");
    copy.shut_down(log);
    let log = copy.open();
    assert!(log.open_report().damage.is_empty());
    copy.check(&log);
}

#[test]
fn keys_and_places_that_do_not_fit_are_named() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    fixture.put(&log, "s", "k", b"1");
    fixture.shut_down(log);
    let other = Arc::new(Keyring::create(&TestPlatform::new(55).entropy, [7; 16], 0));
    let right = std::mem::replace(&mut fixture.keyring, other);
    let key_id = right.active().id();
    assert!(matches!(fixture.try_open(), Err(OpenError::KeyMissing { key_id: id, .. }) if id == key_id));
    fixture.keyring = right;
    let mut options = fixture.options(false);
    options.identity.store_id = [8; 16];
    let opened = fixture.platform.run(LogStorage::open(fixture.platform.clone(), options));
    assert!(matches!(opened, Err(OpenError::Foreign { .. })));
    let path = fixture.path("MANIFEST");
    let copy = fixture.damaged_copy(&path, |bytes| bytes[8] = 9);
    let message = copy.try_open().err().unwrap().to_string();
    assert!(message.contains("version 9"), "{message}");
    let error = io_error("read", &path)(std::io::Error::other("x"));
    assert!(error.to_string().contains("MANIFEST"));
}

/// All segments with frames that a lost checkpoint covered may be gone: its place in the log is the manifest's to say.
#[test]
fn after_a_lost_checkpoint_with_no_frame_behind_it_the_log_goes_on_from_its_place() {
    let mut fixture = Fixture::new();
    let log = fixture.open();
    for number in 0..60 {
        fixture.put(&log, "s", &format!("k{number:03}"), &[b'1'; 1500]);
    }
    fixture.keyring = Arc::new(fixture.keyring.rotate(&fixture.platform.entropy, 1));
    fixture.run(log.adopt_keyring(fixture.keyring.clone())).unwrap();
    // Everything moves to segments under the new key, and the log's own are emptied.
    fixture.settle();
    fixture.settle();
    drop(log);
    fixture.power_failure();
    let disk = &fixture.platform.disk;
    let path = disk.paths().into_iter().find(|path| path.extension().is_some_and(|end| end == "ckpt")).unwrap();
    disk.remove(&path);
    let log = fixture.open();
    assert_eq!(log.open_report().damage.len(), 1);
    let frames = log.state.borrow().chain.0;
    assert!(frames >= 60, "the log goes on after frame {frames}");
    fixture.settle();
    fixture.put(&log, "s", "after", b"2");
    drop(log);
    fixture.power_failure();
    let log = fixture.open();
    assert!(log.open_report().damage.is_empty());
    fixture.check(&log);
}
