//! Reading a segment from end to end, frame by frame, each verified before it is handed out.
//!
//! The scanner decides what is a frame; whoever drives it decides what a bad one means.

use super::device::read_whole_range;
use super::format::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameProblem, FrameTags, parse_frame, verify_frame};
use super::format::record::{RecordContent, RecordHeader, open_record, parse_record};
use super::format::segment::{FOOTER_MAGIC, SEGMENT_HEADER_BYTES, SegmentFooter};
use super::format::{BLOCK_BYTES_MAX, Binding, FormatError, NONCE_BYTES};
use super::segment::Segment;
use crate::crypto::seal::SealingKey;
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::DiskFile;
use futures_lite::future::{poll_once, yield_now};
use std::future::{Future, ready};
use std::io;
use std::pin::Pin;

/// What lies at the scanner's offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A true frame; its records can be opened until the next step.
    Frame(FrameHeader),
    /// The footer: nothing follows.
    Footer(SegmentFooter),
    /// Neither; the scanner stays where it is.
    Invalid(FrameProblem),
    /// The limit is reached.
    End,
}

/// One record of a frame.
pub struct OpenedRecord<'a> {
    /// Its offset in the segment.
    pub place: u64,
    /// Its clear header.
    pub header: RecordHeader,
    /// What it holds.
    pub content: RecordContent<'a>,
}

impl OpenedRecord<'_> {
    /// Where the next one begins.
    pub fn next(&self) -> Option<u64> {
        Some(self.place + self.header.record_bytes() as u64)
    }
}

/// Walks one segment.
pub struct Scanner<'a, F> {
    segment: &'a Segment<F>,
    file: F,
    /// Where the next frame should begin.
    offset: u64,
    /// Nothing is read at or behind this.
    limit: u64,
    window: Window,
    tags: FrameTags,
    /// The frame handed out last.
    frame: (u64, usize),
}

/// A piece of the file in memory. While it is looked at, the piece behind it is being read.
pub struct Window {
    buffer: Option<AlignedBuffer>,
    at: u64,
    filled: usize,
    bytes: usize,
    ahead: Option<Ahead>,
    reads_ahead: bool,
    /// Buffers out of use.
    spare: Vec<AlignedBuffer>,
}

type Reading = Pin<Box<dyn Future<Output = (io::Result<usize>, AlignedBuffer)>>>;

/// A read under way of what follows the window.
struct Ahead {
    at: u64,
    reading: Reading,
}

impl Window {
    /// Reads so many bytes at a time, at least.
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.next_multiple_of(BLOCK_BYTES_MAX);
        Self { buffer: None, at: 0, filled: 0, bytes, ahead: None, reads_ahead: true, spare: Vec::new() }
    }

    /// The same, for who rests between two windows: nothing is read before it is asked for.
    pub fn unhurried(bytes: usize) -> Self {
        Self { reads_ahead: false, ..Self::new(bytes) }
    }

    fn reset(&mut self) {
        self.filled = 0;
        self.ahead = None;
    }

    /// Makes `offset..offset + need` available, as far as the limit and the file allow.
    async fn fill<F: DiskFile>(&mut self, file: &F, offset: u64, need: usize, limit: u64) -> io::Result<()> {
        let end = (offset + need as u64).min(limit);
        if self.holds(offset, end) {
            return Ok(());
        }
        if self.take_ahead(file, offset, limit).await? && self.holds(offset, end) {
            return self.read_ahead(file, limit).await;
        }
        let at = offset - offset % file.alignment().max(1) as u64;
        let wanted = ((end.saturating_sub(at)) as usize).max(self.bytes.min((limit - at) as usize));
        let wanted = wanted.next_multiple_of(BLOCK_BYTES_MAX);
        let present = self.buffer.take();
        self.put_buffer(present);
        let buffer = self.take_buffer(wanted);
        let (result, buffer) = read_whole_range(file, at, buffer).await;
        self.buffer = Some(buffer);
        (self.at, self.filled) = (at, 0);
        self.filled = result?.min((limit - at) as usize);
        self.read_ahead(file, limit).await
    }

    /// A buffer of this length; its content is whatever was in it.
    fn take_buffer(&mut self, len: usize) -> AlignedBuffer {
        let fitting = self.spare.iter().position(|buffer| buffer.capacity() >= len);
        let mut buffer = match fitting {
            Some(position) => self.spare.swap_remove(position),
            // With room for the frame that lies across the end of a window.
            None if len >= self.bytes => AlignedBuffer::zeroed(len.max(self.bytes + self.bytes / 4)),
            None => AlignedBuffer::zeroed(len),
        };
        buffer.set_len(len);
        buffer
    }

    /// Keeps a buffer for reuse: one is read into and one is joined into while the third is looked at.
    fn put_buffer(&mut self, buffer: Option<AlignedBuffer>) {
        self.spare.extend(buffer);
        if self.spare.len() > 2 {
            self.spare.remove(0);
        }
    }

    fn holds(&self, offset: u64, end: u64) -> bool {
        self.at <= offset && end <= self.at + self.filled as u64
    }

    /// Begins to read what follows, if the window was filled and anything does.
    async fn read_ahead<F: DiskFile>(&mut self, file: &F, limit: u64) -> io::Result<()> {
        let at = self.at + self.filled as u64;
        if !self.reads_ahead || at >= limit || self.filled < self.bytes || !at.is_multiple_of(BLOCK_BYTES_MAX as u64) {
            return Ok(());
        }
        let bytes = self.bytes.min((limit - at) as usize).next_multiple_of(BLOCK_BYTES_MAX);
        let mut reading: Reading = Box::pin(file.read_at(at, self.take_buffer(bytes)));
        if let Some(read) = poll_once(&mut reading).await {
            reading = Box::pin(ready(read));
        }
        self.ahead = Some(Ahead { at, reading });
        // Whoever drives the shard's I/O hands it to the system now, before the window's frames are worked through.
        yield_now().await;
        Ok(())
    }

    /// Goes on to the piece read ahead, and keeps what lies at the offset or behind it of the present one. False when
    /// there is none that follows; a short one is as good as none.
    async fn take_ahead<F: DiskFile>(&mut self, file: &F, offset: u64, limit: u64) -> io::Result<bool> {
        let Some(Ahead { at, reading }) = self.ahead.take() else { return Ok(false) };
        let start = offset - offset % file.alignment().max(1) as u64;
        let follows = at == self.at + self.filled as u64 && (self.at..=at).contains(&start);
        let (result, next) = reading.await;
        let wanted = self.bytes.min((limit - at) as usize);
        if !follows || result? < wanted {
            return Ok(false);
        }
        let kept = (at - start) as usize;
        let present = self.buffer.take();
        if kept == 0 {
            self.buffer = Some(next);
        } else if let Some(present) = &present {
            let mut joined = self.take_buffer((kept + next.len()).next_multiple_of(BLOCK_BYTES_MAX));
            joined[..kept].copy_from_slice(&present[self.filled - kept..self.filled]);
            joined[kept..kept + next.len()].copy_from_slice(&next);
            self.buffer = Some(joined);
            self.put_buffer(Some(next));
        }
        self.put_buffer(present);
        (self.at, self.filled) = (start, kept + wanted);
        Ok(true)
    }

    fn bytes(&mut self, offset: u64, len: usize) -> &mut [u8] {
        let from = (offset.saturating_sub(self.at) as usize).min(self.filled);
        let to = (from + len).min(self.filled);
        self.buffer.as_mut().map_or(&mut [], |buffer| &mut buffer[from..to])
    }
}

impl<'a, F: DiskFile> Scanner<'a, F> {
    /// From `offset` (0: behind the header) up to `limit`; takes a window to read through.
    pub fn new(segment: &'a Segment<F>, file: F, offset: u64, limit: u64, mut window: Window) -> Self {
        window.reset();
        let offset = offset.max(SEGMENT_HEADER_BYTES as u64);
        Self { segment, file, offset, limit, window, tags: FrameTags::new(), frame: (0, 0) }
    }

    /// Where the next frame should begin.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Gives the window back.
    pub fn into_window(self) -> Window {
        self.window
    }

    /// Looks at what lies at the offset; moves behind it when it is a frame.
    pub async fn step(&mut self) -> io::Result<Step> {
        if self.offset >= self.limit {
            return Ok(Step::End);
        }
        self.window.fill(&self.file, self.offset, self.block(), self.limit).await?;
        let block = self.block();
        let head = self.window.bytes(self.offset, block);
        if head.len() < block {
            return Ok(Step::Invalid(FrameProblem::Torn));
        }
        if head.starts_with(FOOTER_MAGIC) {
            let (id, key, binding) = (&self.segment.header.id, &self.segment.key, &self.segment.binding);
            return Ok(match SegmentFooter::open(head, self.offset, id, key, binding) {
                Ok(footer) => Step::Footer(footer),
                Err(FormatError::Foreign(_)) => Step::Invalid(FrameProblem::Absent),
                Err(_) => Step::Invalid(FrameProblem::Torn),
            });
        }
        let header = match parse_frame(head, &self.segment.header.id) {
            Ok(header) => header,
            Err(problem) => return Ok(Step::Invalid(problem)),
        };
        match self.verify(self.offset, &header).await? {
            Ok(bytes) => {
                self.frame = (self.offset, header.length as usize);
                self.offset += bytes as u64;
                Ok(Step::Frame(header))
            }
            Err(problem) => Ok(Step::Invalid(problem)),
        }
    }

    /// Looks for a true frame or footer behind the offset, and moves to it.
    pub async fn skip_to_next(&mut self) -> io::Result<bool> {
        let mut offset = self.offset + self.block() as u64;
        while offset < self.limit {
            self.window.fill(&self.file, offset, self.block(), self.limit).await?;
            let head = self.window.bytes(offset, self.block());
            let found = if head.starts_with(FOOTER_MAGIC) {
                let (id, key, binding) = (&self.segment.header.id, &self.segment.key, &self.segment.binding);
                SegmentFooter::open(head, offset, id, key, binding).is_ok()
            } else if head.starts_with(b"DFRM") {
                match parse_frame(head, &self.segment.header.id) {
                    Ok(header) => self.verify(offset, &header).await?.is_ok(),
                    Err(_) => false,
                }
            } else {
                false
            };
            if found {
                self.offset = offset;
                return Ok(true);
            }
            offset += self.block() as u64;
        }
        Ok(false)
    }

    /// Opens the records of the frame handed out last, and shows them in order, so many at a time. Ends after the first
    /// that cannot be opened.
    pub fn records(
        &mut self,
        together: usize,
        mut visit: impl FnMut(&[OpenedRecord<'_>]) -> Result<(), (u64, FormatError)>,
    ) -> Result<(), (u64, FormatError)> {
        let (offset, length) = self.frame;
        let (key, binding) = (&self.segment.key, &self.segment.binding);
        let mut place = offset + FRAME_HEADER_BYTES as u64;
        let mut rest = self.window.bytes(offset, length).get_mut(FRAME_HEADER_BYTES..).unwrap_or(&mut []);
        let mut opened = Vec::with_capacity(together);
        while !rest.is_empty() {
            let (header, content, behind) = match open_first(std::mem::take(&mut rest), key, binding) {
                Ok(first) => first,
                Err(error) => {
                    visit(&opened)?;
                    return Err((place, error));
                }
            };
            rest = behind;
            opened.push(OpenedRecord { place, header, content });
            place += header.record_bytes() as u64;
            if opened.len() == together {
                visit(&opened)?;
                opened.clear();
            }
        }
        visit(&opened)
    }

    /// One record of the frame handed out last. Lets a caller that must yield take the records one by one: begin with
    /// `None`, go on with [`OpenedRecord::next`].
    pub fn record_at(&mut self, place: Option<u64>) -> Option<Result<OpenedRecord<'_>, (u64, FormatError)>> {
        let (offset, length) = self.frame;
        let place = place.unwrap_or(offset + FRAME_HEADER_BYTES as u64);
        if place >= offset + length as u64 {
            return None;
        }
        let record = self.window.bytes(place, (offset + length as u64 - place) as usize);
        Some(match open_record(record, &self.segment.key, &self.segment.binding) {
            Ok((header, content)) => Ok(OpenedRecord { place, header, content }),
            Err(error) => Err((place, error)),
        })
    }

    fn block(&self) -> usize {
        self.segment.block_bytes.get()
    }

    /// Verifies the frame at an offset; returns the bytes it takes, padding included.
    async fn verify(&mut self, offset: u64, header: &FrameHeader) -> io::Result<Result<usize, FrameProblem>> {
        let padded = (header.length as usize).next_multiple_of(self.block());
        if offset + padded as u64 > self.limit {
            return Ok(Err(FrameProblem::Torn));
        }
        self.window.fill(&self.file, offset, padded, self.limit).await?;
        let bytes = self.window.bytes(offset, padded);
        if bytes.len() < padded {
            return Ok(Err(FrameProblem::Torn));
        }
        let segment = self.segment;
        let (kind, key, binding) = (segment.header.kind, &segment.key, &segment.binding);
        Ok(verify_frame(bytes, header, kind, key, binding, &mut self.tags).map(|()| padded))
    }
}

/// Opens the first record where it lies; also returns what lies behind it.
fn open_first<'a>(
    bytes: &'a mut [u8],
    key: &SealingKey,
    binding: &Binding,
) -> Result<(RecordHeader, RecordContent<'a>, &'a mut [u8]), FormatError> {
    let (header, _) = parse_record(bytes)?;
    let (record, behind) = bytes.split_at_mut_checked(header.record_bytes()).ok_or(FormatError::Truncated)?;
    let (header, content) = open_record(record, key, binding)?;
    Ok((header, content, behind))
}

const _: () = assert!(NONCE_BYTES + FRAME_HEADER_BYTES < 512, "a header lies within the smallest block");
