//! Receive buffers lent by the kernel: a ring of entries by which it is told of free ones, and the bytes.

use super::memory::Memory;
use io_uring::types::BufRingEntry;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

/// Bytes of one receive buffer.
const BUFFER_BYTES: usize = 16 << 10;

/// The buffers of one ring.
pub(super) struct Buffers {
    entries: Memory,
    bytes: Memory,
    count: usize,
    tail: u16,
}

impl Buffers {
    /// So many, a power of two.
    pub fn new(count: usize) -> io::Result<Self> {
        let entries = Memory::new(count * size_of::<BufRingEntry>())?;
        let mut buffers = Self { entries, bytes: Memory::new(count * BUFFER_BYTES)?, count, tail: 0 };
        (0..count).for_each(|buffer| buffers.give_back(buffer as u16));
        Ok(buffers)
    }

    /// Where the entries begin; page-aligned.
    pub fn address(&self) -> u64 {
        self.entries.pointer() as u64
    }

    /// Shows what the kernel put into a buffer, then hands it back.
    pub fn lend(&mut self, buffer: u16, length: usize, read: impl FnOnce(&[u8])) {
        assert!(usize::from(buffer) < self.count && length <= BUFFER_BYTES, "the kernel names a buffer it was given");
        let start = usize::from(buffer) * BUFFER_BYTES;
        // SAFETY: in range; the kernel filled it and does not touch it again before it is given back below.
        read(unsafe { std::slice::from_raw_parts(self.bytes.pointer().add(start), length) });
        self.give_back(buffer);
    }

    fn give_back(&mut self, buffer: u16) {
        let position = usize::from(self.tail) & (self.count - 1);
        let entries: *mut BufRingEntry = self.entries.pointer().cast();
        let bytes = self.bytes.pointer() as u64 + (usize::from(buffer) * BUFFER_BYTES) as u64;
        // SAFETY: the position is in range; the kernel reads the entry only after the tail below says so. The fields
        // are written one by one because the tail lies in the spare bytes of the first entry.
        unsafe {
            let entry = &mut *entries.add(position);
            entry.set_addr(bytes);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is an aligned u16 in the mapping, written by this thread only and read by the kernel.
        let shared = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        shared.store(self.tail, Ordering::Release);
    }
}
