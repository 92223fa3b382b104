//! HKDF-SHA256 (RFC 5869), the only way one key becomes another. Each use has its own label, listed here.

use super::secret::Secret;
use hkdf::Hkdf;
use sha2::Sha256;

/// Root key → the key that wraps the keyring's keys.
pub(super) const LABEL_WRAP: &[u8] = b"wrap/v1";
/// Root key → its public id.
pub(super) const LABEL_ID: &[u8] = b"id/v1";
/// Root key → the MAC key of `keyring.json`.
pub(super) const LABEL_KEYRING_MAC: &[u8] = b"keyring-mac/v1";
/// Store key → the MAC key of `store.json`.
pub(super) const LABEL_STORE_MAC: &[u8] = b"store-mac/v1";

/// Fills `output` from `key`. An empty salt is RFC 5869's "not provided".
///
/// # Panics
/// When `output` is longer than 255 blocks of 32 bytes; callers ask for at most two.
pub fn hkdf_sha256(key: &[u8], salt: &[u8], label: &[u8], output: &mut [u8]) {
    Hkdf::<Sha256>::new(Some(salt), key).expand(label, output).expect("an output of at most 8160 bytes");
}

/// A whole derived key.
pub(super) fn derive(key: &Secret, salt: &[u8], label: &[u8]) -> Secret {
    Secret::filled_by(|output| hkdf_sha256(key.expose(), salt, label, output))
}
