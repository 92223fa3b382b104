//! Reading index checkpoints: into an index, or only to see whether they are whole.

use super::device::read_whole_range;
use super::format::checkpoint::{
    ArchivedCheckpointChunk, ArchivedCheckpointTail, CHECKPOINT_HEADER_BYTES, CheckpointHeader, ChunkHeader,
};
use super::format::manifest::CheckpointRef;
use super::format::{BLOCK_BYTES_MAX, Binding, FormatError, LogIdentity, Tag};
use super::segment::checkpoint_path;
use super::state::FileOf;
use crate::crypto::keyring::Keyring;
use crate::crypto::seal::{Purpose, SealingKey};
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{Caching, Disk, DiskFile, OpenMode, Platform};
use rkyv::rancor;
use std::io;
use std::path::Path;

/// Why a checkpoint cannot be used: where in the file, and what is wrong.
#[derive(Debug)]
pub struct CheckpointProblem {
    /// Offset of what is wrong.
    pub offset: u64,
    /// What is wrong.
    pub reason: String,
}

impl CheckpointProblem {
    fn at(offset: u64, reason: impl ToString) -> Self {
        Self { offset, reason: reason.to_string() }
    }
}

/// What takes a checkpoint's content.
pub trait CheckpointSink {
    /// The next chunk; false when its content makes no sense.
    fn chunk(&mut self, chunk: &ArchivedCheckpointChunk) -> bool;
    /// The tail.
    fn tail(&mut self, tail: &ArchivedCheckpointTail);
}

/// A checkpoint being read, chunk by chunk.
pub struct CheckpointReader<F> {
    file: F,
    size: u64,
    key: SealingKey,
    binding: Binding,
    /// Tag of the chunk before.
    tag: Tag,
    /// What the manifest says of the last one.
    tag_expected: Tag,
    offset: u64,
    number: u64,
    buffer: AlignedBuffer,
}

/// Reads a checkpoint from end to end; everything handed on has been verified.
pub async fn load_checkpoint<P: Platform>(
    platform: &P,
    directory: &Path,
    identity: &LogIdentity,
    keyring: &Keyring,
    reference: &CheckpointRef,
    sink: &mut impl CheckpointSink,
) -> Result<(), CheckpointProblem> {
    let mut reader = open_checkpoint(platform, directory, identity, keyring, reference).await?;
    while !reader.next(sink).await? {}
    Ok(())
}

/// Opens a checkpoint and authenticates its header.
pub async fn open_checkpoint<P: Platform>(
    platform: &P,
    directory: &Path,
    identity: &LogIdentity,
    keyring: &Keyring,
    reference: &CheckpointRef,
) -> Result<CheckpointReader<FileOf<P>>, CheckpointProblem> {
    let path = checkpoint_path(directory, reference.number);
    let wrong = |reason: FormatError| CheckpointProblem::at(0, reason);
    let failed = |error: io::Error| CheckpointProblem::at(0, error);
    let file: FileOf<P> = platform.disk().open(&path, OpenMode::Read, Caching::Direct).await.map_err(failed)?;
    let size = file.size().await.map_err(failed)?;
    let (count, block) = read_whole_range(&file, 0, AlignedBuffer::zeroed(CHECKPOINT_HEADER_BYTES)).await;
    let block = &block[..count.map_err(failed)?];
    let header = CheckpointHeader::parse(block, identity).map_err(wrong)?;
    if header.number != reference.number || header.id != reference.id || header.key_id.0 != reference.key_id {
        return Err(CheckpointProblem::at(0, NOT_NAMED));
    }
    let Some(data_key) = keyring.get(header.key_id) else {
        return Err(CheckpointProblem::at(0, "the keyring does not hold its data key"));
    };
    let key = SealingKey::derive(data_key, &header.salt, Purpose::Checkpoint);
    let tag = CheckpointHeader::verify(block, &key).map_err(wrong)?;
    Ok(CheckpointReader {
        file,
        size,
        key,
        binding: Binding::new(identity, &header.id, header.key_id),
        tag,
        tag_expected: reference.tag,
        offset: CHECKPOINT_HEADER_BYTES as u64,
        number: 0,
        buffer: AlignedBuffer::zeroed(1),
    })
}

const NOT_NAMED: &str = "it is not the checkpoint that the manifest names";
const CUT_SHORT: &str = "it ends within a chunk";

impl<F: DiskFile> CheckpointReader<F> {
    /// How far it has come.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Verifies the next chunk and hands it on; true when it was the last.
    pub async fn next(&mut self, sink: &mut impl CheckpointSink) -> Result<bool, CheckpointProblem> {
        let offset = self.offset;
        let at = |reason: &str| CheckpointProblem::at(offset, reason);
        let wrong = |error: FormatError| CheckpointProblem::at(offset, error);
        // Most chunks are of one size, so the next one is guessed to be as long as the last.
        let mut filled = self.fill(self.buffer.len().max(BLOCK_BYTES_MAX)).await?;
        let chunk = ChunkHeader::parse(&self.buffer[..filled], self.number, &self.tag).map_err(wrong)?;
        let length = chunk.chunk_bytes();
        let end = offset + length as u64;
        if end > self.size {
            return Err(at(CUT_SHORT));
        }
        if filled < length {
            filled = self.fill(length).await?;
        }
        let bytes = self.buffer.get_mut(..length).filter(|_| filled >= length).ok_or_else(|| at(CUT_SHORT))?;
        let (tag, body) = chunk.open(&self.key, &self.binding, bytes).map_err(wrong)?;
        let last = chunk.total != 0;
        if last {
            let archived = rkyv::access::<ArchivedCheckpointTail, rancor::Error>(body);
            sink.tail(archived.map_err(|_| at("the last chunk makes no sense"))?);
            if tag != self.tag_expected || end != self.size {
                return Err(at(NOT_NAMED));
            }
        } else {
            let archived = rkyv::access::<ArchivedCheckpointChunk, rancor::Error>(body);
            let sensible = archived.is_ok_and(|archived| sink.chunk(archived));
            if !sensible {
                return Err(at("a chunk makes no sense"));
            }
        }
        (self.tag, self.offset, self.number) = (tag, end, self.number + 1);
        Ok(last)
    }

    /// Reads so many bytes from the offset on, or up to the end of the file.
    async fn fill(&mut self, bytes: usize) -> Result<usize, CheckpointProblem> {
        let mut buffer = std::mem::replace(&mut self.buffer, AlignedBuffer::zeroed(1));
        if buffer.capacity() < bytes {
            buffer = AlignedBuffer::zeroed(bytes);
        }
        buffer.set_len(bytes);
        let (filled, buffer) = read_whole_range(&self.file, self.offset, buffer).await;
        self.buffer = buffer;
        filled.map_err(|error| CheckpointProblem::at(self.offset, error))
    }
}
