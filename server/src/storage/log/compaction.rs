//! Maintenance: when a checkpoint is due, and rewriting segments whose space, tombstones or key are of the past.
//!
//! Only segments that the durable checkpoint covers are rewritten. The new segment gets its number first; then every
//! batch sealed before that is awaited, so that a tombstone not seen here carries a number at least as high.

use super::format::BLOCK_BYTES_MAX;
use super::format::record::{RecordContent, RecordHeader, RecordKind};
use super::format::segment::{SEGMENT_HEADER_BYTES, SegmentKind};
use super::index::Place;
use super::manifest::Interrupt;
use super::scan::{Scanner, Step, Window};
use super::segment::SegmentState;
use super::segment_writer::SegmentWriter;
use super::state::{LogStorage, SegmentOf, State};
use crate::limits::SEGMENTS_WITHOUT_CHECKPOINT_MAX;
use crate::runtime::platform::{Platform, Spawn};
use crate::sabotage::{Sabotage, is_on};

/// Tombstones may take one part in so many of the listed bytes.
const TOMBSTONE_SHARE: u64 = 20;
/// Bytes a segment takes besides its records: header, footer and the padding of its last frame.
const SEGMENT_OVERHEAD_BYTES: u64 = (SEGMENT_HEADER_BYTES + 2 * BLOCK_BYTES_MAX) as u64;

/// A record that moved.
struct Moved {
    id: u32,
    version: u64,
    from: Place,
    to: Place,
}

impl<P: Platform> LogStorage<P> {
    /// Does all that is due.
    pub(super) async fn maintain(&self) -> Result<(), Interrupt> {
        let _guard = self.maintenance_lock.lock().await;
        loop {
            self.check_running()?;
            if self.checkpoint_due() || self.checkpoint_would_help() {
                self.write_checkpoint().await?;
            }
            let room = self.room_for_output().await?;
            let victims = self.choose_victims(room);
            if victims.is_empty() {
                return Ok(());
            }
            self.compact(&victims).await?;
            self.update_gauges();
        }
    }

    fn check_running(&self) -> Result<(), Interrupt> {
        if self.closing.get() {
            return Err(Interrupt::Stopped);
        }
        self.state.borrow().check_writable().map_err(|_| Interrupt::Stopped)
    }

    /// On a full disk, while old keys are in use, or when there are many, segments should not have to wait for the next
    /// checkpoint. Many there are when a server is killed again and again: each start begins a new one.
    fn checkpoint_would_help(&self) -> bool {
        let state = self.state.borrow();
        let waiting = state.segments.iter().filter(|segment| is_finished(segment) && !is_covered(&state, segment));
        if waiting.count() > SEGMENTS_WITHOUT_CHECKPOINT_MAX {
            return true;
        }
        let key_id = state.keyring.active().id();
        state.segments.iter().any(|segment| {
            let wanted = (state.out_of_space && segment.is_sparse()) || segment.header.key_id != key_id;
            wanted && is_finished(segment) && !is_covered(&state, segment)
        })
    }

    /// Record bytes that a new segment may take: on a full disk, what is left of it or in the last spare.
    async fn room_for_output(&self) -> Result<u64, Interrupt> {
        let spare_bytes = {
            let state = self.state.borrow();
            if !state.out_of_space {
                return Ok(self.sizes.segment_bytes_max);
            }
            state.spare.as_ref().map_or(0, |spare| spare.bytes)
        };
        let room = spare_bytes.max(self.space_available().await?).min(self.sizes.segment_bytes_max);
        Ok(room.saturating_sub(SEGMENT_OVERHEAD_BYTES))
    }

    /// The segments to rewrite next, into one, or to drop; none when nothing is worth it.
    fn choose_victims(&self, room: u64) -> Vec<SegmentOf<P>> {
        let state = self.state.borrow();
        let mut eligible: Vec<_> = state.segments.iter().filter(|one| is_finished(one)).cloned().collect();
        eligible.retain(|segment| is_covered(&state, segment) && !segment.damaged.get());
        eligible.sort_by_key(|segment| segment.number());
        let weight = |segment: &SegmentOf<P>| kept_bytes(&state, segment);
        let fits = |segment: &&SegmentOf<P>| weight(segment) <= room;
        let key_id = state.keyring.active().id();
        if let Some(old) = eligible.iter().filter(fits).find(|segment| segment.header.key_id != key_id) {
            return vec![old.clone()];
        }
        // What holds nothing that is needed goes without being read.
        let dead: Vec<_> = eligible.iter().filter(|segment| weight(segment) == 0).cloned().collect();
        if !dead.is_empty() {
            return dead;
        }
        let sparse = eligible.iter().filter(|segment| weight(segment) * 2 < segment.capacity.get());
        let mut kept = 0;
        let chosen: Vec<_> = sparse
            .filter(|segment| {
                let fits = kept + weight(segment) <= room;
                kept += if fits { weight(segment) } else { 0 };
                fits
            })
            .cloned()
            .collect();
        let before: u64 = chosen.iter().map(|segment| segment.capacity.get()).sum();
        // Small segments are all overhead: rewriting must at least halve what they take, or it would never end.
        let after = kept + kept / 1024 + SEGMENT_OVERHEAD_BYTES;
        if !chosen.is_empty() && after * 2 < before {
            return chosen;
        }
        let tombstone = choose_for_tombstones(&state, &eligible);
        tombstone.filter(|segment| fits(&segment)).into_iter().collect()
    }

    async fn compact(&self, victims: &[SegmentOf<P>]) -> Result<(), Interrupt> {
        let kept: u64 = victims.iter().map(|victim| kept_bytes(&self.state.borrow(), victim)).sum();
        let mut writer = match kept {
            0 => None,
            kept => Some(self.begin_compacted(kept + kept / 1024 + SEGMENT_OVERHEAD_BYTES).await?),
        };
        let mut result = self.settle().await;
        let numbers: Vec<u32> = victims.iter().map(|victim| victim.number()).collect();
        let oldest_other = self.state.borrow().oldest_listed_except(&numbers);
        let (mut moved, mut gave_up) = (Vec::new(), false);
        // Without a writer nothing in them is needed, and nothing comes alive again in an old segment.
        if let Some(writer) = &mut writer {
            for victim in victims {
                if result.is_ok() {
                    let whole = self.move_records(victim, oldest_other, writer, &mut moved).await;
                    gave_up |= whole == Ok(false);
                    result = whole.map(drop);
                }
            }
        }
        let output = match (writer, result) {
            (Some(writer), Ok(())) if writer.length() > SEGMENT_HEADER_BYTES as u64 => Some(writer.finish(self).await?),
            (writer, result) => {
                if let Some(writer) = writer {
                    writer.abandon(self);
                }
                result?;
                None
            }
        };
        if let Some(output) = output {
            output.listed.set(true);
            match self.publish_manifest(false).await {
                // Another task's manifest found the space, and it lists the output.
                Err(Interrupt::OutOfSpace) if self.manifest_names(&output) => {}
                Err(Interrupt::OutOfSpace) => {
                    output.listed.set(false);
                    self.forget_segment(&output);
                    return Err(Interrupt::OutOfSpace);
                }
                // It may be in force. The output's file must stay what it is.
                published => published?,
            }
            self.install(&output, moved).await;
        }
        // When one has to stay they all do, until the next round: it may hold what tombstones in the others hide, and
        // those were not copied, since all were to go.
        if gave_up {
            return Ok(());
        }
        self.retire(victims).await
    }

    /// Waits until every batch that was sealed before now is durable.
    async fn settle(&self) -> Result<(), Interrupt> {
        // So many commits end after this began: those in flight, and the one that takes the batch now open.
        let commits = self.state.borrow().commits_in_flight + 1;
        for _ in 0..commits {
            let seen = self.signals.committed.epoch();
            if self.state.borrow().is_settled() {
                return Ok(());
            }
            self.check_running()?;
            self.signals.committed.changed(seen).await;
        }
        self.check_running()
    }

    /// Copies what is still needed of one segment; of a damaged one, what lies before the damage. Whether that was all:
    /// the mark on the segment does not tell, for the scrub takes it away when it can read the segment again.
    async fn move_records(
        &self,
        victim: &SegmentOf<P>,
        oldest_other: u32,
        writer: &mut SegmentWriter<P>,
        moved: &mut Vec<Moved>,
    ) -> Result<bool, Interrupt> {
        let (Some(file), Some(end)) = (victim.file.get(), victim.end.get()) else { return Ok(true) };
        let window = Window::new(self.sizes.window_bytes.min(256 << 10));
        let mut scanner = Scanner::new(victim, file.clone(), 0, end.offset, window);
        loop {
            self.check_running()?;
            match scanner.step().await {
                Ok(Step::Frame(_)) => {}
                Ok(Step::End | Step::Footer(_)) => return Ok(true),
                Ok(Step::Invalid(problem)) => {
                    self.give_up_on(victim, scanner.offset(), &problem.to_string());
                    return Ok(false);
                }
                Err(error) => {
                    self.give_up_on(victim, scanner.offset(), &error.to_string());
                    return Ok(false);
                }
            }
            let mut at = None;
            while let Some(record) = scanner.record_at(at) {
                let record = match record {
                    Ok(record) => record,
                    Err((offset, error)) => {
                        self.give_up_on(victim, offset, &error.to_string());
                        return Ok(false);
                    }
                };
                at = record.next();
                let (header, content) = (record.header, record.content);
                let length = header.record_bytes() as u32;
                let from = Place { slot: victim.slot, offset: record.place as u32, length };
                self.move_record(from, &header, content, oldest_other, writer, moved).await?;
                self.platform.spawn().yield_if_due().await;
            }
        }
    }

    async fn move_record(
        &self,
        from: Place,
        header: &RecordHeader,
        content: RecordContent<'_>,
        oldest_other: u32,
        writer: &mut SegmentWriter<P>,
        moved: &mut Vec<Moved>,
    ) -> Result<(), Interrupt> {
        let found = self.state.borrow().index.find_with_id(content.entity);
        let needed = match header.kind {
            RecordKind::Put => found.is_some_and(|(_, found)| found.place == from),
            // Once the entity lives again, its newer version says as much.
            RecordKind::Tombstone if is_on(Sabotage::ForgetTombstone) => false,
            RecordKind::Tombstone => found.is_none() && content.tombstone_number().unwrap_or(u32::MAX) >= oldest_other,
        };
        if !needed {
            return Ok(());
        }
        let to = writer.push(self, header, content).await?;
        if let (RecordKind::Put, Some((id, found))) = (header.kind, found) {
            moved.push(Moved { id, version: found.version, from, to });
        }
        Ok(())
    }

    /// A damaged segment stays as it is: what is intact in it is still read.
    fn give_up_on(&self, victim: &SegmentOf<P>, offset: u64, reason: &str) {
        tracing::error!(file = %victim.path.display(), offset, reason, "a segment is damaged and stays as it is");
        self.figures().open_failures.add(1);
        victim.damaged.set(true);
    }

    /// Lets the index point to where records moved.
    async fn install(&self, output: &SegmentOf<P>, moved: Vec<Moved>) {
        for slice in moved.chunks(256) {
            {
                let mut state = self.state.borrow_mut();
                let state = &mut *state;
                for Moved { id, version, from, to } in slice {
                    if state.index.repoint(*id, *version, *from, *to) {
                        state.segments.lose(*from);
                        state.segments.gain(*to);
                    }
                }
            }
            self.platform.spawn().yield_if_due().await;
        }
        output.installed.set(true);
    }

    /// Unlists segments that nothing points into, and frees their files: all, or none when one has to stay.
    async fn retire(&self, victims: &[SegmentOf<P>]) -> Result<(), Interrupt> {
        for victim in victims.iter().filter(|victim| victim.live_records.get() > 0 && !victim.damaged.get()) {
            self.give_up_on(victim, 0, "it lacks records that the index points to");
        }
        if victims.iter().any(|victim| victim.damaged.get()) {
            return Ok(());
        }
        victims.iter().for_each(|victim| victim.listed.set(false));
        if !is_on(Sabotage::ReuseBeforeUnlisting)
            && let Err(interrupt) = self.publish_manifest(false).await
        {
            victims.iter().for_each(|victim| victim.listed.set(true));
            return Err(interrupt);
        }
        for victim in victims {
            let reusable = victim.end.get().is_some_and(|end| end.footer);
            let removed = self.state.borrow_mut().segments.remove(victim.slot);
            let Some(removed) = removed else { continue };
            if !reusable {
                // A killed process's last write may still land in a segment that was recovered.
                removed.capacity.set(u64::MAX);
            }
            self.state.borrow_mut().retired.push(removed);
        }
        self.figures().compactions.add(1);
        self.signals.prepare.notify();
        Ok(())
    }
}

/// Whether a segment is listed and ended.
fn is_finished<F>(segment: &std::rc::Rc<super::segment::Segment<F>>) -> bool {
    segment.listed.get() && segment.state.get() == SegmentState::Sealed && segment.end.get().is_some()
}

/// Whether the durable checkpoint covers all of a segment.
fn is_covered<P: Platform>(state: &State<P>, segment: &SegmentOf<P>) -> bool {
    let Some(checkpoint) = state.checkpoint.as_ref().filter(|_| !state.checkpoint_damaged) else { return false };
    match segment.header.kind {
        SegmentKind::Compacted => segment.checkpointed.get() && segment.installed.get(),
        SegmentKind::Commit => {
            let end = segment.end.get().map_or(u64::MAX, |end| end.offset);
            segment.number() < checkpoint.segment
                || (segment.number() == checkpoint.segment && end <= checkpoint.offset)
        }
    }
}

/// Bytes of a segment that rewriting it would copy: live records, and tombstones that may still be needed.
fn kept_bytes<P: Platform>(state: &State<P>, segment: &SegmentOf<P>) -> u64 {
    let tombstones = segment.tombstones.get();
    let needed = tombstones.count > 0 && tombstones.number_max >= state.oldest_listed_except(&[segment.number()]);
    segment.live_bytes.get() + if needed { tombstones.bytes } else { 0 }
}

/// While tombstones take too much: a segment in which some can go, or the oldest, whose age keeps others.
fn choose_for_tombstones<P: Platform>(state: &State<P>, eligible: &[SegmentOf<P>]) -> Option<SegmentOf<P>> {
    let listed = || state.segments.iter().filter(|segment| segment.listed.get());
    let tombstone_bytes: u64 = listed().map(|segment| segment.tombstones.get().bytes).sum();
    let all_bytes: u64 = listed().map(|segment| segment.capacity.get()).sum();
    if tombstone_bytes * TOMBSTONE_SHARE <= all_bytes {
        return None;
    }
    let droppable = eligible.iter().find(|segment| {
        let tombstones = segment.tombstones.get();
        tombstones.count > 0 && tombstones.number_min < state.oldest_listed_except(&[segment.number()])
    });
    let number_max = listed().map(|segment| segment.tombstones.get().number_max).max().unwrap_or(0);
    let oldest = state.oldest_listed_except(&[]);
    let oldest = eligible.iter().find(|segment| segment.number() == oldest && oldest <= number_max);
    droppable.or(oldest).cloned()
}
