//! The scrub: reads in the background what nobody reads, so that damage is found while a backup can still help.
//!
//! A pass goes over every listed segment, the checkpoint in force and the manifest, in pieces, so slowly that it is
//! spread over hours, and never faster than the bound it was given; the next one begins a day after. It pins one
//! segment at a time and lets go of one that was retired. What it finds is told in the log, counted, and kept for the
//! health report until a pass goes by without it: a segment in which nothing is found any more is compacted again.
//! Checkpoint and manifest, which memory knows as well, are written anew at once; what a segment has lost it cannot
//! bring back.

use super::Damage;
use super::checkpoint_reader::{CheckpointReader, CheckpointSink, open_checkpoint};
use super::format::checkpoint::{ArchivedCheckpointChunk, ArchivedCheckpointTail};
use super::format::manifest::{MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest, ManifestHeader};
use super::scan::Window;
use super::segment::checkpoint_path;
use super::state::{FileOf, LogStorage};
use super::verify::SegmentCheck;
use crate::crypto::seal::{Purpose, SealingKey};
use crate::limits::{DAMAGED_PLACES_KEPT, SCRUB_BYTES_PER_S_MIN};
use crate::runtime::platform::{Clock, Platform};
use crate::runtime::publish::read_whole;
use std::rc::Rc;
use std::time::Duration;

/// What the scrub remembers between two pieces.
pub struct Scrub<P: Platform> {
    pass: Option<Pass<P>>,
    next_pass_ns: u64,
    /// Damaged places that are still true as far as is known: of this pass, and of the one before until this one ends.
    known: Vec<Damage>,
}

/// A pass under way.
struct Pass<P: Platform> {
    /// Numbers of the segments still to be read, the next one last.
    waiting: Vec<u32>,
    current: Option<(SegmentCheck<P>, Window)>,
    checkpoint: Option<(u64, CheckpointReader<FileOf<P>>)>,
    stage: Stage,
    bytes_per_s: u64,
    found: Vec<Damage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Segments,
    Checkpoint,
    Manifest,
}

/// Takes a checkpoint's content for verified.
struct Nowhere;

impl CheckpointSink for Nowhere {
    fn chunk(&mut self, _: &ArchivedCheckpointChunk) -> bool {
        true
    }
    fn tail(&mut self, _: &ArchivedCheckpointTail) {}
}

impl<P: Platform> Default for Scrub<P> {
    fn default() -> Self {
        Self { pass: None, next_pass_ns: 0, known: Vec::new() }
    }
}

impl<P: Platform> LogStorage<P> {
    /// Goes on with the pass by one piece; says how long to rest afterwards.
    pub(super) async fn scrub_pass(self: Rc<Self>) -> Option<Duration> {
        let now_ns = self.platform.clock().now_ns();
        let pass = {
            let mut scrub = self.scrub.borrow_mut();
            if scrub.pass.is_none() && now_ns < scrub.next_pass_ns {
                return Some(Duration::from_nanos(scrub.next_pass_ns - now_ns));
            }
            scrub.pass.take()
        };
        let mut pass = match pass {
            Some(pass) => pass,
            None => {
                self.scrub.borrow_mut().next_pass_ns = now_ns + self.sizes.scrub_interval_ms * 1_000_000;
                self.begin_pass()
            }
        };
        let mut damage = Vec::new();
        let bytes = match pass.stage {
            Stage::Segments => self.scrub_segment(&mut pass, &mut damage).await,
            Stage::Checkpoint => self.scrub_checkpoint(&mut pass, &mut damage).await,
            Stage::Manifest => self.scrub_manifest(&mut damage).await,
        };
        self.figures().scrubbed_bytes.add(bytes.unwrap_or(0));
        for damage in damage {
            tracing::error!(file = %damage.file.display(), offset = damage.offset, "the scrub found damage: {damage}");
            self.figures().scrub_damage.add(1);
            self.note_damage(damage.clone());
            if pass.found.len() < DAMAGED_PLACES_KEPT {
                pass.found.push(damage);
            }
        }
        let rest = Duration::from_millis(bytes.unwrap_or(0) * 1000 / pass.bytes_per_s.max(1));
        match (bytes, pass.stage) {
            (Some(_), _) => {}
            (None, Stage::Segments) => pass.stage = Stage::Checkpoint,
            (None, Stage::Checkpoint) => pass.stage = Stage::Manifest,
            (None, Stage::Manifest) => {
                self.end_pass(pass);
                return Some(Duration::ZERO);
            }
        }
        self.scrub.borrow_mut().pass = Some(pass);
        Some(rest)
    }

    /// Remembers a damaged place for the health report, unless there are too many.
    pub(super) fn note_damage(&self, damage: Damage) {
        let known = &mut self.scrub.borrow_mut().known;
        let is_new = !known.iter().any(|other| other.file == damage.file && other.offset == damage.offset);
        if is_new && known.len() < DAMAGED_PLACES_KEPT {
            known.push(damage);
        }
    }

    /// Damaged places found while the shard was running.
    pub(super) fn damage_known(&self) -> Vec<Damage> {
        self.scrub.borrow().known.clone()
    }

    fn begin_pass(&self) -> Pass<P> {
        let listed = self.state.borrow().segments.listed();
        let bytes: u64 = listed.iter().map(|segment| segment.written.get()).sum();
        let pace = (bytes * 1000 / self.sizes.scrub_spread_ms.max(1)).max(SCRUB_BYTES_PER_S_MIN);
        Pass {
            waiting: listed.iter().rev().map(|segment| segment.number()).collect(),
            current: None,
            checkpoint: None,
            stage: Stage::Segments,
            bytes_per_s: pace.min(self.sizes.scrub_bytes_per_s),
            found: Vec::new(),
        }
    }

    fn end_pass(&self, pass: Pass<P>) {
        let figures = self.figures();
        figures.scrub_passes.add(1);
        figures.scrub_last_pass_seconds.set(self.platform.clock().unix_ms() / 1000);
        self.scrub.borrow_mut().known = pass.found;
    }

    /// A piece of the next segment; `None` when there is none left.
    async fn scrub_segment(&self, pass: &mut Pass<P>, damage: &mut Vec<Damage>) -> Option<u64> {
        let current = pass.current.take().filter(|(check, _)| check.segment.listed.get());
        let (mut check, window) = match current {
            Some(current) => current,
            None => {
                let number = pass.waiting.pop()?;
                let listed = self.state.borrow().segments.listed();
                let Some(segment) = listed.into_iter().find(|segment| segment.number() == number) else {
                    return Some(0);
                };
                (SegmentCheck::new(segment), Window::unhurried(self.sizes.scrub_piece_bytes))
            }
        };
        let before = check.seen.bytes;
        let (window, done) = self.check_piece(&mut check, window, self.sizes.scrub_piece_bytes as u64, damage).await;
        if !check.segment.listed.get() {
            // Its place in the index is another segment's meanwhile, and what its file holds nobody's.
            damage.clear();
            return Some(check.seen.bytes - before);
        }
        if !damage.is_empty() {
            // It is read, but no longer compacted.
            check.segment.damaged.set(true);
        } else if done && check.is_sound() && check.segment.damaged.replace(false) {
            // What was met there was the disk's passing mood.
            tracing::info!(file = %check.segment.path.display(), "a segment that was taken for damaged is sound");
            self.signals.maintain.notify();
        }
        let bytes = check.seen.bytes - before;
        if !done {
            pass.current = Some((check, window));
        }
        Some(bytes)
    }

    /// A chunk of the checkpoint in force; `None` when there is none left. One that was replaced meanwhile is left.
    async fn scrub_checkpoint(&self, pass: &mut Pass<P>, damage: &mut Vec<Damage>) -> Option<u64> {
        let (reference, keyring) = {
            let state = self.state.borrow();
            (state.checkpoint.clone().filter(|_| !state.checkpoint_damaged)?, state.keyring.clone())
        };
        let opened = match pass.checkpoint.take() {
            Some((number, reader)) if number == reference.number => Ok(reader),
            Some(_) => return None,
            None => open_checkpoint(&self.platform, &self.directory, &self.identity, &keyring, &reference).await,
        };
        let problem = match opened {
            Ok(mut reader) => {
                let before = reader.offset();
                match reader.next(&mut Nowhere).await {
                    Ok(true) => return None,
                    Ok(false) => {
                        let bytes = reader.offset() - before;
                        pass.checkpoint = Some((reference.number, reader));
                        return Some(bytes);
                    }
                    Err(problem) => problem,
                }
            }
            Err(problem) => problem,
        };
        let mut state = self.state.borrow_mut();
        if state.checkpoint.as_ref().is_some_and(|now| now.number == reference.number) {
            let file = checkpoint_path(&self.directory, reference.number);
            damage.push(Damage { file, offset: problem.offset, reason: problem.reason });
            // What the index holds is in memory: another checkpoint puts this right.
            state.checkpoint_damaged = true;
            state.checkpoint_forced = true;
            drop(state);
            self.signals.maintain.notify();
        }
        None
    }

    /// The manifest, whole.
    async fn scrub_manifest(&self, damage: &mut Vec<Damage>) -> Option<u64> {
        let guard = self.manifest_lock.lock().await;
        let path = self.directory.join(MANIFEST_NAME);
        let checked = match read_whole(self.disk(), &path, MANIFEST_BYTES_MAX).await {
            Ok(file) => {
                self.figures().scrubbed_bytes.add(file.len() as u64);
                self.check_manifest(&file)
            }
            Err(error) => Err(error.to_string()),
        };
        drop(guard);
        if let Err(reason) = checked {
            damage.push(Damage { file: path, offset: 0, reason });
            // An interrupt has its own ways of being told.
            let _ = self.publish_manifest(false).await;
        }
        None
    }

    fn check_manifest(&self, file: &[u8]) -> Result<(), String> {
        let state = self.state.borrow();
        let header = ManifestHeader::parse(file, &self.identity).map_err(|error| error.to_string())?;
        let data_key = state.keyring.get(header.key_id).ok_or("the keyring does not hold its data key")?;
        let key = SealingKey::derive(data_key, &header.salt, Purpose::Manifest);
        let manifest = Manifest::open(file, &header, &key).map_err(|error| error.to_string())?;
        // One whose publication failed may lie there all the same; nothing is written any more then.
        let failed = state.check_writable().is_err() && manifest.number == state.manifest.number + 1;
        if manifest.number == state.manifest.number || failed {
            return Ok(());
        }
        Err(format!("it is manifest {}, and {} was written last", manifest.number, state.manifest.number))
    }
}
