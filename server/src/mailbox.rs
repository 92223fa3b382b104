//! Bounded queues between shards.
//!
//! A request takes one of the sender's credits for that peer and a reply slot; the reply brings both back. The queues
//! hold as many messages as there are credits, so a push never fails, a reply never waits, and no two shards can wait
//! for each other's room. Without a credit an errand waits on the sender's own side, in order, for the next one that
//! comes back: its asker is expected to ask for nothing more meanwhile (`waiting_for_credit` shows it that it waits).
//! What may wait is bounded in number and bytes; beyond that the asker is refused. Documents are owned by the message.
//! An asker may give up waiting; the reply, should it come, then brings only its credit back.

use crate::command::{Command, Document, ErrorCode, Failure, Outcome, Ticket};
use crate::crypto::keyring::{DataKeyId, Keyring};
use crate::limits::{MAILBOX_CREDITS, MAILBOX_WAITING_BYTES_MAX, MAILBOX_WAITING_MAX};
use crate::runtime::platform::Doorbell;
use crate::runtime::roster::Roster;
use crate::sabotage::{Sabotage, is_on};
use crossbeam_queue::ArrayQueue;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
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

impl Errand {
    /// Whether it may change what the other shard holds.
    fn changes(&self) -> bool {
        match self {
            Errand::Execute(command) => command.changes(),
            Errand::AdoptKeyring(_) => true,
            Errand::RefreshTemplates | Errand::KeyIdsInUse => false,
        }
    }

    /// What it holds of documents and keys, about.
    fn weight_bytes(&self) -> usize {
        match self {
            Errand::Execute(Command::Put { document, .. }) => document.len(),
            Errand::Execute(Command::MultiPut { items, .. }) => {
                items.iter().map(|item| item.key.len() + item.document.len()).sum()
            }
            Errand::Execute(Command::MultiGet { keys, .. }) => keys.iter().map(|key| key.len()).sum(),
            Errand::Execute(Command::SchemaPut { template, .. }) => template.len(),
            _ => 0,
        }
    }
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
    from: u16,
    slot: u32,
    answer: Answer,
}

/// Both queues into one shard.
struct Inbox {
    requests: ArrayQueue<Box<Request>>,
    replies: ArrayQueue<Box<Reply>>,
}

/// How much may be asked at once, and how much more may wait for that. Other than `of` in tests only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxBounds {
    /// Errands of one shard that another has not answered.
    pub credits: usize,
    /// Errands of one shard that wait for a credit.
    pub waiting: usize,
    /// Bytes of these, about.
    pub waiting_bytes: usize,
}

impl MailboxBounds {
    /// Those of so many shards. Credits shrink as shards grow, so that memory stays bounded.
    pub fn of(shards: usize) -> Self {
        Self {
            credits: (16 * MAILBOX_CREDITS / shards.max(1)).clamp(64, MAILBOX_CREDITS),
            waiting: MAILBOX_WAITING_MAX,
            waiting_bytes: MAILBOX_WAITING_BYTES_MAX,
        }
    }
}

/// The queues of all shards; made once, shared by all.
#[derive(Clone)]
pub struct Mailboxes {
    inboxes: Arc<[Inbox]>,
    bounds: MailboxBounds,
}

impl Mailboxes {
    /// Queues for so many shards.
    pub fn new(shards: usize) -> Self {
        Self::within(shards, MailboxBounds::of(shards))
    }

    /// The same within these bounds.
    pub fn within(shards: usize, bounds: MailboxBounds) -> Self {
        let capacity = (bounds.credits * shards.saturating_sub(1)).max(1);
        let inbox = |_| Inbox { requests: ArrayQueue::new(capacity), replies: ArrayQueue::new(capacity) };
        Self { inboxes: (0..shards).map(inbox).collect(), bounds }
    }

    /// The end that shard `index` holds.
    pub fn end<B: Doorbell>(&self, index: usize, doorbell: B) -> Mailbox<B> {
        let shards = self.inboxes.len();
        Mailbox {
            inboxes: self.inboxes.clone(),
            index,
            doorbell,
            credits: (0..shards).map(|_| Cell::new(self.bounds.credits)).collect(),
            asked: RefCell::default(),
            without_credit: RefCell::new(WithoutCredit::new(shards, self.bounds)),
        }
    }
}

/// Who waits for a reply, and whether what was asked may change something.
struct Asked {
    ticket: Ticket,
    changes: bool,
}

/// An errand whose reply is not waited for any more.
#[derive(Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Who waited.
    pub ticket: Ticket,
    /// Whether it may have changed something, or still will.
    pub may_change: bool,
}

/// Errands that wait for a credit, by peer, oldest first. A peer has some only while it has no credit.
struct WithoutCredit {
    by_peer: Box<[VecDeque<Box<Request>>]>,
    count: usize,
    bytes: usize,
    bounds: MailboxBounds,
}

impl WithoutCredit {
    fn new(shards: usize, bounds: MailboxBounds) -> Self {
        Self { by_peer: (0..shards).map(|_| VecDeque::new()).collect(), count: 0, bytes: 0, bounds }
    }

    /// Whether an errand of this weight still fits. One alone always does.
    fn has_room(&self, weight_bytes: usize) -> bool {
        self.count == 0 || (self.count < self.bounds.waiting && self.bytes + weight_bytes <= self.bounds.waiting_bytes)
    }

    fn push(&mut self, peer: usize, request: Box<Request>) {
        self.count += 1;
        self.bytes += request.errand.weight_bytes();
        self.by_peer[peer].push_back(request);
    }

    fn pop(&mut self, peer: usize) -> Option<Box<Request>> {
        let request = self.by_peer[peer].pop_front()?;
        self.count -= 1;
        self.bytes -= request.errand.weight_bytes();
        Some(request)
    }
}

/// One shard's end of all its queues.
pub struct Mailbox<B> {
    inboxes: Arc<[Inbox]>,
    index: usize,
    doorbell: B,
    credits: Box<[Cell<usize>]>,
    asked: RefCell<Roster<Asked>>,
    without_credit: RefCell<WithoutCredit>,
}

impl<B: Doorbell> Mailbox<B> {
    /// Sends an errand to another shard, now or as soon as a credit is back; the answer comes with this ticket. It is
    /// refused only when too much waits already.
    pub fn request(&self, peer: usize, errand: Errand, ticket: Ticket) -> Result<(), Failure> {
        assert_ne!(peer, self.index, "a shard has no mailbox to itself");
        let credits = self.credits[peer].get();
        if credits == 0 && !self.without_credit.borrow().has_room(errand.weight_bytes()) {
            return Err(Failure::new(
                ErrorCode::Overloaded,
                "the shard that owns this key is overloaded: retry shortly",
            ));
        }
        let slot = self.asked.borrow_mut().enter(Asked { ticket, changes: errand.changes() });
        let request = Box::new(Request { from: self.index as u16, slot, errand });
        if credits == 0 {
            self.without_credit.borrow_mut().push(peer, request);
        } else {
            self.credits[peer].set(credits - 1);
            self.send(peer, request);
        }
        Ok(())
    }

    /// The caller has taken a credit for it.
    fn send(&self, peer: usize, request: Box<Request>) {
        let pushed = self.inboxes[peer].requests.push(request);
        assert!(pushed.is_ok(), "credits bound the queue");
        if !is_on(Sabotage::ForgetDoorbell) {
            self.doorbell.ring(peer);
        }
    }

    /// Answers an errand. Never waits: the asker's credit holds the room.
    pub fn reply(&self, shard: u16, slot: u32, answer: Answer) {
        let reply = Reply { from: self.index as u16, slot, answer: detached(answer) };
        let pushed = self.inboxes[shard as usize].replies.push(Box::new(reply));
        assert!(pushed.is_ok(), "credits bound the queue");
        self.doorbell.ring(shard as usize);
    }

    /// The next errand of another shard, with the ticket to answer it by.
    pub fn take_request(&self) -> Option<(Ticket, Errand)> {
        let request = self.inboxes[self.index].requests.pop()?;
        Some((Ticket::Peer { shard: request.from, slot: request.slot }, request.errand))
    }

    /// The next answer to an errand of this shard's that is still waited for.
    pub fn take_reply(&self) -> Option<(Ticket, Answer)> {
        loop {
            let Reply { from, slot, answer } = *self.inboxes[self.index].replies.pop()?;
            let asked = self.asked.borrow_mut().leave(slot);
            self.credit_is_back(usize::from(from));
            if let Some(asked) = asked {
                return Some((asked.ticket, answer));
            }
        }
    }

    /// Gives up waiting for every reply. Errands that were not sent yet never will be.
    pub fn give_up(&self) -> Vec<GivenUp> {
        let mut given_up = Vec::new();
        for peer in 0..self.shards() {
            while let Some(request) = self.without_credit.borrow_mut().pop(peer) {
                let asked = self.asked.borrow_mut().leave(request.slot);
                given_up.extend(asked.map(|asked| GivenUp { ticket: asked.ticket, may_change: false }));
            }
        }
        let sent = self.asked.borrow_mut().give_up(|_| true);
        given_up.extend(sent.into_iter().map(|asked| GivenUp { ticket: asked.ticket, may_change: asked.changes }));
        given_up
    }

    /// The errand that has waited longest gets it.
    fn credit_is_back(&self, peer: usize) {
        match self.without_credit.borrow_mut().pop(peer) {
            Some(request) => self.send(peer, request),
            None => self.credits[peer].set(self.credits[peer].get() + 1),
        }
    }

    /// Whether anything lies in the queues of this shard.
    pub fn has_mail(&self) -> bool {
        let inbox = &self.inboxes[self.index];
        !inbox.requests.is_empty() || !inbox.replies.is_empty()
    }

    /// Errands of this shard that no credit could be had for yet.
    pub fn waiting_for_credit(&self) -> usize {
        self.without_credit.borrow().count
    }

    /// Errands of this shard that are not answered yet, sent or not.
    pub fn outstanding(&self) -> usize {
        self.asked.borrow().waiting()
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
    use crate::command::Condition;

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

    fn send(left: &Mailbox<Silent>, slot: u32) {
        let (errand, ticket) = ping(slot);
        left.request(1, errand, ticket).unwrap();
    }

    fn answer_one(right: &Mailbox<Silent>) {
        let (Ticket::Peer { shard, slot }, _) = right.take_request().unwrap() else { panic!("a peer's ticket") };
        right.reply(shard, slot, Answer::Done);
    }

    #[test]
    fn without_a_credit_errands_wait_in_order_and_each_reply_lets_one_go() {
        let boxes = Mailboxes::new(2);
        let (left, right) = (boxes.end(0, Silent), boxes.end(1, Silent));
        let credits = MAILBOX_CREDITS as u32;
        (0..credits).for_each(|slot| send(&left, slot));
        assert_eq!(left.waiting_for_credit(), 0);
        (credits..credits + 3).for_each(|slot| send(&left, slot));
        assert_eq!((left.waiting_for_credit(), left.outstanding()), (3, MAILBOX_CREDITS + 3));

        let mut order = Vec::new();
        for answered in 1..=MAILBOX_CREDITS + 3 {
            answer_one(&right);
            let (Ticket::Task { slot }, _) = left.take_reply().unwrap() else { panic!("a task's ticket") };
            order.push(slot);
            assert_eq!(left.waiting_for_credit(), 3usize.saturating_sub(answered));
        }
        assert_eq!(order, (0..credits + 3).collect::<Vec<_>>());
        assert!(right.take_request().is_none() && left.outstanding() == 0);
        (0..credits).for_each(|slot| send(&left, slot));
        assert_eq!(left.waiting_for_credit(), 0, "every credit came back, and none twice");
    }

    #[test]
    fn an_errand_that_was_given_up_is_answered_once_and_its_late_reply_brings_only_the_credit() {
        let boxes = Mailboxes::new(2);
        let (left, right) = (boxes.end(0, Silent), boxes.end(1, Silent));
        let delete = || Command::Delete { schema: "s".into(), key: "k".into(), condition: Condition::None };
        left.request(1, Errand::Execute(delete()), Ticket::Task { slot: 0 }).unwrap();
        let credits = MAILBOX_CREDITS as u32;
        (1..credits).for_each(|slot| send(&left, slot));
        left.request(1, Errand::Execute(delete()), Ticket::Task { slot: credits }).unwrap();
        assert_eq!((left.waiting_for_credit(), left.outstanding()), (1, MAILBOX_CREDITS + 1));

        let given_up = left.give_up();
        assert_eq!(given_up.len(), MAILBOX_CREDITS + 1);
        let changed = |given_up: &GivenUp| given_up.may_change.then_some(given_up.ticket);
        let changed: Vec<_> = given_up.iter().filter_map(changed).collect();
        assert_eq!(changed, [Ticket::Task { slot: 0 }], "what was not sent has surely changed nothing");
        assert_eq!((left.waiting_for_credit(), left.outstanding()), (0, 0));
        assert_eq!(left.give_up(), []);

        (0..credits).for_each(|_| answer_one(&right));
        assert!(left.take_reply().is_none(), "nobody waits for these");
        (0..credits).for_each(|slot| send(&left, slot));
        assert_eq!(left.waiting_for_credit(), 0, "every credit came back");
        answer_one(&right);
        assert!(left.take_reply().is_some());
    }

    #[test]
    fn what_may_wait_is_bounded_in_number_and_in_bytes() {
        for (document_bytes, most) in [(0, MAILBOX_WAITING_MAX), (1 << 20, MAILBOX_WAITING_BYTES_MAX >> 20)] {
            let boxes = Mailboxes::new(2);
            let (left, right) = (boxes.end(0, Silent), boxes.end(1, Silent));
            (0..MAILBOX_CREDITS as u32).for_each(|slot| send(&left, slot));
            let put = || {
                let document = vec![0; document_bytes].into();
                let command =
                    Command::Put { schema: "s".into(), key: "k".into(), document, condition: Condition::None };
                left.request(1, Errand::Execute(command), Ticket::Task { slot: 0 })
            };
            let mut waiting = 0;
            let refused = loop {
                match put() {
                    Ok(()) => waiting += 1,
                    Err(failure) => break failure,
                }
            };
            assert_eq!((waiting, refused.code), (most, ErrorCode::Overloaded));
            assert!(refused.message.contains("retry"), "{}", refused.message);
            answer_one(&right);
            left.take_reply().unwrap();
            put().expect("one went, so one more may wait");
        }
    }
}
