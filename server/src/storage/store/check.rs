//! What an offline check needs of a store before it looks into the shards. Nothing is written or removed.

use super::open::{Existing, open_existing, survey};
use super::{Layout, RootKeyInput, StoreError};
use crate::crypto::keyring::Keyring;
use crate::crypto::root_key::RootKeyId;
use crate::runtime::platform::{Disk, Platform};
use std::sync::Arc;

/// A store whose own files are authentic.
#[derive(Debug)]
pub struct VerifiedStore {
    /// Where things lie.
    pub layout: Layout,
    /// Its id.
    pub id: [u8; 16],
    /// Seed of the slot hash.
    pub hash_seed: u64,
    /// How many shards it has.
    pub shards: u16,
    /// The generation that counts.
    pub generation: u64,
    /// Whether every shard must have its files.
    pub complete: bool,
    /// The data keys.
    pub keyring: Arc<Keyring>,
    /// Other generations: leftovers of a change of the shard count.
    pub other_generations: Vec<u64>,
    /// Whole sentences for the operator.
    pub warnings: Vec<String>,
}

/// Verifies `keyring.json` with every key in it and `store.json`, under a root key that opens them as a start would. The
/// directory must be locked, or nobody else's.
pub async fn verify<P: Platform>(
    platform: &P,
    layout: &Layout,
    root_key: RootKeyInput,
    expected: Option<RootKeyId>,
) -> Result<VerifiedStore, StoreError> {
    let disk = platform.disk();
    let survey = survey(disk, layout).await?;
    survey.check_whole(layout)?;
    let Existing { chosen, keyring, descriptor } = open_existing(platform, layout, &survey, root_key, expected).await?;
    let names = disk.read_dir(&layout.shards()).await.unwrap_or_default();
    let generations = names.iter().filter_map(|name| name.parse().ok());
    Ok(VerifiedStore {
        layout: layout.clone(),
        id: descriptor.store_id,
        hash_seed: descriptor.hash_seed,
        shards: descriptor.shards,
        generation: descriptor.generation,
        complete: descriptor.complete,
        keyring: Arc::new(keyring),
        other_generations: generations.filter(|generation| *generation != descriptor.generation).collect(),
        warnings: chosen.warnings,
    })
}
