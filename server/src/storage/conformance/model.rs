//! A small, slow and right backend over the `Disk` trait, and the ways in which it can be made wrong.
//!
//! One file, `log-<n>`: frames of length, checksum and changes; every opening writes the live entities into the next
//! file, so that a file is written by one process only. It exists to prove that the suite sees.

use super::StorageUnderTest;
use crate::command::{Document, EntityRef, Version};
use crate::crypto::keyring::{DataKeyId, Keyring};
use crate::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORDS_IN_FLIGHT_MAX};
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{Caching, Clock, Disk, DiskFile, Durability, OpenMode, Platform};
use crate::runtime::sim::SimPlatform;
use crate::storage::{Change, CommitError, ListEntry, Mutation, ReadError, Refusal, Storage, StorageStatus};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What is wrong with a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    None,
    RepliesBeforeSync,
    SkipsDirectorySync,
    IgnoresShortWrite,
    IgnoresShortRead,
    ForgetsTombstone,
    ReusesVersions,
    VisibleBeforeSync,
    RetriesFailedSync,
    StaysUsableAfterFailure,
    RemovesOldLogTooEarly,
    WritesOnInOldLog,
    ShowsUnsyncedRecovery,
    TrustsTornFrames,
    OutOfSpaceForEver,
    ServesUncheckedReads,
    ListsCursorAgain,
    DropsChangesOfFullBatch,
    AsksTheRealWorld,
}

/// Opens models on the simulated machine.
pub(super) struct ModelUnderTest(pub(super) Bug);

impl StorageUnderTest for ModelUnderTest {
    type Platform = SimPlatform;
    type Storage = ModelStorage<SimPlatform>;

    async fn open(&self, platform: &SimPlatform, directory: &Path) -> Result<Rc<Self::Storage>, String> {
        let opened = ModelStorage::open(platform.clone(), directory, self.0).await;
        opened.map(Rc::new).map_err(|error| error.to_string())
    }

    fn document_bytes_max(&self) -> usize {
        2 << 20
    }
}

type Name = (String, String);

#[derive(Clone)]
struct Entry {
    name: Name,
    version: Version,
    body: Option<Vec<u8>>,
}

#[derive(Clone, Copy)]
struct Place {
    version: Version,
    offset: u64,
    len: usize,
    checksum: u32,
}

/// The model.
pub(super) struct ModelStorage<P: Platform> {
    platform: P,
    bug: Bug,
    path: PathBuf,
    file: <P::Disk as Disk>::File,
    end: Cell<u64>,
    next_version: Cell<Version>,
    index: RefCell<BTreeMap<Name, Place>>,
    open_batch: RefCell<Vec<Entry>>,
    refuses: RefCell<Option<Refusal>>,
}

const FRAME_HEADER_BYTES: usize = 8;
const ENTRY_HEADER_BYTES: usize = 21;

impl<P: Platform> ModelStorage<P> {
    async fn open(platform: P, directory: &Path, bug: Bug) -> io::Result<Self> {
        let disk = platform.disk().clone();
        disk.create_dir_all(directory).await?;
        for ancestor in directory.ancestors().skip(1) {
            disk.sync_dir(ancestor).await?;
        }
        let mut numbers = Vec::new();
        for name in disk.read_dir(directory).await? {
            match name.strip_prefix("log-").and_then(|number| number.parse::<u64>().ok()) {
                Some(number) => numbers.push(number),
                None => disk.remove_file(&directory.join(name)).await?,
            }
        }
        numbers.sort_unstable();
        let mut frames = Vec::new();
        let mut floor = 0;
        let newest = numbers.last().copied();
        if let Some(number) = newest {
            let path = directory.join(format!("log-{number}"));
            let file = disk.open(&path, OpenMode::Read, Caching::Buffered).await?;
            let len = file.size().await? as usize;
            (frames, floor) = decode_log(&read_exactly(&file, 0, len, bug).await?, bug);
        }
        let skip = if bug == Bug::ReusesVersions { 0 } else { RECORDS_IN_FLIGHT_MAX as u64 };
        let version_max = frames.iter().map(|(_, entry)| entry.version).max().unwrap_or(0).max(floor);
        let mut floor = version_max + skip;

        let reuse = newest.filter(|_| matches!(bug, Bug::WritesOnInOldLog | Bug::ShowsUnsyncedRecovery));
        let path = directory.join(format!("log-{}", reuse.unwrap_or(newest.unwrap_or(0) + 1)));
        let live = live_entries(&frames, bug);
        if reuse.is_none() {
            if bug == Bug::RemovesOldLogTooEarly {
                remove_logs(&disk, directory, &numbers).await?;
            }
            publish(&disk, directory, &path, &encode_frame(floor, &live), bug).await?;
            if bug != Bug::RemovesOldLogTooEarly {
                remove_logs(&disk, directory, &numbers).await?;
            }
        }
        let file = disk.open(&path, OpenMode::ReadWrite, Caching::Buffered).await?;
        if bug == Bug::WritesOnInOldLog && reuse.is_some() {
            let bytes = read_exactly(&file, 0, file.size().await? as usize, bug).await?;
            write_fully(&file, log_end(&bytes, bug), &encode_frame(floor, &[]), bug).await?;
            file.sync_data().await?;
        }
        if bug == Bug::ShowsUnsyncedRecovery {
            // Nothing is written, so the floor must grow by itself.
            floor += platform.clock().now_ns();
        }
        let bytes = read_exactly(&file, 0, file.size().await? as usize, bug).await?;
        let (placed, _) = decode_log(&bytes, bug);
        let storage = Self {
            platform,
            bug,
            path,
            file,
            end: Cell::new(log_end(&bytes, bug)),
            next_version: Cell::new(floor + 1),
            index: RefCell::default(),
            open_batch: RefCell::default(),
            refuses: RefCell::default(),
        };
        placed.into_iter().for_each(|(offset, entry)| storage.show(&entry, offset));
        Ok(storage)
    }

    fn show(&self, entry: &Entry, offset: u64) {
        let mut index = self.index.borrow_mut();
        match &entry.body {
            Some(body) => {
                let checksum = crc32c::crc32c(body);
                let place = Place { version: entry.version, offset, len: body.len(), checksum };
                index.insert(entry.name.clone(), place);
            }
            None => {
                index.remove(&entry.name);
            }
        }
    }

    fn poison(&self, error: &io::Error) -> CommitError {
        let reason = format!("{}: {error}", self.path.display());
        if self.bug != Bug::StaysUsableAfterFailure {
            *self.refuses.borrow_mut() = Some(Refusal::Poisoned { reason: reason.clone() });
        }
        CommitError::OutcomeUnknown { reason }
    }

    async fn commit_batch(&self, batch: &[Entry]) -> Result<(), CommitError> {
        let frame = encode_frame(self.next_version.get() - 1, batch);
        let start = self.end.get();
        if let Err(error) = self.file.write_zeros(start, frame.len() as u64).await {
            if error.kind() != io::ErrorKind::StorageFull {
                return Err(self.poison(&error));
            }
            if self.bug == Bug::OutOfSpaceForEver {
                *self.refuses.borrow_mut() = Some(Refusal::OutOfSpace);
            }
            return Err(Refusal::OutOfSpace.into());
        }
        let offsets = body_offsets(batch, start);
        let show = || batch.iter().zip(&offsets).for_each(|(entry, offset)| self.show(entry, *offset));
        if self.bug == Bug::VisibleBeforeSync {
            show();
        }
        write_fully(&self.file, start, &frame, self.bug).await.map_err(|error| self.poison(&error))?;
        if self.bug != Bug::RepliesBeforeSync {
            let mut synced = self.file.sync_data().await;
            let mut retries = if self.bug == Bug::RetriesFailedSync { 3 } else { 0 };
            while synced.is_err() && retries > 0 {
                synced = self.file.sync_data().await;
                retries -= 1;
            }
            synced.map_err(|error| self.poison(&error))?;
        }
        self.end.set(start + frame.len() as u64);
        show();
        Ok(())
    }
}

impl<P: Platform> Storage for ModelStorage<P> {
    fn durable_version(&self, entity: EntityRef<'_>) -> Option<Version> {
        self.index.borrow().get(&name_of(entity)).map(|place| place.version)
    }

    fn append(&self, changes: &[Change<'_>], versions: &mut Vec<Version>) -> Result<(), Refusal> {
        if let Some(refusal) = &*self.refuses.borrow() {
            return Err(refusal.clone());
        }
        let mut batch = self.open_batch.borrow_mut();
        let bytes: usize = batch.iter().map(|entry| entry.body.as_ref().map_or(0, Vec::len)).sum();
        let added: usize = changes.iter().map(change_bytes).sum();
        let full = batch.len() + changes.len() > BATCH_RECORDS_MAX || bytes + added > BATCH_BYTES_MAX;
        if full && !batch.is_empty() && self.bug != Bug::DropsChangesOfFullBatch {
            return Err(Refusal::BatchFull);
        }
        for change in changes {
            let version = self.next_version.get();
            self.next_version.set(version + 1);
            versions.push(version);
            if full && batch.len() >= BATCH_RECORDS_MAX {
                continue;
            }
            let body = match change.mutation {
                Mutation::Put(body) => Some(body.to_vec()),
                Mutation::Delete => None,
            };
            batch.push(Entry { name: name_of(change.entity), version, body });
        }
        Ok(())
    }

    fn has_open_batch(&self) -> bool {
        !self.open_batch.borrow().is_empty()
    }

    async fn commit(&self) -> Result<(), CommitError> {
        let batch = self.open_batch.take();
        if batch.is_empty() {
            return Ok(());
        }
        if let Some(refusal) = &*self.refuses.borrow() {
            return Err(refusal.clone().into());
        }
        self.commit_batch(&batch).await
    }

    async fn read(&self, entity: EntityRef<'_>) -> Result<Option<(Version, Document)>, ReadError> {
        let Some(place) = self.index.borrow().get(&name_of(entity)).copied() else { return Ok(None) };
        let named = format!("{} at {}", self.path.display(), place.offset);
        let body = read_exactly(&self.file, place.offset, place.len, self.bug)
            .await
            .map_err(|error| ReadError::Io { place: named.clone(), reason: error.to_string() })?;
        if crc32c::crc32c(&body) != place.checksum && self.bug != Bug::ServesUncheckedReads {
            return Err(ReadError::Corrupted { place: named, reason: "the checksum does not fit".to_owned() });
        }
        Ok(Some((place.version, Document::new(entity, &body))))
    }

    fn list(&self, schema: &str, prefix: &str, after: Option<&str>, limit: usize) -> Vec<ListEntry> {
        let again = self.bug == Bug::ListsCursorAgain;
        let is_after = |key: &str| after.is_none_or(|after| key > after || (again && key == after));
        let index = self.index.borrow();
        let of_schema = index.iter().filter(|(name, _)| name.0 == schema && name.1.starts_with(prefix));
        let entries = of_schema.filter(|(name, _)| is_after(&name.1));
        entries.take(limit).map(|(name, place)| (name.1.as_str().into(), place.version)).collect()
    }

    fn schemas(&self) -> Vec<(String, u64)> {
        let mut counts = BTreeMap::new();
        self.index.borrow().keys().for_each(|name| *counts.entry(name.0.clone()).or_insert(0) += 1);
        counts.into_iter().collect()
    }

    fn status(&self) -> StorageStatus {
        StorageStatus {
            entities: self.index.borrow().len() as u64,
            refuses_writes: self.refuses.borrow().as_ref().map(Refusal::to_string),
            ..StorageStatus::default()
        }
    }

    async fn adopt_keyring(&self, _keyring: Arc<Keyring>) -> Result<(), CommitError> {
        Ok(())
    }

    fn key_ids_in_use(&self) -> Vec<DataKeyId> {
        Vec::new()
    }

    async fn shutdown(&self) -> Result<(), CommitError> {
        if self.bug == Bug::AsksTheRealWorld {
            // Differs from run to run, as the order of a hash map with the standard hasher would.
            let random = std::hash::RandomState::new().hash_one(0);
            self.platform.clock().sleep(Duration::from_nanos(random % 1_000_000)).await;
        }
        Ok(())
    }
}

fn name_of(entity: EntityRef<'_>) -> Name {
    (entity.schema.to_owned(), entity.key.to_owned())
}

fn change_bytes(change: &Change<'_>) -> usize {
    match change.mutation {
        Mutation::Put(body) => body.len(),
        Mutation::Delete => 0,
    }
}

async fn remove_logs<D: Disk>(disk: &D, directory: &Path, numbers: &[u64]) -> io::Result<()> {
    for number in numbers {
        disk.remove_file(&directory.join(format!("log-{number}"))).await?;
    }
    Ok(())
}

async fn publish<D: Disk>(disk: &D, directory: &Path, path: &Path, bytes: &[u8], bug: Bug) -> io::Result<()> {
    let temporary = directory.join("tmp");
    let file = disk.open(&temporary, OpenMode::CreateNew, Caching::Buffered).await?;
    write_fully(&file, 0, bytes, bug).await?;
    file.sync_data().await?;
    disk.rename(&temporary, path).await?;
    if bug != Bug::SkipsDirectorySync {
        disk.sync_dir(directory).await?;
    }
    Ok(())
}

async fn write_fully<F: DiskFile>(file: &F, offset: u64, bytes: &[u8], bug: Bug) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let mut buffer = AlignedBuffer::zeroed(bytes.len() - done);
        buffer.copy_from_slice(&bytes[done..]);
        done += file.write_at(offset + done as u64, buffer, Durability::Later).await.0?;
        if bug == Bug::IgnoresShortWrite {
            break;
        }
    }
    Ok(())
}

async fn read_exactly<F: DiskFile>(file: &F, offset: u64, len: usize, bug: Bug) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let buffer = AlignedBuffer::zeroed(len - bytes.len());
        let (result, buffer) = file.read_at(offset + bytes.len() as u64, buffer).await;
        match result? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
        if bug == Bug::IgnoresShortRead {
            break;
        }
    }
    Ok(bytes)
}

fn encode_frame(floor: Version, entries: &[Entry]) -> Vec<u8> {
    let mut payload = floor.to_le_bytes().to_vec();
    for entry in entries {
        let body = entry.body.as_deref().unwrap_or_default();
        payload.push(u8::from(entry.body.is_some()));
        payload.extend_from_slice(&entry.version.to_le_bytes());
        for len in [entry.name.0.len(), entry.name.1.len(), body.len()] {
            payload.extend_from_slice(&(len as u32).to_le_bytes());
        }
        for part in [entry.name.0.as_bytes(), entry.name.1.as_bytes(), body] {
            payload.extend_from_slice(part);
        }
    }
    let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    frame.append(&mut payload);
    frame
}

/// Where each body lies once the frame is written at `start`.
fn body_offsets(entries: &[Entry], start: u64) -> Vec<u64> {
    let mut offset = start + FRAME_HEADER_BYTES as u64 + 8;
    let mut offsets = Vec::new();
    for entry in entries {
        offset += (ENTRY_HEADER_BYTES + entry.name.0.len() + entry.name.1.len()) as u64;
        offsets.push(offset);
        offset += entry.body.as_ref().map_or(0, Vec::len) as u64;
    }
    offsets
}

fn frame_at(bytes: &[u8], start: usize, bug: Bug) -> Option<&[u8]> {
    let header = bytes.get(start..start + FRAME_HEADER_BYTES)?;
    let len = u32::from_le_bytes(header[..4].try_into().ok()?) as usize;
    let checksum = u32::from_le_bytes(header[4..].try_into().ok()?);
    let payload = bytes.get(start + FRAME_HEADER_BYTES..start + FRAME_HEADER_BYTES + len)?;
    (len >= 8 && (bug == Bug::TrustsTornFrames || crc32c::crc32c(payload) == checksum)).then_some(payload)
}

fn log_end(bytes: &[u8], bug: Bug) -> u64 {
    let mut end = 0;
    while let Some(payload) = frame_at(bytes, end, bug) {
        end += FRAME_HEADER_BYTES + payload.len();
    }
    end as u64
}

/// All entries with the places of their bodies, in order, and the version floor.
fn decode_log(bytes: &[u8], bug: Bug) -> (Vec<(u64, Entry)>, Version) {
    let (mut start, mut floor, mut entries) = (0, 0, Vec::new());
    while let Some(payload) = frame_at(bytes, start, bug) {
        floor = floor.max(payload[..8].try_into().map_or(0, Version::from_le_bytes));
        let mut at = 8;
        while let Some((entry, body_at, next)) = decode_entry(payload, at) {
            entries.push(((start + FRAME_HEADER_BYTES + body_at) as u64, entry));
            at = next;
        }
        start += FRAME_HEADER_BYTES + payload.len();
    }
    (entries, floor)
}

fn decode_entry(payload: &[u8], at: usize) -> Option<(Entry, usize, usize)> {
    let header = payload.get(at..at + ENTRY_HEADER_BYTES)?;
    let version = Version::from_le_bytes(header[1..9].try_into().ok()?);
    let len = |from: usize| header[from..from + 4].try_into().map_or(0, u32::from_le_bytes) as usize;
    let schema_at = at + ENTRY_HEADER_BYTES;
    let key_at = schema_at + len(9);
    let body_at = key_at + len(13);
    let next = body_at + len(17);
    let text = |from, to| Some(String::from_utf8_lossy(payload.get(from..to)?).into_owned());
    let body = payload.get(body_at..next)?.to_vec();
    let name = (text(schema_at, key_at)?, text(key_at, body_at)?);
    Some((Entry { name, version, body: (header[0] == 1).then_some(body) }, body_at, next))
}

fn live_entries(entries: &[(u64, Entry)], bug: Bug) -> Vec<Entry> {
    let mut live = BTreeMap::new();
    for (_, entry) in entries {
        if entry.body.is_some() {
            live.insert(&entry.name, entry);
        } else if bug != Bug::ForgetsTombstone {
            live.remove(&entry.name);
        }
    }
    live.into_values().cloned().collect()
}
