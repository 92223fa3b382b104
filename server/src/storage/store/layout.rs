//! Names inside a data directory.

use std::path::{Path, PathBuf};

/// Where everything lies; nothing here touches the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    directory: PathBuf,
}

impl Layout {
    /// Of a data directory.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The data directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Held by the one process that uses the directory.
    pub fn lock(&self) -> PathBuf {
        self.directory.join("LOCK")
    }

    /// What the store says of itself.
    pub fn descriptor(&self) -> PathBuf {
        self.directory.join("store.json")
    }

    /// The wrapped keys.
    pub fn keyring(&self) -> PathBuf {
        self.directory.join("keyring.json")
    }

    /// The root key of a store for development.
    pub fn master_key(&self) -> PathBuf {
        self.directory.join("master.key")
    }

    /// The admin key, when it was made here.
    pub fn admin_key(&self) -> PathBuf {
        self.directory.join("admin.key")
    }

    /// JSON Schema templates.
    pub fn templates(&self) -> PathBuf {
        self.directory.join("templates")
    }

    /// Where credentials lie.
    pub fn credentials_directory(&self) -> PathBuf {
        self.directory.join("_auth")
    }

    /// API keys and their scopes, sealed.
    pub fn credentials(&self) -> PathBuf {
        self.credentials_directory().join("keys.json")
    }

    /// All generations of shards.
    pub fn shards(&self) -> PathBuf {
        self.directory.join("shards")
    }

    /// One generation.
    pub fn generation(&self, generation: u64) -> PathBuf {
        self.shards().join(generation.to_string())
    }

    /// One shard of one generation.
    pub fn shard(&self, generation: u64, shard: usize) -> PathBuf {
        self.generation(generation).join(shard.to_string())
    }
}
