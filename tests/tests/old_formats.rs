//! Stores of every format version so far open for ever: each fixture is checked, read whole, written to and rewritten.

use delta_tests::fixtures::{self, ROOT_KEY_FILE};
use delta_tests::http::encode;
use delta_tests::{Cli, ServerBuilder, TestServer};
use deltadb::storage::store::STORE_FORMAT_VERSION;
use std::path::Path;

fn server(version: u32, data: &Path) -> ServerBuilder {
    let key = fixtures::directory(version).join(ROOT_KEY_FILE);
    TestServer::builder().data_dir(data).arguments(["--master-key-file", key.to_str().expect("a path in UTF-8")])
}

fn check_is_sound(version: u32, data: &Path) {
    let key = fixtures::directory(version).join(ROOT_KEY_FILE);
    let [data, key] = [data, &key].map(|path| path.to_str().expect("a path in UTF-8"));
    let checked = Cli::new("none").run(&["check", "--data-dir", data, "--master-key-file", key]).expect(0);
    assert!(checked.text().starts_with("sound: "), "{checked:#?}");
}

fn holds_everything(version: u32, server: &TestServer) {
    let mut http = server.http();
    let documents = fixtures::documents(version);
    assert!(documents.len() > 10);
    for ((schema, key), (version, body)) in &documents {
        let response = http.get(&format!("/entity/{schema}/{}", encode(key))).expect(200);
        assert_eq!(response.header("etag"), Some(format!("\"{version}\"").as_str()), "{schema} {key}");
        assert!(response.body == *body, "{schema} {key} differs");
    }
    for schema in ["people", "things"] {
        let keys: Vec<&String> = documents.keys().filter(|(other, _)| other == schema).map(|(_, key)| key).collect();
        let page = http.get(&format!("/entity/{schema}?limit=1000")).expect(200).json();
        let listed = page["entries"].as_array().expect("a page of entities");
        let listed: Vec<&str> = listed.iter().filter_map(|entry| entry["key"].as_str()).collect();
        assert_eq!(listed, keys, "deleted documents stay deleted");
    }
}

#[test]
fn a_store_of_every_format_version_is_sound_opens_and_goes_on() {
    for version in 1..=STORE_FORMAT_VERSION {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let data = scratch.path().join("data");
        fixtures::copy_store(version, &data);
        check_is_sound(version, &data);
        let running = server(version, &data).start();
        holds_everything(version, &running);
        running.http().put("/entity/things/new", "{}").expect(201);
        running.http().delete("/entity/things/new").expect(200);
        running.kill();
        let running = server(version, &data).start();
        holds_everything(version, &running);
        running.stop_cleanly();
        check_is_sound(version, &data);
        let running = server(version, &data).shards(3).start();
        holds_everything(version, &running);
        for ((schema, key), (before, _)) in &fixtures::documents(version) {
            let written = running.http().put(&format!("/entity/{schema}/{}", encode(key)), "{}").expect(200);
            let now: u64 = written.header("etag").expect("a version").trim_matches('"').parse().expect("a number");
            assert!(now > *before, "{schema} {key} goes from version {before} to {now}");
        }
        running.stop_cleanly();
        check_is_sound(version, &data);
    }
}
