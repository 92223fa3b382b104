//! What devices and attackers do to files at rest: rot, truncation, loss, exchange, and forgery with a right checksum.

use deltadb::runtime::sim::{DiskImage, Random};
use std::path::{Path, PathBuf};

const SEGMENT_HEADER_BYTES: usize = 4096;
/// Of a segment's header: its kind, and that of the log's own.
const KIND_AT: usize = 38;
const KIND_COMMIT: u8 = 1;
pub(super) const FRAME_HEADER_BYTES: usize = 96;
pub(super) const RECORD_HEADER_BYTES: usize = 60;

/// A kind of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A bit of some file flipped.
    Rot,
    /// A file ends early.
    Cut,
    /// An index checkpoint is damaged or gone; everything it knew is in the segments too.
    LostCheckpoint,
    /// The versions of a frame were raised in the clear, and its checksum put right.
    Forged,
    /// A segment was put in the place of another.
    Exchanged,
    /// An older frame was written again behind the last one.
    Replayed,
    /// A bit of the last frame that holds records flipped.
    LastFrame,
}

/// Damages the disk; what was done to which file, if there was anything to do it to.
pub fn inflict(image: &mut DiskImage, random: &mut Random) -> Option<(Damage, PathBuf)> {
    let files = image.list_files();
    let ending = |suffix: &str| -> Vec<PathBuf> {
        let matching = files.iter().filter(|(path, _)| path.to_string_lossy().ends_with(suffix));
        matching.map(|(path, _)| path.clone()).collect()
    };
    match random.below(12) {
        0 | 1 => {
            let (path, bytes) = any(&files, random)?;
            let bit = random.below((bytes * 8).max(1));
            image.flip_bit(&path, bit).ok().map(|()| (Damage::Rot, path))
        }
        2 => {
            let (path, bytes) = any(&files, random)?;
            if path.to_string_lossy().ends_with(".seg") && !has_a_known_length(image, &files, &path)? {
                return None;
            }
            image.truncate(&path, random.below(bytes.max(1))).ok().map(|()| (Damage::Cut, path))
        }
        3 | 4 => {
            let path = any(&ending(".ckpt"), random)?;
            let bytes = image.peek(&path).ok()?.len() as u64;
            let done = match random.below(3) {
                0 => image.flip_bit(&path, random.below(bytes * 8)),
                1 => image.truncate(&path, random.below(bytes)),
                _ => image.remove(&path),
            };
            done.ok().map(|()| (Damage::LostCheckpoint, path))
        }
        5 => {
            let (from, to) = (any(&ending(".seg"), random)?, any(&ending(".seg"), random)?);
            if from == to {
                return None;
            }
            image.copy(&from, &to).ok().map(|()| (Damage::Exchanged, to))
        }
        6 => {
            let path = any(&ending(".seg"), random)?;
            replay(image, &path, random).map(|()| (Damage::Replayed, path))
        }
        7 | 8 => {
            let path = any(&ending(".seg"), random)?;
            let bit = bit_of_last_frame(&image.peek(&path).ok()?, random)?;
            image.flip_bit(&path, bit).ok().map(|()| (Damage::LastFrame, path))
        }
        _ => {
            let path = any(&ending(".seg"), random)?;
            forge(image, &path, random).map(|()| (Damage::Forged, path))
        }
    }
}

pub(super) fn any<T: Clone>(all: &[T], random: &mut Random) -> Option<T> {
    all.get(random.below(all.len() as u64) as usize).cloned()
}

/// Where whole frames of a segment lie: offset and length with padding.
pub(super) fn frames(segment: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    if segment.len() < SEGMENT_HEADER_BYTES || !segment.starts_with(b"DELTASEG") {
        return found;
    }
    let block = (number(segment, 12, 4) as usize).max(512);
    let mut at = SEGMENT_HEADER_BYTES;
    while at + FRAME_HEADER_BYTES <= segment.len() {
        let head = &segment[at..];
        if !head.starts_with(b"DFRM") || head[8..24] != segment[48..64] {
            break;
        }
        let padded = (number(head, 44, 4) as usize).next_multiple_of(block);
        if at + padded > segment.len() {
            break;
        }
        found.push((at, padded));
        at += padded;
    }
    found
}

fn bit_of_last_frame(segment: &[u8], random: &mut Random) -> Option<u64> {
    let holding = |(at, _): &(usize, usize)| number(&segment[*at..], 40, 4) > 0;
    let (at, padded) = frames(segment).into_iter().rfind(holding)?;
    Some(random.between(at as u64 * 8, (at + padded) as u64 * 8 - 1))
}

pub(super) fn is_sealed(segment: &[u8]) -> bool {
    let end = frames(segment).last().map_or(SEGMENT_HEADER_BYTES, |(at, padded)| at + padded);
    segment.get(end..).is_some_and(|rest| rest.starts_with(b"DELTAEND"))
}

/// Whether a segment that is cut is missed. The log ends where it ends, and the manifest may not yet tell of the last
/// segment's end: then only what follows does.
fn has_a_known_length(image: &DiskImage, files: &[(PathBuf, u64)], path: &Path) -> Option<bool> {
    let segment = image.peek(path).ok()?;
    if !is_sealed(&segment) {
        return Some(false);
    }
    let last_frame = |segment: &[u8]| {
        let is_log = segment.get(KIND_AT) == Some(&KIND_COMMIT);
        is_log.then(|| frames(segment).last().map(|(at, _)| number(&segment[*at..], 24, 8))).flatten()
    };
    let Some(last) = last_frame(&segment) else { return Some(segment[KIND_AT] != KIND_COMMIT) };
    let others = files.iter().filter(|(other, _)| other.parent() == path.parent());
    let mut numbers = others.filter_map(|(other, _)| last_frame(&image.peek(other).ok()?));
    Some(numbers.any(|other| other > last))
}

/// Raises the first sequence of a frame and those of its records, all of which are in the clear.
fn forge(image: &mut DiskImage, path: &Path, random: &mut Random) -> Option<()> {
    const RAISE: u64 = 1 << 20;
    let segment = image.peek(path).ok()?;
    let mut holding = frames(&segment);
    holding.retain(|(at, _)| number(&segment[*at..], 40, 4) > 0);
    let (at, padded) = any(&holding, random)?;
    let mut frame = segment[at..at + padded].to_vec();
    let length = number(&frame, 44, 4) as usize;
    raise(&mut frame, 32, RAISE);
    let mut record = FRAME_HEADER_BYTES;
    while record + RECORD_HEADER_BYTES <= length {
        raise(&mut frame, record + 8, RAISE);
        record += RECORD_HEADER_BYTES + number(&frame[record..], 4, 4) as usize;
    }
    let checksum = crc32c::crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&checksum.to_le_bytes());
    image.poke(path, at as u64, &frame).ok()
}

/// Writes an earlier frame again where the next one would go.
fn replay(image: &mut DiskImage, path: &Path, random: &mut Random) -> Option<()> {
    let segment = image.peek(path).ok()?;
    let all = frames(&segment);
    let end = all.last().map(|(at, padded)| at + padded)?;
    let (at, padded) = any(&all, random)?;
    image.poke(path, end as u64, &segment[at..at + padded]).ok()
}

pub(super) fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let mut number = [0; 8];
    number[..len].copy_from_slice(&bytes[at..at + len]);
    u64::from_le_bytes(number)
}

fn raise(bytes: &mut [u8], at: usize, by: u64) {
    let raised = number(bytes, at, 8) + by;
    bytes[at..at + 8].copy_from_slice(&raised.to_le_bytes());
}
