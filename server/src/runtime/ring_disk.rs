//! The production disk: reads, writes and syncs on the shard's ring, everything rare on a helper thread.
//!
//! A direct file's synced write is one RWF_DSYNC write or a write linked to an fdatasync, whichever has been quicker; a
//! buffered one is always the latter. An operation owns its buffer and its descriptor until the kernel is done with
//! them. Errors name the path.
#![allow(unsafe_code)]

use super::buffer::{AlignedBuffer, BUFFER_ALIGNMENT};
use super::disk_operations::DiskOperations;
use super::durable_way::{DurableWay, DurableWays};
use super::offload::Offload;
use super::platform::{Caching, Disk, DiskFile, Durability, FileStamp, OpenMode};
use super::std_disk::{ZERO_PIECE_BYTES, at_path, blocking};
use io_uring::{opcode, squeue, types};
use rustix::fs::{AtFlags, OFlags, StatxFlags};
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

/// FALLOC_FL_WRITE_ZEROES: allocate written zeros, by the device's own means (Linux 6.17).
const FALLOC_FL_WRITE_ZEROES: i32 = 0x80;

/// The disk of one shard.
#[derive(Clone)]
pub struct RingDisk(Rc<DiskState>);

struct DiskState {
    operations: Rc<DiskOperations<OpenFile>>,
    offload: Offload,
    /// Whether FALLOC_FL_WRITE_ZEROES was refused: it is not asked for again.
    zeros_refused: Cell<bool>,
    durable_ways: DurableWays,
}

/// An open descriptor and what is known of it.
pub(super) struct OpenFile {
    /// Taken only when it is closed.
    file: Option<File>,
    path: PathBuf,
    /// 1 for a buffered file.
    alignment: usize,
    offload: Offload,
}

/// An open file on the ring.
#[derive(Clone)]
pub struct RingFile {
    disk: RingDisk,
    open: Rc<OpenFile>,
}

impl RingDisk {
    pub(super) fn new(operations: Rc<DiskOperations<OpenFile>>, offload: Offload) -> Self {
        Self(Rc::new(DiskState {
            operations,
            offload,
            zeros_refused: Cell::new(false),
            durable_ways: DurableWays::new(),
        }))
    }

    /// Runs a blocking operation on the helper thread.
    fn off_thread<T: Send + 'static, W: FnOnce() -> io::Result<T> + Send + 'static>(
        &self,
        work: W,
    ) -> impl Future<Output = io::Result<T>> + 'static + use<T, W> {
        self.0.offload.run(work)
    }
}

impl OpenFile {
    fn fd(&self) -> types::Fd {
        types::Fd(self.file.as_ref().map_or(-1, |file| file.as_raw_fd()))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // The last close of a removed file frees its blocks, which takes a while: not on the shard's thread.
        if let Some(file) = self.file.take() {
            self.offload.run_detached(move || drop(file));
        }
    }
}

/// Opens a file, with O_DIRECT where the file system tells how; answers the alignment it asks for.
fn open(path: &Path, mode: OpenMode, caching: Caching) -> io::Result<(File, usize)> {
    let file = blocking::open(path, mode)?;
    keep_access_time(&file);
    let alignment = match caching {
        Caching::Buffered => 1,
        Caching::Direct => direct_alignment(&file).unwrap_or(1),
    };
    Ok((file, alignment))
}

/// Lets reads leave the access time as it is. The file system notes it in the thread that reads, which waits there when
/// the journal does: a whole shard would, for a disk that does not answer. Only the owner of a file may ask for this.
fn keep_access_time(file: &File) {
    if let Ok(flags) = rustix::fs::fcntl_getfl(file) {
        let _ = rustix::fs::fcntl_setfl(file, flags | OFlags::NOATIME);
    }
}

/// Turns direct I/O on; `None` where it is refused or needs more than our buffers give.
fn direct_alignment(file: &File) -> Option<usize> {
    let status = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    if !StatxFlags::from_bits_retain(status.stx_mask).contains(StatxFlags::DIOALIGN) {
        return None;
    }
    let (memory, offset) = (status.stx_dio_mem_align as usize, status.stx_dio_offset_align as usize);
    let fits = |alignment: usize| alignment.is_power_of_two() && alignment <= BUFFER_ALIGNMENT;
    if !fits(memory) || !fits(offset) {
        return None;
    }
    let flags = rustix::fs::fcntl_getfl(file).ok()?;
    rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT).ok()?;
    Some(offset)
}

impl Disk for RingDisk {
    type File = RingFile;

    async fn open(&self, path: &Path, mode: OpenMode, caching: Caching) -> io::Result<RingFile> {
        let (path, name) = (path.to_owned(), path.to_owned());
        let (file, alignment) = self.off_thread(move || open(&path, mode, caching)).await?;
        let open = OpenFile { file: Some(file), path: name, alignment, offload: self.0.offload.clone() };
        Ok(RingFile { disk: self.clone(), open: Rc::new(open) })
    }
    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.off_thread(move || blocking::create_dir_all(&path)).await
    }
    async fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let path = path.to_owned();
        self.off_thread(move || blocking::read_dir(&path)).await
    }
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.off_thread(move || blocking::rename(&from, &to)).await
    }
    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.off_thread(move || blocking::remove_file(&path)).await
    }
    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.off_thread(move || blocking::remove_dir_all(&path)).await
    }
    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.off_thread(move || blocking::sync_dir(&path)).await
    }
    async fn stamp(&self, path: &Path) -> io::Result<FileStamp> {
        let path = path.to_owned();
        self.off_thread(move || blocking::stamp(&path)).await
    }
    async fn space_available(&self, path: &Path) -> io::Result<u64> {
        let path = path.to_owned();
        self.off_thread(move || blocking::space_available(&path)).await
    }
}

impl RingFile {
    /// Runs one operation; the entry may point into `buffer`, which lives in the table meanwhile.
    ///
    /// # Safety
    /// The entry points only into `buffer` and names only this file's descriptor.
    unsafe fn run(
        &self,
        buffer: Option<AlignedBuffer>,
        entry: squeue::Entry,
        synced: Option<squeue::Entry>,
        is_commit: bool,
    ) -> impl Future<Output = (io::Result<usize>, Option<AlignedBuffer>)> + use<> {
        // SAFETY: the caller's promise.
        let operation = unsafe { self.disk.0.operations.start(self.open.clone(), buffer, entry, synced, is_commit) };
        async move {
            let finished = operation.await;
            (finished.result, finished.buffer)
        }
    }

    fn data_sync(&self) -> squeue::Entry {
        opcode::Fsync::new(self.open.fd()).flags(types::FsyncFlags::DATASYNC).build()
    }

    async fn allocate(&self, offset: u64, len: u64, mode: i32) -> io::Result<()> {
        let entry = opcode::Fallocate::new(self.open.fd(), len).offset(offset).mode(mode).build();
        // SAFETY: an allocation points to nothing.
        unsafe { self.run(None, entry, None, false) }.await.0.map(drop)
    }

    /// Zeros by the device's own means; `Ok(false)` where kernel or device have none.
    async fn allocate_zeros(&self, offset: u64, len: u64) -> io::Result<bool> {
        if self.disk.0.zeros_refused.get() {
            return Ok(false);
        }
        match self.allocate(offset, len, FALLOC_FL_WRITE_ZEROES).await {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS)) => {
                self.disk.0.zeros_refused.set(true);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 || self.allocate_zeros(offset, len).await? {
            return Ok(());
        }
        // Space is claimed at once, so that a full disk is found before anything was written.
        match self.allocate(offset, len, 0).await {
            Err(error) if error.raw_os_error() != Some(libc::EOPNOTSUPP) => return Err(error),
            _ => {}
        }
        let end = offset + len;
        let mut at = offset;
        let mut buffer = AlignedBuffer::zeroed(len.min(ZERO_PIECE_BYTES) as usize);
        while at < end {
            buffer.set_len((end - at).min(ZERO_PIECE_BYTES) as usize);
            let (result, back) = self.write_unnamed(at, buffer, Durability::Later, false).await;
            buffer = back;
            match result? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => at += written as u64,
            }
            glommio::executor().yield_now().await;
        }
        Ok(())
    }

    async fn write_unnamed(
        &self,
        offset: u64,
        mut buffer: AlignedBuffer,
        durability: Durability,
        is_commit: bool,
    ) -> (io::Result<usize>, AlignedBuffer) {
        let len = operation_len(&buffer);
        let write = opcode::Write::new(self.open.fd(), buffer.as_mut_ptr(), len).offset(offset);
        let ways = &self.disk.0.durable_ways;
        let way = match durability {
            Durability::Later => None,
            Durability::Synced if self.is_direct() => Some(ways.choose()),
            Durability::Synced => Some(DurableWay::Linked),
        };
        let (entry, synced) = match way {
            None => (write.build(), None),
            Some(DurableWay::Flagged) => (write.rw_flags(libc::RWF_DSYNC).build(), None),
            Some(DurableWay::Linked) => (write.build(), Some(self.data_sync())),
        };
        let started = way.map(|_| Instant::now());
        // SAFETY: the entries point into the buffer, which goes along.
        let (result, buffer) = unsafe { self.run(Some(buffer), entry, synced, is_commit) }.await;
        if let (Some(way), Some(started), true) = (way, started, self.is_direct()) {
            ways.took(way, started.elapsed().as_nanos() as u64);
        }
        (result, buffer.expect("an operation gives its buffer back"))
    }
}

impl DiskFile for RingFile {
    fn alignment(&self) -> usize {
        self.open.alignment
    }

    fn is_direct(&self) -> bool {
        self.open.alignment > 1
    }

    fn read_at(
        &self,
        offset: u64,
        mut buffer: AlignedBuffer,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuffer)> + 'static {
        let file = self.clone();
        async move {
            let len = operation_len(&buffer);
            let entry = opcode::Read::new(file.open.fd(), buffer.as_mut_ptr(), len).offset(offset).build();
            // SAFETY: the entry points into the buffer, which goes along.
            let (result, buffer) = unsafe { file.run(Some(buffer), entry, None, false) }.await;
            (at_path(&file.open.path, "read", result), buffer.expect("an operation gives its buffer back"))
        }
    }

    fn write_at(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
        durability: Durability,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuffer)> + 'static {
        let file = self.clone();
        async move {
            let (result, buffer) =
                file.write_unnamed(offset, buffer, durability, durability == Durability::Synced).await;
            (at_path(&file.open.path, "write", result), buffer)
        }
    }

    fn sync_data(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let file = self.clone();
        async move {
            // SAFETY: a sync points to nothing.
            let (result, _) = unsafe { file.run(None, file.data_sync(), None, false) }.await;
            at_path(&file.open.path, "sync", result.map(drop))
        }
    }

    fn write_zeros(&self, offset: u64, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let file = self.clone();
        async move { at_path(&file.open.path, "write zeros to", file.zeros(offset, len).await) }
    }

    fn set_len(&self, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let open = self.open.clone();
        async move {
            let set = match open.file.as_ref().map(File::try_clone) {
                Some(Ok(file)) => open.offload.run(move || file.set_len(len)).await,
                Some(Err(error)) => Err(error),
                None => Err(io::ErrorKind::NotFound.into()),
            };
            at_path(&open.path, "set the length of", set)
        }
    }

    fn size(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        let open = self.open.clone();
        async move {
            // An open file's length is in memory: asking takes no disk and no other thread.
            let size = open.file.as_ref().map_or(Ok(0), |file| file.metadata().map(|metadata| metadata.len()));
            at_path(&open.path, "look at", size)
        }
    }
}

/// An operation carries less than 2 GiB; what is over goes unserved, and the count says so.
fn operation_len(buffer: &AlignedBuffer) -> u32 {
    buffer.len().min(1 << 30) as u32
}
