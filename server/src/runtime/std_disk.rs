//! The plain, blocking disk: `Disk` on the standard library, for offline commands and for what a shard does off its
//! thread.
//!
//! Every future is complete when first polled, so `futures_lite::future::block_on` runs it. Files go through the page
//! cache. It promises what the ring's disk promises: errors name the path, `Synced` means fdatasync.

use super::buffer::AlignedBuffer;
use super::platform::{Caching, Disk, DiskFile, Durability, FileStamp, OpenMode};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Zeros written at a time. Each piece waits for a turn of the background's, and all of a segment must be written in the
/// time in which the fastest writers fill the one before; a commit that comes behind a piece waits for some 0.3 ms.
pub(super) const ZERO_PIECE_BYTES: u64 = 1 << 20;

/// The file system of this machine, without a ring.
#[derive(Clone, Debug, Default)]
pub struct StdDisk;

/// An open file of [`StdDisk`].
#[derive(Clone)]
pub struct StdFile(Rc<(File, PathBuf)>);

/// Names the path in an error and keeps its kind; a full quota counts as a full disk.
pub(super) fn at_path<T>(path: &Path, doing: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::QuotaExceeded => io::ErrorKind::StorageFull,
            kind => kind,
        };
        io::Error::new(kind, format!("cannot {doing} {}: {error}", path.display()))
    })
}

/// The blocking operations themselves, shared with the ring's disk.
pub(super) mod blocking {
    use super::*;

    pub fn open(path: &Path, mode: OpenMode) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read).create_new(mode == OpenMode::CreateNew);
        at_path(path, "open", options.open(path))
    }

    pub fn create_dir_all(path: &Path) -> io::Result<()> {
        at_path(path, "create directory", fs::create_dir_all(path))
    }

    pub fn read_dir(path: &Path) -> io::Result<Vec<String>> {
        let names = || {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                let name = entry?.file_name().into_string();
                names.push(name.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a name is not UTF-8"))?);
            }
            Ok(names)
        };
        at_path(path, "read directory", names())
    }

    pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
        at_path(from, "rename", fs::rename(from, to))
    }

    pub fn remove_file(path: &Path) -> io::Result<()> {
        at_path(path, "remove", fs::remove_file(path))
    }

    pub fn remove_dir_all(path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => at_path(path, "remove directory", result),
        }
    }

    pub fn sync_dir(path: &Path) -> io::Result<()> {
        at_path(path, "sync directory", File::open(path).and_then(|directory| directory.sync_all()))
    }

    pub fn stamp(path: &Path) -> io::Result<FileStamp> {
        let metadata = at_path(path, "look at", fs::metadata(path))?;
        if !metadata.is_file() {
            // Opening a pipe or a device could wait for ever.
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no regular file", path.display())));
        }
        let modified_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Ok(FileStamp { size_bytes: metadata.len(), modified_ns, inode: metadata.ino() })
    }

    pub fn space_available(path: &Path) -> io::Result<u64> {
        let space = at_path(path, "look at the space of", rustix::fs::statvfs(path).map_err(io::Error::from))?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

impl Disk for StdDisk {
    type File = StdFile;

    async fn open(&self, path: &Path, mode: OpenMode, _caching: Caching) -> io::Result<StdFile> {
        Ok(StdFile(Rc::new((blocking::open(path, mode)?, path.to_owned()))))
    }
    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        blocking::create_dir_all(path)
    }
    async fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        blocking::read_dir(path)
    }
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        blocking::rename(from, to)
    }
    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        blocking::remove_file(path)
    }
    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        blocking::remove_dir_all(path)
    }
    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        blocking::sync_dir(path)
    }
    async fn stamp(&self, path: &Path) -> io::Result<FileStamp> {
        blocking::stamp(path)
    }
    async fn space_available(&self, path: &Path) -> io::Result<u64> {
        blocking::space_available(path)
    }
}

impl StdFile {
    fn at_path<T>(&self, doing: &str, result: io::Result<T>) -> io::Result<T> {
        at_path(&self.0.1, doing, result)
    }
}

impl DiskFile for StdFile {
    fn alignment(&self) -> usize {
        1
    }
    fn is_direct(&self) -> bool {
        false
    }
    fn read_at(
        &self,
        offset: u64,
        mut buffer: AlignedBuffer,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuffer)> + 'static {
        let result = self.at_path("read", self.0.0.read_at(&mut buffer, offset));
        std::future::ready((result, buffer))
    }
    fn write_at(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
        durability: Durability,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuffer)> + 'static {
        let mut result = self.at_path("write", self.0.0.write_at(&buffer, offset));
        if durability == Durability::Synced && result.is_ok() {
            result = self.at_path("sync", self.0.0.sync_data()).and(result);
        }
        std::future::ready((result, buffer))
    }
    fn sync_data(&self) -> impl Future<Output = io::Result<()>> + 'static {
        std::future::ready(self.at_path("sync", self.0.0.sync_data()))
    }
    fn write_zeros(&self, offset: u64, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let zeros = vec![0; ZERO_PIECE_BYTES as usize];
        let end = offset.saturating_add(len);
        let mut at = offset;
        let mut result = Ok(());
        while at < end && result.is_ok() {
            let piece = (end - at).min(ZERO_PIECE_BYTES);
            result = self.at_path("write zeros to", self.0.0.write_all_at(&zeros[..piece as usize], at));
            at += piece;
        }
        std::future::ready(result)
    }
    fn set_len(&self, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        std::future::ready(self.at_path("set the length of", self.0.0.set_len(len)))
    }
    fn size(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        std::future::ready(self.at_path("look at", self.0.0.metadata().map(|metadata| metadata.len())))
    }
}
