//! Disks that fail under load, on a real file system: what was acknowledged stays readable, what fails is said, and
//! what can heal does.

use delta_tests::history::History;
use delta_tests::power::{self, Device, Faults, PoweredDisk, Survivors};
use delta_tests::raw_wire::RawWire;
use delta_tests::recorded_crowd::{self as crowd, Crowd, Dice, Entities};
use delta_tests::{HttpClient, Response, TestServer, eventually, filler, long};
use delta_wire::encode::Scratch;
use delta_wire::{Condition, ErrorCode, Reply, Request};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};

const NONE: Faults =
    Faults { reads_fail: false, writes_fail: false, flushes_fail: false, flushes_lie: false, writes_hang: false };
/// Writes sent at once to a disk that does not answer: enough for every shard.
const AT_ONCE: u64 = 16;

#[test]
fn after_a_failed_write_no_write_is_acknowledged_and_reads_go_on() {
    power::with_disk(640, |disk| poisoned_by(disk, Faults { writes_fail: true, ..NONE }));
}

#[test]
fn after_a_failed_flush_no_write_is_acknowledged_and_reads_go_on() {
    power::with_disk(640, |disk| poisoned_by(disk, Faults { flushes_fail: true, ..NONE }));
}

/// The fault strikes under load; then only reads are served, until a restart on a healthy disk.
fn poisoned_by(disk: &mut PoweredDisk, faults: Faults) {
    let entities = Entities::new(6);
    let history = Arc::new(History::default());
    let server = start(&disk.path());
    let crowd = Crowd::start(&server, 8, entities, &history, 21);
    crowd.wait_for(400);
    assert_eq!(server.http_anonymous().get("/readyz").status, 200);
    disk.device().set_faults(faults);
    eventually("a shard says that it is not ready", || server.http_anonymous().get("/readyz").status == 503);
    crowd.finish();
    // The fault is over, and yet a shard that met it takes no writes: what it sent to the disk is not known.
    disk.device().set_faults(NONE);
    let refused = (0..64).map(|n| server.http().put(&format!("/entity/s/k{n}"), "1")).find(|put| put.status > 299);
    let refused = refused.expect("a shard whose disk failed takes writes").expect_problem(503);
    let detail = refused.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("restart"), "the remedy is not named: {detail}");
    crowd::read_all(&server, entities, &history);
    server.http_anonymous().get("/livez").expect(200);
    server.kill();
    disk.reboot(Survivors::None);
    let server = start(&disk.path());
    history.settle();
    crowd::read_all(&server, entities, &history);
    server.http_anonymous().get("/readyz").expect(200);
    crowd::judge(&server, entities, &history);
    server.stop_cleanly();
}

#[test]
fn a_disk_that_does_not_answer_leaves_writes_unknown_and_reads_served_until_it_does() {
    power::with_disk(640, |disk| {
        let server = start(&disk.path());
        let mut wire = RawWire::welcomed(server.wire);
        for n in 0..AT_ONCE {
            server.http().put(&format!("/entity/s/old{n}"), "1").expect(201);
        }
        // What the file system has to write of the server's own files hangs as well, and with it whoever changes them.
        for name in ["keyring.json", "store.json"] {
            let path = disk.path().join("data").join(name);
            let mode = fs::metadata(&path).unwrap().permissions();
            fs::set_permissions(&path, mode).unwrap();
        }
        let hang = Hang::begin(disk.device());
        let mut http = std::thread::scope(|scope| {
            let over_http = write_over_both(scope, &server, &mut wire);
            all_unknown(&mut wire, over_http)
        });
        // Both connections serve on what needs no disk, and say so of what does.
        http.get("/entity/s/old1").expect(200);
        wire.send(&put_frame(AT_ONCE, "w0"));
        match wire.receive() {
            Some((AT_ONCE, Reply::Error(error))) => assert_eq!(error.code, ErrorCode::Unavailable, "{error}"),
            other => panic!("a write on such a disk is refused: {other:?}"),
        }
        eventually("a shard says that it is not ready", || {
            let ready = server.http_anonymous().get("/readyz");
            ready.status == 503 && ready.text().contains("has not answered")
        });
        drop(hang);
        eventually("the server is ready again", || server.http_anonymous().get("/readyz").status == 200);
        // What began has landed; nobody is told a second time.
        for n in 0..AT_ONCE {
            assert_eq!(http.get(&format!("/entity/s/w{n}")).expect(200).text(), n.to_string());
            assert_eq!(http.get(&format!("/entity/s/h{n}")).expect(200).text(), n.to_string());
        }
        wire.send(&put_frame(AT_ONCE + 1, "w0"));
        assert!(matches!(wire.receive(), Some((id, Reply::Written(_))) if id == AT_ONCE + 1));
        server.stop_cleanly();
    });
}

#[test]
fn a_stop_on_a_disk_that_does_not_answer_tells_every_writer_and_ends() {
    power::with_disk(640, |disk| {
        let server = start(&disk.path());
        let mut wire = RawWire::welcomed(server.wire);
        for n in 0..AT_ONCE {
            server.http().put(&format!("/entity/s/old{n}"), "1").expect(201);
        }
        let hang = Hang::begin(disk.device());
        std::thread::scope(|scope| {
            let over_http = write_over_both(scope, &server, &mut wire);
            eventually("every write waits for the disk", || waiting_writes(&server) == 2 * AT_ONCE);
            server.signal(Signal::TERM);
            all_unknown(&mut wire, over_http);
        });
        assert!(wire.is_closed(), "after the replies the connection ends");
        eventually("the server says how it ends", || server.stderr().contains("did not seal its log"));
        // A process ends only with what it asked of the kernel.
        drop(hang);
        let ended = server.wait();
        assert_eq!(ended.status, 1, "{ended:#?}");
        disk.reboot(Survivors::None);
        let server = start(&disk.path());
        for n in 0..AT_ONCE {
            server.http().get(&format!("/entity/s/old{n}")).expect(200);
            for key in [format!("w{n}"), format!("h{n}")] {
                let found = server.http().get(&format!("/entity/s/{key}"));
                assert!(found.status == 404 || found.text() == n.to_string(), "{key}: {}", found.text());
            }
        }
        server.stop_cleanly();
    });
}

#[test]
fn a_stop_waits_for_a_slow_disk_and_acknowledges_what_it_accepted() {
    power::with_disk(640, |disk| {
        let server = start(&disk.path());
        let mut wire = RawWire::welcomed(server.wire);
        server.http().put("/entity/s/old", "1").expect(201);
        let hang = Hang::begin(disk.device());
        std::thread::scope(|scope| {
            let over_http = write_over_both(scope, &server, &mut wire);
            eventually("every write waits for the disk", || waiting_writes(&server) == 2 * AT_ONCE);
            server.signal(Signal::TERM);
            let is_closed = |address| TcpStream::connect(address).is_err();
            eventually("every shard has begun to stop", || is_closed(server.rest) && is_closed(server.wire));
            drop(hang);
            for _ in 0..AT_ONCE {
                assert!(matches!(wire.receive(), Some((_, Reply::Written(_)))));
            }
            assert!(wire.is_closed());
            for writer in over_http {
                writer.join().unwrap().1.expect(201);
            }
        });
        let ended = server.wait();
        assert_eq!(ended.status, 0, "{ended:#?}");
        let server = start(&disk.path());
        for n in 0..AT_ONCE {
            for key in [format!("w{n}"), format!("h{n}")] {
                assert_eq!(server.http().get(&format!("/entity/s/{key}")).expect(200).text(), n.to_string());
            }
        }
        server.stop_cleanly();
    });
}

/// A disk that does not answer, until this is dropped; before the server, whose process cannot end otherwise.
struct Hang<'disk>(&'disk Device);

impl<'disk> Hang<'disk> {
    fn begin(device: &'disk Device) -> Self {
        device.set_faults(Faults { writes_hang: true, ..NONE });
        Self(device)
    }
}

impl Drop for Hang<'_> {
    fn drop(&mut self) {
        self.0.set_faults(NONE);
    }
}

type HttpWrite<'scope> = ScopedJoinHandle<'scope, (HttpClient, Response)>;

/// Sends writes over both protocols, all at once.
fn write_over_both<'scope>(
    scope: &'scope Scope<'scope, '_>,
    server: &TestServer,
    wire: &mut RawWire,
) -> Vec<HttpWrite<'scope>> {
    let frames: Vec<u8> = (0..AT_ONCE).flat_map(|n| put_frame(n, &format!("w{n}"))).collect();
    wire.send(&frames);
    let write = |n: u64| {
        let mut client = server.http().on_one_connection();
        scope.spawn(move || {
            let response = client.put(&format!("/entity/s/h{n}"), &n.to_string());
            (client, response)
        })
    };
    (0..AT_ONCE).map(write).collect()
}

/// Each is told that its outcome is unknown, once. Returns one of the HTTP connections.
fn all_unknown(wire: &mut RawWire, over_http: Vec<HttpWrite<'_>>) -> HttpClient {
    let mut told = BTreeSet::new();
    for _ in 0..AT_ONCE {
        match wire.receive() {
            Some((id, Reply::Error(error))) => {
                assert_eq!(error.code, ErrorCode::OutcomeUnknown, "{error}");
                assert!(told.insert(id), "request {id} was answered twice");
            }
            other => panic!("no disk has confirmed this: {other:?}"),
        }
    }
    let ask = |writer: HttpWrite<'_>| {
        let (client, response) = writer.join().unwrap();
        let problem = response.expect_problem(503);
        assert_eq!(problem.json()["error"], "outcome_unknown", "{}", problem.text());
        client
    };
    over_http.into_iter().map(ask).last().expect("there are some")
}

fn put_frame(id: u64, key: &str) -> Vec<u8> {
    let (document, mut frame) = (id.to_string(), Vec::new());
    let put = Request::Put { schema: "s", key, document: document.as_bytes(), condition: Condition::None };
    Scratch::new().request(&mut frame, id, &put);
    frame
}

/// Writes that wait for commits, of all shards.
fn waiting_writes(server: &TestServer) -> u64 {
    let text = server.http_anonymous().get("/metrics").expect(200).text();
    let gauges = text.lines().filter(|line| line.starts_with("deltadb_writes_waiting"));
    gauges.map(|line| line.split_whitespace().last().unwrap().parse::<f64>().unwrap() as u64).sum()
}

#[test]
fn reads_that_fail_are_called_so_and_succeed_when_the_disk_does() {
    power::with_disk(640, |disk| {
        let builder = TestServer::builder().data_dir(disk.path().join("data")).shards(2);
        // Nothing is kept in memory: every read goes to the disk.
        let server = builder.arguments(["--cache-size", "0"]).start();
        let mut http = server.http();
        for n in 0..20 {
            http.put(&format!("/entity/s/k{n}"), &n.to_string()).expect(201);
        }
        disk.device().set_faults(Faults { reads_fail: true, ..NONE });
        for n in 0..20 {
            let failed = http.get(&format!("/entity/s/k{n}")).expect_problem(503);
            assert_eq!(failed.json()["error"], "unavailable");
        }
        assert_eq!(http.get("/entity/s/none").status, 404, "what is not there takes no disk");
        disk.device().set_faults(NONE);
        for n in 0..20 {
            assert_eq!(http.get(&format!("/entity/s/k{n}")).expect(200).text(), n.to_string());
        }
        http.put("/entity/s/k0", "7").expect(200);
        server.stop_cleanly();
    });
}

/// The files of a store's log.
fn segments(data: &Path) -> Vec<PathBuf> {
    let mut folders = vec![data.join("shards")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "seg" => found.push(path),
                _ => {}
            }
        }
    }
    found
}

/// Cuts ranges into blocks and keeps one in so many, as dice have it.
fn some_blocks(ranges: &[Range<u64>], one_in: u64, dice: &mut Dice) -> Vec<Range<u64>> {
    const BLOCK_BYTES: usize = 4096;
    let blocks = ranges.iter().flat_map(|range| range.clone().step_by(BLOCK_BYTES));
    blocks.filter(|_| dice.below(one_in) == 0).map(|at| at..at + BLOCK_BYTES as u64).collect()
}

#[test]
fn reads_that_fail_here_and_there_under_load_cost_nothing_that_was_acknowledged() {
    power::with_disk(640, |disk| {
        let entities = Entities::new(6);
        let history = Arc::new(History::default());
        let mut dice = Dice::new(9, 0);
        let builder = TestServer::builder().data_dir(disk.path().join("data")).shards(2);
        // Nothing is kept in memory: every read goes to the disk.
        let server = builder.arguments(["--cache-size", "0"]).start();
        let crowd = Crowd::start(&server, 8, entities, &history, 51);
        for round in 0..long::rounds(5, 50) {
            crowd.wait_for(300);
            let all: Vec<Range<u64>> =
                segments(&disk.path().join("data")).iter().flat_map(|file| disk.extents(file)).collect();
            let failing = match round % 3 {
                0 => some_blocks(&all, 3, &mut dice),
                // Whole pieces of some files.
                1 => all.into_iter().step_by(2).collect(),
                _ => all,
            };
            let before = disk.device().counts().failed;
            disk.device().set_unreadable(failing);
            eventually("reads fail", || disk.device().counts().failed >= before + 100);
            // Those that write are served all the while.
            let mut http = server.http();
            for n in 0..20 {
                assert!(http.put(&format!("/entity/s/k{n}"), &round.to_string()).status < 300, "a write is refused");
            }
            disk.device().set_unreadable(Vec::new());
            for n in 0..20 {
                assert_eq!(http.get(&format!("/entity/s/k{n}")).expect(200).text(), round.to_string());
            }
        }
        crowd.wait_for(300);
        assert!(!crowd.has_lost_a_client(), "a failed read is no reason to end a connection");
        crowd.finish();
        server.http_anonymous().get("/readyz").expect(200);
        crowd::read_all(&server, entities, &history);
        server.kill();
        // A start that cannot read the log is none, and takes nothing for lost.
        let all = segments(&disk.path().join("data")).iter().flat_map(|file| disk.extents(file)).collect();
        disk.device().set_unreadable(all);
        let refused = TestServer::builder().data_dir(disk.path().join("data")).try_start();
        assert!(refused.is_err(), "a log that cannot be read was opened");
        disk.device().set_unreadable(Vec::new());
        let server = start(&disk.path());
        history.settle();
        crowd::read_all(&server, entities, &history);
        crowd::judge(&server, entities, &history);
        server.stop_cleanly();
    });
}

#[test]
fn a_compaction_whose_reads_fail_under_load_loses_nothing_and_is_done_after_a_restart() {
    power::with_disk(640, |disk| {
        // Nothing of the old segments can be read, or some blocks of them: then part of what is in one has moved already.
        for (round, one_in) in [1, 40].into_iter().enumerate() {
            let entities = Entities::new(6);
            let history = Arc::new(History::default());
            let data = disk.path().join(format!("data-{round}"));
            let start = || TestServer::builder().data_dir(&data).shards(2).start();
            let server = start();
            let document = |n: u64| format!("\"{}\"", filler(100 << 10, n));
            // Several finished segments, in each of which much is alive.
            for n in 0..300 {
                server.http().put(&format!("/entity/s/k{}", n % 200), &document(n)).expect(if n < 200 {
                    201
                } else {
                    200
                });
            }
            let crowd = Crowd::start(&server, 6, entities, &history, 61 + round as u64);
            crowd.wait_for(200);
            let all: Vec<Range<u64>> = segments(&data).iter().flat_map(|file| disk.extents(file)).collect();
            disk.device().set_unreadable(some_blocks(&all, one_in, &mut Dice::new(one_in, 1)));
            // A new key has a checkpoint written and every segment under the old one rewritten.
            server.http().request("POST", "/admin/keys/rotate", &[], b"").expect(200);
            eventually("a compaction meets a read that fails", || server.stderr().contains("stays as it is"));
            crowd.wait_for(200);
            disk.device().set_unreadable(Vec::new());
            crowd.wait_for(200);
            crowd.finish();
            let holds_everything = |server: &TestServer| {
                crowd::read_all(server, entities, &history);
                for n in 100..300 {
                    let read = server.http().get(&format!("/entity/s/k{}", n % 200)).expect(200);
                    assert!(read.text() == document(n), "document {n} differs");
                }
            };
            holds_everything(&server);
            server.kill();
            let server = start();
            history.settle();
            holds_everything(&server);
            eventually("no segment is left under the old key", || gauge(&server, "segments_on_old_keys") == 0.0);
            holds_everything(&server);
            crowd::judge(&server, entities, &history);
            server.stop_cleanly();
            std::fs::remove_dir_all(&data).unwrap();
        }
    });
}

/// A figure of all shards together.
fn gauge(server: &TestServer, name: &str) -> f64 {
    let metrics = server.http().get("/metrics").expect(200).text();
    let lines = metrics.lines().filter(|line| line.contains(name) && !line.starts_with('#'));
    let values: Vec<f64> = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    assert!(!values.is_empty(), "there is no figure {name}");
    values.into_iter().sum()
}

#[test]
fn a_disk_that_fills_under_load_refuses_writes_and_takes_them_again_when_it_has_space() {
    power::with_disk(640, |disk| {
        let entities = Entities::new(6);
        let history = Arc::new(History::default());
        let server = start(&disk.path());
        let crowd = Crowd::start(&server, 6, entities, &history, 31);
        crowd.wait_for(300);
        let ballast = disk.path().join("ballast");
        fill(&ballast);
        let mut http = server.http();
        let body = format!("\"{}\"", filler(500 << 10, 3));
        let mut accepted = 0;
        eventually("writes are refused for want of space", || {
            let status = http.put(&format!("/entity/large/k{accepted}"), &body).status;
            accepted += u64::from(status == 201);
            status == 507
        });
        // Small writes may still fit what was prepared, or are refused too: whoever is answered must be right.
        http.get(&format!("/entity/large/k{}", accepted - 1)).expect(200);
        std::fs::remove_file(&ballast).unwrap();
        eventually("writes are taken again", || http.put("/entity/large/after", &body).status < 300);
        crowd.wait_for(300);
        crowd.finish();
        server.kill();
        let server = start(&disk.path());
        history.settle();
        crowd::read_all(&server, entities, &history);
        crowd::judge(&server, entities, &history);
        for n in 0..accepted {
            assert!(server.http().get(&format!("/entity/large/k{n}")).expect(200).text() == body, "document {n}");
        }
        server.stop_cleanly();
    });
}

/// Takes all space there is.
fn fill(path: &Path) {
    let file = std::fs::File::create(path).unwrap();
    let mut at = 0;
    for piece in [32 << 20, 1 << 20, 4096] {
        while rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), at, piece).is_ok() {
            at += piece;
        }
    }
    assert!(at > 0, "there was no space to take");
}

fn start(disk: &Path) -> TestServer {
    TestServer::builder().data_dir(disk.join("data")).shards(2).start()
}
