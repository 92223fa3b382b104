//! The commit task: one commit at a time, its waiters answered in order when it is durable.

use super::Engine;
use super::fatal::AbortOnPanic;
use super::pending::{Applied, Effect, Waiter};
use super::write::refused;
use crate::command::{ErrorCode, Failure, Outcome, Version};
use crate::runtime::platform::Platform;
use crate::sabotage::{Sabotage, is_on};
use crate::storage::{CommitError, Refusal, Storage};
use std::rc::Rc;

/// Commits whenever a batch is open. While one commit is in flight the next batch fills; a lone writer never waits.
pub(super) async fn run<P: Platform, S: Storage>(engine: Rc<Engine<P, S>>) {
    loop {
        engine.batch_opened.wait().await;
        while engine.storage.has_open_batch() {
            engine.writes.borrow_mut().begin_commit();
            let result = engine.storage.commit().await;
            let _fatal = AbortOnPanic("commit");
            engine.settle(result);
            engine.drain_backlog();
        }
    }
}

impl<P: Platform, S: Storage> Engine<P, S> {
    fn settle(&self, result: Result<(), CommitError>) {
        self.resume();
        let mut waiters = self.writes.borrow_mut().take_in_flight();
        let result = if is_on(Sabotage::AnswerFailureAsSuccess) { Ok(()) } else { result };
        match result {
            Ok(()) => {
                let now_ms = self.now_ms();
                self.cache.borrow().warm(waiters.iter().filter_map(Waiter::hash));
                for waiter in waiters.drain(..) {
                    self.settle_durable(waiter, now_ms);
                }
                self.writes.borrow_mut().recycle(waiters);
            }
            Err(error) => {
                // The open batch was judged against versions that failed, so it must not be committed: storage has
                // dropped it, and its writers are told that nothing of theirs was written.
                let open = self.writes.borrow_mut().take_open();
                for waiter in waiters {
                    self.settle_failed(waiter, &error);
                }
                let dropped = match &error {
                    CommitError::OutcomeUnknown { reason } => Refusal::Poisoned { reason: reason.clone() }.into(),
                    refused @ CommitError::Refused(_) => refused.clone(),
                };
                for waiter in open {
                    self.settle_failed(waiter, &dropped);
                }
            }
        }
    }

    fn settle_durable(&self, waiter: Waiter, now_ms: u64) {
        if is_on(Sabotage::ForgetLateWrite) && waiter.ticket.is_none() {
            return;
        }
        let outcome = match waiter.effect {
            Effect::One(applied) => {
                let (version, created, deleted) = (applied.version, applied.created, applied.deleted);
                self.show(applied, now_ms);
                if deleted { Outcome::Deleted { version } } else { Outcome::Written { version, created } }
            }
            Effect::Many(results) => {
                let show = |result: Result<Applied, Failure>| -> Result<(Version, bool), Failure> {
                    let applied = result?;
                    let shown = (applied.version, applied.created);
                    self.show(applied, now_ms);
                    Ok(shown)
                };
                Outcome::WrittenMany(results.into_iter().map(show).collect())
            }
            Effect::Decided(outcome) => outcome,
        };
        if let Some(ticket) = waiter.ticket {
            self.deliver(ticket, outcome);
        }
    }

    /// The change is durable: readers may see it.
    fn show(&self, applied: Applied, now_ms: u64) {
        self.writes.borrow_mut().settle(&applied);
        let mut cache = self.cache.borrow_mut();
        if applied.deleted {
            cache.remove(applied.hash, applied.document.entity());
        } else {
            cache.insert(applied.hash, applied.document, applied.version, now_ms);
        }
    }

    fn settle_failed(&self, waiter: Waiter, error: &CommitError) {
        let failure = || match error {
            CommitError::OutcomeUnknown { .. } => Failure::new(ErrorCode::OutcomeUnknown, error.to_string()),
            CommitError::Refused(refusal) => refused(refusal.clone()),
        };
        let outcome = match waiter.effect {
            Effect::One(applied) => {
                self.writes.borrow_mut().settle(&applied);
                failure().into()
            }
            Effect::Many(results) => {
                let fail = |result: Result<Applied, Failure>| {
                    self.writes.borrow_mut().settle(&result?);
                    Err(failure())
                };
                Outcome::WrittenMany(results.into_iter().map(fail).collect())
            }
            // Its own write was never made; what it was judged against is what is not known.
            Effect::Decided(_) => Failure::new(
                ErrorCode::Unavailable,
                format!("nothing was written: the version that decided this did not become durable ({error})"),
            )
            .into(),
        };
        if let Some(ticket) = waiter.ticket {
            self.deliver(ticket, outcome);
        }
    }
}
