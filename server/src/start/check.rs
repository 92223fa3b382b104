//! `deltadb check`: the offline check of a whole store, shard by shard, on a shard thread of its own.

use super::StartError;
use super::prepare::{on_a_shard, parse_key_id, root_key};
use crate::config::SecretSource;
use crate::crypto::root_key::RootKeyId;
use crate::exit::ExitStatus;
use crate::metrics::Metrics;
use crate::routing::Topology;
use crate::runtime::placement::Placement;
use crate::runtime::platform::{Disk, Platform};
use crate::schema::Templates;
use crate::storage::log::{LogIdentity, LogOptions, LogSizes, ShardCheck, check_shard};
use crate::storage::store::{self, DirectoryLock, Layout, RootKeyInput, StoreError, VerifiedStore};
use std::path::Path;

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// One sentence for each damaged place, with file and offset.
    pub damage: Vec<String>,
    /// What is no damage, but worth knowing.
    pub remarks: Vec<String>,
    /// Shards of the store.
    pub shards: u16,
    /// Files read.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Whole frames.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Documents.
    pub documents: u64,
}

/// Checks the store in a locked directory.
pub(super) fn check(
    lock: DirectoryLock,
    source: &SecretSource,
    key_id: Option<&str>,
) -> Result<CheckReport, StartError> {
    let (root_key, mut remarks) = root_key(Some(source))?;
    let expected = key_id.map(parse_key_id).transpose()?;
    let placement = Placement::detect().map_err(|error| StartError::new(ExitStatus::Failure, error.to_string()))?;
    let mut report = on_a_shard(&placement, move |platform| async move {
        Ok(check_in(platform, lock.layout(), root_key, expected).await?)
    })?;
    report.remarks.splice(0..0, remarks.drain(..));
    Ok(report)
}

/// The same, of a directory that nobody else uses, on any machine.
pub async fn check_in<P: Platform>(
    platform: P,
    layout: &Layout,
    root_key: RootKeyInput,
    expected: Option<RootKeyId>,
) -> Result<CheckReport, StoreError> {
    let store = store::verify(&platform, layout, root_key, expected).await?;
    Ok(check_store(platform, store).await)
}

async fn check_store<P: Platform>(platform: P, store: VerifiedStore) -> CheckReport {
    // The two JSON files were read before.
    let mut report = CheckReport { shards: store.shards, files: 2, remarks: store.warnings, ..CheckReport::default() };
    for generation in &store.other_generations {
        let path = store.layout.generation(*generation);
        report.remarks.push(format!("{} is left over from a change of the shard count", path.display()));
    }
    let topology = Topology::new(store.hash_seed, usize::from(store.shards));
    let metrics = Metrics::new(usize::from(store.shards));
    for shard in 0..store.shards {
        let options = LogOptions {
            directory: store.layout.shard(store.generation, usize::from(shard)),
            create: !store.complete,
            identity: LogIdentity { store_id: store.id, generation: store.generation as u32, shard },
            keyring: store.keyring.clone(),
            salvage: false,
            metrics: metrics.clone(),
            sizes: LogSizes::default(),
        };
        let belongs = |schema: &str, key: &str| topology.owner_of(schema, key) == usize::from(shard);
        match check_shard(platform.clone(), options, belongs).await {
            Ok(checked) => report.add(checked),
            Err(error) => report.damage.push(format!("shard {shard} cannot be read: {error}")),
        }
    }
    report.check_templates(&platform, &store.layout.templates()).await;
    report
}

impl CheckReport {
    /// Templates are not authenticated; one that does not compile refuses the writes to its schema.
    async fn check_templates<P: Platform>(&mut self, platform: &P, directory: &Path) {
        if platform.disk().read_dir(directory).await.is_err() {
            return;
        }
        let templates = match Templates::open(platform, directory).await {
            Ok(templates) => templates,
            Err(error) => return self.damage.push(error.to_string()),
        };
        for id in templates.ids() {
            templates.load(platform, &id).await;
        }
        self.files += templates.ids().len() as u64;
        let damaged = templates.damaged().into_iter();
        self.damage
            .extend(damaged.map(|(id, reason)| format!("{} is damaged: {reason}", templates.path_of(&id).display())));
    }

    fn add(&mut self, shard: ShardCheck) {
        self.damage.extend(shard.damage.iter().map(ToString::to_string));
        let leftovers = shard.leftovers.iter();
        self.remarks
            .extend(leftovers.map(|path| format!("{} is left over: the next start removes it", path.display())));
        self.files += shard.files;
        self.bytes += shard.bytes;
        self.frames += shard.frames;
        self.records += shard.records;
        self.documents += shard.entities;
    }
}
