//! The same seam over real files, with blocking calls: to measure, not to test.

use super::{Executor, TestClock, TestEntropy, TestSpawn};
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{Caching, Disk, DiskFile, Durability, FileStamp, OpenMode, Platform};
use std::fs::{self, File, OpenOptions};
use std::future::{Future, ready};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;

#[derive(Clone)]
pub struct RealPlatform {
    disk: RealDisk,
    clock: TestClock,
    entropy: TestEntropy,
    spawn: TestSpawn,
    pub executor: Executor,
}

impl RealPlatform {
    pub fn new() -> Self {
        let executor = Executor::new();
        Self {
            disk: RealDisk,
            clock: TestClock(executor.clone()),
            entropy: TestEntropy(Rc::new(5.into())),
            spawn: TestSpawn(executor.clone()),
            executor,
        }
    }
}

impl Platform for RealPlatform {
    type Disk = RealDisk;
    type Clock = TestClock;
    type Entropy = TestEntropy;
    type Spawn = TestSpawn;
    fn disk(&self) -> &RealDisk {
        &self.disk
    }
    fn clock(&self) -> &TestClock {
        &self.clock
    }
    fn entropy(&self) -> &TestEntropy {
        &self.entropy
    }
    fn spawn(&self) -> &TestSpawn {
        &self.spawn
    }
}

#[derive(Clone)]
pub struct RealDisk;

#[derive(Clone)]
pub struct RealFile {
    file: Rc<File>,
    direct: bool,
}

impl Disk for RealDisk {
    type File = RealFile;
    async fn open(&self, path: &Path, mode: OpenMode, caching: Caching) -> io::Result<RealFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read).create_new(mode == OpenMode::CreateNew);
        let direct = caching == Caching::Direct;
        options.custom_flags(if direct { libc::O_DIRECT } else { 0 });
        Ok(RealFile { file: Rc::new(options.open(path)?), direct })
    }
    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }
    async fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }
    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
    async fn stamp(&self, path: &Path) -> io::Result<FileStamp> {
        Ok(FileStamp { size_bytes: fs::metadata(path)?.len(), ..FileStamp::default() })
    }
    async fn space_available(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX / 2)
    }
}

impl DiskFile for RealFile {
    fn alignment(&self) -> usize {
        if self.direct { 512 } else { 1 }
    }
    fn is_direct(&self) -> bool {
        self.direct
    }
    fn read_at(
        &self,
        offset: u64,
        mut buffer: AlignedBuffer,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuffer)> + 'static {
        let result = self.file.read_at(&mut buffer, offset);
        ready((result, buffer))
    }
    fn write_at(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
        durability: Durability,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuffer)> + 'static {
        let result = self.file.write_at(&buffer, offset).and_then(|count| {
            if durability == Durability::Synced {
                self.file.sync_data()?;
            }
            Ok(count)
        });
        ready((result, buffer))
    }
    fn sync_data(&self) -> impl Future<Output = io::Result<()>> + 'static {
        ready(self.file.sync_data())
    }
    fn write_zeros(&self, offset: u64, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        const PIECE: usize = 1 << 20;
        let zeros = AlignedBuffer::zeroed(PIECE);
        let mut written = 0;
        let result = loop {
            if written == len {
                break Ok(());
            }
            let piece = PIECE.min((len - written) as usize);
            match self.file.write_all_at(&zeros[..piece], offset + written) {
                Ok(()) => written += piece as u64,
                Err(error) => break Err(error),
            }
        };
        ready(result)
    }
    fn set_len(&self, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        ready(self.file.set_len(len))
    }
    fn size(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        ready(self.file.metadata().map(|metadata| metadata.len()))
    }
}
