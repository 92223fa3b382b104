//! The deliberate faults of `deltadb::sabotage`, and the histories that catch each: the proof that the simulator sees.

use super::plan::{Plan, Setup, Weather};
use deltadb::sabotage::Sabotage;

/// Steps of every history here.
pub const STEPS: u32 = 300;

/// Seeds that are tried at most, beside those of a row.
pub const SEEDS_MAX: u64 = 300;

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
    /// Seeds that catch it. Whatever changes the order of events may move them, so others follow: see [`Catch::seeds`].
    pub known: &'static [u64],
}

impl Catch {
    /// The seeds to try in turn until one catches the fault.
    pub fn seeds(&self) -> impl Iterator<Item = u64> + use<> {
        self.known.iter().copied().chain(1..=SEEDS_MAX)
    }

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

const fn drawn(fault: Sabotage, known: &'static [u64]) -> Catch {
    Catch { fault, setting: Setting::Drawn, known }
}

/// One row a fault.
pub const CATCHES: &[Catch] = &[
    drawn(Sabotage::ReplyBeforeSync, &[]),
    drawn(Sabotage::SkipDirectorySync, &[]),
    drawn(Sabotage::SkipFileSync, &[]),
    Catch { fault: Sabotage::IgnoreShortWrite, setting: Setting::Weather(Weather::Failing), known: &[] },
    drawn(Sabotage::AcceptStaleFrame, &[]),
    drawn(Sabotage::ReuseNonce, &[]),
    Catch { fault: Sabotage::ForgetTombstone, setting: Setting::Aging, known: &[] },
    drawn(Sabotage::CheckpointBeforeData, &[]),
    drawn(Sabotage::ApplyOutOfOrder, &[]),
    Catch { fault: Sabotage::DropAssociatedData, setting: Setting::Weather(Weather::Rotten), known: &[] },
    drawn(Sabotage::ShowBeforeDurable, &[]),
    drawn(Sabotage::JudgeAgainstDurable, &[]),
    drawn(Sabotage::AnswerBeforeDurable, &[]),
    Catch { fault: Sabotage::FillCacheBlindly, setting: Setting::Weather(Weather::Calm), known: &[] },
    drawn(Sabotage::WriteWhereReceived, &[]),
    drawn(Sabotage::ForgetDoorbell, &[]),
    drawn(Sabotage::ReuseVersions, &[]),
    Catch { fault: Sabotage::TrustPageCache, setting: Setting::Weather(Weather::Stormy), known: &[15] },
    drawn(Sabotage::ReuseBeforeUnlisting, &[]),
    drawn(Sabotage::WriteBeforeListing, &[]),
    Catch { fault: Sabotage::NoTailFrame, setting: Setting::Aging, known: &[] },
    Catch { fault: Sabotage::WriteOnAfterFailure, setting: Setting::Weather(Weather::Failing), known: &[] },
    drawn(Sabotage::CheckpointClaimsMore, &[]),
    drawn(Sabotage::RepointBlindly, &[]),
    drawn(Sabotage::DropKeysInUse, &[]),
    drawn(Sabotage::RewriteVersionsAnew, &[]),
    drawn(Sabotage::CursorSkipsOne, &[]),
    drawn(Sabotage::AnswerFailureAsSuccess, &[]),
];
