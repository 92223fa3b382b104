//! What a store may hold, by the contract: a record of all that was asked of it and answered, and the comparison.
//!
//! Acknowledged batches are there. Of a batch whose commit was under way, or ended in an unknown outcome, the first so
//! many appends are there, each whole, and at least what a reader has seen. A batch that was refused, or never committed,
//! is not there. Versions only ever grow, whoever was answered.

use super::Checked;
use crate::command::{EntityRef, Version};
use crate::limits::VERSION_MAX;
use crate::storage::{Change, CommitError, Mutation, Refusal, Storage};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Schema and key.
pub(super) type Name = (String, String);
/// The live entities of a store.
pub(super) type State = BTreeMap<Name, (Version, Rc<[u8]>)>;

/// One change, owned; no body deletes.
#[derive(Clone)]
pub(super) struct Write {
    pub(super) name: Name,
    pub(super) body: Option<Rc<[u8]>>,
}

/// A change to this document.
pub(super) fn put(schema: &str, key: &str, body: impl AsRef<[u8]>) -> Write {
    Write { name: (schema.to_owned(), key.to_owned()), body: Some(Rc::from(body.as_ref())) }
}

/// A deletion.
pub(super) fn delete(schema: &str, key: &str) -> Write {
    Write { name: (schema.to_owned(), key.to_owned()), body: None }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Undecided,
    Acknowledged,
    Refused,
}

#[derive(Clone)]
struct Batch {
    /// The writes of each append, which stay together.
    appends: Vec<Vec<(Write, Version)>>,
    fate: Fate,
    /// How many appends a reader has seen before the commit ended.
    shown: usize,
}

/// All that was asked of a store since its contents were last known.
#[derive(Clone, Default)]
pub(super) struct History {
    base: State,
    batches: Vec<Batch>,
    names: BTreeSet<Name>,
    /// Everything ever appended, by version.
    written: BTreeMap<Version, Write>,
    version_max: Version,
}

impl History {
    /// What readers must see now, while no commit is in flight.
    pub(super) fn visible(&self) -> State {
        let mut state = self.base.clone();
        let acknowledged = self.batches.iter().filter(|batch| batch.fate == Fate::Acknowledged);
        acknowledged.for_each(|batch| apply(&mut state, &batch.appends));
        state
    }

    /// What the store may hold when it is opened again.
    fn possible(&self) -> Vec<State> {
        let mut states = vec![self.base.clone()];
        for batch in &self.batches {
            let fewest = match batch.fate {
                Fate::Acknowledged => batch.appends.len(),
                Fate::Open | Fate::Undecided | Fate::Refused => batch.shown,
            };
            let most = if batch.fate == Fate::Undecided { batch.appends.len() } else { fewest };
            let with = |count: usize| {
                let mut states = states.clone();
                states.iter_mut().for_each(|state| apply(state, &batch.appends[..count]));
                states
            };
            states = (fewest..=most).flat_map(with).collect();
        }
        states
    }

    /// Takes what a freshly opened store holds for the truth, if it is possible: from now on it is durable.
    pub(super) fn adopt(&mut self, found: State) -> Checked {
        let possible = self.possible();
        if !possible.contains(&found) {
            let differences: Vec<_> = possible.iter().map(|state| difference(state, &found)).collect();
            return Err(format!("after opening, the store holds what it may not: {}", differences.join("; or: ")));
        }
        self.batches.clear();
        self.base = found;
        Ok(())
    }

    /// Every entity that was ever touched.
    pub(super) fn names(&self) -> Vec<Name> {
        self.names.iter().cloned().collect()
    }

    /// A reader got this document at this version.
    pub(super) fn must_have_written(&self, name: &Name, version: Version, body: &[u8]) -> Checked {
        match self.written.get(&version) {
            Some(write) if write.name == *name && write.body.as_deref() == Some(body) => Ok(()),
            _ => Err(format!("a read of {name:?} gave a document that was never written at version {version}")),
        }
    }

    /// Names and versions of batches whose commit is under way.
    pub(super) fn undecided(&self) -> Vec<(Name, Version)> {
        let undecided = self.batches.iter().filter(|batch| batch.fate == Fate::Undecided);
        undecided
            .flat_map(|batch| batch.appends.iter().flatten())
            .map(|(write, version)| (write.name.clone(), *version))
            .collect()
    }

    /// A reader saw this version: from now on it must be there, whatever its commit comes to.
    pub(super) fn was_shown(&mut self, version: Version) {
        for batch in &mut self.batches {
            let holds = |append: &Vec<(Write, Version)>| append.iter().any(|(_, written)| *written == version);
            if let Some(position) = batch.appends.iter().position(holds) {
                batch.shown = batch.shown.max(position + 1);
            }
        }
    }

    fn open_batch(&mut self) -> &mut Batch {
        if self.batches.last().is_none_or(|batch| batch.fate != Fate::Open) {
            self.batches.push(Batch { appends: Vec::new(), fate: Fate::Open, shown: 0 });
        }
        let last = self.batches.len() - 1;
        &mut self.batches[last]
    }
}

fn apply(state: &mut State, appends: &[Vec<(Write, Version)>]) {
    for (write, version) in appends.iter().flatten() {
        match &write.body {
            Some(body) => state.insert(write.name.clone(), (*version, Rc::clone(body))),
            None => state.remove(&write.name),
        };
    }
}

/// The first difference, in words and without contents.
fn difference(expected: &State, found: &State) -> String {
    let words = |entry: Option<&(Version, Rc<[u8]>)>| match entry {
        Some((version, body)) => format!("version {version} with {} bytes", body.len()),
        None => "nothing".to_owned(),
    };
    let names: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let differing: Vec<_> = names.into_iter().filter(|name| expected.get(*name) != found.get(*name)).collect();
    let Some(name) = differing.first() else { return "no difference".to_owned() };
    let key: String = name.1.chars().take(40).collect();
    format!(
        "{}/{key}: expected {}, found {} ({} entities differ of {} expected and {} found)",
        name.0,
        words(expected.get(*name)),
        words(found.get(*name)),
        differing.len(),
        expected.len(),
        found.len()
    )
}

/// A store in use, with the record of it.
pub(super) struct Session<'a, S> {
    pub(super) storage: Rc<S>,
    pub(super) history: &'a RefCell<History>,
}

impl<'a, S: Storage> Session<'a, S> {
    /// Begins with a freshly opened store, whose contents must be possible.
    pub(super) async fn begin(storage: Rc<S>, history: &'a RefCell<History>) -> Checked<Self> {
        let names = history.borrow().names.clone();
        let found = observe(&*storage, &names).await?;
        history.borrow_mut().adopt(found)?;
        Ok(Self { storage, history })
    }

    /// Appends, holds the versions to the contract, and notes what was accepted.
    pub(super) fn append(&self, writes: &[Write]) -> Checked<Result<Vec<Version>, Refusal>> {
        let changes: Vec<_> = writes
            .iter()
            .map(|write| Change {
                entity: entity(&write.name),
                mutation: write.body.as_deref().map_or(Mutation::Delete, Mutation::Put),
            })
            .collect();
        let mut versions = Vec::new();
        if let Err(refusal) = self.storage.append(&changes, &mut versions) {
            return Ok(Err(refusal));
        }
        let mut history = self.history.borrow_mut();
        if versions.len() != writes.len() {
            return Err(format!("append of {} changes returned {} versions", writes.len(), versions.len()));
        }
        for (write, version) in writes.iter().zip(&versions) {
            if *version <= history.version_max {
                return Err(format!("version {version} was given out after version {}", history.version_max));
            }
            if *version > VERSION_MAX {
                return Err(format!("version {version} is above {VERSION_MAX}"));
            }
            history.version_max = *version;
            history.names.insert(write.name.clone());
            history.written.insert(*version, write.clone());
        }
        let appended = writes.iter().cloned().zip(versions.iter().copied()).collect();
        history.open_batch().appends.push(appended);
        Ok(Ok(versions))
    }

    /// Appends what must be accepted.
    pub(super) fn must_append(&self, writes: &[Write]) -> Checked<Vec<Version>> {
        self.append(writes)?.map_err(|refusal| format!("append was refused: {refusal}"))
    }

    /// Commits and notes the outcome.
    pub(super) async fn commit(&self) -> Result<(), CommitError> {
        let position = {
            let mut history = self.history.borrow_mut();
            let open = history.batches.iter().position(|batch| batch.fate == Fate::Open);
            if let Some(position) = open {
                history.batches[position].fate = Fate::Undecided;
            }
            open
        };
        let result = self.storage.commit().await;
        if let Some(position) = position {
            self.history.borrow_mut().batches[position].fate = match result {
                Ok(()) => Fate::Acknowledged,
                Err(CommitError::OutcomeUnknown { .. }) => Fate::Undecided,
                Err(CommitError::Refused(_)) => Fate::Refused,
            };
        }
        result
    }

    /// Commits what must succeed.
    pub(super) async fn must_commit(&self) -> Checked {
        self.commit().await.map_err(|error| format!("commit failed: {error}"))
    }

    /// Appends and commits what must succeed.
    pub(super) async fn must_write(&self, writes: &[Write]) -> Checked<Vec<Version>> {
        let versions = self.must_append(writes)?;
        self.must_commit().await?;
        Ok(versions)
    }

    /// Compares all that readers see with what was acknowledged. No commit may be in flight.
    pub(super) async fn verify(&self) -> Checked {
        let (expected, names) = {
            let history = self.history.borrow();
            (history.visible(), history.names.clone())
        };
        let found = observe(&*self.storage, &names).await?;
        if found == expected { Ok(()) } else { Err(format!("readers see {}", difference(&expected, &found))) }
    }
}

/// A name as the trait wants it.
pub(super) fn entity(name: &Name) -> EntityRef<'_> {
    EntityRef { schema: &name.0, key: &name.1 }
}

/// Reads a store whole, by every way there is, and holds the answers against each other.
async fn observe<S: Storage>(storage: &S, names: &BTreeSet<Name>) -> Checked<State> {
    let mut state = State::new();
    for (schema, count) in storage.schemas() {
        let entries = storage.list(&schema, "", None, 1 << 20);
        if entries.len() as u64 != count || count == 0 {
            return Err(format!("schema {schema} counts {count} entities and lists {}", entries.len()));
        }
        if !entries.is_sorted_by(|left, right| left.0.as_bytes() < right.0.as_bytes()) {
            return Err(format!("the keys of schema {schema} are not listed in byte order"));
        }
        for (key, version) in entries {
            let name = (schema.clone(), key.into_string());
            let (read_version, body) =
                read(storage, &name).await?.ok_or_else(|| format!("{name:?} reads as absent"))?;
            if read_version != version || storage.durable_version(entity(&name)) != Some(version) {
                return Err(format!("{name:?} is listed at version {version} and read at {read_version}"));
            }
            if state.insert(name, (version, body)).is_some() {
                return Err(format!("schema {schema} is named twice"));
            }
        }
    }
    for name in names.iter().filter(|name| !state.contains_key(*name)) {
        if storage.durable_version(entity(name)).is_some() || read(storage, name).await?.is_some() {
            return Err(format!("{name:?} is readable but not listed"));
        }
    }
    let counted = storage.status().entities;
    if counted != state.len() as u64 {
        return Err(format!("the status counts {counted} entities, {} are listed", state.len()));
    }
    Ok(state)
}

/// Reads one entity; an error of the read is a violation.
pub(super) async fn read<S: Storage>(storage: &S, name: &Name) -> Checked<Option<(Version, Rc<[u8]>)>> {
    let answer = storage.read(entity(name)).await.map_err(|error| format!("reading {name:?} failed: {error}"))?;
    let Some((version, document)) = answer else { return Ok(None) };
    if !document.is_of(entity(name)) {
        return Err(format!("{name:?} reads as the document of another entity"));
    }
    Ok(Some((version, Rc::from(document.body()))))
}
