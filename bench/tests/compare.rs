//! A short run of everything: whoever is installed is started, asked, checked and ended. Nothing about speed.

use delta_bench::peers;
use delta_tests::skips::say;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Ours and the bare ones are built with this test; the others are asked where they are installed.
const ALWAYS_THERE: [&str; 9] = [
    "delta",
    "delta-unix",
    "delta-http",
    "delta-two",
    "delta-two-unaware",
    "floor-wire",
    "floor-unix",
    "floor-http",
    "floor-ping",
];
/// A round of half a second has no answer where the disk stalls as long, and two of a second take too long.
const ROUNDS: usize = 1;

#[test]
fn a_comparison_finds_every_reply_right_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let report = directory.path().join("report.html");
    let output = Command::new(env!("CARGO_BIN_EXE_delta-bench"))
        .args(["compare", "--json", "--seconds", "1", "--warmup", "0.05", "--keys", "500"])
        .args(["--rounds", &ROUNDS.to_string()])
        .args(["--fixed-rate", "500", "--server"])
        .arg(deltadb())
        .arg("--directory")
        .arg(directory.path())
        .arg("--report")
        .arg(&report)
        .output()
        .unwrap();
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{errors}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answers: Vec<&Value> = lines.iter().filter(|line| line["server"].is_string()).collect();
    for server in ALWAYS_THERE {
        assert!(answers.iter().any(|line| line["server"] == server), "{server} is missing in {out}");
    }
    let missing: Vec<&str> =
        peers::NAMES.into_iter().filter(|name| answers.iter().all(|line| line["server"] != *name)).collect();
    for server in &missing {
        assert!(errors.contains(&format!("{server} is not installed")), "{server} is missing without a word: {errors}");
    }
    assert!(answers.iter().all(|line| line["troubles"] == 0 && line["requests_per_second"].as_f64() > Some(0.0)));
    assert!(answers.iter().all(|line| line["rounds"].as_array().unwrap().len() == ROUNDS), "{out}");
    let reads = answers.iter().filter(|line| line["question"].as_str().unwrap().contains("get"));
    assert!(reads.clone().count() > 0);
    assert!(reads.clone().all(|line| line["verified"].as_u64() > Some(0)), "documents were read and not looked at");
    for figure in ["idle_cpu_percent", "commit_rate", "bare_commit_rate"] {
        assert!(lines.iter().any(|line| line["figure"] == figure), "{figure} is missing in {out}");
    }
    let marks: Vec<&Value> = lines.iter().filter(|line| line["mark"].is_string()).collect();
    assert!(marks.len() > 20);
    // Those of our own server and the bare ones need nobody else, and have a figure each, unless a busy machine did not
    // keep the pace at which it is taken.
    let of_our_own = ["commits:", "idle server", "Unix socket", "HTTP GET", "two shards"];
    let has_figure = |start: &&str| {
        let mut own = marks.iter().filter(|mark| mark["mark"].as_str().unwrap().starts_with(start)).peekable();
        let is_too_slow =
            |mark: &Value| mark["detail"].as_str().is_some_and(|detail| detail.ends_with("that were due"));
        own.peek().is_some() && own.all(|mark| mark["figure"].is_f64() || is_too_slow(mark))
    };
    assert!(of_our_own.iter().all(has_figure), "{marks:?}");
    assert!(std::fs::read_to_string(report).unwrap().contains("</html>"));
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["report.html"]);
    if !missing.is_empty() {
        say(&format!("SKIPPED in the comparison: {}, which are not installed", missing.join(", ")));
    }
}

/// Those that wait for their turn are stopped, and an interrupt does not reach them.
#[test]
fn an_interrupted_comparison_leaves_nothing_behind() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut comparison = Command::new(env!("CARGO_BIN_EXE_delta-bench"))
        .args(["compare", "--seconds", "600", "--peers", "delta,floor-wire", "--questions", "get-1"])
        .arg("--server")
        .arg(deltadb())
        .arg("--directory")
        .arg(directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let family = || delta_bench::cpu::family(&[comparison.id()]);
    let is_stopped = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    delta_tests::eventually("one of two servers waits", || family().len() == 3 && family().iter().any(is_stopped));
    let servers: Vec<u32> = family().into_iter().filter(|pid| *pid != comparison.id()).collect();
    let pid = Pid::from_child(&comparison);
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(comparison.wait().unwrap().code(), Some(130));
    let is_there = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Where nobody collects the children of others, they stay as what they were.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    };
    delta_tests::eventually("the servers are gone", || !servers.iter().any(is_there));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_is_said_with_the_remedy() {
    for (arguments, expected) in [
        (&["run", "--mix", "E"][..], "take A, B, C, D or F"),
        (&["run", "--value-bytes", "10"], "take at least"),
        (&["run", "--address", "/nowhere/at/all"], "cannot connect to unix:/nowhere/at/all"),
        (&["compare", "--questions", "put-7"], "put-50x16"),
        (&["compare", "--server", "/nowhere"], "name it with --server"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_delta-bench")).args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(expected), "{arguments:?}: {errors}");
    }
}

/// `$DELTADB_BIN`, or the binary built beside this test.
fn deltadb() -> PathBuf {
    if let Some(path) = std::env::var_os("DELTADB_BIN") {
        return path.into();
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "deltadb", "--bin", "deltadb"]);
    assert!(cargo.status().unwrap().success(), "building deltadb failed");
    PathBuf::from(env!("CARGO_BIN_EXE_delta-bench")).with_file_name("deltadb")
}
