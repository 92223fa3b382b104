//! `delta-bench compare`: our server and its peers, each with the same core, in alternating rounds.

mod findings;
mod large;
mod limits;
mod marks;
mod probes;
mod questions;
mod show;
mod stage;

pub use limits::run as run_limits;

use crate::arguments::CompareFlags;
use anyhow::{Context, Result, ensure};
use delta_bench::peers::{self, Peer};
use delta_bench::report::{Contender, MarkRow, Scenario, page};
use delta_bench::{cpu, output};
use findings::{Answered, Findings};
use questions::{Question, chosen};
use stage::Stage;

/// Whether every request of every round was answered as it should be.
pub fn run(flags: &CompareFlags) -> Result<bool> {
    let (questions, probes) = chosen(flags)?;
    let stage = Stage::set(flags)?;
    let mut findings = Findings::default();
    let peers = start_peers(&stage, &questions)?;
    for question in &questions {
        let answered = ask(question, &stage, &peers)?;
        match flags.json {
            true => show::json_lines(&answered),
            false => show::table(&answered.scenario),
        }
        findings.answered.push(answered);
    }
    drop(peers);
    for probe in &probes {
        match probe.name {
            "idle" => probes::idle(&stage, &mut findings),
            "commits" => probes::commits(&stage, &mut findings),
            "maintenance" => probes::maintenance(&stage, &mut findings),
            _ => large::ten_million(&stage, &mut findings),
        }
        .with_context(|| format!("the probe '{}' failed", probe.name))?;
    }
    show::figures(&findings, flags.json);
    let rows = marks::judge(&findings, cpu::allowed_at_start().len());
    show::marks(&rows, flags.json);
    write_report(&stage, &findings, &rows)?;
    Ok(findings.answered.iter().flat_map(|one| &one.scenario.contenders).all(|contender| contender.troubles == 0))
}

fn write_report(stage: &Stage<'_>, findings: &Findings, rows: &[MarkRow]) -> Result<()> {
    let flags = stage.flags;
    let Some(path) = &flags.report else { return Ok(()) };
    let subtitle = format!(
        "documents of {} bytes, {} keys; servers on CPU {:?}, load on CPU {:?}; medians of {} × {} s",
        flags.value_bytes, flags.keys, stage.grounds.cpus, stage.load_cpus, flags.rounds, flags.seconds
    );
    let scenarios: Vec<&Scenario> = findings.answered.iter().map(|answered| &answered.scenario).collect();
    std::fs::write(path, page("DeltaDatabase and its peers", &subtitle, rows, &scenarios))
        .with_context(|| format!("cannot write the report to {}", path.display()))
}

/// Starts everyone who is asked anything, loads the keys, and leaves them paused.
fn start_peers(stage: &Stage<'_>, questions: &[&Question]) -> Result<Vec<Peer>> {
    let flags = stage.flags;
    for name in &flags.peers {
        ensure!(
            peers::NAMES.contains(&name.as_str()),
            "no server is called '{name}'; take of {}",
            peers::NAMES.join(", ")
        );
    }
    let is_asked = |name: &&&str| {
        (flags.peers.is_empty() || flags.peers.iter().any(|wanted| wanted == **name))
            && questions.iter().any(|question| question.peers.contains(*name))
    };
    let mut started = Vec::new();
    for name in peers::NAMES.iter().filter(is_asked) {
        let peer = peers::start(name, &stage.grounds).with_context(|| format!("cannot start {name}"))?;
        let Some(peer) = peer else {
            eprintln!("{name} is not installed and left out");
            continue;
        };
        stage.load(&peer, flags.keys)?;
        peer.process.pause();
        started.push(peer);
    }
    Ok(started)
}

/// Puts one question to everyone in turn, as often as there are rounds.
fn ask(question: &Question, stage: &Stage<'_>, peers: &[Peer]) -> Result<Answered> {
    // In the question's order, whose first is the one that others are compared with.
    let find = |name: &&str| peers.iter().find(|peer| peer.name == *name);
    let asked: Vec<&Peer> = question.peers.iter().filter_map(find).collect();
    let mut rounds: Vec<Vec<_>> = asked.iter().map(|_| Vec::new()).collect();
    let workload = question.workload(stage.flags);
    for _ in 0..stage.flags.rounds {
        for (peer, rounds) in asked.iter().zip(&mut rounds) {
            peer.process.resume();
            let measured = stage.measure(peer, &workload);
            peer.process.pause();
            let measured = measured.with_context(|| format!("{} could not be asked", peer.name))?;
            if !measured.is_clean() {
                eprint!("{}", output::table(&format!("{}: {}", peer.name, question.name), &measured));
            }
            rounds.push(measured);
        }
    }
    let is_write = question.read_percent < 100 && !question.name.starts_with("ping");
    let name = |peer: &Peer| match peer.is_durable || !is_write {
        true => peer.name.to_owned(),
        false => format!("{} (not durable)", peer.name),
    };
    let contenders = asked.iter().zip(&rounds).map(|(peer, rounds)| Contender::new(name(peer), rounds)).collect();
    let scenario = Scenario { title: question.title(stage.flags), contenders };
    let servers = asked.iter().map(|peer| peer.name).collect();
    Ok(Answered { question: question.name, offered_rate: workload.rate, servers, scenario })
}
