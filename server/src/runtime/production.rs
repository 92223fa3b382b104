//! The machine itself behind the platform's traits: the ring's disk, the system's clocks and randomness, glommio's
//! local tasks.

use super::platform::{Clock, Entropy, Platform, Spawn, TaskClass};
use super::ring::Ring;
use super::ring_disk::RingDisk;
use super::timers::Timers;
use futures_lite::FutureExt;
use glommio::{Latency, Shares, TaskQueueHandle};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
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
    pub(super) fn new(disk: RingDisk, timers: Timers, spawn: ShardSpawn) -> Self {
        let entropy = SystemEntropy(Rc::new(RefCell::new(Pool { bytes: [0; ENTROPY_BYTES], used: ENTROPY_BYTES })));
        Self { disk, clock: SystemClock(timers), entropy, spawn }
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

/// CLOCK_MONOTONIC, CLOCK_REALTIME and the shard's timers.
#[derive(Clone)]
pub struct SystemClock(Timers);

impl Clock for SystemClock {
    fn now_ns(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }
    fn unix_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        self.0.sleep(duration)
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
    /// Background tasks that are ready to run.
    background_ready: Arc<AtomicUsize>,
    /// When the running task was last given the processor.
    slice_started: Cell<Instant>,
    /// How often tasks were given the processor.
    slices: Cell<u64>,
}

impl ShardSpawn {
    pub(super) fn new(ring: Rc<Ring>) -> Self {
        let shares = Shares::Static(BACKGROUND_SHARES);
        let background = glommio::executor().create_task_queue(shares, Latency::NotImportant, "background");
        Self(Rc::new(Tasks {
            ring,
            background,
            background_ready: Arc::default(),
            slice_started: Cell::new(Instant::now()),
            slices: Cell::new(0),
        }))
    }

    /// Whether background work would run if the foreground gave way.
    pub(super) fn background_is_ready(&self) -> bool {
        self.0.background_ready.load(Ordering::Relaxed) > 0
    }

    /// How often tasks have run so far.
    pub(super) fn slices(&self) -> u64 {
        self.0.slices.get()
    }

    /// The future, with its slices measured and its panics turned into the end of the process.
    pub(super) fn guard<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let tasks = self.0.clone();
        async move {
            let mut future = pin!(abort_on_panic(future));
            std::future::poll_fn(|cx| {
                tasks.slice_started.set(Instant::now());
                tasks.slices.set(tasks.slices.get() + 1);
                future.as_mut().poll(cx)
            })
            .await
        }
    }

    /// The future as background work: its readiness is counted, and each of its slices ends with a look at the ring.
    fn background<F: Future<Output = ()>>(&self, future: F) -> impl Future<Output = ()> + use<F> {
        let ready = Arc::new(Ready { counter: self.0.background_ready.clone(), counted: AtomicBool::new(false) });
        ready.count();
        let withdrawn = Withdrawn(ready);
        let guarded = self.guard(future);
        let ring = self.0.ring.clone();
        async move {
            let mut guarded = pin!(guarded);
            let mut waker: Option<Waker> = None;
            std::future::poll_fn(|cx| {
                let ready = &withdrawn.0;
                let waker = waker.get_or_insert_with(|| {
                    Arc::new(Counted { ready: ready.clone(), waker: cx.waker().clone() }).into()
                });
                ready.withdraw();
                let polled = guarded.as_mut().poll(&mut Context::from_waker(waker));
                ring.wake_driver();
                polled
            })
            .await
        }
    }
}

/// Whether one background task is ready, and so counted.
struct Ready {
    counter: Arc<AtomicUsize>,
    counted: AtomicBool,
}

impl Ready {
    fn count(&self) {
        if !self.counted.swap(true, Ordering::Relaxed) {
            self.counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn withdraw(&self) {
        if self.counted.swap(false, Ordering::Relaxed) {
            self.counter.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whatever way a task ends, it is no longer ready.
struct Withdrawn(Arc<Ready>);

impl Drop for Withdrawn {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

/// The waker of a background task.
struct Counted {
    ready: Arc<Ready>,
    waker: Waker,
}

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.count();
        self.waker.wake_by_ref();
    }
}

impl Spawn for ShardSpawn {
    fn spawn(&self, class: TaskClass, future: impl Future<Output = ()> + 'static) {
        // The executor polls a new task within the call that spawns it. What the caller has taken apart must be whole
        // again before anything of the task runs, so the first poll only puts it in the queue.
        let future = async move {
            futures_lite::future::yield_now().await;
            future.await;
        };
        match class {
            TaskClass::Foreground => {
                glommio::spawn_local(self.guard(future)).detach();
            }
            TaskClass::Background => {
                let task = glommio::spawn_local_into(self.background(future), self.0.background);
                task.expect("the background queue lives as long as its executor").detach();
            }
        }
    }

    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        futures_lite::future::yield_now()
    }

    fn yield_if_due(&self) -> impl Future<Output = ()> + 'static {
        let due = self.0.slice_started.get().elapsed() >= SLICE;
        async move {
            if due {
                glommio::executor().yield_task_queue_now().await;
            }
        }
    }
}

/// A panic in engine or storage leaves half-truths in memory: the process stops rather than serve them.
pub(super) async fn abort_on_panic<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(AssertUnwindSafe(future).catch_unwind());
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
