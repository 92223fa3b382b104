//! The keys of one store: one active data key, those on their way out, and the store key.
//!
//! A keyring is immutable; every change makes a new one of the next generation, which the caller makes durable before
//! anything is sealed under it. The store key authenticates `store.json` and survives both data-key rotation and a new
//! root key. On disk (`file`) every key is wrapped by the root key.

mod file;

pub use file::{KEYRING_FORMAT_VERSION, KeyringError, KeyringHeader};

use super::derive::{LABEL_STORE_MAC, derive};
use super::mac::MacKey;
use super::secret::Secret;
use crate::runtime::platform::Entropy;
use std::fmt;

/// Most data keys a keyring may hold; far more rotations than background re-sealing can fall behind.
pub const DATA_KEYS_MAX: usize = 1024;

/// Names one data key of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataKeyId(pub [u8; 8]);

/// Whether new data is sealed under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKeyState {
    /// It is: exactly one key of a keyring.
    Active,
    /// It only opens what was sealed before, until all that is sealed anew.
    Retiring,
}

/// One data key. It seals nothing itself: `SealingKey::derive` makes a key for each file from it.
#[derive(Clone)]
pub struct DataKey {
    id: DataKeyId,
    created_unix_ms: u64,
    state: DataKeyState,
    secret: Secret,
}

/// All keys of a store.
#[derive(Clone)]
pub struct Keyring {
    store_id: [u8; 16],
    generation: u64,
    active: DataKey,
    /// Newest first.
    retiring: Vec<DataKey>,
    store_key: StoreKey,
}

/// Authenticates what a store says of itself.
#[derive(Clone)]
struct StoreKey {
    id: DataKeyId,
    created_unix_ms: u64,
    secret: Secret,
}

impl Keyring {
    /// The first keyring of a store.
    pub fn create(entropy: &impl Entropy, store_id: [u8; 16], created_unix_ms: u64) -> Self {
        let active = DataKey::random(entropy, created_unix_ms);
        let store_key = StoreKey { id: random_id(entropy), created_unix_ms, secret: Secret::random(entropy) };
        Self { store_id, generation: 1, active, retiring: Vec::new(), store_key }
    }

    /// The store these keys belong to.
    pub fn store_id(&self) -> [u8; 16] {
        self.store_id
    }

    /// Goes up with every change; a manifest names the one it was written under.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The key that new files are sealed under.
    pub fn active(&self) -> &DataKey {
        &self.active
    }

    /// A key by id, whatever its state.
    pub fn get(&self, id: DataKeyId) -> Option<&DataKey> {
        self.keys().find(|key| key.id == id)
    }

    /// Every data key, the active one first.
    pub fn keys(&self) -> impl Iterator<Item = &DataKey> {
        std::iter::once(&self.active).chain(&self.retiring)
    }

    /// What authenticates `store.json`.
    pub fn store_mac_key(&self) -> MacKey {
        MacKey::new(&derive(&self.store_key.secret, &self.store_id, LABEL_STORE_MAC))
    }

    /// The next generation, with a new active key.
    pub fn rotate(&self, entropy: &impl Entropy, now_unix_ms: u64) -> Self {
        let mut active = DataKey::random(entropy, now_unix_ms);
        while self.get(active.id).is_some() {
            active.id = random_id(entropy);
        }
        let mut next = self.next();
        let retired = std::mem::replace(&mut next.active, active);
        next.retiring.insert(0, DataKey { state: DataKeyState::Retiring, ..retired });
        next
    }

    /// The next generation, without those of `ids` that are retiring. The active key always stays.
    pub fn without(&self, ids: &[DataKeyId]) -> Self {
        let mut next = self.next();
        next.retiring.retain(|key| !ids.contains(&key.id));
        next
    }

    /// The next generation with the same keys: for another root key.
    pub fn renewed(&self) -> Self {
        self.next()
    }

    /// Every secret in it, for tests that look for them where they must not be.
    #[cfg(test)]
    pub(crate) fn secrets_in_hex(&self) -> Vec<String> {
        self.keys()
            .map(|key| &key.secret)
            .chain([&self.store_key.secret])
            .map(|key| hex::encode(key.expose()))
            .collect()
    }

    fn next(&self) -> Self {
        // One change a nanosecond would take five centuries to get there.
        let generation = self.generation.checked_add(1).expect("a generation below 2^64");
        Self { generation, ..self.clone() }
    }
}

impl DataKey {
    fn random(entropy: &impl Entropy, created_unix_ms: u64) -> Self {
        let id = random_id(entropy);
        Self { id, created_unix_ms, state: DataKeyState::Active, secret: Secret::random(entropy) }
    }

    /// A key of known bytes, for tests of what is built on it.
    #[cfg(test)]
    pub(crate) fn of_bytes(id: [u8; 8], secret: [u8; 32]) -> Self {
        let secret = Secret::filled_by(|bytes| *bytes = secret);
        Self { id: DataKeyId(id), created_unix_ms: 0, state: DataKeyState::Active, secret }
    }

    /// Its name, kept in the header of every file sealed under it.
    pub fn id(&self) -> DataKeyId {
        self.id
    }

    /// When it was made.
    pub fn created_unix_ms(&self) -> u64 {
        self.created_unix_ms
    }

    /// Whether new files use it.
    pub fn state(&self) -> DataKeyState {
        self.state
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }
}

fn random_id(entropy: &impl Entropy) -> DataKeyId {
    let mut id = [0; 8];
    entropy.fill(&mut id);
    DataKeyId(id)
}

impl fmt::Display for DataKeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DataKey").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Keyring")
            .field("generation", &self.generation)
            .field("keys", &self.keys().map(DataKey::id).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
