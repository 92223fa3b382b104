//! What is asked: questions that a load of one kind answers, and probes that need more than one load.

use crate::arguments::{CompareFlags, WorkloadFlags};
use anyhow::{Result, ensure};

/// One load, put to several servers.
pub struct Question {
    /// What it is called on the command line.
    pub name: &'static str,
    pub connections: usize,
    pub pipeline: usize,
    /// 100 asks for reads, 0 for writes.
    pub read_percent: u64,
    /// Whether it is put at the fixed rate of `--fixed-rate`.
    pub is_paced: bool,
    /// Who is asked, the one that others are compared with first.
    pub peers: &'static [&'static str],
}

/// What takes several loads, or none; see `probes` and `large`.
pub struct Probe {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Whether it is left out unless it is named or `--large` is given: it takes minutes and many gigabytes.
    pub is_large: bool,
}

const WRITERS: &[&str] = &["delta", "redis-always", "redis-everysec", "redis-none", "postgres", "etcd", "floor-wire"];
/// etcd's gateway and PostgreSQL take one request of a connection at a time.
const PIPELINED_WRITERS: &[&str] = &["delta", "redis-always", "redis-everysec", "redis-none", "floor-wire"];
const READERS: &[&str] = &["delta", "redis-none", "postgres", "etcd", "floor-wire"];
const PIPELINED_READERS: &[&str] = &["delta", "redis-none", "floor-wire"];
const PACED_READERS: &[&str] = &["delta", "delta-unix", "redis-none", "floor-wire", "floor-unix"];
const PACED_WRITERS: &[&str] = &["delta", "delta-unix", "redis-always", "redis-none"];
const HTTP: &[&str] = &["delta-http", "floor-http"];
const WAYS: &[&str] = &["delta", "delta-unix", "delta-http"];
const SHARDS: &[&str] = &["delta", "delta-two", "delta-two-unaware"];
const PINGS: &[&str] = &["floor-ping", "redis-ping"];

/// All questions.
pub const QUESTIONS: [Question; 16] = [
    question("put-50", 50, 1, 0, false, WRITERS),
    question("put-1", 1, 1, 0, false, WRITERS),
    question("put-50x16", 50, 16, 0, false, PIPELINED_WRITERS),
    question("get-50", 50, 1, 100, false, READERS),
    question("get-1", 1, 1, 100, false, READERS),
    question("get-50x16", 50, 16, 100, false, PIPELINED_READERS),
    question("get-paced", 50, 1, 100, true, PACED_READERS),
    question("put-paced", 50, 1, 0, true, PACED_WRITERS),
    question("http-get", 64, 1, 100, false, HTTP),
    question("ways-get", 64, 1, 100, false, WAYS),
    question("ways-put", 64, 1, 0, false, WAYS),
    question("shards-get", 50, 1, 100, true, SHARDS),
    question("shards-put", 50, 1, 0, true, SHARDS),
    question("ping-50", 50, 1, 0, false, PINGS),
    question("ping-1", 1, 1, 0, false, PINGS),
    question("ping-50x16", 50, 16, 0, false, PINGS),
];

/// All probes.
pub const PROBES: [Probe; 4] = [
    Probe { name: "idle", is_large: false },
    Probe { name: "commits", is_large: false },
    Probe { name: "maintenance", is_large: true },
    Probe { name: "ten-million", is_large: true },
];

const fn question(
    name: &'static str,
    connections: usize,
    pipeline: usize,
    read_percent: u64,
    is_paced: bool,
    peers: &'static [&'static str],
) -> Question {
    Question { name, connections, pipeline, read_percent, is_paced, peers }
}

impl Question {
    /// In words.
    pub fn title(&self, flags: &CompareFlags) -> String {
        let what = match (self.name.starts_with("ping"), self.read_percent) {
            (true, _) => "PING",
            (false, 100) => "GET",
            (false, _) => "PUT",
        };
        let connections = match self.connections {
            1 => "1 connection".to_owned(),
            count => format!("{count} connections"),
        };
        let pipeline = if self.pipeline > 1 { format!(", {} pipelined", self.pipeline) } else { String::new() };
        let pace = if self.is_paced { format!(", open loop at {}/s", flags.fixed_rate) } else { String::new() };
        format!("{what}, {connections}{pipeline}{pace}")
    }

    /// As flags of a load.
    pub fn workload(&self, flags: &CompareFlags) -> WorkloadFlags {
        WorkloadFlags {
            connections: self.connections,
            pipeline: self.pipeline,
            read_percent: self.read_percent,
            rate: self.is_paced.then_some(flags.fixed_rate),
            ..workload(flags)
        }
    }
}

/// 50 connections that read.
pub fn workload(flags: &CompareFlags) -> WorkloadFlags {
    WorkloadFlags {
        connections: 50,
        pipeline: 1,
        value_bytes: flags.value_bytes,
        keys: flags.keys,
        distribution: None,
        read_percent: 100,
        mix: None,
        rate: None,
        seconds: flags.seconds,
        warmup: flags.warmup,
        seed: 1,
        cpus: None,
    }
}

/// What the flags choose.
pub fn chosen(flags: &CompareFlags) -> Result<(Vec<&'static Question>, Vec<&'static Probe>)> {
    let names: Vec<&str> = QUESTIONS.iter().map(|one| one.name).chain(PROBES.iter().map(|one| one.name)).collect();
    for name in &flags.questions {
        ensure!(names.contains(&name.as_str()), "no question is called '{name}'; take of {}", names.join(", "));
    }
    let is_named = |name: &str| flags.questions.iter().any(|one| one == name);
    let all = flags.questions.is_empty();
    let questions = QUESTIONS.iter().filter(|one| all || is_named(one.name)).collect();
    let probes =
        PROBES.iter().filter(|one| is_named(one.name) || (one.is_large && flags.large) || (all && !one.is_large));
    Ok((questions, probes.collect()))
}
