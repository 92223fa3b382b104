//! Disks that fail under load, on a real file system: what was acknowledged stays readable, what fails is said, and
//! what can heal does.

use delta_tests::history::History;
use delta_tests::power::{self, Faults, PoweredDisk, Survivors};
use delta_tests::recorded_crowd::{self as crowd, Crowd, Entities};
use delta_tests::{TestServer, eventually, filler};
use std::path::Path;
use std::sync::Arc;

const NONE: Faults = Faults { reads_fail: false, writes_fail: false, flushes_fail: false, flushes_lie: false };

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
