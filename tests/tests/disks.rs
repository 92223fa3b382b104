//! Full and read-only disks: refused clearly, nothing lost, and healed where that is promised.

use delta_tests::mount::SmallDisk;
use delta_tests::{TestServer, eventually, filler};
use deltadb::exit::ExitStatus;

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_heals_when_space_returns() {
    let Some(disk) = SmallDisk::mount(192) else { return };
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; 96 << 20]).unwrap();
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
