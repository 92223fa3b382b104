//! One frame: the records of one group commit (or one piece of a compacted segment), and the chain they hang in.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `DFRM` |
//! | 4 | 4 | CRC32C of everything from byte 8 to the end of the padding |
//! | 8 | 16 | segment id |
//! | 24 | 8 | frame number |
//! | 32 | 8 | sequence of the first record (of the next one to come, when there is none) |
//! | 40 | 4 | records |
//! | 44 | 4 | length: header and records, without padding |
//! | 48 | 12 | nonce |
//! | 60 | 4 | zero |
//! | 64 | 16 | tag of the previous frame |
//! | 80 | 16 | tag over the magic, bytes 8..80, the binding and every record's tag |
//! | 96 | … | records, one after the other |
//! | length | to the end of the block | zero |
//!
//! The CRC tells a torn frame from a whole one; the tag tells a true one from one that was forged, and the chain of
//! tags tells when one was removed or an old one put back.

use super::record::{RECORD_HEADER_BYTES, RecordHeader, parse_record};
use super::segment::SegmentKind;
use super::{BINDING_BYTES, Binding, FileId, FormatError, NONCE_BYTES, Reader, TAG_BYTES, Tag, Writer, is_zero};
use crate::crypto::seal::SealingKey;
use crate::sabotage::{Sabotage, is_on};

/// Bytes of a frame before its first record.
pub const FRAME_HEADER_BYTES: usize = 96;
const FRAME_MAGIC: &[u8; 4] = b"DFRM";
const TAG_AT: usize = 80;
const COVERED_FROM: usize = 8;
/// Bytes of associated data before the records' tags.
const AAD_PREFIX_BYTES: usize = 4 + (TAG_AT - COVERED_FROM) + BINDING_BYTES;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Counts through the shard's life, or through a compacted segment.
    pub number: u64,
    /// Sequence of the first record.
    pub first_sequence: u64,
    /// How many records follow.
    pub records: u32,
    /// Header and records, without padding.
    pub length: u32,
    /// Tag of the frame before.
    pub previous_tag: Tag,
    /// This frame's tag.
    pub tag: Tag,
}

/// What is wrong with bytes where a frame should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameProblem {
    /// Not a frame of this segment: nothing was written here, or something older.
    #[error("there is no frame of this segment")]
    Absent,
    /// It begins as a frame but is not whole.
    #[error("the frame is incomplete or damaged")]
    Torn,
    /// It is whole, but not true.
    #[error("the frame is forged: {0}")]
    Forged(FormatError),
}

/// The associated data of a frame under assembly: room for the header and binding, then the records' tags.
pub struct FrameTags(Vec<u8>);

impl FrameTags {
    /// No records yet.
    pub fn new() -> Self {
        Self(vec![0; AAD_PREFIX_BYTES])
    }
    /// Forgets all records, keeps the memory.
    pub fn clear(&mut self) {
        self.0.truncate(AAD_PREFIX_BYTES);
    }
    /// Adds a record's tag.
    #[inline]
    pub fn push(&mut self, tag: &Tag) {
        self.0.extend_from_slice(tag);
    }
    /// Forgets all records but the first so many.
    pub fn truncate(&mut self, records: usize) {
        self.0.truncate(AAD_PREFIX_BYTES + records * TAG_BYTES);
    }
    fn complete(&mut self, header: &[u8; TAG_AT], binding: &Binding) -> &[u8] {
        let mut writer = Writer::new(&mut self.0);
        writer.put(FRAME_MAGIC);
        writer.put(&header[COVERED_FROM..]);
        writer.put(&binding.0);
        &self.0
    }
}

impl Default for FrameTags {
    fn default() -> Self {
        Self::new()
    }
}

/// Completes a frame whose records lie sealed behind room for the header: zeroes the padding, writes the header, tag
/// and CRC. `bytes` ends at a block boundary; `header.tag` is ignored. Returns the tag.
pub fn finish_frame(
    bytes: &mut [u8],
    header: &FrameHeader,
    segment_id: &FileId,
    key: &SealingKey,
    binding: &Binding,
    tags: &mut FrameTags,
    nonce: [u8; NONCE_BYTES],
) -> Result<Tag, FormatError> {
    let length = header.length as usize;
    bytes.get_mut(length..).ok_or(FormatError::Truncated)?.fill(0);
    let Some((head, _)) = bytes.split_first_chunk_mut::<FRAME_HEADER_BYTES>() else {
        return Err(FormatError::Truncated);
    };
    let mut writer = Writer::new(head);
    writer.put(FRAME_MAGIC);
    writer.skip(4);
    writer.put(segment_id);
    writer.put(&header.number.to_le_bytes());
    writer.put(&header.first_sequence.to_le_bytes());
    writer.put(&header.records.to_le_bytes());
    writer.put(&header.length.to_le_bytes());
    writer.put(&nonce);
    writer.skip(4);
    writer.put(&header.previous_tag);
    let covered = head.first_chunk::<TAG_AT>().ok_or(FormatError::Truncated)?;
    let aad = tags.complete(covered, binding);
    let tag = key.seal_in_place(&nonce, aad, &mut []).map_err(|_| FormatError::NotAuthentic)?;
    head[TAG_AT..].copy_from_slice(&tag);
    let crc = crc32c::crc32c(&bytes[COVERED_FROM..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    Ok(tag)
}

/// Reads a header; nothing in it is to be trusted before [`verify_frame`].
pub fn parse_frame(bytes: &[u8], segment_id: &FileId) -> Result<FrameHeader, FrameProblem> {
    let mut reader = Reader(bytes);
    let parsed = (|| {
        reader.magic(FRAME_MAGIC)?;
        reader.take::<4>()?;
        if reader.take::<16>()? != *segment_id && !is_on(Sabotage::AcceptStaleFrame) {
            return Err(FormatError::Foreign("segment"));
        }
        let (number, first_sequence) = (reader.u64()?, reader.u64()?);
        let (records, length) = (reader.u32()?, reader.u32()?);
        reader.take::<NONCE_BYTES>()?;
        reader.take::<4>()?;
        Ok(FrameHeader { number, first_sequence, records, length, previous_tag: reader.take()?, tag: reader.take()? })
    })()
    .map_err(|_: FormatError| FrameProblem::Absent)?;
    if (parsed.length as usize) < FRAME_HEADER_BYTES {
        return Err(FrameProblem::Torn);
    }
    Ok(parsed)
}

/// Verifies a parsed frame with its padding: the CRC, every record's place, and the tag over all of it. The records
/// themselves are opened by whoever wants their content.
pub fn verify_frame(
    bytes: &[u8],
    header: &FrameHeader,
    kind: SegmentKind,
    key: &SealingKey,
    binding: &Binding,
    tags: &mut FrameTags,
) -> Result<(), FrameProblem> {
    let mut reader = Reader(bytes.get(4..).unwrap_or(&[]));
    let crc = reader.u32().map_err(|_| FrameProblem::Torn)?;
    if crc32c::crc32c(reader.0) != crc {
        return Err(FrameProblem::Torn);
    }
    verify_whole_frame(bytes, header, kind, key, binding, tags).map_err(FrameProblem::Forged)
}

fn verify_whole_frame(
    bytes: &[u8],
    header: &FrameHeader,
    kind: SegmentKind,
    key: &SealingKey,
    binding: &Binding,
    tags: &mut FrameTags,
) -> Result<(), FormatError> {
    let (content, padding) = bytes.split_at_checked(header.length as usize).ok_or(FormatError::Truncated)?;
    if !is_zero(padding) {
        return Err(FormatError::Malformed("padding"));
    }
    tags.clear();
    let mut records = 0;
    for record in records_of(content) {
        let (record, tag) = record?;
        if kind == SegmentKind::Commit && record.sequence != header.first_sequence + records {
            return Err(FormatError::Malformed("order of records"));
        }
        tags.push(&tag);
        records += 1;
    }
    if records != u64::from(header.records) {
        return Err(FormatError::Malformed("number of records"));
    }
    let covered = content.first_chunk::<TAG_AT>().ok_or(FormatError::Truncated)?;
    if !is_zero(&covered[60..64]) {
        return Err(FormatError::Malformed("reserved field"));
    }
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(&covered[48..48 + NONCE_BYTES]);
    let aad = tags.complete(covered, binding);
    key.open_in_place(&nonce, aad, &mut [], &header.tag).map_err(|_| FormatError::NotAuthentic)
}

/// The clear headers and tags of a frame's records, in order; ends after the first error.
fn records_of(content: &[u8]) -> impl Iterator<Item = Result<(RecordHeader, Tag), FormatError>> {
    let mut rest = content.get(FRAME_HEADER_BYTES..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = parse_record(rest);
        rest = match &record {
            Ok((header, _)) => rest.get(header.record_bytes()..).unwrap_or(&[]),
            Err(_) => &[],
        };
        Some(record)
    })
}

const _: () = assert!(RECORD_HEADER_BYTES < FRAME_HEADER_BYTES);
