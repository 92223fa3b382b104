//! Peeking at and poking a disk at rest: what an operator, a failing device or an attacker does to files.
//!
//! Every edit is durable at once. On a machine that runs, use `Sim::poke`.

use super::content::Content;
use super::image::{DiskImage, EINVAL, os_error};
use std::io;
use std::path::{Path, PathBuf};

impl DiskImage {
    /// All files with their lengths in bytes, in path order.
    pub fn list_files(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut waiting = vec![PathBuf::from("/")];
        while let Some(path) = waiting.pop() {
            for name in self.read_dir(&path).unwrap_or_default() {
                let child = path.join(name);
                match self.find(&child) {
                    Ok(inode) if self.is_directory(inode) => waiting.push(child),
                    Ok(inode) => found.push((child, self.file(inode).map_or(0, |node| node.content.live().len()))),
                    Err(_) => {}
                }
            }
        }
        found.sort();
        found
    }

    /// Whether the path names a file or directory.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.find(path.as_ref()).is_ok()
    }

    /// The bytes of a file.
    pub fn peek(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        Ok(self.file(self.find_file(path.as_ref())?)?.content.live().to_vec())
    }

    /// Bytes of a file, named by its inode as a `DiskRequest` names it, as a power cut right now would leave them if
    /// nothing unsynced survived it; none where no stable name leads to the file.
    pub fn peek_stable(&self, inode: u64, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let found = self.file(inode).ok().filter(|_| self.is_reachable_stably(inode));
        let read = found.map_or(0, |node| node.content.stable().read(offset, &mut bytes));
        bytes.truncate(read);
        bytes
    }

    /// Creates or replaces a file, with its directories.
    pub fn replace(&mut self, path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
        let path = path.as_ref();
        let inode = match self.find_file(path) {
            Ok(inode) => inode,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
                self.create_file(path)?
            }
            Err(error) => return Err(error),
        };
        self.settle_names();
        self.file_mut(inode)?.content = Content::stored(bytes);
        Ok(())
    }

    /// Writes bytes into a file.
    pub fn poke(&mut self, path: impl AsRef<Path>, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let inode = self.find_file(path.as_ref())?;
        self.file_mut(inode)?.content.edit(|pages| pages.write(offset, bytes));
        Ok(())
    }

    /// Flips one bit of a file, counted from its start.
    pub fn flip_bit(&mut self, path: impl AsRef<Path>, bit: u64) -> io::Result<()> {
        let inode = self.find_file(path.as_ref())?;
        let node = self.file_mut(inode)?;
        if bit / 8 >= node.content.live().len() {
            return Err(os_error(EINVAL));
        }
        node.content.rot_bit(bit);
        Ok(())
    }

    /// Cuts or extends a file.
    pub fn truncate(&mut self, path: impl AsRef<Path>, len: u64) -> io::Result<()> {
        let inode = self.find_file(path.as_ref())?;
        self.file_mut(inode)?.content.edit(|pages| pages.set_len(len));
        Ok(())
    }

    /// Copies a file over another name.
    pub fn copy(&mut self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        let bytes = self.peek(from)?;
        self.replace(to, &bytes)
    }

    /// Moves a file over another name.
    pub fn move_file(&mut self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        self.rename(from.as_ref(), to.as_ref())?;
        self.settle_names();
        Ok(())
    }

    /// Removes a file, or a directory with all it holds.
    pub fn remove(&mut self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        if self.is_directory(self.find(path)?) {
            self.remove_dir_all(path)?
        } else {
            self.remove_file(path)?
        }
        self.settle_names();
        Ok(())
    }

    /// The first file whose bytes or path hold the needle: the hunt for plaintext.
    pub fn find_bytes(&self, needle: &[u8]) -> Option<PathBuf> {
        let holds = |haystack: &[u8]| haystack.windows(needle.len().max(1)).any(|window| window == needle);
        let mut files = self.list_files().into_iter().map(|(path, _)| path);
        files
            .find(|path| holds(path.as_os_str().as_encoded_bytes()) || self.peek(path).is_ok_and(|bytes| holds(&bytes)))
    }

    /// Limits the file system; `None` lifts the limit.
    pub fn set_capacity_bytes(&mut self, capacity_bytes: Option<u64>) {
        self.capacity_bytes = capacity_bytes;
    }

    /// Makes every change fail with EROFS, or no longer.
    pub fn set_read_only(&mut self, read_only: bool) {
        self.read_only = read_only;
    }
}
