//! Opening a shard: what the manifest lists, the checkpoint, and the log behind it become the index again.
//!
//! The rule that everything follows: data that was acknowledged is found, or start is refused with file and offset.
//! Only the unfinished end of the log may be dropped, for nobody was told of it. With salvage, damage is noted
//! instead, nothing is written, and what is intact is served.

#[doc(hidden)]
pub mod fuzzing;
mod replay;
mod sources;

use super::format::manifest::{MANIFEST_NAME, Manifest, SegmentEnd};
use super::format::segment::{SEGMENT_HEADER_BYTES, SegmentKind};
use super::manifest::Interrupt;
use super::segment::{SLOT_MISSING, SegmentState, checkpoint_path, segment_path};
use super::signal::Lock;
use super::state::{LogStorage, Mode, Position, SegmentOf, Signals, State};
use super::{Damage, LogOptions, OpenError, OpenReport};
use crate::runtime::platform::{Caching, Disk, DiskFile, OpenMode, Platform};
use crate::runtime::publish::remove_if_there;
use crate::sabotage::{Sabotage, is_on};
use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What may be done with the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    Write,
    /// The same, but nothing goes on in the background (a generation being rewritten).
    Import,
    /// Nothing is written; damage refuses.
    Read,
    /// Nothing is written; damage is noted.
    Salvage,
    /// The same, without a word, and a missing key or another store's file is noted too.
    Check,
}

impl Access {
    fn writes(self) -> bool {
        matches!(self, Access::Write | Access::Import)
    }
}

/// A shard on its way back.
pub(super) struct Recovery<'a, P: Platform> {
    pub platform: &'a P,
    pub options: &'a LogOptions,
    pub access: Access,
    pub state: State<P>,
    pub report: OpenReport,
    pub manifest: Manifest,
    /// The index was taken from a checkpoint; otherwise all records count.
    pub from_checkpoint: bool,
    /// Highest version seen.
    pub version_max: u64,
}

impl<P: Platform> LogStorage<P> {
    /// Opens one shard's log, making it if there is none, and starts its background tasks.
    pub async fn open(platform: P, options: LogOptions) -> Result<Rc<Self>, OpenError> {
        let access = if options.salvage { Access::Salvage } else { Access::Write };
        Self::open_with(platform, options, access).await
    }

    pub(super) async fn open_with(platform: P, options: LogOptions, access: Access) -> Result<Rc<Self>, OpenError> {
        let mut recovery = Recovery::new(&platform, &options, access);
        recovery.make_directory().await?;
        let found = recovery.read_manifest().await?;
        recovery.probe_direct_io().await;
        recovery.look_behind_manifest().await?;
        recovery.open_segments().await?;
        recovery.load_checkpoint().await?;
        recovery.replay().await?;
        recovery.finish(found)?;
        if access.writes() {
            recovery.settle_ends().await?;
        }
        let Recovery { mut state, mut report, manifest, .. } = recovery;
        report.entities = state.index.len();
        state.mode = match access {
            Access::Write | Access::Import => Mode::Writable,
            Access::Read | Access::Check => Mode::ReadOnly("it was opened for reading only"),
            Access::Salvage => Mode::ReadOnly("it was started with --salvage; restart without it to write"),
        };
        let this = Rc::new_cyclic(|this| Self {
            directory: options.directory.clone(),
            identity: options.identity,
            sizes: options.sizes,
            metrics: options.metrics.clone(),
            report,
            state: RefCell::new(state),
            signals: Rc::new(Signals::default()),
            commit_lock: Lock::default(),
            manifest_lock: Lock::default(),
            names_lock: Lock::default(),
            preparation_lock: Lock::default(),
            maintenance_lock: Lock::default(),
            jobs: Cell::new(0),
            chunks_written: Cell::new(0),
            closing: Cell::new(false),
            scrub: RefCell::default(),
            this: this.clone(),
            platform: platform.clone(),
        });
        if access.writes() {
            this.begin_writing(found.then_some(&manifest)).await?;
        }
        if access == Access::Write {
            this.start_tasks();
        }
        if access == Access::Salvage {
            this.report.damage.iter().cloned().for_each(|damage| this.note_damage(damage));
        }
        this.update_gauges();
        Ok(this)
    }

    /// Records what was recovered, as the state of a shard at work: until a clean shutdown says otherwise, a restart
    /// must skip the versions that may have been given out. A failure poisons: what was recovered is served, and the
    /// reason is told. On a full disk no version is given out until a manifest got room. A shard without its first
    /// manifest is none: that is an error.
    async fn begin_writing(&self, found: Option<&Manifest>) -> Result<(), OpenError> {
        let mut published = self.publish_manifest(false).await;
        if published == Err(Interrupt::OutOfSpace) {
            // The manifest that was found stays in force: what it names must stay too.
            self.remove_leftovers(found).await?;
            published = self.publish_manifest(false).await;
        }
        match published {
            Ok(()) => {
                self.remove_leftovers(None).await?;
                // A server that is killed again and again must not fill the disk with what it did not write. A
                // failure poisons, like that of the manifest.
                let _ = self.cut_recovered_segments().await;
                Ok(())
            }
            Err(_) if found.is_some() => Ok(()),
            Err(interrupt) => {
                let path = self.directory.join(MANIFEST_NAME);
                let source = match interrupt {
                    Interrupt::OutOfSpace => io::ErrorKind::StorageFull.into(),
                    Interrupt::Stopped => io::Error::other(self.commit_error(interrupt).to_string()),
                };
                Err(OpenError::Io { action: "write", path, source })
            }
        }
    }

    /// Removes segments, checkpoints and temporary files that neither the state nor the manifest in force names.
    async fn remove_leftovers(&self, in_force: Option<&Manifest>) -> Result<(), OpenError> {
        let mut kept: Vec<PathBuf> = Vec::new();
        {
            let state = self.state.borrow();
            kept.extend(state.segments.iter().map(|segment| segment.path.clone()));
            let checkpoint = state.checkpoint.as_ref();
            kept.extend(checkpoint.map(|checkpoint| checkpoint_path(&self.directory, checkpoint.number)));
        }
        if let Some(manifest) = in_force {
            kept.extend(manifest.segments.iter().map(|segment| segment_path(&self.directory, segment.number)));
        }
        let names = self.disk().read_dir(&self.directory).await;
        for name in names.map_err(io_error("list", &self.directory))? {
            let path = self.directory.join(&name);
            let ours = [".seg", ".ckpt", ".tmp"].iter().any(|suffix| name.ends_with(suffix));
            if ours && !kept.contains(&path) {
                remove_if_there(self.disk(), &path).await.map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }
}

impl<'a, P: Platform> Recovery<'a, P> {
    fn new(platform: &'a P, options: &'a LogOptions, access: Access) -> Self {
        Self {
            platform,
            options,
            access,
            state: State::empty(platform, options),
            report: OpenReport::default(),
            manifest: Manifest::default(),
            from_checkpoint: false,
            version_max: 0,
        }
    }

    /// Sees to it that the directory is there for good. Its names are synced at every start: who made them may have
    /// been killed before it came to that.
    async fn make_directory(&self) -> Result<(), OpenError> {
        if !self.access.writes() {
            return Ok(());
        }
        let (disk, directory) = (self.platform.disk(), &self.options.directory);
        if self.options.create {
            disk.create_dir_all(directory).await.map_err(io_error("create", directory))?;
        }
        // shards/<generation>/<shard>: each of the three may be new, and so may what the shard holds.
        for level in directory.ancestors().take(4).filter(|level| !level.as_os_str().is_empty()) {
            match disk.sync_dir(level).await {
                // Refused as a lost shard when its manifest is looked for.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.options.create => {}
                synced => synced.map_err(io_error("sync", level))?,
            }
        }
        Ok(())
    }

    /// Makes durable what was found behind the last recorded ends, before the manifest says that the log reaches so
    /// far: the frames of a killed process may be in the page cache only.
    async fn settle_ends(&self) -> Result<(), OpenError> {
        let unended = self.manifest.segments.iter().filter(|reference| reference.end.is_none());
        let numbers: Vec<u32> = unended.map(|reference| reference.number).collect();
        for segment in self.state.segments.listed() {
            if is_on(Sabotage::TrustPageCache) {
                continue;
            }
            if let (true, Some(file)) = (numbers.contains(&segment.number()), segment.file.get()) {
                file.sync_data().await.map_err(io_error("sync", &segment.path))?;
            }
        }
        Ok(())
    }

    /// Damage refuses the start, or is noted.
    pub fn damage(&mut self, file: &Path, offset: u64, reason: impl Into<String>) -> Result<(), OpenError> {
        self.bear(OpenError::Damaged(Damage { file: file.to_owned(), offset, reason: reason.into() }))
    }

    /// An error refuses the start, unless what it tells of is noted.
    pub fn bear(&mut self, error: OpenError) -> Result<(), OpenError> {
        let damage = match (self.access, error) {
            (Access::Salvage, OpenError::Damaged(damage)) => {
                tracing::error!(%damage, "salvage goes on without it");
                damage
            }
            (Access::Check, OpenError::Damaged(damage)) => damage,
            (Access::Check, error) => Damage { file: error.file().to_owned(), offset: 0, reason: error.to_string() },
            (_, error) => return Err(error),
        };
        self.report.damage.push(damage);
        Ok(())
    }

    /// Puts together what was found; `found` says whether there was a manifest.
    fn finish(&mut self, found: bool) -> Result<(), OpenError> {
        if self.state.segments.missing_entries > 0 {
            let manifest = self.options.directory.join(MANIFEST_NAME);
            let count = self.state.segments.missing_entries;
            self.damage(&manifest, 0, format!("{count} entities lie in segments that are not listed or not there"))?;
        }
        self.state.index.finish_replay();
        if self.state.segments.missing_entries > 0 {
            self.report.entities_lost += self.state.index.remove_where(|entry| entry.place.slot == SLOT_MISSING);
        }
        self.report.clean = found && self.manifest.clean;
        let skipped = if self.manifest.clean || !found || is_on(Sabotage::ReuseVersions) {
            0
        } else {
            self.options.sizes.records_in_flight
        };
        let next = self.manifest.sequence_floor.max(self.version_max + 1).max(1);
        let state = &mut self.state;
        state.next_sequence = next + skipped;
        state.manifest = self.manifest.clone();
        state.segment_number_next = self.manifest.segment_number_next.max(1);
        state.checkpoint_number_next = self.manifest.checkpoint_number_next.max(1);
        if self.manifest.segment_bytes_next > 0 {
            let sizes = &self.options.sizes;
            let bytes = self.manifest.segment_bytes_next;
            state.segment_bytes_next = bytes.clamp(sizes.segment_bytes_first, sizes.segment_bytes_max);
        }
        if self.access.writes() {
            self.end_segments();
        }
        Ok(())
    }

    /// Nothing recovered is written again: every segment gets its end, and those without a frame go.
    fn end_segments(&mut self) {
        let open: Vec<SegmentOf<P>> =
            self.state.segments.iter().filter(|segment| segment.end.get().is_none()).cloned().collect();
        for segment in open {
            if segment.written.get() <= SEGMENT_HEADER_BYTES as u64 {
                self.state.segments.remove(segment.slot);
                continue;
            }
            let (last_frame, last_tag) = segment.last_frame.get();
            let offset = segment.written.get();
            segment.end.set(Some(SegmentEnd { offset, footer: false, last_frame, last_tag }));
        }
    }

    /// The checkpoint's place in the log, or the log's beginning.
    pub fn checkpoint_position(&self) -> Position {
        let checkpoint = self.manifest.checkpoint.as_ref().filter(|_| self.from_checkpoint);
        checkpoint.map(Position::of).unwrap_or_default()
    }

    /// Commit segments, or compacted ones, by rising number.
    pub fn segments_of(&self, kind: SegmentKind) -> Vec<SegmentOf<P>> {
        let mut segments = self.state.segments.listed();
        segments.retain(|segment| segment.header.kind == kind);
        segments
    }

    /// Finds out whether direct I/O works in this directory; where that needs a file, only when writing is allowed.
    async fn probe_direct_io(&mut self) {
        let disk = self.platform.disk();
        let manifest = self.options.directory.join(MANIFEST_NAME);
        let probe = self.options.directory.join("probe.tmp");
        let mut file = disk.open(&manifest, OpenMode::Read, Caching::Direct).await;
        if file.is_err() && self.access.writes() {
            file = disk.open(&probe, OpenMode::CreateNew, Caching::Direct).await;
            let _ = remove_if_there(disk, &probe).await;
        }
        self.report.direct_io = file.is_ok_and(|file| file.is_direct());
    }
}

/// For `map_err`: names what was tried on which file.
pub(super) fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io { action, path: path.to_owned(), source }
}

/// A segment just opened takes no frames.
pub(super) fn opened<F>(segment: &super::segment::Segment<F>) {
    segment.state.set(SegmentState::Sealed);
    segment.listed.set(true);
    segment.installed.set(true);
}
