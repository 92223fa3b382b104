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
pub const CATCHES: &[Catch] = &[];
