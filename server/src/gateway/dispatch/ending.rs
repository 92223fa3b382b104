//! The end of all waiting: when a stop has taken long enough, everybody is answered without what they wait for.
//!
//! Exactly one answer a ticket, as ever: what still comes for an answered one is dropped where it arrives.

use super::Dispatch;
use crate::command::{Failure, Ticket};
use crate::runtime::platform::{Clock, Doorbell, Platform};
use crate::storage::Storage;
use std::rc::Rc;
use std::time::Duration;

/// How long, and how often, it is looked whether answers have gone through: shards reach their end a moment apart.
const LOOKS_MAX: usize = 500;
const LOOK_PAUSE: Duration = Duration::from_millis(1);

/// A task that will answer somebody.
pub(super) struct Answering {
    ticket: Ticket,
    /// Whether it may have changed something by then.
    changes: bool,
}

impl<P: Platform, S: Storage, B: Doorbell> Dispatch<P, S, B> {
    /// Answers everybody who still waits, once and for all. What waits for a disk comes first, so that other shards and
    /// tasks can say of every key what became of it; whoever is left is told what is known without them.
    pub async fn give_up(self: &Rc<Self>) {
        self.parts.engine.give_up();
        self.settle().await;
        for given_up in self.parts.delivery.mailbox.give_up() {
            self.answer_given_up(given_up.ticket, given_up.may_change);
        }
        self.settle().await;
        let answering = self.answering.borrow_mut().give_up(|_| true);
        for Answering { ticket, changes } in answering {
            self.answer_given_up(ticket, changes);
        }
    }

    async fn settle(&self) {
        for _ in 0..LOOKS_MAX {
            if self.outstanding() == 0 {
                return;
            }
            self.parts.platform.clock().sleep(LOOK_PAUSE).await;
        }
    }

    fn answer_given_up(&self, ticket: Ticket, may_change: bool) {
        let failure = if may_change { Failure::unknown_at_stop() } else { Failure::shutting_down() };
        self.parts.delivery.deliver(ticket, failure.into());
    }

    /// Notes that a task will answer this ticket.
    pub(super) fn will_answer(&self, ticket: Ticket, changes: bool) -> u32 {
        self.answering.borrow_mut().enter(Answering { ticket, changes })
    }

    /// The ticket a task is to answer now; none when that was done without it.
    pub(super) fn ticket_of(&self, task: u32) -> Option<Ticket> {
        self.answering.borrow_mut().leave(task).map(|answering| answering.ticket)
    }
}
