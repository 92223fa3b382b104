//! Segment header and footer.
//!
//! Header, the first 4096 bytes; written once, before the segment is listed:
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `DELTASEG` |
//! | 8 | 4 | format version |
//! | 12 | 4 | block bytes: frames begin and end at multiples of this |
//! | 16 | 16 | store id |
//! | 32 | 4 | generation |
//! | 36 | 2 | shard |
//! | 38 | 1 | kind: 1 commit, 2 compacted |
//! | 39 | 1 | zero |
//! | 40 | 4 | segment number |
//! | 44 | 4 | zero |
//! | 48 | 16 | random segment id |
//! | 64 | 8 | data-key id |
//! | 72 | 32 | HKDF salt |
//! | 104 | 8 | creation time, milliseconds since the Unix epoch |
//! | 112 | 12 | nonce |
//! | 124 | 16 | tag over bytes 0..124 |
//! | 140 | 3956 | zero |
//!
//! Footer, the block behind the last frame of a sealed segment:
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `DELTAEND` |
//! | 8 | 16 | segment id |
//! | 24 | 8 | its own offset in the file |
//! | 32 | 8 | frames |
//! | 40 | 8 | records |
//! | 48 | 8 | number of the last frame |
//! | 56 | 16 | tag of the last frame |
//! | 72 | 12 | nonce |
//! | 84 | 16 | tag over bytes 0..84 and the binding |
//! | 100 | to the end of the block | zero |

use super::{
    BINDING_BYTES, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, Binding, FORMAT_VERSION, FileId, FormatError, LogIdentity,
    NONCE_BYTES, Reader, SALT_BYTES, TAG_BYTES, Tag, Writer, is_zero,
};
use crate::crypto::keyring::DataKeyId;
use crate::crypto::seal::SealingKey;

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = BLOCK_BYTES_MAX;
/// How a footer begins.
pub const FOOTER_MAGIC: &[u8; 8] = b"DELTAEND";
const HEADER_MAGIC: &[u8; 8] = b"DELTASEG";
const HEADER_TAG_AT: usize = 124;
const FOOTER_TAG_AT: usize = 84;

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// Frames of group commits; their numbers count through the shard's life.
    Commit,
    /// Records moved out of older segments; frames count from one in the segment.
    Compacted,
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Frames begin and end at multiples of this.
    pub block_bytes: u32,
    /// What the segment holds.
    pub kind: SegmentKind,
    /// Its number in the shard.
    pub number: u32,
    /// Its random id.
    pub id: FileId,
    /// The data key it is sealed under.
    pub key_id: DataKeyId,
    /// Makes its key its own.
    pub salt: [u8; SALT_BYTES],
    /// When it was made.
    pub created_unix_ms: u64,
}

impl SegmentHeader {
    /// Writes the header into a segment's first block.
    pub fn seal(
        &self,
        identity: &LogIdentity,
        key: &SealingKey,
        nonce: [u8; NONCE_BYTES],
        block: &mut [u8],
    ) -> Result<(), FormatError> {
        block.fill(0);
        let mut writer = Writer::new(block);
        writer.put(HEADER_MAGIC);
        writer.put(&FORMAT_VERSION.to_le_bytes());
        writer.put(&self.block_bytes.to_le_bytes());
        writer.put(&identity.store_id);
        writer.put(&identity.generation.to_le_bytes());
        writer.put(&identity.shard.to_le_bytes());
        writer.put(&[if self.kind == SegmentKind::Commit { 1 } else { 2 }, 0]);
        writer.put(&self.number.to_le_bytes());
        writer.skip(4);
        writer.put(&self.id);
        writer.put(&self.key_id.0);
        writer.put(&self.salt);
        writer.put(&self.created_unix_ms.to_le_bytes());
        writer.put(&nonce);
        let (clear, rest) = block.split_at_mut(HEADER_TAG_AT);
        let tag = key.seal_in_place(&nonce, clear, &mut []).map_err(|_| FormatError::NotAuthentic)?;
        rest[..TAG_BYTES].copy_from_slice(&tag);
        Ok(())
    }

    /// Reads the fields; nothing in them is to be trusted before [`SegmentHeader::verify`].
    pub fn parse(block: &[u8], identity: &LogIdentity) -> Result<Self, FormatError> {
        if block.len() < SEGMENT_HEADER_BYTES {
            return Err(FormatError::Truncated);
        }
        let mut reader = Reader(block);
        reader.magic(HEADER_MAGIC)?;
        reader.version()?;
        let block_bytes = reader.u32()?;
        let sensible = (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&(block_bytes as usize));
        if !sensible || !block_bytes.is_power_of_two() {
            return Err(FormatError::Malformed("block size"));
        }
        reader.identity(identity)?;
        let kind = match reader.u8()? {
            1 => SegmentKind::Commit,
            2 => SegmentKind::Compacted,
            _ => return Err(FormatError::Malformed("kind")),
        };
        reader.zeros::<1>()?;
        let number = reader.u32()?;
        reader.zeros::<4>()?;
        let (id, key_id, salt) = (reader.take()?, DataKeyId(reader.take()?), reader.take()?);
        let created_unix_ms = reader.u64()?;
        Ok(Self { block_bytes, kind, number, id, key_id, salt, created_unix_ms })
    }

    /// Verifies the tag over a header just parsed.
    pub fn verify(block: &[u8], key: &SealingKey) -> Result<(), FormatError> {
        let (clear, mut reader) =
            block.split_at_checked(HEADER_TAG_AT).map_or((block, Reader(&[])), |(clear, rest)| (clear, Reader(rest)));
        let tag = reader.take::<TAG_BYTES>()?;
        let nonce = clear.last_chunk::<NONCE_BYTES>().ok_or(FormatError::Truncated)?;
        key.open_in_place(nonce, clear, &mut [], &tag).map_err(|_| FormatError::NotAuthentic)?;
        if !is_zero(reader.0) {
            return Err(FormatError::Malformed("padding"));
        }
        Ok(())
    }
}

/// The totals of a sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFooter {
    /// Where the footer lies: behind the last frame.
    pub offset: u64,
    /// Frames in the segment.
    pub frames: u64,
    /// Records in the segment.
    pub records: u64,
    /// Number of the last frame (of the shard's last, when the segment has none).
    pub last_frame: u64,
    /// Tag of that frame.
    pub last_tag: Tag,
}

impl SegmentFooter {
    /// Writes the footer into one block.
    pub fn seal(
        &self,
        segment_id: &FileId,
        key: &SealingKey,
        binding: &Binding,
        nonce: [u8; NONCE_BYTES],
        block: &mut [u8],
    ) -> Result<(), FormatError> {
        block.fill(0);
        let mut writer = Writer::new(block);
        writer.put(FOOTER_MAGIC);
        writer.put(segment_id);
        writer.put(&self.offset.to_le_bytes());
        writer.put(&self.frames.to_le_bytes());
        writer.put(&self.records.to_le_bytes());
        writer.put(&self.last_frame.to_le_bytes());
        writer.put(&self.last_tag);
        writer.put(&nonce);
        let aad = footer_aad(block, binding)?;
        let tag = key.seal_in_place(&nonce, &aad, &mut []).map_err(|_| FormatError::NotAuthentic)?;
        block[FOOTER_TAG_AT..FOOTER_TAG_AT + TAG_BYTES].copy_from_slice(&tag);
        Ok(())
    }

    /// Reads and verifies a footer that lies at `offset`.
    pub fn open(
        block: &[u8],
        offset: u64,
        segment_id: &FileId,
        key: &SealingKey,
        binding: &Binding,
    ) -> Result<Self, FormatError> {
        let mut reader = Reader(block);
        reader.magic(FOOTER_MAGIC)?;
        if reader.take::<16>()? != *segment_id {
            return Err(FormatError::Foreign("segment"));
        }
        let footer = Self {
            offset: reader.u64()?,
            frames: reader.u64()?,
            records: reader.u64()?,
            last_frame: reader.u64()?,
            last_tag: reader.take()?,
        };
        let nonce = reader.take()?;
        let tag = reader.take()?;
        key.open_in_place(&nonce, &footer_aad(block, binding)?, &mut [], &tag)
            .map_err(|_| FormatError::NotAuthentic)?;
        if footer.offset != offset {
            return Err(FormatError::Malformed("offset"));
        }
        if !is_zero(reader.0) {
            return Err(FormatError::Malformed("padding"));
        }
        Ok(footer)
    }
}

fn footer_aad(block: &[u8], binding: &Binding) -> Result<[u8; FOOTER_TAG_AT + BINDING_BYTES], FormatError> {
    let clear = block.get(..FOOTER_TAG_AT).ok_or(FormatError::Truncated)?;
    let mut aad = [0; FOOTER_TAG_AT + BINDING_BYTES];
    let mut writer = Writer::new(&mut aad);
    writer.put(clear);
    writer.put(&binding.0);
    Ok(aad)
}
