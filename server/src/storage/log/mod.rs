//! The `log` backend: one shard's entities in sealed, pre-allocated segments, written by group commit.
//!
//! ```text
//! append ─▶ open batch ─commit─▶ segment ─(half dead)─▶ compaction ─▶ segment
//!              │                    │
//!              └──────▶ index ◀─────┴──── checkpoint + replay at start
//! ```
//! Invariants: a block that was acknowledged is never written again; one commit is in flight; the index changes only
//! after the write that it tells of is durable; a segment is listed in the manifest before its first frame counts and
//! unlisted before its file is reused. A failed write or sync ends all writing until a restart. This room sees the
//! platform's traits only, and refuses to judge conditions, to cache, and to serve anything that did not authenticate.

mod batch;
mod check;
mod checkpoint;
mod checkpoint_reader;
mod commit;
mod compaction;
mod device;
mod format;
#[doc(hidden)]
pub mod index;
mod live;
mod manifest;
mod prepare;
mod read;
mod recovery;
mod rewrite;
mod scan;
mod scrub;
mod segment;
mod segment_writer;
mod shutdown;
mod signal;
mod state;
mod tasks;
mod verify;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use check::{ShardCheck, check_shard};
pub use format::{FormatError, LogIdentity};
pub use live::{LiveRecord, WalkError};
#[doc(hidden)]
pub use recovery::fuzzing;
pub use rewrite::{RewriteError, RewriteOptions, RewriteReport, remove_generation, rewrite_generation};
pub use state::LogStorage;

use crate::crypto::keyring::{DataKeyId, Keyring};
use crate::limits;
use crate::metrics::Metrics;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to open one shard's log.
#[derive(Clone)]
pub struct LogOptions {
    /// `shards/<generation>/<shard>`.
    pub directory: PathBuf,
    /// The store is being made: a shard without any file is a new one. Otherwise it is a lost one.
    pub create: bool,
    /// Which shard it must be.
    pub identity: LogIdentity,
    /// The data keys.
    pub keyring: Arc<Keyring>,
    /// Serve read-only what is intact, instead of refusing a damaged log. Nothing is written.
    pub salvage: bool,
    /// This shard's figures go to `metrics.shards[identity.shard]`.
    pub metrics: Arc<Metrics>,
    /// Sizes; other than the defaults in tests only.
    pub sizes: LogSizes,
}

/// Sizes and times of one shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSizes {
    /// The first segment.
    pub segment_bytes_first: u64,
    /// A full-size segment.
    pub segment_bytes_max: u64,
    /// Sealed bytes that one commit takes, unless one append needs more.
    pub batch_bytes: usize,
    /// Records that one commit takes.
    pub batch_records: usize,
    /// Versions skipped after a crash: those that may have been given out without a trace.
    pub records_in_flight: u64,
    /// Log bytes after which a checkpoint is due at the latest.
    pub checkpoint_due_bytes: u64,
    /// A checkpoint's chunk.
    pub checkpoint_chunk_bytes: usize,
    /// Of the segments a checkpoint covers, the newest so many bytes are verified at open all the same.
    pub verify_at_open_bytes: u64,
    /// Bytes read at once when a segment is walked.
    pub window_bytes: usize,
    /// Space left to others (manifests, checkpoints) when a segment is prepared.
    pub space_kept_bytes: u64,
    /// An empty frame follows the last write after this.
    pub tail_delay_ms: u64,
    /// How often a full disk is looked at again.
    pub space_poll_ms: u64,
    /// The scrub reads no faster than this; 0: there is none.
    pub scrub_bytes_per_s: u64,
    /// Bytes that it reads at once.
    pub scrub_piece_bytes: usize,
    /// From the beginning of one pass to that of the next.
    pub scrub_interval_ms: u64,
    /// A pass takes this long where no bound asks for more.
    pub scrub_spread_ms: u64,
}

impl Default for LogSizes {
    fn default() -> Self {
        Self {
            segment_bytes_first: limits::SEGMENT_BYTES_FIRST,
            segment_bytes_max: limits::SEGMENT_BYTES_MAX,
            batch_bytes: limits::BATCH_BYTES_MAX,
            batch_records: limits::BATCH_RECORDS_MAX,
            records_in_flight: limits::RECORDS_IN_FLIGHT_MAX as u64,
            checkpoint_due_bytes: limits::CHECKPOINT_DUE_BYTES_MAX,
            checkpoint_chunk_bytes: limits::CHECKPOINT_CHUNK_BYTES,
            verify_at_open_bytes: 128 << 20,
            window_bytes: 4 << 20,
            space_kept_bytes: 1 << 20,
            tail_delay_ms: 100,
            space_poll_ms: 500,
            scrub_bytes_per_s: 0,
            scrub_piece_bytes: limits::SCRUB_PIECE_BYTES,
            scrub_interval_ms: limits::SCRUB_INTERVAL_MS,
            scrub_spread_ms: limits::SCRUB_PASS_SPREAD_MS,
        }
    }
}

/// One place where a file is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged at offset {offset}: {reason}", file.display())]
pub struct Damage {
    /// Which file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What does not fit.
    pub reason: String,
}

/// Why a shard's log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Acknowledged data is damaged or missing.
    #[error("{0}; restore from a backup, or start with --salvage to read what is intact")]
    Damaged(Damage),
    /// The keyring lacks a key.
    #[error("{} is sealed under data key {key_id}, which the keyring does not hold: bring back the right keyring.json", path.display())]
    KeyMissing {
        /// The file sealed under it.
        path: PathBuf,
        /// The key.
        key_id: DataKeyId,
    },
    /// The keyring was replaced by an older one.
    #[error("the keyring has generation {found}, but {} was written under generation {expected}: bring back the newer keyring.json", path.display())]
    KeyringOlder {
        /// The manifest.
        path: PathBuf,
        /// The keyring's generation.
        found: u64,
        /// The manifest's.
        expected: u64,
    },
    /// Of another version, store, generation or shard.
    #[error("{} cannot be used here: {reason}", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: FormatError,
    },
}

impl OpenError {
    /// The file it is about.
    pub fn file(&self) -> &Path {
        match self {
            OpenError::Damaged(damage) => &damage.file,
            OpenError::Io { path, .. }
            | OpenError::KeyMissing { path, .. }
            | OpenError::KeyringOlder { path, .. }
            | OpenError::Foreign { path, .. } => path,
        }
    }
}

/// What opening a shard found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// The last shutdown was clean.
    pub clean: bool,
    /// Entities taken from the checkpoint.
    pub checkpoint_entities: u64,
    /// Frames replayed from the log.
    pub frames_replayed: u64,
    /// Records replayed from the log.
    pub records_replayed: u64,
    /// Bytes of log walked.
    pub bytes_walked: u64,
    /// Live entities.
    pub entities: u64,
    /// What is damaged, as far as it did not keep the shard from opening.
    pub damage: Vec<Damage>,
    /// With `--salvage`: entities that were known but are lost.
    pub entities_lost: u64,
    /// Whether direct I/O works here; otherwise commits go through the page cache and are slower.
    pub direct_io: bool,
}
