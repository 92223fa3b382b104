//! HMAC-SHA256 (RFC 2104) for files that are readable but must not be forged; comparison takes constant time.

use super::secret::Secret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

/// Bytes of a tag.
pub const MAC_BYTES: usize = 32;

/// A key that makes and verifies tags; wiped when dropped.
#[derive(Clone)]
pub struct MacKey(Box<Hmac<Sha256>>);

impl MacKey {
    pub(super) fn new(secret: &Secret) -> Self {
        Self::from_bytes(secret.expose())
    }

    /// From raw key bytes of any length. For keys from the keyring use what it hands out.
    pub fn from_bytes(key: &[u8]) -> Self {
        Self(Box::new(Hmac::new_from_slice(key).expect("HMAC takes a key of any length")))
    }

    /// The tag of a message.
    pub fn tag(&self, message: &[u8]) -> [u8; MAC_BYTES] {
        let mut mac = self.0.clone();
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    /// Whether `tag` is the message's.
    #[must_use]
    pub fn verify(&self, message: &[u8], tag: &[u8; MAC_BYTES]) -> bool {
        let mut mac = self.0.clone();
        mac.update(message);
        mac.verify_slice(tag).is_ok()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MacKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_tag_message_and_key_counts() {
        let key = MacKey::from_bytes(&[7; 32]);
        let tag = key.tag(b"store");
        assert!(key.verify(b"store", &tag));
        assert!(!key.verify(b"stors", &tag));
        assert!(!MacKey::from_bytes(&[8; 32]).verify(b"store", &tag));
        for bit in 0..MAC_BYTES * 8 {
            let mut forged = tag;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.verify(b"store", &forged), "bit {bit} does not count");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", MacKey::from_bytes(&[7; 32])), "MacKey(..)");
    }
}
