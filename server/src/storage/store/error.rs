//! Why a data directory is not opened or changed: each one sentence with the file and the remedy.

use crate::crypto::keyring::DATA_KEYS_MAX;
use crate::crypto::root_key::{RootKeyError, RootKeyId};
use crate::limits::SHARDS_MAX;
use std::io;
use std::path::PathBuf;

/// Why a data directory is not opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the directory.
    #[error(
        "the data directory {directory} is in use by {}: stop that server first, or choose another --data-dir",
        holder(*pid)
    )]
    Locked {
        /// The data directory.
        directory: PathBuf,
        /// Who holds it, when the lock file says so.
        pid: Option<u32>,
    },
    /// The system refused.
    #[error("cannot {action} {path}: {error}; check that the disk is writable, has space and belongs to this user")]
    Io {
        /// A verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// There is nothing to work on.
    #[error("{directory} holds no store: check --data-dir")]
    NoStore {
        /// The data directory.
        directory: PathBuf,
    },
    /// Written by a newer build.
    #[error(
        "{path} has format version {found} and this build reads up to {supported}: use the newer build that wrote it"
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that can be read.
        supported: u32,
    },
    /// Not what was written.
    #[error("{path} is damaged or was changed: {reason}; restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The keyring is of another store.
    #[error("{path} belongs to store {found} and {descriptor} to store {expected}: put the files of one store back")]
    OtherStore {
        /// The keyring.
        path: PathBuf,
        /// `store.json`.
        descriptor: PathBuf,
        /// The store it belongs to, in hex.
        found: String,
        /// The store at hand, in hex.
        expected: String,
    },
    /// Data, but no keys.
    #[error("{path} is missing and the data cannot be read without it: restore it from a backup")]
    KeyringMissing {
        /// The keyring.
        path: PathBuf,
    },
    /// Data and keys, but no description.
    #[error("{path} is missing though the directory holds a store: restore it from a backup")]
    DescriptorMissing {
        /// `store.json`.
        path: PathBuf,
    },
    /// No root key for a store that has one.
    #[error(
        "no root key was given and {directory} has no master.key: the store needs the root key {expected}; \
         give it with --master-key-file"
    )]
    RootKeyMissing {
        /// The data directory.
        directory: PathBuf,
        /// The key it needs.
        expected: RootKeyId,
    },
    /// Another store's root key, or an old one.
    #[error("{path} needs the root key {expected}, and {origin} gives {given}: give the right key")]
    WrongRootKey {
        /// The keyring.
        path: PathBuf,
        /// Where the key came from.
        origin: String,
        /// The key the store needs.
        expected: RootKeyId,
        /// The key that was given.
        given: RootKeyId,
    },
    /// Not the key that `--key-id` announces.
    #[error("--key-id expects the root key {expected}, and {origin} gives {given}: correct one of them")]
    UnexpectedRootKey {
        /// Where the key came from.
        origin: String,
        /// The key announced.
        expected: RootKeyId,
        /// The key that was given.
        given: RootKeyId,
    },
    /// The new root key is the old one.
    #[error("the store is under the root key {id} already: give a new one")]
    SameRootKey {
        /// Its id.
        id: RootKeyId,
    },
    /// A key cannot be read.
    #[error(transparent)]
    RootKey(#[from] RootKeyError),
    /// `store.json` and `shards/` do not belong together.
    #[error(
        "{path} is missing though store.json names that generation (shards/ holds {found}): restore both from one backup"
    )]
    GenerationMissing {
        /// The directory that should be there.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// A generation may only follow the current one.
    #[error("generation {given} does not follow the store's generation {current}")]
    GenerationOrder {
        /// The store's.
        current: u64,
        /// The one to publish.
        given: u64,
    },
    /// Too few or too many shards.
    #[error("a store has 1 to {SHARDS_MAX} shards, not {given}: correct --shards")]
    ShardCount {
        /// What was asked for.
        given: u16,
    },
    /// Rotation runs far ahead of re-sealing.
    #[error("the keyring is full ({DATA_KEYS_MAX} data keys): wait until compaction has re-sealed what old keys hold")]
    KeyringFull,
    /// Only one change of keys or shard count at a time.
    #[error("another change of the store's keys or shards is under way: try again when it is done")]
    ChangeUnderWay,
    /// A change failed half-way; the next start reads what is on disk.
    #[error("an earlier change of the store's keys or shards failed ({reason}): restart the server")]
    ChangeFailed {
        /// What failed.
        reason: String,
    },
}

impl StoreError {
    /// For `map_err`.
    pub(super) fn io<'a>(action: &'static str, path: &'a std::path::Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |error| Self::Io { action, path: path.to_owned(), error }
    }

    /// Whether it says that the disk, or the quota, is full.
    pub(super) fn is_out_of_space(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Io { error, .. } if full.contains(&error.kind()))
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
