//! Settings do what they say on the running server, whichever way they are given.

use delta_tests::{TestServer, eventually, filler};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The sum over all shards of one figure.
fn figure(server: &TestServer, series: &str) -> u64 {
    let text = server.http_anonymous().get("/metrics").expect(200).text();
    let samples = text.lines().filter(|line| line.starts_with(&format!("{series}{{")));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_flag_counts_over_a_variable_over_the_file_over_the_default() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("deltadb.toml");
    std::fs::write(&file, "rest-max-body-size = \"2KiB\"\n").unwrap();
    let plain = TestServer::builder();
    let with_file = plain.clone().arguments(["--config", file.to_str().unwrap()]);
    let with_variable = with_file.clone().variable("DELTA_REST_MAX_BODY_SIZE", "3KiB");
    let with_flag = with_variable.clone().arguments(["--rest-max-body-size", "4KiB"]);
    for (builder, limit_bytes) in [(plain, 1 << 20), (with_file, 2048), (with_variable, 3072), (with_flag, 4096)] {
        let server = builder.shards(1).start();
        let mut http = server.http();
        let document = |bytes: usize| format!("\"{}\"", filler(bytes - 2, 1));
        http.put("/entity/s/k", &document(limit_bytes)).expect(201);
        http.put("/entity/s/k", &document(limit_bytes + 1)).expect_problem(413);
        assert_eq!(server.wire_client().welcome().limits.document_bytes as usize, limit_bytes);
    }
}

#[test]
fn the_cache_keeps_to_its_bounds() {
    let fill = |flags: &[&str]| {
        let server = TestServer::builder().shards(2).arguments(flags.iter().copied()).start();
        let mut http = server.http();
        for key in 0..64 {
            http.put(&format!("/entity/s/k{key}"), &format!("\"{}\"", filler(1000, key))).expect(201);
        }
        for key in 0..64 {
            assert_eq!(http.get(&format!("/entity/s/k{key}")).expect(200).text(), format!("\"{}\"", filler(1000, key)));
        }
        server
    };
    let server = fill(&["--cache-size", "8"]);
    eventually("evictions are counted", || figure(&server, "deltadb_cache_evictions_total") > 0);
    assert!(figure(&server, "deltadb_cache_entries") <= 8);
    let server = fill(&["--cache-bytes", "32KiB"]);
    eventually("evictions are counted", || figure(&server, "deltadb_cache_evictions_total") > 0);
    assert!(figure(&server, "deltadb_cache_bytes") <= 32 << 10);
    let server = fill(&["--cache-size", "0"]);
    assert_eq!((figure(&server, "deltadb_cache_hits_total"), figure(&server, "deltadb_cache_entries")), (0, 0));
    let server = fill(&["--cache-ttl", "50ms"]);
    let mut http = server.http();
    eventually("documents grow too old", || {
        http.get("/entity/s/k0").expect(200);
        figure(&server, "deltadb_cache_expirations_total") > 0
    });
}

#[test]
fn log_lines_have_the_format_and_level_asked_for() {
    let server = TestServer::builder().arguments(["--log-format", "json"]).start();
    server.signal(rustix::process::Signal::TERM);
    let lines = server.wait().stderr;
    assert!(lines.lines().count() >= 3, "{lines}");
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    let quiet = TestServer::builder().arguments(["--log-level", "error"]).start().stop();
    assert_eq!((quiet.status, quiet.stderr.as_str()), (0, ""));
}

#[test]
fn a_variable_that_is_no_setting_is_warned_of_without_its_value() {
    let server = TestServer::builder().variable("DELTA_ADMIN_KYE", "hunter2").start();
    let log = server.stderr();
    assert!(log.contains("DELTA_ADMIN_KYE") && !log.contains("hunter2"), "{log}");
}

#[test]
fn everything_in_the_data_directory_is_the_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = TestServer::builder().data_dir(&data).shards(2).own_key().start();
    server.http_anonymous().get("/health").expect(200);
    server.stop_cleanly();
    let mut seen = 0;
    check_modes(&data, &mut seen);
    assert!(seen > 8, "{seen} files and directories are too few");
}

fn check_modes(path: &Path, seen: &mut usize) {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o077, 0, "{}", path.display());
    *seen += 1;
    if metadata.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| check_modes(&entry.unwrap().path(), seen));
    }
}
