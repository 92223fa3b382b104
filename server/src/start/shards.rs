//! Another shard count: every live entity is written into a new generation, which is then published.

use crate::routing::Topology;
use crate::runtime::platform::Platform;
use crate::storage::log::{LogSizes, RewriteError, RewriteOptions, RewriteReport, rewrite_generation};
use crate::storage::store::{Store, StoreError};

/// Why the shard count was not changed. The store is as it was, unless `store.json` could not be published: then it is
/// the one or the other, whole.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The new generation was not written.
    #[error("the shard count was not changed, the store is as it was: {0}")]
    Rewrite(#[from] RewriteError),
    /// It was not published.
    #[error(transparent)]
    Publish(#[from] StoreError),
}

/// Writes every live entity into a new generation with another shard count and publishes it. The old generation is
/// removed once every shard of the new one is open.
pub async fn change_shards<P: Platform>(
    platform: &P,
    store: &Store,
    shards: u16,
    sizes: LogSizes,
) -> Result<RewriteReport, ChangeError> {
    let (from, to) = (store.generation(), store.generation() + 1);
    let topology = Topology::new(store.hash_seed(), usize::from(shards));
    let options = RewriteOptions {
        directory: store.layout().shards(),
        store_id: store.id(),
        generation_old: from as u32,
        shards_old: store.shards(),
        generation_new: to as u32,
        shards_new: shards,
        keyring: store.keyring(),
        sizes,
    };
    let owner_of = |schema: &str, key: &str| topology.owner_of(schema, key);
    let report = rewrite_generation(platform.clone(), options, owner_of).await?;
    store.publish_generation(platform, shards, to).await?;
    Ok(report)
}
