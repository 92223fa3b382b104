//! Damage that nobody has read yet: the running server finds it by itself and says so, and `deltadb check` names it.

use delta_tests::{Cli, TestServer, eventually, filler};
use deltadb::exit::ExitStatus;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A stopped store with documents, and its segments.
fn closed_store(data: &Path, document_bytes: usize) -> Vec<PathBuf> {
    let server = TestServer::builder().data_dir(data).shards(1).start();
    let mut http = server.http();
    for number in 0..50 {
        http.put(&format!("/entity/s/k{number}"), &format!("\"{}\"", filler(document_bytes, number))).expect(201);
    }
    server.stop_cleanly();
    files_of(data, "seg")
}

fn files_of(data: &Path, extension: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(data.join("shards/1/0")).expect("the shard's directory");
    let mut paths: Vec<PathBuf> = names.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths
}

/// Flips one bit; again, and it is as it was.
fn flip(path: &Path, byte: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a file");
    let mut bytes = [0];
    file.read_exact_at(&mut bytes, byte).expect("a byte");
    file.write_all_at(&[bytes[0] ^ 1], byte).expect("a byte that can be written");
    file.sync_all().expect("a file that can be synced");
}

fn check(data: &Path) -> delta_tests::Output {
    Cli::new("none").run(&["check", "--data-dir", data.to_str().expect("a path in UTF-8")])
}

#[test]
fn the_scrub_finds_damage_under_a_running_server_and_readyz_names_it() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let data = scratch.path().join("data");
    // Large enough that a pass takes seconds: the damage is done before it comes there.
    let segments = closed_store(&data, 16 << 10);
    let name = segments[0].display().to_string();
    let padding = fs::metadata(&segments[0]).expect("a segment").len() - 513;
    let start = || TestServer::builder().data_dir(&data).start();
    let damaged_in_time = |server: &TestServer| {
        flip(&segments[0], padding);
        eventually("a pass ends", || metric(server, "deltadb_scrub_passes_total") >= 1);
        metric(server, "deltadb_scrub_damage_total") > 0
    };
    let mut server = start();
    let ready = server.http().get("/readyz").expect(200);
    assert!(!ready.text().contains("alerts"), "{}", ready.text());
    for _ in 0..3 {
        if damaged_in_time(&server) {
            break;
        }
        // The pass was quicker. Damage that is there before a start refuses it.
        server.kill();
        flip(&segments[0], padding);
        server = start();
    }
    assert_eq!(metric(&server, "deltadb_scrub_damage_total"), 1);
    assert!(server.stderr().contains(&name), "{}", server.stderr());
    eventually("the alert names the file", || {
        let ready = server.http().get("/readyz").expect(200).text();
        ready.contains("alerts") && ready.contains(&name)
    });
    server.http().get("/entity/s/k7").expect(200);
    server.http().put("/entity/s/k7", "1").expect(200);
    server.kill();
    let refused = TestServer::builder().data_dir(&data).try_start().err().expect("damage refuses a start");
    assert_eq!(refused.status, i32::from(ExitStatus::StoreDamaged.number()), "{refused:#?}");
}

#[test]
fn a_damaged_keyring_is_written_anew_under_a_running_server_and_readyz_says_so() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let data = scratch.path().join("data");
    let server = TestServer::builder().data_dir(&data).shards(1).start();
    server.http().put("/entity/s/k", "1").expect(201);
    flip(&data.join("keyring.json"), 100);
    eventually("the alert names the file", || {
        let ready = server.http().get("/readyz").expect(200).text();
        ready.contains("alerts") && ready.contains("keyring.json") && ready.contains("written anew")
    });
    assert_eq!(metric(&server, "deltadb_scrub_damage_total"), 1);
    assert!(server.stderr().contains("keyring.json was unsound"), "{}", server.stderr());
    server.kill();
    let server = TestServer::builder().data_dir(&data).start();
    assert_eq!(server.http().get("/entity/s/k").expect(200).text(), "1");
    server.stop_cleanly();
}

fn metric(server: &TestServer, name: &str) -> u64 {
    let text = server.http_anonymous().get("/metrics").expect(200).text();
    let values = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}

#[test]
fn no_scrub_reads_anything_where_it_is_turned_off() {
    let server = TestServer::builder().shards(1).arguments(["--scrub-mib-per-s", "0"]).start();
    server.http().put("/entity/s/k", "1").expect(201);
    eventually("the tail frame is written", || metric(&server, "deltadb_segments_bytes") > 0);
    assert_eq!(metric(&server, "deltadb_scrubbed_bytes_total"), 0);
    server.stop_cleanly();
}

#[test]
fn the_check_names_damage_by_file_and_offset_and_leaves_everything_as_it_is() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let data = scratch.path().join("data");
    let segments = closed_store(&data, 20);
    let sound = check(&data).expect(0);
    assert!(sound.text().starts_with("sound: 1 shards, ") && sound.text().contains("50 documents"), "{sound:#?}");
    let damaged = i32::from(ExitStatus::StoreDamaged.number());
    flip(&segments[0], 4096 + 130);
    let told = check(&data).expect(damaged);
    assert!(told.text().contains(&format!("{} is damaged at offset 4096", segments[0].display())), "{told:#?}");
    assert!(told.text().lines().last().is_some_and(|line| line.starts_with("damaged: ")), "{told:#?}");
    flip(&segments[0], 4096 + 130);
    let manifest = data.join("shards/1/0/MANIFEST");
    flip(&manifest, 150);
    assert!(check(&data).expect(damaged).text().contains(&manifest.display().to_string()));
    flip(&manifest, 150);
    let keyring = data.join("keyring.json");
    flip(&keyring, 200);
    assert!(check(&data).expect(damaged).stderr.contains("keyring.json"));
    flip(&keyring, 200);
    let template = data.join("templates/people.json");
    fs::write(&template, "{\"type\":").expect("a template can be written");
    assert!(check(&data).expect(damaged).text().contains("people.json"));
    fs::remove_file(&template).expect("a template can be removed");
    check(&data).expect(0);
}

#[test]
fn the_check_refuses_what_it_cannot_work_on() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let data = scratch.path().join("data");
    let status = |status: ExitStatus| i32::from(status.number());
    assert!(check(&data).expect(status(ExitStatus::DirectoryUnusable)).stderr.contains("holds no store"));
    assert!(!data.exists(), "a check makes nothing");
    let server = TestServer::builder().data_dir(&data).shards(1).start();
    let in_use = check(&data).expect(status(ExitStatus::DirectoryInUse));
    assert!(in_use.stderr.contains(&server.pid().to_string()), "{in_use:#?}");
    server.stop_cleanly();
    let other = scratch.path().join("other.key");
    fs::write(&other, "ab".repeat(32)).expect("a key file");
    let wrong = Cli::new("none").variable("MASTER_KEY_FILE", other.to_str().expect("a path in UTF-8"));
    wrong.run(&["check", "--data-dir", data.to_str().expect("UTF-8")]).expect(status(ExitStatus::RootKey));
}
