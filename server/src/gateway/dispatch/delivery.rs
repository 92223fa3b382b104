//! Brings every delayed outcome to whoever holds its ticket: a wire connection, another shard, or a local task.

use crate::command::{Outcome, Ticket};
use crate::mailbox::{Answer, Mailbox};
use crate::runtime::platform::Doorbell;
use crate::runtime::signal::ReplySlots;
use std::cell::OnceCell;
use std::rc::Rc;

/// Takes an outcome for a wire connection (packed id) and request id.
pub type WireReplies = Rc<dyn Fn(u64, u64, Outcome)>;

/// The ways out of a shard.
pub struct Delivery<B> {
    pub(super) mailbox: Mailbox<B>,
    pub(super) tasks: ReplySlots<Answer>,
    wire: OnceCell<WireReplies>,
}

impl<B: Doorbell> Delivery<B> {
    /// Over this shard's end of the mailboxes; the wire skin joins later.
    pub fn new(mailbox: Mailbox<B>) -> Self {
        Self { mailbox, tasks: ReplySlots::default(), wire: OnceCell::new() }
    }

    /// Names the wire skin. Only the first call counts.
    pub fn set_wire(&self, wire: WireReplies) {
        let _ = self.wire.set(wire);
    }

    /// Hands an outcome over, exactly one a ticket.
    pub fn deliver(&self, ticket: Ticket, outcome: Outcome) {
        self.deliver_answer(ticket, Answer::Outcome(outcome));
    }

    /// The same for any answer between shards.
    pub(super) fn deliver_answer(&self, ticket: Ticket, answer: Answer) {
        match ticket {
            Ticket::Wire { connection, request_id } => {
                if let Some(wire) = self.wire.get() {
                    wire(connection, request_id, answer.into_outcome());
                }
            }
            Ticket::Peer { shard, slot } => self.mailbox.reply(shard, slot, answer),
            Ticket::Task { slot } => self.tasks.fill(slot, answer),
        }
    }
}
