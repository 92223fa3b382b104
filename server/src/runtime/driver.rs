//! The one task that drives a shard's ring: turns, idling, parking.
//!
//! A turn submits and reaps once, runs at most [`limits::COMPLETIONS_PER_TURN_MAX`] completions, gives the service its
//! turn and yields, so that every other local task runs. Idle, it spins for as long as that has been paying, then
//! parks on the ring's descriptor and on a local waker; both, and the mailboxes, are looked at again after the parking
//! was announced, so that no wake-up is lost.

use super::disk_operations::DiskOperations;
use super::doorbell::ShardDoorbell;
use super::net::{Net, Service};
use super::ring::{Completion, OperationKind, Ring};
use super::ring_disk::OpenFile;
use crate::limits;
use glommio::io::{PollState, PollableFd};
use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A commit that takes longer than this is not worth waiting awake for.
const COMMIT_AWAKE_MAX: Duration = Duration::from_millis(1);

/// What a shard's ring serves.
pub(super) struct Driver {
    pub ring: Rc<Ring>,
    pub net: Net,
    pub disk: Rc<DiskOperations<OpenFile>>,
    pub doorbell: ShardDoorbell,
    pub spin: Duration,
    /// Raised when the shard is to end: the driver returns once nothing is outstanding.
    pub ending: Rc<Cell<bool>>,
}

impl Driver {
    /// Turns until the shard ends.
    pub async fn run(self) -> io::Result<()> {
        let pollable = PollableFd::new(self.ring.duplicate_fd()?).map_err(io::Error::from)?;
        let mut registration = PollState::new();
        let mut completions = Vec::with_capacity(limits::COMPLETIONS_PER_TURN_MAX);
        let mut idle = Idle::new(self.spin);
        loop {
            let service = self.net.service();
            let busy = self.turn(&mut completions, service.as_deref())?;
            if self.ending.get() && self.is_drained() {
                return self.ring.submit();
            }
            if busy {
                idle.worked();
            } else if !idle.may_spin(self.disk.commit_expected_by()) {
                self.doorbell.announce_parking();
                let more = service.as_ref().is_some_and(|service| service.on_turn());
                if !more && !self.has_work() {
                    std::future::poll_fn(|cx| self.poll_parked(cx, &pollable, &mut registration)).await;
                    self.ring.unpark_driver();
                }
                self.doorbell.awake();
                continue;
            }
            glommio::executor().yield_now().await;
        }
    }

    /// One turn; `true` when there was, or is, something to do.
    fn turn(&self, completions: &mut Vec<Completion>, service: Option<&dyn Service>) -> io::Result<bool> {
        let mut busy = self.has_work();
        if busy {
            self.net.settle(service);
            self.ring.submit()?;
            self.ring.reap(completions, limits::COMPLETIONS_PER_TURN_MAX);
            for completion in completions.drain(..) {
                self.complete(completion, service);
            }
            self.net.end_turn();
        }
        if let Some(service) = service {
            busy |= service.on_turn();
        }
        Ok(busy)
    }

    fn complete(&self, completion: Completion, service: Option<&dyn Service>) {
        match completion.token.kind {
            OperationKind::Disk | OperationKind::DiskSync => self.disk.complete(completion),
            OperationKind::Doorbell | OperationKind::Ringing => self.doorbell.complete(completion),
            _ => self.net.complete(completion, service),
        }
    }

    fn has_work(&self) -> bool {
        self.net.has_work() || self.ring.has_work()
    }

    fn is_drained(&self) -> bool {
        self.net.is_idle() && self.disk.is_idle()
    }

    fn poll_parked(&self, cx: &mut Context<'_>, pollable: &PollableFd<OwnedFd>, state: &mut PollState) -> Poll<()> {
        if self.ring.park_driver(cx.waker()) || pollable.poll_readable(cx, state).is_ready() || self.has_work() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// When to spin and when to park.
struct Idle {
    spin: Duration,
    since: Option<Instant>,
    parked: bool,
    /// A running mean of the gaps between work, each counted up to a few spins.
    gap_mean: Duration,
}

impl Idle {
    fn new(spin: Duration) -> Self {
        Self { spin, since: None, parked: false, gap_mean: Duration::ZERO }
    }

    fn worked(&mut self) {
        if let Some(since) = self.since.take() {
            let gap = since.elapsed().min(4 * self.spin);
            self.gap_mean = (3 * self.gap_mean + gap) / 4;
            self.parked = false;
        }
    }

    /// Whether to look again instead of parking.
    fn may_spin(&mut self, commit_expected_by: Option<Instant>) -> bool {
        if self.spin.is_zero() {
            return false;
        }
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if let Some(expected_by) = commit_expected_by
            && now < expected_by.min(since + COMMIT_AWAKE_MAX)
        {
            return true;
        }
        !self.parked && self.gap_mean <= self.spin && now < since + self.spin || {
            self.parked = true;
            false
        }
    }
}
