//! A new root key for a store that no server is using. Only `keyring.json` is rewritten; no data key changes.

use super::open::{Existing, open_existing, survey, write_keyring};
use super::{DirectoryLock, RootKeyInput, StoreError};
use crate::crypto::root_key::{RootKey, RootKeyId, RootKeySource};
use crate::runtime::platform::Platform;

/// What a rewrap did.
#[derive(Debug)]
pub struct Rewrapped {
    /// The root key that no longer opens the store.
    pub old: RootKeyId,
    /// The one that does.
    pub new: RootKeyId,
    /// Data keys now wrapped by it.
    pub data_keys: usize,
    /// Whole sentences for the operator.
    pub warnings: Vec<String>,
}

/// Wraps the keys of the locked directory's store by `new`. `old` opens it as a start would (`master.key` included).
/// Until this returns the old key may be needed; after an error, either key may be the right one.
pub async fn rewrap<P: Platform>(
    platform: &P,
    lock: &DirectoryLock,
    old: RootKeyInput,
    new: &RootKey,
) -> Result<Rewrapped, StoreError> {
    let layout = lock.layout();
    let survey = survey(platform.disk(), layout).await?;
    if !survey.holds_store() {
        return Err(StoreError::NoStore { directory: layout.directory().to_owned() });
    }
    let Existing { chosen, keyring, .. } = open_existing(platform, layout, &survey, old, None).await?;
    if chosen.key.id() == new.id() {
        return Err(StoreError::SameRootKey { id: new.id() });
    }
    let keyring = keyring.renewed();
    write_keyring(platform, layout, &keyring, new).await?;
    let mut warnings = Vec::new();
    if let RootKeySource::DataDirectory(path) = &chosen.source {
        warnings.push(format!("{} no longer opens this store: remove it and give the new key", path.display()));
    }
    Ok(Rewrapped { old: chosen.key.id(), new: new.id(), data_keys: keyring.keys().count(), warnings })
}
