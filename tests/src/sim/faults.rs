//! The deliberate faults of `deltadb::sabotage`, and the seed that catches each: the proof that the simulator sees.

use deltadb::sabotage::Sabotage;

/// How a fault is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Catch {
    /// The fault.
    pub fault: Sabotage,
    /// The seed of the history that catches it.
    pub seed: u64,
    /// Whether by cutting the power at every sync point of the history, instead of where chance does.
    pub exhaustive: bool,
}

/// Steps of every history in the table.
pub const STEPS: u32 = 300;

/// Steps of those whose every sync point is cut.
pub const STEPS_EXHAUSTIVE: u32 = 60;

const fn seed(fault: Sabotage, seed: u64) -> Catch {
    Catch { fault, seed, exhaustive: false }
}

/// One row a fault.
pub const CATCHES: &[Catch] = &[
    seed(Sabotage::ReplyBeforeSync, 1),
    seed(Sabotage::SkipDirectorySync, 1),
    seed(Sabotage::SkipFileSync, 1),
    seed(Sabotage::IgnoreShortWrite, 68),
    seed(Sabotage::AcceptStaleFrame, 1),
    seed(Sabotage::ReuseNonce, 1),
    seed(Sabotage::CheckpointBeforeData, 1),
    seed(Sabotage::ApplyOutOfOrder, 2),
    seed(Sabotage::DropAssociatedData, 3),
    seed(Sabotage::ShowBeforeDurable, 3),
    seed(Sabotage::JudgeAgainstDurable, 2),
    seed(Sabotage::AnswerBeforeDurable, 2),
    seed(Sabotage::FillCacheBlindly, 46),
    seed(Sabotage::WriteWhereReceived, 1),
    seed(Sabotage::ForgetDoorbell, 1),
    seed(Sabotage::ReuseVersions, 2),
    seed(Sabotage::TrustPageCache, 15),
    seed(Sabotage::ReuseBeforeUnlisting, 1),
    seed(Sabotage::WriteBeforeListing, 1),
    seed(Sabotage::WriteOnAfterFailure, 2),
    seed(Sabotage::CheckpointClaimsMore, 1),
    seed(Sabotage::RepointBlindly, 2),
    seed(Sabotage::DropKeysInUse, 12),
    seed(Sabotage::RewriteVersionsAnew, 2),
    seed(Sabotage::CursorSkipsOne, 1),
    seed(Sabotage::AnswerFailureAsSuccess, 9),
];

/// Faults that no seed of the first thousand shows: they need old data that stays alive while newer data is compacted,
/// or rot in the very last frame.
pub const RARE: &[Sabotage] = &[Sabotage::ForgetTombstone, Sabotage::NoTailFrame];
