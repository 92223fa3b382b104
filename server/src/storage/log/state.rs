//! One shard's log in memory: what its methods share.
//!
//! Everything is on one thread. The one `RefCell` is borrowed for moments, never over an await.

use super::batch::{FrameMemory, Nonces, OpenBatch};
use super::format::frame::FRAME_HEADER_BYTES;
use super::format::manifest::{CheckpointRef, Manifest};
use super::format::segment::{SegmentHeader, SegmentKind};
use super::format::{BLOCK_BYTES_MAX, LogIdentity, NONCE_BYTES, Tag};
use super::index::Index;
use super::scrub::Scrub;
use super::segment::{Segment, SegmentState, SegmentTable};
use super::signal::{Lock, Signal};
use super::{LogOptions, LogSizes, OpenReport};
use crate::command::{Document, EntityRef, Version};
use crate::crypto::keyring::{DataKeyId, Keyring};
use crate::metrics::{Metrics, ShardMetrics};
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{Clock, Disk, Entropy, Platform};
use crate::storage::{Change, CommitError, ListEntry, ReadError, Refusal, Storage, StorageStatus};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;

/// A platform's file.
pub type FileOf<P> = <<P as Platform>::Disk as Disk>::File;
/// A platform's segment, pinned.
pub type SegmentOf<P> = Rc<Segment<FileOf<P>>>;

/// Whether the shard takes writes.
#[derive(Clone, Debug)]
pub enum Mode {
    /// It does.
    Writable,
    /// A write or sync failed.
    Poisoned(String),
    /// Salvage, or shut down.
    ReadOnly(&'static str),
}

/// A prepared file without an identity: zeroes (or the content of a retired segment) and space.
pub struct Blank<F> {
    /// Where it lies.
    pub path: PathBuf,
    /// Open for writing.
    pub file: F,
    /// Its size.
    pub bytes: u64,
}

/// The last frame whose records are in the index, and where it ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Position {
    /// Its number; 0 before the first.
    pub frame: u64,
    /// Its tag.
    pub tag: Tag,
    /// Number of its segment.
    pub segment: u32,
    /// Its end there.
    pub offset: u64,
}

impl Position {
    /// How far a checkpoint covers the log.
    pub fn of(checkpoint: &CheckpointRef) -> Self {
        Self {
            frame: checkpoint.frame,
            tag: checkpoint.frame_tag,
            segment: checkpoint.segment,
            offset: checkpoint.offset,
        }
    }
}

/// What changes.
pub struct State<P: Platform> {
    pub keyring: Arc<Keyring>,
    pub mode: Mode,
    pub index: Index,
    pub segments: SegmentTable<FileOf<P>>,
    /// The segment being written and those planned behind it, by rising number.
    pub lineage: VecDeque<SegmentOf<P>>,
    /// The last of them that frames were bound to.
    pub target: Option<SegmentOf<P>>,
    pub open: OpenBatch<FileOf<P>>,
    pub memories: Vec<FrameMemory>,
    /// Hashes of the records of the frame being applied; kept for its memory.
    pub hashes: Vec<u64>,
    pub read_buffers: Vec<AlignedBuffer>,
    pub nonces: Nonces<<P as Platform>::Entropy>,
    pub next_sequence: u64,
    /// Batches that were taken to be written and are not durable yet: two, when a stop takes one behind another.
    pub commits_in_flight: usize,
    /// Number and tag of the last frame written.
    pub chain: (u64, Tag),
    pub applied: Position,
    pub segment_number_next: u32,
    pub segment_bytes_next: u64,
    pub checkpoint: Option<CheckpointRef>,
    /// It cannot be read: what it covers is not known.
    pub checkpoint_damaged: bool,
    pub checkpoint_number_next: u64,
    /// Where the checkpoint in force left the log.
    pub log_bytes_since_checkpoint: u64,
    /// A checkpoint is wanted whatever the bytes (rotation, full disk).
    pub checkpoint_forced: bool,
    /// The manifest on disk tells of a shard at work: versions may be given out.
    pub at_work: bool,
    /// The manifest that is in force: the one published last, or found at the start.
    pub manifest: Manifest,
    /// Data keys that the manifest on disk names, its own first; while one is being published, those of both.
    pub manifest_keys: Vec<DataKeyId>,
    /// Seals the checkpoint that is being written, which no manifest names yet.
    pub checkpoint_key: Option<DataKeyId>,
    /// Unlisted segments whose files can be reused or removed once nobody reads them.
    pub retired: Vec<SegmentOf<P>>,
    /// The last spare: space for deletions and compaction.
    pub spare: Option<Blank<FileOf<P>>>,
    pub blank_number: u64,
    /// The next segment or the spare cannot be prepared.
    pub out_of_space: bool,
    /// A write was refused for want of space: until the next segment is there all are, so that what is reported is
    /// what every write gets.
    pub refused_for_space: bool,
    /// Frames since the last empty one.
    pub tail_open: bool,
    /// Somebody already waits to write it.
    pub tail_armed: bool,
    pub last_write_ns: u64,
}

/// What background tasks wait for; apart, so that waiting keeps no shard alive.
#[derive(Default)]
pub struct Signals {
    /// A segment, the spare or the mode changed.
    pub segments: Signal,
    /// A commit ended.
    pub committed: Signal,
    /// Segments may need preparation.
    pub prepare: Signal,
    /// A checkpoint or compaction may be due.
    pub maintain: Signal,
    /// The log has an open tail.
    pub tail: Signal,
    /// A background job ended.
    pub idle: Signal,
    /// The scrub must end.
    pub scrub: Signal,
}

/// One shard's storage: see [`Storage`]. Made by `open` (recovery.rs).
pub struct LogStorage<P: Platform> {
    pub(super) platform: P,
    pub(super) directory: PathBuf,
    pub(super) identity: LogIdentity,
    pub(super) sizes: LogSizes,
    pub(super) metrics: Arc<Metrics>,
    pub(super) report: OpenReport,
    pub(super) state: RefCell<State<P>>,
    pub(super) signals: Rc<Signals>,
    /// Held while frames are written.
    pub(super) commit_lock: Lock,
    /// Held while the manifest is replaced.
    pub(super) manifest_lock: Lock,
    /// Held by whoever syncs the directory, inside all others.
    pub(super) names_lock: Lock,
    /// Held while a segment is prepared.
    pub(super) preparation_lock: Lock,
    /// Held while a checkpoint is written or a segment compacted.
    pub(super) maintenance_lock: Lock,
    /// Background jobs under way.
    pub(super) jobs: Cell<usize>,
    /// No new background job may begin.
    pub(super) closing: Cell<bool>,
    /// Checkpoint chunks written so far.
    pub(super) chunks_written: Cell<u64>,
    pub(super) scrub: RefCell<Scrub<P>>,
    pub(super) this: Weak<Self>,
}

/// Room in a segment that is worth resuming writes for: half of the smallest segment there is.
const ROOM_PLENTY_BYTES: u64 = crate::limits::SEGMENT_BYTES_FIRST / 2;

impl<P: Platform> State<P> {
    /// A shard without anything in it.
    pub fn empty(platform: &P, options: &LogOptions) -> Self {
        Self {
            keyring: options.keyring.clone(),
            mode: Mode::Writable,
            index: Index::new(platform.entropy().next_u64()),
            segments: SegmentTable::new(),
            lineage: VecDeque::new(),
            target: None,
            open: OpenBatch::default(),
            memories: Vec::new(),
            hashes: Vec::new(),
            read_buffers: Vec::new(),
            nonces: Nonces::new(platform.entropy().clone()),
            next_sequence: 1,
            commits_in_flight: 0,
            chain: (0, [0; 16]),
            applied: Position::default(),
            segment_number_next: 1,
            segment_bytes_next: options.sizes.segment_bytes_first,
            checkpoint: None,
            checkpoint_damaged: false,
            checkpoint_number_next: 1,
            log_bytes_since_checkpoint: 0,
            checkpoint_forced: false,
            at_work: false,
            manifest: Manifest::default(),
            manifest_keys: Vec::new(),
            checkpoint_key: None,
            retired: Vec::new(),
            spare: None,
            blank_number: 0,
            out_of_space: false,
            refused_for_space: false,
            tail_open: false,
            tail_armed: false,
            last_write_ns: 0,
        }
    }

    /// Whether writes are taken at all.
    pub fn check_writable(&self) -> Result<(), Refusal> {
        match &self.mode {
            Mode::Writable => Ok(()),
            Mode::Poisoned(reason) => Err(Refusal::Poisoned { reason: reason.clone() }),
            Mode::ReadOnly(reason) => Err(Refusal::ReadOnly { reason: (*reason).to_owned() }),
        }
    }

    /// Whether no batch is open or under way.
    pub fn is_settled(&self) -> bool {
        self.open.frames.is_empty() && self.commits_in_flight == 0
    }

    /// Whether any document, however small, is refused now for want of space.
    pub fn lacks_space(&self) -> bool {
        // After a restart the same versions would be given out again.
        if !self.at_work {
            return true;
        }
        let target = self.target.as_ref();
        let current = target.and_then(|target| self.lineage.iter().position(|segment| Rc::ptr_eq(segment, target)));
        let mut open = self.lineage.iter().skip(current.unwrap_or(0)).filter(|segment| !segment.closed.get());
        // After a refusal a rest of the current segment is not enough: it would be filled and refused again at once.
        // One document too large for what is left does not keep out others for whom there is plenty.
        let has_plenty = |segment: &SegmentOf<P>| !self.is_short(segment) && segment.room() >= ROOM_PLENTY_BYTES;
        if self.refused_for_space
            && self.lineage.iter().any(|segment| self.is_short(segment))
            && !open.clone().any(has_plenty)
        {
            return true;
        }
        let next = open.clone().find(|segment| segment.room() >= BLOCK_BYTES_MAX as u64).or_else(|| open.next_back());
        next.is_some_and(|segment| self.is_short(segment))
    }

    /// Whether a segment takes no document for want of space.
    pub fn is_short(&self, segment: &SegmentOf<P>) -> bool {
        segment.state.get() == SegmentState::OutOfSpace || (segment.last_spare.get() && self.spare.is_none())
    }

    /// Once no segment lacks space, writes that were refused may come again.
    pub fn forget_refusal(&mut self) {
        self.refused_for_space &= self.lineage.iter().any(|segment| self.is_short(segment));
    }

    /// Number of the oldest listed segment other than those given.
    pub fn oldest_listed_except(&self, except: &[u32]) -> u32 {
        let numbers = self.segments.iter().filter(|segment| segment.listed.get()).map(|segment| segment.number());
        numbers.filter(|number| !except.contains(number)).min().unwrap_or(u32::MAX)
    }
}

impl<P: Platform> LogStorage<P> {
    /// What opening found.
    pub fn open_report(&self) -> &OpenReport {
        &self.report
    }

    pub(super) fn disk(&self) -> &P::Disk {
        self.platform.disk()
    }

    pub(super) fn figures(&self) -> &ShardMetrics {
        &self.metrics.shards[self.identity.shard as usize]
    }

    /// A fresh nonce.
    pub(super) fn nonce(&self) -> [u8; NONCE_BYTES] {
        self.state.borrow_mut().nonces.next()
    }

    /// Random bytes.
    pub(super) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.platform.entropy().fill(&mut bytes);
        bytes
    }

    /// Bytes of a standard frame buffer.
    pub(super) fn frame_capacity(&self) -> usize {
        (self.sizes.batch_bytes + FRAME_HEADER_BYTES).next_multiple_of(BLOCK_BYTES_MAX)
    }

    /// Ends all writing until a restart; the first reason stays.
    pub(super) fn poison(&self, reason: String) {
        let mut state = self.state.borrow_mut();
        if matches!(state.mode, Mode::Writable) {
            tracing::error!(shard = self.identity.shard, reason, "writing to the log failed: the shard is read-only");
            state.mode = Mode::Poisoned(reason);
        }
        drop(state);
        self.signals.segments.notify();
        self.signals.committed.notify();
    }

    /// Gives a new segment its number, id, salt and key, and a slot.
    pub(super) fn new_segment(&self, kind: SegmentKind, capacity: u64) -> SegmentOf<P> {
        let (id, salt) = (self.random(), self.random());
        let created_unix_ms = self.platform.clock().unix_ms();
        let mut state = self.state.borrow_mut();
        let number = state.segment_number_next;
        state.segment_number_next += 1;
        let slot = state.segments.reserve_slot();
        let keyring = state.keyring.clone();
        let key = keyring.active();
        let block_bytes = BLOCK_BYTES_MAX as u32;
        let header = SegmentHeader { block_bytes, kind, number, id, key_id: key.id(), salt, created_unix_ms };
        let segment = Rc::new(Segment::new(&self.identity, &self.directory, header, key, slot));
        segment.capacity.set(capacity);
        state.segments.insert(segment.clone());
        segment
    }

    /// Forgets a segment that never got a frame and is not listed; its file, if any, can be reused.
    pub(super) fn forget_segment(&self, segment: &SegmentOf<P>) {
        let mut state = self.state.borrow_mut();
        if let Some(segment) = state.segments.remove(segment.slot)
            && segment.file.get().is_some()
        {
            state.retired.push(segment);
        }
    }

    /// Rises while a checkpoint is being written: how a long one is told from a disk that does not answer.
    pub fn chunks_written(&self) -> u64 {
        self.chunks_written.get()
    }

    /// Whether a small document would be taken now. Cheap, unlike a whole status.
    pub fn takes_writes(&self) -> bool {
        let state = self.state.borrow();
        matches!(state.mode, Mode::Writable) && !state.lacks_space()
    }

    /// Publishes the gauges.
    pub(super) fn update_gauges(&self) {
        let status = self.status();
        let figures = self.figures();
        figures.entities.set(status.entities);
        figures.live_bytes.set(status.live_bytes);
        figures.segment_bytes.set(status.segment_bytes);
        figures.segments.set(status.segments);
        figures.tombstones.set(status.tombstones);
        figures.index_bytes.set(status.index_bytes);
        figures.segments_on_old_keys.set(status.segments_on_old_keys);
    }
}

impl<P: Platform> Drop for LogStorage<P> {
    fn drop(&mut self) {
        let signals = &self.signals;
        let all = [&signals.segments, &signals.committed, &signals.prepare, &signals.maintain, &signals.tail];
        all.into_iter().chain([&signals.scrub]).for_each(Signal::notify);
    }
}

impl<P: Platform> Storage for LogStorage<P> {
    fn hash(&self, entity: EntityRef<'_>) -> u64 {
        self.state.borrow().index.hash(entity)
    }

    fn warm(&self, hashes: &[u64]) {
        self.state.borrow().index.warm(hashes);
    }

    fn durable_version(&self, entity: EntityRef<'_>) -> Option<Version> {
        self.state.borrow().index.find(entity).map(|found| found.version)
    }

    fn append(&self, changes: &[Change<'_>], versions: &mut Vec<Version>) -> Result<(), Refusal> {
        self.append_changes(changes, versions)
    }

    fn has_open_batch(&self) -> bool {
        !self.state.borrow().open.frames.is_empty()
    }

    async fn commit(&self) -> Result<(), CommitError> {
        self.commit_batch().await
    }

    async fn read(&self, entity: EntityRef<'_>) -> Result<Option<(Version, Document)>, ReadError> {
        self.read_entity(entity).await
    }

    fn list(&self, schema: &str, prefix: &str, after: Option<&str>, limit: usize) -> Vec<ListEntry> {
        self.state.borrow().index.list(schema, prefix, after, limit)
    }

    fn schemas(&self) -> Vec<(String, u64)> {
        self.state.borrow().index.schemas()
    }

    fn status(&self) -> StorageStatus {
        let state = self.state.borrow();
        let active_key = state.keyring.active().id();
        let refuses_writes = match &state.mode {
            Mode::Poisoned(reason) => Some(reason.clone()),
            Mode::ReadOnly(reason) => Some((*reason).to_owned()),
            Mode::Writable if state.lacks_space() => Some(Refusal::OutOfSpace.to_string()),
            Mode::Writable => None,
        };
        let mut status = StorageStatus {
            entities: state.index.len(),
            index_bytes: state.index.bytes() as u64,
            refuses_writes,
            key_id: active_key.to_string(),
            damage: self.damage_known().iter().map(ToString::to_string).collect(),
            ..StorageStatus::default()
        };
        for segment in state.segments.iter().filter(|segment| segment.listed.get()) {
            status.live_bytes += segment.live_bytes.get();
            status.segment_bytes += segment.capacity.get();
            status.segments += 1;
            status.tombstones += segment.tombstones.get().count;
            status.segments_on_old_keys += u64::from(segment.header.key_id != active_key);
        }
        let checkpoint_key = state.checkpoint.as_ref().map(|checkpoint| DataKeyId(checkpoint.key_id));
        let others = [checkpoint_key, state.manifest_keys.first().copied()];
        status.segments_on_old_keys += others.into_iter().flatten().filter(|key| *key != active_key).count() as u64;
        status
    }

    async fn adopt_keyring(&self, keyring: Arc<Keyring>) -> Result<(), CommitError> {
        self.roll_to_keyring(keyring).await
    }

    fn key_ids_in_use(&self) -> Vec<DataKeyId> {
        let state = self.state.borrow();
        // Planned segments will be listed under their key; those being unlisted are until the manifest says otherwise.
        let mut ids: Vec<_> = state.segments.iter().map(|segment| segment.header.key_id).collect();
        ids.extend(state.checkpoint.as_ref().map(|checkpoint| DataKeyId(checkpoint.key_id)));
        ids.extend(state.checkpoint_key);
        ids.extend(&state.manifest_keys);
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    async fn shutdown(&self) -> Result<(), CommitError> {
        self.shut_down().await
    }
}
