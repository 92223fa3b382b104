//! The deliberate faults of `deltadb::sabotage`, and the histories that catch each: the proof that the simulator sees.

use super::plan::Plan;
use super::run::{Failure, Keep, run};
use super::setup::{Setup, Weather};
use deltadb::sabotage::{Sabotage, Switched};
use std::fmt;

/// Steps of every history here.
pub const STEPS: u32 = 300;

/// Seeds that are tried at most when a row's own does not catch its fault any more. Each fault is caught by one seed in
/// six or more, most of them by far more.
pub const SEEDS_MAX: u64 = 48;

/// The rule of a run that ended in a panic of the product: the honest catch of a fault that the product itself sees first.
pub const PANIC: &str = "nothing panics";

/// What the histories of a row are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// As the seed draws it.
    Drawn,
    /// In a weather.
    Weather(Weather),
    /// With an aging workload whose files are damaged.
    Aging,
}

/// How a fault is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Catch {
    /// The fault.
    pub fault: Sabotage,
    /// What its histories are like.
    pub setting: Setting,
    /// The seed whose history catches it.
    pub seed: u64,
    /// The rule that it breaks.
    pub rule: &'static str,
}

impl Catch {
    /// The history of a seed.
    pub fn plan(&self, seed: u64) -> Plan {
        let setup = Setup::of_seed(seed);
        let setup = match self.setting {
            Setting::Drawn => setup,
            Setting::Weather(weather) => setup.in_weather(weather),
            Setting::Aging => setup.aging().in_weather(Weather::Rotten),
        };
        Plan::in_setting(setup, STEPS)
    }

    /// What a seed's history comes to with the fault switched on.
    pub fn seen_by(&self, seed: u64) -> Option<Failure> {
        let _switched = Switched::on(self.fault);
        run(&self.plan(seed), Keep::Verdict).failure
    }

    /// The row that would be right now: the first seed that catches the fault by a rule, or else by a panic.
    pub fn found_anew(&self) -> Option<Self> {
        let mut panic = None;
        for seed in 1..=SEEDS_MAX {
            match self.seen_by(seed).map(|failure| failure.broken.rule) {
                Some(PANIC) => panic = panic.or(Some(Self { seed, rule: PANIC, ..*self })),
                Some(rule) => return Some(Self { seed, rule, ..*self }),
                None => {}
            }
        }
        panic
    }

    /// Its row in the table of `README.md`.
    pub fn row(&self) -> String {
        let what = self.fault.what().trim_end_matches('.');
        format!("| `{}` | {what} | {} | {} | {} |", self.fault.name(), self.setting, self.seed, self.rule)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Drawn => formatter.write_str("as drawn"),
            Setting::Weather(weather) => write!(formatter, "{}", format!("{weather:?}").to_lowercase()),
            Setting::Aging => formatter.write_str("aging, rotten"),
        }
    }
}

/// As it stands in the table below.
impl fmt::Display for Catch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, setting, seed, rule } = self;
        let setting = match setting {
            Setting::Drawn => "DRAWN".to_owned(),
            Setting::Weather(weather) => format!("Setting::Weather(Weather::{weather:?})"),
            Setting::Aging => "Setting::Aging".to_owned(),
        };
        let rule = if *rule == PANIC { "PANIC".to_owned() } else { format!("{rule:?}") };
        write!(formatter, "    row(Sabotage::{fault:?}, {setting}, {seed}, {rule}),")
    }
}

const DRAWN: Setting = Setting::Drawn;

const fn row(fault: Sabotage, setting: Setting, seed: u64, rule: &'static str) -> Catch {
    Catch { fault, setting, seed, rule }
}

/// One row a fault.
pub const CATCHES: &[Catch] = &[
    row(Sabotage::ReplyBeforeSync, DRAWN, 1, "no reply before durability"),
    row(Sabotage::SkipDirectorySync, DRAWN, 1, "the store opens"),
    row(Sabotage::SkipFileSync, DRAWN, 1, "the store opens"),
    row(Sabotage::IgnoreShortWrite, Setting::Weather(Weather::Failing), 3, "no reply before durability"),
    row(Sabotage::AcceptStaleFrame, DRAWN, 1, "the store opens"),
    row(Sabotage::ReuseNonce, DRAWN, 1, "no nonce is used twice"),
    row(Sabotage::ForgetTombstone, Setting::Aging, 2, "damage is never served"),
    row(Sabotage::CheckpointBeforeData, DRAWN, 1, "nothing is damaged by itself"),
    row(Sabotage::ApplyOutOfOrder, DRAWN, 1, "nothing undurable is shown"),
    row(Sabotage::DropAssociatedData, Setting::Weather(Weather::Rotten), 2, "damage is never served"),
    row(Sabotage::ShowBeforeDurable, DRAWN, 3, "nothing undurable is shown"),
    row(Sabotage::JudgeAgainstDurable, DRAWN, 1, "conditions hold"),
    row(Sabotage::AnswerBeforeDurable, DRAWN, 1, "nothing undurable is shown"),
    row(Sabotage::FillCacheBlindly, Setting::Weather(Weather::Calm), 4, "reads are linearizable"),
    row(Sabotage::WriteWhereReceived, DRAWN, 1, "nothing undurable is shown"),
    row(Sabotage::ForgetDoorbell, DRAWN, 1, "one answer a request"),
    row(Sabotage::ReuseVersions, DRAWN, 1, "sequences rise"),
    row(Sabotage::TrustPageCache, Setting::Weather(Weather::Stormy), 1, "the store opens"),
    row(Sabotage::ReuseBeforeUnlisting, DRAWN, 1, "the store opens"),
    row(Sabotage::WriteBeforeListing, DRAWN, 1, "the store opens"),
    row(Sabotage::NoTailFrame, Setting::Aging, 9, "damage is never served"),
    row(Sabotage::WriteOnAfterFailure, Setting::Weather(Weather::Failing), 1, "a failed shard refuses writes"),
    row(Sabotage::CheckpointClaimsMore, DRAWN, 1, "the store opens"),
    row(Sabotage::RepointBlindly, DRAWN, 3, "damage does not spread"),
    row(Sabotage::DropKeysInUse, DRAWN, 1, "the store opens"),
    row(Sabotage::RewriteVersionsAnew, DRAWN, 3, "versions rise"),
    row(Sabotage::CursorSkipsOne, DRAWN, 1, "listings are whole"),
    row(Sabotage::AnswerFailureAsSuccess, DRAWN, 2, "nothing undurable is shown"),
    row(Sabotage::RefuseLateWrite, DRAWN, 8, "acknowledged is durable"),
    row(Sabotage::ForgetLateWrite, DRAWN, 10, "reads are linearizable"),
];
