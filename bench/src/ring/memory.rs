//! Zeroed memory of whole pages, for what the kernel reads and writes on its own.

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::io;
use std::ops::{Deref, DerefMut};

/// A mapping of its own; page-aligned, so that direct I/O takes it.
pub struct Memory {
    pointer: *mut u8,
    length_bytes: usize,
}

impl Memory {
    /// So many bytes, all zero.
    pub fn new(length_bytes: usize) -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice overlaps nothing.
        let pointer = unsafe {
            mmap_anonymous(std::ptr::null_mut(), length_bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)?
        };
        Ok(Self { pointer: pointer.cast(), length_bytes })
    }

    /// Where it begins.
    pub(super) fn pointer(&self) -> *mut u8 {
        self.pointer
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has this length, is initialised with zeros, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.pointer, self.length_bytes) }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; `&mut self` makes it the only access from this side.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.length_bytes) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`, with the same length; nobody uses it any more.
        unsafe {
            // It can only fail for arguments that are not a mapping.
            let _ = munmap(self.pointer.cast(), self.length_bytes);
        }
    }
}
