//! The storage conformance suite: the contract of `Storage`, checked on any backend.
//!
//! [`check_contract`] needs no faults and runs on any platform, the real disk too. [`check_on_sim`] runs everything on
//! simulated machines: the contract, power cuts at every sync point, kills, failing and full disks. A violation names
//! the check and the seed that shows it. [`check_damage`] is for backends that authenticate their files; otherwise what
//! a backend writes is its own business.

mod contract;
mod crash;
mod damage;
mod faults;
#[cfg(test)]
mod model;
mod oracle;
#[cfg(test)]
mod tests;
mod workload;

use super::Storage;
use crate::runtime::platform::Platform;
use crate::runtime::sim::{Sim, SimPlatform};
use std::future::Future;
use std::path::Path;
use std::rc::Rc;

pub use contract::check_contract;
pub use damage::check_damage;

/// Something that opens a store.
pub trait StorageUnderTest {
    /// What it runs on.
    type Platform: Platform;
    /// The backend.
    type Storage: Storage;

    /// Opens the store in this directory, and makes it first if there is none. The directory itself may be missing. An
    /// error is a violation wherever the store must open.
    fn open(
        &self,
        platform: &Self::Platform,
        directory: &Path,
    ) -> impl Future<Output = Result<Rc<Self::Storage>, String>>;

    /// Size of the largest document that the suite writes, in bytes.
    fn document_bytes_max(&self) -> usize {
        6 << 20
    }
}

/// How much of everything to try.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Where the seeds begin.
    pub first_seed: u64,
    /// Seeds for chance; what takes long uses no more than three of them.
    pub seeds: u64,
    /// Batches in a life that ends in a crash.
    pub batches: usize,
    /// Batches of a few hundred KiB in a life that is to make the backend reclaim space.
    pub churn_batches: usize,
    /// Outcomes tried for every power cut.
    pub outcomes: u64,
}

impl Default for Effort {
    fn default() -> Self {
        Self { first_seed: 1, seeds: 8, batches: 5, churn_batches: 12, outcomes: 6 }
    }
}

/// A breach of the contract.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("storage contract violated in {check} (seed {seed}): {detail}")]
pub struct Violation {
    /// The check that found it.
    pub check: &'static str,
    /// The seed that shows it again; 0 where no seed decides.
    pub seed: u64,
    /// What was found.
    pub detail: String,
}

/// Alignments of direct files, and a file system that has none.
const DISK_KINDS: [Option<usize>; 3] = [Some(512), Some(4096), None];

type Checked<T = ()> = Result<T, String>;

/// Runs the whole suite on simulated machines.
pub fn check_on_sim<T>(under_test: &T, effort: Effort) -> Result<(), Violation>
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    for seed in seeds(effort).take(DISK_KINDS.len()) {
        check_contract_on_sim(under_test, seed)?;
    }
    check_replay(under_test, effort.first_seed)?;
    faults::check(under_test, effort)?;
    crash::check_every_sync_point(under_test, effort)?;
    crash::check_kills_and_random_cuts(under_test, effort)?;
    crash::check_churn(under_test, effort)
}

/// Runs the contract alone on one simulated machine.
pub fn check_contract_on_sim<T>(under_test: &T, seed: u64) -> Result<(), Violation>
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    let sim = machine(Sim::new(seed));
    let halted = |halt| Violation { check: "contract", seed, detail: format!("the machine halted: {halt:?}") };
    let result = sim.run_until(check_contract(under_test, &sim.platform(), Path::new("/data"))).map_err(halted)?;
    result.map_err(|violation| Violation { seed, ..violation })
}

/// A backend that asks anything but the platform for time, order or chance shows it here.
fn check_replay<T>(under_test: &T, seed: u64) -> Result<(), Violation>
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    let hash = || {
        let sim = machine(Sim::new(seed));
        // A violation of the contract was found before; here only the course of events counts.
        let _ = sim.run_until(workload::replayable(under_test, &sim.platform(), seed));
        sim.trace_hash()
    };
    if hash() == hash() {
        return Ok(());
    }
    let detail = "two runs of one seed took different courses: something outside the platform decides".to_owned();
    Err(Violation { check: "replay", seed, detail })
}

fn seeds(effort: Effort) -> std::ops::Range<u64> {
    effort.first_seed..effort.first_seed + effort.seeds
}

/// Gives the machine one of the kinds of disk there are, as its seed decides.
fn machine(sim: Sim) -> Sim {
    sim.set_direct_alignment(DISK_KINDS[(sim.seed() % DISK_KINDS.len() as u64) as usize]);
    sim
}
