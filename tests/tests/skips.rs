//! A test that cannot be done here is heard of, and fails where everything is required.

use delta_tests::skips::{REQUIRE, skip};
use std::process::{Command, Output};

/// Set for the run in which the test below has something to skip.
const HERE: &str = "DELTA_TESTS_SKIP_HERE";

#[test]
fn what_skips_when_told_to() {
    if std::env::var_os(HERE).is_some() {
        skip("there is no moon");
    }
}

/// Runs the test above as the runner does, its output kept to itself.
fn run(required: &str) -> Output {
    let mut runner = Command::new(std::env::current_exe().unwrap());
    runner.args(["--exact", "what_skips_when_told_to"]).env(HERE, "1").env(REQUIRE, required);
    runner.output().unwrap()
}

#[test]
fn a_skip_is_seen_past_the_runner_and_fails_where_everything_is_required() {
    let skipped = run("0");
    assert!(skipped.status.success(), "{skipped:?}");
    let seen = String::from_utf8(skipped.stderr).unwrap();
    assert_eq!(seen, "SKIPPED what_skips_when_told_to: there is no moon\n");
    let refused = run("1");
    assert!(!refused.status.success(), "{refused:?}");
    assert!(String::from_utf8(refused.stdout).unwrap().contains("there is no moon"));
}
