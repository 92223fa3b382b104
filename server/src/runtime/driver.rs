//! The one task that drives a shard's ring: turns, idling, sleeping.
//!
//! A turn submits and reaps once, runs at most [`limits::COMPLETIONS_PER_TURN_MAX`] completions, gives the service its
//! turn and yields, so that every other local task runs. Idle, it spins for as long as that has been paying, then
//! puts the thread to sleep in the ring itself; where spinning does not pay, the last replies are sent by the very call
//! in which it sleeps.
//!
//! The executor is never left to park: its scheduler can go to sleep on its own reactor although tasks are ready (when
//! its preemption signal comes between its polling and its first task), and its reactor is blind to the ring. So this
//! task is always ready, or rests only while background work is; nothing of a shard depends on the executor's
//! reactor, and the preemption signal is put out of reach. The thread sleeps only when this task is the only one: when
//! it gave way, no other ran.

use super::alarm::Alarm;
use super::disk_operations::DiskOperations;
use super::doorbell::ShardDoorbell;
use super::idle::Idle;
use super::inbox::Inbox;
use super::net::{Net, Service};
use super::production::ShardSpawn;
use super::ring::{Completion, OperationKind, Ring};
use super::ring_disk::OpenFile;
use super::timers::Timers;
use crate::limits;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// What a shard's ring serves.
pub(super) struct Driver {
    pub ring: Rc<Ring>,
    pub net: Net,
    pub disk: Rc<DiskOperations<OpenFile>>,
    pub doorbell: ShardDoorbell,
    pub timers: Timers,
    pub alarm: RefCell<Alarm>,
    pub inbox: Arc<Inbox>,
    pub spawn: ShardSpawn,
    pub spin: Duration,
    /// Raised when the shard is to end: the driver returns once nothing is outstanding.
    pub ending: Rc<Cell<bool>>,
}

impl Driver {
    /// Turns until the shard ends.
    pub async fn run(self) -> io::Result<()> {
        self.inbox.watch(&self.ring);
        let mut completions = Vec::with_capacity(limits::COMPLETIONS_PER_TURN_MAX);
        let mut idle = Idle::new(self.spin);
        loop {
            let service = self.net.service();
            let busy = self.turn(&mut completions, &mut idle, service.as_deref())?;
            if self.ending.get() && self.is_drained() {
                return self.ring.submit();
            }
            let background = self.spawn.background_is_ready();
            if busy {
                idle.worked();
            }
            if background && !busy {
                self.rest().await;
                continue;
            }
            // After work as well: what is to be sent then goes with the call in which the thread sleeps.
            let may_rest = !background && (!busy || !self.ring.has_arrived());
            if may_rest && !idle.may_spin(self.disk.commit_expected_by()) {
                self.park(service.as_deref()).await?;
                continue;
            }
            if !busy && self.disk.commit_is_in_flight() {
                // The kernel threads that finish the commit may be waiting for this very CPU.
                rustix::thread::sched_yield();
            }
            match background {
                // Nothing preempts this queue: the other one runs when this one gives way.
                true => glommio::executor().yield_task_queue_now().await,
                false => glommio::executor().yield_now().await,
            }
        }
    }

    /// One turn; `true` when there was, or is, something to do.
    fn turn(
        &self,
        completions: &mut Vec<Completion>,
        idle: &mut Idle,
        service: Option<&dyn Service>,
    ) -> io::Result<bool> {
        let mut busy = self.has_work();
        if busy {
            self.net.settle(service);
            self.ring.submit()?;
            self.ring.reap(completions, limits::COMPLETIONS_PER_TURN_MAX);
            self.net.look_ahead(completions, service);
            for completion in completions.drain(..) {
                if completion.token.kind == OperationKind::Receive {
                    idle.heard(completion.token.slot);
                }
                self.complete(completion, service);
            }
            self.net.end_turn();
        }
        busy |= self.timers.fire();
        if let Some(service) = service {
            busy |= service.on_turn();
        }
        Ok(busy)
    }

    fn complete(&self, completion: Completion, service: Option<&dyn Service>) {
        match completion.token.kind {
            OperationKind::Disk | OperationKind::DiskSync => self.disk.complete(completion),
            OperationKind::Alarm => self.alarm.borrow_mut().rang(),
            OperationKind::Doorbell | OperationKind::Ringing => self.doorbell.complete(completion),
            OperationKind::Inbox => {
                self.inbox.empty();
                if !completion.more {
                    self.inbox.watch(&self.ring);
                }
            }
            _ => self.net.complete(completion, service),
        }
    }

    /// Sleeps, if there is nothing to do but to send. Whatever runs in between ends the attempt, for a turn has to
    /// follow: it may have begun a commit, rung this shard's own bell, or ended the shard.
    async fn park(&self, service: Option<&dyn Service>) -> io::Result<()> {
        self.doorbell.announce_parking();
        self.net.settle(service);
        let ran_before = self.spawn.slices();
        let more = service.is_some_and(|service| service.on_turn());
        // Every task that is ready runs before this one does again.
        glommio::executor().yield_now().await;
        let is_alone = self.spawn.slices() == ran_before && !self.spawn.background_is_ready();
        let is_over = self.ending.get() && self.is_drained();
        let is_quiet = !self.net.has_work() && !self.ring.has_arrived() && self.ring.holds_only_immediate();
        if !more && is_alone && is_quiet && !is_over {
            self.sleep()?;
        }
        self.doorbell.awake();
        Ok(())
    }

    fn has_work(&self) -> bool {
        self.net.has_work() || self.ring.has_work()
    }

    fn is_drained(&self) -> bool {
        self.net.is_idle() && self.disk.is_idle()
    }

    /// Sleeps in the ring; only a completion, a signal or the next timer ends it.
    fn sleep(&self) -> io::Result<()> {
        match self.timers.next() {
            Some(until) => self.alarm.borrow_mut().sleep(&self.ring, until),
            None => self.ring.submit_and_sleep(None),
        }
    }

    /// Leaves the processor to background work: every end of one of its slices, and everything that is queued, wakes
    /// this task.
    async fn rest(&self) {
        let mut rested = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut rested, true) {
                return Poll::Ready(());
            }
            self.ring.rest_driver(cx.waker());
            Poll::Pending
        })
        .await;
    }
}
