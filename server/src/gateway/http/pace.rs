//! How far a connection is, and until when the next thing must have happened.
//!
//! One deadline a connection, moved without touching a timer: the alarm sleeps towards the earliest deadline it was
//! told of and looks again when it wakes, so a busy connection arms a timer about once a timeout, not once a request.

use crate::limits::{HELLO_TIMEOUT_MS, IDLE_TIMEOUT_MS, REQUEST_TIMEOUT_MS, SEND_TIMEOUT_MS};
use crate::runtime::platform::Clock;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// How long each phase may take, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the connection, or a head's first byte, to the head's end.
    pub head_ms: u64,
    /// From the head's end to the body's.
    pub body_ms: u64,
    /// Between a reply and the next request.
    pub idle_ms: u64,
    /// Between two moments of progress of the output.
    pub send_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head_ms: HELLO_TIMEOUT_MS,
            body_ms: REQUEST_TIMEOUT_MS,
            idle_ms: IDLE_TIMEOUT_MS,
            send_ms: SEND_TIMEOUT_MS,
        }
    }
}

/// What the connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has arrived yet.
    Greeting,
    /// Some of a head has arrived.
    Head,
    /// A handler reads the body.
    Body,
    /// A handler works; the engine answers every command, so nothing is timed here.
    Working,
    /// The reply is on its way.
    Sending,
    /// Between requests.
    Idle,
}

const NEVER: u64 = u64::MAX;

/// The phase of one connection and its deadline.
pub struct Pace {
    phase: Cell<Phase>,
    deadline_ns: Cell<u64>,
    body_expired: Cell<bool>,
    reply_ended: Cell<bool>,
    lingers: Cell<bool>,
    timeouts: Timeouts,
    now_ns: Cell<u64>,
}

impl Pace {
    /// Starts in `Greeting`.
    pub fn new(now_ns: u64, timeouts: Timeouts) -> Self {
        let pace = Self {
            phase: Cell::new(Phase::Greeting),
            deadline_ns: Cell::new(NEVER),
            body_expired: Cell::new(false),
            reply_ended: Cell::new(true),
            lingers: Cell::new(false),
            timeouts,
            now_ns: Cell::new(now_ns),
        };
        pace.enter(Phase::Greeting);
        pace
    }

    /// Tells it the time, once before each poll of the connection: phases that begin in it count from here.
    pub fn tick(&self, now_ns: u64) {
        self.now_ns.set(now_ns);
    }

    /// The time at the start of this poll, in monotonic nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    /// When the phase must be over, in monotonic nanoseconds.
    pub fn deadline_ns(&self) -> u64 {
        self.deadline_ns.get()
    }

    /// Whether a request has reached the service and its reply has not left.
    pub fn is_serving(&self) -> bool {
        matches!(self.phase.get(), Phase::Body | Phase::Working | Phase::Sending)
    }

    /// Bytes arrived.
    pub fn received(&self) {
        if matches!(self.phase.get(), Phase::Greeting | Phase::Idle) {
            self.enter(Phase::Head);
        }
    }

    /// A request reached the service.
    pub fn request_begins(&self) {
        self.reply_ended.set(false);
        self.enter(Phase::Working);
    }

    /// A handler begins to read the body.
    pub fn body_begins(&self) {
        self.body_expired.set(false);
        self.enter(Phase::Body);
    }

    /// Whether the body's deadline has passed.
    pub fn body_expired(&self) -> bool {
        self.body_expired.get()
    }

    /// A handler works on something that is not the peer's to speed up.
    pub fn works(&self) {
        self.enter(Phase::Working);
    }

    /// A reply, or more of one, is ready to be sent.
    pub fn reply_begins(&self) {
        self.enter(Phase::Sending);
    }

    /// All of the reply has been handed over.
    pub fn reply_ends(&self) {
        self.reply_ended.set(true);
    }

    /// The output made progress.
    pub fn sent(&self) {
        if self.phase.get() == Phase::Sending {
            self.enter(Phase::Sending);
        }
    }

    /// No output waits.
    pub fn flushed(&self) {
        if self.phase.get() == Phase::Sending && self.reply_ended.get() {
            self.enter(Phase::Idle);
        }
    }

    /// The connection closes while its peer may still be sending.
    pub fn linger(&self) {
        self.lingers.set(true);
    }

    /// Whether it does.
    pub fn lingers(&self) -> bool {
        self.lingers.get()
    }

    /// The deadline has passed: a body's reader is told and everything else is the connection's end.
    pub fn expire(&self) -> Phase {
        let phase = self.phase.get();
        if phase == Phase::Body {
            self.body_expired.set(true);
            self.enter(Phase::Working);
        }
        phase
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        let timeout_ms = match phase {
            Phase::Greeting | Phase::Head => self.timeouts.head_ms,
            Phase::Body => self.timeouts.body_ms,
            Phase::Sending => self.timeouts.send_ms,
            Phase::Idle => self.timeouts.idle_ms,
            Phase::Working => return self.deadline_ns.set(NEVER),
        };
        self.deadline_ns.set(self.now_ns.get().saturating_add(timeout_ms.saturating_mul(1_000_000)));
    }
}

/// Wakes its task at a deadline that may move.
pub struct Alarm<C> {
    clock: C,
    sleep: Option<Pin<Box<dyn Future<Output = ()>>>>,
    armed_ns: u64,
}

impl<C: Clock> Alarm<C> {
    /// Not armed.
    pub fn new(clock: C) -> Self {
        Self { clock, sleep: None, armed_ns: NEVER }
    }

    /// Ready once the clock has passed `deadline_ns`; until then the task is woken in time to ask again.
    pub fn poll(&mut self, context: &mut Context<'_>, deadline_ns: u64) -> Poll<()> {
        loop {
            if deadline_ns == NEVER {
                return Poll::Pending;
            }
            if self.sleep.is_none() || self.armed_ns > deadline_ns {
                let now_ns = self.clock.now_ns();
                if now_ns >= deadline_ns {
                    return Poll::Ready(());
                }
                self.sleep = Some(Box::pin(self.clock.sleep(Duration::from_nanos(deadline_ns - now_ns))));
                self.armed_ns = deadline_ns;
            }
            match self.sleep.as_mut().map(|sleep| sleep.as_mut().poll(context)) {
                Some(Poll::Pending) => return Poll::Pending,
                _ => self.sleep = None,
            }
        }
    }
}
