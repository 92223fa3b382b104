//! Stores of every format version so far open for ever: each fixture is checked, read whole, written to and rewritten.

use delta_tests::fixtures::{self, ROOT_KEY_FILE};
use delta_tests::http::encode;
use delta_tests::{Cli, ServerBuilder, TestServer};
use deltadb::storage::store::STORE_FORMAT_VERSION;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Every file of every fixture, and the SHA-256 of what is in it. A fixture is what the first build of its format wrote:
/// a new format adds lines here, and none is ever changed.
const FILES: [(&str, &str); 14] = [
    ("format-1/documents.ndjson", "b12d2834422e57627b4f1dadbd411a837f9ae322526bd1a4c484c571c785e539"),
    ("format-1/root.key", "18c4679c67989ee667855b6ab6baf68275c4923d80b9720648657f0c48e4a99d"),
    ("format-1/store/keyring.json", "477855310bcdf0e317a1bb2f1acb2a98e4ba9138478e3a1ea154b84a065d7ae1"),
    ("format-1/store/shards/1/0/13.seg", "7f41c4aeaf1ba27809337ba004c067fa7c6b995a89ba9283beb634169bdacaf0"),
    ("format-1/store/shards/1/0/14.seg", "da6e93d0d188dc3d3c1157e12a2347d9c7ba1e1bf026dadb9572fece9708166c"),
    ("format-1/store/shards/1/0/15.seg", "1e44b35415578963be443c39a645d2ba1d3127c34cb1f671e2920caca5e5c6b4"),
    ("format-1/store/shards/1/0/6.ckpt", "51b0b4637149afeff14ff8a13395cd3392a87d94c0ea692e26cb5ac074b69e73"),
    ("format-1/store/shards/1/0/MANIFEST", "ee9c820de3c7a98a4e2c5d8fb398e3fb7185a17b7b4ce0dbc7f074236e5d09af"),
    ("format-1/store/shards/1/1/12.seg", "3d0d044fcb332da72dbdee30dfd62d68338705af4814f0ef5b3362d5e9769c42"),
    ("format-1/store/shards/1/1/13.seg", "e21714ba31c90b671f36c7853a3d061da984ab71c6de288a6bfac52d7e72bead"),
    ("format-1/store/shards/1/1/6.ckpt", "2f01d4db0cd70244c8e61829562f30e133593ad081557ef3e29daf2ef42fc907"),
    ("format-1/store/shards/1/1/MANIFEST", "eabac18772fb6c1ecb78861c3c65e689b32ce243a8d01f5470215d6695c8a492"),
    ("format-1/store/store.json", "0541081b5abdd50448bdb647ec61ff9da69b2d6461d7cc0fc9a5da0d7ce73a0d"),
    ("format-1/store/templates/people.json", "a2c799262a3ce3c19ef5cdd983bf3d12b43ab3c426227091b909dcb7054738c0"),
];

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
fn no_fixture_was_made_again() {
    let found: BTreeMap<String, String> = (1..=STORE_FORMAT_VERSION)
        .flat_map(fixtures::files)
        .map(|(name, bytes)| {
            let digest = Sha256::digest(&bytes);
            (name, digest.iter().map(|byte| format!("{byte:02x}")).collect())
        })
        .collect();
    let pinned = FILES.map(|(name, digest)| (name.to_owned(), digest.to_owned()));
    assert_eq!(found, pinned.into(), "a format that changed without a new version; see tests/fixtures/README.md");
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
