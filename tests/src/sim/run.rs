//! Running a plan: life after life on what the last one left of the disk.

use super::branch;
use super::coverage::Coverage;
use super::life::{Beginning, Ending, Life};
use super::model::{Broken, broken};
use super::plan::{Plan, Stream, stream};
use super::server::Server;
use super::world::World;
use deltadb::runtime::sim::{DiskImage, Halt, PowerCut, Random, Sim, Survival};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// Streams of machines and of what becomes of their disks.
const MACHINES: u32 = 1 << 28;
const REMAINS: u32 = 1 << 29;
const STARTS: u32 = 1 << 27;

/// What to keep of a run besides its verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    #[default]
    Verdict,
    /// What clients did and were told.
    History,
    /// That, and every event of the machine.
    Trace,
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The last step that had begun.
    pub step: u32,
    /// Which rule, and how.
    pub broken: Broken,
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Report {
    /// The first broken rule.
    pub failure: Option<Failure>,
    /// What was met.
    pub coverage: Coverage,
    /// Everything that happened in one number.
    pub trace_hash: u64,
    /// Lines, as asked for.
    pub lines: Vec<String>,
}

/// Runs a plan. A panic is a failure like any other.
pub fn run(plan: &Plan, keep: Keep) -> Report {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut run = Run::new(plan, keep);
        let failure = run.all_lives().err();
        run.report(failure)
    }));
    ran.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let detail = said.unwrap_or("it says nothing").to_owned();
        let failure = Failure { step: u32::MAX, broken: Broken { rule: "nothing panics", detail } };
        Report { failure: Some(failure), ..Report::default() }
    })
}

/// What trying every sync point of a history came to.
#[derive(Debug, Default)]
pub struct Exhausted {
    /// Sync points in it.
    pub sync_points: u64,
    /// Disks that were tried.
    pub disks: u64,
    /// What the history itself met.
    pub coverage: Coverage,
    /// The first failure, and where the power had been cut.
    pub failure: Option<(Failure, PowerCut)>,
}

/// Disks that are tried for a sync point: outcomes of a power cut during it and after it, and a kill at either.
pub const fn disks_a_sync_point(outcomes: u64) -> u64 {
    2 * outcomes + 2
}

/// Cuts the power, and kills the process, during and after every sync point of every life of a history in turn, tries
/// several outcomes of each, and goes on with the history as if nothing had been. A cut that does not come is a failure
/// like any other: none is left out in silence.
pub fn exhaust(plan: &Plan, outcomes: u64) -> Exhausted {
    let mut run = Run::new(plan, Keep::Verdict);
    let mut exhausted = exhaust_run(&mut run, plan, outcomes);
    exhausted.coverage = run.report(None).coverage;
    exhausted
}

fn exhaust_run(run: &mut Run<'_>, plan: &Plan, outcomes: u64) -> Exhausted {
    let mut exhausted = Exhausted::default();
    loop {
        let (past, image, cursor) = (run.world.branch(), run.image.clone(), run.cursor.get());
        let beginning = run.beginning;
        let lived = run.live();
        for number in 1..=run.sync_points_of_life {
            exhausted.sync_points += 1;
            for (cut, outcomes) in [
                (PowerCut::DuringSync(number), Some(outcomes)),
                (PowerCut::AfterSync(number), Some(outcomes)),
                (PowerCut::DuringSync(number), None),
                (PowerCut::AfterSync(number), None),
            ] {
                let mut other = Run::new(plan, Keep::Verdict);
                (other.world, other.image) = (past.branch(), image.clone());
                other.cursor.set(cursor);
                other.beginning = Beginning { cut: Some(cut), ..beginning };
                let tried = other.try_outcomes(outcomes);
                exhausted.disks += tried.as_ref().copied().unwrap_or(0);
                if let Err(failure) = tried {
                    exhausted.failure = Some((failure, cut));
                    return exhausted;
                }
            }
        }
        match lived {
            Ok(true) => return exhausted,
            Ok(false) => {}
            Err(failure) => {
                exhausted.failure = Some((failure, PowerCut::DuringSync(0)));
                return exhausted;
            }
        }
    }
}

struct Run<'a> {
    plan: &'a Plan,
    keep: Keep,
    world: Rc<World>,
    image: DiskImage,
    cursor: Cell<usize>,
    beginning: Beginning,
    /// Of the last server that there was.
    shards: usize,
    sync_points_of_life: u64,
    trace_hash: u64,
    lines: Vec<String>,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, keep: Keep) -> Self {
        Self {
            plan,
            keep,
            world: World::new(plan.setup, keep != Keep::Verdict),
            image: DiskImage::default(),
            cursor: Cell::new(0),
            beginning: Beginning::default(),
            shards: usize::from(plan.setup.shards),
            sync_points_of_life: 0,
            trace_hash: 0,
            lines: Vec::new(),
        }
    }

    fn report(self, failure: Option<Failure>) -> Report {
        let mut coverage = self.world.coverage.borrow().clone();
        let watch = self.world.watch.borrow();
        coverage.add("segments reused", watch.segments_reused);
        coverage.add("frames", watch.frames);
        coverage.add("torn writes", self.image.torn_writes());
        Report { failure, coverage, trace_hash: self.trace_hash, lines: self.lines }
    }

    fn all_lives(&mut self) -> Result<(), Failure> {
        while !self.live()? {}
        let mut random = self.random(REMAINS, 0);
        let image = self.image.clone();
        branch::outlives_a_crash(&self.world, image, &mut random).map_err(|broken| self.failure(broken))
    }

    fn random(&self, base: u32, offset: u32) -> Random {
        stream(self.plan.setup.seed, base + self.beginning.number * 2 + offset, Stream::Machine)
    }

    fn failure(&self, broken: Broken) -> Failure {
        let last = self.cursor.get().saturating_sub(1).min(self.plan.steps.len().saturating_sub(1));
        let step = self.plan.steps.get(last).map_or(0, |step| step.number);
        match self.world.broken() {
            Some((step, broken)) => Failure { step, broken },
            None => Failure { step, broken },
        }
    }

    /// Lives one life and leaves its disk; true when it was the last.
    fn live(&mut self) -> Result<bool, Failure> {
        let (sim, ended, killed) = self.live_on_machine();
        self.sync_points_of_life = sim.sync_points();
        self.trace_hash = (self.trace_hash.rotate_left(17) ^ sim.trace_hash()).wrapping_mul(0x9FB2_1C65_1E98_DF25);
        if self.keep == Keep::Trace {
            self.lines.extend(sim.take_trace());
        }
        self.lines.extend(self.world.take_history());
        self.world.model.borrow_mut().lose_server();
        let next = self.beginning.number + 1;
        let (ending, at_halt) = match ended {
            Ok(Ok(ending)) => (ending, false),
            Ok(Err(broken)) => return Err(self.failure(broken)),
            Err(Halt::PowerLost) if killed => (Ending::Killed, true),
            Err(Halt::PowerLost) => (Ending::PowerCut, true),
            Err(halt) => {
                let halted = broken::<()>("the machine goes on", format!("{halt:?}"));
                return halted.map_err(|broken| self.failure(broken)).map(|()| true);
            }
        };
        if let Some((_, broken)) = self.world.broken() {
            return Err(self.failure(broken));
        }
        self.image = self.remains(sim, ending);
        self.count_ending(ending, at_halt);
        if (ending, at_halt) == (Ending::Killed, true) {
            let mut random = self.random(STARTS, 0);
            let judged = branch::what_if_the_power_went_in_the_start(&self.world, &self.image, &mut random);
            judged.map_err(|broken| self.failure(broken))?;
        }
        self.beginning = Beginning {
            number: next,
            shards: if let Ending::Stopped { shards } = ending { shards } else { None },
            after_clean_stop: matches!(ending, Ending::Stopped { .. }),
            spared: ending == Ending::NotStarted,
            cut: None,
        };
        if ending == Ending::NotStarted {
            self.image.set_capacity_bytes(None);
        }
        Ok(self.cursor.get() >= self.plan.steps.len())
    }

    fn live_on_machine(&mut self) -> (Sim, Result<Result<Ending, Broken>, Halt>, bool) {
        let seed = self.random(MACHINES, 0).next_u64();
        let sim = Sim::on_disk(seed, std::mem::take(&mut self.image));
        if self.keep == Keep::Trace {
            sim.keep_trace();
        }
        self.world.in_flight.set(0);
        let (kill_arranged, server) = (Cell::new(false), RefCell::new(None));
        let life = Life {
            plan: self.plan,
            cursor: &self.cursor,
            sim: &sim,
            world: &self.world,
            beginning: self.beginning,
            kill_arranged: &kill_arranged,
            checkpoints: Cell::new(0),
            server: &server,
        };
        let ended = sim.run_until(life.run());
        let server = server.take();
        if let Some(server) = &server {
            count_figures(&self.world, server);
            self.shards = server.shards();
        } else if matches!(ended, Err(Halt::PowerLost)) {
            let resizes = self.beginning.shards.is_some_and(|wanted| usize::from(wanted) != self.shards);
            let what = if resizes { "crash in a resize" } else { "crash in a start" };
            self.world.hit(what);
        }
        (sim, ended, kill_arranged.get())
    }

    /// What is left of the disk after an ending.
    fn remains(&self, sim: Sim, ending: Ending) -> DiskImage {
        match ending {
            Ending::Killed => sim.kill(),
            Ending::PowerCut => sim.crash(),
            Ending::NotStarted | Ending::Stopped { .. } => match self.random(REMAINS, 1).below(2) {
                0 => sim.kill(),
                _ => sim.crash(),
            },
        }
    }

    fn count_ending(&self, ending: Ending, at_halt: bool) {
        match ending {
            Ending::Killed => self.world.hit("kills"),
            Ending::PowerCut => self.world.hit("power cuts"),
            Ending::NotStarted | Ending::Stopped { .. } => {}
        }
        if at_halt && self.image.late_writes() > 0 {
            self.world.hit("late writes");
        }
    }

    /// Lives the life to its cut and tries outcomes of a power loss, or the one of a kill; returns how many.
    fn try_outcomes(&mut self, outcomes: Option<u64>) -> Result<u64, Failure> {
        let (sim, ended, _) = self.live_on_machine();
        match ended {
            Err(Halt::PowerLost) => {}
            Ok(Err(broken)) => return Err(self.failure(broken)),
            Ok(Ok(_)) => {
                let cut = self.beginning.cut;
                let missed = broken("every cut is tried", format!("{cut:?} never came, which the history had met"));
                return missed.map_err(|broken| self.failure(broken));
            }
            Err(halt) => {
                let halted = broken::<u64>("the machine goes on", format!("{halt:?}"));
                return halted.map_err(|broken| self.failure(broken));
            }
        }
        self.world.model.borrow_mut().lose_server();
        let mut random = self.random(REMAINS, 0);
        let Some(outcomes) = outcomes else {
            let outlived = branch::outlives_a_crash(&self.world, sim.kill(), &mut random);
            return outlived.map(|()| 1).map_err(|broken| self.failure(broken));
        };
        let image = sim.power_loss_image();
        for outcome in 0..outcomes {
            let survival = match outcome {
                0 => Survival::Nothing,
                1 => Survival::Everything,
                _ => Survival::Random,
            };
            let disk = image.after_power_loss(survival, random.next_u64());
            let outlived = branch::outlives_a_crash(&self.world, disk, &mut random);
            outlived.map_err(|broken| self.failure(broken))?;
        }
        Ok(outcomes)
    }
}

/// Figures die with the process: they are taken over before.
fn count_figures(world: &World, server: &Server) {
    let mut coverage = world.coverage.borrow_mut();
    for shard in 0..server.shards() {
        let figures = server.figures(shard);
        coverage.add("cache hits", figures.cache_hits.value());
        coverage.add("cache misses", figures.cache_misses.value());
        coverage.add("cache evictions", figures.cache_evictions.value());
        coverage.add("cache expirations", figures.cache_expirations.value());
        coverage.add("checkpoints", figures.checkpoints.value());
        coverage.add("compactions", figures.compactions.value());
        coverage.add("commits", figures.commits.value());
        coverage.add("mailbox hops", figures.mailbox_requests.value());
        coverage.add("scrub passes", figures.scrub_passes.value());
    }
    // A rotation adds a generation and a key; dropping keys adds a generation and takes keys away.
    if server.keyring_generation() > server.data_keys() as u64 {
        coverage.hit("data keys dropped");
    }
}
