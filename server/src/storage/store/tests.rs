//! A data directory from creation to rewrap: round trips, crashes at every change of the disk, and every refusal.

mod changes;
mod creation;
mod power_cuts;
mod refusals;

use super::test_platform::TestPlatform;
use super::*;
use futures_lite::future::block_on;
use std::fs;
use tempfile::TempDir;

struct Directory {
    parent: TempDir,
    platform: TestPlatform,
}

impl Directory {
    fn new() -> Self {
        Self { parent: tempfile::tempdir().unwrap(), platform: TestPlatform::new(1) }
    }

    fn path(&self) -> PathBuf {
        self.parent.path().join("data")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.file(name)).unwrap()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.file(name).parent().unwrap()).unwrap();
        fs::write(self.file(name), content).unwrap();
    }

    fn options(&self, root_key: RootKeyInput) -> StoreOptions {
        let directory = self.path();
        StoreOptions { directory, root_key, expected_key_id: None, shards_wanted: None, default_shards: 2 }
    }

    fn open_with(&self, root_key: RootKeyInput) -> Result<Opened, StoreError> {
        block_on(Store::open_or_create(&self.platform, self.options(root_key)))
    }

    fn open(&self) -> Result<Opened, StoreError> {
        self.open_with(RootKeyInput::None)
    }

    fn refusal(&self) -> StoreError {
        self.open().expect_err("it must be refused")
    }

    /// A store as a server leaves it: complete, with shards.
    fn established(root_key: RootKeyInput) -> Self {
        let directory = Self::new();
        let opened = directory.open_with(root_key).unwrap();
        directory.write("shards/1/0/MANIFEST", "sealed");
        block_on(opened.store.complete_creation(&directory.platform)).unwrap();
        directory
    }
}

fn root(byte: u8) -> RootKey {
    RootKey::from_bytes(&[byte; 32])
}

fn given(byte: u8) -> RootKeyInput {
    RootKeyInput::Given { key: root(byte), source: RootKeySource::Environment }
}

fn key_ids(keyring: &Keyring) -> Vec<crate::crypto::keyring::DataKeyId> {
    keyring.keys().map(|key| key.id()).collect()
}
