//! Round trips, changes, and every refusal of a keyring.

use super::*;
use crate::crypto::root_key::RootKey;
use crate::crypto::seal::{Purpose, SealError, SealingKey};
use std::cell::Cell;
use std::rc::Rc;

/// Different bytes at every call, the same in every run.
#[derive(Clone, Default)]
struct Counting(Rc<Cell<u64>>);

impl Entropy for Counting {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0.set(self.0.get() + 1);
            let word = self.0.get().wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

fn root(byte: u8) -> RootKey {
    RootKey::from_bytes(&[byte; 32])
}

fn keyring(entropy: &Counting) -> Keyring {
    Keyring::create(entropy, [0xab; 16], 1_700_000_000_000)
}

fn same(left: &Keyring, right: &Keyring) -> bool {
    let facts = |ring: &Keyring| {
        let keys = ring.keys().map(|key| (key.id, key.created_unix_ms, key.state, *key.secret.expose()));
        (ring.store_id, ring.generation, keys.collect::<Vec<_>>(), *ring.store_key.secret.expose())
    };
    facts(left) == facts(right)
}

#[test]
fn opens_as_what_it_was_and_wraps_anew_each_time() {
    let entropy = Counting::default();
    let ring = keyring(&entropy).rotate(&entropy, 1_800_000_000_000);
    let text = ring.seal(&root(1), &entropy);
    assert!(same(&Keyring::open(&text, &root(1)).unwrap(), &ring));
    assert_ne!(text, ring.seal(&root(1), &entropy));
    let header = Keyring::header(&text).unwrap();
    assert_eq!((header.store_id, header.root_key_id), ([0xab; 16], root(1).id()));
}

#[test]
fn another_root_key_is_refused_naming_both() {
    let entropy = Counting::default();
    let text = keyring(&entropy).seal(&root(1), &entropy);
    let error = Keyring::open(&text, &root(2)).unwrap_err();
    assert_eq!(error, KeyringError::WrongRootKey { expected: root(1).id(), given: root(2).id() });
    assert!(error.to_string().contains(&root(1).id().to_string()));
    assert!(error.to_string().contains(&root(2).id().to_string()));
}

#[test]
fn every_byte_counts() {
    let entropy = Counting::default();
    let text = keyring(&entropy).seal(&root(1), &entropy);
    for at in 0..text.len() {
        for flip in [0x01, 0x20] {
            let mut forged = text.clone();
            forged[at] ^= flip;
            assert!(Keyring::open(&forged, &root(1)).is_err(), "byte {at} ^ {flip:#x} does not count");
        }
        assert!(Keyring::open(&text[..at], &root(1)).is_err(), "{at} bytes were enough");
    }
}

#[test]
fn a_newer_format_is_named() {
    let entropy = Counting::default();
    let text = String::from_utf8(keyring(&entropy).seal(&root(1), &entropy)).unwrap();
    let newer = text.replace("\"format_version\": 1", "\"format_version\": 7");
    assert_eq!(Keyring::open(newer.as_bytes(), &root(1)).unwrap_err(), KeyringError::NewerFormat { found: 7 });
}

/// Even who holds the MAC key cannot move a wrapped key to another id, time, state, purpose or store.
#[test]
fn the_wrap_binds_each_key_to_its_place() {
    let entropy = Counting::default();
    let ring = keyring(&entropy).rotate(&entropy, 1_800_000_000_000);
    let text = ring.seal(&root(1), &entropy);
    let original: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let forge = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut body = original.clone();
        body.as_object_mut().unwrap().remove("mac");
        change(&mut body);
        let forged = crate::crypto::mac_json::render(&body, &root(1).keyring_mac_key());
        Keyring::open(&forged, &root(1))
    };
    assert!(forge(&|_| ()).is_ok(), "the forgery itself must be sound");
    let unwrapped = KeyringError::Damaged { reason: "a wrapped key does not authenticate" };
    let changes: [&dyn Fn(&mut serde_json::Value); 5] = [
        &|body| body["store_id"] = hex::encode([0xac; 16]).into(),
        &|body| body["keys"][0]["id"] = "0000000000000000".into(),
        &|body| body["keys"][0]["created_unix_ms"] = 1.into(),
        &|body| body["keys"][0]["state"] = "retiring".into(),
        &|body| body["keys"][0]["purpose"] = "store".into(),
    ];
    for change in changes {
        assert_eq!(forge(change).unwrap_err(), unwrapped);
    }
    let missing = |reason| KeyringError::Damaged { reason };
    let without = |at: usize| forge(&|body| drop(body["keys"].as_array_mut().unwrap().remove(at))).unwrap_err();
    assert_eq!(without(0), missing("it holds no active data key"));
    assert_eq!(without(2), missing("it holds no store key"));
    let twice = forge(&|body| {
        let again = body["keys"][0].clone();
        body["keys"].as_array_mut().unwrap().push(again);
    });
    assert_eq!(twice.unwrap_err(), missing("it holds more keys of a kind than a store has"));
}

#[test]
fn rotation_keeps_old_keys_and_dropping_spares_the_active_one() {
    let entropy = Counting::default();
    let first = keyring(&entropy);
    let second = first.rotate(&entropy, 5);
    let third = second.rotate(&entropy, 6);
    assert_eq!((first.generation(), second.generation(), third.generation()), (1, 2, 3));
    assert_ne!(first.active().id(), second.active().id());
    assert_eq!((second.active().state(), second.active().created_unix_ms()), (DataKeyState::Active, 5));
    let old = third.get(first.active().id()).expect("the first key is kept");
    assert_eq!(old.state(), DataKeyState::Retiring);
    assert_eq!(
        third.keys().map(DataKey::id).collect::<Vec<_>>(),
        [third.active().id(), second.active().id(), first.active().id(),]
    );

    let dropped = third.without(&[first.active().id(), third.active().id()]);
    assert_eq!(dropped.generation(), 4);
    assert!(dropped.get(first.active().id()).is_none());
    assert!(dropped.get(second.active().id()).is_some());
    assert_eq!(dropped.active().id(), third.active().id());
}

#[test]
fn what_the_first_key_sealed_opens_after_rotation_and_a_new_root_key() {
    let entropy = Counting::default();
    let first = keyring(&entropy);
    let mut sealed = *b"content";
    let key = SealingKey::derive(first.active(), &[4; 32], Purpose::Segment);
    let tag = key.seal_in_place(&[0; 12], b"", &mut sealed).unwrap();
    let mac = first.store_mac_key().tag(b"store.json");

    let text = first.rotate(&entropy, 5).renewed().seal(&root(2), &entropy);
    let later = Keyring::open(&text, &root(2)).unwrap();
    assert_eq!(later.generation(), 3);
    let key = SealingKey::derive(later.get(first.active().id()).unwrap(), &[4; 32], Purpose::Segment);
    key.open_in_place(&[0; 12], b"", &mut sealed, &tag).unwrap();
    assert_eq!(&sealed, b"content");
    assert!(later.store_mac_key().verify(b"store.json", &mac));
    let newest = SealingKey::derive(later.active(), &[4; 32], Purpose::Segment);
    assert_eq!(newest.open_in_place(&[0; 12], b"", &mut sealed, &tag), Err(SealError::NotAuthentic));
}

#[test]
fn no_secret_shows_in_text_or_debug() {
    let entropy = Counting::default();
    let ring = keyring(&entropy).rotate(&entropy, 5);
    let text = String::from_utf8(ring.seal(&root(1), &entropy)).unwrap();
    let shown = format!("{text} {ring:?} {:?} {:?}", ring.active(), root(1));
    for key in ring.keys().map(|key| &key.secret).chain([&ring.store_key.secret]) {
        assert!(!shown.contains(&hex::encode(key.expose())));
        assert!(!shown.contains(&hex::encode(&key.expose()[..8])));
    }
    assert!(!shown.contains(&hex::encode([1; 32])));
}
