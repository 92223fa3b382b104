//! What befalls a process: it is stopped and goes on, its wall clock jumps, it runs out of descriptors, its memory is
//! limited. Nothing acknowledged is lost by any of it, and what recovers does so by itself.

use delta_tests::history::History;
use delta_tests::memory_group::MemoryGroup;
use delta_tests::recorded_crowd::{self as crowd, Crowd, Entities};
use delta_tests::wall_clock::WallClock;
use delta_tests::{TestServer, eventually, filler, http, long};
use delta_wire::Condition;
use delta_wire::client::{Client, ClientError, ClientOptions};
use deltadb::limits::{BATCH_BYTES_MAX, BODY_BYTES_DEFAULT, OUTPUT_BYTES_MAX};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn a_server_that_is_stopped_and_goes_on_loses_nothing() {
    let entities = Entities::new(6);
    let history = Arc::new(History::default());
    let server = TestServer::builder().shards(2).start();
    let crowd = Crowd::start(&server, 8, entities, &history, 41);
    for round in 0..long::rounds(3, 10) {
        crowd.wait_for(300);
        // Connected before, so that only the answer can be late.
        let patience = if long::is_asked_for() { Duration::from_secs(12) } else { Duration::from_secs(1) };
        let options = ClientOptions { request_timeout: patience, ..server.wire_options() };
        let mut client = Client::connect(options).unwrap();
        server.suspend();
        let late = client.put("stopped", &format!("k{round}"), b"1", Condition::None);
        assert!(matches!(late, Err(ClientError::OutcomeUnknown { .. })), "a stopped server answered: {late:?}");
        server.signal(Signal::CONT);
    }
    crowd.wait_for(300);
    assert!(!crowd.has_lost_a_client(), "a stop is no reason to end a connection");
    crowd.finish();
    crowd::read_all(&server, entities, &history);
    crowd::judge(&server, entities, &history);
    server.stop_cleanly();
}

#[test]
fn a_wall_clock_that_jumps_either_way_changes_no_order_and_loses_nothing() {
    const YEAR: i64 = 365 * 86_400;
    let entities = Entities::new(6);
    let history = Arc::new(History::default());
    let directory = tempfile::tempdir().unwrap();
    let clock = WallClock::new();
    let start = || {
        let builder = TestServer::builder().data_dir(directory.path()).shards(2);
        clock.given_to(builder.arguments(["--cache-ttl", "10m"])).start()
    };
    let mut server = start();
    let truth = key_created_ms(directory.path());
    for (round, offset) in [10 * YEAR, -20 * YEAR, 0, 3600, -3600].into_iter().enumerate() {
        let crowd = Crowd::start(&server, 8, entities, &history, 60 + round as u64);
        crowd.wait_for(200);
        clock.set(offset);
        crowd.wait_for(200);
        // The schema is judged by file times, which are not the server's.
        let mut http = server.http();
        let template = format!(r#"{{"type":"object","required":["r{round}"]}}"#);
        assert!(http.put("/schema/clock", &template).status < 300);
        http.put("/entity/clock/k", &format!("{{\"r{round}\":1}}")).expect(if round == 0 { 201 } else { 200 });
        http.put("/entity/clock/k", "{}").expect_problem(422);
        http.request("POST", "/admin/keys/rotate", &[], b"").expect(200);
        let moved = key_created_ms(directory.path()) - truth;
        assert!((moved / 1000 - offset).abs() < 600, "the server did not go by this clock: {moved} ms for {offset} s");
        if round % 2 == 0 {
            server.kill();
            crowd.finish();
            server = start();
            history.settle();
        } else {
            crowd.wait_for(100);
            crowd.finish();
        }
    }
    crowd::read_all(&server, entities, &history);
    crowd::judge(&server, entities, &history);
    server.stop_cleanly();
}

/// When the newest data key was made, by the server's clock.
fn key_created_ms(data: &Path) -> i64 {
    let text = std::fs::read(data.join("keyring.json")).unwrap();
    let keyring: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let keys = keyring["keys"].as_array().unwrap().iter();
    let active = keys.filter(|key| key["purpose"] == "data" && key["state"] == "active");
    active.filter_map(|key| key["created_unix_ms"].as_i64()).next().expect("an active key")
}

#[test]
fn clients_cannot_take_the_descriptors_that_the_log_needs() {
    let directory = tempfile::tempdir().unwrap();
    let builder = TestServer::builder().data_dir(directory.path()).shards(2);
    let server = builder.launcher(["sh", "-c", "ulimit -n 400 && exec \"$@\"", "sh"]).start();
    let mut early = server.http();
    early.put("/entity/s/before", "1").expect(201);
    // More than it may have: the kernel completes their handshakes, and those beyond the limit are closed.
    let mut crowd: Vec<TcpStream> = (0..500).map(|_| http::connect(server.rest).unwrap()).collect();
    eventually("connections are refused", || {
        let metrics = early.get("/metrics").text();
        let counts = metrics.lines().filter(|line| line.contains("connections_refused") && !line.starts_with('#'));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() > 0.0
    });
    let request = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let served = |stream: &mut TcpStream| {
        stream.write_all(request).is_ok() && stream.read(&mut [0; 64]).is_ok_and(|count| count > 0)
    };
    let count = crowd.iter_mut().map(served).filter(|served| *served).count();
    assert!((20..200).contains(&count), "{count} of 500 connections are served by 400 descriptors");
    // Enough for the log to go through several segments.
    let body = format!("\"{}\"", filler(700 << 10, 1));
    for n in 0..30 {
        early.put(&format!("/entity/s/k{n}"), &body).expect(201);
    }
    early.get("/readyz").expect(200);
    drop(crowd);
    eventually("others are served again", || {
        server.http().send("GET", "/entity/s/k29", &[], b"").is_ok_and(|response| response.status == 200)
    });
    server.stop_cleanly();
    let server = TestServer::builder().data_dir(directory.path()).start();
    for n in 0..30 {
        assert!(server.http().get(&format!("/entity/s/k{n}")).expect(200).text() == body);
    }
}

#[test]
fn a_server_in_a_small_memory_group_stays_well_within_it() {
    const LIMIT_BYTES: u64 = 192 << 20;
    const CACHE_BYTES: u64 = 16 << 20;
    const SHARDS: u64 = 2;
    const GREEDY: u64 = 4;
    /// Ours, and not what the kernel enforces in any case: code that is not optimised, rings, buffers, index, and what the
    /// allocator holds back of freed documents of a megabyte; the cache; in each shard a commit being written, one being gathered and a third from which segments are compacted;
    /// and for each client that does not read what it may owe and one reply beyond.
    const BOUND_BYTES: u64 = (96 << 20)
        + CACHE_BYTES
        + SHARDS * 3 * BATCH_BYTES_MAX as u64
        + GREEDY * (OUTPUT_BYTES_MAX + BODY_BYTES_DEFAULT) as u64;
    const _: () = assert!(BOUND_BYTES < LIMIT_BYTES * 9 / 10);
    let Some(group) = MemoryGroup::new(LIMIT_BYTES) else { return };
    let entities = Entities::new(6);
    let history = Arc::new(History::default());
    let directory = tempfile::tempdir().unwrap();
    let builder = TestServer::builder().data_dir(directory.path()).shards(SHARDS as usize);
    let builder = builder.arguments(["--cache-bytes", &CACHE_BYTES.to_string()]);
    let server = builder.launcher(group.launcher()).start();
    let crowd = Crowd::start(&server, 8, entities, &history, 71);
    let body = format!("\"{}\"", filler(900 << 10, 1));
    // Three times what the group may hold, over and over the same keys, and reads that fill the cache.
    let documents = long::rounds(3, 30) as u64 * LIMIT_BYTES / body.len() as u64;
    let mut client = server.http();
    for n in 0..documents {
        assert!(client.put(&format!("/entity/s/k{}", n % 200), &body).status < 300);
        if n % 4 == 0 {
            client.get(&format!("/entity/s/k{}", n % 200 / 2)).expect(200);
        }
    }
    // Clients that ask for much and read nothing.
    let request =
        format!("GET /entity/s/k1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", delta_tests::ADMIN_KEY);
    let mut greedy: Vec<TcpStream> = (0..GREEDY).map(|_| http::connect(server.rest).unwrap()).collect();
    for stream in &mut greedy {
        stream.write_all(request.repeat(32).as_bytes()).unwrap();
        stream.read_exact(&mut [0; 1]).unwrap();
    }
    crowd.wait_for(500);
    assert!(client.get("/entity/s/k7").expect(200).text() == body);
    crowd.finish();
    assert_eq!(group.kills(), 0, "the kernel had to kill");
    let peak = server.resident_bytes_peak();
    println!("{} MiB written, {} MiB resident at most", (documents * body.len() as u64) >> 20, peak >> 20);
    assert!(peak < BOUND_BYTES, "{peak} bytes were resident, {BOUND_BYTES} are allowed");
    drop(greedy);
    crowd::read_all(&server, entities, &history);
    crowd::judge(&server, entities, &history);
    server.stop_cleanly();
}
