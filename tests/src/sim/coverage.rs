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
    "branch: fork at an acknowledgement",
    "branch: lost checkpoint, all found",
    "branch: refused as damaged",
    "branch: salvaged",
    "branch: sectors rotted",
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
    "floods",
    "frames",
    "kills",
    "late writes",
    "late writes found there",
    "mailbox hops",
    "overload: errands refused",
    "overload: reads refused",
    "overload: writes refused",
    "poisoned shards",
    "power cuts",
    "races",
    "records replayed",
    "recoveries",
    "reply: not found",
    "reply: out of space",
    "reply: outcome unknown",
    "reply: overloaded",
    "reply: precondition failed",
    "reply: schema violation",
    "reply: written",
    "resizes",
    "rotations",
    "rot: healed by a write",
    "rot: left alone by compaction",
    "rot: met by a restart",
    "rot: met by the scrub",
    "rot: reads refused",
    "rot: resizes refused",
    "rot: restarts refused",
    "rot: restarts that serve the rest",
    "scrub passes",
    "segments reused",
    "starts that failed",
    "stalls",
    "stalls in a start",
    "stalls in a stop",
    "stalls: writes called unknown",
    "torn writes",
    "unknown writes found gone",
    "unknown writes found there",
    "writes resumed after a full disk",
];

/// What the histories whose every sync point is tried must meet between them.
pub const MET_AT_SYNC_POINTS: &[&str] =
    &["checkpoints", "commits", "compactions", "data keys dropped", "resizes", "rotations", "segments reused"];

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

    /// The part that begins with these words.
    pub fn beginning_with(&self, words: &str) -> Self {
        let part = self.0.iter().filter(|(name, _)| name.starts_with(words));
        Self(part.map(|(name, count)| (name.clone(), *count)).collect())
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
