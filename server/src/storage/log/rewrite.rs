//! Rewriting a store for another number of shards: every live entity goes from the old generation's logs into the
//! new one's, as compacted segments under a checkpoint.
//!
//! Entities keep their versions, so that conditions clients hold stay good; every new shard starts above the highest
//! version of all old ones, so none is ever given out again. The old generation is only read; the caller publishes
//! the new one in `store.json` and then removes the old directory. A crash before that leaves the old one whole, and
//! the next attempt begins anew.

use super::format::record::{RecordContent, RecordHeader, RecordKind, record_bytes};
use super::format::{BLOCK_BYTES_MAX, LogIdentity};
use super::live::{LiveRecord, WalkError};
use super::manifest::Interrupt;
use super::recovery::Access;
use super::segment_writer::SegmentWriter;
use super::state::LogStorage;
use super::{Damage, LogOptions, LogSizes, OpenError};
use crate::crypto::keyring::Keyring;
use crate::metrics::Metrics;
use crate::runtime::platform::{Disk, Platform};
use crate::sabotage::{Sabotage, is_on};
use crate::storage::{CommitError, Storage};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// What is rewritten into what.
#[derive(Clone)]
pub struct RewriteOptions {
    /// The directory of all generations: `shards`.
    pub directory: PathBuf,
    /// The store.
    pub store_id: [u8; 16],
    /// The generation read.
    pub generation_old: u32,
    /// Shards in it.
    pub shards_old: u16,
    /// They must have their files. Otherwise the creation was cut short, and one without any holds nothing.
    pub complete_old: bool,
    /// The generation written; whatever lies there is removed first.
    pub generation_new: u32,
    /// Shards in it.
    pub shards_new: u16,
    /// The data keys.
    pub keyring: Arc<Keyring>,
    /// Sizes of the new logs.
    pub sizes: LogSizes,
}

/// What was rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RewriteReport {
    /// Live entities.
    pub entities: u64,
    /// Bytes of their records.
    pub record_bytes: u64,
    /// No version at or below this one will be given out.
    pub version_max: u64,
}

/// Why a generation could not be rewritten. The old one is whole.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The old generation cannot be opened, or the new one not made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A segment of the old generation is damaged.
    #[error("{0}; restore from a backup before changing the number of shards")]
    Damaged(Damage),
    /// Not enough space for both generations.
    #[error(
        "rewriting the store needs {needed} bytes of free space beside it, {available} are there: make room, or keep the number of shards"
    )]
    OutOfSpace {
        /// What both generations need at once.
        needed: u64,
        /// What there is.
        available: u64,
    },
    /// Writing the new generation failed.
    #[error("writing the new generation failed: {0}")]
    Write(String),
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
}

/// One new shard, being filled.
struct Target<P: Platform> {
    log: Rc<LogStorage<P>>,
    writer: Option<SegmentWriter<P>>,
}

/// Rewrites all of a generation into another; `owner_of` names the new shard of (schema, key).
pub async fn rewrite_generation<P: Platform>(
    platform: P,
    options: RewriteOptions,
    owner_of: impl Fn(&str, &str) -> usize,
) -> Result<RewriteReport, RewriteError> {
    let new_directory = options.directory.join(options.generation_new.to_string());
    let removed = platform.disk().remove_dir_all(&new_directory).await;
    removed.map_err(|source| RewriteError::Io { action: "remove", path: new_directory, source })?;
    if !options.complete_old {
        // There may be nothing yet whose free space could be asked for.
        let made = platform.disk().create_dir_all(&options.directory).await;
        made.map_err(|source| RewriteError::Io { action: "create", path: options.directory.clone(), source })?;
    }
    let metrics = Metrics::new(options.shards_old.max(options.shards_new) as usize);
    let mut sources = Vec::new();
    for shard in 0..options.shards_old {
        let log_options = log_options(&options, options.generation_old, shard, &metrics);
        sources.push(LogStorage::open_with(platform.clone(), log_options, Access::Read).await?);
    }
    check_space(&platform, &options, &sources).await?;
    // The sources' next versions already allow for those in flight at a crash.
    let next = sources.iter().map(|source| source.state.borrow().next_sequence).max().unwrap_or(1);
    let next = if is_on(Sabotage::RewriteVersionsAnew) { 1 } else { next };
    let mut targets = Vec::new();
    for shard in 0..options.shards_new {
        let log_options = log_options(&options, options.generation_new, shard, &metrics);
        let log = LogStorage::open_with(platform.clone(), log_options, Access::Import).await?;
        log.state.borrow_mut().next_sequence = next;
        targets.push(Target { log, writer: None });
    }
    let mut report = RewriteReport { version_max: next - 1, ..RewriteReport::default() };
    for source in &sources {
        copy_shard(source, &mut targets, &owner_of, &mut report).await?;
    }
    for target in targets {
        target.finish().await?;
    }
    Ok(report)
}

fn log_options(options: &RewriteOptions, generation: u32, shard: u16, metrics: &Arc<Metrics>) -> LogOptions {
    LogOptions {
        create: generation == options.generation_new || !options.complete_old,
        directory: options.directory.join(generation.to_string()).join(shard.to_string()),
        identity: LogIdentity { store_id: options.store_id, generation, shard },
        keyring: options.keyring.clone(),
        salvage: false,
        metrics: metrics.clone(),
        sizes: options.sizes,
    }
}

async fn check_space<P: Platform>(
    platform: &P,
    options: &RewriteOptions,
    sources: &[Rc<LogStorage<P>>],
) -> Result<(), RewriteError> {
    let statuses = sources.iter().map(|source| source.status());
    // Records with a little for frames; a checkpoint entry an entity; files' own blocks a shard.
    let content: u64 = statuses.map(|status| status.live_bytes * 65 / 64 + status.index_bytes).sum();
    let needed = content + u64::from(options.shards_new) * 16 * BLOCK_BYTES_MAX as u64 + options.sizes.space_kept_bytes;
    let available = platform.disk().space_available(&options.directory).await;
    let available = available.map_err(|source| RewriteError::Io {
        action: "ask for the free space of",
        path: options.directory.clone(),
        source,
    })?;
    if available < needed { Err(RewriteError::OutOfSpace { needed, available }) } else { Ok(()) }
}

async fn copy_shard<P: Platform>(
    source: &LogStorage<P>,
    targets: &mut [Target<P>],
    owner_of: &impl Fn(&str, &str) -> usize,
    report: &mut RewriteReport,
) -> Result<(), RewriteError> {
    let expected = source.status().entities;
    let before = report.entities;
    let copied = source.scan_live(async |record: LiveRecord<'_>| {
        let owner = owner_of(record.entity.schema, record.entity.key);
        let Some(target) = targets.get_mut(owner) else {
            return Err(RewriteError::Write(format!("there is no shard {owner}")));
        };
        report.entities += 1;
        report.record_bytes += target.push(&record).await?;
        Ok(())
    });
    copied.await.map_err(|error| match error {
        WalkError::Damaged(damage) => RewriteError::Damaged(damage),
        WalkError::Visitor(error) => error,
    })?;
    if report.entities - before != expected {
        let reason = format!("{} of its {expected} entities were found", report.entities - before);
        return Err(RewriteError::Damaged(Damage { file: source.directory.clone(), offset: 0, reason }));
    }
    Ok(())
}

impl<P: Platform> Target<P> {
    async fn push(&mut self, record: &LiveRecord<'_>) -> Result<u64, RewriteError> {
        let bytes = record_bytes(record.entity, record.document.len()) as u64;
        let size_max = self.log.sizes.segment_bytes_max;
        if self.writer.as_ref().is_some_and(|writer| writer.length() + bytes + BLOCK_BYTES_MAX as u64 > size_max) {
            self.end_segment().await?;
        }
        let log = self.log.clone();
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let begun = log.begin_compacted(bytes).await;
                self.writer.insert(begun.map_err(|interrupt| write_error(&log, interrupt))?)
            }
        };
        let header = RecordHeader {
            kind: RecordKind::Put,
            body_bytes: 0,
            sequence: record.version,
            time_unix_ms: record.time_unix_ms,
            expiry_unix_ms: record.expiry_unix_ms,
        };
        let content = RecordContent { entity: record.entity, document: record.document };
        let pushed = writer.push(&log, &header, content).await;
        let place = pushed.map_err(|interrupt| write_error(&log, interrupt))?;
        let mut state = log.state.borrow_mut();
        let previous = state.index.put(record.entity, record.version, place);
        state.segments.gain(place);
        if previous.is_some() {
            return Err(RewriteError::Write("an entity lies in two shards of the old generation".to_owned()));
        }
        Ok(bytes)
    }

    async fn end_segment(&mut self) -> Result<(), RewriteError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let finished = writer.finish(&self.log).await;
        let segment = finished.map_err(|interrupt| write_error(&self.log, interrupt))?;
        segment.installed.set(true);
        segment.listed.set(true);
        Ok(())
    }

    /// Checkpoint and manifest: the shard is as after a clean shutdown.
    async fn finish(mut self) -> Result<(), RewriteError> {
        self.end_segment().await?;
        self.log.shutdown().await.map_err(|error: CommitError| RewriteError::Write(error.to_string()))
    }
}

fn write_error<P: Platform>(log: &LogStorage<P>, interrupt: Interrupt) -> RewriteError {
    RewriteError::Write(log.commit_error(interrupt).to_string())
}

/// Removes a generation that `store.json` no longer names; a missing one is fine.
pub async fn remove_generation<P: Platform>(platform: &P, directory: &Path, generation: u32) -> io::Result<()> {
    platform.disk().remove_dir_all(&directory.join(generation.to_string())).await?;
    platform.disk().sync_dir(directory).await
}
