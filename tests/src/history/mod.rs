//! What concurrent clients did and what they were answered, in an order that can be judged.
//!
//! A history is a list of calls, each with the moment it was made and the moment its answer was there. Moments are
//! numbers of one counter that every client draws from: an answer drawn before another call was made truly came
//! before it. `linearizable` judges one entity's calls, `versions` judges all versions of the store, and
//! [`History::judge`] does both. Nothing here talks to a server.

mod linearizable;
mod versions;

pub use linearizable::{Undecided, Verdict, judge_entity};
pub use versions::{Sequenced, judge_versions};

use delta_wire::Condition;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

/// A point in the order of events.
pub type Moment = u64;
/// The moment of an answer that never came and may still take effect.
pub const NEVER: Moment = u64::MAX;

/// What a client asked of one entity. Values are unique: no two writes of a history carry the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Read it.
    Get,
    /// Write a value.
    Put { value: u64, condition: Condition },
    /// Remove it.
    Delete { condition: Condition },
}

/// What the client was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A read found this.
    Found { value: u64, version: u64 },
    /// A read or a deletion found nothing.
    Absent,
    /// The write is durable; `created` when the answer says whether there was nothing before.
    Written { version: u64, created: Option<bool> },
    /// The deletion is durable.
    Deleted { version: u64 },
    /// The condition did not hold: there was this version, or nothing.
    ConditionFailed { found: Option<u64> },
    /// It may have taken effect or not.
    Unknown,
}

/// One call on one entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which entity, by its place among those of the workload.
    pub entity: usize,
    /// Who asked; only for a person who reads it.
    pub client: usize,
    /// When the call was made.
    pub called: Moment,
    /// When the answer was there; for [`Answer::Unknown`], the moment after which it can no longer take effect.
    pub answered: Moment,
    /// The call.
    pub call: Call,
    /// The answer.
    pub answer: Answer,
}

/// Gathers operations from many threads.
#[derive(Default)]
pub struct History {
    clock: AtomicU64,
    clients: AtomicUsize,
    operations: Mutex<Vec<Operation>>,
}

impl History {
    /// The next moment.
    pub fn moment(&self) -> Moment {
        self.clock.fetch_add(1, SeqCst)
    }

    /// A number for a client that no other of this history has.
    pub fn next_client(&self) -> usize {
        self.clients.fetch_add(1, SeqCst)
    }

    /// Takes in what a client has gathered.
    pub fn extend(&self, operations: impl IntoIterator<Item = Operation>) {
        self.lock().extend(operations);
    }

    /// Says that whoever could have carried out an unanswered call is gone, and that what is there now was decided: a
    /// server has recovered the store. From here on an open call has taken effect or never will.
    pub fn settle(&self) {
        let now = self.moment();
        self.lock().iter_mut().for_each(|operation| operation.answered = operation.answered.min(now));
    }

    /// Everything so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.lock().clone()
    }

    /// How many calls have a known answer.
    pub fn answered_count(&self) -> usize {
        self.lock().iter().filter(|operation| operation.answer != Answer::Unknown).count()
    }

    /// Judges every entity and every version; `shard_of` tells which shard owns an entity. The error is for a person.
    pub fn judge(&self, shard_of: impl Fn(usize) -> usize) -> Result<Summary, String> {
        let operations = self.operations();
        let entities = operations.iter().map(|operation| operation.entity + 1).max().unwrap_or(0);
        let mut summary = Summary { operations: operations.len(), ..Summary::default() };
        for entity in 0..entities {
            let own: Vec<Operation> = operations.iter().filter(|own| own.entity == entity).copied().collect();
            summary.unknown += own.iter().filter(|own| own.answer == Answer::Unknown).count();
            match judge_entity(&own) {
                Ok(Verdict::Linearizable) => {}
                Ok(Verdict::Refused { reason }) => {
                    return Err(format!("entity {entity} is not linearizable: {reason}"));
                }
                Err(Undecided { steps }) => return Err(format!("entity {entity} is undecided after {steps} steps")),
            }
        }
        let sequenced = operations.iter().filter_map(|own| Sequenced::of(own, shard_of(own.entity)));
        summary.versions = judge_versions(sequenced.collect())?;
        Ok(summary)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Operation>> {
        self.operations.lock().expect("no client panics while it adds to the history")
    }
}

/// How much was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Calls.
    pub operations: usize,
    /// Calls of unknown outcome.
    pub unknown: usize,
    /// Different versions seen.
    pub versions: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settling_bounds_what_is_open_and_leaves_what_was_answered() {
        let history = History::default();
        let called = history.moment();
        let call = Call::Put { value: 1, condition: Condition::None };
        let open = Operation { entity: 0, client: 0, called, answered: NEVER, call, answer: Answer::Unknown };
        let answered = history.moment();
        let done = Operation { answered, answer: Answer::Written { version: 1, created: None }, ..open };
        history.extend([open, done]);
        history.settle();
        let operations = history.operations();
        assert!(operations[0].answered > answered && operations[0].answered < NEVER);
        assert_eq!(operations[1], done);
        assert_eq!(history.answered_count(), 1);
    }

    #[test]
    fn a_history_with_one_bad_entity_is_refused() {
        let history = History::default();
        let read = |entity, answer| {
            let called = history.moment();
            Operation { entity, client: 0, called, answered: history.moment(), call: Call::Get, answer }
        };
        history.extend([read(0, Answer::Absent)]);
        assert_eq!(history.judge(|_| 0), Ok(Summary { operations: 1, ..Summary::default() }));
        history.extend([read(3, Answer::Found { value: 1, version: 1 })]);
        assert!(history.judge(|_| 0).unwrap_err().contains("entity 3"));
    }
}
