//! The newest version of each key that the server has acknowledged, to tell stale replies.

use crate::workload::Operation;

/// Versions by key number; zero where none is known.
#[derive(Default)]
pub(super) struct Versions(Vec<u64>);

impl Versions {
    /// The newest one acknowledged.
    pub fn known(&self, key: u64) -> u64 {
        self.0.get(key as usize).copied().unwrap_or_default()
    }

    /// Whether a reply is no older than what was known when it was asked for; a write's must be newer.
    pub fn admits(&mut self, operation: Operation, is_read: bool, known: u64, version: u64) -> bool {
        let key = operation.key() as usize;
        if self.0.len() <= key {
            self.0.resize((key + 1).next_power_of_two(), 0);
        }
        // What a read shows is acknowledged too: no later read may show less.
        self.0[key] = self.0[key].max(version);
        if is_read { version >= known } else { version > known }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_versions_than_known_are_stale_and_concurrent_ones_are_not() {
        let mut versions = Versions::default();
        let operation = Operation::Update(3);
        assert!(versions.admits(operation, false, 0, 5));
        let known = versions.known(3);
        assert_eq!((known, versions.known(2), versions.known(9_999)), (5, 0, 0));
        assert!(versions.admits(operation, false, known, 7));
        assert!(versions.admits(operation, true, known, 5), "asked before 7 was acknowledged");
        assert_eq!(versions.known(3), 7);
        assert!(!versions.admits(operation, true, 7, 6));
        assert!(!versions.admits(operation, false, 7, 7), "a write makes a new version");
    }
}
