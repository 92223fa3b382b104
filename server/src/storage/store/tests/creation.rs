//! Fresh directories, and creation cut short at every change.

use super::*;

fn shared<T: Send + Sync>() {}

#[test]
fn a_store_is_shared_between_threads() {
    shared::<Store>();
    shared::<Arc<Keyring>>();
}

#[test]
fn makes_a_root_key_keyring_and_store_and_opens_them_again() {
    let directory = Directory::new();
    let first = directory.open().unwrap();
    assert!(first.created);
    assert_eq!(first.store.shards(), 2);
    assert_eq!(first.store.generation(), 1);
    assert_eq!(first.store.keyring().generation(), 1);
    assert_eq!(first.store.keyring().store_id(), first.store.id());
    assert_eq!(first.store.shard_directory(1), directory.file("shards/1/1"));
    assert_eq!(first.root_key_source, RootKeySource::DataDirectory(directory.file("master.key")));
    assert_eq!(first.warnings.len(), 2, "{:?}", first.warnings);

    let again = directory.open().unwrap();
    assert!(again.created, "shards may be missing until creation is complete");
    assert_eq!(again.store.id(), first.store.id());
    assert_eq!(again.store.hash_seed(), first.store.hash_seed());
    assert_eq!(again.store.root_key_id(), first.store.root_key_id());
    assert_eq!(key_ids(&again.store.keyring()), key_ids(&first.store.keyring()));
    assert_eq!(again.warnings.len(), 1, "{:?}", again.warnings);

    directory.write("shards/1/0/MANIFEST", "sealed");
    block_on(again.store.complete_creation(&directory.platform)).unwrap();
    assert!(!directory.open().unwrap().created);
}

#[test]
fn two_stores_share_nothing() {
    let (one, other) = (Directory::new(), Directory::new());
    let other = Directory { platform: TestPlatform::new(2), ..other };
    let (one, other) = (one.open().unwrap().store, other.open().unwrap().store);
    assert_ne!(one.id(), other.id());
    assert_ne!(one.hash_seed(), other.hash_seed());
    assert_ne!(one.root_key_id(), other.root_key_id());
}

#[test]
fn a_given_key_is_used_and_never_written() {
    let directory = Directory::new();
    let opened = directory.open_with(given(7)).unwrap();
    assert_eq!(opened.store.root_key_id(), root(7).id());
    assert_eq!(opened.root_key_source.to_string(), "$MASTER_KEY");
    assert!(opened.warnings.is_empty(), "{:?}", opened.warnings);
    assert!(!directory.file("master.key").exists());
    assert_eq!(directory.open_with(given(7)).unwrap().store.id(), opened.store.id());
}

#[test]
fn a_root_key_found_alone_is_reused() {
    let directory = Directory::new();
    directory.write("master.key", root(9).to_hex().as_bytes());
    assert_eq!(directory.open().unwrap().store.root_key_id(), root(9).id());
}

#[test]
fn a_root_key_in_the_directory_beside_a_given_one_is_warned_about() {
    let directory = Directory::established(given(7));
    directory.write("master.key", root(8).to_hex().as_bytes());
    let warnings = directory.open_with(given(7)).unwrap().warnings;
    assert!(warnings[0].contains("is not the root key of this store"), "{warnings:?}");
    directory.write("master.key", root(7).to_hex().as_bytes());
    let warnings = directory.open_with(given(7)).unwrap().warnings;
    assert!(warnings[0].contains("lies beside the data"), "{warnings:?}");
}

#[test]
fn the_shard_count_asked_for_counts_at_creation_only() {
    let directory = Directory::new();
    let wanting = |shards| StoreOptions { shards_wanted: Some(shards), ..directory.options(RootKeyInput::None) };
    let open = |shards| block_on(Store::open_or_create(&directory.platform, wanting(shards)));
    let opened = open(5).unwrap();
    assert_eq!((opened.store.shards(), opened.shards_wanted), (5, None));
    let opened = open(3).unwrap();
    assert_eq!((opened.store.shards(), opened.shards_wanted), (5, Some(3)));
    assert_eq!(directory.open().unwrap().shards_wanted, None);
    for shards in [0, 257] {
        assert!(matches!(open(shards).unwrap_err(), StoreError::ShardCount { given } if given == shards));
    }
}

/// Whatever the crash leaves, the next start makes one store of it, under the key that a crash has made durable.
#[test]
fn creation_cut_short_at_any_change_is_taken_up() {
    let mut crashes = 0;
    for changes in 0.. {
        let directory = Directory::new();
        directory.platform.fail_after(changes);
        let outcome = directory.open();
        let key_before = fs::read(directory.file("master.key")).ok();
        let ring_before = fs::read(directory.file("keyring.json")).ok();
        directory.platform.fail_after(u64::MAX);
        let store = directory.open().unwrap_or_else(|error| panic!("after {changes} changes: {error}")).store;
        if let Some(key) = key_before {
            assert_eq!(directory.read("master.key"), key, "the key was made anew after {changes} changes");
        }
        if let Some(ring) = ring_before {
            assert_eq!(directory.read("keyring.json"), ring, "the keyring was made anew after {changes} changes");
        }
        assert_eq!(directory.open().unwrap().store.id(), store.id());
        let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.into_iter().all(|name| !name.to_string_lossy().ends_with(".tmp")));
        match outcome {
            Ok(_) => break,
            Err(_) => crashes += 1,
        }
    }
    assert!(crashes > 12, "only {crashes} changes of the disk were cut");
}

#[test]
fn leftovers_are_removed_and_nothing_else() {
    let directory = Directory::established(given(7));
    let leftovers = ["store.json.tmp", "templates/person.json.tmp", "_auth/keys.json.tmp"];
    let others = ["templates/person.json", "_auth/keys.json", "admin.key"];
    for name in leftovers.iter().chain(&others) {
        directory.write(name, "content");
    }
    directory.open_with(given(7)).unwrap();
    assert!(leftovers.iter().all(|name| !directory.file(name).exists()));
    assert!(others.iter().all(|name| directory.file(name).exists()));
}
