//! Appending to the open batch, and the group commit.

use super::batch::{FrameBuilder, FrameMemory, Pending};
use super::device::write_whole_buffer;
use super::format::BLOCK_BYTES_MAX;
use super::format::frame::FRAME_HEADER_BYTES;
use super::format::record::{RecordContent, RecordHeader, RecordKind, TOMBSTONE_BYTES, record_bytes};
use super::format::segment::{SEGMENT_HEADER_BYTES, SegmentKind};
use super::index::Place;
use super::segment::SegmentState;
use super::state::{FileOf, LogStorage, Position, SegmentOf, State};
use crate::command::{EntityRef, Version};
use crate::limits::VERSION_MAX;
use crate::runtime::platform::{Clock, Durability, Platform, Spawn, TaskClass};
use crate::sabotage::{Sabotage, is_on};
use crate::storage::{Change, CommitError, Mutation, Refusal};
use std::rc::Rc;

/// Frame buffers kept for reuse: one in flight, one filling, one for a batch that spans two segments.
const MEMORIES_KEPT: usize = 3;

impl<P: Platform> LogStorage<P> {
    /// See [`crate::storage::Storage::append`].
    pub(super) fn append_changes(&self, changes: &[Change<'_>], versions: &mut Vec<Version>) -> Result<(), Refusal> {
        let mut bytes = 0;
        let mut holds_puts = false;
        for change in changes {
            bytes += match change.mutation {
                Mutation::Put(document) => {
                    holds_puts = true;
                    record_bytes(change.entity, document.len())
                }
                Mutation::Delete => record_bytes(change.entity, TOMBSTONE_BYTES),
            };
        }
        self.make_frame(changes.len(), bytes, holds_puts)?;
        let time_unix_ms = self.platform.clock().unix_ms();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let (first, tombstone_number) = (state.next_sequence, state.segment_number_next - 1);
        let Some(frame) = state.open.frames.last_mut() else { return Ok(()) };
        let (records_before, bound_before) = (frame.records(), frame.bytes_bound());
        for (change, sequence) in changes.iter().zip(first..) {
            let number = tombstone_number.to_le_bytes();
            let (kind, document) = match change.mutation {
                Mutation::Put(document) => (RecordKind::Put, document),
                Mutation::Delete => (RecordKind::Tombstone, &number[..]),
            };
            let header = RecordHeader { kind, body_bytes: 0, sequence, time_unix_ms, expiry_unix_ms: 0 };
            let content = RecordContent { entity: change.entity, document };
            if let Err(error) = frame.push(&header, content, tombstone_number, state.nonces.next()) {
                frame.truncate(records_before);
                self.figures().seal_failures.add(1);
                return Err(Refusal::Poisoned { reason: format!("sealing a record failed: {error}") });
            }
        }
        let segment = &frame.segment;
        segment.bound.set(segment.bound.get() + (frame.bytes_bound() - bound_before));
        state.next_sequence += changes.len() as u64;
        state.open.records += changes.len();
        state.open.bytes += bytes;
        versions.extend(first..state.next_sequence);
        Ok(())
    }

    /// Makes the last frame of the open batch one that takes so many bytes more.
    fn make_frame(&self, records: usize, bytes: usize, holds_puts: bool) -> Result<(), Refusal> {
        let state = self.state.borrow();
        state.check_writable()?;
        if !state.at_work || (holds_puts && state.refused_for_space && state.lacks_space()) {
            return Err(Refusal::OutOfSpace);
        }
        if state.next_sequence + records as u64 > VERSION_MAX {
            return Err(Refusal::ReadOnly { reason: "all versions are used up".to_owned() });
        }
        let open = &state.open;
        let full = open.records + records > self.sizes.batch_records || open.bytes + bytes > self.sizes.batch_bytes;
        if full && open.records > 0 {
            return Err(Refusal::BatchFull);
        }
        if let Some(frame) = open.frames.last() {
            let grown = (frame.length() + bytes).next_multiple_of(BLOCK_BYTES_MAX) as u64 - frame.bytes_bound();
            let current = state.target.as_ref().is_some_and(|target| Rc::ptr_eq(target, &frame.segment));
            if current && frame.fits(bytes) && frame.segment.room() >= grown {
                let admitted = admit(&state, &frame.segment, holds_puts);
                drop(state);
                return self.admitted(admitted, holds_puts).map(|wakes| self.wake_preparation(wakes));
            }
        }
        let needed = (FRAME_HEADER_BYTES + bytes).next_multiple_of(BLOCK_BYTES_MAX);
        drop(state);
        let segment = self.target_segment(needed as u64);
        let admitted = admit(&self.state.borrow(), &segment, holds_puts);
        let wakes = self.admitted(admitted, holds_puts)?;
        self.wake_preparation(wakes);
        let mut state = self.state.borrow_mut();
        let capacity = self.frame_capacity().max(needed);
        let memory = state.memories.pop_if(|memory| memory.buffer.capacity() >= capacity);
        let memory = memory.unwrap_or_else(|| FrameMemory::new(capacity));
        let frame = FrameBuilder::new(segment.clone(), state.next_sequence, memory);
        // A frame of another batch may begin here, so all its bytes are new.
        segment.bound.set(segment.bound.get() + frame.bytes_bound());
        state.target = Some(segment);
        state.open.frames.push(frame);
        Ok(())
    }

    /// The segment that the next frame of so many bytes goes to: the current one or the next planned one.
    fn target_segment(&self, needed: u64) -> SegmentOf<P> {
        let state = self.state.borrow();
        let from = state.target.as_ref();
        let from = from.and_then(|target| state.lineage.iter().position(|segment| Rc::ptr_eq(segment, target)));
        let from = from.unwrap_or(0);
        if let Some(segment) = state.lineage.get(from)
            && !segment.closed.get()
            && (segment.room() >= needed || is_untouched(segment))
        {
            let segment = segment.clone();
            drop(state);
            return self.grow_plan(segment, needed);
        }
        let next = state.lineage.iter().skip(from + 1).find(|segment| !segment.closed.get()).cloned();
        drop(state);
        let segment = next.unwrap_or_else(|| self.plan_segment());
        self.grow_plan(segment, needed)
    }

    /// Makes a planned segment large enough for a frame of so many bytes.
    fn grow_plan(&self, segment: SegmentOf<P>, needed: u64) -> SegmentOf<P> {
        if segment.room() < needed {
            let overhead = (SEGMENT_HEADER_BYTES + BLOCK_BYTES_MAX) as u64;
            segment.capacity.set(overhead + needed);
            segment.state.set(SegmentState::Planned);
            self.signals.prepare.notify();
        }
        segment
    }

    /// Gives the next commit segment its identity; its file follows.
    pub(super) fn plan_segment(&self) -> SegmentOf<P> {
        let capacity = {
            let mut state = self.state.borrow_mut();
            let capacity = state.segment_bytes_next;
            state.segment_bytes_next = (capacity * 2).min(self.sizes.segment_bytes_max);
            capacity
        };
        let segment = self.new_segment(SegmentKind::Commit, capacity);
        self.state.borrow_mut().lineage.push_back(segment.clone());
        self.signals.prepare.notify();
        segment
    }

    /// Notes that a document was refused for want of space.
    fn admitted<T, E>(&self, admitted: Result<T, E>, holds_puts: bool) -> Result<T, E> {
        if holds_puts && admitted.is_err() {
            self.state.borrow_mut().refused_for_space = true;
        }
        admitted
    }

    fn wake_preparation(&self, wakes: bool) {
        if wakes {
            self.signals.prepare.notify();
        }
    }

    /// See [`crate::storage::Storage::commit`].
    pub(super) async fn commit_batch(&self) -> Result<(), CommitError> {
        // The batch is taken before anything is waited for: what is appended from now on belongs to the next one.
        let mut frames = {
            let mut state = self.state.borrow_mut();
            let batch = std::mem::take(&mut state.open);
            state.commits_in_flight += usize::from(!batch.frames.is_empty());
            batch.frames
        };
        if frames.is_empty() {
            // A batch that went with a failed commit is not acknowledged by asking for it again.
            return Ok(self.state.borrow().check_writable()?);
        }
        let abandoned = Abandoned(self);
        let _guard = self.commit_lock.lock().await;
        let result = self.commit_frames(&mut frames).await;
        std::mem::forget(abandoned);
        let mut state = self.state.borrow_mut();
        state.commits_in_flight -= 1;
        if result.is_err() {
            self.figures().commit_failures.add(1);
            // What was appended meanwhile was judged against versions that never became durable: it goes too.
            frames.append(&mut std::mem::take(&mut state.open).frames);
            for frame in &frames {
                let bound = &frame.segment.bound;
                bound.set(bound.get().saturating_sub(frame.bytes_bound()));
            }
            // A segment that had no room for all of this may have enough for less.
            self.signals.prepare.notify();
        }
        for frame in frames {
            self.recycle(&mut state, frame);
        }
        let wakes_tail = !state.tail_armed;
        drop(state);
        self.signals.committed.notify();
        if wakes_tail {
            self.signals.tail.notify();
        }
        result
    }

    async fn commit_frames(&self, frames: &mut [FrameBuilder<FileOf<P>>]) -> Result<(), CommitError> {
        self.state.borrow().check_writable()?;
        for frame in frames.iter() {
            self.segment_ready(&frame.segment, frame.holds_puts).await?;
        }
        let started_ns = self.platform.clock().now_ns();
        let figures = self.figures();
        let (mut records, mut bytes) = (0, 0);
        for frame in frames.iter_mut() {
            let length = self.write_frame(frame).await?;
            frame.segment.bound.set(frame.segment.bound.get().saturating_sub(frame.bytes_bound()));
            records += frame.records() as u64;
            bytes += length;
        }
        for frame in frames.iter() {
            self.apply(frame);
        }
        figures.commits.add(1);
        figures.commit_records.record(records);
        figures.commit_bytes.record(bytes);
        figures.commit_ns.record(self.platform.clock().now_ns().saturating_sub(started_ns));
        Ok(())
    }

    /// Waits until frames may be written to a segment.
    async fn segment_ready(&self, segment: &SegmentOf<P>, holds_puts: bool) -> Result<(), CommitError> {
        let mut waiting_since_ns = None;
        loop {
            let seen = self.signals.segments.epoch();
            {
                let state = self.state.borrow();
                state.check_writable()?;
                match segment.state.get() {
                    SegmentState::Ready => {
                        if let Some(since_ns) = waiting_since_ns {
                            let waited_ns = self.platform.clock().now_ns().saturating_sub(since_ns);
                            self.figures().segment_wait_ns.record(waited_ns);
                        }
                        return Ok(());
                    }
                    SegmentState::OutOfSpace if holds_puts || state.spare.is_none() => {
                        drop(state);
                        return self.admitted(Err(Refusal::OutOfSpace.into()), holds_puts);
                    }
                    SegmentState::OutOfSpace => {
                        segment.last_spare.set(true);
                        self.signals.prepare.notify();
                    }
                    SegmentState::Planned => self.signals.prepare.notify(),
                    SegmentState::Sealed => {
                        return Err(Refusal::ReadOnly { reason: "the segment is sealed".to_owned() }.into());
                    }
                }
            }
            waiting_since_ns = waiting_since_ns.or_else(|| Some(self.platform.clock().now_ns()));
            self.signals.segments.changed(seen).await;
        }
    }

    /// Writes one frame durably behind the last one; returns its length. Failure poisons.
    pub(super) async fn write_frame(&self, frame: &mut FrameBuilder<FileOf<P>>) -> Result<u64, CommitError> {
        let segment = frame.segment.clone();
        if !self.state.borrow().lineage.iter().any(|one| Rc::ptr_eq(one, &segment)) {
            return Err(self.fail_commit(format!("{} has ended already", segment.path.display())));
        }
        self.advance_to(&segment);
        let Some(file) = segment.file.get().cloned() else {
            return Err(self.fail_commit(format!("{} is not open", segment.path.display())));
        };
        let (number, previous_tag) = {
            let state = self.state.borrow();
            (state.chain.0 + 1, state.chain.1)
        };
        let tag = match frame.finish(number, previous_tag, self.nonce()) {
            Ok(tag) => tag,
            Err(error) => {
                self.figures().seal_failures.add(1);
                return Err(self.fail_commit(format!("sealing a frame failed: {error}")));
            }
        };
        let buffer = frame.take_buffer();
        let (offset, length) = (segment.written.get(), buffer.len() as u64);
        let durability = if is_on(Sabotage::ReplyBeforeSync) { Durability::Later } else { Durability::Synced };
        let (result, buffer) = write_whole_buffer(&file, offset, buffer, durability).await;
        frame.return_buffer(buffer);
        frame.offset = offset;
        if let Err(error) = result {
            return Err(self.fail_commit(format!("{} at offset {offset}: {error}", segment.path.display())));
        }
        let mut state = self.state.borrow_mut();
        state.chain = (number, tag);
        state.log_bytes_since_checkpoint += length;
        state.last_write_ns = self.platform.clock().now_ns();
        state.tail_open = frame.records() > 0;
        segment.written.set(offset + length);
        segment.frames.set(segment.frames.get() + 1);
        segment.records.set(segment.records.get() + frame.records() as u64);
        segment.last_frame.set((number, tag));
        self.figures().storage_written_bytes.add(length);
        Ok(length)
    }

    /// Makes the index say what a durable frame says.
    pub(super) fn apply(&self, frame: &FrameBuilder<FileOf<P>>) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let segment = &frame.segment;
        let mut hashes = std::mem::take(&mut state.hashes);
        hashes.clear();
        hashes.extend(frame.pending().map(|(_, entity)| state.index.hash(entity)));
        state.index.warm(&hashes);
        for ((pending, entity), hash) in frame.pending().zip(&hashes) {
            apply_record(state, segment, frame.offset, pending, entity, *hash);
        }
        if is_on(Sabotage::ApplyOutOfOrder) {
            let backwards = frame.pending().rev().zip(hashes.iter().rev());
            backwards.for_each(|((pending, entity), hash)| {
                apply_record(state, segment, frame.offset, pending, entity, *hash)
            });
        }
        state.hashes = hashes;
        let (frame, tag) = segment.last_frame.get();
        state.applied = Position { frame, tag, segment: segment.number(), offset: segment.written.get() };
        let due = state.log_bytes_since_checkpoint >= self.checkpoint_due_bytes(state);
        if due || state.segments.take_sparse() {
            self.signals.maintain.notify();
        }
    }

    /// Makes a segment the one now written; those before it are sealed in the background.
    fn advance_to(&self, segment: &SegmentOf<P>) {
        let passes = || {
            let state = self.state.borrow();
            state.lineage.front().is_some_and(|front| !Rc::ptr_eq(front, segment))
        };
        while passes() {
            self.pass_front();
        }
    }

    /// Ends the segment now written; its footer follows in the background. The commit lock is held.
    pub(super) fn pass_front(&self) {
        let Some(passed) = self.state.borrow_mut().lineage.pop_front() else { return };
        passed.state.set(SegmentState::Sealed);
        // Its footer ends the tail, if nothing else does.
        self.state.borrow_mut().tail_open = false;
        self.signals.prepare.notify();
        if let Some(this) = self.this.upgrade() {
            let job = async move {
                let seal = async {
                    let sealed = this.seal_segment(&passed).await;
                    this.must_have_ended(&passed, &sealed);
                };
                this.run_job(seal).await;
            };
            self.platform.spawn().spawn(TaskClass::Background, job);
        }
    }

    fn fail_commit(&self, reason: String) -> CommitError {
        if !is_on(Sabotage::WriteOnAfterFailure) {
            self.poison(reason.clone());
        }
        CommitError::OutcomeUnknown { reason }
    }

    /// Keeps a frame's memory for the next one.
    pub(super) fn recycle(&self, state: &mut State<P>, frame: FrameBuilder<FileOf<P>>) {
        let memory = frame.into_memory();
        if memory.buffer.capacity() == self.frame_capacity() && state.memories.len() < MEMORIES_KEPT {
            state.memories.push(memory);
        }
    }
}

/// Whether a frame may be bound to a segment; `true` asks the preparation to give up the last spare for it.
fn admit<P: Platform>(state: &State<P>, segment: &SegmentOf<P>, holds_puts: bool) -> Result<bool, Refusal> {
    let no_spare = state.spare.is_none();
    match segment.state.get() {
        SegmentState::OutOfSpace if holds_puts || no_spare => Err(Refusal::OutOfSpace),
        SegmentState::OutOfSpace => {
            segment.last_spare.set(true);
            Ok(true)
        }
        _ if segment.last_spare.get() && holds_puts && no_spare => Err(Refusal::OutOfSpace),
        _ => Ok(false),
    }
}

/// Whether nothing was or will be written to a segment yet, so that it can still grow.
fn is_untouched<F>(segment: &super::segment::Segment<F>) -> bool {
    segment.bound.get() == 0
        && segment.written.get() == SEGMENT_HEADER_BYTES as u64
        && segment.state.get() != SegmentState::Sealed
}

#[inline]
fn apply_record<P: Platform>(
    state: &mut State<P>,
    segment: &SegmentOf<P>,
    offset: u64,
    pending: &Pending,
    entity: EntityRef<'_>,
    hash: u64,
) {
    let place = Place { slot: segment.slot, offset: offset as u32 + pending.offset, length: pending.length };
    let previous = match pending.kind {
        RecordKind::Put => {
            segment.gain(pending.length);
            state.index.put_hashed(hash, entity, pending.version, place)
        }
        RecordKind::Tombstone => {
            segment.add_tombstone(u64::from(pending.length), pending.tombstone_number);
            state.index.remove(entity)
        }
    };
    if let Some(previous) = previous {
        state.segments.lose(previous.place);
    }
}

/// Poisons when a commit is dropped half-way: its write may or may not land.
struct Abandoned<'a, P: Platform>(&'a LogStorage<P>);

impl<P: Platform> Drop for Abandoned<'_, P> {
    fn drop(&mut self) {
        self.0.poison("a commit was abandoned".to_owned());
    }
}
