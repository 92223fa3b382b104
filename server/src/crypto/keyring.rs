//! Data keys, wrapped by the root key.

use crate::runtime::platform::Entropy;
use std::fmt;
use zeroize::Zeroizing;

/// Names one data key of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataKeyId(pub [u8; 8]);

impl fmt::Display for DataKeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

/// One data key.
pub struct DataKey {
    id: DataKeyId,
    secret: Zeroizing<[u8; 32]>,
}

impl DataKey {
    /// Its public name.
    pub fn id(&self) -> DataKeyId {
        self.id
    }

    pub(super) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

/// All data keys of a store.
pub struct Keyring {
    keys: Vec<DataKey>,
    generation: u64,
}

impl Keyring {
    /// A keyring with one active key.
    pub fn create(entropy: &impl Entropy, _store_id: [u8; 16], _created_unix_ms: u64) -> Self {
        Self { keys: vec![fresh(entropy)], generation: 1 }
    }

    /// The key that new files are sealed with.
    pub fn active(&self) -> &DataKey {
        &self.keys[self.keys.len() - 1]
    }

    /// A key by its name.
    pub fn get(&self, id: DataKeyId) -> Option<&DataKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// Counts the changes of the keyring.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The same keys and a new active one.
    pub fn rotate(&self, entropy: &impl Entropy, _now_unix_ms: u64) -> Self {
        let mut keys: Vec<DataKey> =
            self.keys.iter().map(|key| DataKey { id: key.id, secret: key.secret.clone() }).collect();
        keys.push(fresh(entropy));
        Self { keys, generation: self.generation + 1 }
    }
}

fn fresh(entropy: &impl Entropy) -> DataKey {
    let mut id = [0; 8];
    entropy.fill(&mut id);
    let mut secret = Zeroizing::new([0; 32]);
    entropy.fill(&mut *secret);
    DataKey { id: DataKeyId(id), secret }
}
