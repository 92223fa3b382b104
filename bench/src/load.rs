//! Runs a load: connections, each with its ledger, driven by replies (closed loop) or by a clock (open loop).
//!
//! Closed loop: each connection keeps `pipeline` requests in flight. Open loop: requests are due at fixed times
//! whatever the server does, and their latency counts from when they were due, so that a stall is charged to every
//! request it delays. One that lasts beyond the measured time is charged in full: what became due in that time is still
//! sent after it, and what was started in it is waited for. In both, every reply is settled in the ledger and every
//! document read is checked.

mod line;
mod pace;
#[cfg(test)]
mod tests;
mod versions;

use crate::cpu;
use crate::document::{Documents, Key, Mismatch};
use crate::driver::{Answer, Connection, Driver, Parsed, Request};
use crate::ledger::Fault;
use crate::measure::{Kind, Measured};
use crate::ring::{Event, Ring, Wait};
use crate::workload::{Lanes, Operation, Source};
use anyhow::{Result, ensure};
use line::{Line, Pending};
use pace::Pace;
use rustix::time::{ClockId, clock_gettime};
use std::ops::Range;
use std::time::{Duration, Instant};
use versions::Versions;

/// How long replies are waited for once nothing is asked any more, unless a test wants it otherwise; and how long what
/// became due in the measured time of an open loop is sent after it.
pub const DRAIN: Duration = Duration::from_secs(5);
/// Shortest wait for the end of a phase.
const WAIT_MIN: Duration = Duration::from_micros(10);
/// Open loop: closer than this to the next request the thread does not sleep.
const SLEEP_MIN: Duration = Duration::from_micros(100);

/// How to run.
#[derive(Clone)]
pub struct Plan {
    /// Requests in flight on each connection.
    pub pipeline: usize,
    /// Requests per second; `None` for a closed loop.
    pub rate: Option<f64>,
    /// Time before anything is measured.
    pub warmup: Duration,
    /// Time measured; `None` until the source has no more.
    pub duration: Option<Duration>,
    /// Processes whose CPU time is the server's.
    pub server_pids: Vec<u32>,
    /// How long replies are waited for at the end, and what is overdue is sent.
    pub drain: Duration,
    /// First of the revisions that are written.
    pub first_revision: u64,
}

/// What one run works with.
pub struct Setup<'a> {
    pub driver: &'a mut dyn Driver,
    pub source: &'a mut dyn Source,
    pub documents: &'a Documents,
    pub lanes: &'a Lanes,
}

/// Runs it on these connections.
pub fn run<'a>(plan: &'a Plan, setup: Setup<'a>, connections: Vec<Connection>) -> Result<Measured> {
    ensure!(!connections.is_empty(), "at least one connection is needed");
    let keeps_order = setup.driver.keeps_order();
    let lines = connections.iter().map(|connection| Line::new(plan.pipeline, keeps_order, connection.lane)).collect();
    let mut ring = Ring::new(connections.into_iter().map(|connection| connection.stream.into()).collect())?;
    let mut load = Load::new(plan, setup, lines);
    load.start(&mut ring)?;
    while !load.is_over() {
        ring.turn(load.wait())?;
        load.now_ns = load.elapsed_ns();
        ring.reap(|line, event, out| load.on_event(line, event, out));
        load.tick(&mut ring)?;
    }
    load.finish()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Warmup,
    Measuring,
    Draining,
}

struct Load<'a> {
    plan: &'a Plan,
    setup: Setup<'a>,
    lines: Vec<Line>,
    measured: Measured,
    phase: Phase,
    begun: Instant,
    now_ns: u64,
    phase_start_ns: u64,
    /// The time measured, as far as it is known.
    measured_ns: Range<u64>,
    last_issue_ns: u64,
    source_is_dry: bool,
    revision: u64,
    versions: Versions,
    document: Vec<u8>,
    pace: Option<Pace>,
    cpu_at_start: Option<(Option<Duration>, Duration)>,
}

impl<'a> Load<'a> {
    fn new(plan: &'a Plan, setup: Setup<'a>, lines: Vec<Line>) -> Self {
        let pace = plan.rate.map(|rate| Pace::new(rate, lines.len(), plan.pipeline));
        Self {
            plan,
            setup,
            lines,
            measured: Measured::default(),
            phase: Phase::Warmup,
            begun: Instant::now(),
            now_ns: 0,
            phase_start_ns: 0,
            measured_ns: u64::MAX..u64::MAX,
            last_issue_ns: 0,
            source_is_dry: false,
            revision: plan.first_revision,
            versions: Versions::default(),
            document: Vec::new(),
            pace,
            cpu_at_start: None,
        }
    }

    fn elapsed_ns(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    fn start(&mut self, ring: &mut Ring) -> Result<()> {
        self.begun = Instant::now();
        if self.plan.warmup.is_zero() {
            self.start_measuring()?;
        }
        if self.pace.is_none() {
            for line in 0..self.lines.len() {
                self.refill(line, ring.outbound(line));
            }
        }
        Ok(())
    }

    fn start_measuring(&mut self) -> Result<()> {
        self.cpu_at_start = Some((self.server_cpu()?, own_cpu()));
        self.enter(Phase::Measuring);
        self.measured_ns.start = self.phase_start_ns;
        Ok(())
    }

    fn outstanding(&self) -> usize {
        self.lines.iter().map(|line| line.ledger.outstanding()).sum()
    }

    fn is_over(&self) -> bool {
        let drained = || self.outstanding() == 0 || self.now_ns > self.end_of_patience_ns();
        (self.phase == Phase::Draining && drained()) || !self.lines.iter().any(|line| line.is_open)
    }

    fn drain_ns(&self) -> u64 {
        self.plan.drain.as_nanos() as u64
    }

    /// Draining: until when replies are waited for.
    fn end_of_patience_ns(&self) -> u64 {
        self.phase_start_ns.max(self.last_issue_ns) + self.drain_ns()
    }

    /// Whether what is due is asked now.
    fn is_asking(&self) -> bool {
        self.phase != Phase::Draining || self.now_ns - self.phase_start_ns <= self.drain_ns()
    }

    /// How long the ring may wait now.
    fn wait(&self) -> Wait {
        let after = |duration: Duration| self.phase_start_ns + duration.as_nanos() as u64;
        let phase_end_ns = match (self.phase, self.plan.duration) {
            (Phase::Warmup, _) => after(self.plan.warmup),
            (Phase::Measuring, Some(duration)) => after(duration),
            (Phase::Measuring, None) => after(self.plan.drain),
            (Phase::Draining, _) => self.end_of_patience_ns(),
        };
        let now_ns = self.elapsed_ns();
        let mut wait = Duration::from_nanos(phase_end_ns.saturating_sub(now_ns)).max(WAIT_MIN);
        if let (Some(pace), true) = (&self.pace, self.phase != Phase::Draining) {
            wait = wait.min(pace.until_next(now_ns).checked_sub(SLEEP_MIN).unwrap_or_default());
        }
        Wait::Until(wait)
    }

    /// What is to be done by the clock rather than by a reply.
    fn tick(&mut self, ring: &mut Ring) -> Result<()> {
        if self.pace.is_some() && self.phase != Phase::Draining {
            self.send_what_is_due(ring);
        }
        let in_phase = Duration::from_nanos(self.now_ns - self.phase_start_ns);
        match self.phase {
            Phase::Warmup if in_phase >= self.plan.warmup => self.start_measuring()?,
            Phase::Measuring if self.source_is_dry || self.plan.duration.is_some_and(|all| in_phase >= all) => {
                if self.source_is_dry && self.outstanding() > 0 && in_phase < self.plan.drain * 24 {
                    return Ok(());
                }
                self.measured.elapsed = in_phase;
                if let Some((server_cpu, before)) = self.cpu_at_start.take() {
                    self.measured.own_cpu = own_cpu().saturating_sub(before);
                    self.measured.server_cpu =
                        self.server_cpu()?.zip(server_cpu).map(|(after, before)| after.saturating_sub(before));
                }
                self.enter(Phase::Draining);
                self.measured_ns.end = self.phase_start_ns;
            }
            _ => {}
        }
        Ok(())
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.now_ns = self.elapsed_ns();
        self.phase_start_ns = self.now_ns;
    }

    fn server_cpu(&self) -> Result<Option<Duration>> {
        let pids = &self.plan.server_pids;
        (!pids.is_empty()).then(|| cpu::used(pids)).transpose()
    }

    fn send_what_is_due(&mut self, ring: &mut Ring) {
        let now_ns = self.elapsed_ns();
        while let Some((line, due_ns)) = self.pace.as_mut().and_then(|pace| pace.next(now_ns)) {
            // A connection was free, so that only the generator can have been late.
            let lag = Duration::from_nanos(now_ns.saturating_sub(due_ns));
            self.measured.own_lag_max = self.measured.own_lag_max.max(lag);
            self.issue_next(line, due_ns, ring.outbound(line));
        }
    }

    fn on_event(&mut self, line: usize, event: Event<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Opened => {}
            Event::Received(bytes) => self.on_bytes(line, bytes, out),
            Event::Closed(error) => {
                let reason = error.map_or("the server closed a connection".to_owned(), |error| error.to_string());
                self.give_up(line, reason);
            }
        }
    }

    /// A connection is of no more use: what it had in flight is lost.
    fn give_up(&mut self, line: usize, reason: String) {
        let line = &mut self.lines[line];
        if !std::mem::replace(&mut line.is_open, false) {
            return;
        }
        self.measured.faults.broken_connections += 1;
        self.measured.trouble(|| reason);
    }

    fn on_bytes(&mut self, number: usize, bytes: &[u8], out: &mut Vec<u8>) {
        let line = &mut self.lines[number];
        if !line.is_open {
            return;
        }
        if line.partial.is_empty() {
            let consumed = self.consume(number, bytes, out);
            self.lines[number].partial.extend_from_slice(&bytes[consumed..]);
        } else {
            let mut partial = std::mem::take(&mut line.partial);
            partial.extend_from_slice(bytes);
            let consumed = self.consume(number, &partial, out);
            partial.drain(..consumed);
            self.lines[number].partial = partial;
        }
    }

    /// Takes every whole reply; gives how many bytes they were.
    fn consume(&mut self, number: usize, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        let mut consumed = 0;
        loop {
            match self.setup.driver.parse(&bytes[consumed..]) {
                Ok(Some(parsed)) => {
                    consumed += parsed.consumed_bytes;
                    self.on_reply(number, &parsed, out);
                }
                Ok(None) => return consumed,
                Err(error) => {
                    self.give_up(number, error.to_string());
                    return bytes.len();
                }
            }
        }
    }

    fn on_reply(&mut self, number: usize, parsed: &Parsed<'_>, out: &mut Vec<u8>) {
        let pending = match self.lines[number].ledger.settle(parsed.ticket) {
            Ok(pending) => pending,
            Err(fault) => {
                match fault {
                    Fault::Doubled => self.measured.faults.doubled += 1,
                    Fault::Unasked => self.measured.faults.unasked += 1,
                }
                self.measured.trouble(|| format!("a reply was {fault:?}"));
                return;
            }
        };
        let succeeded = self.judge(&pending, &parsed.answer);
        if let (true, Some(version)) = (succeeded, parsed.version) {
            self.judge_version(&pending, version);
        }
        let follow_up = self.book(&pending, succeeded);
        if let Some(second) = follow_up {
            self.issue(number, second, out);
        } else if self.pace.is_some() {
            self.after_reply_in_open_loop(number, out);
        } else {
            self.refill(number, out);
        }
    }

    /// Whether an answer is what its request must get; counts what it is otherwise.
    fn judge(&mut self, pending: &Pending, answer: &Answer<'_>) -> bool {
        let key = pending.operation.key();
        match (pending.is_read, answer) {
            (true, Answer::Document(document)) => match self.setup.documents.check(key, document) {
                Ok(_) => {
                    self.measured.verified += 1;
                    true
                }
                Err(Mismatch::OtherKey) => {
                    self.measured.faults.misordered += 1;
                    self.measured
                        .trouble(|| format!("the document of another key came for {}", Key::new(key).as_str()));
                    false
                }
                Err(Mismatch::Damaged) => {
                    self.measured.faults.damaged += 1;
                    self.measured.trouble(|| format!("what came for {} was never written", Key::new(key).as_str()));
                    false
                }
            },
            (false, Answer::Stored) => {
                if let Operation::Insert(key) = pending.operation {
                    self.setup.source.inserted(key);
                }
                true
            }
            (_, Answer::Missing) => {
                self.measured.refused("not_found");
                self.measured
                    .trouble(|| format!("{} is not there; load the keys with --preload", Key::new(key).as_str()));
                false
            }
            (_, Answer::Refused(code)) => {
                self.measured.refused(code);
                false
            }
            (true, Answer::Stored) | (false, Answer::Document(_)) => {
                self.measured.faults.misordered += 1;
                self.measured.trouble(|| "a read was answered like a write, or a write like a read".to_owned());
                false
            }
        }
    }

    fn judge_version(&mut self, pending: &Pending, version: u64) {
        let known = pending.version_known;
        if !self.versions.admits(pending.operation, pending.is_read, known, version) {
            self.measured.faults.stale += 1;
            let key = Key::new(pending.operation.key());
            self.measured.trouble(|| format!("version {version} of {} came after {known} was known", key.as_str()));
        }
    }

    /// Enters the latency, and gives the second request of a read-modify-write.
    fn book(&mut self, pending: &Pending, succeeded: bool) -> Option<Pending> {
        let is_composite = matches!(pending.operation, Operation::ReadModifyWrite(_));
        if self.phase == Phase::Measuring {
            self.measured.count(self.now_ns - self.phase_start_ns);
        }
        // What was asked before the measuring began belongs to the warm-up, and a refusal is no fast success.
        if succeeded && self.measured_ns.contains(&pending.operation_start_ns) {
            self.measured.record(Kind::of(pending.is_read), self.now_ns.saturating_sub(pending.start_ns));
            if pending.is_second {
                let latency_ns = self.now_ns.saturating_sub(pending.operation_start_ns);
                self.measured.record(Kind::ReadModifyWrite, latency_ns);
            }
        }
        (is_composite && pending.is_read && succeeded).then_some(Pending {
            is_second: true,
            is_read: false,
            start_ns: self.now_ns,
            ..*pending
        })
    }

    fn after_reply_in_open_loop(&mut self, number: usize, out: &mut Vec<u8>) {
        if self.is_asking()
            && let Some(due_ns) = self.pace.as_mut().and_then(|pace| pace.reply_on(number))
        {
            self.issue_next(number, due_ns, out);
        }
    }

    fn refill(&mut self, number: usize, out: &mut Vec<u8>) {
        while self.phase != Phase::Draining && !self.source_is_dry && self.lines[number].ledger.has_room() {
            if !self.issue_next(number, self.now_ns, out) {
                break;
            }
        }
    }

    fn issue_next(&mut self, number: usize, start_ns: u64, out: &mut Vec<u8>) -> bool {
        let line = &self.lines[number];
        if !line.is_open {
            return false;
        }
        let Some(operation) = self.setup.source.next(line.lane, self.setup.lanes) else {
            self.lines[number].is_dry = true;
            self.source_is_dry = self.lines.iter().all(|line| line.is_dry || !line.is_open);
            return false;
        };
        let is_read = operation.begins_with_a_read();
        let pending =
            Pending { operation, is_second: false, is_read, start_ns, version_known: 0, operation_start_ns: start_ns };
        self.issue(number, pending, out);
        true
    }

    fn issue(&mut self, number: usize, mut pending: Pending, out: &mut Vec<u8>) {
        self.last_issue_ns = self.now_ns;
        let key_number = pending.operation.key();
        pending.version_known = self.versions.known(key_number);
        let key = Key::new(key_number);
        let Some(ticket) = self.lines[number].ledger.issue(pending) else {
            unreachable!("a request is made only when there is room for it");
        };
        let request = if pending.is_read {
            Request::Read { key: key.as_str() }
        } else {
            self.revision += 1;
            self.setup.documents.write(key_number, self.revision, &mut self.document);
            Request::Write { key: key.as_str(), document: &self.document }
        };
        self.setup.driver.write_request(ticket, request, out);
    }

    fn finish(mut self) -> Result<Measured> {
        let lost = self.outstanding() as u64;
        self.measured.faults.lost += lost;
        let partial = self.lines.iter().filter(|line| line.is_open && !line.partial.is_empty()).count() as u64;
        self.measured.faults.unasked += partial;
        if lost + partial > 0 {
            self.measured.trouble(|| format!("{lost} requests were not answered, {partial} replies were cut off"));
        }
        self.charge_what_was_never_sent();
        if self.measured.elapsed.is_zero() {
            self.measured.elapsed = Duration::from_nanos(self.now_ns - self.phase_start_ns);
        }
        Ok(self.measured)
    }

    /// What became due and found no connection with room until the end has waited so long at the least.
    fn charge_what_was_never_sent(&mut self) {
        let Some(pace) = &mut self.pace else { return };
        while let Some(due_ns) = pace.overdue() {
            let is_measured = self.measured_ns.contains(&due_ns);
            if let (true, Some(operation)) = (is_measured, self.setup.source.next(None, self.setup.lanes)) {
                self.measured.never_sent += 1;
                self.measured.record(Kind::of(operation.begins_with_a_read()), self.now_ns.saturating_sub(due_ns));
            }
        }
    }
}

fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
