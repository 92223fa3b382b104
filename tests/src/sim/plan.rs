//! What a simulation does: a list of steps in a setting, decided by the seed.
//!
//! Every step draws from a stream of its own, named by its number, so that leaving steps out leaves the others as they
//! were. That is what makes a failing history short: a plan that keeps some of the steps is a plan.

use super::setup::{Setup, Weather, Workload};
use deltadb::runtime::sim::Random;
use deltadb::storage::log::LogSizes;
use std::fmt;

/// Steps of an aging workload in which the entities that stay are written.
pub const EARLY_STEPS: u32 = 72;

/// Operations of one flood.
pub const FLOOD: u32 = 64;

/// The operations of floods are numbered from here.
const FLOOD_STEPS: u32 = 1 << 24;

/// The number of an operation of the flood of a step.
pub fn number_in_flood(step: u32, operation: u32) -> u32 {
    FLOOD_STEPS + step * FLOOD + operation
}

/// The step that an operation's number belongs to.
pub fn step_of(number: u32) -> u32 {
    if (FLOOD_STEPS..FLOOD_STEPS << 1).contains(&number) { (number - FLOOD_STEPS) / FLOOD } else { number }
}

/// Keys that an aging workload writes all the time.
pub const BUSY_KEYS: u64 = 3;

/// What a client does. A new kind of command needs a line here, one in the table of weights, and one arm in `client.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Create or replace an entity, perhaps on a condition.
    Put,
    /// Remove one, perhaps on a condition.
    Delete,
    /// Write several.
    MultiPut,
    /// Read one.
    Get,
    /// Read several.
    MultiGet,
    /// List a schema to its end, page by page.
    List,
    /// Count schemas.
    Schemas,
    /// Store a template that accepts or refuses.
    PutTemplate,
    /// Remove it.
    DeleteTemplate,
    /// Read it, and the list of all.
    ReadTemplates,
    /// Make a new data key.
    RotateKey,
    /// Ask for figures.
    Stats,
}

const OPERATIONS: [(u64, Operation); 12] = [
    (300, Operation::Put),
    (110, Operation::Delete),
    (80, Operation::MultiPut),
    (180, Operation::Get),
    (50, Operation::MultiGet),
    (30, Operation::List),
    (8, Operation::Schemas),
    (8, Operation::PutTemplate),
    (5, Operation::DeleteTemplate),
    (8, Operation::ReadTemplates),
    (9, Operation::RotateKey),
    (4, Operation::Stats),
];

/// When a crash strikes, counted from the step that asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// After so many polls.
    Polls(u64),
    /// While the so-manieth sync from now is under way.
    DuringSync(u64),
    /// Right after it.
    AfterSync(u64),
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client begins an operation.
    Client(Operation),
    /// Nothing for so many milliseconds: the log gets its tail, background work goes on.
    Pause(u64),
    /// Everybody waits for their answers, then all invariants of a quiet server are checked.
    Settle,
    /// A branch: what if the power went right now?
    Fork,
    /// A branch: what if files were damaged now?
    Damage,
    /// Cached documents are dropped.
    ClearCache,
    /// The wall clock jumps.
    WallClock,
    /// One of the next disk operations goes wrong.
    DiskFault,
    /// Some of the next disk operations take long, and whatever is under way meanwhile overtakes them.
    SlowDisk,
    /// An operation of the disk takes longer than anybody waits, and clients go on asking.
    Stall,
    /// A read that the disk keeps waiting, a write of the same entity meanwhile, and a read after both.
    Race,
    /// A new data key, and the power goes at a moment when the old one may have been dropped.
    RotateAndFork,
    /// More is asked for at once than may wait.
    Flood,
    /// A branch: sectors rot under a server that runs.
    Rot,
    /// The disk is full until `Room`.
    Full,
    /// There is room again; writes must resume by themselves.
    Room,
    /// The power goes.
    PowerCut(When),
    /// The process is killed.
    Kill(When),
    /// A clean shutdown, and a start.
    Restart,
    /// The same, with another number of shards.
    Resize(u16),
    /// The same, and a crash in that start.
    CrashInResize {
        /// Shards asked for.
        shards: u16,
        /// When it strikes, counted from the start.
        when: When,
        /// The process alone dies.
        kill: bool,
    },
}

/// A numbered step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Its number in the whole plan; names its stream of chance.
    pub number: u32,
    /// What happens.
    pub action: Action,
}

/// A setting and steps.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The setting.
    pub setup: Setup,
    /// How many steps the whole plan has.
    pub steps_total: u32,
    /// Those that are taken.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The whole plan of a seed.
    pub fn new(seed: u64, steps: u32) -> Self {
        Self::in_setting(Setup::of_seed(seed), steps)
    }

    /// The whole plan of a setting.
    pub fn in_setting(setup: Setup, steps: u32) -> Self {
        let steps_of = |number| Step { number, action: choose(&setup, &mut stream(setup.seed, number, Stream::Plan)) };
        Self { setup, steps_total: steps, steps: (0..steps).map(steps_of).collect() }
    }

    /// The same plan with those steps only.
    pub fn keeping(&self, keep: impl Fn(u32) -> bool) -> Self {
        Self { steps: self.steps.iter().copied().filter(|step| keep(step.number)).collect(), ..self.clone() }
    }

    /// Steps without anything that ends a life by force or asks for damage: a history whose sync points can be cut one
    /// by one.
    pub fn without_misfortune(mut self) -> Self {
        self.setup = Setup { weather: Weather::Calm, stalls: false, ..self.setup };
        let misfortune = |action: Action| {
            use Action::*;
            matches!(action, Fork | Damage | Rot | DiskFault | Stall | Full | Room | PowerCut(_) | Kill(_))
        };
        self.steps.retain(|step| !misfortune(step.action));
        for step in &mut self.steps {
            if let Action::CrashInResize { shards, .. } = step.action {
                step.action = Action::Resize(shards);
            }
        }
        self
    }

    /// A history whose sync points are tried one by one: without misfortune, on small segments that fill and are
    /// compacted, with checkpoints between, and with a rotation, a restart and a resize at a third of the way each.
    pub fn for_every_sync_point(seed: u64, steps: u32) -> Self {
        let drawn = Setup::of_seed(seed);
        let segment_bytes = if drawn.direct_alignment == Some(512) { 16 << 10 } else { 64 << 10 };
        let sizes = LogSizes {
            segment_bytes_first: segment_bytes,
            segment_bytes_max: segment_bytes,
            checkpoint_due_bytes: segment_bytes,
            ..drawn.sizes
        };
        let keys = drawn.keys.min(6);
        let setup = Setup { sizes, keys, schemas: 1, document_bytes: 1500, workload: Workload::Even, ..drawn };
        let mut plan = Self::in_setting(setup, steps).without_misfortune();
        let at = |part: u32| steps * part / 4;
        for step in &mut plan.steps {
            step.action = match step.number {
                number if number == at(1) => Action::Client(Operation::RotateKey),
                number if number == at(2) => Action::Resize(setup.shards % 3 + 1),
                number if number == at(3) => Action::Restart,
                number if number % 8 == 7 => Action::Pause(150),
                _ => step.action,
            };
        }
        plan
    }

    /// The numbers of its steps as ranges, `1-4,9`; the form that `--keep` takes.
    pub fn kept(&self) -> String {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for step in &self.steps {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == step.number => *last = step.number,
                _ => ranges.push((step.number, step.number)),
            }
        }
        let text =
            |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
        ranges.iter().map(text).collect::<Vec<_>>().join(",")
    }
}

/// Reads ranges such as `1-4,9`.
pub fn parse_ranges(text: &str) -> Result<Vec<(u32, u32)>, String> {
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| format!("'{text}' is no step number"));
    text.split(',')
        .filter(|part| !part.trim().is_empty())
        .map(|part| match part.split_once('-') {
            Some((first, last)) => Ok((number(first)?, number(last)?)),
            None => number(part).map(|one| (one, one)),
        })
        .collect()
}

/// What a step's chance is for; each has a stream of its own.
#[derive(Clone, Copy)]
pub enum Stream {
    /// Which action it is.
    Plan = 1,
    /// How it is carried out.
    Act = 2,
    /// The machine it leads to.
    Machine = 3,
}

/// A step's stream of chance.
pub fn stream(seed: u64, number: u32, purpose: Stream) -> Random {
    Random::for_purpose(seed, (purpose as u64) << 32 | u64::from(number))
}

fn choose(setup: &Setup, random: &mut Random) -> Action {
    let when = |random: &mut Random| match random.below(4) {
        0 => When::DuringSync(random.between(1, 12)),
        1 => When::AfterSync(random.between(1, 12)),
        _ => When::Polls(random.between(1, 1500)),
    };
    let has = |weather, weight| if setup.has(weather) { weight } else { 0 };
    let ages = setup.workload == Workload::Aging;
    let weights = [
        (50, 0),
        (12, 1),
        (8, 2),
        (has(Weather::Rotten, if ages { 40 } else { 12 }), 3),
        (4, 4),
        (4, 5),
        (has(Weather::Failing, 14), 6),
        (has(Weather::Full, 6), 7),
        (has(Weather::Full, 14), 8),
        (has(Weather::Stormy, 10), 9),
        (has(Weather::Stormy, 12), 10),
        (4, 11),
        (3, 12),
        (has(Weather::Stormy, 3), 13),
        (10, 14),
        (10, 15),
        (if ages { 0 } else { 4 }, 16),
        (if setup.tight { 12 } else { 0 }, 18),
        (has(Weather::Rotten, 8), 19),
        (900, 17),
    ];
    match pick(&weights, random) {
        0 => Action::Pause(random.between(1, 150)),
        1 => Action::Settle,
        2 => Action::Fork,
        3 => Action::Damage,
        4 => Action::ClearCache,
        5 => Action::WallClock,
        6 => Action::DiskFault,
        7 => Action::Full,
        8 => Action::Room,
        9 => Action::PowerCut(when(random)),
        10 if random.below(2) == 0 => Action::Kill(When::DuringSync(random.between(1, 12))),
        10 => Action::Kill(when(random)),
        11 => Action::Restart,
        12 => Action::Resize(random.between(1, 4) as u16),
        13 => Action::CrashInResize {
            shards: random.between(1, 4) as u16,
            when: match random.below(3) {
                0 => When::DuringSync(random.between(1, 25)),
                1 => When::AfterSync(random.between(1, 25)),
                _ => When::Polls(random.between(1, 250)),
            },
            kill: random.below(2) == 0,
        },
        14 if setup.stalls && random.below(2) == 0 => Action::Stall,
        14 => Action::SlowDisk,
        15 => Action::Race,
        16 => Action::RotateAndFork,
        18 => Action::Flood,
        19 => Action::Rot,
        _ => match pick(&OPERATIONS, random) {
            // A new key has every old segment rewritten.
            Operation::RotateKey if ages => Action::Client(Operation::Put),
            operation => Action::Client(operation),
        },
    }
}

/// Chooses by weight.
pub fn pick<T: Copy>(weights: &[(u64, T)], random: &mut Random) -> T {
    let total = weights.iter().map(|(weight, _)| weight).sum();
    let mut drawn = random.below(total);
    for (weight, value) in weights {
        if drawn < *weight {
            return *value;
        }
        drawn -= weight;
    }
    weights[weights.len() - 1].1
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:>5} {:?}", self.number, self.action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_they_are_written() {
        let plan = Plan::new(3, 40).keeping(|number| matches!(number, 0 | 3..=6 | 39));
        assert_eq!(plan.kept(), "0,3-6,39");
        assert_eq!(parse_ranges(&plan.kept()).unwrap(), [(0, 0), (3, 6), (39, 39)]);
        assert!(parse_ranges("4-x").is_err());
    }

    #[test]
    fn leaving_steps_out_leaves_the_others_as_they_were() {
        let (long, short) = (Plan::new(9, 400), Plan::new(9, 100));
        let same = long.steps.iter().zip(&short.steps).all(|(left, right)| left.action == right.action);
        assert!(same && short.steps.len() == 100);
    }
}
