//! The seam between the product and the machine: `Disk`, `Clock`, `Entropy` and `Spawn`.
//!
//! Engine, storage, mailbox and dispatch see only these traits. Production implements them with the shard's ring and
//! glommio; the simulator implements them from one seed. Everything is single-threaded: futures are not `Send`.

use super::buffer::AlignedBuffer;
use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

/// The four traits, chosen together; cheap to clone (a handle).
pub trait Platform: Clone + 'static {
    /// Files.
    type Disk: Disk;
    /// Time.
    type Clock: Clock;
    /// Randomness.
    type Entropy: Entropy;
    /// Local tasks.
    type Spawn: Spawn;

    /// The disk of this shard.
    fn disk(&self) -> &Self::Disk;
    /// The clock of this shard.
    fn clock(&self) -> &Self::Clock;
    /// The random source of this shard.
    fn entropy(&self) -> &Self::Entropy;
    /// The task spawner of this shard.
    fn spawn(&self) -> &Self::Spawn;
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A new file, for reading and writing; it is an error if the name exists.
    CreateNew,
}

/// Whether the page cache may stand between the file and the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Through the page cache.
    Buffered,
    /// O_DIRECT where the file system has it; buffered otherwise (see [`DiskFile::is_direct`]).
    Direct,
}

/// What a completed write promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing until a later sync.
    Later,
    /// The bytes are on stable storage (RWF_DSYNC, or a linked fdatasync where direct I/O is refused).
    Synced,
}

/// What identifies one state of a file from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FileStamp {
    /// Length in bytes.
    pub size_bytes: u64,
    /// Modification time, nanoseconds since the Unix epoch.
    pub modified_ns: i128,
    /// Inode number.
    pub inode: u64,
}

/// A file system. Paths are absolute or relative to the process; the simulator keeps its own tree.
pub trait Disk: Clone + 'static {
    /// An open file.
    type File: DiskFile;

    /// Opens or creates a file.
    fn open(&self, path: &Path, mode: OpenMode, caching: Caching) -> impl Future<Output = io::Result<Self::File>>;
    /// Creates a directory and its parents; existing ones are fine. Not durable until the parent is synced.
    fn create_dir_all(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// Names in a directory, in no order; files and directories alike.
    fn read_dir(&self, path: &Path) -> impl Future<Output = io::Result<Vec<String>>>;
    /// Renames a file over another name.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// Removes a directory with all it holds; a missing one is fine.
    fn remove_dir_all(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// Makes names created in, renamed into or removed from this directory durable.
    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// The stamp of a file; `NotFound` when there is none, another error for what is no regular file.
    fn stamp(&self, path: &Path) -> impl Future<Output = io::Result<FileStamp>>;
    /// Bytes an unprivileged writer may still use on the file system of this path.
    fn space_available(&self, path: &Path) -> impl Future<Output = io::Result<u64>>;
}

/// An open file; clones share the descriptor. Offsets, lengths and buffers of direct files keep to
/// [`DiskFile::alignment`]. Reads and writes may be short, and say so.
pub trait DiskFile: Clone + 'static {
    /// What offsets and lengths must be multiples of: 1 for a buffered file, else a power of two up to 4096.
    fn alignment(&self) -> usize;
    /// Whether the page cache is bypassed.
    fn is_direct(&self) -> bool;
    /// Reads up to `buffer.len()` bytes at `offset`; end of file gives a short count.
    fn read_at(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuffer)> + 'static;
    /// Writes `buffer[..len]` at `offset`.
    fn write_at(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
        durability: Durability,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuffer)> + 'static;
    /// fdatasync.
    fn sync_data(&self) -> impl Future<Output = io::Result<()>> + 'static;
    /// Makes `offset..offset + len` allocated *written* zeros, in paced pieces, so that later writes there change no
    /// metadata; extends the file. Durable after the next `sync_data`. `StorageFull` when there is no space.
    fn write_zeros(&self, offset: u64, len: u64) -> impl Future<Output = io::Result<()>> + 'static;
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> impl Future<Output = io::Result<()>> + 'static;
    /// Current length in bytes.
    fn size(&self) -> impl Future<Output = io::Result<u64>> + 'static;
}

/// Time. Monotonic nanoseconds have an arbitrary origin; wall time may jump.
pub trait Clock: Clone + 'static {
    /// Monotonic nanoseconds.
    fn now_ns(&self) -> u64;
    /// Milliseconds since the Unix epoch.
    fn unix_ms(&self) -> u64;
    /// Waits at least this long (coarse: nothing a client waits for depends on it).
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static;
}

/// Cryptographically strong randomness in production; a seeded stream in the simulator.
pub trait Entropy: Clone + 'static {
    /// Fills the buffer.
    fn fill(&self, buffer: &mut [u8]);
    /// Eight random bytes.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// Whom a task serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskClass {
    /// Somebody waits for it.
    Foreground,
    /// Compaction, checkpoints, preparation: gets a share of what is left, and yields after at most 50 µs.
    Background,
}

/// Local tasks on this shard's executor.
pub trait Spawn: Clone + 'static {
    /// Runs the future to its end, detached; never before this call has returned. A panic in it stops the process.
    fn spawn(&self, class: TaskClass, future: impl Future<Output = ()> + 'static);
    /// Lets every other runnable task run once.
    fn yield_now(&self) -> impl Future<Output = ()> + 'static;
    /// Yields if this task has had its share of time (background work calls this often; it is cheap).
    fn yield_if_due(&self) -> impl Future<Output = ()> + 'static;
}

/// Wakes other shards that may be parked. Cheap when the peer is awake.
pub trait Doorbell: Clone + 'static {
    /// Something lies in the mailbox of shard `peer`: it will drain its mailboxes after this call, whether it was
    /// parked or about to park.
    fn ring(&self, peer: usize);
}
