//! What a run found out: latencies, throughput over time, answers counted by kind, and every fault.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// Latencies are kept to so many significant digits.
const DIGITS: u8 = 3;
/// Longer ones are counted as this.
const LATENCY_NS_MAX: u64 = 100_000_000_000;
/// Length of a step of the throughput series.
pub const STEP: Duration = Duration::from_millis(100);

/// What an operation counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Read,
    Write,
    /// A read and the write that follows it, together.
    ReadModifyWrite,
}

impl Kind {
    /// All of them, in the order shown.
    pub const ALL: [Kind; 3] = [Kind::Read, Kind::Write, Kind::ReadModifyWrite];

    /// That of a single request.
    pub fn of(is_read: bool) -> Self {
        if is_read { Kind::Read } else { Kind::Write }
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Write => "write",
            Kind::ReadModifyWrite => "read-modify-write",
        }
    }
}

/// Replies and connections that went wrong. Any of them makes a run worthless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Requests that never got a reply.
    pub lost: u64,
    /// Second replies to a request.
    pub doubled: u64,
    /// Replies to nothing that was asked.
    pub unasked: u64,
    /// Replies to another request than the one they came for.
    pub misordered: u64,
    /// Documents that were never written.
    pub damaged: u64,
    /// Replies that show an older state than one acknowledged before they were asked for.
    pub stale: u64,
    /// Connections that ended early or spoke nonsense.
    pub broken_connections: u64,
}

impl Faults {
    /// Each with its name.
    pub fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("lost", self.lost),
            ("doubled", self.doubled),
            ("unasked", self.unasked),
            ("misordered", self.misordered),
            ("damaged", self.damaged),
            ("stale", self.stale),
            ("broken connections", self.broken_connections),
        ]
    }

    /// Whether there were none.
    pub fn none(&self) -> bool {
        *self == Self::default()
    }
}

/// The results of one run.
pub struct Measured {
    pub(crate) latencies_ns: [Histogram<u64>; 3],
    /// Requests answered in each [`STEP`] of the measured time.
    pub answered_by_step: Vec<u64>,
    /// Refusals by code, over the whole run.
    pub errors: BTreeMap<String, u64>,
    /// Over the whole run.
    pub faults: Faults,
    /// Of the first and the last kind of everything that went wrong, a word for a person.
    pub first_trouble: Option<String>,
    /// Requests answered, refusals included, in the measured time.
    pub answered: u64,
    /// Documents read and found right, over the whole run.
    pub verified: u64,
    /// The measured time.
    pub elapsed: Duration,
    /// CPU time of the server in the measured time.
    pub server_cpu: Option<Duration>,
    /// CPU time of this thread in the measured time.
    pub own_cpu: Duration,
    /// Open loop: how late the generator itself was at most.
    pub own_lag_max: Duration,
    /// Open loop: requests due in the measured time that found no connection with room until the end. Each has what it
    /// waited for its latency.
    pub never_sent: u64,
}

impl Default for Measured {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS)
                .unwrap_or_else(|_| unreachable!("these bounds and {DIGITS} digits are allowed"))
        };
        Self {
            latencies_ns: [histogram(), histogram(), histogram()],
            answered_by_step: Vec::new(),
            errors: BTreeMap::new(),
            faults: Faults::default(),
            first_trouble: None,
            answered: 0,
            verified: 0,
            elapsed: Duration::ZERO,
            server_cpu: None,
            own_cpu: Duration::ZERO,
            own_lag_max: Duration::ZERO,
            never_sent: 0,
        }
    }
}

impl Measured {
    /// Enters a latency.
    pub fn record(&mut self, kind: Kind, latency_ns: u64) {
        self.latencies_ns[kind as usize].saturating_record(latency_ns);
    }

    /// Counts an answered request at a time since the measuring began.
    pub fn count(&mut self, since_start_ns: u64) {
        self.answered += 1;
        let step = (since_start_ns / STEP.as_nanos() as u64) as usize;
        if self.answered_by_step.len() <= step {
            self.answered_by_step.resize(step + 1, 0);
        }
        self.answered_by_step[step] += 1;
    }

    /// Counts a refusal.
    pub fn refused(&mut self, code: &str) {
        match self.errors.get_mut(code) {
            Some(count) => *count += 1,
            None => drop(self.errors.insert(code.to_owned(), 1)),
        }
    }

    /// Keeps the first explanation of something that went wrong.
    pub fn trouble(&mut self, text: impl FnOnce() -> String) {
        self.first_trouble.get_or_insert_with(text);
    }

    /// Latencies of one kind, in nanoseconds.
    pub fn latencies_ns(&self, kind: Kind) -> &Histogram<u64> {
        &self.latencies_ns[kind as usize]
    }

    /// Answered requests per second.
    pub fn requests_per_second(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Microseconds of server CPU for each answered request.
    pub fn server_cpu_us_per_request(&self) -> Option<f64> {
        Some(self.server_cpu?.as_secs_f64() * 1e6 / self.answered.max(1) as f64)
    }

    /// How busy the generator's thread was, from 0 to 1; near 1 it may be what limits.
    pub fn own_load(&self) -> f64 {
        self.own_cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// All latencies of reads and writes together, in nanoseconds.
    pub fn all_latencies_ns(&self) -> Histogram<u64> {
        let mut all = self.latencies_ns(Kind::Read).clone();
        // Both have the same bounds, so that adding cannot fail.
        let _ = all.add(self.latencies_ns(Kind::Write));
        all
    }

    /// Whether every request was answered as it should be.
    pub fn is_clean(&self) -> bool {
        self.faults.none() && self.errors.is_empty()
    }
}
