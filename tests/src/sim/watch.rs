//! Invariants of the bytes that go to the disk, read off the documented format and not by the product's own code: no
//! nonce is used twice under one key, sequences of a shard only rise, frames of a shard are numbered without a gap.

use super::model::{Broken, broken};
use deltadb::runtime::sim::DiskRequest;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FRAME_HEADER_BYTES: usize = 96;
const RECORD_HEADER_BYTES: usize = 60;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Commit,
    Compacted,
}

/// The records that a request writes.
#[derive(Default)]
pub struct Seen {
    /// Their sequences.
    pub sequences: Vec<u64>,
    /// They are copies.
    pub compacted: bool,
}

/// What was seen so far.
#[derive(Clone, Default)]
pub struct Watch {
    /// By inode: what the header in it says it is.
    kinds: BTreeMap<u64, Kind>,
    /// Content by segment id and nonce.
    nonces: BTreeMap<([u8; 16], [u8; 12]), u64>,
    /// Highest sequence and frame number asked to be written, by shard directory.
    shards: BTreeMap<PathBuf, u64>,
    /// Segment files that became segments again under another number.
    pub segments_reused: u64,
    /// Frames of commits.
    pub frames: u64,
    /// The first rule that was broken.
    pub broken: Option<Broken>,
}

impl Watch {
    /// Takes note of a request; which records are in it, if it writes a frame.
    pub fn see(&mut self, request: &DiskRequest<'_>) -> Seen {
        let result = match *request {
            DiskRequest::Write { path, inode, offset, bytes } => self.see_write(path, inode, offset, bytes),
            DiskRequest::Rename { from, to } => {
                let segments = [from, to].map(|path| path.extension().is_some_and(|extension| extension == "seg"));
                self.segments_reused += u64::from(segments == [true, true]);
                Ok(Seen::default())
            }
        };
        result.unwrap_or_else(|broken| {
            self.broken.get_or_insert(broken);
            Seen::default()
        })
    }

    fn see_write(&mut self, path: &Path, inode: u64, offset: u64, bytes: &[u8]) -> Result<Seen, Broken> {
        if offset == 0 && bytes.starts_with(b"DELTASEG") {
            self.kinds.insert(inode, if bytes[38] == 1 { Kind::Commit } else { Kind::Compacted });
            return Ok(Seen::default());
        }
        if !bytes.starts_with(b"DFRM") || bytes.len() < FRAME_HEADER_BYTES {
            return Ok(Seen::default());
        }
        let segment: [u8; 16] = array(bytes, 8);
        let content = hash(bytes);
        self.see_nonce(segment, array(bytes, 48), content)?;
        let (records, length) = (number(bytes, 40, 4), number(bytes, 44, 4) as usize);
        let mut sequences = Vec::new();
        let mut at = FRAME_HEADER_BYTES;
        for _ in 0..records {
            let Some(record) = bytes.get(at..length).filter(|record| record.len() >= RECORD_HEADER_BYTES) else {
                return broken("frames are as documented", format!("{} at {offset}", path.display()));
            };
            sequences.push(number(record, 8, 8));
            self.see_nonce(segment, array(record, 32), content)?;
            at += RECORD_HEADER_BYTES + number(record, 4, 4) as usize;
        }
        if self.kinds.get(&inode) == Some(&Kind::Compacted) {
            return Ok(Seen { sequences, compacted: true });
        }
        self.frames += 1;
        let shard = path.parent().unwrap_or(Path::new("")).to_owned();
        let highest = self.shards.entry(shard).or_default();
        for sequence in &sequences {
            if sequence <= highest {
                let detail = format!("{}: sequence {sequence} after {highest}", path.display());
                return broken("sequences rise", detail);
            }
            *highest = *sequence;
        }
        Ok(Seen { sequences, compacted: false })
    }

    fn see_nonce(&mut self, segment: [u8; 16], nonce: [u8; 12], content: u64) -> Result<(), Broken> {
        // The same bytes again are a write tried again, not another message.
        match self.nonces.insert((segment, nonce), content) {
            Some(before) if before != content => {
                broken("no nonce is used twice", "two messages of one segment carry the same nonce")
            }
            _ => Ok(()),
        }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let mut number = [0; 8];
    number[..len].copy_from_slice(&bytes[at..at + len]);
    u64::from_le_bytes(number)
}

/// FNV-1a: enough to tell two messages apart.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
