//! What every shard tells the others about its state: draining, and why it refuses writes. Read by `/readyz`.

use super::api::Health;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The state of the whole process, shared by its shards.
pub struct Board {
    draining: AtomicBool,
    quiet_shards: AtomicUsize,
    problems: Vec<Mutex<Vec<String>>>,
    alerts: Vec<Mutex<Vec<String>>>,
}

impl Board {
    /// Every shard starts out with the problem that it has not opened yet.
    pub fn new(shards: usize) -> Self {
        let opening = |shard| Mutex::new(vec![format!("shard {shard} is opening")]);
        Self {
            draining: AtomicBool::new(false),
            quiet_shards: AtomicUsize::new(0),
            problems: (0..shards).map(opening).collect(),
            alerts: (0..shards).map(|_| Mutex::default()).collect(),
        }
    }

    /// Replaces what is wrong with a shard; nothing when it serves reads and writes.
    pub fn report(&self, shard: usize, problems: Vec<String>) {
        *self.problems[shard].lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }

    /// Replaces what somebody should see to in a shard that serves.
    pub fn alert(&self, shard: usize, alerts: Vec<String>) {
        *self.alerts[shard].lock().unwrap_or_else(PoisonError::into_inner) = alerts;
    }

    /// From now on new requests are refused.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether a graceful stop has begun.
    #[inline]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// A draining shard owes nobody an answer any more; its peers may still ask it.
    pub fn shard_is_quiet(&self) {
        self.quiet_shards.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether no shard owes an answer: nobody can ask anything any more.
    pub fn all_quiet(&self) -> bool {
        self.quiet_shards.load(Ordering::Acquire) >= self.problems.len()
    }

    /// The verdict for `/readyz`.
    pub fn health(&self) -> Health {
        let draining = self.is_draining();
        let mut reasons: Vec<String> = Vec::new();
        if draining {
            reasons.push("the server is shutting down".into());
        }
        reasons.extend(all_of(&self.problems));
        Health { ready: reasons.is_empty(), reasons, alerts: all_of(&self.alerts).collect(), draining }
    }
}

fn all_of(shards: &[Mutex<Vec<String>>]) -> impl Iterator<Item = String> {
    shards.iter().flat_map(|lines| lines.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_shard_is_fine_and_nobody_drains() {
        let board = Board::new(2);
        assert_eq!(board.health().reasons.len(), 2);
        board.report(0, Vec::new());
        board.report(1, Vec::new());
        assert!(board.health().ready);
        board.report(1, vec!["shard 1: disk full".into()]);
        assert_eq!(board.health().reasons, ["shard 1: disk full"]);
        board.report(1, Vec::new());
        board.alert(0, vec!["1.seg is damaged".into()]);
        let health = board.health();
        assert!(health.ready && health.alerts == ["1.seg is damaged"], "{health:?}");
        board.begin_drain();
        assert!(!board.health().ready && board.health().draining);
        board.shard_is_quiet();
        assert!(!board.all_quiet());
        board.shard_is_quiet();
        assert!(board.all_quiet());
    }
}
