//! README.md tells the truth: its commands run as written, its tables are those of the binary.

use delta_tests::{ServerBuilder, TestServer, binary, readme, server};
use delta_wire::ErrorCode;
use deltadb::config::SETTINGS;
use deltadb::exit::ExitStatus;
use std::path::Path;
use std::process::Command;

/// How README.md starts a server.
const SERVE: &str = "cargo run --release -- serve";
/// The HTTP address that README.md writes; the test's server has a port of its own.
const REST: &str = "127.0.0.1:8080";

#[test]
fn the_commands_run_as_written_and_print_what_is_written() {
    let text = readme::text();
    let blocks = readme::blocks(&text, "sh");
    assert!(blocks.len() >= 2, "README.md has {} blocks of commands", blocks.len());
    let (first, rest) = blocks.split_first().unwrap();
    assert!(first.lines().any(|line| line.trim() == SERVE), "the first block does not start the server: {first}");
    let directory = tempfile::tempdir().unwrap();
    let server = ServerBuilder::default().working_dir(directory.path()).own_key().start();
    for block in rest {
        run_block(block, &server, directory.path());
    }
    server.stop_cleanly();
}

fn run_block(block: &str, server: &TestServer, directory: &Path) {
    let script = block.replace(REST, &server.rest.to_string());
    let tools = directory.join("bin");
    if !tools.exists() {
        std::fs::create_dir(&tools).unwrap();
        std::os::unix::fs::symlink(binary::deltadb(), tools.join("deltadb")).unwrap();
    }
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    server::clean_environment(&mut command);
    command.args(["-euo", "pipefail", "-c", &script]).current_dir(directory);
    let output = command.env("PATH", path).env("DELTA_ADDR", server.wire.to_string()).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{block}\nended with {}; stdout: {stdout}; stderr: {stderr}", output.status);
    for line in block.lines() {
        if let Some((_, expected)) = line.split_once("# prints ") {
            assert!(stdout.contains(expected.trim()), "{line}\nprinted: {stdout}");
        }
    }
}

#[test]
fn the_table_of_exit_statuses_is_the_binarys() {
    let rows = readme::table(&readme::text(), "status");
    let expected: Vec<Vec<String>> =
        ExitStatus::ALL.iter().map(|status| vec![status.number().to_string(), status.meaning().to_owned()]).collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_table_of_http_statuses_names_what_errors_are_answered_with() {
    let rows = readme::table(&readme::text(), "HTTP status");
    let named: Vec<u16> =
        rows.iter().flat_map(|row| row[0].split(", ").map(|status| status.parse().unwrap())).collect();
    // What belongs to conditions that are demanded, to patches and to keys of less than all permissions comes with them.
    let not_yet = [403, 409, 428];
    for code in ErrorCode::ALL {
        let status = code.http_status();
        assert!(named.contains(&status) != not_yet.contains(&status), "{status} {}", code.name());
    }
    assert!(named.iter().all(|status| ErrorCode::ALL.iter().any(|code| code.http_status() == *status)), "{named:?}");
}

#[test]
fn the_table_of_settings_is_the_binarys() {
    let rows = readme::table(&readme::text(), "flag");
    let named: Vec<String> = rows.iter().flat_map(|row| readme::code_words(&row[0])).collect();
    let mut documented: Vec<&str> = named.iter().map(|word| word.trim_start_matches("--")).collect();
    let mut known: Vec<&str> =
        SETTINGS.iter().flat_map(|setting| setting.aliases.iter().copied().chain([setting.name])).collect();
    documented.sort_unstable();
    known.sort_unstable();
    assert_eq!(documented, known);
}

#[test]
fn help_names_every_flag_with_its_default() {
    let output = Command::new(binary::deltadb()).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8_lossy(&output.stdout);
    for setting in SETTINGS {
        assert!(help.contains(&format!("--{}", setting.name)), "{help}");
    }
    assert!(output.status.success() && help.contains("[default: 127.0.0.1:8080]"));
}
