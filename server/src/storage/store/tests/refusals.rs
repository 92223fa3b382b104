//! Everything that is not opened, and what is said of it.

use super::*;

/// The sentence names all of these.
fn assert_names(error: &StoreError, parts: &[&str]) {
    let sentence = error.to_string();
    for part in parts {
        assert!(sentence.contains(part), "{part:?} is missing in: {sentence}");
    }
}

fn edit(directory: &Directory, name: &str, from: &str, to: &str) {
    let text = String::from_utf8(directory.read(name)).unwrap();
    assert!(text.contains(from), "{name} holds no {from}");
    directory.write(name, text.replace(from, to));
}

#[test]
fn no_byte_of_store_or_keyring_can_be_changed() {
    let directory = Directory::established(given(7));
    for name in ["store.json", "keyring.json"] {
        let content = directory.read(name);
        for at in 0..content.len() {
            let mut forged = content.clone();
            forged[at] ^= 0x01;
            directory.write(name, &forged);
            let refusal = directory.open_with(given(7)).expect_err("a changed byte must be refused");
            assert!(refusal.to_string().contains(".json"), "byte {at} of {name}: {refusal}");
        }
        directory.write(name, &content[..content.len() - 1]);
        assert!(matches!(directory.open_with(given(7)), Err(StoreError::Damaged { .. })));
        directory.write(name, "");
        assert!(matches!(directory.open_with(given(7)), Err(StoreError::Damaged { .. })));
        directory.write(name, vec![b' '; 2 << 20]);
        assert!(matches!(directory.open_with(given(7)), Err(StoreError::Damaged { .. })));
        directory.write(name, &content);
    }
    directory.open_with(given(7)).unwrap();
}

#[test]
fn newer_formats_are_named() {
    for name in ["store.json", "keyring.json"] {
        let directory = Directory::established(given(7));
        edit(&directory, name, "\"format_version\": 1", "\"format_version\": 2");
        let refusal = directory.open_with(given(7)).unwrap_err();
        assert!(matches!(refusal, StoreError::NewerFormat { found: 2, supported: 1, .. }), "{refusal}");
        assert_names(&refusal, &[name, "version 2", "newer build"]);
    }
}

#[test]
fn another_stores_keyring_is_named() {
    let directory = Directory::established(given(7));
    let other = Directory { platform: TestPlatform::new(2), ..Directory::new() };
    other.open_with(given(7)).unwrap();
    directory.write("keyring.json", other.read("keyring.json"));
    let refusal = directory.open_with(given(7)).unwrap_err();
    assert!(matches!(refusal, StoreError::OtherStore { .. }), "{refusal}");
    assert_names(&refusal, &["keyring.json", "belongs to store"]);
}

#[test]
fn a_missing_root_key_is_named_and_none_is_made() {
    let directory = Directory::established(RootKeyInput::None);
    let id = directory.open().unwrap().store.root_key_id();
    fs::remove_file(directory.file("master.key")).unwrap();
    let refusal = directory.refusal();
    assert!(matches!(refusal, StoreError::RootKeyMissing { expected, .. } if expected == id), "{refusal}");
    assert_names(&refusal, &[&id.to_string(), "--master-key-file"]);
    assert!(!directory.file("master.key").exists());
}

#[test]
fn a_wrong_root_key_is_refused_naming_the_right_one() {
    let directory = Directory::established(given(7));
    let refusal = directory.open_with(given(8)).unwrap_err();
    assert!(matches!(refusal, StoreError::WrongRootKey { .. }), "{refusal}");
    assert_names(&refusal, &[&root(7).id().to_string(), &root(8).id().to_string(), "$MASTER_KEY", "keyring.json"]);
    directory.write("master.key", root(8).to_hex().as_bytes());
    assert_names(&directory.refusal(), &[&root(7).id().to_string(), "master.key"]);
}

#[test]
fn a_root_key_file_that_is_none_is_refused_even_in_a_fresh_directory() {
    let contents: [&[u8]; 3] = [b"", b"not a key", &[0xff; 32]];
    for content in contents {
        let directory = Directory::new();
        directory.write("master.key", content);
        assert_names(&directory.refusal(), &["master.key", "64 hexadecimal digits"]);
        assert_eq!(directory.read("master.key"), content);
        assert!(!directory.file("keyring.json").exists());
    }
}

#[test]
fn an_announced_key_id_is_insisted_on() {
    let directory = Directory::new();
    let expecting = |id, input| {
        let options = StoreOptions { expected_key_id: Some(id), ..directory.options(input) };
        block_on(Store::open_or_create(&directory.platform, options))
    };
    let fresh = expecting(root(7).id(), RootKeyInput::None).unwrap_err();
    assert!(matches!(fresh, StoreError::RootKeyMissing { .. }), "{fresh}");
    let other = expecting(root(7).id(), given(8)).unwrap_err();
    assert!(matches!(other, StoreError::UnexpectedRootKey { .. }), "{other}");
    assert_names(&other, &["--key-id", &root(7).id().to_string(), &root(8).id().to_string()]);
    assert!(!directory.file("keyring.json").exists());
    expecting(root(7).id(), given(7)).unwrap();
    assert!(matches!(expecting(root(8).id(), given(7)), Err(StoreError::UnexpectedRootKey { .. })));
}

#[test]
fn what_is_opened_to_read_stays_as_it_is_and_is_not_made() {
    let directory = Directory::established(given(7));
    directory.write("store.json.tmp", "half");
    let read = |directory: &Directory| {
        block_on(Store::open_to_read(&directory.platform, directory.options(given(7)))).map(|opened| opened.store.id())
    };
    let changes = directory.platform.changes();
    let id = read(&directory).unwrap();
    assert_eq!((directory.platform.changes(), directory.read("store.json.tmp")), (changes, b"half".to_vec()));
    assert_eq!(directory.open_with(given(7)).unwrap().store.id(), id);

    let fresh = Directory::new();
    std::fs::create_dir(fresh.path()).unwrap();
    let refusal = read(&fresh).unwrap_err();
    assert!(matches!(refusal, StoreError::NoStore { .. }), "{refusal}");
    assert_eq!(fresh.platform.changes(), 0);
}

#[test]
fn lost_files_are_named_and_nothing_is_made_in_their_place() {
    let cases: [(&[&str], &str); 4] = [
        (&["keyring.json"], "keyring.json"),
        (&["store.json"], "store.json"),
        (&["keyring.json", "store.json"], "keyring.json"),
        (&["keyring.json", "store.json", "master.key"], "keyring.json"),
    ];
    for (lost, named) in cases {
        let directory = Directory::established(RootKeyInput::None);
        for name in lost {
            fs::remove_file(directory.file(name)).unwrap();
        }
        assert_names(&directory.refusal(), &[named, "is missing", "backup"]);
        assert!(lost.iter().all(|name| !directory.file(name).exists()), "{lost:?} were made anew");
    }
}

#[test]
fn a_complete_store_without_its_shards_is_refused() {
    let directory = Directory::established(given(7));
    fs::rename(directory.file("shards/1"), directory.file("shards/4")).unwrap();
    let refusal = directory.open_with(given(7)).unwrap_err();
    assert!(matches!(refusal, StoreError::GenerationMissing { .. }), "{refusal}");
    assert_names(&refusal, &["shards/1", "holds 4"]);
    fs::remove_dir_all(directory.file("shards")).unwrap();
    assert_names(&directory.open_with(given(7)).unwrap_err(), &["holds nothing"]);
}

#[test]
fn a_changed_keyring_without_a_store_is_no_unfinished_creation() {
    let directory = Directory::established(given(7));
    let store = directory.open_with(given(7)).unwrap().store;
    block_on(store.rotate_data_key(&directory.platform)).unwrap();
    fs::remove_file(directory.file("store.json")).unwrap();
    fs::remove_dir_all(directory.file("shards")).unwrap();
    let refusal = directory.open_with(given(7)).unwrap_err();
    assert!(matches!(refusal, StoreError::DescriptorMissing { .. }), "{refusal}");
}

#[test]
fn a_disk_that_cannot_be_written_is_named() {
    let directory = Directory::new();
    directory.platform.fail_after(0);
    assert_names(&directory.refusal(), &["cannot", "the disk is gone"]);
}
