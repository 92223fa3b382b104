//! A platform for this room's own tests: a disk in memory that knows what a crash takes, faults on demand, time that
//! passes when nothing else can happen, and one thread of tasks.

mod disk;
mod executor;
mod real;

pub use disk::{Fault, MemoryDisk};
pub use executor::{Executor, TestClock, TestSpawn};
pub use real::RealPlatform;

use crate::runtime::platform::{Entropy, Platform};
use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

/// A repeatable stream.
#[derive(Clone)]
pub struct TestEntropy(Rc<Cell<u64>>);

impl Entropy for TestEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        for byte in buffer {
            // SplitMix64's step and finalizer.
            self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
            let mut mixed = self.0.get();
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (mixed ^ (mixed >> 31)) as u8;
        }
    }
}

/// The four traits over memory.
#[derive(Clone)]
pub struct TestPlatform {
    pub disk: MemoryDisk,
    pub clock: TestClock,
    pub entropy: TestEntropy,
    pub spawn: TestSpawn,
    pub executor: Executor,
}

impl TestPlatform {
    /// An empty disk and a fresh executor.
    pub fn new(seed: u64) -> Self {
        Self::with_disk(seed, MemoryDisk::new())
    }

    /// A fresh executor over a disk: a process started again.
    pub fn with_disk(seed: u64, disk: MemoryDisk) -> Self {
        let executor = Executor::new();
        Self {
            disk,
            clock: TestClock(executor.clone()),
            entropy: TestEntropy(Rc::new(Cell::new(seed))),
            spawn: TestSpawn(executor.clone()),
            executor,
        }
    }

    /// Runs a future, and whatever it spawned meanwhile, until it is ready.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.executor.run(future)
    }
}

impl Platform for TestPlatform {
    type Disk = MemoryDisk;
    type Clock = TestClock;
    type Entropy = TestEntropy;
    type Spawn = TestSpawn;

    fn disk(&self) -> &MemoryDisk {
        &self.disk
    }
    fn clock(&self) -> &TestClock {
        &self.clock
    }
    fn entropy(&self) -> &TestEntropy {
        &self.entropy
    }
    fn spawn(&self) -> &TestSpawn {
        &self.spawn
    }
}
