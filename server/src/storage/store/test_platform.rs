//! A blocking platform over a real directory that counts its changes to the disk and can stop working at any of them.

use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{
    Caching, Clock, Disk, DiskFile, Durability, Entropy, FileStamp, OpenMode, Platform, Spawn, TaskClass,
};
use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::future::{Future, ready};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// All four traits at once.
#[derive(Clone)]
pub struct TestPlatform {
    changes: Rc<Cell<u64>>,
    changes_max: Rc<Cell<u64>>,
    random: Rc<Cell<u64>>,
}

/// An open file of it.
#[derive(Clone)]
pub struct TestFile {
    file: Rc<File>,
    platform: TestPlatform,
}

impl TestPlatform {
    /// A working one; `seed` decides its randomness.
    pub fn new(seed: u64) -> Self {
        let changes_max = Rc::new(Cell::new(u64::MAX));
        Self { changes: Rc::default(), changes_max, random: Rc::new(Cell::new(seed << 32)) }
    }

    /// Changes made so far.
    pub fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// The disk makes this many more changes, then fails every one.
    pub fn fail_after(&self, changes: u64) {
        self.changes_max.set(self.changes.get().saturating_add(changes));
    }

    fn change<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.changes.get() >= self.changes_max.get() {
            return Err(io::Error::other("the disk is gone"));
        }
        self.changes.set(self.changes.get() + 1);
        act()
    }
}

impl Platform for TestPlatform {
    type Disk = Self;
    type Clock = Self;
    type Entropy = Self;
    type Spawn = Self;

    fn disk(&self) -> &Self {
        self
    }
    fn clock(&self) -> &Self {
        self
    }
    fn entropy(&self) -> &Self {
        self
    }
    fn spawn(&self) -> &Self {
        self
    }
}

impl Disk for TestPlatform {
    type File = TestFile;

    async fn open(&self, path: &Path, mode: OpenMode, _: Caching) -> io::Result<TestFile> {
        let file = match mode {
            OpenMode::Read => File::open(path)?,
            OpenMode::ReadWrite => OpenOptions::new().read(true).write(true).open(path)?,
            OpenMode::CreateNew => {
                self.change(|| OpenOptions::new().read(true).write(true).create_new(true).open(path))?
            }
        };
        Ok(TestFile { file: Rc::new(file), platform: self.clone() })
    }
    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }
    async fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(path)?
            .map(|entry| entry?.file_name().into_string().map_err(|_| io::Error::other("a name in another encoding")))
            .collect()
    }
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|| fs::rename(from, to))
    }
    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::metadata(path)?;
        self.change(|| fs::remove_file(path))
    }
    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change(|| fs::remove_dir_all(path))
    }
    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.change(|| File::open(path).map(drop))
    }
    async fn stamp(&self, path: &Path) -> io::Result<FileStamp> {
        fs::metadata(path).map(|metadata| FileStamp { size_bytes: metadata.len(), ..FileStamp::default() })
    }
    async fn space_available(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl DiskFile for TestFile {
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
        // Short reads and writes are allowed, so they happen here.
        let len = buffer.len().min(100);
        ready((self.file.read_at(&mut buffer[..len], offset), buffer))
    }
    fn write_at(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
        _: Durability,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuffer)> + 'static {
        let len = buffer.len().min(100);
        ready((self.platform.change(|| self.file.write_at(&buffer[..len], offset)), buffer))
    }
    fn sync_data(&self) -> impl Future<Output = io::Result<()>> + 'static {
        ready(self.platform.change(|| Ok(())))
    }
    fn write_zeros(&self, _: u64, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        ready(self.platform.change(|| self.file.set_len(len)))
    }
    fn set_len(&self, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        ready(self.platform.change(|| self.file.set_len(len)))
    }
    fn size(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        ready(self.file.metadata().map(|metadata| metadata.len()))
    }
}

impl Clock for TestPlatform {
    fn now_ns(&self) -> u64 {
        self.changes.get()
    }
    fn unix_ms(&self) -> u64 {
        1_700_000_000_000 + self.changes.get()
    }
    fn sleep(&self, _: Duration) -> impl Future<Output = ()> + 'static {
        ready(())
    }
}

impl Entropy for TestPlatform {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.random.set(self.random.get() + 1);
            let word = xxhash_rust::xxh3::xxh3_64(&self.random.get().to_le_bytes()).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

impl Spawn for TestPlatform {
    fn spawn(&self, _: TaskClass, future: impl Future<Output = ()> + 'static) {
        futures_lite::future::block_on(future);
    }
    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        ready(())
    }
    fn yield_if_due(&self) -> impl Future<Output = ()> + 'static {
        ready(())
    }
}
