//! Probes of our server alone: what it uses when nothing is asked, how its commits compare with a bare loop of the
//! same write, and what maintenance does to reads.

use super::findings::Findings;
use super::questions::workload;
use super::stage::{Stage, median, number};
use crate::arguments::WorkloadFlags;
use anyhow::{Result, ensure};
use delta_bench::cpu;
use delta_bench::measure::Kind;
use delta_bench::peers::{Peer, start_delta};
use std::time::{Duration, Instant};

/// Connections that say nothing while the server is idle.
const IDLE_CONNECTIONS: usize = 50;
/// After its start or a load, a server is left alone this long.
const SETTLE: Duration = Duration::from_secs(2);
/// Time over which an idle server is watched.
const IDLE_WATCH: Duration = Duration::from_secs(5);
/// Connections at which commits are counted. With few the log waits for writes, with many the CPU is the limit; the
/// log's own rate shows between.
const COMMIT_CONNECTIONS: [usize; 4] = [4, 8, 16, 32];
/// Keys stored while maintenance is measured: sealing them anew has to last as long as a round.
const MAINTENANCE_KEYS: u64 = 2_000_000;
const MAINTENANCE_ROUNDS: usize = 5;
/// How long sealing anew may take.
const MAINTENANCE_PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// CPU of a server nobody talks to, with connections that are open.
pub fn idle(stage: &Stage<'_>, findings: &mut Findings) -> Result<()> {
    let peer = start_delta(&stage.grounds, None, &[])?;
    stage.load(&peer, stage.flags.keys)?;
    let connections = peer.driver(1).connect(IDLE_CONNECTIONS)?;
    std::thread::sleep(SETTLE);
    let (before, begun) = (cpu::used_by_threads(peer.process.pid())?, Instant::now());
    std::thread::sleep(IDLE_WATCH);
    let used = cpu::used_by_threads(peer.process.pid())?.saturating_sub(before);
    findings.enter("idle_cpu_percent", used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0);
    findings.enter("idle_connections", connections.len() as f64);
    Ok(())
}

/// Commits a second, and a bare loop of writes as large as its commits were, in turn.
pub fn commits(stage: &Stage<'_>, findings: &mut Findings) -> Result<()> {
    let peer = start_delta(&stage.grounds, None, &[])?;
    stage.load(&peer, stage.flags.keys)?;
    let mut best: Option<Commits> = None;
    for connections in COMMIT_CONNECTIONS {
        let mut rounds = Vec::new();
        for _ in 0..stage.flags.rounds {
            rounds.push(commits_at(stage, &peer, connections)?);
        }
        rounds.sort_by(|one, other| one.ratio().total_cmp(&other.ratio()));
        let middle = rounds.swap_remove(rounds.len() / 2);
        eprintln!(
            "commits at {connections} connections: {:.0}/s of {:.0} bytes, {:.1} µs each; the bare loop {:.0}/s",
            middle.rate, middle.bytes, middle.duration_us, middle.bare_rate
        );
        if best.as_ref().is_none_or(|best| best.ratio() < middle.ratio()) {
            best = Some(middle);
        }
    }
    if let Some(best) = best {
        findings.enter("commit_rate", best.rate);
        findings.enter("commit_bytes", best.bytes);
        findings.enter("commit_duration_us", best.duration_us);
        findings.enter("commit_connections", best.connections as f64);
        findings.enter("bare_commit_rate", best.bare_rate);
    }
    Ok(())
}

struct Commits {
    connections: usize,
    rate: f64,
    bytes: f64,
    duration_us: f64,
    bare_rate: f64,
}

impl Commits {
    fn ratio(&self) -> f64 {
        self.rate / self.bare_rate.max(1e-9)
    }
}

fn commits_at(stage: &Stage<'_>, peer: &Peer, connections: usize) -> Result<Commits> {
    let Some(admin) = &peer.admin else { anyhow::bail!("only our own server tells of its commits") };
    let load = WorkloadFlags { connections, read_percent: 0, warmup: 0.0, ..workload(stage.flags) };
    let before = admin.stats()?;
    let measured = stage.measure_strictly(peer, &load)?;
    let after = admin.stats()?;
    let count = after.growth(&before, "commits")?;
    ensure!(count > 0.0, "writes were answered, but nothing was committed");
    // A frame is written in whole blocks, as the bare loop does.
    let bytes = after.growth(&before, "commit_size_sum_bytes")? / count;
    let duration_us = after.growth(&before, "commit_duration_sum_ns")? / count / 1e3;
    let (bytes_text, seconds) = ((bytes.ceil() as usize).to_string(), stage.flags.seconds.to_string());
    peer.process.pause();
    let bare = stage.limit(&["commit", "--bytes", &bytes_text, "--seconds", &seconds], Some(&stage.grounds.parent));
    peer.process.resume();
    let bare_rate = number(&bare?, "operations_per_second")?;
    Ok(Commits { connections, rate: count / measured.elapsed.as_secs_f64(), bytes, duration_us, bare_rate })
}

/// p99.9 of reads from the cache at half of the maximum, with everything on disk being sealed anew and without.
///
/// A new data key makes a checkpoint due and then sends every segment through compaction, so that both go on for as
/// long as there is data.
pub fn maintenance(stage: &Stage<'_>, findings: &mut Findings) -> Result<()> {
    let peer = start_delta(&stage.grounds, None, &[])?;
    let Some(admin) = &peer.admin else { anyhow::bail!("only our own server can be told to rotate its key") };
    stage.load(&peer, MAINTENANCE_KEYS)?;
    let most = stage.measure_strictly(&peer, &workload(stage.flags))?.requests_per_second();
    let paced = WorkloadFlags { rate: Some(most / 2.0), ..workload(stage.flags) };
    let p999_us = || -> Result<f64> {
        let measured = stage.measure_strictly(&peer, &paced)?;
        Ok(measured.latencies_ns(Kind::Read).value_at_quantile(0.999) as f64 / 1e3)
    };
    let (mut with, mut without, mut lasted, mut rewritten) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..MAINTENANCE_ROUNDS {
        std::thread::sleep(SETTLE);
        without.push(p999_us()?);
        let before = admin.stats()?;
        let begun = Instant::now();
        admin.rotate_key()?;
        with.push(p999_us()?);
        let during = admin.stats()?;
        ensure!(during.growth(&before, "checkpoints")? > 0.0, "no checkpoint was written meanwhile");
        ensure!(during.growth(&before, "compactions")? > 0.0, "nothing was compacted meanwhile");
        rewritten.push(during.growth(&before, "compacted_bytes")? / 1e6);
        while admin.stats()?.total("segments_on_old_keys")? > 0.0 {
            ensure!(begun.elapsed() < MAINTENANCE_PATIENCE, "sealing anew does not come to an end");
            std::thread::sleep(POLL);
        }
        lasted.push(begun.elapsed().as_secs_f64());
    }
    findings.enter("maintenance_rate", most / 2.0);
    findings.enter("maintenance_lasted_s", median(lasted));
    findings.enter("maintenance_rewritten_mb", median(rewritten));
    findings.enter("p999_with_us", median(with));
    findings.enter("p999_without_us", median(without));
    Ok(())
}
