//! The clock of an open loop: when requests are due, and which connections can take one.

use std::collections::VecDeque;
use std::time::Duration;

/// Requests due at fixed times from the start of the run.
pub(super) struct Pace {
    interval_ns: f64,
    /// Requests that became due so far.
    due: u64,
    /// Due times of requests that found no connection with room.
    backlog_ns: VecDeque<u64>,
    /// Connections with room, once for each request they can take.
    ready: VecDeque<usize>,
}

impl Pace {
    pub fn new(rate: f64, connections: usize, pipeline: usize) -> Self {
        Self {
            interval_ns: 1e9 / rate,
            due: 0,
            backlog_ns: VecDeque::new(),
            ready: (0..pipeline).flat_map(|_| 0..connections).collect(),
        }
    }

    /// Time until the next request is due.
    pub fn until_next(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(self.due_at_ns(self.due).saturating_sub(now_ns))
    }

    /// The next request that is due and the connection to send it on, with its due time. Call it until it gives
    /// nothing.
    pub fn next(&mut self, now_ns: u64) -> Option<(usize, u64)> {
        while self.due_at_ns(self.due) <= now_ns {
            self.backlog_ns.push_back(self.due_at_ns(self.due));
            self.due += 1;
        }
        if self.backlog_ns.is_empty() {
            return None;
        }
        Some((self.ready.pop_front()?, self.backlog_ns.pop_front()?))
    }

    /// A connection got a reply: the due time of a request that waited for it, if there is one.
    pub fn reply_on(&mut self, connection: usize) -> Option<u64> {
        let due_ns = self.backlog_ns.pop_front();
        if due_ns.is_none() {
            self.ready.push_back(connection);
        }
        due_ns
    }

    /// The due time of a request that waits still, for which there is no more time.
    pub fn overdue(&mut self) -> Option<u64> {
        self.backlog_ns.pop_front()
    }

    fn due_at_ns(&self, number: u64) -> u64 {
        (number as f64 * self.interval_ns) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_keep_their_due_times_while_no_connection_is_free() {
        let mut pace = Pace::new(1_000.0, 2, 1);
        assert_eq!(pace.next(0), Some((0, 0)));
        assert_eq!(pace.next(0), None);
        assert_eq!(pace.until_next(400_000), Duration::from_micros(600));
        // A stall of five milliseconds: one connection is left, four requests wait with the times they were due.
        assert_eq!(pace.next(5_000_000), Some((1, 1_000_000)));
        assert_eq!(pace.next(5_000_000), None);
        assert_eq!((0..4).map(|_| pace.reply_on(0)).collect::<Vec<_>>(), [2, 3, 4, 5].map(|ms| Some(ms * 1_000_000)));
        assert_eq!(pace.reply_on(0), None);
        assert_eq!(pace.next(6_000_000), Some((0, 6_000_000)));
    }
}
