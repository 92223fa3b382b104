//! What somebody outside sees of the requests that reach the simulated disk, as they are made.
//!
//! For invariants of the bytes themselves, such as that no nonce is used twice: they hold for what was asked for,
//! whether or not it ever lands.

use std::path::Path;
use std::rc::Rc;

/// A request that changes the disk.
#[derive(Clone, Copy, Debug)]
pub enum DiskRequest<'a> {
    /// Bytes for a file.
    Write {
        /// By the name it was opened with.
        path: &'a Path,
        /// Names the file for ever.
        inode: u64,
        /// Where.
        offset: u64,
        /// What.
        bytes: &'a [u8],
    },
    /// Another name for a file.
    Rename {
        /// The old one.
        from: &'a Path,
        /// The new one.
        to: &'a Path,
    },
}

/// Is shown every request; must not use the disk.
pub type Watcher = Rc<dyn Fn(&DiskRequest<'_>)>;
