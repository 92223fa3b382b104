//! Segments ahead of time: zeroed space, headers and listings are made in the background, so that a commit only
//! writes frames. Meets the full disk before a commit does.
//!
//! There is always one planned segment behind the one that frames go to, and one spare file besides. The spare is
//! filled first: the last spare serves deletions and compaction only. Where there is no room for one of full size, a
//! smaller one will do: writing goes on, and comes back, as long as there is room for a segment of the first size.

use super::device::write_whole_buffer;
use super::format::segment::SEGMENT_HEADER_BYTES;
use super::format::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN};
use super::manifest::Interrupt;
use super::segment::SegmentState;
use super::state::{Blank, FileOf, LogStorage, SegmentOf};
use crate::limits::{RETIRED_KEPT_MAX, RETIRED_KEPT_ROOM_SEGMENTS};
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{Caching, Disk, DiskFile, Durability, OpenMode, Platform};
use crate::runtime::publish::remove_if_there;
use crate::sabotage::{Sabotage, is_on};
use std::io;
use std::rc::Rc;

impl<P: Platform> LogStorage<P> {
    /// Prepares whatever is wanted; returns whether it must be tried again for want of space.
    pub(super) async fn prepare_segments(&self) -> Result<(), Interrupt> {
        loop {
            if self.closing.get() {
                return Err(Interrupt::Stopped);
            }
            let _guard = self.preparation_lock.lock().await;
            self.state.borrow().check_writable().map_err(|_| Interrupt::Stopped)?;
            self.plan_ahead();
            self.remove_retired().await?;
            let wanted = self.wanted_segment();
            let result = match &wanted {
                Some(segment) => self.prepare_wanted(segment).await,
                None => self.refill_spare().await,
            };
            let out_of_space = result == Err(Interrupt::OutOfSpace);
            if let (true, Some(segment)) = (out_of_space, &wanted) {
                segment.state.set(SegmentState::OutOfSpace);
                // Those planned behind it must not be waited for either.
                let state = self.state.borrow();
                let planned = state.lineage.iter().filter(|one| one.state.get() == SegmentState::Planned);
                planned.for_each(|one| one.state.set(SegmentState::OutOfSpace));
            }
            self.note_space(out_of_space);
            self.state.borrow_mut().forget_refusal();
            self.signals.segments.notify();
            result?;
            if wanted.is_none() {
                return Ok(());
            }
        }
    }

    /// The segment to prepare next: one for which deletions ask for the last spare, or the first that is not ready.
    fn wanted_segment(&self) -> Option<SegmentOf<P>> {
        let state = self.state.borrow();
        let asks = |segment: &&SegmentOf<P>| {
            segment.state.get() == SegmentState::OutOfSpace && segment.last_spare.get() && state.spare.is_some()
        };
        let unready = |segment: &&SegmentOf<P>| segment.state.get() != SegmentState::Ready;
        state.lineage.iter().find(asks).or_else(|| state.lineage.iter().find(unready)).cloned()
    }

    fn note_space(&self, out_of_space: bool) {
        let before = std::mem::replace(&mut self.state.borrow_mut().out_of_space, out_of_space);
        if before == out_of_space {
            return;
        }
        if out_of_space {
            tracing::warn!(shard = self.identity.shard, "no space for the next segment: the disk is full or nearly so");
            self.signals.maintain.notify();
        } else {
            tracing::info!(shard = self.identity.shard, "there is space for the next segment again");
        }
    }

    /// Sees to it that a segment is planned behind the one frames go to.
    fn plan_ahead(&self) {
        let planned = {
            let state = self.state.borrow();
            let target = state.target.as_ref();
            let behind = target.and_then(|target| state.lineage.iter().position(|other| Rc::ptr_eq(other, target)));
            let first_free = behind.map_or(0, |position| position + 1);
            state.lineage.iter().skip(first_free).any(|segment| !segment.closed.get())
        };
        if !planned {
            self.plan_segment();
        }
    }

    async fn prepare_wanted(&self, segment: &SegmentOf<P>) -> Result<(), Interrupt> {
        let gives_up_spare = segment.state.get() == SegmentState::OutOfSpace && segment.last_spare.get();
        let spare = if gives_up_spare { self.state.borrow_mut().spare.take() } else { None };
        if let Some(spare) = spare {
            segment.state.set(SegmentState::Planned);
            if segment.file.get().is_some() {
                // It lacks room for growth or for its listing, not a file: the spare's room is set free for that.
                drop(spare.file);
                let removed = remove_if_there(self.disk(), &spare.path).await;
                removed.map_err(|error| self.interrupt("giving up the spare", &error))?;
                return self.finish_segment(segment).await;
            }
            // What is bound to it already must fit; if not, it is extended or refused.
            segment.capacity.set(spare.bytes.max(segment.needed_bytes()));
            return self.give_file(segment, spare).await;
        }
        self.refill_spare().await?;
        if segment.file.get().is_none() {
            let mut blank = self.make_fitting_blank(segment).await;
            if blank.as_ref().err() == Some(&Interrupt::OutOfSpace) {
                // Another shard may have taken what was free a moment ago: less may still fit.
                blank = self.make_fitting_blank(segment).await;
            }
            let blank = blank?;
            segment.last_spare.set(false);
            return self.give_file(segment, blank).await;
        }
        self.finish_segment(segment).await
    }

    /// A file for a planned segment, as large as it wants or as there is room for.
    async fn make_fitting_blank(&self, segment: &SegmentOf<P>) -> Result<Blank<FileOf<P>>, Interrupt> {
        let fitting = self.bytes_that_fit(segment.capacity.get(), 0).await?;
        // Said before the file is made: what is appended meanwhile keeps to it, or asks for more.
        segment.capacity.set(fitting.max(segment.needed_bytes()));
        self.make_blank(segment.capacity.get()).await
    }

    /// Makes the spare if there is none.
    async fn refill_spare(&self) -> Result<(), Interrupt> {
        if self.state.borrow().spare.is_some() {
            return self.grow_spare().await;
        }
        let bytes = {
            let state = self.state.borrow();
            let sizes = state.lineage.iter().map(|segment| segment.capacity.get());
            sizes.max().unwrap_or(0).clamp(self.sizes.segment_bytes_first, self.sizes.segment_bytes_max)
        };
        let bytes = self.bytes_that_fit(bytes, self.sizes.segment_bytes_first).await?;
        let blank = self.make_blank(bytes).await?;
        self.keep_spare(blank).await;
        Ok(())
    }

    /// Makes a file the spare. Another may have become it while this one was made, cut or grown: the larger one stays.
    pub(super) async fn keep_spare(&self, blank: Blank<FileOf<P>>) {
        let surplus = {
            let mut state = self.state.borrow_mut();
            let (kept, surplus) = match state.spare.take() {
                Some(other) if other.bytes > blank.bytes => (other, Some(blank)),
                other => (blank, other),
            };
            state.spare = Some(kept);
            surplus
        };
        if let Some(surplus) = surplus {
            drop(surplus.file);
            let _ = remove_if_there(self.disk(), &surplus.path).await;
        }
    }

    /// What of the wanted bytes there is room for, halving them down to a segment of the first size; so much is to be
    /// left to others if it can be.
    async fn bytes_that_fit(&self, wanted: u64, left: u64) -> Result<u64, Interrupt> {
        let available = self.space_available().await?.saturating_sub(self.sizes.space_kept_bytes + left);
        let mut bytes = wanted;
        while bytes > available && bytes > self.sizes.segment_bytes_first {
            let half = bytes / 2;
            bytes = (half - half % BLOCK_BYTES_MAX as u64).max(self.sizes.segment_bytes_first);
        }
        Ok(bytes)
    }

    /// Lets the spare keep up with the segments' size, so that compaction can use it; not having room is fine.
    async fn grow_spare(&self) -> Result<(), Interrupt> {
        let wanted = {
            let state = self.state.borrow();
            let active = state.lineage.front().map_or(0, |segment| segment.capacity.get());
            active.min(self.sizes.segment_bytes_max)
        };
        let Some(mut spare) = self.state.borrow_mut().spare.take() else { return Ok(()) };
        let mut result = Ok(());
        if spare.bytes * 2 <= wanted {
            let grown = async {
                // A segment comes before a larger spare.
                self.check_space(wanted - spare.bytes + self.sizes.segment_bytes_first).await?;
                self.extend(&spare.file, spare.bytes, wanted).await
            };
            match grown.await {
                Ok(()) => spare.bytes = wanted,
                Err(Interrupt::OutOfSpace) => {}
                Err(stopped) => result = Err(stopped),
            }
        }
        self.keep_spare(spare).await;
        result
    }

    /// A zeroed file of at least so many bytes, made of a retired segment when there is one.
    async fn make_blank(&self, bytes: u64) -> Result<Blank<FileOf<P>>, Interrupt> {
        if let Some(blank) = self.reuse_retired(bytes).await? {
            return Ok(blank);
        }
        let number = {
            let mut state = self.state.borrow_mut();
            state.blank_number += 1;
            state.blank_number
        };
        let path = self.directory.join(format!("spare-{number}.tmp"));
        self.check_space(bytes).await?;
        let opened = self.disk().open(&path, OpenMode::CreateNew, Caching::Direct).await;
        let file = opened.map_err(|error| self.interrupt("creating a segment", &error))?;
        match self.extend(&file, 0, bytes).await {
            Ok(()) => Ok(Blank { path, file, bytes }),
            Err(interrupt) => {
                drop(file);
                let _ = remove_if_there(self.disk(), &path).await;
                Err(interrupt)
            }
        }
    }

    /// The file of a retired segment that nobody reads any more, grown to at least so many bytes.
    async fn reuse_retired(&self, bytes: u64) -> Result<Option<Blank<FileOf<P>>>, Interrupt> {
        let segment = {
            let mut state = self.state.borrow_mut();
            let retired = state.retired.iter().enumerate();
            let usable = retired.filter(|(_, segment)| Rc::strong_count(segment) == 1 && self.is_reusable(segment));
            let largest = usable.max_by_key(|(_, segment)| segment.capacity.get());
            let position = largest.map(|(position, _)| position);
            position.map(|position| state.retired.swap_remove(position))
        };
        let Some(segment) = segment else { return Ok(None) };
        let (path, size) = (segment.path.clone(), segment.capacity.get());
        drop(segment);
        // Opened anew: recovery opens segments for reading only.
        let opened = self.disk().open(&path, OpenMode::ReadWrite, Caching::Direct).await;
        let file = opened.map_err(|error| self.interrupt("opening a retired segment", &error))?;
        let size = size - size % BLOCK_BYTES_MAX as u64;
        if size < bytes
            && let Err(interrupt) = self.extend(&file, size, bytes).await
        {
            drop(file);
            let _ = remove_if_there(self.disk(), &path).await;
            return Err(interrupt);
        }
        Ok(Some(Blank { path, file, bytes: size.max(bytes) }))
    }

    async fn extend(&self, file: &FileOf<P>, from: u64, to: u64) -> Result<(), Interrupt> {
        self.check_space(to - from).await?;
        let zeroed = file.write_zeros(from, to - from).await;
        zeroed.map_err(|error| self.interrupt("preparing a segment", &error))?;
        file.sync_data().await.map_err(|error| self.interrupt("syncing a new segment", &error))
    }

    async fn check_space(&self, bytes: u64) -> Result<(), Interrupt> {
        let available = self.space_available().await?;
        if available < bytes + self.sizes.space_kept_bytes { Err(Interrupt::OutOfSpace) } else { Ok(()) }
    }

    pub(super) async fn space_available(&self) -> Result<u64, Interrupt> {
        let available = self.disk().space_available(&self.directory).await;
        available.map_err(|error| self.interrupt("asking for free space", &error))
    }

    /// Makes a blank file a planned segment's own: header, name, listing.
    async fn give_file(&self, segment: &SegmentOf<P>, blank: Blank<FileOf<P>>) -> Result<(), Interrupt> {
        let block = if blank.file.is_direct() { blank.file.alignment().max(BLOCK_BYTES_MIN) } else { BLOCK_BYTES_MAX };
        if let Err(error) = self.name_file(segment, &blank, block).await {
            let interrupt = self.interrupt("writing a segment's header", &error);
            drop(blank.file);
            let _ = remove_if_there(self.disk(), &blank.path).await;
            return Err(interrupt);
        }
        segment.block_bytes.set(block);
        segment.capacity.set(segment.capacity.get().max(blank.bytes));
        let is_first = segment.file.set(blank.file).is_ok();
        assert!(is_first, "a second file took the name of {}, and frames go to the first", segment.path.display());
        self.finish_segment(segment).await
    }

    /// Writes the header and gives the file its name, durably.
    pub(super) async fn name_file(
        &self,
        segment: &SegmentOf<P>,
        blank: &Blank<FileOf<P>>,
        block_bytes: usize,
    ) -> io::Result<()> {
        let mut header = segment.header;
        header.block_bytes = block_bytes as u32;
        let mut buffer = AlignedBuffer::zeroed(SEGMENT_HEADER_BYTES);
        let sealed = header.seal(&self.identity, &segment.key, self.nonce(), &mut buffer);
        sealed.map_err(io::Error::other)?;
        let (result, _) = write_whole_buffer(&blank.file, 0, buffer, Durability::Synced).await;
        result?;
        self.disk().rename(&blank.path, &segment.path).await?;
        self.sync_names().await
    }

    /// Grows a segment's file to its capacity, and lists it.
    async fn finish_segment(&self, segment: &SegmentOf<P>) -> Result<(), Interrupt> {
        let Some(file) = segment.file.get() else { return Ok(()) };
        let size = file.size().await.map_err(|error| self.interrupt("asking for a segment's size", &error))?;
        let capacity = segment.capacity.get();
        if size < capacity {
            match self.extend(file, size, capacity).await {
                // Whoever asked for more was refused meanwhile, and the file is large enough for all others.
                Err(Interrupt::OutOfSpace) if segment.needed_bytes() <= size => segment.capacity.set(size),
                extended => extended?,
            }
        }
        if !segment.listed.replace(true)
            && !is_on(Sabotage::WriteBeforeListing)
            && let Err(interrupt) = self.publish_manifest(false).await
            && !(interrupt == Interrupt::OutOfSpace && self.manifest_names(segment))
        {
            segment.listed.set(false);
            return Err(interrupt);
        }
        // Otherwise an append asked for more meanwhile, and the next round extends it.
        if segment.capacity.get() <= size.max(capacity) {
            segment.state.set(SegmentState::Ready);
        }
        Ok(())
    }

    /// Removes retired files beyond those kept for reuse, once nobody reads them: first those that cannot be reused, then
    /// the smallest.
    async fn remove_retired(&self) -> Result<(), Interrupt> {
        loop {
            let several = self.state.borrow().retired.len() > 1;
            let kept = match several && self.has_ample_space().await? {
                true => RETIRED_KEPT_MAX,
                false => 1,
            };
            let segment = {
                let mut state = self.state.borrow_mut();
                let kept = if state.out_of_space { 0 } else { kept };
                let reusable = state.retired.iter().filter(|segment| self.is_reusable(segment));
                let too_many = reusable.count() > kept;
                let retired = state.retired.iter().enumerate();
                let unread = retired.filter(|(_, segment)| Rc::strong_count(segment) == 1);
                let superfluous = unread.filter(|(_, segment)| too_many || !self.is_reusable(segment));
                let first = superfluous.min_by_key(|(_, one)| (self.is_reusable(one), one.capacity.get()));
                let position = first.map(|(position, _)| position);
                position.map(|position| state.retired.swap_remove(position))
            };
            let Some(segment) = segment else { return Ok(()) };
            let removed = remove_if_there(self.disk(), &segment.path).await;
            removed.map_err(|error| self.interrupt("removing a retired segment", &error))?;
        }
    }

    /// Whether a retired segment's file may become another's.
    fn is_reusable(&self, retired: &SegmentOf<P>) -> bool {
        retired.capacity.get() <= self.sizes.segment_bytes_max
    }

    async fn has_ample_space(&self) -> Result<bool, Interrupt> {
        Ok(self.space_available().await? >= self.sizes.segment_bytes_max * RETIRED_KEPT_ROOM_SEGMENTS)
    }
}
