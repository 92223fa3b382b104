//! Puts and deletions: judged against the newest accepted version, sealed into the open batch, answered by its commit.

use super::pending::{Applied, Effect, Newest, Queued, judge};
use super::{Engine, not_found};
use crate::command::{Command, Condition, Document, EntityRef, ErrorCode, Failure, Outcome, PutItem, Ticket};
use crate::runtime::platform::Platform;
use crate::sabotage::{Sabotage, is_on};
use crate::storage::{Change, Mutation, Refusal, Storage};
use std::rc::Rc;

/// What became of a write that was tried.
pub(super) enum Tried {
    /// It waits for a commit, or was answered: nothing is left to do.
    Accepted,
    /// The answer is known now.
    Known(Outcome),
    /// Both batches are full.
    NoRoom,
}

impl<P: Platform, S: Storage> Engine<P, S> {
    pub(super) fn write(self: &Rc<Self>, command: Command<'_>, ticket: Ticket) -> Option<Outcome> {
        if let Some(failure) = self.refuses_write() {
            return Some(failure.into());
        }
        if self.backlog.borrow().is_empty() {
            match self.try_write(&command, ticket) {
                Tried::Accepted => return None,
                Tried::Known(outcome) => return Some(outcome),
                Tried::NoRoom => {}
            }
        }
        // Behind others that wait for room, so that writes keep their order.
        let queued = Queued { command: command.into_owned(), ticket, since: self.tick.get() };
        self.backlog.borrow_mut().push(queued, self.bounds.get().pending_bytes).err().map(Outcome::Failed)
    }

    /// Tries queued writes again, oldest first, until one finds no room.
    pub(super) fn drain_backlog(self: &Rc<Self>) {
        loop {
            let Some(queued) = self.backlog.borrow_mut().pop() else { return };
            match self.try_write(&queued.command, queued.ticket) {
                Tried::Accepted => {}
                Tried::Known(outcome) => self.deliver(queued.ticket, outcome),
                Tried::NoRoom => return self.backlog.borrow_mut().push_front(queued),
            }
        }
    }

    fn try_write(self: &Rc<Self>, command: &Command<'_>, ticket: Ticket) -> Tried {
        match command {
            Command::Put { schema, key, document, condition } => {
                self.try_one(EntityRef { schema, key }, Some(document), *condition, ticket)
            }
            Command::Delete { schema, key, condition } => {
                self.try_one(EntityRef { schema, key }, None, *condition, ticket)
            }
            Command::MultiPut { schema, items } => self.try_many(schema, items, ticket),
            _ => Tried::Known(Failure::new(ErrorCode::Internal, "not a write").into()),
        }
    }

    fn try_one(&self, entity: EntityRef<'_>, body: Option<&[u8]>, condition: Condition, ticket: Ticket) -> Tried {
        let hash = self.hash(entity);
        let newest = self.newest(hash, entity);
        if let Err(failure) = judge(condition, newest.version, entity) {
            return self.decided(newest, ticket, failure.into());
        }
        if body.is_none() && newest.version.is_none() {
            return self.decided(newest, ticket, not_found(entity));
        }
        let mutation = body.map_or(Mutation::Delete, Mutation::Put);
        let mut versions = self.versions_scratch();
        let sealed = self.storage.append(&[Change { entity, mutation }], &mut versions);
        let version = versions.first().copied();
        self.return_versions_scratch(versions);
        let version = match (sealed, version) {
            (Ok(()), Some(version)) => version,
            (Ok(()), None) => unreachable!("storage gives one version a change"),
            (Err(Refusal::BatchFull), _) => return Tried::NoRoom,
            (Err(refusal), _) => return Tried::Known(refused(refusal).into()),
        };
        let document = Document::new(entity, body.unwrap_or_default());
        let created = body.is_some() && newest.version.is_none();
        if is_on(Sabotage::ShowBeforeDurable) {
            self.cache.borrow_mut().insert(hash, document.clone(), version, self.now_ms());
        }
        let applied = Applied { hash, document, version, created, deleted: body.is_none() };
        let mut writes = self.writes.borrow_mut();
        writes.note(&applied);
        writes.wait(ticket, self.tick.get(), Effect::One(applied));
        drop(writes);
        self.batch_opened.raise();
        Tried::Accepted
    }

    /// All items in one frame; when they do not fit one batch together, each for itself.
    fn try_many(&self, schema: &str, items: &[PutItem<'_>], ticket: Ticket) -> Tried {
        if items.is_empty() {
            return Tried::Known(Outcome::WrittenMany(Vec::new()));
        }
        let changes: Vec<Change<'_>> = items
            .iter()
            .map(|item| Change {
                entity: EntityRef { schema, key: &item.key },
                mutation: Mutation::Put(&item.document),
            })
            .collect();
        let mut versions = self.versions_scratch();
        let sealed = self.storage.append(&changes, &mut versions);
        let results: Vec<Result<Applied, Failure>> = match sealed {
            Ok(()) => {
                items.iter().zip(&versions).map(|(item, version)| Ok(self.apply(schema, item, *version))).collect()
            }
            Err(Refusal::BatchFull) if self.storage.has_open_batch() => {
                self.return_versions_scratch(versions);
                return Tried::NoRoom;
            }
            Err(Refusal::BatchFull) => self.append_each(schema, items, &changes, &mut versions),
            Err(refusal) => {
                self.return_versions_scratch(versions);
                return Tried::Known(refused(refusal).into());
            }
        };
        self.return_versions_scratch(versions);
        self.writes.borrow_mut().wait(ticket, self.tick.get(), Effect::Many(results));
        self.batch_opened.raise();
        Tried::Accepted
    }

    fn append_each(
        &self,
        schema: &str,
        items: &[PutItem<'_>],
        changes: &[Change<'_>],
        versions: &mut Vec<u64>,
    ) -> Vec<Result<Applied, Failure>> {
        let each = |(item, change): (&PutItem<'_>, &Change<'_>)| {
            versions.clear();
            self.storage.append(std::slice::from_ref(change), versions).map_err(refused)?;
            Ok(self.apply(schema, item, versions.first().copied().unwrap_or_default()))
        };
        items.iter().zip(changes).map(each).collect()
    }

    fn apply(&self, schema: &str, item: &PutItem<'_>, version: u64) -> Applied {
        let entity = EntityRef { schema, key: &item.key };
        let hash = self.hash(entity);
        let created = self.newest(hash, entity).version.is_none();
        let applied =
            Applied { hash, document: Document::new(entity, &item.document), version, created, deleted: false };
        self.writes.borrow_mut().note(&applied);
        applied
    }

    fn newest(&self, hash: u64, entity: EntityRef<'_>) -> Newest {
        let pending = self.writes.borrow().newest(hash, entity);
        let pending = pending.filter(|_| !is_on(Sabotage::JudgeAgainstDurable));
        pending.unwrap_or_else(|| Newest { version: self.storage.durable_version(entity), undurable_in: None })
    }

    /// An answer that changes nothing: now, or with the commit of the version that decided it.
    fn decided(&self, newest: Newest, ticket: Ticket, outcome: Outcome) -> Tried {
        match newest.undurable_in {
            None => Tried::Known(outcome),
            Some(_) if is_on(Sabotage::AnswerBeforeDurable) => Tried::Known(outcome),
            Some(batch) => {
                self.writes.borrow_mut().wait_for(batch, ticket, self.tick.get(), outcome);
                Tried::Accepted
            }
        }
    }

    fn versions_scratch(&self) -> Vec<u64> {
        let mut versions = self.versions.take();
        versions.clear();
        versions
    }

    fn return_versions_scratch(&self, versions: Vec<u64>) {
        self.versions.set(versions);
    }
}

/// A refusal of storage in the client's terms. Nothing was written.
pub(super) fn refused(refusal: Refusal) -> Failure {
    let code = match &refusal {
        Refusal::BatchFull => ErrorCode::Overloaded,
        Refusal::OutOfSpace => ErrorCode::OutOfSpace,
        Refusal::Poisoned { .. } | Refusal::ReadOnly { .. } => ErrorCode::Unavailable,
    };
    Failure::new(code, refusal.to_string())
}
