//! Shard threads: one executor and one ring each, placed, started together and ended gracefully.
//!
//! The ring is driven from before `main` starts until after it has returned, so `main` may use the disk throughout.
//! When it returns, listeners stop, connections are closed, the ring is drained and the thread ends.

use super::disk_operations::DiskOperations;
use super::doorbell::{DoorbellTable, ShardDoorbell};
use super::driver::Driver;
use super::inbox::Inbox;
use super::net::Net;
use super::offload::Offload;
use super::placement::Placement;
use super::platform::{Clock, Platform};
use super::production::{Production, ShardSpawn, abort_on_panic};
use super::ring::Ring;
use super::ring_disk::RingDisk;
use super::stop::StopSignal;
use super::timers::Timers;
use crate::metrics::Metrics;
use glommio::{LocalExecutorBuilder, PoolPlacement};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The executor's preemption is out of use: the driver gives way by itself, and the signal does harm (see `driver`).
const PREEMPT_INTERVAL: Duration = Duration::from_secs(365 * 24 * 3600);
/// glommio's own I/O memory: the ring beside it does the I/O.
const EXECUTOR_IO_BYTES: usize = 64 << 10;
/// After `main`: how long connections may take to get their last bytes, before they are cut.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the end looks whether connections are gone.
const CLOSE_POLL: Duration = Duration::from_millis(2);

/// What one shard's `main` gets.
pub struct ShardContext {
    /// Which shard this is.
    pub index: usize,
    /// How many there are.
    pub shards: usize,
    /// Disk, clock, randomness, tasks.
    pub platform: Production,
    /// Sockets.
    pub net: Net,
    /// Wakes other shards.
    pub doorbell: ShardDoorbell,
    /// Raised when the process is to end; `main` returns after it.
    pub stop: StopSignal,
}

/// Why shards could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// One shard's thread, executor or ring could not be made.
    #[error("shard {index} cannot start: {source}")]
    Start {
        /// Which.
        index: usize,
        /// Why.
        source: io::Error,
    },
    /// A shard's thread ended by itself.
    #[error("shard {index} failed: {reason}")]
    Failed {
        /// Which.
        index: usize,
        /// Why.
        reason: String,
    },
}

/// The running threads.
pub struct ShardThreads {
    handles: Vec<JoinHandle<io::Result<()>>>,
    stop: StopSignal,
}

impl ShardThreads {
    /// What every shard's `main` waits for; raise it to end them.
    pub fn stop_signal(&self) -> StopSignal {
        self.stop.clone()
    }

    /// Waits for all threads to end; the first failure is told.
    pub fn join(self) -> Result<(), ShardError> {
        let mut outcome = Ok(());
        for (index, handle) in self.handles.into_iter().enumerate() {
            let failed = match handle.join() {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "its thread panicked".to_owned(),
            };
            outcome = outcome.and(Err(ShardError::Failed { index, reason: failed }));
        }
        outcome
    }
}

/// Starts one thread a shard. Returns once every ring stands, or with the reason why one does not; no `main` runs
/// before all are up. `metrics` must have a set for each shard.
pub fn start<Main, Running>(
    placement: &Placement,
    shards: usize,
    spin: Duration,
    metrics: Arc<Metrics>,
    main: Main,
) -> Result<ShardThreads, ShardError>
where
    Main: Fn(ShardContext) -> Running + Send + Clone + 'static,
    Running: Future<Output = ()> + 'static,
{
    assert!(metrics.shards.len() >= shards, "a set of metrics for each shard");
    let spin = if shards > placement.available_cpus() { Duration::ZERO } else { spin };
    let table = DoorbellTable::new(shards);
    let stop = StopSignal::default();
    let (mut handles, mut gates) = (Vec::new(), Vec::new());
    let mut outcome = Ok(());
    for index in 0..shards {
        let (ready, is_ready) = channel();
        let (go, gate) = channel();
        let plan = Plan {
            index,
            shards,
            spin,
            cpus: placement.cpus().to_vec(),
            core: placement.core_of(index, shards),
            table: table.clone(),
            metrics: metrics.clone(),
            stop: stop.clone(),
        };
        let main = main.clone();
        let thread = std::thread::Builder::new().name(format!("shard-{index}"));
        let started = thread.spawn(move || plan.run(ready, gate, main)).and_then(|handle| {
            handles.push(handle);
            is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended at once")))
        });
        if let Err(source) = started {
            outcome = Err(ShardError::Start { index, source });
            break;
        }
        gates.push(go);
    }
    let threads = ShardThreads { handles, stop };
    // A gate that is dropped instead of opened ends its shard before `main`.
    match outcome {
        Ok(()) => {
            for gate in gates {
                // A thread that has ended meanwhile is told by `join`.
                let _ = gate.send(());
            }
        }
        Err(error) => {
            drop(gates);
            // The reason to start nothing is known; how the others ended adds nothing to it.
            let _ = threads.join();
            return Err(error);
        }
    }
    Ok(threads)
}

/// All that one thread needs to begin.
struct Plan {
    index: usize,
    shards: usize,
    spin: Duration,
    cpus: Vec<usize>,
    core: Option<usize>,
    table: Arc<DoorbellTable>,
    metrics: Arc<Metrics>,
    stop: StopSignal,
}

impl Plan {
    fn run<Main, Running>(self, ready: Sender<io::Result<()>>, gate: Receiver<()>, main: Main) -> io::Result<()>
    where
        Main: Fn(ShardContext) -> Running,
        Running: Future<Output = ()> + 'static,
    {
        // Helper threads are made before this one is pinned, and so may run anywhere within the mask.
        let made = LocalExecutorBuilder::default()
            .preempt_timer(PREEMPT_INTERVAL)
            .io_memory(EXECUTOR_IO_BYTES)
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
            .make()
            .map_err(io::Error::from)
            .and_then(|executor| Ok((executor, Offload::start(&format!("shard-{}-files", self.index))?)))
            .and_then(|(executor, offload)| self.place().map(|()| (executor, offload)));
        let (executor, offload) = match made {
            Ok(made) => made,
            Err(error) => {
                // Told to the starter, which is waiting for exactly this.
                let _ = ready.send(Err(error));
                return Ok(());
            }
        };
        executor.run(abort_on_panic(async move {
            let (context, driver) = match self.build(offload) {
                Ok(built) => built,
                Err(error) => {
                    // As above.
                    let _ = ready.send(Err(error));
                    return Ok(());
                }
            };
            // The starter waits; should it be gone, the gate is closed as well.
            let _ = ready.send(Ok(()));
            if gate.recv().is_err() {
                return Ok(());
            }
            live(context, driver, main).await
        }))
    }

    fn place(&self) -> io::Result<()> {
        let Some(core) = self.core else { return Ok(()) };
        let mut set = rustix::thread::CpuSet::new();
        set.set(core);
        rustix::thread::sched_setaffinity(None, &set).map_err(io::Error::from)
    }

    fn build(self, offload: Offload) -> io::Result<(ShardContext, Driver)> {
        let ring = Rc::new(Ring::new(&self.cpus)?);
        let operations = Rc::new(DiskOperations::new(ring.clone()));
        let (timers, spawn) = (Timers::default(), ShardSpawn::new(ring.clone()));
        let net = Net::new(ring.clone(), self.metrics, self.index)?;
        let doorbell = ShardDoorbell::new(self.table, self.index, ring.clone())?;
        let platform = Production::new(RingDisk::new(operations.clone(), offload), timers.clone(), spawn.clone());
        let driver = Driver {
            ring,
            net: net.clone(),
            disk: operations,
            doorbell: doorbell.clone(),
            timers,
            alarm: RefCell::default(),
            inbox: Inbox::open()?,
            spawn,
            spin: self.spin,
            ending: Rc::new(Cell::new(false)),
        };
        let context = ShardContext { index: self.index, shards: self.shards, platform, net, doorbell, stop: self.stop };
        Ok((context, driver))
    }
}

async fn live<Main, Running>(context: ShardContext, driver: Driver, main: Main) -> io::Result<()>
where
    Main: Fn(ShardContext) -> Running,
    Running: Future<Output = ()> + 'static,
{
    let net = context.net.clone();
    let platform = context.platform.clone();
    let ending = driver.ending.clone();
    let driving = glommio::spawn_local(abort_on_panic(async move {
        if let Err(error) = driver.run().await {
            tracing::error!(%error, "a shard's ring failed: the process stops; restart it to recover from the log");
            std::process::abort();
        }
    }));
    platform.spawn().guard(main(context)).await;

    net.stop_listening();
    net.end_all(true);
    let began = Instant::now();
    while net.connections() > 0 && began.elapsed() < CLOSE_TIMEOUT {
        platform.clock().sleep(CLOSE_POLL).await;
    }
    net.end_all(false);
    ending.set(true);
    driving.await;
    net.detach();
    Ok(())
}
