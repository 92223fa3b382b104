//! A frame under assembly, and the open batch.
//!
//! A record's plaintext is copied once, into the frame's buffer, and sealed there. What the index needs to know of it
//! afterwards is kept aside. Memory is reused from frame to frame: nothing is allocated a record.

use super::format::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameTags, finish_frame};
use super::format::record::{RecordContent, RecordHeader, RecordKind, record_bytes, seal_record};
use super::format::{BLOCK_BYTES_MAX, FormatError, NONCE_BYTES, Tag};
use super::segment::Segment;
use crate::command::EntityRef;
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::Entropy;
use crate::sabotage::{Sabotage, is_on};
use std::rc::Rc;

/// What the index will need to know of a sealed record.
#[derive(Clone, Copy)]
pub struct Pending {
    /// What it says.
    pub kind: RecordKind,
    /// Its version.
    pub version: u64,
    /// Its offset in the frame.
    pub offset: u32,
    /// Its bytes.
    pub length: u32,
    /// For a tombstone, the segment number it carries.
    pub tombstone_number: u32,
    names_at: u32,
    schema_bytes: u16,
    key_bytes: u16,
}

/// The memory of a frame, reused.
pub struct FrameMemory {
    /// Taken while the frame is being written.
    pub buffer: AlignedBuffer,
    tags: FrameTags,
    pending: Vec<Pending>,
    names: String,
}

impl FrameMemory {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self {
            buffer: AlignedBuffer::zeroed(bytes.next_multiple_of(BLOCK_BYTES_MAX)),
            tags: FrameTags::new(),
            pending: Vec::new(),
            names: String::new(),
        }
    }
}

/// A frame under assembly, bound to its segment by the keys and tags of its records.
pub struct FrameBuilder<F> {
    /// Where it will be written.
    pub segment: Rc<Segment<F>>,
    /// Sequence of the first record.
    pub first_sequence: u64,
    /// Whether it holds anything but deletions.
    pub holds_puts: bool,
    /// Where it lies, once written.
    pub offset: u64,
    memory: FrameMemory,
    length: usize,
}

impl<F> FrameBuilder<F> {
    /// An empty frame.
    pub fn new(segment: Rc<Segment<F>>, first_sequence: u64, mut memory: FrameMemory) -> Self {
        let capacity = memory.buffer.capacity();
        memory.buffer.set_len(capacity);
        memory.tags.clear();
        memory.pending.clear();
        memory.names.clear();
        Self { segment, first_sequence, holds_puts: false, offset: 0, memory, length: FRAME_HEADER_BYTES }
    }

    /// Records in it.
    pub fn records(&self) -> usize {
        self.memory.pending.len()
    }

    /// Bytes so far, header included.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Whether so many bytes more fit into its buffer.
    pub fn fits(&self, bytes: usize) -> bool {
        self.length + bytes <= self.memory.buffer.capacity()
    }

    /// At most what it takes in the file.
    pub fn bytes_bound(&self) -> u64 {
        self.length.next_multiple_of(BLOCK_BYTES_MAX) as u64
    }

    /// Copies a record in and seals it there.
    #[inline]
    pub fn push(
        &mut self,
        header: &RecordHeader,
        content: RecordContent<'_>,
        tombstone_number: u32,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<(), FormatError> {
        let bytes = record_bytes(content.entity, content.document.len());
        let memory = &mut self.memory;
        let target = memory.buffer.get_mut(self.length..self.length + bytes).ok_or(FormatError::Truncated)?;
        let tag = seal_record(target, header, content, &self.segment.key, &self.segment.binding, nonce)?;
        memory.tags.push(&tag);
        memory.pending.push(Pending {
            kind: header.kind,
            version: header.sequence,
            offset: self.length as u32,
            length: bytes as u32,
            tombstone_number,
            names_at: memory.names.len() as u32,
            schema_bytes: content.entity.schema.len() as u16,
            key_bytes: content.entity.key.len() as u16,
        });
        memory.names.push_str(content.entity.schema);
        memory.names.push_str(content.entity.key);
        self.holds_puts |= header.kind == RecordKind::Put;
        self.length += bytes;
        Ok(())
    }

    /// Takes back everything behind the first `records` records.
    pub fn truncate(&mut self, records: usize) {
        if let Some(first) = self.memory.pending.get(records) {
            self.length = first.offset as usize;
            self.memory.names.truncate(first.names_at as usize);
            self.memory.pending.truncate(records);
            self.memory.tags.truncate(records);
        }
    }

    /// Pads, tags and checksums the frame; afterwards the buffer is what is written.
    pub fn finish(&mut self, number: u64, previous_tag: Tag, nonce: [u8; NONCE_BYTES]) -> Result<Tag, FormatError> {
        let header = FrameHeader {
            number,
            first_sequence: self.first_sequence,
            records: self.memory.pending.len() as u32,
            length: self.length as u32,
            previous_tag,
            tag: [0; 16],
        };
        self.memory.buffer.set_len(self.length.next_multiple_of(self.segment.block_bytes.get()));
        let (segment, tags) = (&self.segment, &mut self.memory.tags);
        let (key, binding) = (&segment.key, &segment.binding);
        finish_frame(&mut self.memory.buffer, &header, &segment.header.id, key, binding, tags, nonce)
    }

    /// Lends the buffer out for the write.
    pub fn take_buffer(&mut self) -> AlignedBuffer {
        std::mem::replace(&mut self.memory.buffer, AlignedBuffer::zeroed(1))
    }

    /// Takes it back.
    pub fn return_buffer(&mut self, buffer: AlignedBuffer) {
        self.memory.buffer = buffer;
    }

    /// The records with their entities, in order.
    pub fn pending(&self) -> impl DoubleEndedIterator<Item = (&Pending, EntityRef<'_>)> {
        self.memory.pending.iter().map(|pending| {
            let (schema_at, key_at) =
                (pending.names_at as usize, pending.names_at as usize + pending.schema_bytes as usize);
            let schema = &self.memory.names[schema_at..key_at];
            let key = &self.memory.names[key_at..key_at + pending.key_bytes as usize];
            (pending, EntityRef { schema, key })
        })
    }

    /// Its memory, for the next frame.
    pub fn into_memory(self) -> FrameMemory {
        self.memory
    }
}

/// What waits for the next commit: one frame, or several where a segment ended between them.
pub struct OpenBatch<F> {
    /// In the order they will be written.
    pub frames: Vec<FrameBuilder<F>>,
    /// Records in all of them.
    pub records: usize,
    /// Bytes of all of them.
    pub bytes: usize,
}

impl<F> Default for OpenBatch<F> {
    fn default() -> Self {
        Self { frames: Vec::new(), records: 0, bytes: 0 }
    }
}

/// Random nonces, fetched many at a time: no system call a record.
pub struct Nonces<E> {
    entropy: E,
    bytes: Box<[u8; NONCE_BYTES * 256]>,
    used: usize,
}

impl<E: Entropy> Nonces<E> {
    /// Filled at first use.
    pub fn new(entropy: E) -> Self {
        Self { entropy, bytes: Box::new([0; NONCE_BYTES * 256]), used: NONCE_BYTES * 256 }
    }

    /// A nonce never given out before.
    #[inline]
    pub fn next(&mut self) -> [u8; NONCE_BYTES] {
        if self.used == self.bytes.len() {
            self.entropy.fill(&mut *self.bytes);
            self.used = 0;
        }
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&self.bytes[self.used..self.used + NONCE_BYTES]);
        if !is_on(Sabotage::ReuseNonce) {
            self.used += NONCE_BYTES;
        }
        nonce
    }
}
