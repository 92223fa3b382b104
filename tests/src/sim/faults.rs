//! The deliberate faults of `deltadb::sabotage`, and the histories that catch each: the proof that the simulator sees.

use super::plan::{Plan, Setup, Weather};
use deltadb::sabotage::Sabotage;

/// Steps of every history here.
pub const STEPS: u32 = 300;

/// Seeds that are tried at most. Each fault is caught by one seed in six or more, most of them by far more.
pub const SEEDS_MAX: u64 = 48;

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
}

const fn drawn(fault: Sabotage) -> Catch {
    Catch { fault, setting: Setting::Drawn }
}

const fn in_weather(fault: Sabotage, weather: Weather) -> Catch {
    Catch { fault, setting: Setting::Weather(weather) }
}

const fn aging(fault: Sabotage) -> Catch {
    Catch { fault, setting: Setting::Aging }
}

/// One row a fault.
pub const CATCHES: &[Catch] = &[
    drawn(Sabotage::ReplyBeforeSync),
    drawn(Sabotage::SkipDirectorySync),
    drawn(Sabotage::SkipFileSync),
    in_weather(Sabotage::IgnoreShortWrite, Weather::Failing),
    drawn(Sabotage::AcceptStaleFrame),
    drawn(Sabotage::ReuseNonce),
    aging(Sabotage::ForgetTombstone),
    drawn(Sabotage::CheckpointBeforeData),
    drawn(Sabotage::ApplyOutOfOrder),
    in_weather(Sabotage::DropAssociatedData, Weather::Rotten),
    drawn(Sabotage::ShowBeforeDurable),
    drawn(Sabotage::JudgeAgainstDurable),
    drawn(Sabotage::AnswerBeforeDurable),
    in_weather(Sabotage::FillCacheBlindly, Weather::Calm),
    drawn(Sabotage::WriteWhereReceived),
    drawn(Sabotage::ForgetDoorbell),
    drawn(Sabotage::ReuseVersions),
    in_weather(Sabotage::TrustPageCache, Weather::Stormy),
    drawn(Sabotage::ReuseBeforeUnlisting),
    drawn(Sabotage::WriteBeforeListing),
    aging(Sabotage::NoTailFrame),
    in_weather(Sabotage::WriteOnAfterFailure, Weather::Failing),
    drawn(Sabotage::CheckpointClaimsMore),
    drawn(Sabotage::RepointBlindly),
    drawn(Sabotage::DropKeysInUse),
    drawn(Sabotage::RewriteVersionsAnew),
    drawn(Sabotage::CursorSkipsOne),
    drawn(Sabotage::AnswerFailureAsSuccess),
];
