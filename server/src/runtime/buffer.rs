//! Page-aligned memory for direct I/O. The one place that allocates it; always initialised, so reading it is safe.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// What every buffer's address is a multiple of, and its capacity too.
pub const BUFFER_ALIGNMENT: usize = 4096;

/// An owned, fixed-capacity, page-aligned buffer. It derefs to its first `len()` bytes.
pub struct AlignedBuffer {
    pointer: NonNull<u8>,
    capacity: usize,
    len: usize,
}

impl AlignedBuffer {
    /// A zeroed buffer whose capacity is `capacity` rounded up to the alignment, and whose length is `capacity`.
    pub fn zeroed(capacity: usize) -> Self {
        let len = capacity;
        let capacity = capacity.max(1).next_multiple_of(BUFFER_ALIGNMENT);
        // SAFETY: the layout has a non-zero size; the memory is zeroed, so every byte is initialised.
        let pointer = unsafe { alloc_zeroed(Self::layout(capacity)) };
        let pointer = NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(Self::layout(capacity)));
        Self { pointer, capacity, len }
    }

    /// Bytes it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sets how many bytes it derefs to. Bytes never written are zero, bytes written before keep their value.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "length {len} over capacity {}", self.capacity);
        self.len = len;
    }

    /// The address, for the ring. It does not move for the life of the buffer.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BUFFER_ALIGNMENT).expect("a capacity that fits the address space")
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `pointer` owns `capacity` initialised bytes and `len <= capacity`.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout, and freed once.
        unsafe { dealloc(self.pointer.as_ptr(), Self::layout(self.capacity)) }
    }
}

// SAFETY: it owns its memory exclusively, like a Vec<u8>.
unsafe impl Send for AlignedBuffer {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_zeroed_and_keeps_what_is_written() {
        let mut buffer = AlignedBuffer::zeroed(5000);
        assert_eq!((buffer.len(), buffer.capacity()), (5000, 8192));
        assert_eq!(buffer.as_mut_ptr() as usize % BUFFER_ALIGNMENT, 0);
        assert!(buffer.iter().all(|byte| *byte == 0));
        buffer[4999] = 7;
        buffer.set_len(8192);
        assert_eq!((buffer[4999], buffer[5000]), (7, 0));
    }
}
