//! The simulated device with its file system, as plain data: what is live, what is stable, what is in between.
//!
//! Names follow the rules of a journal that promises no more than POSIX does: a name created, renamed or removed is
//! stable only after its directory was synced, and each such change may or may not survive a power loss by itself; a
//! rename is atomic, and one across directories needs both synced. Paths are relative to one root, `/` or not.

use super::content::{Content, Survival};
use super::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};
use std::rc::Rc;

pub(super) const ENOENT: i32 = 2;
pub(super) const EIO: i32 = 5;
pub(super) const EBADF: i32 = 9;
pub(super) const EEXIST: i32 = 17;
pub(super) const ENOTDIR: i32 = 20;
pub(super) const EISDIR: i32 = 21;
pub(super) const EINVAL: i32 = 22;
pub(super) const ENOSPC: i32 = 28;
pub(super) const EROFS: i32 = 30;

/// Names a file or directory for ever; never given out twice.
pub(super) type Inode = u64;
const ROOT: Inode = 1;

pub(super) fn os_error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

#[derive(Clone, Default)]
pub(super) struct FileNode {
    pub(super) content: Content,
    pub(super) modified_ns: u64,
    links: u32,
    open: u32,
}

#[derive(Clone, Default)]
struct Directory {
    live: BTreeMap<String, Inode>,
    stable: BTreeMap<String, Inode>,
}

#[derive(Clone)]
enum NameChange {
    Link {
        directory: Inode,
        name: String,
        inode: Inode,
    },
    /// `only`: unless the name leads elsewhere by then.
    Unlink {
        directory: Inode,
        name: String,
        only: Option<Inode>,
    },
    Rename {
        from: (Inode, String),
        to: (Inode, String),
        inode: Inode,
    },
}

#[derive(Clone)]
struct PendingName {
    number: u64,
    change: NameChange,
    /// Directories that a sync has not covered yet.
    unsynced: Vec<Inode>,
    doomed: bool,
}

/// A simulated disk at rest. Clone it to try several things on the same state; see `damage.rs` for peeking and poking.
#[derive(Clone)]
pub struct DiskImage {
    files: BTreeMap<Inode, FileNode>,
    directories: BTreeMap<Inode, Directory>,
    pending_names: Vec<PendingName>,
    next_number: u64,
    next_inode: Inode,
    pub(super) capacity_bytes: Option<u64>,
    pub(super) read_only: bool,
    /// Simulated time when the image was taken; a machine started on it begins later.
    pub(super) clock_ns: u64,
    /// Writes that were in flight when the process was killed, and may land at any time after.
    pub(super) late_writes: Vec<LateWrite>,
    torn_writes: u64,
}

/// A write that outlives the process that issued it.
#[derive(Clone)]
pub(super) struct LateWrite {
    pub(super) inode: Inode,
    pub(super) offset: u64,
    pub(super) bytes: Rc<[u8]>,
}

impl Default for DiskImage {
    fn default() -> Self {
        Self {
            files: BTreeMap::new(),
            directories: BTreeMap::from([(ROOT, Directory::default())]),
            pending_names: Vec::new(),
            next_number: 0,
            next_inode: ROOT + 1,
            capacity_bytes: None,
            read_only: false,
            clock_ns: 0,
            late_writes: Vec::new(),
            torn_writes: 0,
        }
    }
}

impl DiskImage {
    /// The disk as it is found after a power loss. The same seed gives the same outcome.
    pub fn after_power_loss(&self, survival: Survival, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut image = self.clone();
        image.late_writes.clear();
        for pending in std::mem::take(&mut image.pending_names) {
            let survives = match survival {
                Survival::Random => random.below(2) == 0,
                Survival::Nothing => false,
                Survival::Everything => true,
            };
            if survives {
                image.apply_stable(&pending.change);
            }
        }
        for node in image.files.values_mut() {
            let (content, torn) = node.content.after_power_loss(survival, &mut random);
            node.content = content;
            image.torn_writes += torn;
        }
        for directory in image.directories.values_mut() {
            directory.live = directory.stable.clone();
        }
        image.process_ended();
        image.drop_unreachable();
        image
    }

    /// Writes that survived a power loss in part, over the life of the disk.
    pub fn torn_writes(&self) -> u64 {
        self.torn_writes
    }

    /// Writes of killed processes that may still land.
    pub fn late_writes(&self) -> usize {
        self.late_writes.len()
    }

    /// Bytes of files that have a name or are open.
    pub fn used_bytes(&self) -> u64 {
        let in_use = self.files.values().filter(|node| node.links > 0 || node.open > 0);
        in_use.map(|node| node.content.live().allocated_bytes()).sum()
    }

    /// Bytes that may still be allocated.
    pub fn free_bytes(&self) -> u64 {
        self.capacity_bytes.unwrap_or(1 << 50).saturating_sub(self.used_bytes())
    }

    pub(super) fn file(&self, inode: Inode) -> io::Result<&FileNode> {
        self.files.get(&inode).ok_or_else(|| os_error(EIO))
    }

    pub(super) fn file_mut(&mut self, inode: Inode) -> io::Result<&mut FileNode> {
        self.files.get_mut(&inode).ok_or_else(|| os_error(EIO))
    }

    pub(super) fn opened(&mut self, inode: Inode) {
        if let Some(node) = self.files.get_mut(&inode) {
            node.open += 1;
        }
    }

    pub(super) fn closed(&mut self, inode: Inode) {
        if let Some(node) = self.files.get_mut(&inode) {
            node.open = node.open.saturating_sub(1);
        }
    }

    /// The process that held files open is gone, and what it failed to sync may be tried again by the next one: a
    /// restart heals, or no name whose directory once failed to sync could ever be used again.
    pub(super) fn process_ended(&mut self) {
        for node in self.files.values_mut() {
            node.open = 0;
            node.content.forgive();
        }
        self.pending_names.iter_mut().for_each(|pending| pending.doomed = false);
    }

    pub(super) fn find_file(&self, path: &Path) -> io::Result<Inode> {
        let inode = self.find(path)?;
        if self.directories.contains_key(&inode) { Err(os_error(EISDIR)) } else { Ok(inode) }
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Inode> {
        let (directory, name) = self.parent(path)?;
        if self.entries(directory)?.contains_key(&name) {
            return Err(os_error(EEXIST));
        }
        let inode = self.take_inode();
        self.files.insert(inode, FileNode::default());
        self.link(directory, name, inode);
        Ok(inode)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut directory = ROOT;
        for name in components(path)? {
            directory = match self.entries(directory)?.get(&name) {
                Some(inode) => *inode,
                None => {
                    let inode = self.take_inode();
                    self.directories.insert(inode, Directory::default());
                    self.link(directory, name, inode);
                    inode
                }
            };
        }
        self.entries(directory).map(drop)
    }

    pub(super) fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        Ok(self.entries(self.find(path)?)?.keys().cloned().collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.find(from)?;
        let (from, to) = (self.parent(from)?, self.parent(to)?);
        if from == to {
            return Ok(());
        }
        if let Some(replaced) = self.entries(to.0)?.get(&to.1).copied() {
            if self.directories.contains_key(&replaced) {
                return Err(os_error(EISDIR));
            }
            self.unlinked(replaced);
        }
        let mut unsynced = vec![from.0];
        if to.0 != from.0 {
            unsynced.push(to.0);
        }
        self.change_name(NameChange::Rename { from, to, inode }, unsynced);
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.find_file(path)?;
        let (directory, name) = self.parent(path)?;
        self.unlinked(inode);
        self.change_name(NameChange::Unlink { directory, name, only: None }, vec![directory]);
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let inode = match self.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for name in self.entries(inode)?.keys().cloned().collect::<Vec<_>>() {
            let child = path.join(&name);
            if self.find(&child).is_ok_and(|inode| self.directories.contains_key(&inode)) {
                self.remove_dir_all(&child)?;
            } else {
                self.remove_file(&child)?;
            }
        }
        if inode == ROOT {
            return Ok(());
        }
        let (directory, name) = self.parent(path)?;
        self.change_name(NameChange::Unlink { directory, name, only: None }, vec![directory]);
        Ok(())
    }

    /// The directory, and what a sync of it issued now will cover.
    pub(super) fn sync_dir_mark(&self, path: &Path) -> io::Result<(Inode, u64)> {
        let directory = self.find(path)?;
        self.entries(directory)?;
        Ok((directory, self.next_number))
    }

    /// A directory sync issued at `mark` has completed or failed.
    pub(super) fn sync_dir(&mut self, directory: Inode, mark: u64, succeeded: bool) {
        let mut kept = Vec::new();
        for mut pending in std::mem::take(&mut self.pending_names) {
            if pending.number < mark && !pending.doomed && pending.unsynced.contains(&directory) {
                if succeeded {
                    pending.unsynced.retain(|unsynced| *unsynced != directory);
                    if pending.unsynced.is_empty() {
                        self.apply_stable(&pending.change);
                        // Older changes of the same name must not, after a power loss, undo it.
                        kept = kept.into_iter().filter_map(|older| before(older, &pending.change)).collect();
                        continue;
                    }
                } else {
                    pending.doomed = true;
                }
            }
            kept.push(pending);
        }
        self.pending_names = kept;
    }

    /// Follows live names from the root.
    pub(super) fn find(&self, path: &Path) -> io::Result<Inode> {
        let mut inode = ROOT;
        for name in components(path)? {
            inode = *self.entries(inode)?.get(&name).ok_or_else(|| os_error(ENOENT))?;
        }
        Ok(inode)
    }

    pub(super) fn is_directory(&self, inode: Inode) -> bool {
        self.directories.contains_key(&inode)
    }

    /// Forgets, for edits from outside, that names are not stable yet.
    pub(super) fn settle_names(&mut self) {
        for pending in std::mem::take(&mut self.pending_names) {
            self.apply_stable(&pending.change);
        }
    }

    fn entries(&self, directory: Inode) -> io::Result<&BTreeMap<String, Inode>> {
        Ok(&self.directories.get(&directory).ok_or_else(|| os_error(ENOTDIR))?.live)
    }

    fn parent(&self, path: &Path) -> io::Result<(Inode, String)> {
        let mut names = components(path)?;
        let name = names.pop().ok_or_else(|| os_error(EINVAL))?;
        let mut directory = ROOT;
        for name in names {
            directory = *self.entries(directory)?.get(&name).ok_or_else(|| os_error(ENOENT))?;
        }
        self.entries(directory)?;
        Ok((directory, name))
    }

    fn take_inode(&mut self) -> Inode {
        let inode = self.next_inode;
        self.next_inode += 1;
        inode
    }

    fn link(&mut self, directory: Inode, name: String, inode: Inode) {
        if let Some(node) = self.files.get_mut(&inode) {
            node.links += 1;
        }
        self.change_name(NameChange::Link { directory, name, inode }, vec![directory]);
    }

    fn unlinked(&mut self, inode: Inode) {
        if let Some(node) = self.files.get_mut(&inode) {
            node.links = node.links.saturating_sub(1);
        }
    }

    fn change_name(&mut self, change: NameChange, unsynced: Vec<Inode>) {
        apply_name(&mut self.directories, &change, |directory| &mut directory.live);
        let number = self.next_number;
        self.next_number += 1;
        self.pending_names.push(PendingName { number, change, unsynced, doomed: false });
    }

    fn apply_stable(&mut self, change: &NameChange) {
        apply_name(&mut self.directories, change, |directory| &mut directory.stable);
    }

    /// Whether stable names lead to a file.
    pub(super) fn is_reachable_stably(&self, inode: Inode) -> bool {
        let (mut seen, mut waiting) = (BTreeSet::new(), vec![ROOT]);
        while let Some(directory) = waiting.pop() {
            let Some(entries) = self.directories.get(&directory).filter(|_| seen.insert(directory)) else { continue };
            if entries.stable.values().any(|child| *child == inode) {
                return true;
            }
            waiting.extend(entries.stable.values());
        }
        false
    }

    /// After a power loss: what no stable name leads to is gone.
    fn drop_unreachable(&mut self) {
        let (mut reachable, mut waiting) = (BTreeSet::new(), vec![ROOT]);
        let mut links: BTreeMap<Inode, u32> = BTreeMap::new();
        while let Some(inode) = waiting.pop() {
            if reachable.insert(inode)
                && let Some(directory) = self.directories.get(&inode)
            {
                waiting.extend(directory.stable.values());
                directory.stable.values().for_each(|child| *links.entry(*child).or_default() += 1);
            }
        }
        self.directories.retain(|inode, _| reachable.contains(inode));
        self.files.retain(|inode, _| reachable.contains(inode));
        for (inode, node) in &mut self.files {
            node.links = links.get(inode).copied().unwrap_or(0);
        }
    }
}

/// What is left of an older change, which has not become stable, once a newer one has.
fn before(mut older: PendingName, newer: &NameChange) -> Option<PendingName> {
    let settled = |directory: &Inode, name: &String| match newer {
        NameChange::Link { directory: of, name: other, .. } | NameChange::Unlink { directory: of, name: other, .. } => {
            (of, other) == (directory, name)
        }
        NameChange::Rename { from, to, .. } => [from, to].iter().any(|end| (&end.0, &end.1) == (directory, name)),
    };
    match &older.change {
        NameChange::Link { directory, name, .. } | NameChange::Unlink { directory, name, .. } => {
            if settled(directory, name) {
                return None;
            }
        }
        NameChange::Rename { from, to, inode } => {
            if settled(&to.0, &to.1) {
                older.change = NameChange::Unlink { directory: from.0, name: from.1.clone(), only: Some(*inode) };
            }
        }
    }
    Some(older)
}

fn apply_name(
    directories: &mut BTreeMap<Inode, Directory>,
    change: &NameChange,
    side: impl Fn(&mut Directory) -> &mut BTreeMap<String, Inode>,
) {
    let mut edit = |directory: &Inode, edit: &mut dyn FnMut(&mut BTreeMap<String, Inode>)| {
        if let Some(directory) = directories.get_mut(directory) {
            edit(side(directory));
        }
    };
    match change {
        NameChange::Link { directory, name, inode } => edit(directory, &mut |entries| {
            entries.insert(name.clone(), *inode);
        }),
        NameChange::Unlink { directory, name, only } => edit(directory, &mut |entries| {
            if only.is_none() || entries.get(name) == only.as_ref() {
                entries.remove(name);
            }
        }),
        NameChange::Rename { from, to, inode } => {
            edit(&from.0, &mut |entries| {
                if entries.get(&from.1) == Some(inode) {
                    entries.remove(&from.1);
                }
            });
            edit(&to.0, &mut |entries| {
                entries.insert(to.1.clone(), *inode);
            });
        }
    }
}

fn components(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().ok_or_else(|| os_error(EINVAL))?.to_owned()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(os_error(EINVAL)),
        }
    }
    Ok(names)
}
