//! `SimDisk`: the simulated file system behind the `Disk` trait.

use super::core::{Core, Flight, Label, Landing};
use super::faults::{Operation, Verdict};
use super::file::SimFile;
use super::image::{DiskImage, EROFS, LateWrite, os_error};
use super::watch::DiskRequest;
use crate::runtime::platform::{Caching, Disk, FileStamp, OpenMode};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// A handle on the simulated disk of one machine.
#[derive(Clone)]
pub struct SimDisk(pub(super) Rc<Core>);

impl Disk for SimDisk {
    type File = SimFile;

    async fn open(&self, path: &Path, mode: OpenMode, caching: Caching) -> io::Result<SimFile> {
        let operation = if mode == OpenMode::CreateNew { Operation::Create } else { Operation::Open };
        let read_only_refuses = mode != OpenMode::Read;
        let target = path.to_owned();
        let inode = run_on_path(&self.0, operation, path, move |image| {
            if read_only_refuses && image.read_only {
                return Err(os_error(EROFS));
            }
            let inode = match mode {
                OpenMode::CreateNew => image.create_file(&target)?,
                OpenMode::Read | OpenMode::ReadWrite => image.find_file(&target)?,
            };
            Ok(inode)
        });
        let inode = inode.await?;
        Ok(SimFile::new(&self.0, inode, path, mode != OpenMode::Read, caching))
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let target = path.to_owned();
        run_on_path(&self.0, Operation::CreateDir, path, move |image| image.create_dir_all(&target)).await
    }

    async fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let target = path.to_owned();
        let mut names = run_on_path(&self.0, Operation::ReadDir, path, move |image| image.read_dir(&target)).await?;
        // The trait promises no order, so that none may be relied on.
        let mut random = self.0.disk_random.borrow_mut();
        for last in (1..names.len()).rev() {
            names.swap(last, random.below(last as u64 + 1) as usize);
        }
        Ok(names)
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.show(&DiskRequest::Rename { from, to });
        let (source, target) = (from.to_owned(), to.to_owned());
        run_on_path(&self.0, Operation::Rename, to, move |image| image.rename(&source, &target)).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let target = path.to_owned();
        run_on_path(&self.0, Operation::Remove, path, move |image| image.remove_file(&target)).await
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let target = path.to_owned();
        run_on_path(&self.0, Operation::Remove, path, move |image| image.remove_dir_all(&target)).await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let label = label(Operation::SyncDir, path, 0, 0);
        let verdict = self.0.judge(&label, 0, 1);
        let (directory, mark) = self.0.image.borrow().sync_dir_mark(path)?;
        let error = verdict.error;
        let effect = move |image: &mut DiskImage, landing| {
            if landing == Landing::Completed {
                image.sync_dir(directory, mark, error.is_none());
            }
            error.map_or(Ok(()), |number| Err(os_error(number)))
        };
        submit(&self.0, label, &verdict, 0, None, effect).await
    }

    async fn stamp(&self, path: &Path) -> io::Result<FileStamp> {
        let target = path.to_owned();
        run_on_path(&self.0, Operation::Stamp, path, move |image| {
            let inode = image.find(&target)?;
            if image.is_directory(inode) {
                return Ok(FileStamp { inode, ..FileStamp::default() });
            }
            let node = image.file(inode)?;
            Ok(FileStamp { size_bytes: node.content.live().len(), modified_ns: i128::from(node.modified_ns), inode })
        })
        .await
    }

    async fn space_available(&self, path: &Path) -> io::Result<u64> {
        run_on_path(&self.0, Operation::Stamp, path, |image| Ok(image.free_bytes())).await
    }
}

impl Core {
    /// Decides what is to happen to an operation. `unit` is what a short transfer is a multiple of.
    pub(super) fn judge(&self, label: &Label, len: usize, unit: usize) -> Verdict {
        let mut random = self.disk_random.borrow_mut();
        self.faults.borrow_mut().judge(label.operation, &label.path, len, unit, &mut random)
    }
}

pub(super) fn label(operation: Operation, path: &Path, offset: u64, len: usize) -> Label {
    Label { operation, path: path.to_string_lossy().into(), offset, len: len as u64 }
}

/// Puts an operation under way. It takes effect when its time comes, even when the future is dropped.
pub(super) fn submit<T: 'static>(
    core: &Rc<Core>,
    label: Label,
    verdict: &Verdict,
    content_hash: u64,
    late_write: Option<LateWrite>,
    effect: impl FnOnce(&mut DiskImage, Landing) -> T + 'static,
) -> impl Future<Output = T> + 'static {
    let slot: Rc<RefCell<(Option<T>, Option<Waker>)>> = Rc::new(RefCell::new((None, None)));
    let filled = Rc::clone(&slot);
    let effect = Box::new(move |image: &mut DiskImage, landing| {
        let value = effect(image, landing);
        let mut filled = filled.borrow_mut();
        filled.0 = Some(value);
        if let Some(waker) = filled.1.take() {
            waker.wake();
        }
    });
    core.launch(Flight { label, effect, late_write }, verdict, content_hash);
    poll_fn(move |context| {
        let mut slot = slot.borrow_mut();
        match slot.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                slot.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    })
}

async fn run_on_path<T: 'static>(
    core: &Rc<Core>,
    operation: Operation,
    path: &Path,
    run: impl FnOnce(&mut DiskImage) -> io::Result<T> + 'static,
) -> io::Result<T> {
    let label = label(operation, path, 0, 0);
    let verdict = core.judge(&label, 0, 1);
    let error = verdict.error;
    let effect = move |image: &mut DiskImage, _| match error {
        Some(number) => Err(os_error(number)),
        None if operation.changes_disk() && image.read_only => Err(os_error(EROFS)),
        None => run(image),
    };
    submit(core, label, &verdict, 0, None, effect).await
}
