//! One record: a version of an entity, or its deletion.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 1 | kind: 1 put, 2 tombstone |
//! | 1 | 3 | zero |
//! | 4 | 4 | length of the sealed body |
//! | 8 | 8 | sequence: the entity's version, below 2⁵³ |
//! | 16 | 8 | time, milliseconds since the Unix epoch |
//! | 24 | 8 | expiry, milliseconds since the Unix epoch, 0 for never |
//! | 32 | 12 | nonce |
//! | 44 | 16 | tag over the sealed body, bytes 0..44 and the segment's binding |
//! | 60 | body length | sealed body |
//!
//! The body, before sealing: u16 length of the schema id, u16 length of the key, schema id, key, document. A
//! tombstone's document is the highest segment number given out when it was sealed, as a u32.

use super::{BINDING_BYTES, Binding, FormatError, NONCE_BYTES, Reader, TAG_BYTES, Tag, Writer};
use crate::command::EntityRef;
use crate::crypto::seal::SealingKey;
use crate::limits::{ENTITY_KEY_BYTES_MAX, SCHEMA_ID_BYTES_MAX, VERSION_MAX};

/// Bytes of a record before its sealed body.
pub const RECORD_HEADER_BYTES: usize = 60;
const CLEAR_BYTES: usize = RECORD_HEADER_BYTES - TAG_BYTES;
const NAMES_BYTES: usize = 4;
/// Bytes of a tombstone's document.
pub const TOMBSTONE_BYTES: usize = 4;

const _: () = assert!(SCHEMA_ID_BYTES_MAX + ENTITY_KEY_BYTES_MAX <= u16::MAX as usize);

/// What a record says of its entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// It has this document.
    Put,
    /// It is gone.
    Tombstone,
}

/// A record's clear header, without nonce and tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What it says.
    pub kind: RecordKind,
    /// Bytes of the sealed body.
    pub body_bytes: u32,
    /// The version.
    pub sequence: u64,
    /// When it was accepted.
    pub time_unix_ms: u64,
    /// When it ends; 0 for never.
    pub expiry_unix_ms: u64,
}

impl RecordHeader {
    /// Bytes of the whole record.
    pub fn record_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.body_bytes as usize
    }
}

/// What a record holds, once opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordContent<'a> {
    /// Which entity.
    pub entity: EntityRef<'a>,
    /// Its document, or a tombstone's segment number.
    pub document: &'a [u8],
}

impl RecordContent<'_> {
    /// The segment number a tombstone carries.
    pub fn tombstone_number(&self) -> Result<u32, FormatError> {
        let mut reader = Reader(self.document);
        let number = reader.u32()?;
        if reader.0.is_empty() { Ok(number) } else { Err(FormatError::Malformed("tombstone")) }
    }
}

/// Bytes of the record of an entity with a document of so many bytes.
#[inline]
pub fn record_bytes(entity: EntityRef<'_>, document_bytes: usize) -> usize {
    RECORD_HEADER_BYTES + NAMES_BYTES + entity.schema.len() + entity.key.len() + document_bytes
}

/// Writes a record into `target`, which has exactly its length, and seals it there. `header.body_bytes` is ignored:
/// the target says it.
#[inline]
pub fn seal_record(
    target: &mut [u8],
    header: &RecordHeader,
    content: RecordContent<'_>,
    key: &SealingKey,
    binding: &Binding,
    nonce: [u8; NONCE_BYTES],
) -> Result<Tag, FormatError> {
    let Some((head, body)) = target.split_first_chunk_mut::<RECORD_HEADER_BYTES>() else {
        return Err(FormatError::Truncated);
    };
    let mut aad = [0; CLEAR_BYTES + BINDING_BYTES];
    let mut writer = Writer::new(&mut aad);
    writer.put(&[if header.kind == RecordKind::Put { 1 } else { 2 }, 0, 0, 0]);
    writer.put(&(body.len() as u32).to_le_bytes());
    writer.put(&header.sequence.to_le_bytes());
    writer.put(&header.time_unix_ms.to_le_bytes());
    writer.put(&header.expiry_unix_ms.to_le_bytes());
    writer.put(&nonce);
    writer.put(&binding.0);
    let (schema, entity_key) = (content.entity.schema.as_bytes(), content.entity.key.as_bytes());
    let mut writer = Writer::new(body);
    writer.put(&(schema.len() as u16).to_le_bytes());
    writer.put(&(entity_key.len() as u16).to_le_bytes());
    writer.put(schema);
    writer.put(entity_key);
    writer.put(content.document);
    let tag = key.seal_in_place(&nonce, &aad, body).map_err(|_| FormatError::NotAuthentic)?;
    head[..CLEAR_BYTES].copy_from_slice(&aad[..CLEAR_BYTES]);
    head[CLEAR_BYTES..].copy_from_slice(&tag);
    Ok(tag)
}

/// Reads the clear header and the tag at the start of `bytes`; checks that the record lies within them.
#[inline]
pub fn parse_record(bytes: &[u8]) -> Result<(RecordHeader, Tag), FormatError> {
    let mut reader = Reader(bytes);
    let kind = match reader.u8()? {
        1 => RecordKind::Put,
        2 => RecordKind::Tombstone,
        _ => return Err(FormatError::Malformed("kind")),
    };
    reader.zeros::<3>()?;
    let body_bytes = reader.u32()?;
    let sequence = reader.u64()?;
    let header =
        RecordHeader { kind, body_bytes, sequence, time_unix_ms: reader.u64()?, expiry_unix_ms: reader.u64()? };
    reader.take::<NONCE_BYTES>()?;
    let tag = reader.take::<TAG_BYTES>()?;
    if sequence == 0 || sequence > VERSION_MAX {
        return Err(FormatError::Malformed("version"));
    }
    if (body_bytes as usize) < NAMES_BYTES || reader.0.len() < body_bytes as usize {
        return Err(FormatError::Malformed("length"));
    }
    Ok((header, tag))
}

/// Opens the record at the start of `bytes` where it lies. Whoever asked for an entity compares it with what is
/// returned.
pub fn open_record<'a>(
    bytes: &'a mut [u8],
    key: &SealingKey,
    binding: &Binding,
) -> Result<(RecordHeader, RecordContent<'a>), FormatError> {
    let (header, tag) = parse_record(bytes)?;
    let Some((head, rest)) = bytes.split_first_chunk_mut::<RECORD_HEADER_BYTES>() else {
        return Err(FormatError::Truncated);
    };
    let body = rest.get_mut(..header.body_bytes as usize).ok_or(FormatError::Truncated)?;
    let mut aad = [0; CLEAR_BYTES + BINDING_BYTES];
    aad[..CLEAR_BYTES].copy_from_slice(&head[..CLEAR_BYTES]);
    aad[CLEAR_BYTES..].copy_from_slice(&binding.0);
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(&head[CLEAR_BYTES - NONCE_BYTES..CLEAR_BYTES]);
    key.open_in_place(&nonce, &aad, body, &tag).map_err(|_| FormatError::NotAuthentic)?;
    let mut reader = Reader(body);
    let (schema_bytes, key_bytes) = (reader.u16()?, reader.u16()?);
    let schema = name(reader.slice(schema_bytes as usize)?)?;
    let entity_key = name(reader.slice(key_bytes as usize)?)?;
    Ok((header, RecordContent { entity: EntityRef { schema, key: entity_key }, document: reader.0 }))
}

fn name(bytes: &[u8]) -> Result<&str, FormatError> {
    std::str::from_utf8(bytes).map_err(|_| FormatError::Malformed("name"))
}
