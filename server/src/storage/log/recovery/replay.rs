//! Replaying the log: which records count, where it ends, and what is damage.

use super::Recovery;
use crate::runtime::platform::Platform;
use crate::storage::log::format::FormatError;
use crate::storage::log::format::Tag;
use crate::storage::log::format::frame::{FrameHeader, FrameProblem};
use crate::storage::log::format::manifest::SegmentEnd;
use crate::storage::log::format::record::RecordKind;
use crate::storage::log::format::segment::{SegmentFooter, SegmentKind};
use crate::storage::log::index::{Place, Replayed, WARM_TOGETHER};
use crate::storage::log::scan::{OpenedRecord, Scanner, Step, Window};
use crate::storage::log::segment::Segment;
use crate::storage::log::state::{FileOf, Position, SegmentOf, State};
use crate::storage::log::{OpenError, OpenReport};

/// How the frames of a segment must follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chain {
    number: u64,
    tag: Tag,
    /// Whether the next frame must be the one behind this.
    strict: bool,
}

/// What is done with the frames of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Records create, change and delete entries.
    Replay,
    /// Records point entries of their version to themselves.
    Repoint,
    /// Nothing: they are only verified.
    Verify,
}

impl<P: Platform> Recovery<'_, P> {
    /// Walks whatever the checkpoint does not cover, and the newest of what it does.
    pub async fn replay(&mut self) -> Result<(), OpenError> {
        let position = self.checkpoint_position();
        let mut window = Window::new(self.options.sizes.window_bytes);
        let mut chain = Chain { number: position.frame, tag: position.tag, strict: true };
        self.state.applied = position;
        // Without its checkpoint, gaps are where covered segments were compacted away.
        let gaps_until = match &self.manifest.checkpoint {
            Some(reference) if !self.from_checkpoint => reference.segment,
            _ => 0,
        };
        let mut covered = Vec::new();
        for segment in self.segments_of(SegmentKind::Commit) {
            let number = segment.number();
            let at_end =
                segment.end.get().is_some_and(|end| number == position.segment && end.offset <= position.offset);
            if number < position.segment || at_end {
                if segment.end.get().is_none() {
                    self.damage(&segment.path, 0, "the manifest lacks its end, though a checkpoint covers it")?;
                }
                covered.push(segment);
                continue;
            }
            chain.strict = number > gaps_until;
            if let Some(reference) = self.manifest.checkpoint.as_ref()
                && chain.strict
                && chain.number < reference.frame
            {
                (chain.number, chain.tag) = (reference.frame, reference.frame_tag);
            }
            let from = if number == position.segment { position.offset } else { 0 };
            window = self.walk(&segment, from, &mut chain, Purpose::Replay, window).await?;
        }
        // What a lost checkpoint covered is scanned whole, and the log's segments that held it may all be gone: the next
        // frame follows the one that the manifest names.
        if let Some(covered_to) = self.manifest.checkpoint.as_ref().map(Position::of) {
            if chain.number < covered_to.frame {
                (chain.number, chain.tag) = (covered_to.frame, covered_to.tag);
            }
            if self.state.applied.frame < covered_to.frame {
                self.state.applied = covered_to;
            }
        }
        self.state.chain = (chain.number, chain.tag);
        for segment in self.segments_of(SegmentKind::Compacted) {
            let purpose = if !self.from_checkpoint {
                Purpose::Replay
            } else if !segment.checkpointed.get() {
                Purpose::Repoint
            } else {
                covered.push(segment);
                continue;
            };
            let mut chain = Chain { number: 0, tag: [0; 16], strict: true };
            window = self.walk(&segment, 0, &mut chain, purpose, window).await?;
        }
        self.verify_covered(covered, window).await
    }

    /// Verifies the newest covered segments, within bounds: their records are read only when asked for, and damage
    /// between records would not be seen then.
    async fn verify_covered(&mut self, mut covered: Vec<SegmentOf<P>>, mut window: Window) -> Result<(), OpenError> {
        covered.sort_by_key(|segment| std::cmp::Reverse(segment.number()));
        let mut left = self.options.sizes.verify_at_open_bytes;
        for segment in covered {
            let Some(rest) = left.checked_sub(segment.capacity.get()) else { break };
            left = rest;
            let mut chain = Chain { number: 0, tag: [0; 16], strict: segment.header.kind == SegmentKind::Compacted };
            window = self.walk(&segment, 0, &mut chain, Purpose::Verify, window).await?;
        }
        Ok(())
    }

    /// Walks one segment to its end.
    async fn walk(
        &mut self,
        segment: &SegmentOf<P>,
        from: u64,
        chain: &mut Chain,
        purpose: Purpose,
        window: Window,
    ) -> Result<Window, OpenError> {
        let Some(file) = segment.file.get().cloned() else { return Ok(window) };
        let end = segment.end.get();
        let limit = match end {
            Some(end) if end.footer => end.offset + segment.block_bytes.get() as u64,
            Some(end) => end.offset,
            None => segment.capacity.get(),
        };
        if from > 0 && end.is_none() {
            segment.last_frame.set((chain.number, chain.tag));
        }
        let mut scanner = Scanner::new(segment, file, from, limit, window);
        let begin = scanner.offset();
        loop {
            let offset = scanner.offset();
            let step = scanner.step().await.map_err(super::io_error("read", &segment.path))?;
            match step {
                Step::Frame(header) => self.frame(segment, offset, &header, chain, purpose, &mut scanner)?,
                Step::Footer(footer) => {
                    self.footer(segment, offset, begin == offset || from > 0, &footer, chain)?;
                    break;
                }
                Step::End => {
                    self.unsealed_end(segment, end, chain)?;
                    break;
                }
                Step::Invalid(problem) => {
                    if !self.invalid(segment, end, &problem, &mut scanner).await? {
                        break;
                    }
                    chain.strict = false;
                }
            }
        }
        if purpose != Purpose::Verify && end.is_none() && segment.end.get().is_none() {
            segment.written.set(scanner.offset());
        }
        self.report.bytes_walked += scanner.offset() - begin;
        Ok(scanner.into_window())
    }

    /// A true frame: it must be the next one, and its records count.
    fn frame(
        &mut self,
        segment: &SegmentOf<P>,
        offset: u64,
        header: &FrameHeader,
        chain: &mut Chain,
        purpose: Purpose,
        scanner: &mut Scanner<'_, FileOf<P>>,
    ) -> Result<(), OpenError> {
        let follows = header.number == chain.number + 1 && header.previous_tag == chain.tag;
        let rises = header.number > chain.number;
        if (chain.strict && !follows) || !rises {
            let expected = chain.number + 1;
            let reason = format!("frame {} does not follow the one before: frame {expected} is missing", header.number);
            self.damage(&segment.path, offset, reason)?;
        }
        *chain = Chain { number: header.number, tag: header.tag, strict: true };
        segment.frames.set(segment.frames.get() + 1);
        segment.records.set(segment.records.get() + u64::from(header.records));
        if purpose == Purpose::Verify {
            return Ok(());
        }
        segment.last_frame.set((header.number, header.tag));
        let replayed = self.records(segment, purpose, scanner);
        if let Err((offset, error)) = replayed {
            self.damage(&segment.path, offset, error.to_string())?;
        }
        self.report.frames_replayed += 1;
        if segment.header.kind == SegmentKind::Commit {
            let end = scanner.offset();
            let position = Position { frame: header.number, tag: header.tag, segment: segment.number(), offset: end };
            self.state.applied = position;
            self.state.log_bytes_since_checkpoint += end - offset;
            if header.records > 0 {
                self.version_max = self.version_max.max(header.first_sequence + u64::from(header.records) - 1);
            }
        }
        Ok(())
    }

    fn records(
        &mut self,
        segment: &SegmentOf<P>,
        purpose: Purpose,
        scanner: &mut Scanner<'_, FileOf<P>>,
    ) -> Result<(), (u64, FormatError)> {
        let Self { state, report, version_max, .. } = self;
        let mut hashes = std::mem::take(&mut state.hashes);
        let replayed = scanner.records(WARM_TOGETHER, |records| {
            hashes.clear();
            hashes.extend(records.iter().map(|record| state.index.hash(record.content.entity)));
            state.index.warm(&hashes);
            for record in records {
                *version_max = (*version_max).max(record.header.sequence);
                apply(state, report, segment, purpose, record).map_err(|error| (record.place, error))?;
            }
            Ok(())
        });
        state.hashes = hashes;
        replayed
    }

    /// A footer: its totals must be what was seen.
    fn footer(
        &mut self,
        segment: &SegmentOf<P>,
        offset: u64,
        partly: bool,
        footer: &SegmentFooter,
        chain: &Chain,
    ) -> Result<(), OpenError> {
        let counted = footer.frames == segment.frames.get() && footer.records == segment.records.get();
        let last = footer.last_frame == chain.number && footer.last_tag == chain.tag;
        let listed = segment.end.get().is_none_or(|end| {
            end.offset == offset && end.last_frame == footer.last_frame && end.last_tag == footer.last_tag
        });
        let empty_part = partly && segment.frames.get() == 0;
        if !listed || (!partly && !counted) || !(last || empty_part) {
            self.damage(&segment.path, offset, "the footer tells of other frames than there are")?;
        }
        if segment.end.get().is_none() {
            let SegmentFooter { last_frame, last_tag, .. } = *footer;
            segment.written.set(offset);
            segment.last_frame.set((last_frame, last_tag));
            segment.frames.set(footer.frames);
            // The crash came before the manifest told of the end, and perhaps before the file was cut behind the footer:
            // it is a recovered segment like any other, and what lies behind its last frame counts for nothing.
            segment.end.set(Some(SegmentEnd { offset, footer: false, last_frame, last_tag }));
        }
        Ok(())
    }

    /// The end of what there is to read, without a footer.
    fn unsealed_end(
        &mut self,
        segment: &SegmentOf<P>,
        end: Option<SegmentEnd>,
        chain: &Chain,
    ) -> Result<(), OpenError> {
        let Some(end) = end else { return Ok(()) };
        let last = end.last_frame == chain.number && end.last_tag == chain.tag;
        if end.footer || (!last && segment.frames.get() > 0) {
            self.damage(&segment.path, end.offset, "it ends otherwise than the manifest says")?;
        }
        Ok(())
    }

    /// Neither frame nor footer: the end of the log, or damage. Returns whether to go on behind it (salvage).
    async fn invalid(
        &mut self,
        segment: &Segment<FileOf<P>>,
        end: Option<SegmentEnd>,
        problem: &FrameProblem,
        scanner: &mut Scanner<'_, FileOf<P>>,
    ) -> Result<bool, OpenError> {
        let offset = scanner.offset();
        let found = scanner.skip_to_next().await.map_err(super::io_error("read", &segment.path))?;
        let forged = matches!(problem, FrameProblem::Forged(_));
        if end.is_none() && !found && !forged {
            return Ok(false);
        }
        let what = if found { "but a later frame is there" } else { "though the log goes on there" };
        self.damage(&segment.path, offset, format!("{problem}, {what}"))?;
        Ok(found)
    }
}

/// Applies one record to the index and the counts.
fn apply<P: Platform>(
    state: &mut State<P>,
    report: &mut OpenReport,
    segment: &SegmentOf<P>,
    purpose: Purpose,
    record: &OpenedRecord<'_>,
) -> Result<(), FormatError> {
    let OpenedRecord { place, header, content } = record;
    let length = header.record_bytes() as u32;
    let place = Place { slot: segment.slot, offset: *place as u32, length };
    report.records_replayed += 1;
    let replayed = match header.kind {
        RecordKind::Put => {
            let creates = purpose == Purpose::Replay;
            let replayed = state.index.replay_put(content.entity, header.sequence, place, creates);
            if replayed != Replayed::Ignored {
                state.segments.gain(place);
            }
            replayed
        }
        RecordKind::Tombstone => {
            segment.add_tombstone(u64::from(length), content.tombstone_number()?);
            if purpose == Purpose::Repoint {
                return Ok(());
            }
            state.index.replay_delete(content.entity, header.sequence)
        }
    };
    if let Replayed::Applied(Some(previous)) = replayed {
        state.segments.lose(previous);
    }
    Ok(())
}
