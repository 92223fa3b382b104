//! Bounded queues between shards.
//!
//! A request takes one of the sender's credits for that peer and a reply slot; the reply brings both back. The queues
//! hold as many messages as there are credits, so a push never fails, a reply never waits, and no two shards can wait
//! for each other's room: without a credit the caller is refused at once. Documents are owned by the message.

use crate::command::{Command, Document, ErrorCode, Failure, Outcome, Ticket};
use crate::crypto::keyring::{DataKeyId, Keyring};
use crate::limits::MAILBOX_CREDITS;
use crate::runtime::platform::Doorbell;
use crate::sabotage::{Sabotage, is_on};
use crossbeam_queue::ArrayQueue;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// What one shard asks of another.
#[derive(Debug)]
pub enum Errand {
    /// Carry out a command on entities you own.
    Execute(Command<'static>),
    /// Templates changed: see the newest before you answer.
    RefreshTemplates,
    /// Roll to this keyring's active key, durably.
    AdoptKeyring(Arc<Keyring>),
    /// Which data keys do your files still name?
    KeyIdsInUse,
}

/// What comes back.
#[derive(Debug)]
pub enum Answer {
    /// What the command came to.
    Outcome(Outcome),
    /// It is done.
    Done,
    /// Data keys still named.
    KeyIds(Vec<DataKeyId>),
}

impl Answer {
    /// The outcome a client is told; anything but an outcome would be a bug of the asking side.
    pub fn into_outcome(self) -> Outcome {
        match self {
            Answer::Outcome(outcome) => outcome,
            Answer::Done | Answer::KeyIds(_) => {
                Failure::new(ErrorCode::Internal, "a shard answered another question than the one asked").into()
            }
        }
    }
}

struct Request {
    from: u16,
    slot: u32,
    errand: Errand,
}

struct Reply {
    slot: u32,
    answer: Answer,
}

/// Both queues into one shard.
struct Inbox {
    requests: ArrayQueue<Box<Request>>,
    replies: ArrayQueue<Box<Reply>>,
}

/// The queues of all shards; made once, shared by all.
#[derive(Clone)]
pub struct Mailboxes {
    inboxes: Arc<[Inbox]>,
    credits: usize,
}

impl Mailboxes {
    /// Queues for so many shards. Credits shrink as shards grow, so that memory stays bounded.
    pub fn new(shards: usize) -> Self {
        let credits = (16 * MAILBOX_CREDITS / shards.max(1)).clamp(64, MAILBOX_CREDITS);
        let capacity = (credits * shards.saturating_sub(1)).max(1);
        let inbox = |_| Inbox { requests: ArrayQueue::new(capacity), replies: ArrayQueue::new(capacity) };
        Self { inboxes: (0..shards).map(inbox).collect(), credits }
    }

    /// The end that shard `index` holds.
    pub fn end<B: Doorbell>(&self, index: usize, doorbell: B) -> Mailbox<B> {
        let shards = self.inboxes.len();
        Mailbox {
            inboxes: self.inboxes.clone(),
            index,
            doorbell,
            credits: (0..shards).map(|_| Cell::new(self.credits)).collect(),
            waiting: RefCell::default(),
            outstanding: Cell::new(0),
        }
    }
}

/// Who waits for a reply, and whose credit it holds.
#[derive(Clone, Copy)]
struct Waiting {
    ticket: Ticket,
    peer: u16,
}

#[derive(Default)]
struct WaitingTable {
    slots: Vec<Option<Waiting>>,
    free: Vec<u32>,
}

/// One shard's end of all its queues.
pub struct Mailbox<B> {
    inboxes: Arc<[Inbox]>,
    index: usize,
    doorbell: B,
    credits: Box<[Cell<usize>]>,
    waiting: RefCell<WaitingTable>,
    outstanding: Cell<usize>,
}

impl<B: Doorbell> Mailbox<B> {
    /// Sends an errand to another shard; the answer comes back with this ticket. Without a credit it is refused.
    pub fn request(&self, peer: usize, errand: Errand, ticket: Ticket) -> Result<(), Failure> {
        assert_ne!(peer, self.index, "a shard has no mailbox to itself");
        let credits = self.credits[peer].get();
        if credits == 0 {
            return Err(Failure::new(
                ErrorCode::Overloaded,
                "the shard that owns this key is overloaded: retry shortly",
            ));
        }
        self.credits[peer].set(credits - 1);
        self.outstanding.set(self.outstanding.get() + 1);
        let mut waiting = self.waiting.borrow_mut();
        let entry = Some(Waiting { ticket, peer: peer as u16 });
        let slot = match waiting.free.pop() {
            Some(slot) => {
                waiting.slots[slot as usize] = entry;
                slot
            }
            None => {
                waiting.slots.push(entry);
                (waiting.slots.len() - 1) as u32
            }
        };
        let request = Box::new(Request { from: self.index as u16, slot, errand });
        let pushed = self.inboxes[peer].requests.push(request);
        assert!(pushed.is_ok(), "credits bound the queue");
        if !is_on(Sabotage::ForgetDoorbell) {
            self.doorbell.ring(peer);
        }
        Ok(())
    }

    /// Answers an errand. Never waits: the asker's credit holds the room.
    pub fn reply(&self, shard: u16, slot: u32, answer: Answer) {
        let pushed = self.inboxes[shard as usize].replies.push(Box::new(Reply { slot, answer: detached(answer) }));
        assert!(pushed.is_ok(), "credits bound the queue");
        self.doorbell.ring(shard as usize);
    }

    /// The next errand of another shard, with the ticket to answer it by.
    pub fn take_request(&self) -> Option<(Ticket, Errand)> {
        let request = self.inboxes[self.index].requests.pop()?;
        Some((Ticket::Peer { shard: request.from, slot: request.slot }, request.errand))
    }

    /// The next answer to an errand of this shard's.
    pub fn take_reply(&self) -> Option<(Ticket, Answer)> {
        let Reply { slot, answer } = *self.inboxes[self.index].replies.pop()?;
        let mut waiting = self.waiting.borrow_mut();
        let entry = waiting.slots.get_mut(slot as usize).and_then(Option::take);
        // A reply without a request would be memory corruption or a bug in this room; serving on would mix answers up.
        let Some(Waiting { ticket, peer }) = entry else {
            panic!("a reply came for slot {slot}, which waits for none")
        };
        waiting.free.push(slot);
        self.credits[peer as usize].set(self.credits[peer as usize].get() + 1);
        self.outstanding.set(self.outstanding.get() - 1);
        Some((ticket, answer))
    }

    /// Whether anything lies in the queues of this shard.
    pub fn has_mail(&self) -> bool {
        let inbox = &self.inboxes[self.index];
        !inbox.requests.is_empty() || !inbox.replies.is_empty()
    }

    /// Errands of this shard that are not answered yet.
    pub fn outstanding(&self) -> usize {
        self.outstanding.get()
    }

    /// This shard's number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.inboxes.len()
    }
}

/// Documents are copied once as they cross, so that shards share no reference counts.
fn detached(answer: Answer) -> Answer {
    match answer {
        Answer::Outcome(Outcome::Document { version, document }) => {
            Answer::Outcome(Outcome::Document { version, document: document.detach() })
        }
        Answer::Outcome(Outcome::Documents(documents)) => {
            let detach = |(version, document): (_, Document)| (version, document.detach());
            Answer::Outcome(Outcome::Documents(documents.into_iter().map(|one| one.map(detach)).collect()))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Silent;
    impl Doorbell for Silent {
        fn ring(&self, _: usize) {}
    }

    fn ping(slot: u32) -> (Errand, Ticket) {
        (Errand::Execute(Command::Ping), Ticket::Task { slot })
    }

    #[test]
    fn answers_come_back_with_their_own_ticket_in_any_order() {
        let boxes = Mailboxes::new(3);
        let (left, right) = (boxes.end(0, Silent), boxes.end(2, Silent));
        for slot in 0..4 {
            let (errand, ticket) = ping(slot);
            left.request(2, errand, ticket).unwrap();
        }
        let mut asked: Vec<_> = std::iter::from_fn(|| right.take_request()).map(|(ticket, _)| ticket).collect();
        asked.reverse();
        for ticket in &asked {
            let Ticket::Peer { shard, slot } = *ticket else { panic!("a peer's ticket") };
            right.reply(shard, slot, Answer::Outcome(Outcome::Schemas(vec![(slot.to_string(), 0)])));
        }
        let mut got: Vec<Ticket> = std::iter::from_fn(|| left.take_reply()).map(|(ticket, _)| ticket).collect();
        assert_eq!(left.outstanding(), 0);
        got.reverse();
        assert_eq!(got, (0..4).map(|slot| Ticket::Task { slot }).collect::<Vec<_>>());
    }

    #[test]
    fn without_a_credit_the_caller_is_refused_and_each_reply_brings_one_back() {
        let boxes = Mailboxes::new(2);
        let (left, right) = (boxes.end(0, Silent), boxes.end(1, Silent));
        let mut sent = 0;
        let refused = loop {
            let (errand, ticket) = ping(sent);
            match left.request(1, errand, ticket) {
                Ok(()) => sent += 1,
                Err(failure) => break failure,
            }
        };
        assert_eq!((sent as usize, refused.code), (MAILBOX_CREDITS, ErrorCode::Overloaded));
        let (Ticket::Peer { shard, slot }, _) = right.take_request().unwrap() else { panic!("a peer's ticket") };
        right.reply(shard, slot, Answer::Done);
        let (errand, ticket) = ping(0);
        assert!(left.request(1, errand, ticket).is_err(), "the credit is back only when the reply is taken");
        left.take_reply().unwrap();
        let (errand, ticket) = ping(0);
        left.request(1, errand, ticket).unwrap();
    }
}
