//! Receive buffers of one shard: memory the kernel picks from for each received chunk (a provided buffer ring).
//!
//! A filled buffer is lent for the length of one call and handed back at its end, so none is ever held across a
//! turn. When all are filled the kernel ends receives with ENOBUFS; they are armed again once buffers are back.
#![allow(unsafe_code)]

use super::buffer::AlignedBuffer;
use super::ring::Ring;
use io_uring::types::BufRingEntry;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

/// Buffers of one shard; a power of two.
const BUFFERS: u16 = 512;
/// Bytes of one buffer.
const BUFFER_BYTES: usize = 8192;
/// The one buffer group of a ring.
pub(super) const BUFFER_GROUP: u16 = 0;

const _: () = assert!(BUFFERS.is_power_of_two());

/// The pool. Dropping it takes the memory back from the kernel first.
pub(super) struct BufferPool {
    ring: Rc<Ring>,
    entries: RefCell<Option<AlignedBuffer>>,
    memory: RefCell<Option<AlignedBuffer>>,
    entries_pointer: *mut BufRingEntry,
    memory_pointer: *mut u8,
    tail: Cell<u16>,
}

impl BufferPool {
    /// Allocates the buffers and gives all of them to the kernel.
    pub fn new(ring: Rc<Ring>) -> io::Result<Self> {
        let mut entries = AlignedBuffer::zeroed(usize::from(BUFFERS) * size_of::<BufRingEntry>());
        let mut memory = AlignedBuffer::zeroed(usize::from(BUFFERS) * BUFFER_BYTES);
        let entries_pointer = entries.as_mut_ptr().cast::<BufRingEntry>();
        let memory_pointer = memory.as_mut_ptr();
        // SAFETY: the entries are page-aligned, `BUFFERS` many, and are freed only after `unregister` in `drop`.
        unsafe { ring.register_buffers(entries_pointer as u64, BUFFERS, BUFFER_GROUP)? };
        let pool = Self {
            ring,
            entries: RefCell::new(Some(entries)),
            memory: RefCell::new(Some(memory)),
            entries_pointer,
            memory_pointer,
            tail: Cell::new(0),
        };
        (0..BUFFERS).for_each(|buffer| pool.give_back(buffer));
        Ok(pool)
    }

    /// Lends the first `len` bytes of a buffer that a completion named, then hands the buffer back.
    pub fn consume<R>(&self, buffer: u16, len: usize, read: impl FnOnce(&[u8]) -> R) -> R {
        // SAFETY: it is handed back only below.
        let result = read(unsafe { self.peek(buffer, len) });
        self.give_back(buffer);
        result
    }

    /// The first `len` bytes of a buffer that a completion named.
    ///
    /// # Safety
    /// The buffer was not handed back yet, and is not as long as the answer is in use.
    pub unsafe fn peek(&self, buffer: u16, len: usize) -> &[u8] {
        assert!(buffer < BUFFERS && len <= BUFFER_BYTES, "the kernel named a buffer that does not exist");
        // SAFETY: in range; the kernel filled it and does not touch it again before it is handed back.
        unsafe { std::slice::from_raw_parts(self.memory_pointer.add(usize::from(buffer) * BUFFER_BYTES), len) }
    }

    fn give_back(&self, buffer: u16) {
        let tail = self.tail.get();
        // SAFETY: the index is masked into the ring; the kernel reads the entry only after the tail below says so. The
        // fields are written one by one: the tail itself lies in the spare bytes of the first entry.
        unsafe {
            let entry = &mut *self.entries_pointer.add(usize::from(tail & (BUFFERS - 1)));
            entry.set_addr(self.memory_pointer.add(usize::from(buffer) * BUFFER_BYTES) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer);
        }
        let tail = tail.wrapping_add(1);
        self.tail.set(tail);
        // SAFETY: the tail is an aligned u16 that only this thread writes and the kernel reads.
        let shared = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries_pointer).cast_mut()) };
        shared.store(tail, Ordering::Release);
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        if self.ring.unregister_buffers(BUFFER_GROUP).is_err() {
            // The kernel may still write into them: memory is lost rather than shared.
            std::mem::forget(self.entries.take());
            std::mem::forget(self.memory.take());
        }
    }
}
