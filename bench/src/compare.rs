//! `delta-bench compare`: our server and its peers, each with the same core, in alternating rounds.

use crate::arguments::{CompareFlags, WorkloadFlags};
use crate::run::{measure, preload};
use anyhow::{Context, Result, ensure};
use delta_bench::measure::Measured;
use delta_bench::peers::{self, Grounds, Peer};
use delta_bench::report::{Contender, Scenario, page};
use delta_bench::{cpu, output};
use serde_json::json;
use std::path::PathBuf;

/// One question of a comparison.
struct Question {
    /// What it is called on the command line.
    name: &'static str,
    connections: usize,
    pipeline: usize,
    read_percent: u64,
    /// Whether it is put at the fixed rate of `--fixed-rate`.
    is_paced: bool,
    /// Who is asked.
    peers: &'static [&'static str],
}

const WRITERS: &[&str] = &["delta", "redis-always", "redis-everysec", "redis-none", "postgres"];
const READERS: &[&str] = &["delta", "redis-none", "postgres"];
const PACED: &[&str] = &["delta", "delta-unix", "redis-always", "redis-none"];
const WAYS: &[&str] = &["delta", "delta-unix", "delta-http"];

const QUESTIONS: [Question; 10] = [
    question("put-50", 50, 1, 0, false, WRITERS),
    question("put-1", 1, 1, 0, false, WRITERS),
    question("put-50x16", 50, 16, 0, false, WRITERS),
    question("get-50", 50, 1, 100, false, READERS),
    question("get-1", 1, 1, 100, false, READERS),
    question("get-50x16", 50, 16, 100, false, READERS),
    question("get-paced", 50, 1, 100, true, PACED),
    question("put-paced", 50, 1, 0, true, PACED),
    question("ways-get", 64, 1, 100, false, WAYS),
    question("ways-put", 64, 1, 0, false, WAYS),
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
    fn title(&self, flags: &CompareFlags) -> String {
        let what = if self.read_percent == 100 { "GET" } else { "PUT" };
        let connections = match self.connections {
            1 => "1 connection".to_owned(),
            count => format!("{count} connections"),
        };
        let pipeline = if self.pipeline > 1 { format!(", {} pipelined", self.pipeline) } else { String::new() };
        let pace = if self.is_paced { format!(", open loop at {}/s", flags.fixed_rate) } else { String::new() };
        format!("{what}, {connections}{pipeline}{pace}")
    }

    fn workload(&self, flags: &CompareFlags) -> WorkloadFlags {
        WorkloadFlags {
            connections: self.connections,
            pipeline: self.pipeline,
            value_bytes: flags.value_bytes,
            keys: flags.keys,
            distribution: None,
            read_percent: self.read_percent,
            mix: None,
            rate: self.is_paced.then_some(flags.fixed_rate),
            seconds: flags.seconds,
            warmup: flags.warmup,
            seed: 1,
            cpus: None,
        }
    }
}

/// Whether every request of every round was answered as it should be.
pub fn run(flags: &CompareFlags) -> Result<bool> {
    let questions = questions(flags)?;
    let grounds = grounds(flags)?;
    let load_cpus = cpus(&flags.load_cpus, <[usize]>::last)?;
    cpu::pin(&load_cpus).context("choose CPUs with --server-cpus and --load-cpus")?;
    let peers = start_peers(flags, &questions, &grounds)?;
    let mut scenarios = Vec::new();
    for question in &questions {
        let scenario = ask(question, flags, &peers)?;
        if flags.json {
            print_json(question, &scenario);
        } else {
            print_table(&scenario);
        }
        scenarios.push(scenario);
    }
    if let Some(path) = &flags.report {
        let subtitle = format!(
            "documents of {} bytes, {} keys; servers on CPU {:?}, load on CPU {:?}; medians of {} × {} s",
            flags.value_bytes, flags.keys, grounds.cpus, load_cpus, flags.rounds, flags.seconds
        );
        std::fs::write(path, page("DeltaDatabase and its peers", &subtitle, &scenarios))
            .with_context(|| format!("cannot write the report to {}", path.display()))?;
    }
    Ok(scenarios.iter().flat_map(|scenario| &scenario.contenders).all(|contender| contender.troubles == 0))
}

fn questions(flags: &CompareFlags) -> Result<Vec<&'static Question>> {
    let names = || QUESTIONS.iter().map(|question| question.name).collect::<Vec<_>>().join(", ");
    for name in &flags.questions {
        ensure!(QUESTIONS.iter().any(|one| one.name == name), "no question is called '{name}'; take of {}", names());
    }
    ensure!(flags.rounds > 0, "--rounds must be at least 1");
    let is_asked =
        |question: &&Question| flags.questions.is_empty() || flags.questions.contains(&question.name.to_owned());
    Ok(QUESTIONS.iter().filter(is_asked).collect())
}

fn grounds(flags: &CompareFlags) -> Result<Grounds> {
    let beside_this = || Some(std::env::current_exe().ok()?.parent()?.join("deltadb"));
    let delta = flags.server.clone().or_else(beside_this).unwrap_or_else(|| PathBuf::from("deltadb"));
    ensure!(
        delta.is_file(),
        "there is no server at {}; build it with --release, or name it with --server",
        delta.display()
    );
    let parent = flags.directory.clone().unwrap_or_else(std::env::temp_dir);
    const TMPFS: i64 = 0x0102_1994;
    let file_system = rustix::fs::statfs(&parent).with_context(|| format!("cannot look at {}", parent.display()))?;
    ensure!(
        file_system.f_type as i64 != TMPFS,
        "{} is in memory: nothing is durable there; name a directory on a disk with --directory",
        parent.display()
    );
    Ok(Grounds { parent, cpus: cpus(&flags.server_cpus, <[usize]>::first)?, delta })
}

/// The CPUs of a flag, or one of those allowed.
fn cpus(flag: &Option<String>, choose: impl Fn(&[usize]) -> Option<&usize>) -> Result<Vec<usize>> {
    match flag {
        Some(list) => cpu::parse_list(list),
        None => Ok(choose(&cpu::allowed()?).copied().into_iter().collect()),
    }
}

/// Starts everyone who is asked anything, and loads the keys.
fn start_peers(flags: &CompareFlags, questions: &[&Question], grounds: &Grounds) -> Result<Vec<Peer>> {
    let is_asked = |name: &&&str| {
        (flags.peers.is_empty() || flags.peers.iter().any(|wanted| wanted == **name))
            && questions.iter().any(|question| question.peers.contains(*name))
    };
    for name in &flags.peers {
        ensure!(
            peers::NAMES.contains(&name.as_str()),
            "no server is called '{name}'; take of {}",
            peers::NAMES.join(", ")
        );
    }
    let mut started = Vec::new();
    for name in peers::NAMES.iter().filter(is_asked) {
        let peer = peers::start(name, grounds).with_context(|| format!("cannot start {name}"))?;
        let Some(peer) = peer else {
            eprintln!("{name} is not installed and left out");
            continue;
        };
        let mut driver = peer.driver(1);
        driver.install().with_context(|| format!("cannot prepare {name}"))?;
        let workload = WorkloadFlags { connections: 16, pipeline: 16, ..QUESTIONS[0].workload(flags) };
        let loaded = preload(&mut *driver, &workload)?;
        ensure!(loaded.is_clean(), "{}", output::table(&format!("loading {name} failed"), &loaded));
        started.push(peer);
    }
    Ok(started)
}

/// Puts one question to everyone in turn, as often as there are rounds.
fn ask(question: &Question, flags: &CompareFlags, peers: &[Peer]) -> Result<Scenario> {
    let asked: Vec<&Peer> = peers.iter().filter(|peer| question.peers.contains(&peer.name)).collect();
    let mut rounds: Vec<Vec<Measured>> = asked.iter().map(|_| Vec::new()).collect();
    let workload = question.workload(flags);
    for _ in 0..flags.rounds {
        for (peer, rounds) in asked.iter().zip(&mut rounds) {
            let mut driver = peer.driver(question.pipeline);
            let measured = measure(&mut *driver, &workload, &[peer.process.pid()])
                .with_context(|| format!("{} could not be asked", peer.name))?;
            if !measured.is_clean() {
                eprint!("{}", output::table(&format!("{}: {}", peer.name, question.name), &measured));
            }
            rounds.push(measured);
        }
    }
    let name = |peer: &Peer| match peer.is_durable {
        true => peer.name.to_owned(),
        false => format!("{} (not durable)", peer.name),
    };
    let contenders = asked.iter().zip(&rounds).map(|(peer, rounds)| Contender::new(name(peer), rounds)).collect();
    Ok(Scenario { title: question.title(flags), contenders })
}

fn print_table(scenario: &Scenario) {
    println!("{}", scenario.title);
    println!(
        "  {:<30}{:>12}{:>9}{:>9}{:>10}{:>10}{:>10}{:>12}",
        "", "requests/s", "ours is", "spread", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs"
    );
    let own = scenario.contenders.first().map_or(0.0, Contender::rate);
    for (number, contender) in scenario.contenders.iter().enumerate() {
        let ratio = if number == 0 { String::new() } else { format!("{:.2} ×", own / contender.rate().max(1e-9)) };
        let cpu = contender.cpu_us().map_or(String::new(), |cpu_us| format!("{cpu_us:.2}"));
        println!(
            "  {:<30}{:>12}{ratio:>9}{:>7.0} %{:>10.1}{:>10.1}{:>10.1}{cpu:>12}",
            contender.name,
            output::grouped(contender.rate() as u64),
            contender.spread() * 100.0,
            contender.p50_us,
            contender.p99_us,
            contender.p999_us,
        );
    }
    println!();
}

fn print_json(question: &Question, scenario: &Scenario) {
    for contender in &scenario.contenders {
        let line = json!({
            "question": question.name,
            "server": contender.name,
            "requests_per_second": contender.rate(),
            "rounds": contender.rates,
            "p50_us": contender.p50_us,
            "p99_us": contender.p99_us,
            "p99.9_us": contender.p999_us,
            "server_cpu_us_per_request": contender.cpu_us(),
            "server_cpu_us_per_request_rounds": contender.cpu_us,
            "troubles": contender.troubles,
        });
        println!("{line}");
    }
}
