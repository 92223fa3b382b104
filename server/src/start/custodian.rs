//! Keeps the keyring of the store on behalf of the dispatch of shard 0.

use crate::crypto::keyring::{DataKeyId, DataKeyState};
use crate::gateway::dispatch::{KeyCustodian, KeyringFuture};
use crate::runtime::platform::Platform;
use crate::storage::store::Store;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

/// The store's keyring, written through one shard's platform.
pub struct StoreCustodian<P> {
    store: Arc<Store>,
    platform: P,
}

impl<P: Platform> StoreCustodian<P> {
    /// Of this store, through this platform.
    pub fn keeping(store: Arc<Store>, platform: P) -> Rc<dyn KeyCustodian> {
        Rc::new(Self { store, platform })
    }
}

impl<P: Platform> KeyCustodian for StoreCustodian<P> {
    fn rotate(&self) -> KeyringFuture {
        let (store, platform) = (self.store.clone(), self.platform.clone());
        Box::pin(async move { store.rotate_data_key(&platform).await.map_err(|error| error.to_string()) })
    }

    fn drop_unused(&self, in_use: BTreeSet<DataKeyId>) -> KeyringFuture {
        let (store, platform) = (self.store.clone(), self.platform.clone());
        let in_use: Vec<DataKeyId> = in_use.into_iter().collect();
        Box::pin(async move { store.drop_keys_not_in(&platform, &in_use).await.map_err(|error| error.to_string()) })
    }

    fn has_retiring_keys(&self) -> bool {
        self.store.keyring().keys().any(|key| key.state() == DataKeyState::Retiring)
    }
}
