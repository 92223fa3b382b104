//! When a shard with nothing to do looks again, and when it sleeps.
//!
//! Looking again (spinning) saves a client the time in which a sleeping thread wakes up; it costs the CPU that other
//! threads, and the kernel's own, could have used. It pays while few clients are at work, each waiting for its reply
//! before it asks again: then every wake-up is in somebody's way. With many, one wake-up serves whatever has come by
//! then, and spinning only burns the idle time between them (measured at 40,000 reads a second over 50 connections:
//! twice the CPU a request, no lower latency that a client would see). A commit about to end is always waited for
//! awake: all its writers wait with it.

use std::time::{Duration, Instant};

/// A commit that takes longer than this is not worth waiting awake for.
const COMMIT_AWAKE_MAX: Duration = Duration::from_millis(1);
/// So many clients at once still count as few.
const CLIENTS_FEW: usize = 4;
/// The share of the newest message in the running mean: a sixteenth.
const FAMILIAR_SHIFT: u32 = 4;
const FAMILIAR_FULL: u32 = 1 << 16;

/// What the shard has seen of its clients, and since when it has been idle.
pub(super) struct Idle {
    spin: Duration,
    since: Option<Instant>,
    /// A running mean of the gaps between work, each counted up to a few spins.
    gap_mean: Duration,
    /// The connections heard last, each once.
    heard: [u32; CLIENTS_FEW],
    heard_next: usize,
    /// How often the next message came from one of them: a running mean, of `FAMILIAR_FULL`.
    familiar: u32,
}

impl Idle {
    /// At most so long at a time; zero switches spinning off.
    pub fn new(spin: Duration) -> Self {
        Self {
            spin,
            since: None,
            gap_mean: Duration::ZERO,
            heard: [u32::MAX; CLIENTS_FEW],
            heard_next: 0,
            familiar: FAMILIAR_FULL,
        }
    }

    /// A message came on this connection.
    #[inline]
    pub fn heard(&mut self, connection: u32) {
        self.familiar -= self.familiar >> FAMILIAR_SHIFT;
        if self.heard.contains(&connection) {
            self.familiar += FAMILIAR_FULL >> FAMILIAR_SHIFT;
        } else {
            self.heard[self.heard_next] = connection;
            self.heard_next = (self.heard_next + 1) % CLIENTS_FEW;
        }
    }

    /// There was something to do.
    pub fn worked(&mut self) {
        if let Some(since) = self.since.take() {
            let gap = since.elapsed().min(4 * self.spin);
            self.gap_mean = (3 * self.gap_mean + gap) / 4;
        }
    }

    /// Whether to look again instead of sleeping.
    pub fn may_spin(&mut self, commit_expected_by: Option<Instant>) -> bool {
        if self.spin.is_zero() {
            return false;
        }
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let commit_is_near = commit_expected_by.is_some_and(|by| now < by.min(since + COMMIT_AWAKE_MAX));
        // A gap that was slept through holds the wake-up as well, so twice the spin still counts as short.
        let is_paying = self.gap_mean <= 2 * self.spin && self.familiar >= FAMILIAR_FULL / 2;
        commit_is_near || is_paying && now < since + self.spin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_stops_paying_when_gaps_are_long_and_pays_again_when_they_are_short() {
        let spin = Duration::from_millis(1);
        let mut idle = Idle::new(spin);
        let now = Instant::now();
        assert!(idle.may_spin(None));
        for _ in 0..8 {
            idle.since = now.checked_sub(50 * spin);
            idle.worked();
        }
        assert!(!idle.may_spin(None));
        // A commit that is about to end is worth waiting for all the same, one that is late is not.
        assert!(idle.may_spin(Some(Instant::now() + spin)));
        assert!(!idle.may_spin(now.checked_sub(spin)));
        for _ in 0..16 {
            idle.since = Some(Instant::now());
            idle.worked();
        }
        assert!(idle.may_spin(None));
        assert!(!Idle::new(Duration::ZERO).may_spin(Some(Instant::now() + spin)));
    }

    #[test]
    fn spinning_is_for_few_clients() {
        let spin = Duration::from_secs(60);
        let mut idle = Idle::new(spin);
        (0..1000).for_each(|turn| idle.heard(turn % CLIENTS_FEW as u32));
        assert!(idle.may_spin(None));
        (0..1000).for_each(|turn| idle.heard(turn % 50));
        assert!(!idle.may_spin(None));
        // Whoever waits for a commit is not made to wait for a wake-up as well.
        assert!(idle.may_spin(Some(Instant::now() + spin)));
        (0..100).for_each(|_| idle.heard(7));
        assert!(idle.may_spin(None));
    }
}
