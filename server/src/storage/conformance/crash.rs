//! Power cuts and kills: a store lives several lives, and in each must hold what the last ones acknowledged.
//!
//! What a freshly opened store shows must be durable too: it is held against it in the next life.

use super::oracle::{History, Session};
use super::workload::{Ending, Load, work};
use super::{Checked, DISK_KINDS, Effort, StorageUnderTest, Violation, machine, seeds};
use crate::runtime::sim::{DiskImage, FaultRates, Halt, PowerCut, Random, Sim, SimPlatform, Survival};
use crate::storage::Storage;
use std::cell::RefCell;
use std::path::Path;

/// Sync points after which a life is taken not to end.
const SYNC_POINTS_MAX: u64 = 5_000;

/// One run of a store on one machine.
#[derive(Clone, Copy)]
pub(super) struct Life {
    pub(super) seed: u64,
    pub(super) batches: usize,
    pub(super) load: Load,
    pub(super) cut: Option<PowerCut>,
    pub(super) rates: FaultRates,
    /// Whether it ends by a clean shutdown, if nothing else ends it.
    pub(super) shuts_down: bool,
    /// Whether opening and writing may be refused, because the disk fails.
    pub(super) may_fail: bool,
}

impl Life {
    /// A life without misfortune.
    pub(super) fn quiet(seed: u64, batches: usize) -> Self {
        Self {
            seed,
            batches,
            load: Load::SMALL,
            cut: None,
            rates: FaultRates::default(),
            shuts_down: true,
            may_fail: false,
        }
    }
}

/// Cuts the power during and after every sync point of a life in turn, on every kind of disk, and tries several
/// outcomes of each.
pub(super) fn check_every_sync_point<T>(under_test: &T, effort: Effort) -> Result<(), Violation>
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    for seed in seeds(effort).take(DISK_KINDS.len()) {
        for make_cut in [PowerCut::DuringSync as fn(u64) -> PowerCut, PowerCut::AfterSync] {
            for number in 1.. {
                let cut = make_cut(number);
                let detailed = |detail| format!("with the power cut {cut:?}: {detail}");
                let violation = |detail| Violation { check: "every_sync_point", seed, detail: detailed(detail) };
                if number > SYNC_POINTS_MAX {
                    return Err(violation("the work never ends".to_owned()));
                }
                if cut_and_check(under_test, effort, seed, cut).map_err(violation)? {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// True when the work was done before the power went.
fn cut_and_check<T>(under_test: &T, effort: Effort, seed: u64, cut: PowerCut) -> Checked<bool>
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    let life = Life { cut: Some(cut), ..Life::quiet(seed, effort.batches) };
    let mut history = History::default();
    let (sim, came_to_its_end) = live(under_test, Sim::new(seed), &mut history, life)?;
    let outcomes_seed = sim.trace_hash();
    check_outcomes(under_test, sim, &history, effort, Random::new(outcomes_seed))?;
    Ok(came_to_its_end)
}

/// Kills the process or cuts the power at random steps, through several lives of one store.
pub(super) fn check_kills_and_random_cuts<T>(under_test: &T, effort: Effort) -> Result<(), Violation>
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    for seed in effort.first_seed..effort.first_seed + effort.seeds * 4 {
        let violation = |detail| Violation { check: "kills_and_random_cuts", seed, detail };
        let mut random = Random::new(seed);
        let mut history = History::default();
        let mut image = DiskImage::default();
        let mut steps_of_a_life = 40;
        for number in 0..12 {
            let cut = match random.below(8) {
                0 => None,
                1 | 2 => Some(PowerCut::DuringSync(random.between(1, 12))),
                _ => Some(PowerCut::AtStep(random.between(1, steps_of_a_life))),
            };
            let life = Life {
                cut,
                shuts_down: random.below(2) == 0,
                ..Life::quiet(seed + number, random.below(effort.batches as u64 + 1) as usize)
            };
            let sim = Sim::on_disk(random.next_u64(), image);
            let in_life = |detail| violation(format!("in life {number}, with the power cut {cut:?}: {detail}"));
            let (sim, _) = live(under_test, sim, &mut history, life).map_err(in_life)?;
            steps_of_a_life = steps_of_a_life.max(sim.steps());
            image = if random.below(2) == 0 { sim.kill() } else { sim.crash() };
        }
        let sim = Sim::on_disk(seed, image);
        live(under_test, sim, &mut history, Life::quiet(seed, 1)).map_err(violation)?;
    }
    Ok(())
}

/// Writes so much that space must be reclaimed, and crashes at random sync points while that goes on.
pub(super) fn check_churn<T>(under_test: &T, effort: Effort) -> Result<(), Violation>
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    for seed in seeds(effort) {
        let violation = |detail| Violation { check: "churn", seed, detail };
        let mut random = Random::new(seed);
        let mut history = History::default();
        let mut image = DiskImage::default();
        let mut sync_points = 0;
        for number in 0..4 {
            let cut = (number > 0).then(|| PowerCut::DuringSync(random.between(1, sync_points)));
            let life = Life { load: Load::CHURN, cut, ..Life::quiet(random.next_u64(), effort.churn_batches) };
            let sim = Sim::on_disk(random.next_u64(), image);
            let in_life = |detail| violation(format!("in life {number}, with the power cut {cut:?}: {detail}"));
            let (sim, _) = live(under_test, sim, &mut history, life).map_err(in_life)?;
            sync_points = sync_points.max(sim.sync_points());
            image = if random.below(2) == 0 { sim.kill() } else { sim.crash() };
        }
        let sim = Sim::on_disk(seed, image);
        live(under_test, sim, &mut history, Life::quiet(seed, 1)).map_err(violation)?;
    }
    Ok(())
}

/// Several outcomes of one crash, each followed by a life that may crash as well, and by one that may not.
pub(super) fn check_outcomes<T>(
    under_test: &T,
    sim: Sim,
    history: &History,
    effort: Effort,
    mut random: Random,
) -> Checked
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    let image = sim.power_loss_image();
    for outcome in 0..effort.outcomes {
        let survival = match outcome {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            _ => Survival::Random,
        };
        let in_outcome = |detail: String| format!("{survival:?} unsynced survived (outcome {outcome}): {detail}");
        let mut history = history.clone();
        let mut image = image.after_power_loss(survival, random.next_u64());
        if outcome % 2 == 1 {
            let cut = Some(PowerCut::DuringSync(random.between(1, 8)));
            let life = Life { cut, ..Life::quiet(random.next_u64(), 2) };
            let sim = Sim::on_disk(random.next_u64(), image);
            let (sim, _) = live(under_test, sim, &mut history, life).map_err(in_outcome)?;
            image = sim.crash();
        }
        for _ in 0..2 {
            let sim = Sim::on_disk(random.next_u64(), image);
            let life = Life::quiet(random.next_u64(), 2);
            let (sim, _) = live(under_test, sim, &mut history, life).map_err(in_outcome)?;
            image = sim.crash();
        }
    }
    Ok(())
}

/// Lives one life. The flag tells whether it came to its own end; otherwise the power went or the store refused.
pub(super) fn live<T>(under_test: &T, sim: Sim, history: &mut History, life: Life) -> Checked<(Sim, bool)>
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    let sim = machine(sim);
    sim.set_fault_rates(life.rates);
    if let Some(cut) = life.cut {
        sim.cut_power(cut);
    }
    let shared = RefCell::new(std::mem::take(history));
    let platform = sim.platform();
    let run = async {
        let storage = match under_test.open(&platform, Path::new("/data")).await {
            Ok(storage) => storage,
            Err(_) if life.may_fail => return Ok(Ending::Refused),
            Err(error) => return Err(format!("the store does not open: {error}")),
        };
        let session = Session::begin(storage, &shared).await?;
        let ending = work(&session, &platform, &mut Random::new(life.seed), life.load, life.batches).await?;
        session.verify().await?;
        if ending == Ending::Done && life.shuts_down {
            let ended = session.storage.shutdown().await;
            ended.or_else(|error| if life.may_fail { Ok(()) } else { Err(format!("shutdown failed: {error}")) })?;
        }
        Checked::Ok(ending)
    };
    let ended = sim.run_until(run);
    *history = shared.into_inner();
    match ended {
        Ok(checked) => {
            let ending = checked?;
            if ending == Ending::Refused && !life.may_fail {
                return Err("work was refused though nothing failed".to_owned());
            }
            Ok((sim, true))
        }
        Err(Halt::PowerLost) => Ok((sim, false)),
        Err(halt) => Err(format!("the machine halted: {halt:?}")),
    }
}
