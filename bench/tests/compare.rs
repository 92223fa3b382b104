//! A short run of everything: whoever is installed is started, asked, checked and ended. Nothing about speed.

use std::path::PathBuf;
use std::process::Command;

#[test]
fn a_comparison_finds_every_reply_right_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let report = directory.path().join("report.html");
    let output = Command::new(env!("CARGO_BIN_EXE_delta-bench"))
        .args(["compare", "--json", "--rounds", "1", "--seconds", "0.2", "--warmup", "0.05", "--keys", "500"])
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
    for server in ["delta", "delta-unix", "delta-http"] {
        assert!(out.contains(&format!("\"server\":\"{server}\"")), "{server} is missing in {out}");
    }
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["troubles"] == 0 && line["requests_per_second"].as_f64() > Some(0.0)));
    assert!(std::fs::read_to_string(report).unwrap().contains("</html>"));
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["report.html"]);
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
