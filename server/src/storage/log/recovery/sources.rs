//! What the log is put together from: manifest, segment files, checkpoint.

use super::{Access, Recovery, io_error, opened};
use crate::command::EntityRef;
use crate::crypto::keyring::DataKeyId;
use crate::crypto::seal::{Purpose, SealingKey};
use crate::limits::VERSION_MAX;
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{Caching, Disk, DiskFile, OpenMode, Platform};
use crate::runtime::publish::read_whole;
use crate::storage::log::checkpoint_reader::{CheckpointSink, load_checkpoint};
use crate::storage::log::device::read_whole_range;
use crate::storage::log::format::checkpoint::{
    ArchivedCheckpointChunk, ArchivedCheckpointEntry, ArchivedCheckpointTail,
};
use crate::storage::log::format::manifest::{MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest, ManifestHeader, SegmentRef};
use crate::storage::log::format::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind};
use crate::storage::log::format::{BLOCK_BYTES_MAX, FormatError};
use crate::storage::log::index::{Index, Place, WARM_TOGETHER};
use crate::storage::log::scan::{Scanner, Step, Window};
use crate::storage::log::segment::{SLOT_MISSING, Segment, SegmentTable, Tombstones, checkpoint_path, segment_path};
use crate::storage::log::state::FileOf;
use crate::storage::log::{Damage, OpenError};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;

impl<P: Platform> Recovery<'_, P> {
    /// Reads the manifest; returns whether there was one.
    pub async fn read_manifest(&mut self) -> Result<bool, OpenError> {
        let path = self.options.directory.join(MANIFEST_NAME);
        let file = match read_whole(self.platform.disk(), &path, MANIFEST_BYTES_MAX).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let leftover = self.segment_names().await?;
                if leftover.is_empty() && self.options.create {
                    return Ok(false);
                }
                self.damage(&path, 0, "it is missing, and with it what the shard held")?;
                return self.list_what_is_there(leftover).await;
            }
            Err(source) => return Err(io_error("read", &path)(source)),
        };
        match self.open_manifest(&path, &file) {
            Ok((manifest, key_id)) => {
                self.state.manifest_keys = manifest.key_ids(key_id);
                self.manifest = manifest;
                Ok(true)
            }
            Err(error) => {
                self.bear(error)?;
                let names = self.segment_names().await?;
                self.list_what_is_there(names).await
            }
        }
    }

    fn open_manifest(&self, path: &Path, file: &[u8]) -> Result<(Manifest, DataKeyId), OpenError> {
        let bad = |error: FormatError| format_error(path, error);
        let header = ManifestHeader::parse(file, &self.options.identity).map_err(bad)?;
        let keyring = &self.options.keyring;
        let Some(data_key) = keyring.get(header.key_id) else {
            return Err(OpenError::KeyMissing { path: path.to_owned(), key_id: header.key_id });
        };
        let key = SealingKey::derive(data_key, &header.salt, Purpose::Manifest);
        let manifest = Manifest::open(file, &header, &key).map_err(bad)?;
        if keyring.generation() < manifest.keyring_generation {
            let (found, expected) = (keyring.generation(), manifest.keyring_generation);
            return Err(OpenError::KeyringOlder { path: path.to_owned(), found, expected });
        }
        Ok((manifest, header.key_id))
    }

    /// Numbers of all files named like segments.
    async fn segment_names(&self) -> Result<Vec<u32>, OpenError> {
        let directory = &self.options.directory;
        let names = match self.platform.disk().read_dir(directory).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names.map_err(io_error("list", directory))?,
        };
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.strip_suffix(".seg")?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Salvage without a manifest: every segment that authenticates counts.
    async fn list_what_is_there(&mut self, numbers: Vec<u32>) -> Result<bool, OpenError> {
        for number in numbers {
            let path = segment_path(&self.options.directory, number);
            match self.read_header(&path).await {
                Ok((header, _)) => self.manifest.segments.push(unlisted_ref(&header)),
                Err(error) => self.damage(&path, 0, error.to_string())?,
            }
        }
        Ok(true)
    }

    /// Frames are written to listed segments only: one that is not listed, but holds frames from after the manifest
    /// was published, shows that this is an older manifest, put back. (Compacted ones are filled before they are
    /// listed, and retired ones hold what the manifest knows.)
    pub async fn look_behind_manifest(&mut self) -> Result<(), OpenError> {
        let mut numbers = self.segment_names().await?;
        numbers.retain(|number| self.manifest.segments.iter().all(|reference| reference.number != *number));
        for number in numbers {
            let path = segment_path(&self.options.directory, number);
            let Ok((header, file)) = self.read_header(&path).await else { continue };
            if header.kind != SegmentKind::Commit {
                continue;
            }
            let Some(data_key) = self.options.keyring.get(header.key_id) else { continue };
            let (identity, directory) = (&self.options.identity, &self.options.directory);
            let segment = Segment::new(identity, directory, header, data_key, SLOT_MISSING);
            let size = file.size().await.map_err(io_error("measure", &path))?;
            let mut scanner = Scanner::new(&segment, file, 0, size, Window::new(BLOCK_BYTES_MAX));
            let Step::Frame(frame) = scanner.step().await.map_err(io_error("read", &path))? else { continue };
            let unknown = number >= self.manifest.segment_number_next;
            if unknown || frame.first_sequence + u64::from(frame.records) > self.manifest.sequence_floor {
                let manifest = self.options.directory.join(MANIFEST_NAME);
                let reason = format!("it is older than {}, which holds data it does not list", path.display());
                self.damage(&manifest, 0, reason)?;
                self.manifest.segments.push(unlisted_ref(&header));
            }
        }
        Ok(())
    }

    /// Opens exactly what the manifest lists.
    pub async fn open_segments(&mut self) -> Result<(), OpenError> {
        for reference in self.manifest.segments.clone() {
            match self.open_segment(&reference).await {
                Ok(segment) => self.state.segments.insert(Rc::new(segment)),
                Err(error) => self.bear(error)?,
            }
        }
        Ok(())
    }

    async fn open_segment(&mut self, reference: &SegmentRef) -> Result<Segment<FileOf<P>>, OpenError> {
        let path = segment_path(&self.options.directory, reference.number);
        let damaged =
            |reason: &str| OpenError::Damaged(Damage { file: path.clone(), offset: 0, reason: reason.to_owned() });
        let (header, file) = match self.read_header(&path).await {
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("it is listed in the manifest, but missing"));
            }
            other => other?,
        };
        let compacted = header.kind == SegmentKind::Compacted;
        let same = header.number == reference.number && header.id == reference.id;
        if !same || header.key_id.0 != reference.key_id || compacted != reference.compacted {
            return Err(damaged("it is not the segment that the manifest lists"));
        }
        let size = file.size().await.map_err(io_error("measure", &path))?;
        if reference.end.is_some_and(|end| end.offset > size) {
            return Err(damaged("it is shorter than the manifest says"));
        }
        let Some(data_key) = self.options.keyring.get(header.key_id) else {
            return Err(OpenError::KeyMissing { path, key_id: header.key_id });
        };
        let slot = self.state.segments.reserve_slot();
        let identity = &self.options.identity;
        let segment = Segment::new(identity, &self.options.directory, header, data_key, slot);
        let _ = segment.file.set(file);
        opened(&segment);
        segment.capacity.set(size);
        segment.checkpointed.set(reference.checkpointed);
        segment.end.set(reference.end);
        if let Some(end) = reference.end {
            segment.written.set(end.offset);
            segment.last_frame.set((end.last_frame, end.last_tag));
        }
        Ok(segment)
    }

    /// Opens a segment file and authenticates its header.
    async fn read_header(&self, path: &Path) -> Result<(SegmentHeader, FileOf<P>), OpenError> {
        let opened = self.platform.disk().open(path, OpenMode::Read, Caching::Direct).await;
        let file = opened.map_err(io_error("open", path))?;
        let (count, block) = read_whole_range(&file, 0, AlignedBuffer::zeroed(SEGMENT_HEADER_BYTES)).await;
        let block = &block[..count.map_err(io_error("read", path))?];
        let header = SegmentHeader::parse(block, &self.options.identity).map_err(|error| format_error(path, error))?;
        let Some(data_key) = self.options.keyring.get(header.key_id) else {
            // The id itself may be what is damaged; whether it is cannot be told without the key.
            return Err(self.unknown_key(path, header.key_id));
        };
        let key = SealingKey::derive(data_key, &header.salt, Purpose::Segment);
        SegmentHeader::verify(block, &key).map_err(|error| format_error(path, error))?;
        Ok((header, file))
    }

    /// A key the manifest knows of too is missing; any other id is damage.
    fn unknown_key(&self, path: &Path, key_id: DataKeyId) -> OpenError {
        if self.manifest.segments.iter().any(|segment| segment.key_id == key_id.0) {
            return OpenError::KeyMissing { path: path.to_owned(), key_id };
        }
        let reason = format!("its header names the unknown data key {key_id}");
        OpenError::Damaged(Damage { file: path.to_owned(), offset: 0, reason })
    }

    /// Fills the index from the checkpoint in force. One that cannot be read is reported, and all records count.
    pub async fn load_checkpoint(&mut self) -> Result<(), OpenError> {
        let Some(reference) = self.manifest.checkpoint.clone() else {
            self.state.index.order_later();
            return Ok(());
        };
        let directory = &self.options.directory;
        let (identity, keyring) = (&self.options.identity, &self.options.keyring);
        let slots = self.state.segments.iter().map(|segment| (segment.number(), segment.slot)).collect();
        self.state.index.reserve(reference.entities as usize);
        let mut sink = Sink {
            index: &mut self.state.index,
            segments: &mut self.state.segments,
            slots,
            last: (0, SLOT_MISSING),
            version_max: 0,
            entities: 0,
            entities_expected: None,
        };
        let loaded = load_checkpoint(self.platform, directory, identity, keyring, &reference, &mut sink).await;
        let (entities, version_max) = (sink.entities, sink.version_max);
        let problem = match loaded {
            Ok(()) if sink.entities_expected == Some(entities) => None,
            Ok(()) => Some((0, "it holds another number of entities than it says".to_owned())),
            Err(problem) => Some((problem.offset, problem.reason)),
        };
        if let Some((offset, reason)) = problem {
            let damage = Damage { file: checkpoint_path(directory, reference.number), offset, reason };
            if self.access != Access::Check {
                tracing::error!(%damage, "the index checkpoint cannot be used: all segments are scanned instead");
            }
            self.report.damage.push(damage);
            self.forget_checkpoint();
            // It stays named until there is another, for the frames it covers may be gone from the log.
            self.state.checkpoint = Some(reference);
            self.state.checkpoint_damaged = true;
            return Ok(());
        }
        self.from_checkpoint = true;
        self.version_max = version_max;
        self.report.checkpoint_entities = entities;
        self.state.checkpoint = Some(reference);
        Ok(())
    }

    /// Begins again with an empty index.
    fn forget_checkpoint(&mut self) {
        let seed = crate::runtime::platform::Entropy::next_u64(self.platform.entropy());
        self.state.index = Index::new(seed);
        self.state.index.order_later();
        self.state.segments.missing_entries = 0;
        // A new one is wanted soon: until then every start scans everything.
        self.state.checkpoint_forced = true;
        for segment in self.state.segments.iter() {
            segment.live_bytes.set(0);
            segment.live_records.set(0);
            segment.tombstones.set(Tombstones::default());
            segment.checkpointed.set(false);
        }
    }
}

/// Takes a checkpoint's entities into the index.
struct Sink<'a, F> {
    index: &'a mut Index,
    segments: &'a mut SegmentTable<F>,
    slots: BTreeMap<u32, u32>,
    /// Segment number and slot of the last entry: neighbours often lie together.
    last: (u32, u32),
    version_max: u64,
    entities: u64,
    entities_expected: Option<u64>,
}

impl<F> Sink<'_, F> {
    /// Takes one entity of this hash; false when that makes no sense.
    fn load(&mut self, hash: u64, schema: u32, key: &str, entry: &ArchivedCheckpointEntry) -> bool {
        let number = entry.segment.to_native();
        if number != self.last.0 {
            self.last = (number, self.slots.get(&number).copied().unwrap_or(SLOT_MISSING));
        }
        let place = Place { slot: self.last.1, offset: entry.offset.to_native(), length: entry.length.to_native() };
        let version = entry.version.to_native();
        if version > VERSION_MAX || place.length == 0 || !self.index.load(hash, schema, key, version, place) {
            return false;
        }
        self.segments.gain(place);
        self.version_max = self.version_max.max(version);
        self.entities += 1;
        true
    }
}

impl<F> CheckpointSink for Sink<'_, F> {
    fn chunk(&mut self, chunk: &ArchivedCheckpointChunk) -> bool {
        let (mut group, mut hashes) = (Vec::with_capacity(WARM_TOGETHER), Vec::with_capacity(WARM_TOGETHER));
        let mut entries = chunk.entries.iter();
        let mut keys = chunk.keys.as_slice();
        for run in chunk.runs.iter() {
            let schema = self.index.schema_number(&run.schema);
            let mut of_run = entries.by_ref().take(run.entries.to_native() as usize);
            loop {
                group.clear();
                hashes.clear();
                for entry in of_run.by_ref().take(WARM_TOGETHER) {
                    let Some((key, rest)) = keys.split_at_checked(entry.key_bytes.to_native() as usize) else {
                        return false;
                    };
                    keys = rest;
                    let Ok(key) = std::str::from_utf8(key) else { return false };
                    hashes.push(self.index.hash(EntityRef { schema: &run.schema, key }));
                    group.push((key, entry));
                }
                if group.is_empty() {
                    break;
                }
                self.index.warm(&hashes);
                if !group.iter().zip(&hashes).all(|((key, entry), hash)| self.load(*hash, schema, key, entry)) {
                    return false;
                }
            }
        }
        entries.next().is_none() && keys.is_empty()
    }

    fn tail(&mut self, tail: &ArchivedCheckpointTail) {
        self.entities_expected = Some(tail.entities.to_native());
        for totals in tail.tombstones.iter() {
            let slot = self.slots.get(&totals.segment.to_native());
            if let Some(segment) = slot.and_then(|slot| self.segments.get(*slot)) {
                segment.tombstones.set(Tombstones {
                    count: totals.count.to_native(),
                    bytes: totals.bytes.to_native(),
                    number_min: totals.number_min.to_native(),
                    number_max: totals.number_max.to_native(),
                });
            }
        }
    }
}

/// How a manifest would name a segment that was found without one.
fn unlisted_ref(header: &SegmentHeader) -> SegmentRef {
    SegmentRef {
        number: header.number,
        id: header.id,
        key_id: header.key_id.0,
        compacted: header.kind == SegmentKind::Compacted,
        checkpointed: false,
        end: None,
    }
}

fn format_error(path: &Path, error: FormatError) -> OpenError {
    match error {
        FormatError::Version(_) | FormatError::Foreign(_) => {
            OpenError::Foreign { path: path.to_owned(), reason: error }
        }
        other => OpenError::Damaged(Damage { file: path.to_owned(), offset: 0, reason: other.to_string() }),
    }
}
