//! The templates of a store: the files `templates/<schema-id>.json`, and what they compile to, one set a process.
//!
//! Invariants
//! * A file that is there but cannot be read or compiled is *damaged*, never absent: writes to its schema are refused.
//! * A change is in the map only after it is durable, and every change of a state that a shard may have copied raises
//!   the epoch; a shard compares epochs before it uses a copy.
//! * File operations on templates run one at a time, whatever shard they come from. Shard 0 alone calls `put`,
//!   `delete` and `rescan`; any shard may call `load` and `get`.
//! * No lock is held across an await, and none is needed on the hot path (see `shard`).
//!
//! * A damaged template is not handed out either: whoever asks for it is told that it is damaged, and why.
//!
//! Operators may edit the files: `rescan`, called about once a second, notices it by size, time and inode, compiles what
//! is new, and says what it found, so that it can be logged.

use super::template::{Template, TemplateError};
use super::turn::Turn;
use crate::command::{ErrorCode, Failure, check_schema_id};
use crate::limits::{TEMPLATE_BYTES_MAX, TEMPLATES_MAX};
use crate::runtime::platform::{Clock, Disk, Entropy, FileStamp, Platform, Spawn};
use crate::runtime::publish::{TEMPORARY_SUFFIX, parent_of, publish, read_whole};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why the template directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("the template directory {directory} cannot be {action}: {error}")]
pub struct TemplatesError {
    directory: String,
    action: &'static str,
    #[source]
    error: io::Error,
}

/// What is known of one schema's template.
#[derive(Clone)]
pub enum TemplateState {
    /// There is none: any JSON is accepted.
    Absent,
    /// There is a file; nobody has needed it yet, or it has changed.
    Unloaded,
    /// It is compiled.
    Loaded(Arc<Template>),
    /// The file cannot be used, for this reason.
    Damaged(Arc<str>),
}

/// The templates of a store. Shared by all shards.
pub struct Templates {
    directory: PathBuf,
    /// Seed of the shards' maps.
    pub(super) hash_seed: u64,
    epoch: AtomicU64,
    files: Mutex<BTreeMap<String, File>>,
    turn: Turn,
}

/// What a scan found an operator to have done to a template file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// There was none before.
    Added,
    /// It holds another text.
    Changed,
    /// It is gone.
    Removed,
}

struct File {
    /// The file as it was when its state was found; none when the next scan must look again.
    stamp: Option<FileStamp>,
    state: TemplateState,
    /// The last scan did not find it. Editors replace files in two steps, so one scan is not enough to believe it.
    is_missing: bool,
}

/// What a scan found.
#[derive(Default)]
struct Found {
    changes: Vec<(String, FileChange)>,
    to_load: Vec<String>,
}

/// A file changed more recently than this may change again without its time showing it.
const TIME_RESOLUTION_NS: i128 = 50_000_000;
/// Changed templates that one scan compiles; more are compiled at their next use.
const LOADS_PER_SCAN_MAX: usize = 32;
/// How often somebody who asks for a template waits for one that changes while it is loaded.
const LOADS_PER_GET_MAX: usize = 8;
/// What a template file's name ends in.
const FILE_SUFFIX: &str = ".json";

impl Templates {
    /// Opens the directory, making it if need be, and lists its templates. Nothing is compiled yet.
    pub async fn open<P: Platform>(platform: &P, directory: &Path) -> Result<Arc<Self>, TemplatesError> {
        let failed = |action| move |error| TemplatesError { directory: directory.display().to_string(), action, error };
        let disk = platform.disk();
        disk.create_dir_all(directory).await.map_err(failed("created"))?;
        disk.sync_dir(parent_of(directory)).await.map_err(failed("made durable"))?;
        // What a killed process put here and did not sync is about to be in force.
        disk.sync_dir(directory).await.map_err(failed("made durable"))?;
        let templates = Arc::new(Self {
            directory: directory.to_owned(),
            hash_seed: platform.entropy().next_u64(),
            epoch: AtomicU64::new(1),
            files: Mutex::new(BTreeMap::new()),
            turn: Turn::default(),
        });
        // What is there at start is no change, and is compiled on demand.
        templates.scan(platform).await.map_err(failed("read"))?;
        Ok(templates)
    }

    /// Grows with every change.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Ids of all templates, damaged ones included, sorted.
    pub fn ids(&self) -> Vec<String> {
        self.files().keys().cloned().collect()
    }

    /// What is known of a schema's template.
    pub fn state(&self, id: &str) -> TemplateState {
        self.files().get(id).map_or(TemplateState::Absent, |file| file.state.clone())
    }

    /// The file of a template.
    pub fn path_of(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}{FILE_SUFFIX}"))
    }

    /// Damaged templates and why, for the health report.
    pub fn damaged(&self) -> Vec<(String, String)> {
        let damaged = |(id, file): (&String, &File)| match &file.state {
            TemplateState::Damaged(reason) => Some((id.clone(), reason.to_string())),
            _ => None,
        };
        self.files().iter().filter_map(damaged).collect()
    }

    /// Reads and compiles a template that is known but not loaded; does nothing for any other. Afterwards it is
    /// loaded, damaged or gone.
    pub async fn load<P: Platform>(&self, platform: &P, id: &str) {
        if !matches!(self.state(id), TemplateState::Unloaded) {
            return;
        }
        let _turn = self.turn.take().await;
        // Another may have loaded it while this one waited.
        if matches!(self.state(id), TemplateState::Unloaded) {
            self.look_at(platform, id).await;
        }
    }

    /// The text of a template as stored. A damaged one is refused by name.
    pub async fn get<P: Platform>(&self, platform: &P, id: &str) -> Result<Option<Vec<u8>>, Failure> {
        for _ in 0..LOADS_PER_GET_MAX {
            self.load(platform, id).await;
            match self.state(id) {
                TemplateState::Absent => return Ok(None),
                TemplateState::Loaded(template) => return Ok(Some(template.text().to_vec())),
                TemplateState::Damaged(reason) => return Err(self.damaged_failure(id, &reason)),
                // It has changed again.
                TemplateState::Unloaded => {}
            }
        }
        Err(Failure::new(ErrorCode::Overloaded, format!("the template '{id}' is changing: retry")))
    }

    /// Compiles a text and makes it the template of a schema; whether there was none before. When this returns it is
    /// durable and in force for every check that begins later; shards that must have seen it are asked to refresh.
    pub async fn put<P: Platform>(&self, platform: &P, id: &str, text: &[u8]) -> Result<bool, Failure> {
        check_schema_id(id)?;
        let template = Arc::new(Template::compile(text)?);
        let _turn = self.turn.take().await;
        let is_new = !self.files().contains_key(id);
        if is_new && self.files().len() >= TEMPLATES_MAX {
            let message = format!("the store holds {TEMPLATES_MAX} templates, the most allowed; delete some first");
            return Err(Failure::new(ErrorCode::TooLarge, message));
        }
        let path = self.path_of(id);
        if let Err(error) = publish(platform.disk(), &path, text).await {
            self.look_at(platform, id).await;
            let is_in_place = matches!(self.state(id), TemplateState::Loaded(found) if found.text() == text);
            if error.kind() == io::ErrorKind::StorageFull && !is_in_place {
                let message = format!("the disk is full: template '{id}' was not stored; free space and try again");
                return Err(Failure::new(ErrorCode::OutOfSpace, message));
            }
            return Err(unknown_outcome(id, "stored", &error));
        }
        let stamp = self.settled_stamp(platform, id).await;
        self.install(id, stamp, TemplateState::Loaded(template));
        Ok(is_new)
    }

    /// Removes a template; `NotFound` when there is none. When this returns it is durable and in force.
    pub async fn delete<P: Platform>(&self, platform: &P, id: &str) -> Result<(), Failure> {
        check_schema_id(id)?;
        let _turn = self.turn.take().await;
        if !self.files().contains_key(id) {
            return Err(Failure::new(ErrorCode::NotFound, format!("there is no template '{id}'")));
        }
        let removed = match platform.disk().remove_file(&self.path_of(id)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => platform.disk().sync_dir(&self.directory).await,
        };
        if let Err(error) = removed {
            self.look_at(platform, id).await;
            return Err(unknown_outcome(id, "removed", &error));
        }
        self.forget(id);
        Ok(())
    }

    /// Compares the files with what is known of them, and returns what an operator has changed: new and changed ones
    /// are compiled, removed ones forgotten once two scans in a row have missed them. After an error what was known
    /// stays in force.
    pub async fn rescan<P: Platform>(&self, platform: &P) -> io::Result<Vec<(String, FileChange)>> {
        let found = self.scan(platform).await?;
        for id in found.to_load.iter().take(LOADS_PER_SCAN_MAX) {
            self.load(platform, id).await;
            platform.spawn().yield_if_due().await;
        }
        Ok(found.changes)
    }

    async fn scan<P: Platform>(&self, platform: &P) -> io::Result<Found> {
        let names = platform.disk().read_dir(&self.directory).await?;
        let on_disk: Vec<&str> = names.iter().filter_map(|name| id_of(name)).collect();
        let mut found = Found::default();
        for id in &on_disk {
            self.compare(platform, id, &mut found).await;
            platform.spawn().yield_if_due().await;
        }
        let sought: std::collections::HashSet<&str> = on_disk.into_iter().collect();
        let unseen: Vec<String> = self.files().keys().filter(|id| !sought.contains(id.as_str())).cloned().collect();
        for id in &unseen {
            self.compare(platform, id, &mut found).await;
        }
        Ok(found)
    }

    /// Looks whether a file is as it was known; most are, and then no turn is needed.
    async fn compare<P: Platform>(&self, platform: &P, id: &str, found: &mut Found) {
        let stamp = platform.disk().stamp(&self.path_of(id)).await.ok();
        {
            let mut files = self.files();
            if let (Some(stamp), Some(file)) = (stamp, files.get_mut(id))
                && file.stamp == Some(stamp)
            {
                file.is_missing = false;
                return;
            }
        }
        let _turn = self.turn.take().await;
        let stamp = platform.disk().stamp(&self.path_of(id)).await;
        match stamp {
            Ok(_) => self.note_change(platform, id, found).await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.note_missing(id, found),
            Err(error) => {
                let reason = format!("it cannot be looked at: {error}");
                let is_known = matches!(self.state(id), TemplateState::Damaged(known) if *known == *reason);
                if !is_known {
                    self.install(id, None, damaged(&reason));
                }
            }
        }
    }

    /// A file differs from what is known: it is to be compiled, unless its text is the one that is loaded. Called in
    /// turn.
    async fn note_change<P: Platform>(&self, platform: &P, id: &str, found: &mut Found) {
        let (state, known_stamp) = match self.files().get(id) {
            Some(file) => (file.state.clone(), file.stamp),
            None => (TemplateState::Absent, None),
        };
        let stamp = self.settled_stamp(platform, id).await;
        if let TemplateState::Loaded(loaded) = &state {
            match read_whole(platform.disk(), &self.path_of(id), TEMPLATE_BYTES_MAX).await {
                Ok(text) if text == loaded.text() => return self.note_same(id, stamp),
                _ => found.changes.push((id.to_owned(), FileChange::Changed)),
            }
        } else if matches!(state, TemplateState::Absent) {
            found.changes.push((id.to_owned(), FileChange::Added));
        } else if known_stamp.is_some() {
            found.changes.push((id.to_owned(), FileChange::Changed));
        } else if matches!(state, TemplateState::Unloaded) {
            // It was too fresh to be told from a later text. Nobody has used it, so nothing changes.
            return self.note_same(id, stamp);
        }
        found.to_load.push(id.to_owned());
        self.install(id, stamp, TemplateState::Unloaded);
    }

    /// The file is what it was when its state was found.
    fn note_same(&self, id: &str, stamp: Option<FileStamp>) {
        if let Some(file) = self.files().get_mut(id) {
            (file.stamp, file.is_missing) = (stamp, false);
        }
    }

    fn note_missing(&self, id: &str, found: &mut Found) {
        let is_gone = match self.files().get_mut(id) {
            Some(file) if !file.is_missing => {
                // A file that comes back is looked at again, whatever its stamp.
                (file.is_missing, file.stamp) = (true, None);
                false
            }
            Some(_) => true,
            None => false,
        };
        if is_gone {
            self.forget(id);
            found.changes.push((id.to_owned(), FileChange::Removed));
        }
    }

    /// Reads and compiles a file and installs what came of it. Called in turn.
    async fn look_at<P: Platform>(&self, platform: &P, id: &str) {
        // The stamp is taken first: if the file changes while it is read, the next scan sees another stamp.
        let mut stamp = self.settled_stamp(platform, id).await;
        let state = match read_whole(platform.disk(), &self.path_of(id), TEMPLATE_BYTES_MAX).await {
            Ok(text) => match Template::compile(&text) {
                Ok(template) => TemplateState::Loaded(Arc::new(template)),
                Err(error) => {
                    if error == TemplateError::NoMemory {
                        // Not the file's fault: the next scan looks again.
                        stamp = None;
                    }
                    damaged(&error.to_string())
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.forget(id);
                return;
            }
            Err(error) => {
                // It may be read the next time.
                stamp = None;
                damaged(&format!("it cannot be read: {error}"))
            }
        };
        self.install(id, stamp, state);
    }

    /// The stamp of a file, unless it is so fresh that a further change might leave it as it is.
    async fn settled_stamp<P: Platform>(&self, platform: &P, id: &str) -> Option<FileStamp> {
        let stamp = platform.disk().stamp(&self.path_of(id)).await.ok()?;
        let age_ns = i128::from(platform.clock().unix_ms()) * 1_000_000 - stamp.modified_ns;
        (age_ns > TIME_RESOLUTION_NS).then_some(stamp)
    }

    fn install(&self, id: &str, stamp: Option<FileStamp>, state: TemplateState) {
        self.files().insert(id.to_owned(), File { stamp, state, is_missing: false });
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    fn forget(&self, id: &str) {
        if self.files().remove(id).is_some() {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, File>> {
        // No code that can panic runs under the lock, so a poisoned one holds nothing half-done.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The refusal of a write to a schema whose template is damaged, or of a read of that template.
    pub fn damaged_failure(&self, id: &str, reason: &str) -> Failure {
        let path = self.path_of(id);
        let message = format!(
            "the template file {} cannot be used ({reason}); writes to schema '{id}' are refused until the file is \
             corrected, replaced or removed",
            path.display()
        );
        Failure::new(ErrorCode::TemplateDamaged, message)
    }
}

fn unknown_outcome(id: &str, action: &str, error: &io::Error) -> Failure {
    let message = format!(
        "whether template '{id}' was {action} durably is not known ({error}); read it, and try again if need be"
    );
    Failure::new(ErrorCode::OutcomeUnknown, message)
}

fn damaged(reason: &str) -> TemplateState {
    TemplateState::Damaged(reason.into())
}

/// The schema id a file name stands for. Names that no schema can have are not templates.
fn id_of(name: &str) -> Option<&str> {
    let id = name.strip_suffix(FILE_SUFFIX)?;
    (check_schema_id(id).is_ok()).then_some(id)
}

const _: () = {
    // A half-written neighbour must not look like a template.
    let (temporary, file) = (TEMPORARY_SUFFIX.as_bytes(), FILE_SUFFIX.as_bytes());
    assert!(temporary[temporary.len() - 1] != file[file.len() - 1]);
};

#[cfg(test)]
mod tests;
