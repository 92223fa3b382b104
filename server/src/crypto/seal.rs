//! AES-256-GCM (SP 800-38D) under keys derived for one file each.
//!
//! A [`SealingKey`] belongs to one salt and one purpose, so that no key comes near the 2³² messages that random
//! 96-bit nonces allow. Its key schedule is expanded once; AES-NI and CLMUL are found at run time. The caller chooses
//! nonce and associated data and owes a nonce that this key has not seen.

use super::derive::derive;
use super::keyring::DataKey;
use super::secret::Secret;
use crate::sabotage::{Sabotage, is_on};
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use std::fmt;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;
/// Bytes of the salt in a file's header.
pub const SALT_BYTES: usize = 32;

/// What a key seals; each purpose has keys of its own, whatever the salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Records and frames of one segment.
    Segment,
    /// One shard's manifest.
    Manifest,
    /// One index checkpoint.
    Checkpoint,
    /// API keys and their scopes.
    Credentials,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Segment => b"segment/v1",
            Self::Manifest => b"manifest/v1",
            Self::Checkpoint => b"checkpoint/v1",
            Self::Credentials => b"credentials/v1",
        }
    }
}

/// Why bytes were not sealed or opened. The caller knows the place and says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Over 64 GiB, GCM's bound for one message.
    #[error("the message is too long to be sealed at once")]
    TooLong,
    /// Another key, nonce or place, or damaged bytes; the buffer is as it was.
    #[error("the sealed bytes do not authenticate: damaged, or not of this place")]
    NotAuthentic,
}

/// Seals and opens one file's content.
pub struct SealingKey {
    cipher: Box<Aes256Gcm>,
}

impl SealingKey {
    /// The key of the file with this salt.
    pub fn derive(key: &DataKey, salt: &[u8; SALT_BYTES], purpose: Purpose) -> Self {
        Self::new(&derive(key.secret(), salt, purpose.label()))
    }

    pub(super) fn new(secret: &Secret) -> Self {
        Self { cipher: Box::new(Aes256Gcm::new(secret.expose().into())) }
    }

    /// Encrypts the buffer where it lies and returns the tag over it and `aad`.
    #[inline]
    pub fn seal_in_place(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], SealError> {
        let aad = if is_on(Sabotage::DropAssociatedData) { &[] } else { aad };
        match self.cipher.encrypt_inout_detached(nonce.into(), aad, InOutBuf::from(buffer)) {
            Ok(tag) => Ok(tag.into()),
            Err(_) => Err(SealError::TooLong),
        }
    }

    /// Verifies the tag over the buffer and `aad`, then decrypts the buffer where it lies. On an error the buffer
    /// still holds what it held: nothing unauthentic is ever decrypted.
    #[inline]
    pub fn open_in_place(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), SealError> {
        let aad = if is_on(Sabotage::DropAssociatedData) { &[] } else { aad };
        self.cipher
            .decrypt_inout_detached(nonce.into(), aad, InOutBuf::from(buffer), tag.into())
            .map_err(|_| SealError::NotAuthentic)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SealingKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keyring::DataKey;

    const NONCE: [u8; NONCE_BYTES] = [9; NONCE_BYTES];

    fn key(salt: u8, purpose: Purpose) -> SealingKey {
        SealingKey::derive(&DataKey::of_bytes([1; 8], [2; 32]), &[salt; SALT_BYTES], purpose)
    }

    #[test]
    fn opens_what_it_sealed_and_hides_it() {
        let key = key(0, Purpose::Segment);
        for len in [0, 1, 15, 16, 17, 127, 128, 129, 400, 4096, 70_001] {
            let plain: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let mut buffer = plain.clone();
            let tag = key.seal_in_place(&NONCE, b"place", &mut buffer).unwrap();
            assert!(len < 15 || buffer != plain, "{len} bytes stayed readable");
            key.open_in_place(&NONCE, b"place", &mut buffer, &tag).unwrap();
            assert_eq!(buffer, plain);
        }
    }

    #[test]
    fn refuses_any_other_bit_nonce_place_and_leaves_the_buffer() {
        let key = key(0, Purpose::Segment);
        let mut sealed = *b"a document of some length, over two blocks";
        let tag = key.seal_in_place(&NONCE, b"place", &mut sealed).unwrap();
        let refuse = |nonce: &[u8; 12], aad: &[u8], bytes: &[u8], tag: &[u8; 16]| {
            let mut buffer = bytes.to_vec();
            assert_eq!(key.open_in_place(nonce, aad, &mut buffer, tag), Err(SealError::NotAuthentic));
            assert_eq!(buffer, bytes, "a refused buffer was changed");
        };
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed;
            damaged[bit / 8] ^= 1 << (bit % 8);
            refuse(&NONCE, b"place", &damaged, &tag);
        }
        for bit in 0..TAG_BYTES * 8 {
            let mut forged = tag;
            forged[bit / 8] ^= 1 << (bit % 8);
            refuse(&NONCE, b"place", &sealed, &forged);
        }
        refuse(&[8; 12], b"place", &sealed, &tag);
        refuse(&NONCE, b"plac", &sealed, &tag);
        refuse(&NONCE, b"place", &sealed[1..], &tag);
    }

    #[test]
    fn salt_purpose_and_data_key_each_make_another_key() {
        let mut sealed = *b"content";
        let tag = key(0, Purpose::Segment).seal_in_place(&NONCE, b"", &mut sealed).unwrap();
        let other_data_key = SealingKey::derive(&DataKey::of_bytes([1; 8], [3; 32]), &[0; 32], Purpose::Segment);
        let others = [
            key(1, Purpose::Segment),
            key(0, Purpose::Manifest),
            key(0, Purpose::Checkpoint),
            key(0, Purpose::Credentials),
            other_data_key,
        ];
        for other in others {
            let mut buffer = sealed;
            assert_eq!(other.open_in_place(&NONCE, b"", &mut buffer, &tag), Err(SealError::NotAuthentic));
        }
    }
}
