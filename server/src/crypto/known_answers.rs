//! Published answers, as data: NIST CAVP for GCM, RFC 5869 for HKDF, RFC 4231 for HMAC.

use super::derive::hkdf_sha256;
use super::mac::MacKey;
use super::seal::{SealError, SealingKey};
use super::secret::Secret;

/// The fields of each row, as bytes; "-" is empty. Rows and fields are counted, so that no table shrinks unseen.
fn rows<const FIELDS: usize>(table: &'static str, count: usize) -> Vec<[&'static str; FIELDS]> {
    let rows: Vec<_> = table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| <[&str; FIELDS]>::try_from(line.split(' ').collect::<Vec<_>>()).expect("a full row"))
        .collect();
    assert_eq!(rows.len(), count);
    rows
}

fn bytes(field: &str) -> Vec<u8> {
    if field == "-" { Vec::new() } else { hex::decode(field).expect("hex") }
}

fn array<const N: usize>(field: &str) -> [u8; N] {
    bytes(field).try_into().expect("a field of the right length")
}

fn sealing_key(field: &str) -> SealingKey {
    SealingKey::new(&Secret::filled_by(|secret| *secret = array(field)))
}

#[test]
fn gcm_seals_as_cavp_says() {
    for [key, nonce, plaintext, aad, ciphertext, tag] in rows(include_str!("vectors/gcm_encrypt.txt"), 25) {
        let mut buffer = bytes(plaintext);
        let made = sealing_key(key).seal_in_place(&array(nonce), &bytes(aad), &mut buffer).unwrap();
        assert_eq!((buffer, made), (bytes(ciphertext), array(tag)), "key {key}");
    }
}

#[test]
fn gcm_opens_or_refuses_as_cavp_says() {
    let mut refused = 0;
    for [key, nonce, plaintext, aad, ciphertext, tag] in rows(include_str!("vectors/gcm_decrypt.txt"), 50) {
        let mut buffer = bytes(ciphertext);
        let opened = sealing_key(key).open_in_place(&array(nonce), &bytes(aad), &mut buffer, &array(tag));
        if plaintext == "FAIL" {
            assert_eq!((opened, buffer), (Err(SealError::NotAuthentic), bytes(ciphertext)), "key {key}");
            refused += 1;
        } else {
            assert_eq!((opened, buffer), (Ok(()), bytes(plaintext)), "key {key}");
        }
    }
    assert_eq!(refused, 25);
}

#[test]
fn hkdf_derives_as_rfc_5869_says() {
    for [key, salt, info, extracted, output] in rows(include_str!("vectors/hkdf_sha256.txt"), 3) {
        let mut derived = bytes(output);
        derived.fill(0);
        hkdf_sha256(&bytes(key), &bytes(salt), &bytes(info), &mut derived);
        assert_eq!(derived, bytes(output));
        // Extract is HMAC keyed with the salt (section 2.2), so the table's intermediate value checks the MAC as well.
        assert_eq!(MacKey::from_bytes(&bytes(salt)).tag(&bytes(key)), array(extracted));
    }
}

#[test]
fn hmac_tags_as_rfc_4231_says() {
    for [key, message, tag] in rows(include_str!("vectors/hmac_sha256.txt"), 6) {
        let key = MacKey::from_bytes(&bytes(key));
        assert_eq!(key.tag(&bytes(message)), array(tag));
        assert!(key.verify(&bytes(message), &array(tag)));
    }
}
