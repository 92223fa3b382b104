//! Ending segments: sealing one that is full, rolling to a new data key, and the clean shutdown.

use super::format::segment::SEGMENT_HEADER_BYTES;
use super::manifest::Interrupt;
use super::segment::SegmentState;
use super::state::{LogStorage, Mode, SegmentOf};
use crate::crypto::keyring::Keyring;
use crate::runtime::platform::{Caching, Disk, DiskFile, Durability, OpenMode, Platform};
use crate::runtime::publish::remove_if_there;
use crate::storage::CommitError;
use std::sync::Arc;

impl<P: Platform> LogStorage<P> {
    /// Seals a segment that will not be written any more and tells the manifest; one without a frame is unlisted.
    pub(super) async fn seal_segment(&self, segment: &SegmentOf<P>) -> Result<(), Interrupt> {
        self.state.borrow().check_writable().map_err(|_| Interrupt::Stopped)?;
        if segment.written.get() > SEGMENT_HEADER_BYTES as u64 {
            self.write_footer(segment, Durability::Synced).await?;
            self.publish_manifest(false).await?;
            self.signals.maintain.notify();
            return Ok(());
        }
        if segment.listed.replace(false) {
            self.publish_manifest(false).await?;
        }
        self.forget_segment(segment);
        self.signals.prepare.notify();
        Ok(())
    }

    /// A segment that was passed and got no footer has no end, and nobody gives it one any more.
    pub(super) fn must_have_ended(&self, passed: &SegmentOf<P>, sealed: &Result<(), Interrupt>) {
        if *sealed == Err(Interrupt::OutOfSpace) && passed.listed.get() && passed.end.get().is_none() {
            self.poison("no space for the footer of a full segment".to_owned());
        }
    }

    /// See [`crate::storage::Storage::adopt_keyring`].
    pub(super) async fn roll_to_keyring(&self, keyring: Arc<Keyring>) -> Result<(), CommitError> {
        {
            let mut state = self.state.borrow_mut();
            state.check_writable()?;
            if keyring.generation() < state.keyring.generation() {
                return Ok(());
            }
            let key_id = keyring.active().id();
            state.keyring = keyring;
            for segment in state.lineage.iter().filter(|segment| segment.header.key_id != key_id) {
                segment.closed.set(true);
            }
        }
        if self.state.borrow().lineage.iter().all(|segment| segment.closed.get()) {
            self.plan_segment();
        }
        self.pass_closed_segments().await?;
        let front = self.state.borrow().lineage.front().cloned();
        if let Some(front) = front {
            self.wait_ready(&front).await?;
        }
        self.publish_manifest(false).await.map_err(|interrupt| self.commit_error(interrupt))?;
        self.state.borrow_mut().checkpoint_forced = true;
        self.signals.maintain.notify();
        Ok(())
    }

    /// Waits until nothing is bound to closed segments, and seals them.
    async fn pass_closed_segments(&self) -> Result<(), CommitError> {
        loop {
            let seen = self.signals.committed.epoch();
            let commit_guard = self.commit_lock.lock().await;
            let preparation_guard = self.preparation_lock.lock().await;
            self.state.borrow().check_writable()?;
            let front = self.state.borrow().lineage.front().cloned();
            let Some(front) = front.filter(|front| front.closed.get()) else { return Ok(()) };
            if front.bound.get() == 0 {
                let passed = self.state.borrow_mut().lineage.pop_front();
                if let Some(passed) = passed {
                    passed.state.set(SegmentState::Sealed);
                    self.state.borrow_mut().tail_open = false;
                    let sealed = self.seal_segment(&passed).await;
                    self.must_have_ended(&passed, &sealed);
                    sealed.map_err(|interrupt| self.commit_error(interrupt))?;
                }
                continue;
            }
            drop((commit_guard, preparation_guard));
            self.signals.committed.changed(seen).await;
        }
    }

    /// See [`crate::storage::Storage::shutdown`].
    pub(super) async fn shut_down(&self) -> Result<(), CommitError> {
        if let Mode::ReadOnly(_) = self.state.borrow().mode {
            return Ok(());
        }
        self.commit_batch().await?;
        self.state.borrow().check_writable()?;
        self.closing.set(true);
        self.signals.prepare.notify();
        self.signals.tail.notify();
        self.signals.maintain.notify();
        self.signals.scrub.notify();
        self.signals.idle.notify();
        while self.jobs.get() > 0 {
            let seen = self.signals.idle.epoch();
            if self.jobs.get() > 0 {
                self.signals.idle.changed(seen).await;
            }
        }
        let _guard = self.commit_lock.lock().await;
        self.close_files().await.map_err(|interrupt| self.commit_error(interrupt))?;
        self.update_gauges();
        self.state.borrow_mut().mode = Mode::ReadOnly("it is shut down");
        Ok(())
    }

    async fn close_files(&self) -> Result<(), Interrupt> {
        let (unsealed, unused) = {
            let mut state = self.state.borrow_mut();
            state.lineage.clear();
            state.target = None;
            let ended = |segment: &&SegmentOf<P>| segment.end.get().is_some();
            let (mut unsealed, mut unused) = (Vec::new(), Vec::new());
            for segment in state.segments.iter().filter(|segment| !ended(segment)) {
                let written = segment.listed.get() && segment.written.get() > SEGMENT_HEADER_BYTES as u64;
                if written { unsealed.push(segment.clone()) } else { unused.push(segment.clone()) }
            }
            (unsealed, unused)
        };
        for segment in unsealed {
            segment.state.set(SegmentState::Sealed);
            self.write_footer(&segment, Durability::Synced).await?;
        }
        for segment in unused {
            segment.listed.set(false);
            self.forget_segment(&segment);
        }
        self.cut_recovered_segments().await?;
        if self.checkpoint_is_stale() {
            match self.write_checkpoint().await {
                // Without room for it the log is replayed at the next start.
                Ok(()) | Err(Interrupt::OutOfSpace) => {}
                Err(stopped) => return Err(stopped),
            }
        }
        self.publish_manifest(true).await?;
        self.remove_unlisted().await
    }

    /// What lies behind the recorded end of a segment that was recovered goes. The manifest in force must tell of the
    /// end: should a last write of the killed process still land behind it, nobody reads that.
    pub(super) async fn cut_recovered_segments(&self) -> Result<(), Interrupt> {
        let listed = self.state.borrow().segments.listed();
        for segment in listed {
            let Some(end) = segment.end.get().filter(|end| !end.footer && segment.capacity.get() > end.offset) else {
                continue;
            };
            let cut = async {
                let file = self.disk().open(&segment.path, OpenMode::ReadWrite, Caching::Direct).await?;
                file.set_len(end.offset).await?;
                file.sync_data().await
            };
            cut.await.map_err(|error| self.interrupt("cutting a recovered segment", &error))?;
            segment.capacity.set(end.offset);
        }
        Ok(())
    }

    async fn remove_unlisted(&self) -> Result<(), Interrupt> {
        let (spare, retired) = {
            let mut state = self.state.borrow_mut();
            (state.spare.take(), std::mem::take(&mut state.retired))
        };
        let paths = spare.map(|spare| spare.path).into_iter();
        for path in paths.chain(retired.iter().map(|segment| segment.path.clone())) {
            let removed = remove_if_there(self.disk(), &path).await;
            removed.map_err(|error| self.interrupt("removing an unused segment", &error))?;
        }
        self.sync_directory().await
    }

    /// Whether no frame and no moved record came since the checkpoint in force.
    fn checkpoint_is_stale(&self) -> bool {
        let state = self.state.borrow();
        let moved = state.segments.iter().any(|segment| segment.listed.get() && !segment.is_checkpointed());
        let key_id = state.keyring.active().id();
        match &state.checkpoint {
            None => state.applied.frame > 0 || !state.index.is_empty() || moved,
            Some(_) if state.checkpoint_damaged => true,
            Some(checkpoint) => checkpoint.frame != state.applied.frame || moved || checkpoint.key_id != key_id.0,
        }
    }

    async fn wait_ready(&self, segment: &SegmentOf<P>) -> Result<(), CommitError> {
        loop {
            let seen = self.signals.segments.epoch();
            self.state.borrow().check_writable()?;
            match segment.state.get() {
                SegmentState::Ready | SegmentState::Sealed => return Ok(()),
                SegmentState::OutOfSpace => return Err(self.commit_error(Interrupt::OutOfSpace)),
                SegmentState::Planned => self.signals.prepare.notify(),
            }
            self.signals.segments.changed(seen).await;
        }
    }
}
