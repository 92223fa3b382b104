//! Changes of an open store: keys, generation, completion. One at a time, each durable before it is seen.
//!
//! After a failed or abandoned change it is not known what the disk holds, so that a second one could give two
//! keyrings the same generation: all further changes are refused until a restart has read the disk.

use super::descriptor::Descriptor;
use super::open::{keyring_on_disk, write_descriptor, write_keyring};
use super::{State, Store, StoreError};
use crate::crypto::keyring::{DATA_KEYS_MAX, DataKey, DataKeyId, DataKeyState, Keyring};
use crate::limits::SHARDS_MAX;
use crate::runtime::platform::{Clock, Disk, Platform};
use crate::sabotage::{Sabotage, is_on};
use std::sync::Arc;

/// Whether the store may be changed.
pub(super) enum Change {
    None,
    UnderWay,
    Failed(String),
}

impl Store {
    /// Makes a new active data key, durably. The caller then has every shard adopt the keyring that is returned.
    pub async fn rotate_data_key<P: Platform>(&self, platform: &P) -> Result<Arc<Keyring>, StoreError> {
        let (keyring, _) = self.begin()?;
        if keyring.keys().count() >= DATA_KEYS_MAX {
            self.state().change = Change::None;
            return Err(StoreError::KeyringFull);
        }
        self.replace_keyring(platform, keyring.rotate(platform.entropy(), platform.clock().unix_ms())).await
    }

    /// Drops the retiring keys that are not in `in_use`, durably; returns the keyring there is afterwards. `in_use` is
    /// what every shard and the credentials still name, asked for after all of them adopted the current keyring.
    pub async fn drop_keys_not_in<P: Platform>(
        &self,
        platform: &P,
        in_use: &[DataKeyId],
    ) -> Result<Arc<Keyring>, StoreError> {
        let (keyring, _) = self.begin()?;
        let named = |key: &DataKey| in_use.contains(&key.id()) && !is_on(Sabotage::DropKeysInUse);
        let unused = |key: &&DataKey| key.state() == DataKeyState::Retiring && !named(key);
        let drop: Vec<DataKeyId> = keyring.keys().filter(unused).map(DataKey::id).collect();
        if drop.is_empty() {
            self.state().change = Change::None;
            return Ok(keyring);
        }
        self.replace_keyring(platform, keyring.without(&drop)).await
    }

    /// Makes another generation of shards the one that counts. All of it must be durable before.
    pub async fn publish_generation<P: Platform>(
        &self,
        platform: &P,
        shards: u16,
        generation: u64,
    ) -> Result<(), StoreError> {
        if !(1..=SHARDS_MAX).contains(&usize::from(shards)) {
            return Err(StoreError::ShardCount { given: shards });
        }
        let (keyring, descriptor) = self.begin()?;
        if generation <= descriptor.generation {
            self.state().change = Change::None;
            return Err(StoreError::GenerationOrder { current: descriptor.generation, given: generation });
        }
        let next = Descriptor { shards, generation, complete: true, ..descriptor };
        self.complete_with(platform, &keyring, next).await
    }

    /// Says that every shard has its first files, durably: from now on a missing one is damage. Called before the
    /// first write is acknowledged; does nothing on a store that is complete.
    pub async fn complete_creation<P: Platform>(&self, platform: &P) -> Result<(), StoreError> {
        let (keyring, descriptor) = self.begin()?;
        if descriptor.complete {
            self.state().change = Change::None;
            return Ok(());
        }
        self.complete_with(platform, &keyring, Descriptor { complete: true, ..descriptor }).await
    }

    /// Removes generations that do not count: leftovers of a change of the shard count. Called only once every shard
    /// of the current one is open. Returns what was removed.
    pub async fn remove_other_generations<P: Platform>(&self, platform: &P) -> Result<Vec<u64>, StoreError> {
        let (disk, shards, current) = (platform.disk(), self.layout.shards(), self.generation());
        let names = disk.read_dir(&shards).await.map_err(StoreError::io("list", &shards))?;
        let others: Vec<u64> =
            names.iter().filter_map(|name| name.parse().ok()).filter(|generation| *generation != current).collect();
        for other in &others {
            let path = self.layout.generation(*other);
            disk.remove_dir_all(&path).await.map_err(StoreError::io("remove", &path))?;
        }
        if !others.is_empty() {
            disk.sync_dir(&shards).await.map_err(StoreError::io("sync", &shards))?;
        }
        Ok(others)
    }

    pub(super) fn begin(&self) -> Result<(Arc<Keyring>, Descriptor), StoreError> {
        let mut state = self.state();
        match &state.change {
            Change::UnderWay => return Err(StoreError::ChangeUnderWay),
            Change::Failed(reason) => return Err(StoreError::ChangeFailed { reason: reason.clone() }),
            Change::None => state.change = Change::UnderWay,
        }
        Ok((state.keyring.clone(), state.descriptor.clone()))
    }

    async fn replace_keyring<P: Platform>(&self, platform: &P, next: Keyring) -> Result<Arc<Keyring>, StoreError> {
        let written = write_keyring(platform, &self.layout, &next, &self.root_key).await;
        if written.as_ref().is_err_and(StoreError::is_out_of_space)
            && keyring_on_disk(platform.disk(), &self.layout, &self.root_key).await == Some(next.generation() - 1)
        {
            // Met before anything was renamed: the change can be tried again once there is room.
            self.state().change = Change::None;
            return written.map(|()| Arc::new(next));
        }
        let next = Arc::new(next);
        self.finish(written, |state| state.keyring = next.clone())?;
        Ok(next)
    }

    /// The names down to the generation are durable before `store.json` insists on them.
    async fn complete_with<P: Platform>(
        &self,
        platform: &P,
        keyring: &Keyring,
        next: Descriptor,
    ) -> Result<(), StoreError> {
        let written = match self.sync_down_to(platform.disk(), next.generation).await {
            Ok(()) => write_descriptor(platform, &self.layout, &next, keyring).await,
            error => error,
        };
        self.finish(written, |state| state.descriptor = next)
    }

    async fn sync_down_to<D: Disk>(&self, disk: &D, generation: u64) -> Result<(), StoreError> {
        let directories =
            [self.layout.generation(generation), self.layout.shards(), self.layout.directory().to_owned()];
        for directory in directories {
            disk.sync_dir(&directory).await.map_err(StoreError::io("sync", &directory))?;
        }
        Ok(())
    }

    fn finish(&self, written: Result<(), StoreError>, adopt: impl FnOnce(&mut State)) -> Result<(), StoreError> {
        let mut state = self.state();
        match &written {
            Ok(()) => {
                adopt(&mut state);
                state.change = Change::None;
            }
            Err(error) => state.change = Change::Failed(error.to_string()),
        }
        written
    }
}
