//! CPU time of a server and its children, from `/proc`, and the placing of threads on CPUs.

use anyhow::{Context, Result, ensure};
use rustix::param::clock_ticks_per_second;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::time::Duration;

/// CPU time that processes and all their living descendants have used.
pub fn used(pids: &[u32]) -> Result<Duration> {
    let all = processes();
    for pid in pids {
        ensure!(all.iter().any(|(found, _, _)| found == pid), "there is no process {pid}; check --server-pid");
    }
    let family = family_among(&all, pids);
    let ticks: u64 = all.iter().filter(|(pid, _, _)| family.contains(pid)).map(|(_, _, ticks)| ticks).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
}

/// These processes and all their living descendants.
pub fn family(pids: &[u32]) -> Vec<u32> {
    family_among(&processes(), pids)
}

fn family_among(all: &[(u32, u32, u64)], pids: &[u32]) -> Vec<u32> {
    let mut family = pids.to_vec();
    let mut position = 0;
    while position < family.len() {
        let parent = family[position];
        family.extend(all.iter().filter(|(_, its_parent, _)| *its_parent == parent).map(|(pid, _, _)| *pid));
        position += 1;
    }
    family
}

/// CPU time of the living threads of one process, to the nanosecond: what `/proc/PID/stat` counts in ticks of 10 ms is
/// too coarse for a server that does nothing.
pub fn used_by_threads(pid: u32) -> Result<Duration> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("no process {pid}"))?;
    let mut nanoseconds = 0;
    for thread in threads.flatten() {
        // A thread may end between the two looks; what it used is lost, and small.
        let Ok(text) = std::fs::read_to_string(thread.path().join("schedstat")) else { continue };
        let first = text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
        nanoseconds += first.context("the kernel keeps no scheduler statistics")?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Every process: its id, its parent's, and the ticks it used.
fn processes() -> Vec<(u32, u32, u64)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let (parent, ticks) = parse_stat(&std::fs::read_to_string(entry.path().join("stat")).ok()?)?;
            Some((pid, parent, ticks))
        })
        .collect()
}

/// Parent and ticks (user and system) of a line of `/proc/PID/stat`.
fn parse_stat(stat: &str) -> Option<(u32, u64)> {
    // The name in parentheses may hold anything; the fields after its end count from state, the third.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some((field(4)? as u32, field(14)? + field(15)?))
}

/// CPU numbers of a list like `0,2-3`.
pub fn parse_list(list: &str) -> Result<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().with_context(|| format!("'{list}' is no list of CPUs"));
        cpus.extend(number(first)?..=number(last)?);
    }
    ensure!(!cpus.is_empty() && cpus.iter().all(|cpu| *cpu < CpuSet::MAX_CPU), "'{list}' names no CPU");
    Ok(cpus)
}

/// CPUs the calling thread may run on.
pub fn allowed() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// CPUs this process may run on: those of its first thread when first asked, before any thread was placed.
pub fn allowed_at_start() -> Vec<usize> {
    static ALLOWED: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
    ALLOWED.get_or_init(|| allowed().unwrap_or_default()).clone()
}

/// Keeps the calling thread on these CPUs.
pub fn pin(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on the CPUs {cpus:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let stat = "12 (a) R 9 (b) S 7 1 1 0 -1 4194304 1 2 3 4 250 50 9 9 20 0 1 0 100";
        assert_eq!(parse_stat(stat), Some((7, 300)));
        assert_eq!(parse_stat("12 (a"), None);
    }

    #[test]
    fn lists_name_cpus_and_ranges() {
        assert_eq!(parse_list("0,2-3").unwrap(), [0, 2, 3]);
        assert!(parse_list("").is_err());
        assert!(parse_list("1-").is_err());
        assert!(parse_list("99999").is_err());
    }

    #[test]
    fn this_process_can_be_asked_and_a_missing_one_is_named() {
        used(&[std::process::id()]).unwrap();
        assert!(used(&[u32::MAX]).unwrap_err().to_string().contains("4294967295"));
        assert!(used_by_threads(std::process::id()).unwrap() > Duration::ZERO);
        assert!(used_by_threads(u32::MAX).is_err());
    }
}
