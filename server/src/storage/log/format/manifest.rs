//! MANIFEST: what a shard consists of. One sealed file, always replaced as a whole.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `DELTAMAN` |
//! | 8 | 4 | format version |
//! | 12 | 4 | length of the sealed body |
//! | 16 | 16 | store id |
//! | 32 | 4 | generation |
//! | 36 | 2 | shard |
//! | 38 | 2 | zero |
//! | 40 | 8 | data-key id |
//! | 48 | 32 | HKDF salt |
//! | 80 | 12 | nonce |
//! | 92 | 16 | tag over the sealed body and bytes 0..92 |
//! | 108 | 4 | zero |
//! | 112 | body length | sealed rkyv archive of [`Manifest`] |

use super::{
    FORMAT_VERSION, FileId, FormatError, LogIdentity, NONCE_BYTES, Reader, SALT_BYTES, TAG_BYTES, Tag, Writer,
};
use crate::crypto::keyring::DataKeyId;
use crate::crypto::seal::SealingKey;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize, rancor};

/// The file's name in the shard's directory.
pub const MANIFEST_NAME: &str = "MANIFEST";
/// No manifest is larger.
pub const MANIFEST_BYTES_MAX: usize = 64 << 20;
const MAGIC: &[u8; 8] = b"DELTAMAN";
const CLEAR_BYTES: usize = 92;
const HEADER_BYTES: usize = 112;

/// What a shard consists of.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Counts publications.
    pub number: u64,
    /// Generation of the keyring it was written under; an older keyring is refused.
    pub keyring_generation: u64,
    /// Written by a clean shutdown, and nothing since.
    pub clean: bool,
    /// No version at or above this one was given out when it was written.
    pub sequence_floor: u64,
    /// The next segment's number: higher than any given out before.
    pub segment_number_next: u32,
    /// The next commit segment's size.
    pub segment_bytes_next: u64,
    /// The next checkpoint's number.
    pub checkpoint_number_next: u64,
    /// The checkpoint in force.
    pub checkpoint: Option<CheckpointRef>,
    /// Every live segment, by rising number.
    pub segments: Vec<SegmentRef>,
}

/// The checkpoint in force.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRef {
    /// `<number>.ckpt`.
    pub number: u64,
    /// Its random id.
    pub id: FileId,
    /// The data key it is sealed under.
    pub key_id: [u8; 8],
    /// Tag of its last chunk, which covers all before.
    pub tag: Tag,
    /// Entities in it.
    pub entities: u64,
    /// It covers the frames up to this one…
    pub frame: u64,
    /// …whose tag is this…
    pub frame_tag: Tag,
    /// …and which ends in this segment…
    pub segment: u32,
    /// …at this offset.
    pub offset: u64,
}

/// A live segment.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SegmentRef {
    /// `<number>.seg`.
    pub number: u32,
    /// Its random id.
    pub id: FileId,
    /// The data key it is sealed under.
    pub key_id: [u8; 8],
    /// Whether it holds moved records instead of commits.
    pub compacted: bool,
    /// Whether the checkpoint in force points into it where it should (compacted segments only; for the others the
    /// covered frame says it).
    pub checkpointed: bool,
    /// Where it ends, unless it is open.
    pub end: Option<SegmentEnd>,
}

/// Where a segment that is no longer written ends.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEnd {
    /// Behind the last frame; the footer lies there when there is one.
    pub offset: u64,
    /// Whether a footer follows. A segment that was recovered after a crash has none that counts.
    pub footer: bool,
    /// Number of the last frame at or before this end.
    pub last_frame: u64,
    /// Its tag.
    pub last_tag: Tag,
}

/// The clear part of a manifest file: which key opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestHeader {
    /// The data key it is sealed under.
    pub key_id: DataKeyId,
    /// Makes its key its own.
    pub salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
    tag: Tag,
    body_bytes: usize,
}

impl ManifestHeader {
    /// Reads the clear part.
    pub fn parse(file: &[u8], identity: &LogIdentity) -> Result<Self, FormatError> {
        let mut reader = Reader(file);
        reader.magic(MAGIC)?;
        reader.version()?;
        let body_bytes = reader.u32()? as usize;
        reader.identity(identity)?;
        reader.zeros::<2>()?;
        let (key_id, salt, nonce) = (DataKeyId(reader.take()?), reader.take()?, reader.take()?);
        let tag = reader.take::<TAG_BYTES>()?;
        reader.zeros::<4>()?;
        if reader.0.len() != body_bytes {
            return Err(FormatError::Malformed("length"));
        }
        Ok(Self { key_id, salt, nonce, tag, body_bytes })
    }
}

impl Manifest {
    /// Every data key without which a shard with this manifest cannot be opened; the manifest's own first.
    pub fn key_ids(&self, own: DataKeyId) -> Vec<DataKeyId> {
        let checkpoint = self.checkpoint.iter().map(|checkpoint| checkpoint.key_id);
        let others = checkpoint.chain(self.segments.iter().map(|segment| segment.key_id));
        std::iter::once(own).chain(others.map(DataKeyId)).collect()
    }

    /// The whole file.
    pub fn seal(
        &self,
        identity: &LogIdentity,
        key_id: DataKeyId,
        key: &SealingKey,
        salt: &[u8; SALT_BYTES],
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Vec<u8>, FormatError> {
        let body = rkyv::to_bytes::<rancor::Error>(self).map_err(|_| FormatError::Malformed("content"))?;
        let mut file = vec![0; HEADER_BYTES + body.len()];
        let mut writer = Writer::new(&mut file);
        writer.put(MAGIC);
        writer.put(&FORMAT_VERSION.to_le_bytes());
        writer.put(&(body.len() as u32).to_le_bytes());
        writer.put(&identity.store_id);
        writer.put(&identity.generation.to_le_bytes());
        writer.put(&identity.shard.to_le_bytes());
        writer.skip(2);
        writer.put(&key_id.0);
        writer.put(salt);
        writer.put(&nonce);
        let (head, sealed) = file.split_at_mut(HEADER_BYTES);
        sealed.copy_from_slice(&body);
        let tag = key.seal_in_place(&nonce, &head[..CLEAR_BYTES], sealed).map_err(|_| FormatError::NotAuthentic)?;
        head[CLEAR_BYTES..CLEAR_BYTES + TAG_BYTES].copy_from_slice(&tag);
        Ok(file)
    }

    /// Opens a file whose header was parsed before.
    pub fn open(file: &[u8], header: &ManifestHeader, key: &SealingKey) -> Result<Self, FormatError> {
        let (head, sealed) = file.split_at_checked(HEADER_BYTES).ok_or(FormatError::Truncated)?;
        let mut body = AlignedVec::<16>::with_capacity(header.body_bytes);
        body.extend_from_slice(sealed);
        let clear = head.get(..CLEAR_BYTES).ok_or(FormatError::Truncated)?;
        key.open_in_place(&header.nonce, clear, &mut body, &header.tag).map_err(|_| FormatError::NotAuthentic)?;
        rkyv::from_bytes::<Manifest, rancor::Error>(&body).map_err(|_| FormatError::Malformed("content"))
    }
}
