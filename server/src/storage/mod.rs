//! The durability contract of one shard, and its backends.
//!
//! What goes in is plaintext and what comes out is plaintext; what lies on disk is sealed. Nothing above this room
//! sees ciphertext, no file below it holds a document, entity key or secret. `log` is the backend of one machine.
//! This room refuses to answer for validation, conditions, caching and who may ask: the engine does.

pub mod conformance;
pub mod log;
pub mod store;

use crate::command::{Document, EntityRef, Version};
use std::future::Future;

/// What happens to an entity.
#[derive(Clone, Copy)]
pub enum Mutation<'a> {
    /// It becomes this document.
    Put(&'a [u8]),
    /// It goes.
    Delete,
}

/// One change to be sealed into the open batch.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    /// Which entity.
    pub entity: EntityRef<'a>,
    /// What becomes of it.
    pub mutation: Mutation<'a>,
}

/// Why a change was not accepted. Nothing was written: it is safe to say "failed".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The open batch is full, in bytes or records, while another commit is in flight.
    #[error("the commit queue is full")]
    BatchFull,
    /// The next segment cannot be prepared for want of space.
    #[error("the disk is full: free space in the data directory; writes resume by themselves")]
    OutOfSpace,
    /// A write or sync failed before; only a restart heals that.
    #[error("a write to the log failed ({reason}): restart the server; reads go on")]
    Poisoned {
        /// What failed.
        reason: String,
    },
    /// Started with `--salvage`, or shutting down.
    #[error("the store is read-only: {reason}")]
    ReadOnly {
        /// Why.
        reason: String,
    },
}

/// How a commit ended, for the writes that were in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The write or sync failed: whether the batch is durable is not known. The shard is poisoned.
    #[error("the outcome of the write is unknown: {reason}")]
    OutcomeUnknown {
        /// What failed.
        reason: String,
    },
    /// Nothing of the batch reached the disk (no segment could be had).
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Why a read failed though the entity is there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// What was read does not authenticate, or is not what was asked for.
    #[error(
        "record at {place} is damaged: {reason}; restore it from a backup, or start with --salvage to read what is intact"
    )]
    Corrupted {
        /// File and offset.
        place: String,
        /// What does not fit.
        reason: String,
    },
    /// The device refused.
    #[error("reading {place} failed: {reason}")]
    Io {
        /// File and offset.
        place: String,
        /// The system's words.
        reason: String,
    },
}

/// One entry of a listing: key and newest durable version.
pub type ListEntry = (Box<str>, Version);

/// Figures of one shard's storage, for `Stats`, `/metrics` and `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageStatus {
    /// Entities now alive.
    pub entities: u64,
    /// Bytes of live records.
    pub live_bytes: u64,
    /// Bytes of listed segments.
    pub segment_bytes: u64,
    /// Listed segments.
    pub segments: u64,
    /// Tombstones kept.
    pub tombstones: u64,
    /// Memory of the index, in bytes.
    pub index_bytes: u64,
    /// Set when the shard refuses writes, with the reason.
    pub refuses_writes: Option<String>,
    /// Id of the data key new segments use.
    pub key_id: String,
    /// Segments and other files that still name an older data key.
    pub segments_on_old_keys: u64,
    /// Damaged places that were found while it was running, one sentence each; not more than a few.
    pub damage: Vec<String>,
}

/// The durability contract for one shard. One owner thread; every method takes `&self` and none holds a borrow over
/// an await.
pub trait Storage: 'static {
    /// The newest durable version of a live entity.
    fn durable_version(&self, entity: EntityRef<'_>) -> Option<Version>;

    /// What [`Storage::warm`] knows an entity by.
    fn hash(&self, _entity: EntityRef<'_>) -> u64 {
        0
    }

    /// Brings the memory that `durable_version` will touch for these entities into the processor's cache.
    fn warm(&self, _hashes: &[u64]) {}

    /// Seals changes into the open batch, all in one frame or none, and returns the version each will have if the
    /// next [`Storage::commit`] succeeds: `versions[i]` for `changes[i]`, strictly increasing. Nothing is visible yet.
    fn append(&self, changes: &[Change<'_>], versions: &mut Vec<Version>) -> Result<(), Refusal>;

    /// Whether changes wait for a commit.
    fn has_open_batch(&self) -> bool;

    /// Makes the open batch durable, then visible to `durable_version`, `read` and `list`. Called by one task at a
    /// time: one commit in flight a shard. While it runs, `append` fills the next batch. When it fails, the batch
    /// that filled meanwhile is dropped with it, since it was judged against versions that never became durable.
    fn commit(&self) -> impl Future<Output = Result<(), CommitError>>;

    /// The newest durable document of an entity; `None` when there is none. One device read when all goes well.
    fn read(&self, entity: EntityRef<'_>) -> impl Future<Output = Result<Option<(Version, Document)>, ReadError>>;

    /// Up to `limit` durable keys of a schema with the prefix, strictly after `after`, in byte order of the keys.
    fn list(&self, schema: &str, prefix: &str, after: Option<&str>, limit: usize) -> Vec<ListEntry>;

    /// Schemas that hold live entities, with counts, in no order.
    fn schemas(&self) -> Vec<(String, u64)>;

    /// Figures.
    fn status(&self) -> StorageStatus;

    /// Adopts the newest keyring: rolls segment and manifest to the active data key; returns when that is durable.
    fn adopt_keyring(
        &self,
        keyring: std::sync::Arc<crate::crypto::keyring::Keyring>,
    ) -> impl Future<Output = Result<(), CommitError>>;

    /// Data keys that this shard's manifest, checkpoint or listed segments still name.
    fn key_ids_in_use(&self) -> Vec<crate::crypto::keyring::DataKeyId>;

    /// Clean shutdown: no append may follow. Writes a checkpoint, seals and truncates the log.
    fn shutdown(&self) -> impl Future<Output = Result<(), CommitError>>;
}
