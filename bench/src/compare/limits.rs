//! `delta-bench limits`: the floors of this machine, measured in one run: bare servers under the same generator, and
//! the device and the cipher alone.

use super::questions::{QUESTIONS, Question};
use super::stage::{Stage, number};
use super::{ask, show, start_peers};
use crate::arguments::CompareFlags;
use anyhow::Result;

/// Records of one document and its key, sealed, take about so much more than the document.
const RECORD_OVERHEAD_BYTES: usize = 100;
/// Records that share a write.
const BATCHES: [usize; 4] = [1, 16, 64, 256];
const READ_DEPTHS: [usize; 3] = [1, 16, 50];
const SEALED_BYTES: [usize; 4] = [16, 400, 4096, 65536];

/// Prints them; whether every reply was right.
pub fn run(flags: &CompareFlags) -> Result<bool> {
    let floors: Vec<Question> = QUESTIONS
        .into_iter()
        .filter_map(|question| {
            let peers: &'static [&'static str] = match question.name {
                "ping-50" | "ping-1" | "ping-50x16" => question.peers,
                "get-50" | "get-1" | "get-50x16" | "put-50" | "put-50x16" => &["floor-wire"],
                "get-paced" => &["floor-wire", "floor-unix"],
                "http-get" => &["floor-http"],
                _ => return None,
            };
            Some(Question { peers, ..question })
        })
        .collect();
    let stage = Stage::set(flags)?;
    let peers = start_peers(&stage, &floors.iter().collect::<Vec<_>>())?;
    let mut is_clean = true;
    for question in &floors {
        let answered = ask(question, &stage, &peers)?;
        is_clean &= answered.scenario.contenders.iter().all(|contender| contender.troubles == 0);
        match flags.json {
            true => show::json_lines(&answered),
            false => show::table(&answered.scenario),
        }
    }
    drop(peers);
    loops(&stage)?;
    Ok(is_clean)
}

fn loops(stage: &Stage<'_>) -> Result<()> {
    let seconds = stage.flags.seconds.to_string();
    if !stage.flags.json {
        println!("{:<44}{:>12}{:>10}{:>10}{:>10}{:>10}", "", "a second", "mean µs", "p50 µs", "p99 µs", "CPU µs");
    }
    for records in BATCHES {
        let bytes = (records * (stage.flags.value_bytes + RECORD_OVERHEAD_BYTES)).to_string();
        for two_calls in [false, true] {
            let mut arguments = vec!["commit", "--bytes", &bytes, "--seconds", &seconds];
            arguments.extend(two_calls.then_some("--two-calls"));
            show_line(stage, &format!("{records} records in one"), &arguments, true)?;
        }
    }
    for depth in READ_DEPTHS {
        let depth = depth.to_string();
        let arguments = ["read", "--depth", &depth, "--bytes", "1024", "--seconds", &seconds];
        show_line(stage, &format!("{depth} in flight"), &arguments, true)?;
    }
    for bytes in SEALED_BYTES {
        show_line(stage, "in place", &["seal", "--bytes", &bytes.to_string(), "--seconds", &seconds], false)?;
    }
    Ok(())
}

fn show_line(stage: &Stage<'_>, what: &str, arguments: &[&str], is_on_disk: bool) -> Result<()> {
    let line = stage.limit(arguments, is_on_disk.then_some(&*stage.grounds.parent))?;
    if stage.flags.json {
        println!("{line}");
        return Ok(());
    }
    let text = |name: &str| number(&line, name).map_or(String::new(), |value| format!("{value:.2}"));
    let title = format!(
        "{} of {} bytes, {what}",
        line["limit"].as_str().unwrap_or_default(),
        line["bytes"].as_u64().unwrap_or_default()
    );
    println!(
        "{title:<50}{:>12.0}{:>10}{:>10}{:>10}{:>10}",
        number(&line, "operations_per_second")?,
        text("mean_us"),
        text("p50_us"),
        text("p99_us"),
        text("cpu_us_per_operation")
    );
    Ok(())
}
