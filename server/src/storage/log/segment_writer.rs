//! Writing a compacted segment: moved records in frames of their own chain, durable as a whole before it is listed.

use super::batch::{FrameBuilder, FrameMemory};
use super::device::write_whole_buffer;
use super::format::frame::FRAME_HEADER_BYTES;
use super::format::manifest::SegmentEnd;
use super::format::record::{RecordContent, RecordHeader, RecordKind, record_bytes};
use super::format::segment::{SegmentFooter, SegmentKind};
use super::format::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, Tag};
use super::index::Place;
use super::manifest::Interrupt;
use super::segment::SegmentState;
use super::state::{Blank, FileOf, LogStorage, SegmentOf};
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{Caching, Disk, DiskFile, Durability, OpenMode, Platform};
use crate::runtime::publish::remove_if_there;

/// A frame of a compacted segment is written once it holds so much.
const FRAME_BYTES: usize = 256 << 10;

/// A compacted segment under construction.
pub struct SegmentWriter<P: Platform> {
    /// The segment; not listed yet.
    pub segment: SegmentOf<P>,
    frame: Option<FrameBuilder<FileOf<P>>>,
    memory: Option<FrameMemory>,
    chain: (u64, Tag),
}

impl<P: Platform> LogStorage<P> {
    /// Gives a compacted segment of about so many bytes its number and its file; on a full disk that is the last
    /// spare.
    pub(super) async fn begin_compacted(&self, bytes: u64) -> Result<SegmentWriter<P>, Interrupt> {
        let segment = self.new_segment(SegmentKind::Compacted, 0);
        let begun = self.begin_file(&segment, bytes).await;
        match begun {
            Ok(()) => Ok(SegmentWriter { segment, frame: None, memory: None, chain: (0, [0; 16]) }),
            Err(interrupt) => {
                self.forget_segment(&segment);
                Err(interrupt)
            }
        }
    }

    async fn begin_file(&self, segment: &SegmentOf<P>, bytes: u64) -> Result<(), Interrupt> {
        let full = self.space_available().await? < bytes;
        let spare = if full { self.state.borrow_mut().spare.take() } else { None };
        let blank = match spare {
            Some(spare) => spare,
            None => {
                let path = self.directory.join(format!("compacting-{}.tmp", segment.number()));
                let opened = self.disk().open(&path, OpenMode::CreateNew, Caching::Direct).await;
                let file = opened.map_err(|error| self.interrupt("creating a segment", &error))?;
                Blank { path, file, bytes: 0 }
            }
        };
        let block = if blank.file.is_direct() { blank.file.alignment().max(BLOCK_BYTES_MIN) } else { BLOCK_BYTES_MAX };
        if let Err(error) = self.name_file(segment, &blank, block).await {
            let interrupt = self.interrupt("writing a segment's header", &error);
            let _ = remove_if_there(self.disk(), &blank.path).await;
            return Err(interrupt);
        }
        segment.block_bytes.set(block);
        let _ = segment.file.set(blank.file);
        Ok(())
    }
}

impl<P: Platform> SegmentWriter<P> {
    /// Bytes written and waiting.
    pub fn length(&self) -> u64 {
        self.segment.written.get() + self.frame.as_ref().map_or(0, FrameBuilder::bytes_bound)
    }

    /// Seals a record into the segment; returns where it will lie.
    pub async fn push(
        &mut self,
        storage: &LogStorage<P>,
        header: &RecordHeader,
        content: RecordContent<'_>,
    ) -> Result<Place, Interrupt> {
        let bytes = record_bytes(content.entity, content.document.len());
        if self.frame.as_ref().is_some_and(|frame| !frame.fits(bytes)) {
            self.flush(storage).await?;
        }
        let number = match header.kind {
            RecordKind::Put => 0,
            RecordKind::Tombstone => content.tombstone_number().unwrap_or(u32::MAX),
        };
        let nonce = storage.nonce();
        let frame = self.frame.get_or_insert_with(|| {
            let capacity = FRAME_BYTES.max(FRAME_HEADER_BYTES + bytes);
            let memory = self.memory.take().filter(|memory| memory.buffer.capacity() >= capacity);
            let memory = memory.unwrap_or_else(|| FrameMemory::new(capacity));
            FrameBuilder::new(self.segment.clone(), header.sequence, memory)
        });
        let offset = self.segment.written.get() as usize + frame.length();
        if let Err(error) = frame.push(header, content, number, nonce) {
            storage.poison(format!("sealing a record failed: {error}"));
            return Err(Interrupt::Stopped);
        }
        if header.kind == RecordKind::Tombstone {
            self.segment.add_tombstone(bytes as u64, number);
        }
        Ok(Place { slot: self.segment.slot, offset: offset as u32, length: bytes as u32 })
    }

    /// Writes the frame under assembly.
    async fn flush(&mut self, storage: &LogStorage<P>) -> Result<(), Interrupt> {
        let Some(mut frame) = self.frame.take() else { return Ok(()) };
        let segment = &self.segment;
        let Some(file) = segment.file.get() else { return Err(Interrupt::Stopped) };
        let number = self.chain.0 + 1;
        let tag = match frame.finish(number, self.chain.1, storage.nonce()) {
            Ok(tag) => tag,
            Err(error) => {
                storage.poison(format!("sealing a frame failed: {error}"));
                return Err(Interrupt::Stopped);
            }
        };
        let buffer = frame.take_buffer();
        let length = buffer.len() as u64;
        let (result, buffer) = write_whole_buffer(file, segment.written.get(), buffer, Durability::Later).await;
        frame.return_buffer(buffer);
        result.map_err(|error| storage.interrupt("writing a compacted segment", &error))?;
        self.chain = (number, tag);
        segment.written.set(segment.written.get() + length);
        segment.frames.set(number);
        segment.records.set(segment.records.get() + frame.records() as u64);
        segment.last_frame.set((number, tag));
        storage.figures().compacted_bytes.add(length);
        self.memory = Some(frame.into_memory());
        Ok(())
    }

    /// Writes the rest and the footer, and makes all of it durable.
    pub async fn finish(mut self, storage: &LogStorage<P>) -> Result<SegmentOf<P>, Interrupt> {
        let mut finished = self.flush(storage).await;
        if finished.is_ok() {
            finished = storage.write_footer(&self.segment, Durability::Later).await;
        }
        if let Err(interrupt) = finished {
            self.abandon(storage);
            return Err(interrupt);
        }
        self.segment.state.set(SegmentState::Sealed);
        Ok(self.segment)
    }

    /// Gives up: the file can be reused.
    pub fn abandon(self, storage: &LogStorage<P>) {
        drop(self.frame);
        storage.forget_segment(&self.segment);
    }
}

impl<P: Platform> LogStorage<P> {
    /// Ends a segment: footer behind the last frame, the file cut there, all of it durable.
    pub(super) async fn write_footer(&self, segment: &SegmentOf<P>, durability: Durability) -> Result<(), Interrupt> {
        let Some(file) = segment.file.get() else { return Err(Interrupt::Stopped) };
        let block = segment.block_bytes.get();
        let offset = segment.written.get();
        let (last_frame, last_tag) = segment.last_frame.get();
        let footer = SegmentFooter {
            offset,
            frames: segment.frames.get(),
            records: segment.records.get(),
            last_frame,
            last_tag,
        };
        let mut buffer = AlignedBuffer::zeroed(block);
        let sealed = footer.seal(&segment.header.id, &segment.key, &segment.binding, self.nonce(), &mut buffer);
        if let Err(error) = sealed {
            self.poison(format!("sealing a segment failed: {error}"));
            return Err(Interrupt::Stopped);
        }
        let (result, _) = write_whole_buffer(file, offset, buffer, durability).await;
        result.map_err(|error| self.interrupt("writing a segment's footer", &error))?;
        let length = offset + block as u64;
        let cut = async {
            file.set_len(length).await?;
            file.sync_data().await
        };
        cut.await.map_err(|error| self.interrupt("cutting a sealed segment", &error))?;
        segment.capacity.set(length);
        segment.end.set(Some(SegmentEnd { offset, footer: true, last_frame, last_tag }));
        Ok(())
    }
}
