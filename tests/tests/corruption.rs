//! Corruption of a closed store: every bit flipped, every file cut at every length, files and frames and records
//! removed, swapped, put back and mixed. A start or a read must refuse or report each, and `check` must name it.
//!
//! In process, on a simulated disk. The everyday run tries a part of the bits and lengths, another one each day; the
//! long one tries all.

use delta_tests::long;
use delta_tests::small_store::{Documents, Life, check, live, open_and_read, protected_files};
use deltadb::runtime::sim::{DiskImage, Random};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Of so many bits or lengths, one is tried in the everyday run, and each in so many days. Odd, so that every bit of a
/// byte has its turn in one run.
const STRIDE: u64 = 41;

/// A small closed store, and what it holds: something of everything there is.
fn small() -> (DiskImage, Documents) {
    let life = Life {
        seed: 1,
        shards: 1,
        documents: 6,
        document_bytes: 40,
        rounds: 4,
        rotates: true,
        frame_records: 2,
        kept: 2,
        rotates_at_end: true,
    };
    let (disk, documents) = closed(life);
    let files = protected_files(&disk);
    let segments: Vec<_> = files.iter().filter(|(path, _)| is_segment(path)).map(|(_, bytes)| bytes).collect();
    let of_kind = |kind| segments.iter().filter(|bytes| bytes[KIND_AT] == kind).count();
    assert!(of_kind(COMMIT_KIND) > 0 && of_kind(COMPACTED_KIND) > 0, "commit and compacted segments");
    let keys: BTreeSet<_> = segments.iter().map(|bytes| &bytes[DATA_KEY_AT]).collect();
    assert_eq!(keys.len(), 2, "segments lie under two data keys");
    assert!(files.iter().any(|(path, _)| path.extension().is_some_and(|ext| ext == "ckpt")), "a checkpoint");
    let crowded = |bytes: &Vec<u8>| frames(bytes).into_iter().any(|frame| records(bytes, frame).len() > 1);
    assert!(segments.iter().any(|bytes| bytes[KIND_AT] == COMMIT_KIND && crowded(bytes)), "a frame of several records");
    (disk, documents)
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "seg")
}

/// One with several shards, segments, keys and compacted segments.
fn richer(seed: u64) -> (DiskImage, Documents) {
    closed(Life {
        seed,
        shards: 2,
        documents: 12,
        document_bytes: 2000,
        rounds: 4,
        rotates: true,
        frame_records: 1,
        kept: 0,
        rotates_at_end: false,
    })
}

fn closed(life: Life) -> (DiskImage, Documents) {
    let mut documents = Documents::new();
    let disk = live(life, DiskImage::default(), &mut documents);
    assert_eq!(open_and_read(&disk).as_ref(), Ok(&documents), "an undamaged store is whole");
    assert_eq!(check(&disk), Ok(Vec::new()), "an undamaged store is sound");
    (disk, documents)
}

fn change(disk: &DiskImage, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> DiskImage {
    let mut bytes = disk.peek(path).expect("the file is there");
    change(&mut bytes);
    let mut changed = disk.clone();
    changed.replace(path, &bytes).expect("a disk that can be written");
    changed
}

/// Neither a start with all reads nor a check takes this disk for whole; the check names the file.
fn must_show(what: &str, disk: &DiskImage, file: Option<&Path>) {
    if let Ok(documents) = open_and_read(disk) {
        panic!("{what}: opened and read {} documents without a word", documents.len());
    }
    let told = match check(disk) {
        Err(refusal) => vec![refusal],
        Ok(damage) => damage,
    };
    assert!(!told.is_empty(), "{what}: the check found nothing");
    if let Some(file) = file {
        assert!(told.iter().any(|line| line.contains(&file.display().to_string())), "{what}: {told:?}");
    }
}

/// Tries numbers below `count`: all of them, or the part that the seed and the day have. Two threads share them.
fn each_of(count: u64, seed: u64, attempt: impl Fn(u64) + Sync) {
    let stride = if long::is_asked_for() { 1 } else { STRIDE };
    let first = (Random::new(seed).below(stride) + day()) % stride.min(count);
    let numbers: Vec<u64> = (first..count).step_by(stride as usize).collect();
    let (lower, upper) = numbers.split_at(numbers.len() / 2);
    std::thread::scope(|scope| {
        for part in [lower, upper] {
            scope.spawn(|| part.iter().for_each(|number| attempt(*number)));
        }
    });
}

/// Days since 1970, in UTC.
fn day() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock past 1970");
    now.as_secs() / (24 * 60 * 60)
}

#[test]
fn every_flipped_bit_is_refused_or_reported_and_named_by_the_check() {
    let files = protected_files(&small().0);
    for (position, (path, bytes)) in files.iter().enumerate() {
        each_of(bytes.len() as u64 * 8, position as u64, |bit| {
            let what = format!("{} with bit {} of byte {} flipped", path.display(), bit % 8, bit / 8);
            let damaged = with_files(&files, path, |bytes| bytes[bit as usize / 8] ^= 1 << (bit % 8));
            must_show(&what, &damaged, Some(path));
        });
    }
}

#[test]
fn every_cut_is_refused_or_reported_and_named_by_the_check() {
    let files = protected_files(&small().0);
    for (position, (path, bytes)) in files.iter().enumerate() {
        each_of(bytes.len() as u64, position as u64, |len| {
            let damaged = with_files(&files, path, |bytes| bytes.truncate(len as usize));
            must_show(&format!("{} cut to {len} bytes", path.display()), &damaged, Some(path));
        });
    }
}

/// Disk images belong to one thread: each attempt puts one together.
fn with_files(files: &[(PathBuf, Vec<u8>)], changed: &Path, change: impl FnOnce(&mut Vec<u8>)) -> DiskImage {
    let mut disk = DiskImage::default();
    let mut change = Some(change);
    for (path, bytes) in files {
        let mut bytes = bytes.clone();
        if path == changed
            && let Some(change) = change.take()
        {
            change(&mut bytes);
        }
        disk.replace(path, &bytes).expect("a disk that can be written");
    }
    disk
}

#[test]
fn a_file_removed_or_swapped_with_another_is_refused_or_reported() {
    let (disk, _) = richer(1);
    let files = protected_files(&disk);
    let kinds: BTreeSet<_> = files.iter().map(|(path, _)| path.extension()).collect();
    assert_eq!(kinds.len(), 4, "json, seg, ckpt and MANIFEST: {kinds:?}");
    for (path, bytes) in &files {
        let mut without = disk.clone();
        without.remove(path).expect("it was there");
        must_show(&format!("without {}", path.display()), &without, None);
        for (other, other_bytes) in files.iter().filter(|(other, _)| other > path) {
            let swapped = change(&disk, path, |bytes| bytes.clone_from(other_bytes));
            let swapped = change(&swapped, other, |other_bytes| other_bytes.clone_from(bytes));
            must_show(&format!("{} swapped with {}", path.display(), other.display()), &swapped, None);
        }
    }
}

#[test]
fn an_older_file_put_back_is_refused_or_reported() {
    let (older, mut documents) = richer(1);
    let life = Life {
        seed: 2,
        shards: 2,
        documents: 12,
        document_bytes: 1000,
        rounds: 3,
        rotates: true,
        frame_records: 1,
        kept: 0,
        rotates_at_end: false,
    };
    let newer = live(life, older.clone(), &mut documents);
    assert_eq!(open_and_read(&newer).as_ref(), Ok(&documents));
    let (old_files, new_files) = (protected_files(&older), protected_files(&newer));
    let mut put_back = 0;
    for (path, old) in &old_files {
        let Some((_, new)) = new_files.iter().find(|(other, _)| other == path) else { continue };
        if old != new {
            put_back += 1;
            let disk = change(&newer, path, |bytes| bytes.clone_from(old));
            must_show(&format!("{} put back", path.display()), &disk, None);
        }
    }
    // The keyring and two manifests at least; segments and checkpoints have names of their own.
    assert!(put_back >= 3, "{put_back} files changed");
    for (path, old) in old_files.iter().filter(|(path, _)| path.extension().is_some_and(|ext| ext != "json")) {
        let same_kind = |other: &Path| other.extension() == path.extension() && other.parent() == path.parent();
        for (other, _) in new_files.iter().filter(|(other, new)| same_kind(other) && new != old) {
            let disk = change(&newer, other, |bytes| bytes.clone_from(old));
            must_show(&format!("{} in place of {}", path.display(), other.display()), &disk, None);
        }
    }
}

#[test]
fn a_file_of_another_store_under_the_same_root_key_is_refused_or_reported() {
    let (disk, _) = richer(1);
    let strangers = protected_files(&richer(77).0);
    let mut mixed = 0;
    for (path, bytes) in &strangers {
        if disk.exists(path) {
            mixed += 1;
            let disk = change(&disk, path, |own| own.clone_from(bytes));
            must_show(&format!("{} of another store", path.display()), &disk, None);
        }
    }
    assert!(mixed >= 6, "{mixed} files have the same name");
}

const HEADER_BYTES: usize = 4096;
/// Where a segment's header says what it holds.
const KIND_AT: usize = 38;
/// And under which data key.
const DATA_KEY_AT: std::ops::Range<usize> = 64..72;
const COMMIT_KIND: u8 = 1;
const COMPACTED_KIND: u8 = 2;
const FRAME_HEADER_BYTES: usize = 96;
const RECORD_HEADER_BYTES: usize = 60;
/// Where a frame says how many records it has, and how long it is without padding.
const FRAME_RECORDS_AT: usize = 40;
const FRAME_LENGTH_AT: usize = 44;

/// Where each frame of a segment begins and ends, padding included.
fn frames(segment: &[u8]) -> Vec<(usize, usize)> {
    let block = u32::from_le_bytes(segment[12..16].try_into().expect("four bytes")) as usize;
    let mut found = Vec::new();
    let mut at = HEADER_BYTES;
    while segment[at..].starts_with(b"DFRM") {
        let length = u32::from_le_bytes(segment[at + 44..at + 48].try_into().expect("four bytes")) as usize;
        let end = at + length.next_multiple_of(block);
        found.push((at, end));
        at = end;
    }
    found
}

/// Where each record of a frame begins and ends.
fn records(segment: &[u8], frame: (usize, usize)) -> Vec<(usize, usize)> {
    let length = u32::from_le_bytes(segment[frame.0 + 44..frame.0 + 48].try_into().expect("four bytes")) as usize;
    let mut found = Vec::new();
    let mut at = frame.0 + FRAME_HEADER_BYTES;
    while at < frame.0 + length {
        let body = u32::from_le_bytes(segment[at + 4..at + 8].try_into().expect("four bytes")) as usize;
        found.push((at, at + RECORD_HEADER_BYTES + body));
        at += RECORD_HEADER_BYTES + body;
    }
    found
}

/// Gives a frame the checksum that fits its bytes, as whoever knows the format but no key can.
fn repair_checksum(segment: &mut [u8], frame: (usize, usize)) {
    let checksum = crc32c::crc32c(&segment[frame.0 + 8..frame.1]);
    segment[frame.0 + 4..frame.0 + 8].copy_from_slice(&checksum.to_le_bytes());
}

type Edit = Box<dyn Fn(&mut Vec<u8>)>;

#[test]
fn frames_and_records_swapped_removed_or_repeated_are_refused_or_reported() {
    let (disk, _) = small();
    let files = protected_files(&disk);
    let of_kind = |kind| files.iter().find(|(path, bytes)| is_segment(path) && bytes[KIND_AT] == kind);
    let (path, segment) = of_kind(COMMIT_KIND).expect("a commit segment");
    let full: Vec<_> = frames(segment).into_iter().filter(|frame| records(segment, *frame).len() > 1).collect();
    assert!(full.len() >= 4, "{full:?}");
    let (one, other) = (full[0], full[1]);
    assert_eq!(one.1 - one.0, other.1 - other.0);
    let attempts: [(&str, Edit); 6] = [
        (
            "two frames swapped",
            Box::new(move |bytes| {
                for at in 0..one.1 - one.0 {
                    bytes.swap(one.0 + at, other.0 + at);
                }
            }),
        ),
        ("a frame removed, the rest moved up", Box::new(move |bytes| drop(bytes.drain(one.0..one.1)))),
        ("a frame zeroed", Box::new(move |bytes| bytes[other.0..other.1].fill(0))),
        ("a frame repeated over the next", Box::new(move |bytes| bytes.copy_within(one.0..one.1, other.0))),
        (
            "a frame put in twice",
            Box::new(move |bytes| {
                let again = bytes[one.0..one.1].to_vec();
                bytes.splice(one.1..one.1, again);
            }),
        ),
        (
            "a record in the frame of another",
            Box::new(move |bytes| {
                let (from, to) = (records(bytes, one)[0], records(bytes, other)[0]);
                assert_eq!(from.1 - from.0, to.1 - to.0);
                bytes.copy_within(from.0..from.1, to.0);
                repair_checksum(bytes, other);
            }),
        ),
    ];
    for (what, attempt) in &attempts {
        must_show(what, &change(&disk, path, |bytes| attempt(bytes)), Some(path));
    }
    swap_records("of two frames", &disk, path, (one, 0), (other, 1));
    // Records of one frame lie under one key and one header: order and number are known to frame, footer and index.
    let (compacted, moved) = of_kind(COMPACTED_KIND).expect("a compacted segment");
    let crowd = frames(moved)[0];
    assert!(records(moved, crowd).len() > 2);
    for (path, frame) in [(path, one), (path, full[3]), (compacted, crowd)] {
        swap_records("of one frame", &disk, path, (frame, 0), (frame, 1));
        let count = records(&disk.peek(path).expect("the file is there"), frame).len();
        for position in 0..count {
            let what = format!("record {position} of {count} removed from a frame of {}", path.display());
            must_show(&what, &change(&disk, path, |bytes| remove_record(bytes, frame, position)), Some(path));
        }
    }
}

/// Exchanges two records of equal length, each given by its frame and its place in it.
fn swap_records(
    what: &str,
    disk: &DiskImage,
    path: &Path,
    left: ((usize, usize), usize),
    right: ((usize, usize), usize),
) {
    let swapped = change(disk, path, |bytes| {
        let (one, other) = (records(bytes, left.0)[left.1], records(bytes, right.0)[right.1]);
        assert_eq!(one.1 - one.0, other.1 - other.0);
        (0..one.1 - one.0).for_each(|at| bytes.swap(one.0 + at, other.0 + at));
        repair_checksum(bytes, left.0);
        repair_checksum(bytes, right.0);
    });
    must_show(&format!("two records {what} swapped in {}", path.display()), &swapped, Some(path));
}

/// Takes a record out of its frame, whose header then counts one less; nothing else of the segment moves.
fn remove_record(segment: &mut [u8], frame: (usize, usize), position: usize) {
    let record = records(segment, frame)[position];
    let (removed, field) = (record.1 - record.0, |at: usize| frame.0 + at..frame.0 + at + 4);
    for (at, less) in [(FRAME_RECORDS_AT, 1), (FRAME_LENGTH_AT, removed as u32)] {
        let value = u32::from_le_bytes(segment[field(at)].try_into().expect("four bytes"));
        segment[field(at)].copy_from_slice(&(value - less).to_le_bytes());
    }
    segment.copy_within(record.1..frame.1, record.0);
    segment[frame.1 - removed..frame.1].fill(0);
    repair_checksum(segment, frame);
}
