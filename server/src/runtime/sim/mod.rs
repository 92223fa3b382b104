//! A simulated machine: disk, clock, entropy, scheduler and doorbell, all decided by one 64-bit seed.
//!
//! Single-threaded; no real time, thread or file is involved, so a run is repeatable to the byte ([`Sim::trace_hash`]
//! proves it). What runs on it sees only [`SimPlatform`], through the traits of `platform`; what tests it holds the
//! [`Sim`]: it injects faults, cuts the power at any step or sync point, and starts the next machine on the disk that
//! is left ([`Sim::crash`], [`Sim::kill`], [`Sim::on_disk`]). Nothing in the product depends on this room.
//!
//! ```
//! use deltadb::runtime::platform::{Caching, Disk, DiskFile, Durability, OpenMode, Platform};
//! use deltadb::runtime::{buffer::AlignedBuffer, sim::Sim};
//!
//! let sim = Sim::new(7);
//! let platform = sim.platform();
//! let write = async {
//!     let file = platform.disk().open("/a".as_ref(), OpenMode::CreateNew, Caching::Buffered).await?;
//!     file.write_at(0, AlignedBuffer::zeroed(100), Durability::Synced).await.0
//! };
//! assert_eq!(sim.run_until(write).unwrap().unwrap(), 100);
//! ```

mod content;
mod core;
mod damage;
mod disk;
mod faults;
mod file;
mod image;
mod pages;
mod random;
mod services;
#[cfg(test)]
mod tests;
mod trace;
mod watch;

pub use content::Survival;
pub use core::{Halt, PowerCut};
pub use disk::SimDisk;
pub use faults::{Effect, Fault, FaultRates, Operation};
pub use file::SimFile;
pub use image::DiskImage;
pub use random::Random;
pub use services::{SimClock, SimDoorbell, SimEntropy, SimSpawn};
pub use watch::{DiskRequest, Watcher};

use crate::runtime::platform::Platform;
use core::{Core, Landing, Until};
use std::future::{Future, pending};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// A simulated machine, from the outside.
pub struct Sim {
    core: Rc<Core>,
    platform: SimPlatform,
    seed: u64,
}

impl Sim {
    /// A machine with an empty disk.
    pub fn new(seed: u64) -> Self {
        Self::on_disk(seed, DiskImage::default())
    }

    /// A machine with this disk.
    pub fn on_disk(seed: u64, image: DiskImage) -> Self {
        let core = Rc::new(Core::new(seed, image));
        let platform = SimPlatform::on(&core);
        Self { core, platform, seed }
    }

    /// The seed it was made with: what a failing test must print.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What the product sees of it. All shards of a machine share it.
    pub fn platform(&self) -> SimPlatform {
        self.platform.clone()
    }

    /// The doorbell of all its shards.
    pub fn doorbell(&self) -> SimDoorbell {
        SimDoorbell(Rc::clone(&self.core))
    }

    /// Sets the alignment of direct files (512 at first), or that there are none: such opens come out buffered.
    pub fn set_direct_alignment(&self, alignment: Option<usize>) {
        self.core.direct_alignment.set(alignment);
    }

    /// Sets the chances of faults and the range of delays.
    pub fn set_fault_rates(&self, rates: FaultRates) {
        self.core.faults.borrow_mut().rates = rates;
    }

    /// Adds a fault on demand. Of several that match an operation, the one added first strikes.
    pub fn inject(&self, fault: Fault) {
        self.core.faults.borrow_mut().injected.push(fault);
    }

    /// Takes back all faults on demand.
    pub fn clear_faults(&self) {
        self.core.faults.borrow_mut().injected.clear();
    }

    /// Limits the disk, which then answers ENOSPC; `None` lifts the limit.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.core.image.borrow_mut().set_capacity_bytes(capacity_bytes);
    }

    /// Turns the disk read-only (EROFS), or back.
    pub fn set_read_only(&self, read_only: bool) {
        self.core.image.borrow_mut().set_read_only(read_only);
    }

    /// Looks at the disk, or damages it, while the machine runs.
    pub fn poke<T>(&self, poke: impl FnOnce(&mut DiskImage) -> T) -> T {
        poke(&mut self.core.image.borrow_mut())
    }

    /// Shows every request that changes the disk to `watcher` from now on.
    pub fn watch(&self, watcher: Watcher) {
        *self.core.watcher.borrow_mut() = Some(watcher);
    }

    /// Lets the wall clock jump, in either direction. The monotonic one goes on.
    pub fn shift_wall_clock(&self, by_ms: i64) {
        self.core.wall_shift_ms.set(self.core.wall_shift_ms.get().saturating_add(by_ms));
    }

    /// Arranges a power cut.
    pub fn cut_power(&self, cut: PowerCut) {
        self.core.cut.set(Some(cut));
    }

    /// Completed sync points so far: `sync_data`, synced writes and `sync_dir`.
    pub fn sync_points(&self) -> u64 {
        self.core.sync_points.get()
    }

    /// Polls so far.
    pub fn steps(&self) -> u64 {
        self.core.steps.get()
    }

    /// When the last of the disk operations under way will be done; `None`: there is none.
    pub fn busy_for(&self) -> Option<Duration> {
        let last_ns = self.core.last_landing_ns()?;
        Some(Duration::from_nanos(last_ns.saturating_sub(self.core.now_ns.get())))
    }

    /// Sets how many polls are taken for a livelock (20 million at first).
    pub fn set_step_limit(&self, steps: u64) {
        self.core.step_limit.set(steps);
    }

    /// Runs tasks, disk and time until the future is done.
    pub fn run_until<F: Future>(&self, future: F) -> Result<F::Output, Halt> {
        let value = self.core.run(pin!(future), Until::Done)?;
        // `Until::Done` ends with a value or an error.
        value.ok_or_else(|| Halt::Deadlock(Vec::new()))
    }

    /// Runs until no task is ready and no disk operation is under way. Timers that are not due stay.
    pub fn run_until_idle(&self) -> Result<(), Halt> {
        self.core.run(pin!(pending::<()>()), Until::Idle).map(drop)
    }

    /// Runs for that much simulated time.
    pub fn run_for(&self, duration: Duration) -> Result<(), Halt> {
        let end_ns = self.core.now_ns.get() + duration.as_nanos() as u64;
        self.core.run(pin!(pending::<()>()), Until::Time(end_ns)).map(drop)
    }

    /// The disk after the power went: unsynced changes survive, tear or vanish as the seed decides.
    pub fn crash(self) -> DiskImage {
        let seed = self.core.disk_random.borrow_mut().next_u64();
        self.power_loss_image().after_power_loss(Survival::Random, seed)
    }

    /// The disk at the moment the power goes, with all that is not stable still undecided, what was in flight too. Each
    /// [`DiskImage::after_power_loss`] of it is one possible outcome.
    pub fn power_loss_image(self) -> DiskImage {
        let flights = self.stop();
        let mut image = self.take_image();
        for flight in flights {
            // What was under way may have reached the device, in part too: as undecided as everything else.
            (flight.effect)(&mut image, Landing::Interrupted);
        }
        image
    }

    /// The disk after only the process died: the system keeps what was written, a write in flight may lie in the page
    /// cache without the sync that it asked for, and may still land when the next process is already at work.
    pub fn kill(self) -> DiskImage {
        let flights = self.stop();
        let mut image = self.take_image();
        for flight in flights {
            let fate = self.core.disk_random.borrow_mut().below(4);
            match flight.late_write {
                Some(late_write) if fate == 0 => image.late_writes.push(late_write),
                _ if fate == 1 => (flight.effect)(&mut image, Landing::Completed),
                _ if fate == 2 => (flight.effect)(&mut image, Landing::Interrupted),
                _ => {}
            }
        }
        image.process_ended();
        image
    }

    /// A copy of the disk as readers see it now, all of it stable.
    pub fn disk_image(&self) -> DiskImage {
        let mut image = self.core.image.borrow().clone();
        image.process_ended();
        image.after_power_loss(Survival::Everything, 0)
    }

    /// Folds everything that happened so far into one number: equal for equal seeds, or something is not simulated.
    pub fn trace_hash(&self) -> u64 {
        self.core.trace.borrow().hash()
    }

    /// Keeps the trace in words from now on, for [`Sim::take_trace`].
    pub fn keep_trace(&self) {
        self.core.trace.borrow_mut().keep_words();
    }

    /// The trace in words since the last call.
    pub fn take_trace(&self) -> Vec<String> {
        self.core.trace.borrow_mut().take_words()
    }

    fn stop(&self) -> Vec<core::Flight> {
        let flights = self.core.take_flights();
        self.core.drop_tasks();
        flights
    }

    fn take_image(&self) -> DiskImage {
        let mut image = self.core.image.take();
        image.clock_ns = self.core.now_ns.get();
        image
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        // Tasks hold handles on the core, which holds the tasks; a watcher may hold one too.
        self.stop();
        self.core.watcher.take();
    }
}

/// Handles on a simulated machine: what the product runs on.
#[derive(Clone)]
pub struct SimPlatform {
    disk: SimDisk,
    clock: SimClock,
    entropy: SimEntropy,
    spawn: SimSpawn,
}

impl SimPlatform {
    fn on(core: &Rc<Core>) -> Self {
        Self {
            disk: SimDisk(Rc::clone(core)),
            clock: SimClock(Rc::clone(core)),
            entropy: SimEntropy(Rc::clone(core)),
            spawn: SimSpawn(Rc::clone(core)),
        }
    }

    /// Looks at the disk, for whoever tests and holds no [`Sim`].
    pub fn look<T>(&self, look: impl FnOnce(&DiskImage) -> T) -> T {
        look(&self.disk.0.image.borrow())
    }
}

impl Platform for SimPlatform {
    type Disk = SimDisk;
    type Clock = SimClock;
    type Entropy = SimEntropy;
    type Spawn = SimSpawn;

    fn disk(&self) -> &SimDisk {
        &self.disk
    }
    fn clock(&self) -> &SimClock {
        &self.clock
    }
    fn entropy(&self) -> &SimEntropy {
        &self.entropy
    }
    fn spawn(&self) -> &SimSpawn {
        &self.spawn
    }
}
