//! What a simulation met: counters by name, so that a test can say that a batch of seeds reaches everything.

use std::collections::BTreeMap;
use std::fmt;

/// Counters by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<String, u64>);

/// What every batch of a few hundred seeds must meet at least once.
pub const MUST_BE_MET: &[&str] = &[
    "branch: crash in a start after a kill",
    "branch: damage",
    "branch: damaged last frame refused",
    "branch: forged frame refused",
    "branch: fork",
    "branch: fork after a checkpoint",
    "branch: lost checkpoint, all found",
    "branch: refused as damaged",
    "branch: salvaged",
    "cache evictions",
    "cache expirations",
    "cache hits",
    "cache misses",
    "checkpoints",
    "clean starts",
    "commits",
    "compactions",
    "crash in a start",
    "crash in a resize",
    "data keys dropped",
    "disk faults",
    "frames",
    "kills",
    "late writes",
    "mailbox hops",
    "poisoned shards",
    "power cuts",
    "races",
    "records replayed",
    "recoveries",
    "reply: not found",
    "reply: out of space",
    "reply: outcome unknown",
    "reply: precondition failed",
    "reply: schema violation",
    "reply: written",
    "resizes",
    "rotations",
    "segments reused",
    "starts that failed",
    "torn writes",
    "unknown writes found gone",
    "unknown writes found there",
    "writes resumed after a full disk",
];

impl Coverage {
    /// Counts.
    pub fn add(&mut self, name: impl Into<String>, count: u64) {
        if count > 0 {
            *self.0.entry(name.into()).or_default() += count;
        }
    }

    /// Counts one.
    pub fn hit(&mut self, name: impl Into<String>) {
        self.add(name, 1);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Coverage) {
        other.0.iter().for_each(|(name, count)| self.add(name.clone(), *count));
    }

    /// How often.
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// What should have been met and was not.
    pub fn missing(&self) -> Vec<&'static str> {
        MUST_BE_MET.iter().copied().filter(|name| self.of(name) == 0).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in &self.0 {
            writeln!(formatter, "{count:>12}  {name}")?;
        }
        Ok(())
    }
}
