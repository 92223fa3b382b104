//! AES-256-GCM under keys derived for one file each.

use super::keyring::DataKey;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use hkdf::Hkdf;
use sha2::Sha256;

/// What a key seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Records and frames of one segment.
    Segment,
    /// One shard's manifest.
    Manifest,
    /// One index checkpoint.
    Checkpoint,
}

/// The bytes did not authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed bytes do not authenticate")]
pub struct SealError;

/// Seals and opens one file's content.
pub struct SealingKey {
    cipher: Box<Aes256Gcm>,
}

impl SealingKey {
    /// The key of the file with this salt.
    pub fn derive(key: &DataKey, salt: &[u8; 32], purpose: Purpose) -> Self {
        let mut secret = zeroize::Zeroizing::new([0u8; 32]);
        let label: &[u8] = match purpose {
            Purpose::Segment => b"segment/v1",
            Purpose::Manifest => b"manifest/v1",
            Purpose::Checkpoint => b"checkpoint/v1",
        };
        Hkdf::<Sha256>::new(Some(salt), key.secret()).expand(label, &mut *secret).expect("32 bytes is a valid length");
        Self { cipher: Box::new(Aes256Gcm::new((&*secret).into())) }
    }

    /// Encrypts the buffer where it lies and returns the tag over it and `aad`.
    pub fn seal_in_place(&self, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8]) -> Result<[u8; 16], SealError> {
        let tag = self.cipher.encrypt_inout_detached(nonce.into(), aad, InOutBuf::from(buffer));
        tag.map(Into::into).map_err(|_| SealError)
    }

    /// Verifies the tag over the buffer and `aad`, then decrypts the buffer where it lies.
    pub fn open_in_place(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), SealError> {
        self.cipher.decrypt_inout_detached(nonce.into(), aad, InOutBuf::from(buffer), tag.into()).map_err(|_| SealError)
    }
}
