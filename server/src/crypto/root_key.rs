//! The root key: 32 bytes from the operator that wrap a store's keyring and seal nothing else.
//!
//! It is written as 64 hexadecimal digits or as base64 of 32 bytes. Its id is derived one-way and is public: errors
//! and the start block name keys by it. Nothing here shows or stores the key itself, except [`RootKey::to_hex`], for
//! the file that a new key is written to.

mod source;

pub use source::{LoadedRootKey, RootKeyInputs, RootKeySource};

use super::derive::{LABEL_ID, LABEL_KEYRING_MAC, LABEL_WRAP, derive, hkdf_sha256};
use super::mac::MacKey;
use super::seal::SealingKey;
use super::secret::{KEY_BYTES, Secret};
use crate::runtime::platform::Entropy;
use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use zeroize::Zeroizing;

/// Names a root key without telling it: the first 8 bytes of HKDF(root, "id/v1"), in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootKeyId(pub [u8; 8]);

/// The key above all keys of a store.
#[derive(Clone)]
pub struct RootKey(Secret);

/// Why there is no root key. No variant holds any part of one.
#[derive(Debug, thiserror::Error)]
pub enum RootKeyError {
    /// Neither notation.
    #[error("{origin} holds no root key: expected 64 hexadecimal digits or the base64 of 32 bytes")]
    Unreadable {
        /// Where the text came from.
        origin: String,
    },
    /// Two places give one.
    #[error("the root key is given twice, by {first} and by {second}: keep one of them")]
    GivenTwice {
        /// One place.
        first: String,
        /// The other.
        second: String,
    },
    /// The file cannot be read.
    #[error("cannot read the root key file {path} given by {origin}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// The flag or variable.
        origin: &'static str,
        /// The system's words.
        error: std::io::Error,
    },
    /// Not an id.
    #[error("{given:?} is no root key id: expected 16 hexadecimal digits, as the start block shows them")]
    Id {
        /// What was given.
        given: String,
    },
}

impl RootKey {
    /// A new random one.
    pub fn generate(entropy: &impl Entropy) -> Self {
        Self(Secret::random(entropy))
    }

    /// From its bytes; the caller wipes its own copy.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Secret::filled_by(|secret| secret.copy_from_slice(bytes)))
    }

    /// From its text; white space around it is tolerated. `origin` names the place in the error.
    pub fn parse(text: &str, origin: &str) -> Result<Self, RootKeyError> {
        let text = text.trim_ascii();
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        if hex::decode_to_slice(text, bytes.as_mut_slice()).is_ok() || decode_base64(text, &mut bytes) {
            return Ok(Self::from_bytes(&bytes));
        }
        Err(RootKeyError::Unreadable { origin: origin.to_owned() })
    }

    /// Its public name.
    pub fn id(&self) -> RootKeyId {
        let mut id = [0; 8];
        hkdf_sha256(self.0.expose(), &[], LABEL_ID, &mut id);
        RootKeyId(id)
    }

    /// As text, for the one file that keeps it; the text is wiped when dropped.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.expose()))
    }

    /// What wraps the keys of a keyring.
    pub(super) fn wrapping_key(&self) -> SealingKey {
        SealingKey::new(&derive(&self.0, &[], LABEL_WRAP))
    }

    /// What authenticates `keyring.json`.
    pub(super) fn keyring_mac_key(&self) -> MacKey {
        MacKey::new(&derive(&self.0, &[], LABEL_KEYRING_MAC))
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RootKey(..)")
    }
}

impl fmt::Display for RootKeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for RootKeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RootKeyId({self})")
    }
}

impl FromStr for RootKeyId {
    type Err = RootKeyError;

    fn from_str(text: &str) -> Result<Self, RootKeyError> {
        let mut id = [0; 8];
        match hex::decode_to_slice(text.trim(), &mut id) {
            Ok(()) => Ok(Self(id)),
            Err(_) => Err(RootKeyError::Id { given: text.to_owned() }),
        }
    }
}

/// Both alphabets, padded or not; exactly 32 bytes.
fn decode_base64(text: &str, key: &mut [u8; KEY_BYTES]) -> bool {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let mut decoded = Zeroizing::new([0; KEY_BYTES + 16]);
    for alphabet in [&STANDARD, &URL_SAFE] {
        match GeneralPurpose::new(alphabet, lenient).decode_slice(text, decoded.as_mut_slice()) {
            Ok(KEY_BYTES) => {
                key.copy_from_slice(&decoded[..KEY_BYTES]);
                return true;
            }
            _ => continue,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "00ff10ef20df30cf40bf50af609f708f8090a0b0c0d0e0f0fedcba9876543210";

    fn key() -> RootKey {
        RootKey::parse(HEX, "test").unwrap()
    }

    #[test]
    fn reads_every_notation_of_the_same_key() {
        let bytes: [u8; 32] = hex::decode(HEX).unwrap().try_into().unwrap();
        let standard = base64::engine::general_purpose::STANDARD.encode(bytes);
        let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        assert_ne!(standard.trim_end_matches('='), url_safe, "the sample must tell the alphabets apart");
        for text in [HEX, &HEX.to_uppercase(), &format!("  {HEX}\r\n"), &standard, &format!("{url_safe}\n")] {
            assert_eq!(RootKey::parse(text, "test").unwrap().id(), key().id());
        }
        assert_eq!(key().to_hex().as_str(), HEX);
    }

    #[test]
    fn refuses_everything_else_without_repeating_it() {
        for text in ["", "hunter2", &HEX[2..], &format!("{HEX}00"), &format!("{}zz", &HEX[2..]), &"A".repeat(42)] {
            let error = RootKey::parse(text, "$MASTER_KEY").unwrap_err().to_string();
            assert!(error.starts_with("$MASTER_KEY holds no root key"), "{error}");
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }

    #[test]
    fn id_is_stable_and_reads_back() {
        // HKDF-SHA256(key of 32 zero bytes, no salt, "id/v1"), first 8 bytes: stores on disk depend on it.
        let id = RootKey::from_bytes(&[0; 32]).id();
        assert_eq!(id.to_string(), "d55c151660dd4aec");
        assert_eq!(id.to_string().parse::<RootKeyId>().unwrap(), id);
        assert_ne!(id, key().id());
        assert!("12".parse::<RootKeyId>().unwrap_err().to_string().contains("16 hexadecimal digits"));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", key()), "RootKey(..)");
    }
}
