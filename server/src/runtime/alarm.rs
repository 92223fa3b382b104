//! What wakes a sleeping shard for its next timer: a timeout operation on the ring that outlives the sleep.
//!
//! A shard under load sleeps tens of thousands of times a second and has timers a few times a second; a timeout given
//! to each sleep would be set and taken back every time. So one that is due soon enough is left where it is, and an
//! early wake-up finds nothing to do.
#![allow(unsafe_code)]

use super::ring::{OperationKind, Ring, Token};
use io_uring::{opcode, types};
use std::io;
use std::time::{Duration, Instant};

/// The timeouts outstanding on one shard's ring.
#[derive(Default)]
pub(super) struct Alarm {
    /// When each is due, earliest last.
    due: Vec<Instant>,
    time: Box<types::Timespec>,
}

impl Alarm {
    /// Sleeps until a completion or a signal, at the latest until `until`.
    pub fn sleep(&mut self, ring: &Ring, until: Instant) -> io::Result<()> {
        let now = Instant::now();
        let wait = until.saturating_duration_since(now);
        if wait.is_zero() {
            return Ok(());
        }
        if !ring.takes_at_once() {
            // The entry would be read only later, when its time may have been set anew.
            return ring.submit_and_sleep(Some(wait));
        }
        if self.due.last().is_none_or(|earliest| until < *earliest) {
            self.set(ring, now, wait);
        }
        ring.submit_and_sleep(None)
    }

    /// A timeout has come: the earliest, for they come in the order in which they are due.
    pub fn rang(&mut self) {
        self.due.pop();
    }

    fn set(&mut self, ring: &Ring, now: Instant, wait: Duration) {
        *self.time = types::Timespec::from(wait);
        self.due.push(now + wait);
        let entry = opcode::Timeout::new(&*self.time).build();
        // SAFETY: the time lies in a box that lives as long as the ring is driven; the entry has room in the queue, and
        // the kernel copies the time when it takes the entry, which is in the very next call.
        unsafe { ring.queue(Token::new(OperationKind::Alarm, 0, 0), entry) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the next completion; whether it was a timeout of the alarm.
    fn rang(alarm: &mut Alarm, ring: &Ring) -> bool {
        let mut completions = Vec::new();
        while completions.is_empty() {
            ring.submit_and_sleep(None).unwrap();
            ring.reap(&mut completions, 1);
        }
        let rang = completions[0].token.kind == OperationKind::Alarm;
        if rang {
            alarm.rang();
        }
        rang
    }

    #[test]
    fn a_timeout_is_set_only_for_a_sleep_that_ends_before_those_that_stand() {
        let (ring, mut alarm) = (Ring::new(&[]).unwrap(), Alarm::default());
        let (start, hour) = (Instant::now(), Duration::from_secs(3600));
        alarm.set(&ring, start, hour);
        ring.submit().unwrap();
        for _ in 0..3 {
            let until = Instant::now() + Duration::from_millis(2);
            alarm.sleep(&ring, until).unwrap();
            if alarm.due.len() == 2 {
                assert!(rang(&mut alarm, &ring) && Instant::now() >= until);
            }
            assert_eq!(alarm.due, [start + hour]);
        }
        // Something else ends the next sleep at once; it is covered by what stands.
        // SAFETY: a nop points to nothing.
        unsafe { ring.queue(Token::new(OperationKind::Ignored, 0, 0), opcode::Nop::new().build()) };
        alarm.sleep(&ring, start + 2 * hour).unwrap();
        assert!(!rang(&mut alarm, &ring));
        assert_eq!(alarm.due, [start + hour]);
        assert!(alarm.sleep(&ring, start).is_ok(), "what is past is not slept for");
    }
}
