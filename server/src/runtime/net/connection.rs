//! One connection: its phase, which operations are outstanding, and what it wants next.
//!
//! Nothing here queues an operation or calls anybody: the table looks at a connection whenever something about it
//! changed and does what [`Connection`] says it wants.

use super::CloseReason;
use super::outbox::Outbox;
use super::stream::StreamState;
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// How far a connection has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The slot is free.
    Free,
    /// Both directions work.
    Open,
    /// Close was asked for; what is owed leaves first, input is thrown away.
    Draining,
    /// Everything was sent and the write side is shut; the peer gets a moment to read it and close.
    Lingering,
    /// Every operation is being cancelled; the slot is freed after the last completion.
    Ending,
}

/// How long a service has to say that a deadline has passed, and the peer to take it.
const LAST_WORDS_MS: u64 = 1_000;

/// No deadline.
pub(super) const NEVER_MS: u64 = u64::MAX;

/// One slot of the connection table.
pub(super) struct Connection {
    pub generation: u32,
    pub phase: Phase,
    pub fd: Option<OwnedFd>,
    pub reason: CloseReason,
    pub outbox: Outbox,
    /// What of the shard's total its output was counted to hold.
    pub held_counted: usize,
    /// Set while an async reader owns the input.
    pub stream: Option<Rc<RefCell<StreamState>>>,

    /// Operations whose last completion is still to come, the receive and the send included.
    pub operations: u32,
    pub receiving: bool,
    pub receive_cancelled: bool,
    pub sending: bool,
    /// The peer is behind: the next send waits for room.
    pub blocked: bool,
    pub shut_down: bool,

    /// The user said so.
    pub paused: bool,
    /// Too much is owed.
    pub throttled: bool,
    /// Buffers ran out; received again at the end of the turn.
    pub starved: bool,
    /// The stream's reader is behind.
    pub stream_full: bool,
    pub end_of_input: bool,

    /// Listed for the table's next look.
    pub touched: bool,
    pub deadline_ms: u64,
    pub send_deadline_ms: u64,
    /// The service was told that the deadline passed.
    pub expired: bool,
    /// The earliest alarm that will look at this connection.
    pub alarm_ms: u64,
}

impl Connection {
    /// A free slot.
    pub fn free() -> Self {
        Self {
            generation: 0,
            phase: Phase::Free,
            fd: None,
            reason: CloseReason::Peer,
            outbox: Outbox::default(),
            held_counted: 0,
            stream: None,
            operations: 0,
            receiving: false,
            receive_cancelled: false,
            sending: false,
            blocked: false,
            shut_down: false,
            paused: false,
            throttled: false,
            starved: false,
            stream_full: false,
            end_of_input: false,
            touched: false,
            deadline_ms: NEVER_MS,
            send_deadline_ms: NEVER_MS,
            expired: false,
            alarm_ms: NEVER_MS,
        }
    }

    /// Takes the slot for a new socket.
    pub fn open(&mut self, fd: OwnedFd) {
        debug_assert!(self.phase == Phase::Free && self.operations == 0);
        let generation = self.generation.wrapping_add(1);
        *self = Self { generation, phase: Phase::Open, fd: Some(fd), touched: self.touched, ..Self::free() };
    }

    /// Whether bytes may still be queued for the peer.
    pub fn takes_output(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether a receive should be armed: to hear the peer, or, when closing, to notice that it has gone.
    pub fn wants_input(&self) -> bool {
        let held = self.paused || self.throttled || self.stream_full;
        !self.end_of_input
            && !self.starved
            && match self.phase {
                Phase::Open | Phase::Draining => !held,
                Phase::Lingering => true,
                Phase::Free | Phase::Ending => false,
            }
    }

    /// The time at which something must be done about it.
    pub fn due_ms(&self) -> u64 {
        match self.phase {
            Phase::Free | Phase::Ending => NEVER_MS,
            _ if self.sending => self.deadline_ms.min(self.send_deadline_ms),
            _ => self.deadline_ms,
        }
    }

    /// Its time has come: gives it a moment more when the service can still say why, once.
    pub fn expire(&mut self, now_ms: u64) -> bool {
        let by_send = self.sending && self.send_deadline_ms <= now_ms;
        let can_be_told = self.phase == Phase::Open && self.stream.is_none() && !self.expired && !by_send;
        if can_be_told {
            self.expired = true;
            self.deadline_ms = now_ms + LAST_WORDS_MS;
        }
        can_be_told
    }

    /// Ends it at once; the first reason stays.
    pub fn end(&mut self, reason: CloseReason) {
        if matches!(self.phase, Phase::Open) {
            self.reason = reason;
        }
        if self.phase != Phase::Free {
            self.phase = Phase::Ending;
        }
    }
}
