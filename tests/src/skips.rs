//! What cannot be tested here, said where it is seen.
//!
//! A test runner keeps what passing tests print to itself, and a test that was not done has passed. So a skip goes to
//! the process's own stderr, past the runner, and where everything is required it is a failure.

use std::io::Write;

/// The variable that makes every skip a failure.
pub const REQUIRE: &str = "DELTA_TESTS_REQUIRE";

/// Says that the calling test, or the part of it that the reason names, is not done here, and why.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let is_required = std::env::var_os(REQUIRE).is_some_and(|value| value != "0" && !value.is_empty());
    assert!(!is_required, "{REQUIRE} is set, and this cannot be done here: {reason}");
    say(&format!("SKIPPED {}: {reason}", thread.name().unwrap_or("a test")));
}

/// Says something past the runner that is no failure wherever it is.
pub fn say(words: &str) {
    // `eprintln!` is what the runner keeps; this is not. One write, so that lines of several tests stay whole.
    let _ = std::io::stderr().lock().write_all(format!("{words}\n").as_bytes());
}
