//! `SimFile`: an open file on the simulated disk. Clones share one handle, which closes with the last of them.

use super::core::{Core, Landing};
use super::disk::{label, submit};
use super::faults::Operation;
use super::image::{DiskImage, EBADF, EINVAL, ENOSPC, EROFS, Inode, LateWrite, os_error};
use super::trace::hash_bytes;
use super::watch::DiskRequest;
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{Caching, DiskFile, Durability};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// An open simulated file.
#[derive(Clone)]
pub struct SimFile(Rc<OpenFile>);

struct OpenFile {
    core: Rc<Core>,
    inode: Inode,
    path: PathBuf,
    writable: bool,
    /// `None` through the page cache.
    alignment: Option<usize>,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // Never borrowed here: effects hold no file handle.
        if let Ok(mut image) = self.core.image.try_borrow_mut() {
            image.closed(self.inode);
        }
    }
}

impl SimFile {
    pub(super) fn new(core: &Rc<Core>, inode: Inode, path: &Path, writable: bool, caching: Caching) -> Self {
        core.image.borrow_mut().opened(inode);
        let alignment = core.direct_alignment.get().filter(|_| caching == Caching::Direct);
        Self(Rc::new(OpenFile { core: Rc::clone(core), inode, path: path.to_owned(), writable, alignment }))
    }

    fn check_aligned(&self, offset: u64, len: usize) -> io::Result<()> {
        let unit = self.alignment();
        let fits = offset.is_multiple_of(unit as u64) && len.is_multiple_of(unit);
        if fits { Ok(()) } else { Err(os_error(EINVAL)) }
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.0.writable { Ok(()) } else { Err(os_error(EBADF)) }
    }

    async fn read(&self, offset: u64, buffer: &mut AlignedBuffer) -> io::Result<usize> {
        self.check_aligned(offset, buffer.len())?;
        let file = &self.0;
        let label = label(Operation::Read, &file.path, offset, buffer.len());
        let verdict = file.core.judge(&label, buffer.len(), self.alignment());
        let (inode, len, error, rot) = (file.inode, verdict.len, verdict.error, verdict.rot);
        let effect = move |image: &mut DiskImage, _| -> io::Result<Vec<u8>> {
            if let Some(number) = error {
                return Err(os_error(number));
            }
            if let Some(random) = rot {
                rot_one_bit(image, inode, offset, len, random)?;
            }
            let mut bytes = vec![0; len];
            let read = image.file(inode)?.content.live().read(offset, &mut bytes);
            bytes.truncate(read);
            Ok(bytes)
        };
        let bytes = submit(&file.core, label, &verdict, 0, None, effect).await?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    async fn write(&self, offset: u64, bytes: Rc<[u8]>, durability: Durability) -> io::Result<usize> {
        self.check_writable()?;
        self.check_aligned(offset, bytes.len())?;
        if bytes.is_empty() {
            return Ok(0);
        }
        let file = &self.0;
        let operation = match durability {
            Durability::Later => Operation::Write,
            Durability::Synced => Operation::SyncedWrite,
        };
        file.core.show(&DiskRequest::Write { path: &file.path, inode: file.inode, offset, bytes: &bytes });
        let label = label(operation, &file.path, offset, bytes.len());
        let unit = self.alignment();
        let verdict = file.core.judge(&label, bytes.len(), unit);
        let content_hash = hash_bytes(&bytes);
        let late_write = LateWrite { inode: file.inode, offset, bytes: Rc::clone(&bytes) };
        let (inode, core) = (file.inode, Rc::clone(&file.core));
        let (len, error) = (verdict.len, verdict.error);
        let effect = move |image: &mut DiskImage, landing| {
            // One that fails may be torn within a block; that is no want of space.
            let unit = if error.is_some() { 1 } else { unit };
            let len = room_for(image, inode, offset, len, unit)?;
            let part: Rc<[u8]> = if len == bytes.len() { bytes } else { Rc::from(&bytes[..len]) };
            let node = image.file_mut(inode)?;
            node.modified_ns = core.now_ns.get();
            match error {
                Some(number) => {
                    node.content.write_doomed(offset, part);
                    return Err(os_error(number));
                }
                None if durability == Durability::Synced && landing == Landing::Completed => {
                    node.content.write_synced(offset, part);
                }
                None => node.content.write(offset, part),
            }
            Ok(len)
        };
        submit(&file.core, label, &verdict, content_hash, Some(late_write), effect).await
    }

    /// An operation on the whole file that moves no bytes.
    async fn run<T: 'static>(
        &self,
        operation: Operation,
        (offset, len): (u64, u64),
        run: impl FnOnce(&mut DiskImage, Inode, Landing) -> io::Result<T> + 'static,
    ) -> io::Result<T> {
        let file = &self.0;
        let mut label = label(operation, &file.path, offset, 0);
        label.len = len;
        let verdict = file.core.judge(&label, 0, 1);
        let (inode, error) = (file.inode, verdict.error);
        let effect = move |image: &mut DiskImage, landing| match error {
            Some(number) => Err(os_error(number)),
            None if operation.changes_disk() && image.read_only => Err(os_error(EROFS)),
            None => run(image, inode, landing),
        };
        submit(&file.core, label, &verdict, 0, None, effect).await
    }

    async fn sync(&self) -> io::Result<()> {
        let file = &self.0;
        let label = label(Operation::Sync, &file.path, 0, 0);
        let verdict = file.core.judge(&label, 0, 1);
        let (inode, error) = (file.inode, verdict.error);
        let mark = file.core.image.borrow().file(inode)?.content.sync_mark();
        let effect = move |image: &mut DiskImage, landing| {
            let content = &mut image.file_mut(inode)?.content;
            match (error, landing) {
                (Some(number), _) => {
                    content.sync_failed(mark);
                    Err(os_error(number))
                }
                (None, Landing::Completed) => {
                    content.sync(mark);
                    Ok(())
                }
                (None, Landing::Interrupted) => Ok(()),
            }
        };
        submit(&file.core, label, &verdict, 0, None, effect).await
    }
}

impl DiskFile for SimFile {
    fn alignment(&self) -> usize {
        self.0.alignment.unwrap_or(1)
    }

    fn is_direct(&self) -> bool {
        self.0.alignment.is_some()
    }

    fn read_at(
        &self,
        offset: u64,
        mut buffer: AlignedBuffer,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuffer)> + 'static {
        let file = self.clone();
        async move {
            let result = file.read(offset, &mut buffer).await;
            (result, buffer)
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
            let result = file.write(offset, Rc::from(&buffer[..]), durability).await;
            (result, buffer)
        }
    }

    fn sync_data(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let file = self.clone();
        async move { file.sync().await }
    }

    fn write_zeros(&self, offset: u64, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let file = self.clone();
        async move {
            file.check_writable()?;
            file.run(Operation::WriteZeros, (offset, len), move |image, inode, _| {
                let free_bytes = image.free_bytes();
                let content = &mut image.file_mut(inode)?.content;
                let fitting = content.live().fitting_len(offset, len, free_bytes);
                if fitting > 0 {
                    content.zero(offset, fitting);
                }
                if fitting < len { Err(os_error(ENOSPC)) } else { Ok(()) }
            })
            .await
        }
    }

    fn set_len(&self, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let file = self.clone();
        async move {
            file.check_writable()?;
            file.run(Operation::SetLen, (len, 0), move |image, inode, _| {
                image.file_mut(inode)?.content.set_len(len);
                Ok(())
            })
            .await
        }
    }

    fn size(&self) -> impl Future<Output = io::Result<u64>> + 'static {
        let file = self.clone();
        async move { file.run(Operation::Size, (0, 0), |image, inode, _| Ok(image.file(inode)?.content.live().len())).await }
    }
}

/// How much of a write the file system has room for, in whole units.
fn room_for(image: &DiskImage, inode: Inode, offset: u64, len: usize, unit: usize) -> io::Result<usize> {
    if image.read_only {
        return Err(os_error(EROFS));
    }
    let fitting = image.file(inode)?.content.live().fitting_len(offset, len as u64, image.free_bytes());
    let fitting = fitting as usize / unit * unit;
    if fitting == 0 && len > 0 { Err(os_error(ENOSPC)) } else { Ok(fitting) }
}

fn rot_one_bit(image: &mut DiskImage, inode: Inode, offset: u64, len: usize, random: u64) -> io::Result<()> {
    let content = &mut image.file_mut(inode)?.content;
    let present = content.live().len().saturating_sub(offset).min(len as u64);
    if present > 0 {
        content.rot_bit(offset * 8 + random % (present * 8));
    }
    Ok(())
}
