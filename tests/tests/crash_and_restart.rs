//! Acknowledged means durable: restarts, crashes under load, drains.

use delta_tests::load::{self, Load};
use delta_tests::raw_wire::RawWire;
use delta_tests::{HttpClient, TestServer, http};
use delta_wire::client::ListQuery;
use delta_wire::encode::Scratch;
use delta_wire::{Condition, ErrorCode, Reply, Request};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
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
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path(), Some(2));
    let rest = server.rest;
    let mut idle = http::connect(rest).unwrap();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let over_http = (0..8).map(|number| {
        let (mut client, acknowledged) = (server.http().on_one_connection(), acknowledged.clone());
        std::thread::spawn(move || write_over_http(&mut client, number, &acknowledged))
    });
    let over_http: Vec<_> = over_http.collect();
    let over_wire = (0..4).map(|number| {
        let (mut raw, acknowledged) = (RawWire::welcomed(server.wire), acknowledged.clone());
        std::thread::spawn(move || write_pipelined(&mut raw, number, &acknowledged))
    });
    let over_wire: Vec<_> = over_wire.collect();
    delta_tests::eventually("writes are under way", || acknowledged.load(SeqCst) > 2000);
    server.signal(Signal::TERM);
    // An idle connection is closed, and no new one is served.
    let mut rest_of_it = Vec::new();
    std::io::Read::read_to_end(&mut idle, &mut rest_of_it).ok();
    let ended = server.wait();
    assert_eq!(ended.status, 0, "{ended:#?}");
    assert!(std::net::TcpStream::connect(rest).is_err());
    let told: Vec<Told> = over_http.into_iter().chain(over_wire).map(|writer| writer.join().unwrap()).collect();

    // What was carried out was answered, and what was answered as done is there: nothing else is.
    let server = start(directory.path(), None);
    let mut client = server.wire_client();
    let mut present = BTreeSet::new();
    let mut after = None;
    loop {
        let query = ListQuery { schema: "s", after: after.as_deref(), limit: 1000, ..ListQuery::default() };
        let page = client.list(&query).unwrap();
        present.extend(page.entries.into_iter().map(|entry| entry.key));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let done: BTreeSet<String> = told.iter().flat_map(|told| told.done.clone()).collect();
    let silent: usize = told.iter().map(|told| told.sent - told.done.len() - told.refused).sum();
    assert!(done.len() > 2000);
    assert!(silent > 0 || told.iter().any(|told| told.refused > 0), "the stop came when everything was over");
    let lost: Vec<_> = done.difference(&present).collect();
    assert!(lost.is_empty(), "acknowledged, and gone: {lost:?}");
    let untold: Vec<_> = present.difference(&done).collect();
    assert!(untold.is_empty(), "carried out, and never answered so: {untold:?}");
    server.stop_cleanly();
}

/// What one writer sent and was told.
#[derive(Default)]
struct Told {
    sent: usize,
    done: Vec<String>,
    refused: usize,
}

fn write_over_http(client: &mut HttpClient, number: usize, acknowledged: &AtomicU64) -> Told {
    let mut told = Told::default();
    loop {
        let key = format!("h{number}-{}", told.sent);
        told.sent += 1;
        let headers = [("content-type", "application/json")];
        match client.send("PUT", &format!("/entity/s/{key}"), &headers, b"1") {
            Ok(response) if response.status == 201 => told.done.push(key),
            Ok(response) => {
                let problem = response.expect_problem(503).json();
                assert_eq!(problem["error"], "unavailable", "{problem}");
                told.refused += 1;
                return told;
            }
            // The server closed the connection, with or without having read this.
            Err(_) => return told,
        }
        acknowledged.fetch_add(1, SeqCst);
    }
}

/// Keeps some requests under way all the time.
fn write_pipelined(raw: &mut RawWire, number: usize, acknowledged: &AtomicU64) -> Told {
    const AHEAD: usize = 256;
    let (mut told, mut scratch) = (Told::default(), Scratch::new());
    let (mut answered, mut frames) = (0, Vec::new());
    let key = |request: u64| format!("w{number}-{request}");
    loop {
        while told.sent < answered + AHEAD {
            let put =
                Request::Put { schema: "s", key: &key(told.sent as u64), document: b"1", condition: Condition::None };
            scratch.request(&mut frames, told.sent as u64, &put);
            told.sent += 1;
        }
        raw.send(&frames);
        frames.clear();
        for _ in 0..AHEAD / 2 {
            match raw.receive() {
                Some((request, Reply::Written(_))) => told.done.push(key(request)),
                Some((_, Reply::Error(error))) => {
                    assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
                    told.refused += 1;
                }
                Some((_, other)) => panic!("{other:?}"),
                None => return told,
            }
            answered += 1;
            acknowledged.fetch_add(1, SeqCst);
        }
    }
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
