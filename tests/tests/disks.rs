//! Full and read-only disks: refused clearly, nothing lost, and healed where that is promised.

use delta_tests::load::{self, Load};
use delta_tests::mount::SmallDisk;
use delta_tests::skips::skip;
use delta_tests::{Cli, HttpClient, TestServer, eventually, filler};
use deltadb::exit::ExitStatus;
use std::collections::BTreeMap;

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_heals_when_space_returns() {
    let Some(disk) = SmallDisk::mount(192) else { return };
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; 144 << 20]).unwrap();
    let data = disk.path().join("data");
    let server = TestServer::builder().data_dir(&data).shards(1).start();
    let mut http = server.http();
    let document = |n: u64| format!("\"{}\"", filler(256 << 10, n));
    let mut acknowledged = 0;
    let refused = loop {
        let response = http.put(&format!("/entity/s/k{acknowledged}"), &document(acknowledged));
        if response.status != 201 {
            break response;
        }
        acknowledged += 1;
        assert!(acknowledged < 2000, "the disk never fills");
    };
    refused.expect_problem(507);
    assert!(acknowledged > 0);
    for n in 0..acknowledged {
        assert!(http.get(&format!("/entity/s/k{n}")).expect(200).text() == document(n), "document {n} differs");
    }
    http.get("/livez").expect(200);
    std::fs::remove_file(&ballast).unwrap();
    eventually("writes resume when there is space", || http.put("/entity/s/after", "1").status < 300);
    server.stop_cleanly();
    let server = TestServer::builder().data_dir(&data).start();
    let mut http = server.http();
    for n in 0..acknowledged {
        assert!(http.get(&format!("/entity/s/k{n}")).expect(200).text() == document(n), "document {n} differs");
    }
    http.get("/entity/s/after").expect(200);
}

/// Whether a small document is taken; only want of space may refuse it.
fn takes_a_write(http: &mut HttpClient, n: u64) -> bool {
    let response = http.put(&format!("/entity/s/small{n}"), "1");
    if response.status < 300 {
        return true;
    }
    response.expect_problem(507);
    false
}

fn is_ready(http: &mut HttpClient) -> bool {
    http.get("/readyz").status == 200
}

#[test]
fn what_readyz_says_of_a_full_disk_is_what_writers_meet_and_little_room_is_enough_to_go_on() {
    let Some(disk) = SmallDisk::mount(160) else { return };
    // Enough for a start and its first segments, and then nothing: segments have grown, and free space is small.
    let pieces: Vec<_> = (0..5).map(|n| disk.path().join(format!("ballast{n}"))).collect();
    for piece in &pieces {
        std::fs::write(piece, vec![1; 12 << 20]).unwrap();
    }
    let server = TestServer::builder().data_dir(disk.path().join("data")).shards(1).start();
    let (mut http, mut probe) = (server.http(), server.http_anonymous());
    assert!(is_ready(&mut probe));
    let document = format!("\"{}\"", filler(64 << 10, 1));
    for (round, piece) in pieces.iter().enumerate() {
        let mut written = 0;
        while http.put(&format!("/entity/s/round{round}k{written}"), &document).status < 300 {
            written += 1;
            assert!(written < 20_000, "the disk never fills");
        }
        // From the first refusal on nobody is told that writes are served, and every write is refused.
        eventually("readyz says that the disk is full", || !is_ready(&mut probe));
        for n in 0..20 {
            assert!(!takes_a_write(&mut http, n), "a write is taken while readyz says that none are");
            assert!(!is_ready(&mut probe));
        }
        let reason = probe.get("/readyz").expect_problem(503).text();
        assert!(reason.contains("disk is full"), "{reason}");
        http.get("/entity/s/round0k0").expect(200);
        // A fraction of a full-size segment comes free. Nobody writes: it is found by itself.
        std::fs::remove_file(piece).unwrap();
        eventually("readyz says that there is room again", || is_ready(&mut probe));
        assert!(takes_a_write(&mut http, round as u64), "a write is refused while readyz says that none are");
    }
    server.stop_cleanly();
}

#[test]
fn a_document_too_large_for_what_is_left_does_not_keep_others_out() {
    let Some(disk) = SmallDisk::mount(128) else { return };
    let server = TestServer::builder().data_dir(disk.path().join("data")).shards(1);
    let server = server.arguments(["--rest-max-body-size", "64MiB"]).start();
    let mut http = server.http();
    http.put("/entity/s/k", "1").expect(201);
    let free = rustix::fs::statvfs(disk.path()).unwrap();
    let free = (free.f_bavail * free.f_frsize) as usize;
    std::fs::write(disk.path().join("ballast"), vec![1; free - (24 << 20)]).unwrap();
    http.put("/entity/s/large", &format!("\"{}\"", filler(40 << 20, 1))).expect_problem(507);
    eventually("small documents are taken", || takes_a_write(&mut http, 0));
    eventually("readyz agrees", || is_ready(&mut server.http_anonymous()));
    server.stop_cleanly();
}

#[test]
fn a_file_system_without_direct_io_is_warned_of_and_keeps_what_was_acknowledged() {
    let Some(disk) = SmallDisk::mount(400) else { return };
    let data = disk.path().join("data");
    let server = TestServer::builder().data_dir(&data).shards(1).start();
    if !server.stderr().contains("refuses O_DIRECT") {
        skip("a tmpfs of this kernel takes O_DIRECT");
        return;
    }
    server.stop_cleanly();
    let mut known = BTreeMap::new();
    for _ in 0..3 {
        let server = TestServer::builder().data_dir(&data).start();
        let load = Load::start(&server, 4, 8, &known);
        load.wait_for(200);
        server.kill();
        let sent = load.finish();
        let server = TestServer::builder().data_dir(&data).start();
        known = load::check(&mut server.http(), &sent);
        server.stop_cleanly();
        let data = data.to_str().expect("a path in UTF-8");
        let checked = Cli::new("none").run(&["check", "--data-dir", data]).expect(0);
        assert!(checked.text().starts_with("sound: 1 shards"), "{checked:#?}");
    }
}

#[test]
fn a_disk_full_before_the_start_is_refused() {
    let Some(disk) = SmallDisk::mount(2) else { return };
    let ended = TestServer::builder().data_dir(disk.path().join("data")).shards(1).try_start();
    let ended = ended.err().expect("a store cannot be made in 2 MiB");
    assert_eq!(ended.status, i32::from(ExitStatus::DiskFull.number()), "{ended:#?}");
}

#[test]
fn a_read_only_disk_is_refused_by_name() {
    let Some(disk) = SmallDisk::mount(192) else { return };
    let data = disk.path().join("data");
    let server = TestServer::builder().data_dir(&data).shards(1).start();
    server.http().put("/entity/s/k", "1").expect(201);
    server.stop_cleanly();
    disk.make_read_only();
    let ended = TestServer::builder().data_dir(&data).try_start().err().expect("a read-only disk must be refused");
    assert_eq!(ended.status, i32::from(ExitStatus::DirectoryUnusable.number()), "{ended:#?}");
    assert!(ended.stderr.contains(&data.display().to_string()), "{ended:#?}");
}
