//! Rotation, dropping, generations and a new root key, with the disk failing at every change.

use super::*;
use crate::runtime::sim::{Effect, Fault, Operation, Sim, SimPlatform};
use std::time::Duration;

/// A store under root key 7, open.
fn open() -> (Directory, Store) {
    let directory = Directory::established(given(7));
    let store = directory.open_with(given(7)).unwrap().store;
    (directory, store)
}

/// A new one on a simulated machine.
fn simulated() -> (Sim, SimPlatform, Store) {
    let sim = Sim::new(1);
    let platform = sim.platform();
    let options = StoreOptions {
        directory: "/data".into(),
        root_key: RootKeyInput::None,
        expected_key_id: None,
        shards_wanted: None,
        default_shards: 1,
    };
    let store = sim.run_until(Store::open_or_create(&platform, options)).unwrap().unwrap().store;
    (sim, platform, store)
}

#[test]
fn rotation_is_durable_and_keeps_old_keys() {
    let (directory, store) = open();
    let before = store.keyring();
    let after = block_on(store.rotate_data_key(&directory.platform)).unwrap();
    assert_eq!(after.generation(), before.generation() + 1);
    assert_ne!(after.active().id(), before.active().id());
    assert!(after.get(before.active().id()).is_some());
    assert_eq!(key_ids(&store.keyring()), key_ids(&after));
    let reopened = directory.open_with(given(7)).unwrap().store.keyring();
    assert_eq!((key_ids(&reopened), reopened.generation()), (key_ids(&after), after.generation()));
}

#[test]
fn only_keys_out_of_use_are_dropped() {
    let (directory, store) = open();
    let first = store.keyring().active().id();
    let second = block_on(store.rotate_data_key(&directory.platform)).unwrap().active().id();
    let third = block_on(store.rotate_data_key(&directory.platform)).unwrap().active().id();
    let changes = directory.platform.changes();
    let kept = block_on(store.drop_keys_not_in(&directory.platform, &[first, second])).unwrap();
    assert_eq!((kept.generation(), directory.platform.changes()), (3, changes), "nothing to drop, nothing written");
    let kept = block_on(store.drop_keys_not_in(&directory.platform, &[second])).unwrap();
    assert_eq!((key_ids(&kept), kept.generation()), (vec![third, second], 4));
    let kept = block_on(store.drop_keys_not_in(&directory.platform, &[])).unwrap();
    assert_eq!(key_ids(&kept), [third], "the active key stays");
    assert_eq!(key_ids(&directory.open_with(given(7)).unwrap().store.keyring()), [third]);
}

#[test]
fn a_generation_is_published_in_order_and_the_others_go() {
    let (directory, store) = open();
    let publish = |shards, generation| block_on(store.publish_generation(&directory.platform, shards, generation));
    assert!(matches!(publish(3, 1), Err(StoreError::GenerationOrder { current: 1, given: 1 })));
    assert!(matches!(publish(0, 2), Err(StoreError::ShardCount { given: 0 })));
    directory.write("shards/2/0/MANIFEST", "sealed");
    publish(3, 2).unwrap();
    assert_eq!((store.shards(), store.generation()), (3, 2));
    assert_eq!(store.shard_directory(2), directory.file("shards/2/2"));
    let (id, hash_seed) = (store.id(), store.hash_seed());

    let store = directory.open_with(given(7)).unwrap().store;
    assert_eq!((store.shards(), store.generation(), store.id(), store.hash_seed()), (3, 2, id, hash_seed));
    assert_eq!(block_on(store.remove_other_generations(&directory.platform)).unwrap(), [1]);
    assert!(!directory.file("shards/1").exists() && directory.file("shards/2/0/MANIFEST").exists());
    assert!(block_on(store.remove_other_generations(&directory.platform)).unwrap().is_empty());
}

#[test]
fn a_generation_that_is_not_there_is_not_published() {
    let (directory, store) = open();
    let refusal = block_on(store.publish_generation(&directory.platform, 3, 2)).unwrap_err();
    assert!(refusal.to_string().contains("shards/2"), "{refusal}");
    assert_eq!(directory.open_with(given(7)).unwrap().store.generation(), 1);
}

/// The disk holds the old state or the new one, the store in memory never runs ahead of it, and no second change is
/// made on top of one whose outcome is unknown.
#[test]
fn a_change_cut_short_leaves_the_old_state_or_the_new_one() {
    let mut crashes = 0;
    for changes in 0.. {
        let (directory, store) = open();
        directory.platform.fail_after(changes);
        let outcome = block_on(store.rotate_data_key(&directory.platform)).map(|keyring| keyring.generation());
        directory.platform.fail_after(u64::MAX);
        let on_disk = directory.open_with(given(7)).unwrap().store.keyring();
        assert!([1, 2].contains(&on_disk.generation()));
        if let Ok(generation) = outcome {
            assert_eq!((generation, on_disk.generation()), (2, 2));
            break;
        }
        crashes += 1;
        assert_eq!(store.keyring().generation(), 1);
        let refusal = block_on(store.rotate_data_key(&directory.platform)).unwrap_err();
        assert!(matches!(refusal, StoreError::ChangeFailed { .. }), "{refusal}");
        assert!(refusal.to_string().contains("the disk is gone"), "{refusal}");
        assert!(block_on(store.publish_generation(&directory.platform, 3, 2)).is_err());
    }
    assert!(crashes > 4, "only {crashes} changes of the disk were cut");
}

#[test]
fn an_abandoned_change_stops_all_further_ones() {
    let (directory, store) = open();
    store.state().change = Change::UnderWay;
    let refusal = block_on(store.rotate_data_key(&directory.platform)).unwrap_err();
    assert!(matches!(refusal, StoreError::ChangeUnderWay), "{refusal}");
}

#[test]
fn a_new_root_key_rewrites_only_the_keyring() {
    let (directory, store) = open();
    let keyring = block_on(store.rotate_data_key(&directory.platform)).unwrap();
    drop(store);
    let description = directory.read("store.json");
    let lock = DirectoryLock::acquire(&directory.path(), Duration::ZERO).unwrap();
    let done = block_on(rewrap(&directory.platform, &lock, given(7), &root(8))).unwrap();
    assert_eq!((done.old, done.new, done.data_keys), (root(7).id(), root(8).id(), 2));
    assert_eq!(directory.read("store.json"), description);
    assert!(matches!(directory.open_with(given(7)), Err(StoreError::WrongRootKey { .. })));
    let reopened = directory.open_with(given(8)).unwrap().store.keyring();
    assert_eq!((key_ids(&reopened), reopened.generation()), (key_ids(&keyring), keyring.generation() + 1));
}

#[test]
fn a_new_root_key_replaces_the_one_in_the_directory() {
    let directory = Directory::established(RootKeyInput::None);
    let lock = DirectoryLock::acquire(&directory.path(), Duration::ZERO).unwrap();
    let done = block_on(rewrap(&directory.platform, &lock, RootKeyInput::None, &root(8))).unwrap();
    assert!(done.warnings[0].contains("master.key no longer opens"), "{:?}", done.warnings);
    assert!(matches!(directory.refusal(), StoreError::WrongRootKey { expected, .. } if expected == root(8).id()));
}

#[test]
fn a_rewrap_is_refused_as_a_start_would_be() {
    let empty = Directory::new();
    let lock = DirectoryLock::acquire(&empty.path(), Duration::ZERO).unwrap();
    let refusal = block_on(rewrap(&empty.platform, &lock, given(7), &root(8))).unwrap_err();
    assert!(matches!(refusal, StoreError::NoStore { .. }), "{refusal}");

    let (directory, _) = open();
    let lock = DirectoryLock::acquire(&directory.path(), Duration::ZERO).unwrap();
    let again = |old, new| block_on(rewrap(&directory.platform, &lock, given(old), &root(new))).unwrap_err();
    assert!(matches!(again(8, 9), StoreError::WrongRootKey { .. }));
    assert!(matches!(again(7, 7), StoreError::SameRootKey { .. }));
}

#[test]
fn a_rewrap_cut_short_leaves_one_key_that_opens() {
    for changes in 0.. {
        let (directory, _) = open();
        let lock = DirectoryLock::acquire(&directory.path(), Duration::ZERO).unwrap();
        directory.platform.fail_after(changes);
        let outcome = block_on(rewrap(&directory.platform, &lock, given(7), &root(8)));
        directory.platform.fail_after(u64::MAX);
        let (old, new) = (directory.open_with(given(7)), directory.open_with(given(8)));
        assert!(old.is_ok() != new.is_ok(), "after {changes} changes");
        if outcome.is_ok() {
            assert!(new.is_ok());
            break;
        }
    }
}

#[test]
fn no_key_lies_in_any_file_but_the_root_key_in_its_own() {
    let directory = Directory::established(RootKeyInput::None);
    let root_key = String::from_utf8(directory.read("master.key")).unwrap();
    let store = directory.open().unwrap().store;
    block_on(store.rotate_data_key(&directory.platform)).unwrap();
    let opened = format!("{:?}", directory.open().unwrap());
    for name in ["store.json", "keyring.json"] {
        let text = String::from_utf8(directory.read(name)).unwrap();
        for secret in store.keyring().secrets_in_hex().iter().map(String::as_str).chain([root_key.trim()]) {
            assert_eq!(secret.len(), 64);
            for shown in [&text, &opened] {
                assert!(!shown.contains(secret) && !shown.contains(&secret[..16]), "a key shows in {name}");
            }
        }
    }
}

/// A full disk is met before anything is renamed: nothing has changed, and nothing needs a restart.
#[test]
fn a_rotation_that_found_no_space_can_be_tried_again() {
    let (sim, platform, store) = simulated();
    sim.set_capacity_bytes(Some(sim.poke(|image| image.used_bytes())));
    let full = sim.run_until(store.rotate_data_key(&platform)).unwrap().unwrap_err();
    assert!(full.is_out_of_space(), "{full}");
    assert_eq!(store.keyring().generation(), 1);
    sim.set_capacity_bytes(None);
    assert_eq!(sim.run_until(store.rotate_data_key(&platform)).unwrap().unwrap().generation(), 2);
}

#[test]
fn a_damaged_keyring_or_description_is_written_anew_while_the_store_is_open() {
    for name in ["keyring.json", "store.json"] {
        let (directory, store) = open();
        block_on(store.rotate_data_key(&directory.platform)).unwrap();
        assert!(block_on(store.look_over(&directory.platform)).is_empty());
        let sound = directory.read(name);
        let damages: [(&str, Option<Vec<u8>>); 4] = [
            ("a flipped bit", Some(sound.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 60)).collect())),
            ("a cut", Some(sound[..sound.len() / 2].to_vec())),
            ("nothing in it", Some(Vec::new())),
            ("no file", None),
        ];
        for (what, content) in damages {
            match &content {
                Some(content) => directory.write(name, content),
                None => fs::remove_file(directory.file(name)).unwrap(),
            }
            let unsound = block_on(store.look_over(&directory.platform));
            assert!(unsound.len() == 1 && unsound[0].mended.is_ok(), "{what}: {unsound:?}");
            assert!(unsound[0].to_string().contains(name), "{what}: {}", unsound[0]);
            assert!(block_on(store.look_over(&directory.platform)).is_empty(), "{what}");
            let reopened = directory.open_with(given(7)).unwrap().store;
            assert_eq!(key_ids(&reopened.keyring()), key_ids(&store.keyring()), "{what}");
        }
        // Changes go on.
        block_on(store.rotate_data_key(&directory.platform)).unwrap();
        directory.open_with(given(7)).unwrap();
    }
}

#[test]
fn an_older_keyring_put_back_under_an_open_store_is_replaced() {
    let (directory, store) = open();
    let older = directory.read("keyring.json");
    block_on(store.rotate_data_key(&directory.platform)).unwrap();
    directory.write("keyring.json", older);
    let unsound = block_on(store.look_over(&directory.platform));
    assert!(unsound.len() == 1 && unsound[0].reason.contains("generation 1"), "{unsound:?}");
    assert_eq!(directory.open_with(given(7)).unwrap().store.keyring().generation(), 2);
}

/// Another store may have been made there since.
#[test]
fn a_directory_that_became_another_stores_is_left_alone() {
    let (directory, store) = open();
    let other = Directory { parent: tempfile::tempdir().unwrap(), platform: TestPlatform::new(2) };
    other.open_with(given(7)).unwrap();
    let files = ["keyring.json", "store.json"];
    files.iter().for_each(|name| directory.write(name, other.read(name)));
    let unsound = block_on(store.look_over(&directory.platform));
    assert!(unsound.len() == 2 && unsound.iter().all(|file| file.mended.is_err()), "{unsound:?}");
    assert!(files.iter().all(|name| directory.read(name) == other.read(name)));
    let full = unsound[0].to_string();
    assert!(full.contains("another store") && full.contains("backup"), "{full}");
}

/// Of this store, and not written by this process: another one may have sealed data under its keys.
#[test]
fn a_newer_keyring_is_told_of_and_left() {
    let (directory, store) = open();
    let other = directory.open_with(given(7)).unwrap().store;
    block_on(other.rotate_data_key(&directory.platform)).unwrap();
    let newer = directory.read("keyring.json");
    let unsound = block_on(store.look_over(&directory.platform));
    assert!(unsound.len() == 1 && unsound[0].mended.is_err(), "{unsound:?}");
    assert!(unsound[0].reason.contains("another server"), "{unsound:?}");
    assert_eq!(directory.read("keyring.json"), newer);
}

#[test]
fn a_mend_that_fails_is_told_and_no_change_follows_it() {
    let (sim, platform, store) = simulated();
    let look = || sim.run_until(store.look_over(&platform)).unwrap();
    let rot = || sim.poke(|image| image.flip_bit("/data/keyring.json", 500)).unwrap();
    // Nothing is known of a file that cannot be read for another reason than its own.
    sim.inject(Fault::next(&[Operation::Read], Effect::Error(12)).on_path("keyring.json"));
    assert!(look().is_empty());
    rot();
    sim.set_capacity_bytes(Some(0));
    let full = look();
    assert!(full.len() == 1 && full[0].mended.is_err(), "{full:?}");
    sim.set_capacity_bytes(None);
    sim.inject(Fault::eio(&[Operation::SyncDir]));
    let failed = look();
    assert!(failed.len() == 1 && failed[0].to_string().contains("may not be durable"), "{failed:?}");
    let refused = sim.run_until(store.rotate_data_key(&platform)).unwrap().unwrap_err();
    assert!(matches!(refused, StoreError::ChangeFailed { .. }), "{refused}");
    rot();
    let told = look();
    assert!(told.len() == 1 && told[0].to_string().contains("earlier change"), "{told:?}");
}

#[test]
fn a_keyring_that_the_device_cannot_read_is_written_anew() {
    let (sim, platform, store) = simulated();
    sim.inject(Fault::eio(&[Operation::Read]).on_path("keyring.json").times(2));
    let unsound = sim.run_until(store.look_over(&platform)).unwrap();
    assert!(unsound.len() == 1 && unsound[0].mended.is_ok(), "{unsound:?}");
    assert!(sim.run_until(store.look_over(&platform)).unwrap().is_empty());
}

#[test]
fn what_a_failed_change_left_is_not_touched() {
    let (sim, platform, store) = simulated();
    sim.inject(Fault::eio(&[Operation::SyncDir]));
    sim.run_until(store.rotate_data_key(&platform)).unwrap().unwrap_err();
    let left = sim.poke(|image| image.peek("/data/keyring.json").unwrap());
    assert!(sim.run_until(store.look_over(&platform)).unwrap().is_empty());
    assert_eq!(sim.poke(|image| image.peek("/data/keyring.json").unwrap()), left);
}
