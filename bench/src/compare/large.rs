//! Ten million entities: what one costs in memory, how fast the store opens again, what a cache miss takes, and
//! whether rates stay what they are with ten thousand.

use super::findings::Findings;
use super::questions::workload;
use super::stage::{Stage, median, number};
use crate::arguments::WorkloadFlags;
use crate::run::read_every_key;
use anyhow::{Context, Result, ensure};
use delta_bench::document::KEY_BYTES;
use delta_bench::peers::{Admin, Peer, start_delta};
use rustix::process::Signal;

/// Small beside the documents, so that nearly every read is a miss.
const SMALL_CACHE: &[&str] = &["--cache-bytes", "64MiB"];
/// Size of the file that bare reads go to: as random as those of the store.
const READ_FILE_BYTES: u64 = 4 << 30;

/// All of it, on one store.
pub fn ten_million(stage: &Stage<'_>, findings: &mut Findings) -> Result<()> {
    let keys = stage.flags.large_keys;
    let peer = start_delta(&stage.grounds, None, SMALL_CACHE)?;
    memory(stage, &peer, keys, findings)?;
    misses(stage, &peer, keys, findings)?;
    let peer = reopening(stage, peer, findings)?;
    cached_rates(stage, peer, keys, findings)
}

fn admin(peer: &Peer) -> Result<&Admin> {
    peer.admin.as_ref().context("only our own server tells its figures")
}

fn memory(stage: &Stage<'_>, peer: &Peer, keys: u64, findings: &mut Findings) -> Result<()> {
    let empty = admin(peer)?.stats()?;
    stage.load(peer, keys)?;
    let full = admin(peer)?.stats()?;
    ensure!(full.total("entities")? == keys as f64, "the server does not hold what was written");
    let grown = full.resident_bytes()? - empty.resident_bytes()? - full.growth(&empty, "cache_bytes")?;
    findings.enter("entities", keys as f64);
    findings.enter("memory_bytes_per_entity", grown / keys as f64 - KEY_BYTES as f64);
    findings.enter("index_bytes_per_entity", full.total("index_bytes")? / keys as f64 - KEY_BYTES as f64);
    Ok(())
}

fn misses(stage: &Stage<'_>, peer: &Peer, keys: u64, findings: &mut Findings) -> Result<()> {
    let admin = admin(peer)?;
    let over_all = WorkloadFlags { keys, ..workload(stage.flags) };
    let hot = workload(stage.flags);
    let directory = tempfile::Builder::new().prefix("delta-bench-").tempdir_in(&stage.grounds.parent)?;
    let seconds = stage.flags.seconds.to_string();
    let bare = |bytes: f64, depth: usize| {
        let (bytes, size) = ((bytes.ceil() as usize).to_string(), READ_FILE_BYTES.to_string());
        let depth = depth.to_string();
        let arguments = ["read", "--bytes", &bytes, "--file-bytes", &size, "--depth", &depth, "--seconds", &seconds];
        peer.process.pause();
        let line = stage.limit(&[&arguments[..], &["--keep"]].concat(), Some(directory.path()));
        peer.process.resume();
        line
    };
    let (mut rates, mut busy, mut bare_rates, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
    for _ in 0..stage.flags.rounds {
        let before = admin.stats()?;
        let measured = stage.measure_strictly(peer, &over_all)?;
        let after = admin.stats()?;
        let misses = after.growth(&before, "cache_misses")?;
        let reads = after.growth(&before, "storage_reads")?;
        ensure!(misses > 0.0, "nothing was missed");
        findings.enter("miss_device_reads", reads / misses);
        bytes = after.growth(&before, "storage_read_bytes")? / reads;
        rates.push(measured.requests_per_second());
        busy.push(measured.server_cpu.unwrap_or_default().as_secs_f64() / measured.elapsed.as_secs_f64());
        bare_rates.push(number(&bare(bytes, over_all.connections)?, "operations_per_second")?);
    }
    let rate = median(rates);
    findings.enter("miss_rate", rate);
    findings.enter("miss_cpu_busy", median(busy));
    findings.enter("miss_read_bytes", bytes);
    findings.enter("bare_read_rate", median(bare_rates));
    // CPU time is compared at one rate that all can bear. A bare read is one that is made and waited for: like a miss
    // at a pace, it finds the thread asleep when it completes.
    let pace = (rate / 2.0).min(stage.flags.fixed_rate);
    let (mut miss, mut hit, mut read) = (Vec::new(), Vec::new(), Vec::new());
    let cpu_us = |load: &WorkloadFlags| -> Result<f64> {
        let measured = stage.measure_strictly(peer, &WorkloadFlags { rate: Some(pace), ..load.clone() })?;
        measured.server_cpu_us_per_request().context("the server's CPU time was not measured")
    };
    for _ in 0..stage.flags.rounds {
        miss.push(cpu_us(&over_all)?);
        // Once without a pace, so that all of it is in the cache.
        stage.measure_strictly(peer, &hot)?;
        hit.push(cpu_us(&hot)?);
        read.push(number(&bare(bytes, 1)?, "cpu_us_per_operation")?);
    }
    findings.enter("miss_pace", pace);
    findings.enter("miss_cpu_us", median(miss));
    findings.enter("hit_cpu_us", median(hit));
    findings.enter("bare_read_cpu_us", median(read));
    Ok(())
}

/// Ends it kindly, then by force after some writes, and starts it again each time.
fn reopening(stage: &Stage<'_>, peer: Peer, findings: &mut Findings) -> Result<Peer> {
    let directory = peer.process.end(Signal::TERM)?;
    let peer = start_delta(&stage.grounds, Some(directory), SMALL_CACHE)?;
    findings.enter("reopen_clean_s", peer.ready_after.as_secs_f64());
    let writes = WorkloadFlags { read_percent: 0, pipeline: 16, ..workload(stage.flags) };
    stage.measure_strictly(&peer, &writes)?;
    let directory = peer.process.end(Signal::KILL)?;
    let peer = start_delta(&stage.grounds, Some(directory), SMALL_CACHE)?;
    findings.enter("reopen_killed_s", peer.ready_after.as_secs_f64());
    Ok(peer)
}

/// Both stores wholly in the cache, asked in turn.
fn cached_rates(stage: &Stage<'_>, peer: Peer, keys: u64, findings: &mut Findings) -> Result<()> {
    let directory = peer.process.end(Signal::TERM)?;
    // Twice the documents: keys and the cache's own tables come on top of them.
    let cache_bytes = (keys * stage.flags.value_bytes as u64 * 2).max(64 << 20).to_string();
    let large = start_delta(&stage.grounds, Some(directory), &["--cache-bytes", &cache_bytes])?;
    read_every_key(&mut *large.driver(16), &WorkloadFlags { keys, ..workload(stage.flags) })?;
    let small = start_delta(&stage.grounds, None, &[])?;
    stage.load(&small, stage.flags.keys)?;
    let misses_before = admin(&large)?.stats()?.total("cache_misses")?;
    small.process.pause();
    let mut rates = [const { Vec::new() }; 4];
    for _ in 0..stage.flags.rounds {
        for (place, (peer, keys, read_percent)) in
            [(&large, keys, 100), (&small, stage.flags.keys, 100), (&large, keys, 0), (&small, stage.flags.keys, 0)]
                .into_iter()
                .enumerate()
        {
            let other = if std::ptr::eq(peer, &large) { &small } else { &large };
            other.process.pause();
            peer.process.resume();
            let load = WorkloadFlags { keys, read_percent, ..workload(stage.flags) };
            rates[place].push(stage.measure_strictly(peer, &load)?.requests_per_second());
        }
    }
    large.process.resume();
    let missed = admin(&large)?.stats()?.total("cache_misses")? - misses_before;
    findings.enter("cached_misses", missed);
    let [get_large, get_small, put_large, put_small] = rates;
    findings.enter("get_rate_large", median(get_large));
    findings.enter("get_rate_small", median(get_small));
    findings.enter("put_rate_large", median(put_large));
    findings.enter("put_rate_small", median(put_small));
    Ok(())
}
