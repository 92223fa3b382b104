//! The bytes of the log backend's files: codecs without I/O, one file a noun, each with its layout as a table.
//!
//! All integers are little-endian. Everything read is checked before it is used: sizes first, then the tag, then the
//! meaning. Domains are kept apart under one key by the first bytes of the associated data: a record begins with its
//! kind (1 or 2), everything else with a magic of its own. This room opens no file and knows no index.

pub mod checkpoint;
pub mod frame;
pub mod manifest;
pub mod record;
pub mod segment;

use crate::crypto::keyring::DataKeyId;

/// Version of all file formats of this backend; a store with another is refused by name.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of a GCM tag.
pub const TAG_BYTES: usize = 16;
/// Bytes of a GCM nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes of an HKDF salt.
pub const SALT_BYTES: usize = 32;
/// Bytes of a random file id.
pub const ID_BYTES: usize = 16;
/// The coarsest unit of direct I/O, and the size of every file's header.
pub const BLOCK_BYTES_MAX: usize = 4096;
/// The finest unit frames are aligned to.
pub const BLOCK_BYTES_MIN: usize = 512;

/// A GCM tag.
pub type Tag = [u8; TAG_BYTES];
/// The random id of a file.
pub type FileId = [u8; ID_BYTES];

/// Which shard of which generation of which store a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The store.
    pub store_id: [u8; 16],
    /// Counts rewrites of the store with another number of shards.
    pub generation: u32,
    /// The shard in that generation.
    pub shard: u16,
}

/// Bytes of a [`Binding`].
pub const BINDING_BYTES: usize = 4 + 16 + 4 + 2 + ID_BYTES + 8;

/// What every tag in a file is bound to: format, store, generation, shard, file id and key id, in this order.
#[derive(Clone, Copy)]
pub struct Binding(pub [u8; BINDING_BYTES]);

impl Binding {
    /// The binding of one file.
    pub fn new(identity: &LogIdentity, file_id: &FileId, key_id: DataKeyId) -> Self {
        let mut bytes = [0; BINDING_BYTES];
        let mut writer = Writer::new(&mut bytes);
        writer.put(&FORMAT_VERSION.to_le_bytes());
        writer.put(&identity.store_id);
        writer.put(&identity.generation.to_le_bytes());
        writer.put(&identity.shard.to_le_bytes());
        writer.put(file_id);
        writer.put(&key_id.0);
        Self(bytes)
    }
}

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Fewer bytes than the structure has.
    #[error("it is cut short")]
    Truncated,
    /// Other magic bytes.
    #[error("it does not begin as such a file does")]
    Magic,
    /// Written by a newer or older server.
    #[error("it has format version {0}, this server reads version {FORMAT_VERSION}: use the server that wrote it")]
    Version(u32),
    /// Of another store, generation, shard or number.
    #[error("it belongs to another {0}")]
    Foreign(&'static str),
    /// A field makes no sense.
    #[error("its {0} makes no sense")]
    Malformed(&'static str),
    /// A tag does not verify.
    #[error("it does not authenticate")]
    NotAuthentic,
}

/// Reads fixed-size fields from the front of a slice.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(FormatError::Truncated)?;
        self.0 = rest;
        Ok(*field)
    }
    pub fn slice(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (field, rest) = self.0.split_at_checked(len).ok_or(FormatError::Truncated)?;
        self.0 = rest;
        Ok(field)
    }
    pub fn u8(&mut self) -> Result<u8, FormatError> {
        self.take::<1>().map(|bytes| bytes[0])
    }
    pub fn u16(&mut self) -> Result<u16, FormatError> {
        self.take().map(u16::from_le_bytes)
    }
    pub fn u32(&mut self) -> Result<u32, FormatError> {
        self.take().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Result<u64, FormatError> {
        self.take().map(u64::from_le_bytes)
    }
    /// Fails unless the next `N` bytes are zero.
    pub fn zeros<const N: usize>(&mut self) -> Result<(), FormatError> {
        if self.take::<N>()? == [0; N] { Ok(()) } else { Err(FormatError::Malformed("reserved field")) }
    }
    /// Checks that format, store, generation and shard are the ones expected.
    pub fn identity(&mut self, expected: &LogIdentity) -> Result<(), FormatError> {
        if self.take::<16>()? != expected.store_id {
            return Err(FormatError::Foreign("store"));
        }
        if self.u32()? != expected.generation {
            return Err(FormatError::Foreign("generation"));
        }
        if self.u16()? != expected.shard {
            return Err(FormatError::Foreign("shard"));
        }
        Ok(())
    }
    /// Checks the format version.
    pub fn version(&mut self) -> Result<(), FormatError> {
        match self.u32()? {
            FORMAT_VERSION => Ok(()),
            other => Err(FormatError::Version(other)),
        }
    }
    /// Checks the magic.
    pub fn magic<const N: usize>(&mut self, magic: &[u8; N]) -> Result<(), FormatError> {
        if self.take::<N>()? == *magic { Ok(()) } else { Err(FormatError::Magic) }
    }
}

/// Writes fields one after the other into a slice that is large enough by construction.
pub(super) struct Writer<'a> {
    target: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub fn new(target: &'a mut [u8]) -> Self {
        Self { target, at: 0 }
    }
    #[inline]
    pub fn put(&mut self, field: &[u8]) {
        self.target[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
    }
    pub fn skip(&mut self, len: usize) {
        self.target[self.at..self.at + len].fill(0);
        self.at += len;
    }
}

/// Whether all bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<16>();
    chunks.iter().all(|chunk| u128::from_ne_bytes(*chunk) == 0) && rest.iter().all(|byte| *byte == 0)
}
