//! Writing index checkpoints.
//!
//! A checkpoint covers the frames up to the one that was applied last when it began. The walk goes on in slices while
//! writes change the index: what it then catches or misses is put right by replaying what came after that frame.

use super::device::write_whole_buffer;
use super::format::checkpoint::{
    CHECKPOINT_HEADER_BYTES, CHUNK_HEADER_BYTES, CheckpointChunk, CheckpointEntry, CheckpointHeader, CheckpointRun,
    CheckpointTail, ChunkHeader, TombstoneTotals,
};
use super::format::manifest::CheckpointRef;
use super::format::{Binding, Tag};
use super::index::WalkCursor;
use super::manifest::Interrupt;
use super::segment::checkpoint_path;
use super::state::{LogStorage, SegmentOf, State};
use crate::crypto::keyring::DataKeyId;
use crate::crypto::seal::{Purpose, SealingKey};
use crate::limits::{
    CHECKPOINT_DUE_BYTES_MAX, CHECKPOINT_DUE_BYTES_MIN, CHECKPOINT_DUE_TIMES, CHECKPOINT_ENTITY_BYTES,
};
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{Caching, Disk, DiskFile, Durability, OpenMode, Platform, Spawn};
use crate::runtime::publish::remove_if_there;
use crate::sabotage::{Sabotage, is_on};
use rkyv::rancor;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

/// Entries looked at before asking whether to yield.
const SLICE_ENTRIES: usize = 256;

/// A checkpoint under construction.
struct CheckpointWriter<F> {
    file: F,
    key: SealingKey,
    binding: Binding,
    offset: u64,
    chunks: u64,
    tag: Tag,
    entities: u64,
    buffer: AlignedBuffer,
}

impl<P: Platform> LogStorage<P> {
    /// Whether enough log was written, or something else wants a checkpoint.
    pub(super) fn checkpoint_due(&self) -> bool {
        let state = self.state.borrow();
        state.checkpoint_forced || state.log_bytes_since_checkpoint >= self.checkpoint_due_bytes(&state)
    }

    /// Log bytes after which one is due.
    pub(super) fn checkpoint_due_bytes(&self, state: &State<P>) -> u64 {
        due_bytes(state.index.len()).min(self.sizes.checkpoint_due_bytes)
    }

    /// Writes a checkpoint and puts it in force. The maintenance lock is held, or nothing else runs.
    pub(super) async fn write_checkpoint(&self) -> Result<(), Interrupt> {
        let result = self.write_and_enforce_checkpoint().await;
        self.state.borrow_mut().checkpoint_key = None;
        result
    }

    async fn write_and_enforce_checkpoint(&self) -> Result<(), Interrupt> {
        // Everything noted here belongs to one moment.
        let (number, position, tombstones, log_bytes) = {
            let mut state = self.state.borrow_mut();
            let number = state.checkpoint_number_next;
            state.checkpoint_number_next += 1;
            let listed = state.segments.iter().filter(|segment| segment.listed.get());
            let totals: Vec<_> = listed.map(tombstone_totals).filter(|totals| totals.count > 0).collect();
            (number, state.applied, totals, state.log_bytes_since_checkpoint)
        };
        let installed: Vec<SegmentOf<P>> = {
            let state = self.state.borrow();
            state.segments.iter().filter(|segment| segment.listed.get() && segment.installed.get()).cloned().collect()
        };
        let path = checkpoint_path(&self.directory, number);
        let written = self.write_checkpoint_file(&path, number, tombstones).await;
        let (id, key_id, tag, entities) = match written {
            Ok(written) => written,
            Err(interrupt) => {
                let _ = remove_if_there(self.disk(), &path).await;
                if interrupt == Interrupt::OutOfSpace {
                    let wanted = self.state.borrow().index.len() * CHECKPOINT_ENTITY_BYTES;
                    self.make_room(wanted).await;
                }
                return Err(interrupt);
            }
        };
        let position = if is_on(Sabotage::CheckpointClaimsMore) { self.state.borrow().applied } else { position };
        self.passed_segments_sealed(position.segment).await?;
        let damaged = std::mem::take(&mut self.state.borrow_mut().checkpoint_damaged);
        let (previous, marked) = {
            let mut state = self.state.borrow_mut();
            let reference = CheckpointRef {
                number,
                id,
                key_id: key_id.0,
                tag,
                entities,
                frame: position.frame,
                frame_tag: position.tag,
                segment: position.segment,
                offset: position.offset,
            };
            let marked: Vec<_> = installed.into_iter().filter(|segment| !segment.checkpointed.replace(true)).collect();
            (state.checkpoint.replace(reference), marked)
        };
        let published = self.publish_manifest(false).await;
        let names_it = || self.state.borrow().manifest.checkpoint.as_ref().is_some_and(|named| named.number == number);
        // After want of space another task's manifest may have named it.
        if let Err(interrupt) = published
            && !(interrupt == Interrupt::OutOfSpace && names_it())
        {
            marked.iter().for_each(|segment| segment.checkpointed.set(false));
            {
                let mut state = self.state.borrow_mut();
                (state.checkpoint, state.checkpoint_damaged) = (previous, damaged);
            }
            if interrupt == Interrupt::OutOfSpace {
                // After any other failure the manifest may name it already.
                let _ = remove_if_there(self.disk(), &path).await;
            }
            return Err(interrupt);
        }
        {
            let mut state = self.state.borrow_mut();
            state.log_bytes_since_checkpoint = state.log_bytes_since_checkpoint.saturating_sub(log_bytes);
            state.checkpoint_forced = false;
        }
        self.figures().checkpoints.add(1);
        if let Some(previous) = previous {
            let removed = remove_if_there(self.disk(), &checkpoint_path(&self.directory, previous.number)).await;
            removed.map_err(|error| self.interrupt("removing the old checkpoint", &error))?;
        }
        self.update_gauges();
        Ok(())
    }

    /// The manifest that names the checkpoint also tells where the segments it covers end.
    async fn passed_segments_sealed(&self, segment: u32) -> Result<(), Interrupt> {
        loop {
            let seen = self.signals.idle.epoch();
            {
                let state = self.state.borrow();
                state.check_writable().map_err(|_| Interrupt::Stopped)?;
                let mut listed = state.segments.iter().filter(|one| one.listed.get() && one.number() < segment);
                if listed.all(|one| one.end.get().is_some()) {
                    return Ok(());
                }
            }
            if self.closing.get() {
                return Err(Interrupt::Stopped);
            }
            self.signals.idle.changed(seen).await;
        }
    }

    async fn write_checkpoint_file(
        &self,
        path: &Path,
        number: u64,
        tombstones: Vec<TombstoneTotals>,
    ) -> Result<([u8; 16], DataKeyId, Tag, u64), Interrupt> {
        let failed = |error: &io::Error| self.interrupt("writing a checkpoint", error);
        let keyring = self.state.borrow().keyring.clone();
        let data_key = keyring.active();
        self.state.borrow_mut().checkpoint_key = Some(data_key.id());
        let header = CheckpointHeader { number, id: self.random(), key_id: data_key.id(), salt: self.random() };
        let key = SealingKey::derive(data_key, &header.salt, Purpose::Checkpoint);
        let opened = self.disk().open(path, OpenMode::CreateNew, Caching::Direct).await;
        let file = opened.map_err(|error| failed(&error))?;
        let mut block = AlignedBuffer::zeroed(CHECKPOINT_HEADER_BYTES);
        let sealed = header.seal(&self.identity, &key, self.nonce(), &mut block);
        let tag = sealed.map_err(|error| failed(&io::Error::other(error)))?;
        let (result, _) = write_whole_buffer(&file, 0, block, Durability::Later).await;
        result.map_err(|error| failed(&error))?;
        let mut writer = CheckpointWriter {
            file,
            key,
            binding: Binding::new(&self.identity, &header.id, header.key_id),
            offset: CHECKPOINT_HEADER_BYTES as u64,
            chunks: 0,
            tag,
            entities: 0,
            buffer: AlignedBuffer::zeroed(1),
        };
        let mut cursor = WalkCursor::default();
        loop {
            let (chunk, done) = self.collect_chunk(&mut cursor).await;
            if !chunk.entries.is_empty() {
                writer.entities += chunk.entries.len() as u64;
                let body = rkyv::to_bytes::<rancor::Error>(&chunk);
                let body = body.map_err(|error| failed(&io::Error::other(error)))?;
                self.platform.spawn().yield_if_due().await;
                writer.write(&body, false, self.nonce()).await.map_err(|error| failed(&error))?;
                self.chunks_written.set(self.chunks_written.get() + 1);
            }
            if done {
                break;
            }
            if self.closing.get() && self.jobs.get() > 0 {
                // The shutdown waits for this, and writes one of its own.
                return Err(Interrupt::Stopped);
            }
            self.platform.spawn().yield_if_due().await;
        }
        let tail = CheckpointTail { entities: writer.entities, tombstones };
        let body = rkyv::to_bytes::<rancor::Error>(&tail).map_err(|error| failed(&io::Error::other(error)))?;
        writer.write(&body, true, self.nonce()).await.map_err(|error| failed(&error))?;
        if !is_on(Sabotage::CheckpointBeforeData) {
            writer.file.sync_data().await.map_err(|error| failed(&error))?;
        }
        self.sync_directory().await?;
        Ok((header.id, header.key_id, writer.tag, writer.entities))
    }

    /// The next chunk of the walk, and whether it was the last.
    async fn collect_chunk(&self, cursor: &mut WalkCursor) -> (CheckpointChunk, bool) {
        let mut chunk = CheckpointChunk::default();
        let mut bytes = 0;
        // Runs, lengths and alignment of the archive.
        let bytes_max = self.sizes.checkpoint_chunk_bytes - 1024;
        loop {
            let done = {
                let state = self.state.borrow();
                let mut seen = 0;
                state.index.walk(cursor, |schema, entry| {
                    let number = state.segments.get(entry.place.slot).map_or(0, |segment| segment.number());
                    if chunk.runs.last().is_none_or(|run| run.schema != schema) {
                        chunk.runs.push(CheckpointRun { schema: schema.to_owned(), entries: 0 });
                        bytes += schema.len() + 24;
                    }
                    if let Some(run) = chunk.runs.last_mut() {
                        run.entries += 1;
                    }
                    chunk.entries.push(CheckpointEntry {
                        version: entry.version,
                        segment: number,
                        offset: entry.place.offset,
                        length: entry.place.length,
                        key_bytes: entry.key.len() as u16,
                    });
                    chunk.keys.extend_from_slice(entry.key.as_bytes());
                    bytes += size_of::<CheckpointEntry>() + entry.key.len();
                    seen += 1;
                    if bytes >= bytes_max || seen >= SLICE_ENTRIES {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })
            };
            if done || bytes >= bytes_max {
                return (chunk, done);
            }
            self.platform.spawn().yield_if_due().await;
        }
    }
}

impl<F: DiskFile> CheckpointWriter<F> {
    async fn write(&mut self, body: &[u8], last: bool, nonce: [u8; 12]) -> io::Result<()> {
        let header = ChunkHeader {
            number: self.chunks,
            total: if last { self.chunks + 1 } else { 0 },
            previous_tag: self.tag,
            body_bytes: body.len() as u32,
        };
        let mut buffer = std::mem::replace(&mut self.buffer, AlignedBuffer::zeroed(1));
        if buffer.capacity() < header.chunk_bytes() {
            buffer = AlignedBuffer::zeroed(header.chunk_bytes());
        }
        buffer.set_len(header.chunk_bytes());
        buffer[CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + body.len()].copy_from_slice(body);
        let sealed = header.seal(&self.key, &self.binding, nonce, &mut buffer);
        self.tag = sealed.map_err(io::Error::other)?;
        let (result, buffer) = write_whole_buffer(&self.file, self.offset, buffer, Durability::Later).await;
        self.buffer = buffer;
        result?;
        self.offset += header.chunk_bytes() as u64;
        self.chunks += 1;
        Ok(())
    }
}

/// Log bytes after which a checkpoint of so many entities is due. What is replayed after a kill, and the dead segments
/// that wait to be written again, should be few; writing checkpoints must stay a small part of all writing.
fn due_bytes(entities: u64) -> u64 {
    let worth_it = entities.saturating_mul(CHECKPOINT_ENTITY_BYTES * CHECKPOINT_DUE_TIMES);
    worth_it.clamp(CHECKPOINT_DUE_BYTES_MIN, CHECKPOINT_DUE_BYTES_MAX)
}

fn tombstone_totals<F>(segment: &std::rc::Rc<super::segment::Segment<F>>) -> TombstoneTotals {
    let tombstones = segment.tombstones.get();
    TombstoneTotals {
        segment: segment.number(),
        count: tombstones.count,
        bytes: tombstones.bytes,
        number_min: tombstones.number_min,
        number_max: tombstones.number_max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_due_the_sooner_the_less_it_takes() {
        assert_eq!(due_bytes(0), CHECKPOINT_DUE_BYTES_MIN);
        assert_eq!(due_bytes(10_000), CHECKPOINT_DUE_BYTES_MIN);
        assert_eq!(due_bytes(1_000_000), 512_000_000);
        assert_eq!(due_bytes(10_000_000), CHECKPOINT_DUE_BYTES_MAX);
        assert_eq!(due_bytes(u64::MAX), CHECKPOINT_DUE_BYTES_MAX);
    }
}
