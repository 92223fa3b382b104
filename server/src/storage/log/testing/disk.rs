//! A disk in memory. It keeps apart what is visible and what a crash leaves: bytes written with `Synced` or followed
//! by a sync, and names followed by a sync of their directory.

use super::executor::yield_once;
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{Caching, Disk, DiskFile, Durability, FileStamp, OpenMode};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What direct files are aligned to here.
pub const ALIGNMENT: usize = 512;

/// What goes wrong with the next writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The write fails; nothing is written.
    Error,
    /// Only so many bytes are written, and it says so.
    Short(usize),
    /// So many bytes are written, and it fails.
    Torn(usize),
}

#[derive(Default)]
struct Content {
    visible: Vec<u8>,
    durable: Vec<u8>,
}

type Names = BTreeMap<PathBuf, Rc<RefCell<Content>>>;

#[derive(Default)]
struct Inner {
    visible: RefCell<Names>,
    durable: RefCell<Names>,
    directories: RefCell<BTreeSet<PathBuf>>,
    space: Cell<u64>,
    fault: Cell<Option<Fault>>,
    /// Operations that change something, counted; the disk dies when this reaches zero.
    operations_left: Cell<Option<u64>>,
    operations: Cell<u64>,
}

/// A handle.
#[derive(Clone)]
pub struct MemoryDisk(Rc<Inner>);

#[derive(Clone)]
pub struct MemoryFile {
    disk: MemoryDisk,
    content: Rc<RefCell<Content>>,
    direct: bool,
}

impl MemoryDisk {
    pub fn new() -> Self {
        let inner = Inner::default();
        inner.space.set(u64::MAX);
        Self(Rc::new(inner))
    }

    /// What a power failure leaves.
    pub fn after_power_failure(&self) -> Self {
        let copy = Self::new();
        for (path, content) in self.0.durable.borrow().iter() {
            copy.put(path, &content.borrow().durable);
        }
        *copy.0.directories.borrow_mut() = self.0.directories.borrow().clone();
        copy
    }

    /// What a killed process leaves.
    pub fn after_kill(&self) -> Self {
        let copy = Self::new();
        for (path, content) in self.0.visible.borrow().iter() {
            copy.put(path, &content.borrow().visible);
        }
        *copy.0.directories.borrow_mut() = self.0.directories.borrow().clone();
        copy
    }

    /// Puts a durable file there.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let content = Rc::new(RefCell::new(Content { visible: bytes.to_vec(), durable: bytes.to_vec() }));
        self.0.visible.borrow_mut().insert(path.to_owned(), content.clone());
        self.0.durable.borrow_mut().insert(path.to_owned(), content);
    }

    /// Changes what a file shows, without what a power failure leaves of it.
    pub fn put_unsynced(&self, path: &Path, bytes: &[u8]) {
        self.0.visible.borrow()[path].borrow_mut().visible = bytes.to_vec();
    }

    /// Changes the bytes of a file under whoever has it open.
    pub fn change(&self, path: &Path, bytes: &[u8]) {
        let content = Content { visible: bytes.to_vec(), durable: bytes.to_vec() };
        *self.0.visible.borrow()[path].borrow_mut() = content;
    }

    pub fn get(&self, path: &Path) -> Vec<u8> {
        self.0.visible.borrow()[path].borrow().visible.clone()
    }

    pub fn remove(&self, path: &Path) {
        self.0.visible.borrow_mut().remove(path);
        self.0.durable.borrow_mut().remove(path);
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.visible.borrow().keys().cloned().collect()
    }

    /// The next write goes wrong.
    pub fn set_fault(&self, fault: Fault) {
        self.0.fault.set(Some(fault));
    }

    /// So many bytes may be in use.
    pub fn set_space(&self, bytes: u64) {
        self.0.space.set(bytes);
    }

    pub fn used(&self) -> u64 {
        self.0.visible.borrow().values().map(|content| content.borrow().visible.len() as u64).sum()
    }

    /// After so many more operations that change something, all fail.
    pub fn die_after(&self, operations: u64) {
        self.0.operations_left.set(Some(operations));
    }

    /// Operations that changed something so far.
    pub fn operations(&self) -> u64 {
        self.0.operations.get()
    }

    fn operate(&self) -> io::Result<()> {
        self.0.operations.set(self.0.operations.get() + 1);
        match self.0.operations_left.get() {
            Some(0) => Err(io::Error::other("the disk is dead")),
            Some(left) => {
                self.0.operations_left.set(Some(left - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn grow(&self, bytes: u64) -> io::Result<()> {
        if self.used() + bytes > self.0.space.get() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    async fn open(&self, path: &Path, mode: OpenMode, caching: Caching) -> io::Result<MemoryFile> {
        yield_once().await;
        let existing = self.0.visible.borrow().get(path).cloned();
        let content = match (existing, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, OpenMode::CreateNew) => {
                self.operate()?;
                let content = Rc::new(RefCell::new(Content::default()));
                self.0.visible.borrow_mut().insert(path.to_owned(), content.clone());
                content
            }
            (Some(content), _) => content,
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(MemoryFile { disk: self.clone(), content, direct: caching == Caching::Direct })
    }
    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.directories.borrow_mut().extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }
    async fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        yield_once().await;
        if !self.0.directories.borrow().contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let visible = self.0.visible.borrow();
        let inside = visible.keys().filter(|name| name.parent() == Some(path));
        Ok(inside.filter_map(|name| Some(name.file_name()?.to_str()?.to_owned())).collect())
    }
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        yield_once().await;
        self.operate()?;
        let mut visible = self.0.visible.borrow_mut();
        let content = visible.remove(from).ok_or(io::ErrorKind::NotFound)?;
        visible.insert(to.to_owned(), content);
        Ok(())
    }
    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        yield_once().await;
        self.operate()?;
        self.0.visible.borrow_mut().remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }
    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.operate()?;
        self.0.visible.borrow_mut().retain(|name, _| !name.starts_with(path));
        self.0.durable.borrow_mut().retain(|name, _| !name.starts_with(path));
        Ok(())
    }
    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        yield_once().await;
        self.operate()?;
        let visible = self.0.visible.borrow();
        let mut durable = self.0.durable.borrow_mut();
        durable.retain(|name, _| name.parent() != Some(path));
        let inside = visible.iter().filter(|(name, _)| name.parent() == Some(path));
        durable.extend(inside.map(|(name, content)| (name.clone(), content.clone())));
        Ok(())
    }
    async fn stamp(&self, path: &Path) -> io::Result<FileStamp> {
        let visible = self.0.visible.borrow();
        let content = visible.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(FileStamp { size_bytes: content.borrow().visible.len() as u64, ..FileStamp::default() })
    }
    async fn space_available(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.0.space.get().saturating_sub(self.used()))
    }
}

impl MemoryFile {
    fn check_alignment(&self, offset: u64, len: usize) {
        if self.direct {
            let aligned = offset.is_multiple_of(ALIGNMENT as u64) && len.is_multiple_of(ALIGNMENT);
            assert!(aligned, "direct I/O of {len} bytes at {offset}");
        }
    }

    fn write(&self, offset: u64, bytes: &[u8], durability: Durability) -> io::Result<usize> {
        self.disk.operate()?;
        let (bytes, fault) = match self.disk.0.fault.take() {
            None => (bytes, None),
            Some(Fault::Error) => return Err(io::Error::other("injected")),
            Some(fault @ (Fault::Short(len) | Fault::Torn(len))) => (&bytes[..len.min(bytes.len())], Some(fault)),
        };
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        let growth = to.saturating_sub(self.content.borrow().visible.len());
        self.disk.grow(growth as u64)?;
        let mut content = self.content.borrow_mut();
        let content = &mut *content;
        let targets = [Some(&mut content.visible), (durability == Durability::Synced).then_some(&mut content.durable)];
        for target in targets.into_iter().flatten() {
            if target.len() < to {
                target.resize(to, 0);
            }
            target[from..to].copy_from_slice(bytes);
        }
        if matches!(fault, Some(Fault::Torn(_))) { Err(io::Error::other("injected")) } else { Ok(bytes.len()) }
    }
}

impl DiskFile for MemoryFile {
    fn alignment(&self) -> usize {
        if self.direct { ALIGNMENT } else { 1 }
    }
    fn is_direct(&self) -> bool {
        self.direct
    }
    fn read_at(
        &self,
        offset: u64,
        mut buffer: AlignedBuffer,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuffer)> + 'static {
        self.check_alignment(offset, buffer.len());
        let content = self.content.clone();
        async move {
            yield_once().await;
            let count = {
                let content = content.borrow();
                let from = (offset as usize).min(content.visible.len());
                let to = (from + buffer.len()).min(content.visible.len());
                buffer[..to - from].copy_from_slice(&content.visible[from..to]);
                to - from
            };
            (Ok(count), buffer)
        }
    }
    fn write_at(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
        durability: Durability,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuffer)> + 'static {
        self.check_alignment(offset, buffer.len());
        let file = self.clone();
        async move {
            yield_once().await;
            (file.write(offset, &buffer, durability), buffer)
        }
    }
    fn sync_data(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let file = self.clone();
        async move {
            yield_once().await;
            file.disk.operate()?;
            let mut content = file.content.borrow_mut();
            content.durable = content.visible.clone();
            Ok(())
        }
    }
    fn write_zeros(&self, offset: u64, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let file = self.clone();
        async move {
            yield_once().await;
            file.write(offset, &vec![0; len as usize], Durability::Later).map(drop)
        }
    }
    fn set_len(&self, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let file = self.clone();
        async move {
            yield_once().await;
            file.disk.operate()?;
            file.content.borrow_mut().visible.resize(len as usize, 0);
            Ok(())
        }
    }
    fn size(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        let size = self.content.borrow().visible.len() as u64;
        async move { Ok(size) }
    }
}
