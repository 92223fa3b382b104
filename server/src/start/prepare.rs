//! Opens the store before any shard runs: keys, identity, templates, and another shard count when one is asked for.
//! Runs on a temporary shard thread, so that cold files take the same way as hot ones.

use super::StartError;
use super::shards::{ChangeError, change_shards};
use crate::config::{Config, MeansKind, SecretSource};
use crate::crypto::root_key::{LoadedRootKey, RootKeyId, RootKeyInputs};
use crate::exit::ExitStatus;
use crate::metrics::Metrics;
use crate::runtime::placement::Placement;
use crate::runtime::production::Production;
use crate::runtime::shard;
use crate::schema::Templates;
use crate::storage::log::{LogSizes, OpenError, RewriteError};
use crate::storage::store::{DirectoryLock, RootKeyInput, Store, StoreOptions};
use std::future::Future;
use std::str::FromStr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// An opened store, ready for its shards.
pub(super) struct Prepared {
    pub(super) store: Arc<Store>,
    pub(super) templates: Arc<Templates>,
    /// Shards may lack their files and make new ones.
    pub(super) created: bool,
    pub(super) root_key_id: RootKeyId,
    pub(super) root_key_origin: String,
    pub(super) warnings: Vec<String>,
    placement: Placement,
}

impl Prepared {
    /// Every shard has its first files: from now on a missing one is damage, and other generations can go.
    pub(super) fn complete(&self) -> Result<(), StartError> {
        let store = self.store.clone();
        on_a_shard(&self.placement, move |platform| async move {
            store.complete_creation(&platform).await?;
            for generation in store.remove_other_generations(&platform).await? {
                tracing::info!("removed generation {generation}, left over from a change of the shard count");
            }
            Ok(())
        })
    }
}

/// Opens or creates the store; rewrites it when another shard count was asked for. The directory is locked.
pub(super) fn prepare(config: &Config, placement: &Placement) -> Result<Prepared, StartError> {
    let (root_key, key_warnings) = root_key(config.master_key.as_ref())?;
    let expected_key_id = config.key_id.as_deref().map(parse_key_id).transpose()?;
    let options = StoreOptions {
        directory: config.data_dir.clone(),
        root_key,
        expected_key_id,
        shards_wanted: config.shards.map(|shards| shards as u16),
        default_shards: placement.available_cpus() as u16,
    };
    let salvage = config.salvage;
    let mut prepared = on_a_shard(placement, move |platform| open(platform, options, salvage))
        .map(|opened| opened.into_prepared(placement.clone()))?;
    prepared.warnings.splice(0..0, key_warnings);
    Ok(prepared)
}

/// The offline change of the root key.
pub(super) fn rewrap(
    lock: DirectoryLock,
    present: &SecretSource,
    new: &SecretSource,
    key_id: Option<&str>,
) -> Result<String, StartError> {
    let (old, _) = root_key(Some(present))?;
    let (new, _) = root_key(Some(new))?;
    let RootKeyInput::Given { key: new, .. } = new else {
        return Err(StartError::new(ExitStatus::RootKey, "no new root key was given"));
    };
    if let Some(expected) = key_id.map(parse_key_id).transpose()?
        && expected != new.id()
    {
        let message = format!("--key-id expects the root key {expected}, and the new one is {}: correct one", new.id());
        return Err(StartError::new(ExitStatus::RootKey, message));
    }
    let placement = Placement::detect().map_err(|error| StartError::new(ExitStatus::Failure, error.to_string()))?;
    let rewrapped = on_a_shard(&placement, move |platform| async move {
        Ok(crate::storage::store::rewrap(&platform, &lock, old, &new).await?)
    })?;
    for warning in rewrapped.warnings {
        tracing::warn!("{warning}");
    }
    Ok(rewrapped.new.to_string())
}

struct OpenedStore {
    store: Arc<Store>,
    templates: Arc<Templates>,
    created: bool,
    root_key_origin: String,
    warnings: Vec<String>,
}

impl OpenedStore {
    fn into_prepared(self, placement: Placement) -> Prepared {
        Prepared {
            root_key_id: self.store.root_key_id(),
            store: self.store,
            templates: self.templates,
            created: self.created,
            root_key_origin: self.root_key_origin,
            warnings: self.warnings,
            placement,
        }
    }
}

async fn open(platform: Production, options: StoreOptions, salvage: bool) -> Result<OpenedStore, StartError> {
    let opened = match salvage {
        true => Store::open_to_read(&platform, options).await?,
        false => Store::open_or_create(&platform, options).await?,
    };
    let store = Arc::new(opened.store);
    if let Some(shards) = opened.shards_wanted {
        if salvage {
            let message = "a damaged store is salvaged with its own shard count: leave --shards out";
            return Err(StartError::new(ExitStatus::Usage, message));
        }
        rewrite(&platform, &store, shards).await?;
    }
    let unusable = |error: &dyn std::fmt::Display| StartError::new(ExitStatus::DirectoryUnusable, error.to_string());
    let templates = Templates::open(&platform, &store.layout().templates()).await.map_err(|error| unusable(&error))?;
    Ok(OpenedStore {
        // Another shard count has completed what was begun.
        created: !store.is_complete(),
        store,
        templates,
        root_key_origin: opened.root_key_source.to_string(),
        warnings: opened.warnings,
    })
}

/// Another shard count, with what the operator is told of it.
async fn rewrite(platform: &Production, store: &Store, shards: u16) -> Result<(), StartError> {
    tracing::info!("changing the shard count from {} to {shards}: every entity is written anew", store.shards());
    let report = change_shards(platform, store, shards, LogSizes::default()).await.map_err(|error| match error {
        ChangeError::Publish(error) => error.into(),
        ChangeError::Rewrite(ref cause) => {
            let status = match cause {
                RewriteError::Open(OpenError::Damaged(_)) | RewriteError::Damaged(_) => ExitStatus::StoreDamaged,
                RewriteError::OutOfSpace { .. } => ExitStatus::DiskFull,
                _ => ExitStatus::Failure,
            };
            StartError::new(status, error.to_string())
        }
    })?;
    tracing::info!("{} entities now live in {shards} shards", report.entities);
    Ok(())
}

pub(super) fn root_key(source: Option<&SecretSource>) -> Result<(RootKeyInput, Vec<String>), StartError> {
    let Some(source) = source else { return Ok((RootKeyInput::None, Vec::new())) };
    let mut inputs = RootKeyInputs::default();
    match (source, source.means().kind) {
        // What the product keeps in the data directory, the store finds by itself.
        (_, MeansKind::Default) => return Ok((RootKeyInput::None, Vec::new())),
        (SecretSource::Value { secret, .. }, MeansKind::Flag) => inputs.command_line = Some(secret.clone()),
        (SecretSource::Value { secret, .. }, _) => inputs.environment = Some(secret.clone()),
        (SecretSource::File { path, .. }, MeansKind::Flag) => inputs.command_line_file = Some(path.clone()),
        (SecretSource::File { path, .. }, MeansKind::Variable) => inputs.environment_file = Some(path.clone()),
        (SecretSource::File { path, .. }, MeansKind::ConfigFile) => inputs.configuration_file = Some(path.clone()),
    }
    let loaded = inputs.load().map_err(|error| StartError::new(ExitStatus::RootKey, error.to_string()))?;
    let Some(LoadedRootKey { key, source, warnings }) = loaded else { return Ok((RootKeyInput::None, Vec::new())) };
    Ok((RootKeyInput::Given { key, source }, warnings))
}

pub(super) fn parse_key_id(text: &str) -> Result<RootKeyId, StartError> {
    RootKeyId::from_str(text).map_err(|_| {
        StartError::new(ExitStatus::Usage, format!("--key-id {text} is no root key id: give its 16 hex digits"))
    })
}

/// Runs one future on a shard thread of its own and waits for it.
pub(super) fn on_a_shard<T, F>(
    placement: &Placement,
    work: impl FnOnce(Production) -> F + Send + 'static,
) -> Result<T, StartError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, StartError>> + 'static,
{
    let (sender, receiver) = channel();
    let work = Arc::new(Mutex::new(Some(work)));
    let threads = shard::start(placement, 1, Duration::ZERO, Metrics::new(1), move |context| {
        let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
        let sender = sender.clone();
        async move {
            if let Some(work) = work {
                let _ = sender.send(work(context.platform.clone()).await);
            }
        }
    });
    let failed = |reason: String| StartError::new(ExitStatus::RingRefused, format!("a shard thread failed: {reason}"));
    let threads = threads.map_err(|error| StartError::new(ExitStatus::RingRefused, error.to_string()))?;
    let result = receiver.recv();
    threads.join().map_err(|error| failed(error.to_string()))?;
    result.map_err(|_| failed("it ended without a result; see the log".into()))?
}
