//! A segment in memory: its identity and key, its file once there is one, and what is known of its content.
//!
//! A clone of its `Rc` pins it: a retired segment's file is reused or removed only when nobody else holds one.

use super::format::manifest::{SegmentEnd, SegmentRef};
use super::format::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind};
use super::format::{BLOCK_BYTES_MAX, Binding, LogIdentity, Tag};
use super::index::Place;
use crate::crypto::keyring::DataKey;
use crate::crypto::seal::{Purpose, SealingKey};
use std::cell::{Cell, OnceCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Where a segment stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// It has an identity; its file is being prepared.
    Planned,
    /// The same, but there is no space for the file now.
    OutOfSpace,
    /// Prepared and listed: frames may be written.
    Ready,
    /// No frame will be written any more.
    Sealed,
}

/// A segment's tombstones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tombstones {
    /// How many.
    pub count: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// Lowest segment number that one carries.
    pub number_min: u32,
    /// Highest.
    pub number_max: u32,
}

impl Tombstones {
    /// Counts one more.
    pub fn add(&mut self, record_bytes: u64, number: u32) {
        self.number_min = if self.count == 0 { number } else { self.number_min.min(number) };
        self.number_max = self.number_max.max(number);
        self.count += 1;
        self.bytes += record_bytes;
    }
}

/// One segment.
pub struct Segment<F> {
    /// Its identity; `block_bytes` counts once the file is there.
    pub header: SegmentHeader,
    /// Its key.
    pub key: SealingKey,
    /// What its tags are bound to.
    pub binding: Binding,
    /// Its slot in the segment table.
    pub slot: u32,
    /// `<number>.seg`.
    pub path: PathBuf,
    /// The open file, once prepared.
    pub file: OnceCell<F>,
    /// Frames begin and end at multiples of this.
    pub block_bytes: Cell<usize>,
    /// Where it stands.
    pub state: Cell<SegmentState>,
    /// Whether the newest durable manifest names it.
    pub listed: Cell<bool>,
    /// Bytes of its file, or what it will get.
    pub capacity: Cell<u64>,
    /// Behind the last durable frame.
    pub written: Cell<u64>,
    /// At most what frames accepted but not yet written will take.
    pub bound: Cell<u64>,
    /// No frame may be added beyond those bound (a key rotation waits).
    pub closed: Cell<bool>,
    /// It was the last spare: only deletions may go in until there is another.
    pub last_spare: Cell<bool>,
    /// Where it ends, once it is not written any more.
    pub end: Cell<Option<SegmentEnd>>,
    /// For compacted ones: the checkpoint in force knows its places.
    pub checkpointed: Cell<bool>,
    /// For compacted ones: every entry that should points into it.
    pub installed: Cell<bool>,
    /// Frames in it.
    pub frames: Cell<u64>,
    /// Records in it.
    pub records: Cell<u64>,
    /// Number and tag of the last frame at or before its end.
    pub last_frame: Cell<(u64, Tag)>,
    /// Bytes of records that the index points to.
    pub live_bytes: Cell<u64>,
    /// How many.
    pub live_records: Cell<u64>,
    /// Its tombstones.
    pub tombstones: Cell<Tombstones>,
    /// Something in it is damaged: it is read, but not compacted.
    pub damaged: Cell<bool>,
    /// That it is half dead has been told.
    announced: Cell<bool>,
}

impl<F> Segment<F> {
    /// A segment that has an identity and nothing else.
    pub fn new(identity: &LogIdentity, directory: &Path, header: SegmentHeader, key: &DataKey, slot: u32) -> Self {
        Self {
            key: SealingKey::derive(key, &header.salt, Purpose::Segment),
            binding: Binding::new(identity, &header.id, header.key_id),
            slot,
            path: segment_path(directory, header.number),
            file: OnceCell::new(),
            block_bytes: Cell::new(header.block_bytes as usize),
            state: Cell::new(SegmentState::Planned),
            listed: Cell::new(false),
            capacity: Cell::new(0),
            written: Cell::new(SEGMENT_HEADER_BYTES as u64),
            bound: Cell::new(0),
            closed: Cell::new(false),
            last_spare: Cell::new(false),
            end: Cell::new(None),
            checkpointed: Cell::new(false),
            installed: Cell::new(header.kind == SegmentKind::Commit),
            frames: Cell::new(0),
            records: Cell::new(0),
            last_frame: Cell::new((0, [0; 16])),
            live_bytes: Cell::new(0),
            live_records: Cell::new(0),
            tombstones: Cell::new(Tombstones::default()),
            damaged: Cell::new(false),
            announced: Cell::new(false),
            header,
        }
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.header.number
    }

    /// Bytes that another frame may take; the footer's block is kept back.
    pub fn room(&self) -> u64 {
        if self.closed.get() { 0 } else { self.capacity.get().saturating_sub(self.needed_bytes()) }
    }

    /// What its file must have for all that was accepted for it, and its footer.
    pub fn needed_bytes(&self) -> u64 {
        self.written.get() + self.bound.get() + BLOCK_BYTES_MAX as u64
    }

    /// A record in it became an entity's newest version.
    #[inline]
    pub fn gain(&self, record_bytes: u32) {
        self.live_bytes.set(self.live_bytes.get() + u64::from(record_bytes));
        self.live_records.set(self.live_records.get() + 1);
    }

    /// A record in it is not an entity's newest version any more.
    #[inline]
    pub fn lose(&self, record_bytes: u32) {
        self.live_bytes.set(self.live_bytes.get().saturating_sub(u64::from(record_bytes)));
        self.live_records.set(self.live_records.get().saturating_sub(1));
    }

    /// Whether it is sealed and less than half of it is alive.
    pub fn is_sparse(&self) -> bool {
        self.state.get() == SegmentState::Sealed && self.live_bytes.get() * 2 < self.capacity.get()
    }

    /// Whether the checkpoint in force knows it as far as this matters: commits say it by their frames' numbers.
    pub fn is_checkpointed(&self) -> bool {
        self.header.kind == SegmentKind::Commit || self.checkpointed.get()
    }

    /// It holds one more tombstone.
    pub fn add_tombstone(&self, record_bytes: u64, number: u32) {
        let mut tombstones = self.tombstones.get();
        tombstones.add(record_bytes, number);
        self.tombstones.set(tombstones);
    }

    /// How the manifest names it.
    pub fn to_ref(&self) -> SegmentRef {
        SegmentRef {
            number: self.header.number,
            id: self.header.id,
            key_id: self.header.key_id.0,
            compacted: self.header.kind == SegmentKind::Compacted,
            checkpointed: self.checkpointed.get(),
            end: self.end.get(),
        }
    }
}

/// `<number>.seg` in a shard's directory.
pub fn segment_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number}.seg"))
}

/// `<number>.ckpt` in a shard's directory.
pub fn checkpoint_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number}.ckpt"))
}

/// Slot of entries whose segment is not listed; only while the log is replayed.
pub const SLOT_MISSING: u32 = u32::MAX - 1;

/// All segments of a shard, by slot.
pub struct SegmentTable<F> {
    slots: Vec<Option<Rc<Segment<F>>>>,
    free: Vec<u32>,
    /// Entries that point to segments which are not listed.
    pub missing_entries: u64,
    sparse: bool,
}

impl<F> SegmentTable<F> {
    /// Empty.
    pub fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), missing_entries: 0, sparse: false }
    }

    /// A slot for a segment about to be made.
    pub fn reserve_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        })
    }

    /// Puts a segment into the slot it carries.
    pub fn insert(&mut self, segment: Rc<Segment<F>>) {
        let slot = segment.slot as usize;
        self.slots[slot] = Some(segment);
    }

    /// The segment of a slot.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&Rc<Segment<F>>> {
        self.slots.get(slot as usize).and_then(Option::as_ref)
    }

    /// Takes a segment out and frees its slot. No entry may point to it.
    pub fn remove(&mut self, slot: u32) -> Option<Rc<Segment<F>>> {
        let segment = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        Some(segment)
    }

    /// All segments, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<Segment<F>>> {
        self.slots.iter().flatten()
    }

    /// All segments that the manifest names, by rising number.
    pub fn listed(&self) -> Vec<Rc<Segment<F>>> {
        let mut listed: Vec<_> = self.iter().filter(|segment| segment.listed.get()).cloned().collect();
        listed.sort_by_key(|segment| segment.number());
        listed
    }

    /// Whether a segment became half dead since this was asked last.
    pub fn take_sparse(&mut self) -> bool {
        std::mem::take(&mut self.sparse)
    }

    /// Counts a record that became an entity's newest version.
    #[inline]
    pub fn gain(&mut self, place: Place) {
        match self.get(place.slot) {
            Some(segment) => segment.gain(place.length),
            None => self.missing_entries += 1,
        }
    }

    /// Counts one that is not any more.
    #[inline]
    pub fn lose(&mut self, place: Place) {
        match self.slots.get(place.slot as usize).and_then(Option::as_ref) {
            Some(segment) => {
                segment.lose(place.length);
                if segment.is_sparse() && !segment.announced.replace(true) {
                    self.sparse = true;
                }
            }
            None => self.missing_entries = self.missing_entries.saturating_sub(1),
        }
    }
}
