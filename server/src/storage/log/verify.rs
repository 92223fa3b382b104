//! Verifying segments byte by byte: header, frames, padding, records, footer and length, piece by piece.
//!
//! Whoever drives it decides how fast, and what damage means. It reads the files, not what memory knows of them, and
//! changes nothing. A place that is damaged does not end it: it goes on behind the next frame that is whole.

use super::Damage;
use super::device::read_whole_range;
use super::format::Tag;
use super::format::frame::FrameHeader;
use super::format::manifest::SegmentEnd;
use super::format::record::RecordKind;
use super::format::segment::{SEGMENT_HEADER_BYTES, SegmentFooter, SegmentHeader};
use super::index::Place;
use super::scan::{Scanner, Step, Window};
use super::segment::Segment;
use super::state::{FileOf, LogStorage, SegmentOf};
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{DiskFile, Platform, Spawn};

/// One segment under verification.
pub struct SegmentCheck<P: Platform> {
    /// Pinned until the check is over.
    pub segment: SegmentOf<P>,
    /// What was whole so far.
    pub seen: Seen,
    offset: u64,
    limit: u64,
    end: Option<SegmentEnd>,
    previous: Option<(u64, Tag)>,
    begun: bool,
    damaged: bool,
}

/// What a check went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes read.
    pub bytes: u64,
    /// Whole frames.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Records that the index points to.
    pub live_records: u64,
}

impl<P: Platform> SegmentCheck<P> {
    /// Of all that is durable in the segment now.
    pub fn new(segment: SegmentOf<P>) -> Self {
        let end = segment.end.get();
        let footer_bytes = if end.is_some_and(|end| end.footer) { segment.block_bytes.get() as u64 } else { 0 };
        Self {
            limit: end.map_or(segment.written.get(), |end| end.offset + footer_bytes),
            seen: Seen::default(),
            offset: SEGMENT_HEADER_BYTES as u64,
            end,
            previous: None,
            begun: false,
            damaged: false,
            segment,
        }
    }

    /// Whether no damage was found so far.
    pub fn is_sound(&self) -> bool {
        !self.damaged
    }

    fn note(&mut self, damage: &mut Vec<Damage>, offset: u64, reason: impl Into<String>) {
        self.damaged = true;
        damage.push(Damage { file: self.segment.path.clone(), offset, reason: reason.into() });
    }

    fn frame(&mut self, damage: &mut Vec<Damage>, offset: u64, header: &FrameHeader) {
        let follows =
            self.previous.is_none_or(|(number, tag)| header.number == number + 1 && header.previous_tag == tag);
        if !follows {
            self.note(damage, offset, format!("frame {} does not follow the one before", header.number));
        }
        self.previous = Some((header.number, header.tag));
        self.seen.frames += 1;
        self.seen.records += u64::from(header.records);
    }

    fn footer(&mut self, damage: &mut Vec<Damage>, offset: u64, footer: &SegmentFooter) {
        let last = Some((footer.last_frame, footer.last_tag));
        let listed = self
            .end
            .is_some_and(|end| end.footer && end.offset == offset && Some((end.last_frame, end.last_tag)) == last);
        let counted = footer.frames == self.seen.frames && footer.records == self.seen.records;
        // Behind damage the counts cannot be right.
        let fits = self.damaged || (counted && self.previous == last);
        if !listed || !fits {
            self.note(damage, offset, "the footer tells of other frames than there are");
        }
    }

    fn end(&mut self, damage: &mut Vec<Damage>, offset: u64) {
        match self.end {
            Some(end) if end.footer => self.note(damage, offset, "its footer is missing"),
            Some(end) if !self.damaged && self.previous != Some((end.last_frame, end.last_tag)) => {
                self.note(damage, offset, "it ends otherwise than the manifest says");
            }
            _ => {}
        }
    }
}

impl<P: Platform> LogStorage<P> {
    /// Reads and authenticates every frame and record of every listed segment; returns all damage. The shard must not
    /// be written meanwhile.
    pub async fn check_segments(&self) -> Vec<Damage> {
        self.check_listed().await.1
    }

    /// The same, with what was seen.
    pub(super) async fn check_listed(&self) -> (Seen, Vec<Damage>) {
        let (mut total, mut damage) = (Seen::default(), Vec::new());
        let mut window = Window::new(self.sizes.window_bytes);
        let listed = self.state.borrow().segments.listed();
        for segment in listed {
            let mut check = SegmentCheck::new(segment);
            loop {
                let done;
                (window, done) = self.check_piece(&mut check, window, u64::MAX, &mut damage).await;
                if done {
                    break;
                }
            }
            let live = check.segment.live_records.get();
            if !check.damaged && check.seen.live_records != live {
                let reason = format!("it holds {} of the {live} records it should", check.seen.live_records);
                check.note(&mut damage, 0, reason);
            }
            total.bytes += check.seen.bytes;
            total.frames += check.seen.frames;
            total.records += check.seen.records;
            total.live_records += check.seen.live_records;
        }
        (total, damage)
    }

    /// Goes on for about so many bytes, reading through the window; says whether the segment is done. Damage is added.
    pub(super) async fn check_piece(
        &self,
        check: &mut SegmentCheck<P>,
        window: Window,
        bytes: u64,
        damage: &mut Vec<Damage>,
    ) -> (Window, bool) {
        let segment = check.segment.clone();
        let Some(file) = segment.file.get().cloned() else {
            check.note(damage, 0, "it is not open");
            return (window, true);
        };
        if !std::mem::replace(&mut check.begun, true) {
            check.seen.bytes += SEGMENT_HEADER_BYTES as u64;
            if let Err(reason) = self.check_header(&segment, &file).await {
                check.note(damage, 0, reason);
            }
        }
        let begin = check.offset;
        let mut scanner = Scanner::new(&segment, file.clone(), begin, check.limit, window);
        let done = loop {
            let offset = scanner.offset();
            if offset - begin >= bytes {
                break false;
            }
            match scanner.step().await {
                Ok(Step::Frame(header)) => {
                    check.frame(damage, offset, &header);
                    if let Err((offset, reason)) = self.check_records(&segment, &mut scanner, &mut check.seen).await {
                        check.note(damage, offset, reason);
                    }
                }
                Ok(Step::Footer(footer)) => {
                    check.footer(damage, offset, &footer);
                    break true;
                }
                Ok(Step::End) => {
                    check.end(damage, offset);
                    break true;
                }
                Ok(Step::Invalid(problem)) => {
                    check.note(damage, offset, problem.to_string());
                    check.previous = None;
                    match scanner.skip_to_next().await {
                        Ok(true) => {}
                        Ok(false) => break true,
                        Err(error) => {
                            check.note(damage, offset, error.to_string());
                            break true;
                        }
                    }
                }
                Err(error) => {
                    check.note(damage, offset, error.to_string());
                    break true;
                }
            }
        };
        check.offset = scanner.offset();
        check.seen.bytes += check.offset - begin;
        if done && let Err((offset, reason)) = check_length(&segment, check.end, &file).await {
            check.note(damage, offset, reason);
        }
        (scanner.into_window(), done)
    }

    /// The header as it lies in the file must be the one in memory.
    async fn check_header(&self, segment: &Segment<FileOf<P>>, file: &FileOf<P>) -> Result<(), String> {
        let (count, block) = read_whole_range(file, 0, AlignedBuffer::zeroed(SEGMENT_HEADER_BYTES)).await;
        let block = &block[..count.map_err(|error| error.to_string())?];
        let found = SegmentHeader::parse(block, &self.identity).map_err(|error| error.to_string())?;
        SegmentHeader::verify(block, &segment.key).map_err(|error| error.to_string())?;
        let expected = SegmentHeader { block_bytes: segment.block_bytes.get() as u32, ..segment.header };
        if found == expected { Ok(()) } else { Err("it is not the segment that the manifest lists".to_owned()) }
    }

    /// Opens every record of the frame handed out last.
    async fn check_records(
        &self,
        segment: &Segment<FileOf<P>>,
        scanner: &mut Scanner<'_, FileOf<P>>,
        seen: &mut Seen,
    ) -> Result<(), (u64, String)> {
        let mut at = None;
        while let Some(record) = scanner.record_at(at) {
            let record = record.map_err(|(offset, error)| (offset, error.to_string()))?;
            at = record.next();
            let length = record.header.record_bytes() as u32;
            let here = Place { slot: segment.slot, offset: record.place as u32, length };
            let found = self.state.borrow().index.find(record.content.entity).filter(|found| found.place == here);
            if let Some(found) = found {
                if record.header.kind != RecordKind::Put || found.version != record.header.sequence {
                    return Err((record.place, "the index takes it for another version".to_owned()));
                }
                seen.live_records += 1;
            }
            self.platform.spawn().yield_if_due().await;
        }
        Ok(())
    }
}

/// Nothing follows a footer, and nothing that counts is cut off.
async fn check_length<F: DiskFile>(
    segment: &Segment<F>,
    end: Option<SegmentEnd>,
    file: &F,
) -> Result<(), (u64, String)> {
    let size = file.size().await.map_err(|error| (0, error.to_string()))?;
    let block = segment.block_bytes.get() as u64;
    match end {
        Some(end) if end.footer && size > end.offset + block => {
            Err((end.offset + block, format!("{} bytes follow its end", size - end.offset - block)))
        }
        Some(end) if size < end.offset => Err((size, "it is shorter than the manifest says".to_owned())),
        _ => Ok(()),
    }
}
