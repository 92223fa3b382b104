//! `<n>.ckpt`: the index at one moment, so that start need not read the log.
//!
//! Header, the first 4096 bytes:
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `DELTACKP` |
//! | 8 | 4 | format version |
//! | 12 | 4 | zero |
//! | 16 | 16 | store id |
//! | 32 | 4 | generation |
//! | 36 | 2 | shard |
//! | 38 | 2 | zero |
//! | 40 | 8 | checkpoint number |
//! | 48 | 16 | random checkpoint id |
//! | 64 | 8 | data-key id |
//! | 72 | 32 | HKDF salt |
//! | 104 | 12 | nonce |
//! | 116 | 16 | tag over bytes 0..116 |
//! | 132 | 3964 | zero |
//!
//! Then chunks, each of:
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `DCHK` |
//! | 4 | 4 | length of the sealed body |
//! | 8 | 8 | number of the chunk, from 0 |
//! | 16 | 8 | chunks in all, in the last one; 0 before it |
//! | 24 | 12 | nonce |
//! | 36 | 4 | zero |
//! | 40 | 16 | tag of the chunk before (of the header, for the first) |
//! | 56 | 16 | tag over the sealed body, bytes 0..56 and the binding |
//! | 72 | 8 | zero |
//! | 80 | body length | sealed rkyv archive: [`CheckpointChunk`], in the last one [`CheckpointTail`] |
//! | | to a multiple of 4096 | zero |
//!
//! How many chunks there will be is not known before the walk ends, for writes go on meanwhile: so each chunk is
//! bound to its number and to the chunk before, and the last one, whose tag stands in the manifest, to the total.

use super::{
    BINDING_BYTES, BLOCK_BYTES_MAX, Binding, FORMAT_VERSION, FileId, FormatError, LogIdentity, NONCE_BYTES, Reader,
    SALT_BYTES, TAG_BYTES, Tag, Writer, is_zero,
};
use crate::crypto::keyring::DataKeyId;
use crate::crypto::seal::SealingKey;
use rkyv::{Archive, Deserialize, Serialize};

/// Bytes of a checkpoint's header.
pub const CHECKPOINT_HEADER_BYTES: usize = BLOCK_BYTES_MAX;
/// Bytes of a chunk before its body.
pub const CHUNK_HEADER_BYTES: usize = 80;
const HEADER_MAGIC: &[u8; 8] = b"DELTACKP";
const CHUNK_MAGIC: &[u8; 4] = b"DCHK";
const HEADER_TAG_AT: usize = 116;
const CHUNK_TAG_AT: usize = 56;

/// Entities, schema by schema and in key order within each.
#[derive(Archive, Serialize, Deserialize, Default)]
pub struct CheckpointChunk {
    /// Which of the entries belong to which schema.
    pub runs: Vec<CheckpointRun>,
    /// The entities.
    pub entries: Vec<CheckpointEntry>,
    /// Their keys, one after the other.
    pub keys: Vec<u8>,
}

/// Consecutive entries of one schema.
#[derive(Archive, Serialize, Deserialize)]
pub struct CheckpointRun {
    /// The schema id.
    pub schema: String,
    /// How many entries.
    pub entries: u32,
}

/// One entity.
#[derive(Archive, Serialize, Deserialize, Clone, Copy)]
pub struct CheckpointEntry {
    /// Its version.
    pub version: u64,
    /// Number of the segment that holds it.
    pub segment: u32,
    /// Offset of the record there.
    pub offset: u32,
    /// Bytes of the record.
    pub length: u32,
    /// Bytes of its key.
    pub key_bytes: u16,
}

/// What ends a checkpoint.
#[derive(Archive, Serialize, Deserialize, Default)]
pub struct CheckpointTail {
    /// Entities in all chunks.
    pub entities: u64,
    /// Tombstones in the segments the checkpoint covers.
    pub tombstones: Vec<TombstoneTotals>,
}

/// The tombstones of one segment.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct TombstoneTotals {
    /// The segment.
    pub segment: u32,
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The lowest segment number one of them carries.
    pub number_min: u32,
    /// The highest.
    pub number_max: u32,
}

/// A checkpoint file's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointHeader {
    /// Its number in the shard.
    pub number: u64,
    /// Its random id.
    pub id: FileId,
    /// The data key it is sealed under.
    pub key_id: DataKeyId,
    /// Makes its key its own.
    pub salt: [u8; SALT_BYTES],
}

impl CheckpointHeader {
    /// Writes the header into the first block and returns its tag.
    pub fn seal(
        &self,
        identity: &LogIdentity,
        key: &SealingKey,
        nonce: [u8; NONCE_BYTES],
        block: &mut [u8],
    ) -> Result<Tag, FormatError> {
        block.fill(0);
        let mut writer = Writer::new(block);
        writer.put(HEADER_MAGIC);
        writer.put(&FORMAT_VERSION.to_le_bytes());
        writer.skip(4);
        writer.put(&identity.store_id);
        writer.put(&identity.generation.to_le_bytes());
        writer.put(&identity.shard.to_le_bytes());
        writer.skip(2);
        writer.put(&self.number.to_le_bytes());
        writer.put(&self.id);
        writer.put(&self.key_id.0);
        writer.put(&self.salt);
        writer.put(&nonce);
        let (clear, rest) = block.split_at_mut(HEADER_TAG_AT);
        let tag = key.seal_in_place(&nonce, clear, &mut []).map_err(|_| FormatError::NotAuthentic)?;
        rest[..TAG_BYTES].copy_from_slice(&tag);
        Ok(tag)
    }

    /// Reads the fields; nothing in them is to be trusted before [`CheckpointHeader::verify`].
    pub fn parse(block: &[u8], identity: &LogIdentity) -> Result<Self, FormatError> {
        let mut reader = Reader(block.get(..CHECKPOINT_HEADER_BYTES).ok_or(FormatError::Truncated)?);
        reader.magic(HEADER_MAGIC)?;
        reader.version()?;
        reader.zeros::<4>()?;
        reader.identity(identity)?;
        reader.zeros::<2>()?;
        let number = reader.u64()?;
        Ok(Self { number, id: reader.take()?, key_id: DataKeyId(reader.take()?), salt: reader.take()? })
    }

    /// Verifies a header just parsed and returns its tag.
    pub fn verify(block: &[u8], key: &SealingKey) -> Result<Tag, FormatError> {
        let mut reader = Reader(block.get(..CHECKPOINT_HEADER_BYTES).ok_or(FormatError::Truncated)?);
        let clear = reader.slice(HEADER_TAG_AT)?;
        let tag = reader.take()?;
        let nonce = clear.last_chunk::<NONCE_BYTES>().ok_or(FormatError::Truncated)?;
        key.open_in_place(nonce, clear, &mut [], &tag).map_err(|_| FormatError::NotAuthentic)?;
        if is_zero(reader.0) { Ok(tag) } else { Err(FormatError::Malformed("padding")) }
    }
}

/// A chunk's clear header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// From 0.
    pub number: u64,
    /// Chunks in all, in the last one.
    pub total: u64,
    /// Tag of the chunk before.
    pub previous_tag: Tag,
    /// Bytes of the sealed body.
    pub body_bytes: u32,
}

impl ChunkHeader {
    /// Bytes the chunk takes in the file.
    pub fn chunk_bytes(&self) -> usize {
        (CHUNK_HEADER_BYTES + self.body_bytes as usize).next_multiple_of(BLOCK_BYTES_MAX)
    }

    /// Seals a chunk whose body lies in clear at [`CHUNK_HEADER_BYTES`] of `chunk`, which has
    /// [`ChunkHeader::chunk_bytes`] bytes; returns its tag.
    pub fn seal(
        &self,
        key: &SealingKey,
        binding: &Binding,
        nonce: [u8; NONCE_BYTES],
        chunk: &mut [u8],
    ) -> Result<Tag, FormatError> {
        let (head, rest) = chunk.split_at_mut_checked(CHUNK_HEADER_BYTES).ok_or(FormatError::Truncated)?;
        let (body, padding) = rest.split_at_mut_checked(self.body_bytes as usize).ok_or(FormatError::Truncated)?;
        padding.fill(0);
        head.fill(0);
        let mut writer = Writer::new(head);
        writer.put(CHUNK_MAGIC);
        writer.put(&self.body_bytes.to_le_bytes());
        writer.put(&self.number.to_le_bytes());
        writer.put(&self.total.to_le_bytes());
        writer.put(&nonce);
        writer.skip(4);
        writer.put(&self.previous_tag);
        let aad = chunk_aad(head, binding)?;
        let tag = key.seal_in_place(&nonce, &aad, body).map_err(|_| FormatError::NotAuthentic)?;
        head[CHUNK_TAG_AT..CHUNK_TAG_AT + TAG_BYTES].copy_from_slice(&tag);
        Ok(tag)
    }

    /// Reads the clear header; checks that it is the chunk expected next.
    pub fn parse(bytes: &[u8], number: u64, previous_tag: &Tag) -> Result<Self, FormatError> {
        let mut reader = Reader(bytes);
        reader.magic(CHUNK_MAGIC)?;
        let body_bytes = reader.u32()?;
        let header = Self {
            body_bytes,
            number: reader.u64()?,
            total: reader.u64()?,
            previous_tag: {
                reader.take::<NONCE_BYTES>()?;
                reader.zeros::<4>()?;
                reader.take()?
            },
        };
        reader.take::<TAG_BYTES>()?;
        reader.zeros::<8>()?;
        let last = header.total == number + 1;
        if header.number != number || header.previous_tag != *previous_tag || (header.total != 0 && !last) {
            return Err(FormatError::Malformed("order of chunks"));
        }
        Ok(header)
    }

    /// Opens a parsed chunk in place; returns its tag and its body.
    pub fn open<'a>(
        &self,
        key: &SealingKey,
        binding: &Binding,
        chunk: &'a mut [u8],
    ) -> Result<(Tag, &'a [u8]), FormatError> {
        let (head, rest) = chunk.split_at_mut_checked(CHUNK_HEADER_BYTES).ok_or(FormatError::Truncated)?;
        let (body, padding) = rest.split_at_mut_checked(self.body_bytes as usize).ok_or(FormatError::Truncated)?;
        let aad = chunk_aad(head, binding)?;
        let mut reader = Reader(head);
        reader.slice(24)?;
        let nonce = reader.take()?;
        reader.slice(CHUNK_TAG_AT - 36)?;
        let tag = reader.take()?;
        key.open_in_place(&nonce, &aad, body, &tag).map_err(|_| FormatError::NotAuthentic)?;
        if is_zero(padding) { Ok((tag, body)) } else { Err(FormatError::Malformed("padding")) }
    }
}

fn chunk_aad(head: &[u8], binding: &Binding) -> Result<[u8; CHUNK_TAG_AT + BINDING_BYTES], FormatError> {
    let clear = head.get(..CHUNK_TAG_AT).ok_or(FormatError::Truncated)?;
    let mut aad = [0; CHUNK_TAG_AT + BINDING_BYTES];
    let mut writer = Writer::new(&mut aad);
    writer.put(clear);
    writer.put(&binding.0);
    Ok(aad)
}

const _: () = assert!(CHUNK_HEADER_BYTES.is_multiple_of(16), "the archive behind it is aligned");
