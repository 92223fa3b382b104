//! Acknowledged means durable: restarts, crashes under load, drains.

use delta_tests::load::{self, Load};
use delta_tests::{TestServer, http};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;

fn start(directory: &Path, shards: Option<usize>) -> TestServer {
    let builder = TestServer::builder().data_dir(directory);
    match shards {
        Some(count) => builder.shards(count).start(),
        None => builder.start(),
    }
}

#[test]
fn documents_versions_and_templates_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path(), Some(2));
    let mut client = server.http();
    client.put("/schema/s", r#"{"type":"object"}"#);
    let tag = client.put("/entity/s/k", r#"{"n": 1}"#).expect(201).header("etag").unwrap().to_owned();
    client.put("/entity/s/gone", "{}").expect(201);
    client.delete("/entity/s/gone").expect(200);
    server.stop_cleanly();
    let server = start(directory.path(), None);
    let mut client = server.http();
    let read = client.get("/entity/s/k").expect(200);
    assert_eq!((read.text().as_str(), read.header("etag")), (r#"{"n": 1}"#, Some(tag.as_str())));
    client.get("/entity/s/gone").expect_problem(404);
    client.put("/entity/s/k", "[]").expect_problem(422);
    let newer = client.put("/entity/s/k", "{}").expect(200).header("etag").unwrap().to_owned();
    let number = |tag: &str| tag.trim_matches('"').parse::<u64>().unwrap();
    assert!(number(&newer) > number(&tag));
}

#[test]
fn another_shard_count_keeps_every_document_and_versions_still_rise() {
    let directory = tempfile::tempdir().unwrap();
    let mut highest = 0;
    let number = |tag: &str| tag.trim_matches('"').parse::<u64>().unwrap();
    for (round, shards) in [1, 4, 3, 1].into_iter().enumerate() {
        let server = start(directory.path(), Some(shards));
        let mut client = server.http();
        for earlier in 0..round {
            for key in 0..100 {
                let read = client.get(&format!("/entity/round{earlier}/k{key}")).expect(200);
                assert_eq!(read.text(), format!("[{earlier},{key}]"));
            }
        }
        let before = highest;
        for key in 0..100 {
            let body = format!("[{round},{key}]");
            let written = client.put(&format!("/entity/round{round}/k{key}"), &body).expect(201);
            let version = number(written.header("etag").unwrap());
            assert!(version > before || round == 0, "a version below those before the change of shards");
            highest = highest.max(version);
        }
        let names = client.get(&format!("/entity/round{round}?prefix=k&limit=1000")).expect(200).json();
        assert_eq!(names["entries"].as_array().unwrap().len(), 100);
        server.stop_cleanly();
    }
    // Without the flag the store keeps the count it has; with another it is rewritten once.
    let server = start(directory.path(), None);
    assert_eq!(std::fs::read_dir(directory.path().join("shards")).unwrap().count(), 1, "one generation is left");
    server.http().get("/entity/round0/k0").expect(200);
}

#[test]
fn every_acknowledged_write_survives_a_kill_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let mut known = BTreeMap::new();
    for round in 0..4 {
        let server = start(directory.path(), Some(2));
        known = load::check(&mut server.http(), &known);
        let load = Load::start(&server, 16, 8, &known);
        load.wait_for(400 + 300 * round);
        server.kill();
        known = load.finish();
    }
    let server = start(directory.path(), None);
    load::check(&mut server.http(), &known);
    assert_eq!(known.len(), 16 * 8);
}

#[test]
fn a_kill_while_the_shard_count_changes_leaves_one_whole_generation() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path(), Some(1));
    let mut client = server.http();
    for key in 0..200 {
        client.put(&format!("/entity/s/k{key}"), &key.to_string()).expect(201);
    }
    server.stop_cleanly();
    for shards in [2, 3, 4] {
        // Killed as soon as it says that it begins; whatever it had done, the next start finds one whole generation.
        let mut child = std::process::Command::new(delta_tests::binary::deltadb())
            .args(["serve", "--rest-addr", "127.0.0.1:0", "--wire-addr", "127.0.0.1:0", "--data-dir"])
            .arg(directory.path())
            .args(["--shards", &shards.to_string()])
            .env("ADMIN_KEY", delta_tests::ADMIN_KEY)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let begun = log.lines().map_while(Result::ok).any(|line| line.contains("changing the shard count"));
        assert!(begun, "the change of the shard count is not announced");
        child.kill().unwrap();
        child.wait().unwrap();
        let server = start(directory.path(), None);
        let mut client = server.http();
        for key in 0..200 {
            assert_eq!(client.get(&format!("/entity/s/k{key}")).expect(200).text(), key.to_string());
        }
        server.stop_cleanly();
    }
}

#[test]
fn a_drain_under_load_ends_with_zero_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path(), Some(2));
    let load = Load::start(&server, 16, 8, &BTreeMap::new());
    load.wait_for(500);
    server.stop_cleanly();
    let known = load.finish();
    let server = start(directory.path(), None);
    load::check(&mut server.http(), &known);
}

#[test]
fn a_drain_answers_what_it_accepted_and_takes_nothing_new() {
    let server = TestServer::builder().shards(2).start();
    let rest = server.rest;
    let mut idle = http::connect(rest).unwrap();
    server.signal(Signal::TERM);
    // An idle connection is closed, and no new one is served.
    let mut rest_of_it = Vec::new();
    std::io::Read::read_to_end(&mut idle, &mut rest_of_it).ok();
    let ended = server.wait();
    assert_eq!(ended.status, 0, "{ended:#?}");
    assert!(std::net::TcpStream::connect(rest).is_err());
}

#[test]
fn sigint_drains_too() {
    let server = TestServer::start();
    server.http().put("/entity/s/k", "1").expect(201);
    server.signal(Signal::INT);
    assert_eq!(server.wait().status, 0);
}

#[test]
fn a_second_signal_ends_at_once_what_a_slow_client_holds_up() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path(), Some(1));
    server.http().put("/entity/s/k", "1").expect(201);
    let mut slow = http::connect(server.rest).unwrap();
    let head = format!(
        "PUT /entity/s/slow HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 100\r\n\r\n[",
        delta_tests::ADMIN_KEY
    );
    slow.write_all(head.as_bytes()).unwrap();
    server.http().get("/livez").expect(200);
    server.signal(Signal::TERM);
    // Two signals of a kind that come together count as one.
    delta_tests::eventually("the drain has begun", || server.stderr().contains("stopping:"));
    server.signal(Signal::TERM);
    assert!(server.ends_within(Duration::from_secs(10)), "a second signal is to end it at once");
    assert_eq!(server.wait().status, 130);
    let server = start(directory.path(), None);
    assert_eq!(server.http().get("/entity/s/k").expect(200).text(), "1");
    server.http().get("/entity/s/slow").expect(404);
}

#[test]
fn a_rotated_key_keeps_everything_readable_after_crash_and_restart() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path(), Some(2));
    let mut client = server.http();
    for round in 0..3 {
        client.put(&format!("/entity/s/k{round}"), &round.to_string()).expect(201);
        server.cli().run(&["rotate-key"]).expect(0);
    }
    client.put("/entity/s/last", "9").expect(201);
    server.kill();
    let server = start(directory.path(), None);
    let mut client = server.http();
    for round in 0..3 {
        assert_eq!(client.get(&format!("/entity/s/k{round}")).expect(200).text(), round.to_string());
    }
    assert_eq!(client.get("/entity/s/last").expect(200).text(), "9");
}

#[test]
fn keys_rotated_under_load_on_several_shards_lose_nothing_to_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut known = BTreeMap::new();
    for round in 0..3 {
        let server = start(directory.path(), Some(3));
        known = load::check(&mut server.http(), &known);
        let load = Load::start(&server, 12, 8, &known);
        let mut admin = server.wire_client();
        let mut key_ids = std::collections::BTreeSet::new();
        for rotation in 1..=4 {
            // Writes go on between the rotations, and while they are under way.
            load.wait_for(rotation * 100);
            assert!(key_ids.insert(admin.rotate_key().expect("a rotation is not refused for load")));
        }
        if round == 1 {
            // Killed in the middle of one: its outcome is unknown, and nothing else.
            let rotating = std::thread::spawn(move || drop(admin.rotate_key()));
            server.kill();
            rotating.join().unwrap();
        } else {
            load.wait_for(600);
            server.kill();
        }
        known = load.finish();
    }
    let server = start(directory.path(), None);
    load::check(&mut server.http(), &known);
    assert_eq!(known.len(), 12 * 8);
    server.stop_cleanly();
}
