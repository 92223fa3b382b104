//! The machine itself behind the platform's traits: the ring's disk, the system's clocks and randomness, glommio's
//! local tasks.

use super::platform::{Clock, Entropy, Platform, Spawn, TaskClass};
use super::ring::Ring;
use super::ring_disk::RingDisk;
use futures_lite::FutureExt;
use glommio::{Latency, Shares, TaskQueueHandle};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use zeroize::Zeroize;

/// Randomness fetched from the kernel at a time.
const ENTROPY_BYTES: usize = 4096;
/// Shares of background work; everything else has a thousand.
const BACKGROUND_SHARES: usize = 100;
/// How long background work runs before it yields.
const SLICE: Duration = Duration::from_micros(50);

/// The production platform of one shard.
#[derive(Clone)]
pub struct Production {
    disk: RingDisk,
    clock: SystemClock,
    entropy: SystemEntropy,
    spawn: ShardSpawn,
}

impl Production {
    /// Must be made on the shard's executor.
    pub(super) fn new(disk: RingDisk, ring: Rc<Ring>) -> Self {
        let entropy = SystemEntropy(Rc::new(RefCell::new(Pool { bytes: [0; ENTROPY_BYTES], used: ENTROPY_BYTES })));
        Self { disk, clock: SystemClock, entropy, spawn: ShardSpawn::new(ring) }
    }
}

impl Platform for Production {
    type Disk = RingDisk;
    type Clock = SystemClock;
    type Entropy = SystemEntropy;
    type Spawn = ShardSpawn;

    fn disk(&self) -> &RingDisk {
        &self.disk
    }
    fn clock(&self) -> &SystemClock {
        &self.clock
    }
    fn entropy(&self) -> &SystemEntropy {
        &self.entropy
    }
    fn spawn(&self) -> &ShardSpawn {
        &self.spawn
    }
}

/// CLOCK_MONOTONIC, CLOCK_REALTIME and the executor's coarse timers.
#[derive(Clone)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ns(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }
    fn unix_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        async move { glommio::timer::sleep(duration).await }
    }
}

/// The kernel's randomness, fetched in pages and wiped as it is used.
#[derive(Clone)]
pub struct SystemEntropy(Rc<RefCell<Pool>>);

struct Pool {
    bytes: [u8; ENTROPY_BYTES],
    used: usize,
}

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.borrow_mut().fill(buffer);
    }
}

impl Pool {
    fn fill(&mut self, buffer: &mut [u8]) {
        for piece in buffer.chunks_mut(ENTROPY_BYTES) {
            if ENTROPY_BYTES - self.used < piece.len() {
                // Without randomness nothing may be sealed: there is no going on.
                getrandom::fill(&mut self.bytes).expect("the kernel gives randomness");
                self.used = 0;
            }
            let taken = &mut self.bytes[self.used..self.used + piece.len()];
            piece.copy_from_slice(taken);
            taken.zeroize();
            self.used += piece.len();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// Local tasks on the shard's executor.
#[derive(Clone)]
pub struct ShardSpawn(Rc<Tasks>);

struct Tasks {
    ring: Rc<Ring>,
    background: TaskQueueHandle,
    /// When the running task was last given the processor.
    slice_started: Cell<Instant>,
}

impl ShardSpawn {
    fn new(ring: Rc<Ring>) -> Self {
        let shares = Shares::Static(BACKGROUND_SHARES);
        let background = glommio::executor().create_task_queue(shares, Latency::NotImportant, "background");
        Self(Rc::new(Tasks { ring, background, slice_started: Cell::new(Instant::now()) }))
    }

    /// The future, with its slices measured and its panics turned into the end of the process.
    pub(super) fn guard<T: 'static>(
        &self,
        future: impl Future<Output = T> + 'static,
    ) -> impl Future<Output = T> + 'static {
        let tasks = self.0.clone();
        let mut future = Box::pin(abort_on_panic(future));
        std::future::poll_fn(move |cx| {
            tasks.slice_started.set(Instant::now());
            future.poll(cx)
        })
    }
}

impl Spawn for ShardSpawn {
    fn spawn(&self, class: TaskClass, future: impl Future<Output = ()> + 'static) {
        let future = self.guard(future);
        match class {
            TaskClass::Foreground => drop(glommio::spawn_local(future).detach()),
            TaskClass::Background => {
                let task = glommio::spawn_local_into(future, self.0.background);
                drop(task.expect("the background queue lives as long as its executor").detach());
            }
        }
    }

    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        async { glommio::executor().yield_now().await }
    }

    fn yield_if_due(&self) -> impl Future<Output = ()> + 'static {
        let due = self.0.slice_started.get().elapsed() >= SLICE;
        let tasks = due.then(|| self.0.clone());
        async move {
            let Some(tasks) = tasks else { return };
            // A parked driver hears of the ring only when the executor has nothing else to run: tell it here.
            tasks.ring.wake_driver_if_due();
            drop(tasks);
            glommio::executor().yield_task_queue_now().await;
        }
    }
}

/// A panic in engine or storage leaves half-truths in memory: the process stops rather than serve them.
pub(super) async fn abort_on_panic<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(AssertUnwindSafe(future).catch_unwind());
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Pending => Poll::Pending,
        Poll::Ready(Ok(value)) => Poll::Ready(value),
        Poll::Ready(Err(_)) => {
            tracing::error!("a task of a shard panicked: the process stops; restart it to recover from the log");
            std::process::abort()
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn randomness_is_wiped_as_it_is_used_and_never_repeats() {
        let pool = Rc::new(RefCell::new(Pool { bytes: [0; ENTROPY_BYTES], used: ENTROPY_BYTES }));
        let entropy = SystemEntropy(pool.clone());
        let mut seen = std::collections::HashSet::new();
        for _ in 0..2000 {
            assert!(seen.insert(entropy.next_u64()));
        }
        let used = pool.borrow().used;
        assert!(pool.borrow().bytes[..used].iter().all(|byte| *byte == 0));
        let mut large = vec![0; 3 * ENTROPY_BYTES + 5];
        entropy.fill(&mut large);
        assert!(large.chunks(1000).all(|chunk| chunk.iter().any(|byte| *byte != 0)));
    }
}
