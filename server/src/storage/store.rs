//! One data directory as a whole: whose it is, which keys open it, how many shards it has.
//!
//! It owns `LOCK`, `store.json`, `keyring.json` and `master.key`, and knows where everything else lies. Invariants: a
//! key is durable before anything is sealed under it; a key is never made over existing data; what cannot be opened
//! is refused with the file and the remedy. It refuses to look into shards, templates and credentials: their rooms do.

mod change;
mod check;
mod descriptor;
mod error;
mod layout;
mod lock;
mod look_over;
mod open;
mod read;
mod rewrap;

#[cfg(test)]
mod test_platform;
#[cfg(test)]
mod tests;

pub use check::{VerifiedStore, verify};
pub use descriptor::STORE_FORMAT_VERSION;
pub use error::StoreError;
pub use layout::Layout;
pub use lock::{DirectoryLock, open_to_others, restrict_file_modes};
pub use look_over::Unsound;
pub use rewrap::{Rewrapped, rewrap};

use crate::crypto::keyring::Keyring;
use crate::crypto::root_key::{LoadedRootKey, RootKey, RootKeyId, RootKeySource};
use crate::runtime::platform::Platform;
use change::Change;
use descriptor::Descriptor;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the operator gave as root key.
#[derive(Debug, Default)]
pub enum RootKeyInput {
    /// Nothing: `master.key` is used, and made in a fresh directory.
    #[default]
    None,
    /// A key.
    Given {
        /// The key.
        key: RootKey,
        /// From where.
        source: RootKeySource,
    },
}

/// How to open a data directory.
#[derive(Debug)]
pub struct StoreOptions {
    /// The data directory.
    pub directory: PathBuf,
    /// The root key.
    pub root_key: RootKeyInput,
    /// `--key-id`: any other root key is refused.
    pub expected_key_id: Option<RootKeyId>,
    /// `--shards`, when it was given.
    pub shards_wanted: Option<u16>,
    /// Shards of a fresh store when none were asked for.
    pub default_shards: u16,
}

/// An opened data directory.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Shards may lack their files and get new ones: the store is fresh, or its creation was cut short. Otherwise a
    /// missing file is damage. It was so when it was opened; [`Store::is_complete`] says what holds later.
    pub created: bool,
    /// Where the root key came from; its text form is fit for the start block.
    pub root_key_source: RootKeySource,
    /// The shard count asked for, when it is not the store's: the caller rewrites the store, then calls
    /// [`Store::publish_generation`].
    pub shards_wanted: Option<u16>,
    /// Whole sentences for the operator.
    pub warnings: Vec<String>,
}

/// A data directory that is open. Shared by all shards; changes go through one at a time.
pub struct Store {
    layout: Layout,
    root_key: RootKey,
    state: Mutex<State>,
}

struct State {
    keyring: Arc<Keyring>,
    descriptor: Descriptor,
    change: Change,
}

impl Store {
    /// Opens the store in a directory, or makes one in a fresh directory. The caller holds the [`DirectoryLock`].
    pub async fn open_or_create<P: Platform>(platform: &P, options: StoreOptions) -> Result<Opened, StoreError> {
        open::open_or_create(platform, options).await
    }

    /// Opens the store that is there as it is: nothing is made, written or removed, not even leftovers. The caller holds
    /// the [`DirectoryLock`].
    pub async fn open_to_read<P: Platform>(platform: &P, options: StoreOptions) -> Result<Opened, StoreError> {
        open::open_to_read(platform, options).await
    }

    /// Random, given at creation.
    pub fn id(&self) -> [u8; 16] {
        self.state().descriptor.store_id
    }

    /// Seed of the slot hash, told to clients.
    pub fn hash_seed(&self) -> u64 {
        self.state().descriptor.hash_seed
    }

    /// How many shards the store has, whatever was asked for.
    pub fn shards(&self) -> u16 {
        self.state().descriptor.shards
    }

    /// Goes up when the shard count changes; names a directory under `shards/`.
    pub fn generation(&self) -> u64 {
        self.state().descriptor.generation
    }

    /// Whether every shard must have its files: a missing one is damage then.
    pub fn is_complete(&self) -> bool {
        self.state().descriptor.complete
    }

    /// When the store was made.
    pub fn created_unix_ms(&self) -> u64 {
        self.state().descriptor.created_unix_ms
    }

    /// The newest durable keyring.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.state().keyring.clone()
    }

    /// The root key's public name.
    pub fn root_key_id(&self) -> RootKeyId {
        self.root_key.id()
    }

    /// Where things lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where one shard of the current generation lies.
    pub fn shard_directory(&self, shard: usize) -> PathBuf {
        self.layout.shard(self.generation(), shard)
    }

    fn new(directory: &Path, root_key: RootKey, keyring: Keyring, descriptor: Descriptor) -> Self {
        let state = State { keyring: Arc::new(keyring), descriptor, change: Change::None };
        Self { layout: Layout::new(directory), root_key, state: Mutex::new(state) }
    }

    /// Held for a few instructions, never over an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Option<LoadedRootKey>> for RootKeyInput {
    fn from(loaded: Option<LoadedRootKey>) -> Self {
        loaded.map_or(Self::None, |LoadedRootKey { key, source, .. }| Self::Given { key, source })
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        formatter
            .debug_struct("Store")
            .field("directory", &self.layout.directory())
            .field("descriptor", &state.descriptor)
            .field("keyring", &state.keyring)
            .finish_non_exhaustive()
    }
}
