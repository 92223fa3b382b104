//! Writes between acceptance and durability: their versions, their documents and who waits for them.

use super::patience::{Reason, Tick};
use crate::command::{Command, Condition, Document, EntityRef, ErrorCode, Failure, Outcome, Ticket, Version};
use crate::sabotage::{Sabotage, is_on};
use hashbrown::HashTable;
use std::collections::VecDeque;

/// A batch of this shard, counted from 1; the open batch has the highest number.
pub(super) type BatchNumber = u64;

/// The newest accepted, not yet durable state of one entity.
struct Accepted {
    hash: u64,
    /// Names the entity; its body is what a pending put will store.
    document: Document,
    version: Version,
    deleted: bool,
    batch: BatchNumber,
}

/// One applied change, as the commit that makes it durable will settle it.
pub(super) struct Applied {
    pub(super) hash: u64,
    pub(super) document: Document,
    pub(super) version: Version,
    pub(super) created: bool,
    pub(super) deleted: bool,
}

/// What a waiter is told once its batch is durable.
pub(super) enum Effect {
    /// One put or deletion.
    One(Applied),
    /// Several puts of one command; `Err` are those refused when the command was accepted.
    Many(Vec<Result<Applied, Failure>>),
    /// An answer decided by a version of this batch.
    Decided(Outcome),
}

/// One caller waiting for a batch.
pub(super) struct Waiter {
    /// None once the wait was given up: the effect is settled, and nobody told.
    pub(super) ticket: Option<Ticket>,
    pub(super) since: Tick,
    pub(super) effect: Effect,
}

impl Waiter {
    /// The hash of the one entity that was written.
    pub(super) fn hash(&self) -> Option<u64> {
        match &self.effect {
            Effect::One(applied) => Some(applied.hash),
            Effect::Many(_) | Effect::Decided(_) => None,
        }
    }

    /// The answer of a wait that is given up before the batch is settled.
    fn give_up(&mut self, reason: Reason) -> Option<(Ticket, Outcome)> {
        let ticket = self.ticket.take()?;
        let outcome = match &self.effect {
            Effect::One(_) if is_on(Sabotage::RefuseLateWrite) => reason.nothing_done().into(),
            Effect::One(_) => reason.unknown().into(),
            Effect::Many(results) => {
                let each = |result: &Result<Applied, Failure>| match result {
                    Ok(_) => Err(reason.unknown()),
                    Err(refused) => Err(refused.clone()),
                };
                Outcome::WrittenMany(results.iter().map(each).collect())
            }
            // Its own write was never made.
            Effect::Decided(_) => reason.nothing_done().into(),
        };
        Some((ticket, outcome))
    }
}

/// The newest accepted version of an entity, and the batch that must be durable before it may decide an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) version: Option<Version>,
    pub(super) undurable_in: Option<BatchNumber>,
}

/// Pending versions and the waiters of the open batch and of the one in flight.
#[derive(Default)]
pub(super) struct PendingWrites {
    accepted: HashTable<Accepted>,
    open: Vec<Waiter>,
    in_flight: Vec<Waiter>,
    /// Those of them that were answered before their batch.
    given_up: usize,
    batches_begun: BatchNumber,
}

impl PendingWrites {
    /// The newest pending state of an entity, if it has one.
    pub(super) fn newest(&self, hash: u64, entity: EntityRef<'_>) -> Option<Newest> {
        let found = self.accepted.find(hash, |one| one.hash == hash && one.document.is_of(entity))?;
        let version = if found.deleted { None } else { Some(found.version) };
        Some(Newest { version, undurable_in: Some(found.batch) })
    }

    /// Notes a change sealed into the open batch.
    pub(super) fn note(&mut self, applied: &Applied) {
        let batch = self.batches_begun + 1;
        let fresh = Accepted {
            hash: applied.hash,
            document: applied.document.clone(),
            version: applied.version,
            deleted: applied.deleted,
            batch,
        };
        let same = |one: &Accepted| one.hash == applied.hash && one.document.is_of_the_same(&applied.document);
        match self.accepted.find_mut(applied.hash, same) {
            Some(slot) => *slot = fresh,
            None => {
                self.accepted.insert_unique(applied.hash, fresh, |one| one.hash);
            }
        }
    }

    /// Forgets a settled change, unless a newer one of the same entity is pending.
    pub(super) fn settle(&mut self, applied: &Applied) {
        let settled = |one: &Accepted| one.hash == applied.hash && one.version == applied.version;
        if let Ok(entry) = self.accepted.find_entry(applied.hash, settled) {
            entry.remove();
        }
    }

    /// Lets a caller wait for the open batch.
    pub(super) fn wait(&mut self, ticket: Ticket, since: Tick, effect: Effect) {
        self.open.push(Waiter { ticket: Some(ticket), since, effect });
    }

    /// Lets a caller wait for the batch that decided its answer.
    pub(super) fn wait_for(&mut self, batch: BatchNumber, ticket: Ticket, since: Tick, outcome: Outcome) {
        let waiter = Waiter { ticket: Some(ticket), since, effect: Effect::Decided(outcome) };
        if batch > self.batches_begun { self.open.push(waiter) } else { self.in_flight.push(waiter) }
    }

    /// The open batch goes in flight.
    pub(super) fn begin_commit(&mut self) {
        debug_assert!(self.in_flight.is_empty(), "one commit is in flight a shard");
        self.batches_begun += 1;
        std::mem::swap(&mut self.open, &mut self.in_flight);
    }

    /// The waiters of the batch in flight, to be answered in order; give the emptied vector back with `recycle`.
    pub(super) fn take_in_flight(&mut self) -> Vec<Waiter> {
        self.given_up -= if self.given_up == 0 { 0 } else { given_up_among(&self.in_flight) };
        std::mem::take(&mut self.in_flight)
    }

    /// The waiters of the open batch, when it will never be committed.
    pub(super) fn take_open(&mut self) -> Vec<Waiter> {
        self.given_up -= if self.given_up == 0 { 0 } else { given_up_among(&self.open) };
        std::mem::take(&mut self.open)
    }

    /// Takes the tickets of those who have waited too long, oldest first, with what they are told. Their effects stay.
    pub(super) fn give_up(&mut self, reason: Reason, is_late: impl Fn(Tick) -> bool) -> Vec<(Ticket, Outcome)> {
        let late = |waiter: &&mut Waiter| is_late(waiter.since);
        let waiters = self.in_flight.iter_mut().take_while(late).chain(self.open.iter_mut().take_while(late));
        let answers: Vec<_> = waiters.filter_map(|waiter| waiter.give_up(reason)).collect();
        self.given_up += answers.len();
        answers
    }

    /// Keeps an emptied vector for the next batch.
    pub(super) fn recycle(&mut self, waiters: Vec<Waiter>) {
        debug_assert!(waiters.is_empty());
        if self.in_flight.is_empty() && self.in_flight.capacity() < waiters.capacity() {
            self.in_flight = waiters;
        }
    }

    /// Callers that wait.
    pub(super) fn waiters(&self) -> usize {
        self.open.len() + self.in_flight.len() - self.given_up
    }
}

fn given_up_among(waiters: &[Waiter]) -> usize {
    waiters.iter().filter(|waiter| waiter.ticket.is_none()).count()
}

/// Writes that found both batches full, in order, bounded in bytes.
#[derive(Default)]
pub(super) struct Backlog {
    queue: VecDeque<Queued>,
    bytes: usize,
}

/// A write that nothing was done about yet.
pub(super) struct Queued {
    pub(super) command: Command<'static>,
    pub(super) ticket: Ticket,
    pub(super) since: Tick,
}

impl Backlog {
    /// Queues a write, or gives it back when the bound is reached.
    pub(super) fn push(&mut self, queued: Queued, bytes_max: usize) -> Result<(), Failure> {
        let bytes = weight_bytes(&queued.command);
        if self.bytes + bytes > bytes_max {
            return Err(Failure::new(ErrorCode::Overloaded, "too many writes wait for the disk: retry shortly"));
        }
        self.bytes += bytes;
        self.queue.push_back(queued);
        Ok(())
    }

    /// Puts back what `pop` gave and still found no room.
    pub(super) fn push_front(&mut self, queued: Queued) {
        self.bytes += weight_bytes(&queued.command);
        self.queue.push_front(queued);
    }

    /// The oldest queued write.
    pub(super) fn pop(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.bytes -= weight_bytes(&queued.command);
        Some(queued)
    }

    /// Drops those that have waited too long, oldest first.
    pub(super) fn give_up(&mut self, is_late: impl Fn(Tick) -> bool) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        while self.queue.front().is_some_and(|queued| is_late(queued.since)) {
            tickets.extend(self.pop().map(|queued| queued.ticket));
        }
        tickets
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

fn weight_bytes(command: &Command<'_>) -> usize {
    const OVERHEAD: usize = 256;
    OVERHEAD
        + match command {
            Command::Put { key, document, .. } => key.len() + document.len(),
            Command::MultiPut { items, .. } => items.iter().map(|item| item.key.len() + item.document.len()).sum(),
            _ => 0,
        }
}

/// Whether a condition holds against the newest accepted version.
pub(super) fn judge(condition: Condition, newest: Option<Version>, entity: EntityRef<'_>) -> Result<(), Failure> {
    let key = entity.key;
    let message = match (condition, newest) {
        (Condition::None, _) | (Condition::IfAbsent, None) | (Condition::IfPresent, Some(_)) => return Ok(()),
        (Condition::IfVersion(wanted), Some(found)) if wanted == found => return Ok(()),
        (Condition::IfAbsent, Some(found)) => format!("entity '{key}' exists already, at version {found}"),
        (Condition::IfVersion(wanted), Some(found)) => {
            format!("entity '{key}' is at version {found}, not {wanted}: read it again and retry")
        }
        (Condition::IfVersion(_) | Condition::IfPresent, None) => format!("entity '{key}' does not exist"),
    };
    Err(Failure { version: newest, ..Failure::new(ErrorCode::PreconditionFailed, message) })
}
