//! A start that must not happen is refused with one clear sentence and its own exit status, and changes nothing.

use delta_tests::{ServerBuilder, TestServer, sources};
use deltadb::exit::ExitStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

#[track_caller]
fn refused(builder: ServerBuilder, status: ExitStatus, words: &[&str]) -> String {
    let ended = builder.try_start().err().expect("the start must be refused");
    assert_eq!(ended.status, i32::from(status.number()), "{ended:#?}");
    let sentence = ended.stderr.lines().rfind(|line| line.starts_with("deltadb: ")).unwrap_or_default().to_owned();
    for word in words {
        assert!(sentence.contains(word), "{sentence:?} does not name {word:?}; {ended:#?}");
    }
    sentence
}

fn filled(directory: &Path) {
    let server = TestServer::builder().data_dir(directory).shards(2).start();
    let mut http = server.http();
    for key in 0..50 {
        http.put(&format!("/entity/s/k{key}"), &format!("\"document {key}\"")).expect(201);
    }
    server.stop_cleanly();
}

#[test]
fn a_second_server_on_the_same_directory_is_refused_naming_the_first() {
    let server = TestServer::builder().shards(1).start();
    let pid = server.pid().to_string();
    let directory = server.data_dir().display().to_string();
    let second = TestServer::builder().data_dir(server.data_dir());
    refused(second, ExitStatus::DirectoryInUse, &[&pid, &directory]);
    server.http().put("/entity/s/k", "1").expect(201);
}

#[test]
fn an_address_in_use_is_refused_and_never_shared() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--rest-addr", "--wire-addr"] {
        let other = if flag == "--rest-addr" { "--wire-addr" } else { "--rest-addr" };
        let builder = TestServer::builder().own_addresses().arguments([flag, &address, other, "127.0.0.1:0"]);
        refused(builder, ExitStatus::AddressUnusable, &[&address]);
    }
    let server = TestServer::start();
    let own = server.rest.to_string();
    let builder = TestServer::builder().own_addresses().arguments(["--rest-addr", &own, "--wire-addr", "127.0.0.1:0"]);
    refused(builder, ExitStatus::AddressUnusable, &[&own]);
}

#[test]
fn a_socket_path_that_cannot_be_listened_on_is_refused_before_a_store_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let (data, file) = (directory.path().join("data"), directory.path().join("file"));
    std::fs::write(&file, "not a socket").unwrap();
    let nowhere = directory.path().join("nowhere/socket");
    for (path, reason) in [(&file, "no socket"), (&nowhere, "No such file")] {
        let path = path.to_str().unwrap();
        let builder = TestServer::builder().data_dir(&data).arguments(["--wire-socket", path]);
        refused(builder, ExitStatus::AddressUnusable, &[path, reason, "--wire-socket"]);
        assert!(!data.join("store.json").exists());
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"not a socket");
}

#[test]
fn wrong_settings_are_refused_before_anything_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    for arguments in [&["--shards", "0"][..], &["--cache-bytes", "much"], &["--nonsense"], &["--log-format", "xml"]] {
        let ended = TestServer::builder().data_dir(&data).arguments(arguments.iter().copied()).try_start();
        assert_eq!(ended.err().expect("refused").status, 2, "{arguments:?}");
    }
    let twice = TestServer::builder().data_dir(&data).arguments(["--admin-key", "other"]);
    refused(twice, ExitStatus::Usage, &["--admin-key", "$ADMIN_KEY", "twice"]);
    assert!(!data.exists());
}

#[test]
fn a_missing_root_key_is_refused_and_no_new_one_is_made() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    let key = directory.path().join("master.key");
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let builder = TestServer::builder().data_dir(directory.path());
    refused(builder.clone(), ExitStatus::RootKey, &["--master-key-file"]);
    assert!(!key.exists());
    let other = "0b".repeat(32);
    let sentence = refused(builder.clone().variable("MASTER_KEY", &other), ExitStatus::RootKey, &["MASTER_KEY"]);
    assert!(!sentence.contains(&other));
    refused(builder.clone().variable("MASTER_KEY", "no key"), ExitStatus::RootKey, &["MASTER_KEY"]);
    let elsewhere = directory.path().join("elsewhere.key");
    std::fs::write(&elsewhere, kept).unwrap();
    let server = builder.arguments(["--master-key-file", elsewhere.to_str().unwrap()]).start();
    assert_eq!(server.http().get("/entity/s/k7").expect(200).text(), "\"document 7\"");
}

#[test]
fn a_new_root_key_opens_the_store_and_the_old_one_no_longer_does() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    let new_key = directory.path().join("new.key");
    std::fs::write(&new_key, "5c".repeat(32)).unwrap();
    let rewrap = |directory: &Path| {
        let mut command = Command::new(delta_tests::binary::deltadb());
        delta_tests::server::clean_environment(&mut command);
        command.arg("rewrap").arg("--data-dir").arg(directory).arg("--new-master-key-file").arg(&new_key);
        command.output().unwrap()
    };
    let server = TestServer::builder().data_dir(directory.path()).start();
    assert_eq!(rewrap(directory.path()).status.code(), Some(i32::from(ExitStatus::DirectoryInUse.number())));
    server.stop_cleanly();
    let output = rewrap(directory.path());
    assert!(output.status.success(), "{output:?}");
    let builder = TestServer::builder().data_dir(directory.path());
    refused(builder.clone(), ExitStatus::RootKey, &[]);
    let server = builder.arguments(["--master-key-file", new_key.to_str().unwrap()]).start();
    assert_eq!(server.http().get("/entity/s/k7").expect(200).text(), "\"document 7\"");
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    let path = directory.path().join("store.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let newer = text.replacen("\"format_version\":1", "\"format_version\":99", 1).replacen(
        "\"format_version\": 1",
        "\"format_version\": 99",
        1,
    );
    assert_ne!(newer, text, "store.json names its format version: {text}");
    std::fs::write(&path, newer).unwrap();
    refused(TestServer::builder().data_dir(directory.path()), ExitStatus::StoreForeign, &["store.json", "99"]);
    std::fs::write(&path, text).unwrap();
    TestServer::builder().data_dir(directory.path()).start().stop_cleanly();
}

#[test]
fn files_of_another_store_are_refused() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = "3d".repeat(32);
    for directory in [&one, &other] {
        let server = TestServer::builder().data_dir(directory.path()).shards(2).variable("MASTER_KEY", &key).start();
        server.http().put("/entity/s/k", "1").expect(201);
        server.stop_cleanly();
    }
    for name in ["shards", "keyring.json", "store.json"] {
        let mixed = tempfile::tempdir().unwrap();
        sources::copy_tree(one.path(), mixed.path());
        let (theirs, ours) = (other.path().join(name), mixed.path().join(name));
        if theirs.is_dir() {
            std::fs::remove_dir_all(&ours).unwrap();
            sources::copy_tree(&theirs, &ours);
        } else {
            std::fs::copy(&theirs, &ours).unwrap();
        }
        let builder = TestServer::builder().data_dir(mixed.path()).variable("MASTER_KEY", &key);
        let ended = builder.try_start().err().unwrap_or_else(|| panic!("another store's {name} was taken"));
        let allowed = [ExitStatus::StoreForeign, ExitStatus::StoreDamaged].map(|status| i32::from(status.number()));
        assert!(allowed.contains(&ended.status), "{name}: {ended:#?}");
    }
}

#[test]
fn lost_files_of_a_store_are_refused_and_not_made_anew() {
    let whole = tempfile::tempdir().unwrap();
    filled(whole.path());
    for name in ["store.json", "keyring.json", "shards"] {
        let copy = tempfile::tempdir().unwrap();
        sources::copy_tree(whole.path(), copy.path());
        let lost = copy.path().join(name);
        if lost.is_dir() { std::fs::remove_dir_all(&lost) } else { std::fs::remove_file(&lost) }.unwrap();
        let ended = TestServer::builder().data_dir(copy.path()).try_start().err();
        let ended = ended.unwrap_or_else(|| panic!("a store without {name} was started"));
        assert!((10..20).contains(&ended.status), "{name}: {ended:#?}");
        assert!(!lost.exists(), "{name} was made anew");
    }
}

#[test]
fn after_a_clean_stop_any_flipped_bit_is_found_at_start_or_at_read() {
    let whole = tempfile::tempdir().unwrap();
    filled(whole.path());
    let data = sources::files_below(whole.path());
    let data = data.iter().filter(|path| {
        let inside = path.strip_prefix(whole.path()).unwrap();
        inside.starts_with("shards") || inside.starts_with("store.json") || inside.starts_with("keyring.json")
    });
    let mut undetected = Vec::new();
    for path in data {
        let length = std::fs::metadata(path).unwrap().len() as usize;
        for step in 0..6 {
            let position = (length.saturating_sub(1)) * step / 5;
            let inside = path.strip_prefix(whole.path()).unwrap();
            if !is_detected(whole.path(), inside, position, step as u32) {
                undetected.push(format!("{} at byte {position} of {length}", inside.display()));
            }
        }
    }
    assert!(undetected.is_empty(), "{}", undetected.join("\n"));
}

/// Whether a flipped bit shows: no start, or a read that fails. A wrong document is worse than either.
fn is_detected(whole: &Path, inside: &Path, position: usize, bit: u32) -> bool {
    let copy = tempfile::tempdir().unwrap();
    sources::copy_tree(whole, copy.path());
    let mut bytes = std::fs::read(copy.path().join(inside)).unwrap();
    bytes[position] ^= 1 << (bit % 8);
    std::fs::write(copy.path().join(inside), bytes).unwrap();
    let Ok(server) = TestServer::builder().data_dir(copy.path()).try_start() else { return true };
    let mut http = server.http();
    let mut failed = false;
    for key in 0..50 {
        let response = http.get(&format!("/entity/s/k{key}"));
        match response.status {
            200 => assert_eq!(response.text(), format!("\"document {key}\""), "a wrong document was served"),
            500 => failed = true,
            other => panic!("{other} for a damaged record: {}", response.text()),
        }
    }
    failed || server.stderr().contains("damage")
}

#[test]
fn salvage_serves_what_is_intact_and_takes_no_writes() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    let segments = sources::files_below(&directory.path().join("shards"));
    let segment = segments.iter().find(|path| path.extension().is_some_and(|extension| extension == "seg")).unwrap();
    let mut bytes = std::fs::read(segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(segment, bytes).unwrap();
    let server = TestServer::builder().data_dir(directory.path()).arguments(["--salvage"]).start();
    let mut http = server.http();
    let read = (0..50).filter(|key| http.get(&format!("/entity/s/k{key}")).status == 200).count();
    assert!(read > 0, "nothing was salvaged");
    http.put("/entity/s/new", "1").expect_problem(503);
}

/// All files below a directory, but for the lock, with what they hold.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = sources::files_below(directory).into_iter().filter(|path| !path.ends_with("LOCK"));
    files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Flips a bit in the header of one segment.
fn damage_a_segment(shards: &Path) {
    let segments = sources::files_below(shards);
    let segment = segments.iter().find(|path| path.extension().is_some_and(|extension| extension == "seg")).unwrap();
    let mut bytes = std::fs::read(segment).unwrap();
    bytes[100] ^= 0x10;
    std::fs::write(segment, bytes).unwrap();
}

#[track_caller]
fn unchanged(directory: &Path, before: &BTreeMap<PathBuf, Vec<u8>>) {
    let after = contents(directory);
    let paths = before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path));
    assert_eq!(paths.collect::<BTreeSet<_>>(), BTreeSet::new(), "changed, made or removed");
}

#[test]
fn salvage_keeps_the_old_generation_beside_a_damaged_new_one() {
    let (directory, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(directory.path());
    sources::copy_tree(&directory.path().join("shards"), old.path());
    // As a crash between the publication of the new generation and the removal of the old one leaves it.
    TestServer::builder().data_dir(directory.path()).shards(1).start().stop_cleanly();
    sources::copy_tree(old.path(), &directory.path().join("shards"));
    damage_a_segment(&directory.path().join("shards/2"));
    let builder = TestServer::builder().data_dir(directory.path());
    refused(builder.clone(), ExitStatus::StoreDamaged, &["shards/2", "--salvage"]);
    let before = contents(directory.path());
    assert!(before.keys().any(|path| path.starts_with(directory.path().join("shards/1"))));
    builder.arguments(["--salvage"]).start().stop_cleanly();
    unchanged(directory.path(), &before);
}

#[test]
fn salvage_changes_nothing_whatever_is_asked_of_it() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    damage_a_segment(&directory.path().join("shards"));
    std::fs::write(directory.path().join("store.json.tmp"), "half").unwrap();
    let before = contents(directory.path());
    let server = TestServer::builder().data_dir(directory.path()).arguments(["--salvage"]).start();
    let mut http = server.http();
    let answers = [
        http.put("/entity/s/new", "1"),
        http.put("/schema/s", "{}"),
        http.delete("/schema/s"),
        http.request("POST", "/admin/keys/rotate", &[], b""),
    ];
    let statuses = answers.map(|answer| answer.status);
    server.stop_cleanly();
    unchanged(directory.path(), &before);
    assert_eq!(statuses, [503; 4]);
}

#[test]
fn salvage_makes_no_store_where_there_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let builder = TestServer::builder().data_dir(directory.path()).arguments(["--salvage"]);
    refused(builder, ExitStatus::DirectoryUnusable, &[&directory.path().display().to_string()]);
    assert_eq!(contents(directory.path()).len(), 0);
}

#[test]
fn a_creation_that_was_cut_short_goes_on_with_another_shard_count() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let builder = TestServer::builder().data_dir(&data);
    let first = builder.clone().shards(4).arguments(["--wire-shard-base-port", &port]);
    refused(first, ExitStatus::AddressUnusable, &[&port]);
    assert!(data.join("store.json").exists() && !data.join("shards").exists());
    let server = builder.clone().shards(3).start();
    server.http().put("/entity/s/k", "1").expect(201);
    server.stop_cleanly();
    // It is a store like any other now: a shard that is lost is damage.
    std::fs::remove_dir_all(sources::files_below(&data.join("shards"))[0].parent().unwrap()).unwrap();
    refused(builder, ExitStatus::StoreDamaged, &["MANIFEST"]);
}

#[test]
fn a_directory_that_cannot_be_used_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let name = file.display().to_string();
    refused(TestServer::builder().data_dir(&file), ExitStatus::DirectoryUnusable, &[&name]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "not a directory");
}

#[test]
fn a_leftover_temporary_file_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    let stray = directory.path().join("store.json.tmp");
    std::fs::write(&stray, "half").unwrap();
    TestServer::builder().data_dir(directory.path()).start().stop_cleanly();
    assert!(!stray.exists());
}

#[test]
fn the_start_block_says_where_and_never_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let key = "7e".repeat(32);
    let builder = TestServer::builder().data_dir(directory.path()).shards(2).variable("MASTER_KEY", &key);
    let server = builder.arguments(["--log-format", "json", "--log-level", "debug"]).start();
    let block = server.start_block.join("\n");
    for expected in [env!("CARGO_PKG_VERSION"), &server.rest.to_string(), &server.wire.to_string(), "MASTER_KEY"] {
        assert!(block.contains(expected), "{block}");
    }
    assert!(!block.contains(&key) && !block.contains(delta_tests::ADMIN_KEY));
    server.http().put("/entity/s/k", "1").expect(201);
    let ended = server.stop();
    assert!(!ended.stderr.contains(&key) && !ended.stderr.contains(delta_tests::ADMIN_KEY));
    for line in ended.stderr.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "not a JSON log line: {line}");
    }
}

#[test]
fn a_root_key_inside_the_directory_is_warned_of_at_every_start() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let builder = TestServer::builder().data_dir(&data);
    let inside = data.join("master.key");
    let mut key = String::new();
    for start in ["the first", "the second"] {
        let ended = builder.clone().start().stop();
        key = std::fs::read_to_string(&inside).unwrap().trim().to_owned();
        let warned = ended.stderr.lines().find(|line| line.contains("lies beside the data")).unwrap_or_default();
        for said in [&inside.display().to_string(), "whoever can read the directory", "backups", "--master-key-file"] {
            assert!(warned.contains(said), "{start} start does not say '{said}': {}", ended.stderr);
        }
        assert!(!ended.stderr.contains(&key) && !ended.stdout.contains(&key));
    }
    let elsewhere = directory.path().join("elsewhere.key");
    std::fs::rename(&inside, &elsewhere).unwrap();
    let ended = builder.arguments(["--master-key-file", elsewhere.to_str().unwrap()]).start().stop();
    assert_eq!(ended.status, 0);
    assert!(!ended.stderr.contains("beside the data"), "{}", ended.stderr);
    assert!(!ended.stderr.contains(&key));
}
