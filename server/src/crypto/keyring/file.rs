//! `keyring.json`: the keys of a store, each wrapped by the root key, under a MAC over the whole.
//!
//! | member | meaning |
//! | --- | --- |
//! | `format_version` | [`KEYRING_FORMAT_VERSION`]; a newer one is refused |
//! | `store_id` | 32 hexadecimal digits |
//! | `generation` | goes up with every change |
//! | `root_key_id` | which root key opens it |
//! | `keys[]` | `id`, `purpose` (`data`, `store`), `created_unix_ms`, `state` (`active`, `retiring`), `nonce`, `wrapped` |
//! | `mac` | HMAC-SHA256 of all text before it, under HKDF(root, "keyring-mac/v1") |
//!
//! `wrapped` is AES-256-GCM (ciphertext, then tag) under HKDF(root, "wrap/v1"). Its associated data is 34 bytes: store
//! id (16), key id (8), created (8, little-endian), state (1), purpose (1). A keyring holds one active data key and
//! one store key; everything else is refused.

use super::{DATA_KEYS_MAX, DataKey, DataKeyId, DataKeyState, Keyring, StoreKey};
use crate::crypto::mac_json::{self, MacJsonError};
use crate::crypto::root_key::{RootKey, RootKeyId};
use crate::crypto::seal::{NONCE_BYTES, SealingKey, TAG_BYTES};
use crate::crypto::secret::{KEY_BYTES, Secret};
use crate::runtime::platform::Entropy;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The version this build writes, and the newest it reads.
pub const KEYRING_FORMAT_VERSION: u32 = 1;

/// Why a keyring does not open. The caller names the file and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// Written by a newer build.
    #[error("the keyring has format version {found}, and this build reads up to {KEYRING_FORMAT_VERSION}")]
    NewerFormat {
        /// Its version.
        found: u32,
    },
    /// Another root key wrapped it.
    #[error("the keyring needs the root key {expected}, and {given} was given")]
    WrongRootKey {
        /// The id it names.
        expected: RootKeyId,
        /// The id of the key at hand.
        given: RootKeyId,
    },
    /// It is not what was written.
    #[error("the keyring is damaged: {reason}")]
    Damaged {
        /// What does not fit.
        reason: &'static str,
    },
}

/// What a keyring says of itself before any key is at hand: unauthenticated, for choosing a key and for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyringHeader {
    /// The store it says it belongs to.
    pub store_id: [u8; 16],
    /// The root key it says it needs.
    pub root_key_id: RootKeyId,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileBody {
    format_version: u32,
    store_id: String,
    generation: u64,
    root_key_id: String,
    keys: Vec<FileKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    id: String,
    purpose: FilePurpose,
    created_unix_ms: u64,
    state: FileState,
    nonce: String,
    wrapped: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FilePurpose {
    Data,
    Store,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileState {
    Active,
    Retiring,
}

#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
}

#[derive(Deserialize)]
struct HeaderOnly {
    store_id: String,
    root_key_id: String,
}

/// What the wrap binds a key to.
struct KeyPlace {
    store_id: [u8; 16],
    id: DataKeyId,
    created_unix_ms: u64,
    state: FileState,
    purpose: FilePurpose,
}

impl Keyring {
    /// The text of `keyring.json`, under this root key. Every call wraps anew.
    pub fn seal(&self, root: &RootKey, entropy: &impl Entropy) -> Vec<u8> {
        assert!(self.retiring.len() < DATA_KEYS_MAX, "a keyring holds at most {DATA_KEYS_MAX} data keys");
        let wrapping = root.wrapping_key();
        let place = |id, created_unix_ms, state, purpose| KeyPlace {
            store_id: self.store_id,
            id,
            created_unix_ms,
            state,
            purpose,
        };
        let mut keys: Vec<FileKey> = self
            .keys()
            .map(|key| {
                let place = place(key.id, key.created_unix_ms, key.state.into(), FilePurpose::Data);
                place.wrap(&key.secret, &wrapping, entropy)
            })
            .collect();
        let store_key = &self.store_key;
        let store_place = place(store_key.id, store_key.created_unix_ms, FileState::Active, FilePurpose::Store);
        keys.push(store_place.wrap(&store_key.secret, &wrapping, entropy));
        let body = FileBody {
            format_version: KEYRING_FORMAT_VERSION,
            store_id: hex::encode(self.store_id),
            generation: self.generation,
            root_key_id: root.id().to_string(),
            keys,
        };
        mac_json::render(&body, &root.keyring_mac_key())
    }

    /// Opens what [`Keyring::seal`] made under the same root key.
    pub fn open(text: &[u8], root: &RootKey) -> Result<Self, KeyringError> {
        let expected = Self::header(text)?.root_key_id;
        if expected != root.id() {
            return Err(KeyringError::WrongRootKey { expected, given: root.id() });
        }
        let body: FileBody = mac_json::open(text, &root.keyring_mac_key()).map_err(|error| match error {
            MacJsonError::Forged => damaged("its MAC does not fit its content"),
            MacJsonError::Unexpected => damaged("it lacks what this version expects"),
        })?;
        body.unwrap_keys(&root.wrapping_key())
    }

    /// What a keyring needs, before there is a key; refuses newer formats and what is no keyring at all.
    pub fn header(text: &[u8]) -> Result<KeyringHeader, KeyringError> {
        let VersionOnly { format_version } = mac_json::peek(text).ok_or(damaged("it is no keyring"))?;
        if format_version > KEYRING_FORMAT_VERSION {
            return Err(KeyringError::NewerFormat { found: format_version });
        }
        let header: HeaderOnly = mac_json::peek(text).ok_or(damaged("it names no store or root key"))?;
        let store_id = bytes(&header.store_id, "its store id is unreadable")?;
        let root_key_id = RootKeyId(bytes(&header.root_key_id, "its root key id is unreadable")?);
        Ok(KeyringHeader { store_id, root_key_id })
    }
}

impl FileBody {
    fn unwrap_keys(self, wrapping: &SealingKey) -> Result<Keyring, KeyringError> {
        if self.format_version != KEYRING_FORMAT_VERSION {
            return Err(damaged("its format version is unknown"));
        }
        let store_id = bytes(&self.store_id, "its store id is unreadable")?;
        let (mut active, mut retiring, mut store_key) = (None, Vec::new(), None);
        for key in &self.keys {
            let place = key.place(store_id)?;
            let secret = place.unwrap(key, wrapping)?;
            let KeyPlace { id, created_unix_ms, .. } = place;
            let full = match (key.purpose, key.state) {
                (FilePurpose::Store, FileState::Active) => {
                    store_key.replace(StoreKey { id, created_unix_ms, secret }).is_some()
                }
                (FilePurpose::Data, FileState::Active) => {
                    let state = DataKeyState::Active;
                    active.replace(DataKey { id, created_unix_ms, state, secret }).is_some()
                }
                (FilePurpose::Data, FileState::Retiring) => {
                    retiring.push(DataKey { id, created_unix_ms, state: DataKeyState::Retiring, secret });
                    retiring.len() >= DATA_KEYS_MAX
                }
                (FilePurpose::Store, FileState::Retiring) => true,
            };
            if full {
                return Err(damaged("it holds more keys of a kind than a store has"));
            }
        }
        let active = active.ok_or(damaged("it holds no active data key"))?;
        let store_key = store_key.ok_or(damaged("it holds no store key"))?;
        Ok(Keyring { store_id, generation: self.generation, active, retiring, store_key })
    }
}

impl FileKey {
    fn place(&self, store_id: [u8; 16]) -> Result<KeyPlace, KeyringError> {
        let id = DataKeyId(bytes(&self.id, "a key id is unreadable")?);
        Ok(KeyPlace { store_id, id, created_unix_ms: self.created_unix_ms, state: self.state, purpose: self.purpose })
    }
}

impl KeyPlace {
    fn aad(&self) -> [u8; 34] {
        let mut aad = [0; 34];
        aad[..16].copy_from_slice(&self.store_id);
        aad[16..24].copy_from_slice(&self.id.0);
        aad[24..32].copy_from_slice(&self.created_unix_ms.to_le_bytes());
        aad[32] = match self.state {
            FileState::Active => 0,
            FileState::Retiring => 1,
        };
        aad[33] = match self.purpose {
            FilePurpose::Data => 0,
            FilePurpose::Store => 1,
        };
        aad
    }

    fn wrap(&self, secret: &Secret, wrapping: &SealingKey, entropy: &impl Entropy) -> FileKey {
        let mut nonce = [0; NONCE_BYTES];
        entropy.fill(&mut nonce);
        let mut sealed = Zeroizing::new(*secret.expose());
        let tag = wrapping
            .seal_in_place(&nonce, &self.aad(), sealed.as_mut_slice())
            .expect("32 bytes are below the bound of one message");
        FileKey {
            id: self.id.to_string(),
            purpose: self.purpose,
            created_unix_ms: self.created_unix_ms,
            state: self.state,
            nonce: hex::encode(nonce),
            wrapped: hex::encode(sealed.as_slice()) + &hex::encode(tag),
        }
    }

    fn unwrap(&self, key: &FileKey, wrapping: &SealingKey) -> Result<Secret, KeyringError> {
        let nonce: [u8; NONCE_BYTES] = bytes(&key.nonce, "a nonce is unreadable")?;
        let wrapped: [u8; KEY_BYTES + TAG_BYTES] = bytes(&key.wrapped, "a wrapped key is unreadable")?;
        let (sealed, tag) = wrapped.split_at(KEY_BYTES);
        let tag = tag.try_into().map_err(|_| damaged("a wrapped key has no tag"))?;
        let mut opened = Ok(());
        let secret = Secret::filled_by(|bytes| {
            bytes.copy_from_slice(sealed);
            opened = wrapping.open_in_place(&nonce, &self.aad(), bytes, tag);
        });
        opened.map(|()| secret).map_err(|_| damaged("a wrapped key does not authenticate"))
    }
}

impl From<DataKeyState> for FileState {
    fn from(state: DataKeyState) -> Self {
        match state {
            DataKeyState::Active => Self::Active,
            DataKeyState::Retiring => Self::Retiring,
        }
    }
}

fn bytes<const N: usize>(digits: &str, reason: &'static str) -> Result<[u8; N], KeyringError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).map(|()| bytes).map_err(|_| damaged(reason))
}

fn damaged(reason: &'static str) -> KeyringError {
    KeyringError::Damaged { reason }
}
