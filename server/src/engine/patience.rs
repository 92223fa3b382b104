//! How long callers wait: a watch over the oldest of them, and the end of all waiting when the server stops.
//!
//! Nobody waits for ever on a disk that does not answer. A write that may still land is answered that its outcome is
//! unknown, what surely did not begin that it may be tried again. Each ticket is answered once: the effect of a write
//! whose caller was answered stays in its batch and is settled in silence. Time is counted in ticks of one timer a
//! shard, so that a request costs a number noted down and no look at the clock, and a process that was stopped for
//! a while has not run out of patience.

use super::Engine;
use super::fatal::AbortOnPanic;
use crate::command::{ErrorCode, Failure, Outcome, Ticket};
use crate::limits::{DISK_TIMEOUT_MS, DISK_WATCH_INTERVAL_MS};
use crate::runtime::platform::{Clock, Platform};
use crate::storage::Storage;
use std::rc::Rc;
use std::time::Duration;

/// A moment, in rounds of the watch. It wraps around after a century.
pub(super) type Tick = u32;

/// Whole intervals that nobody waits longer than.
const TICKS_MAX: Tick = (DISK_TIMEOUT_MS / DISK_WATCH_INTERVAL_MS) as Tick;

/// Whether what needs the disk is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// It is.
    Open,
    /// Writes are not: the commit in flight has taken longer than anybody waits.
    Stalled,
    /// Nothing is: the server stops, and everybody who waited was answered.
    Ended,
}

/// Why a wait is given up.
#[derive(Clone, Copy)]
pub(super) enum Reason {
    /// The disk has not answered in time.
    Disk,
    /// The server stops.
    Stop,
}

impl Reason {
    /// For a write that is sealed into a batch: it may be durable, or become so.
    pub(super) fn unknown(self) -> Failure {
        match self {
            Reason::Disk => {
                let message = format!(
                    "the outcome of the write is unknown: the disk has not confirmed it within {} s; read to find out",
                    DISK_TIMEOUT_MS / 1000
                );
                Failure::new(ErrorCode::OutcomeUnknown, message)
            }
            Reason::Stop => Failure::unknown_at_stop(),
        }
    }

    /// For what has surely changed nothing.
    pub(super) fn nothing_done(self) -> Failure {
        match self {
            Reason::Disk => {
                let message = format!(
                    "nothing was done: the disk has not answered for {} s; retry later",
                    DISK_TIMEOUT_MS / 1000
                );
                Failure::new(ErrorCode::Unavailable, message)
            }
            Reason::Stop => Failure::shutting_down(),
        }
    }
}

/// Looks after those who wait, until the executor ends.
pub(super) async fn watch<P: Platform, S: Storage>(engine: Rc<Engine<P, S>>) {
    loop {
        engine.platform.clock().sleep(Duration::from_millis(DISK_WATCH_INTERVAL_MS)).await;
        let _fatal = AbortOnPanic("engine");
        engine.tick();
    }
}

impl<P: Platform, S: Storage> Engine<P, S> {
    /// Answers everybody who still waits, once and for all: nothing that needs the disk is begun after this.
    pub fn give_up(&self) {
        let _fatal = AbortOnPanic("engine");
        self.gate.set(Gate::Ended);
        self.answer_waiting(Reason::Stop, |_| true);
    }

    /// Whether a commit has taken longer than anybody waits and is still not over.
    pub fn is_stalled(&self) -> bool {
        self.gate.get() == Gate::Stalled
    }

    fn tick(&self) {
        let now = self.tick.get().wrapping_add(1);
        self.tick.set(now);
        self.answer_waiting(Reason::Disk, |since| now.wrapping_sub(since) > TICKS_MAX);
    }

    fn answer_waiting(&self, reason: Reason, is_late: impl Fn(Tick) -> bool) {
        let mut answers = self.writes.borrow_mut().give_up(reason, &is_late);
        if !answers.is_empty() && self.gate.get() == Gate::Open {
            self.gate.set(Gate::Stalled);
            let shard = self.shard;
            tracing::error!(
                "shard {shard}: the disk does not answer: the outcome of writes is unknown to their callers"
            );
        }
        let undone = |ticket: Ticket| (ticket, Outcome::Failed(reason.nothing_done()));
        answers.extend(self.backlog.borrow_mut().give_up(&is_late).into_iter().map(undone));
        let readers = self.readers.borrow_mut().give_up(|reader| is_late(reader.since));
        answers.extend(readers.into_iter().map(|reader| undone(reader.ticket)));
        // Whoever is answered may ask at once for something else.
        for (ticket, outcome) in answers {
            self.deliver(ticket, outcome);
        }
    }

    /// The commit that nobody waited for any more has ended.
    pub(super) fn resume(&self) {
        if self.gate.get() == Gate::Stalled {
            self.gate.set(Gate::Open);
            tracing::info!("shard {}: the disk answers again", self.shard);
        }
    }

    /// Why a write is not begun, if it is not.
    #[inline]
    pub(super) fn refuses_write(&self) -> Option<Failure> {
        match self.gate.get() {
            Gate::Open => None,
            Gate::Stalled => Some(Reason::Disk.nothing_done()),
            Gate::Ended => Some(Reason::Stop.nothing_done()),
        }
    }

    /// Why a read of the disk is not begun, if it is not.
    pub(super) fn refuses_read(&self) -> Option<Failure> {
        (self.gate.get() == Gate::Ended).then(|| Reason::Stop.nothing_done())
    }
}
