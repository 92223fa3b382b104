//! A platform for this room's tests: files in memory, a clock that is set by hand, failures on demand.

use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::*;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, ready};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// All four traits at once; clones share everything.
#[derive(Clone, Default)]
pub struct Memory(Rc<State>);

#[derive(Default)]
struct State {
    files: RefCell<BTreeMap<PathBuf, Content>>,
    synced_directories: RefCell<BTreeSet<PathBuf>>,
    unix_ms: Cell<u64>,
    inodes: Cell<u64>,
    fail: RefCell<Option<(&'static str, ErrorKind)>>,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Rc<RefCell<Vec<u8>>>,
    is_synced: Rc<Cell<bool>>,
    modified_ms: u64,
    inode: u64,
}

impl Memory {
    /// Writes a file as an operator's editor would, in place.
    pub fn write(&self, path: &str, bytes: &[u8]) {
        let mut content = self.0.files.borrow_mut().remove(Path::new(path)).unwrap_or_else(|| self.fresh());
        (content.bytes, content.modified_ms) = (Rc::new(RefCell::new(bytes.to_vec())), self.0.unix_ms.get());
        self.0.files.borrow_mut().insert(path.into(), content);
    }

    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.0.files.borrow().get(Path::new(path)).map(|content| content.bytes.borrow().clone())
    }

    pub fn remove(&self, path: &str) {
        self.0.files.borrow_mut().remove(Path::new(path));
    }

    /// Whether content and name of a file would survive a crash.
    pub fn is_durable(&self, path: &str) -> bool {
        let path = Path::new(path);
        let files = self.0.files.borrow();
        files.get(path).is_some_and(|content| content.is_synced.get())
            && self.0.synced_directories.borrow().contains(path.parent().expect("a file has a directory"))
    }

    pub fn names(&self) -> Vec<String> {
        self.0.files.borrow().keys().map(|path| path.display().to_string()).collect()
    }

    pub fn pass(&self, ms: u64) {
        self.0.unix_ms.set(self.0.unix_ms.get() + ms);
    }

    /// The next operation of that name fails once.
    pub fn fail(&self, operation: &'static str, kind: ErrorKind) {
        *self.0.fail.borrow_mut() = Some((operation, kind));
    }

    fn fresh(&self) -> Content {
        self.0.inodes.set(self.0.inodes.get() + 1);
        Content { inode: self.0.inodes.get(), modified_ms: self.0.unix_ms.get(), ..Content::default() }
    }

    fn may(&self, operation: &'static str) -> io::Result<()> {
        let mut fail = self.0.fail.borrow_mut();
        match *fail {
            Some((failing, kind)) if failing == operation => {
                *fail = None;
                Err(kind.into())
            }
            _ => Ok(()),
        }
    }

    fn names_change_in(&self, path: &Path) {
        self.0.synced_directories.borrow_mut().remove(path.parent().expect("a file has a directory"));
    }
}

impl Platform for Memory {
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

impl Disk for Memory {
    type File = MemoryFile;

    async fn open(&self, path: &Path, mode: OpenMode, _: Caching) -> io::Result<MemoryFile> {
        self.may("open")?;
        let exists = self.0.files.borrow().contains_key(path);
        if mode == OpenMode::CreateNew {
            if exists {
                return Err(ErrorKind::AlreadyExists.into());
            }
            let content = self.fresh();
            self.0.files.borrow_mut().insert(path.into(), content);
            self.names_change_in(path);
        }
        let content = self.0.files.borrow().get(path).cloned().ok_or(ErrorKind::NotFound)?;
        Ok(MemoryFile { memory: self.clone(), content })
    }

    async fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        self.may("create_dir_all")
    }

    async fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.may("read_dir")?;
        let files = self.0.files.borrow();
        let inside = files.keys().filter(|file| file.parent() == Some(path));
        Ok(inside.filter_map(|file| Some(file.file_name()?.to_str()?.to_owned())).collect())
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.may("rename")?;
        let content = self.0.files.borrow_mut().remove(from).ok_or(ErrorKind::NotFound)?;
        self.0.files.borrow_mut().insert(to.into(), content);
        self.names_change_in(to);
        Ok(())
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.may("remove_file")?;
        self.names_change_in(path);
        self.0.files.borrow_mut().remove(path).map(|_| ()).ok_or(ErrorKind::NotFound.into())
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.files.borrow_mut().retain(|file, _| !file.starts_with(path));
        Ok(())
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.may("sync_dir")?;
        self.0.synced_directories.borrow_mut().insert(path.into());
        Ok(())
    }

    async fn stamp(&self, path: &Path) -> io::Result<FileStamp> {
        self.may("stamp")?;
        let files = self.0.files.borrow();
        let content = files.get(path).ok_or(ErrorKind::NotFound)?;
        Ok(FileStamp {
            size_bytes: content.bytes.borrow().len() as u64,
            modified_ns: i128::from(content.modified_ms) * 1_000_000,
            inode: content.inode,
        })
    }

    async fn space_available(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

#[derive(Clone)]
pub struct MemoryFile {
    memory: Memory,
    content: Content,
}

/// Transfers are short on purpose.
const TRANSFER_BYTES_MAX: usize = 7;

impl DiskFile for MemoryFile {
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
        let bytes = self.content.bytes.borrow();
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len()).min(TRANSFER_BYTES_MAX);
        buffer[..count].copy_from_slice(&rest[..count]);
        ready((self.memory.may("read_at").map(|()| count), buffer))
    }
    fn write_at(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
        _: Durability,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuffer)> + 'static {
        let result = self.memory.may("write_at").map(|()| {
            let count = buffer.len().min(TRANSFER_BYTES_MAX);
            let mut bytes = self.content.bytes.borrow_mut();
            bytes.truncate(offset as usize);
            bytes.extend_from_slice(&buffer[..count]);
            self.content.is_synced.set(false);
            count
        });
        ready((result, buffer))
    }
    fn sync_data(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let result = self.memory.may("sync_data");
        self.content.is_synced.set(result.is_ok());
        ready(result)
    }
    fn write_zeros(&self, _: u64, _: u64) -> impl Future<Output = io::Result<()>> + 'static {
        ready(Err(ErrorKind::Unsupported.into()))
    }
    fn set_len(&self, _: u64) -> impl Future<Output = io::Result<()>> + 'static {
        ready(Err(ErrorKind::Unsupported.into()))
    }
    fn size(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        ready(Ok(self.content.bytes.borrow().len() as u64))
    }
}

impl Clock for Memory {
    fn now_ns(&self) -> u64 {
        self.0.unix_ms.get() * 1_000_000
    }
    fn unix_ms(&self) -> u64 {
        self.0.unix_ms.get()
    }
    fn sleep(&self, _: Duration) -> impl Future<Output = ()> + 'static {
        ready(())
    }
}

impl Entropy for Memory {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(7);
    }
}

impl Spawn for Memory {
    fn spawn(&self, _: TaskClass, _: impl Future<Output = ()> + 'static) {}
    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        futures_lite::future::yield_now()
    }
    fn yield_if_due(&self) -> impl Future<Output = ()> + 'static {
        ready(())
    }
}
