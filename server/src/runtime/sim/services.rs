//! The simulated clock, entropy, spawner and doorbell: handles on one simulated machine.

use super::core::Core;
use crate::runtime::platform::{Clock, Doorbell, Entropy, Spawn, TaskClass};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Where simulated wall time begins, in milliseconds since the Unix epoch.
const WALL_START_MS: u64 = 1_750_000_000_000;

/// Simulated time.
#[derive(Clone)]
pub struct SimClock(pub(super) Rc<Core>);

impl Clock for SimClock {
    fn now_ns(&self) -> u64 {
        self.0.now_ns.get()
    }

    fn unix_ms(&self) -> u64 {
        (WALL_START_MS + self.0.now_ns.get() / 1_000_000).saturating_add_signed(self.0.wall_shift_ms.get())
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let core = Rc::clone(&self.0);
        let deadline_ns = core.now_ns.get().saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        poll_fn(move |context| {
            if core.now_ns.get() >= deadline_ns {
                return Poll::Ready(());
            }
            core.wake_at(deadline_ns, context.waker().clone());
            Poll::Pending
        })
    }
}

/// A seeded stream in the place of randomness.
#[derive(Clone)]
pub struct SimEntropy(pub(super) Rc<Core>);

impl Entropy for SimEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.entropy.borrow_mut().fill(buffer);
    }
}

/// Spawns tasks of the simulated machine.
#[derive(Clone)]
pub struct SimSpawn(pub(super) Rc<Core>);

impl Spawn for SimSpawn {
    #[track_caller]
    fn spawn(&self, class: TaskClass, future: impl Future<Output = ()> + 'static) {
        self.0.spawn(class, Box::pin(future));
    }

    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        yield_if(Rc::clone(&self.0), |_| true)
    }

    fn yield_if_due(&self) -> impl Future<Output = ()> + 'static {
        yield_if(Rc::clone(&self.0), |core| core.flip_coin(4))
    }
}

fn yield_if(core: Rc<Core>, due: fn(&Core) -> bool) -> impl Future<Output = ()> + 'static {
    let mut asked = false;
    poll_fn(move |context| {
        if !std::mem::replace(&mut asked, true) && due(&core) {
            core.wake_after_others(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    })
}

/// Wakes simulated shards; what their parking waits on is here too.
#[derive(Clone)]
pub struct SimDoorbell(pub(super) Rc<Core>);

impl SimDoorbell {
    /// Waits until `shard` has been rung since the last wait ended. One waiter a shard.
    pub fn rung(&self, shard: usize) -> impl Future<Output = ()> + 'static {
        let core = Rc::clone(&self.0);
        poll_fn(move |context| {
            let mut doorbells = core.doorbells.borrow_mut();
            let (rung, waiter) = doorbells.entry(shard).or_default();
            if std::mem::take(rung) {
                return Poll::Ready(());
            }
            *waiter = Some(context.waker().clone());
            Poll::Pending
        })
    }
}

impl Doorbell for SimDoorbell {
    fn ring(&self, peer: usize) {
        let mut doorbells = self.0.doorbells.borrow_mut();
        let (rung, waiter) = doorbells.entry(peer).or_default();
        *rung = true;
        if let Some(waker) = waiter.take() {
            waker.wake();
        }
    }
}
