//! The real server on a simulated machine: store, logs, engines, mailboxes and dispatch, wired as `start` does it,
//! without sockets.

use super::model::Name;
use super::setup::Setup;
use deltadb::auth::{Authenticator, Principal};
use deltadb::cache::CacheOptions;
use deltadb::command::{Command, EntityRef, Outcome, Version};
use deltadb::engine::Engine;
use deltadb::gateway::api::Api;
use deltadb::gateway::dispatch::{Delivery, Dispatch, Parts};
use deltadb::gateway::health::Board;
use deltadb::mailbox::Mailboxes;
use deltadb::metrics::{Metrics, ShardMetrics};
use deltadb::routing::Topology;
use deltadb::runtime::platform::{Clock, Platform, Spawn, TaskClass};
use deltadb::runtime::sim::{DiskImage, Sim, SimDoorbell, SimPlatform};
use deltadb::schema::Templates;
use deltadb::start::custodian::StoreCustodian;
use deltadb::start::shards::{ChangeError, change_shards};
use deltadb::storage::log::{LogIdentity, LogOptions, LogStorage, OpenError, OpenReport, RewriteError};
use deltadb::storage::store::{RootKeyInput, Store, StoreError, StoreOptions};
use deltadb::storage::{ReadError, Storage};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The data directory.
pub const DIRECTORY: &str = "/data";
/// The longest that anything may take, in simulated time.
pub const PATIENCE: Duration = Duration::from_secs(20);

type ShardStorage = LogStorage<SimPlatform>;
type Shard = Rc<Dispatch<SimPlatform, ShardStorage, SimDoorbell>>;

/// Why a server did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartFailure {
    /// It says that stored data is damaged, missing or not its own.
    Damaged(String),
    /// There was no space.
    OutOfSpace(String),
    /// The disk refused.
    Io(String),
    /// Anything else.
    Other(String),
}

/// What an entity reads as.
pub type Read = Result<(Version, Rc<[u8]>), ReadError>;

/// A server that runs.
pub struct Server {
    platform: SimPlatform,
    store: Arc<Store>,
    shards: Vec<Shard>,
    topology: Arc<Topology>,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    reports: Vec<OpenReport>,
    /// Whether a change of the shard count was carried out.
    pub resized: bool,
}

/// How to start.
#[derive(Clone, Copy, Debug, Default)]
pub struct StartOptions {
    /// `--shards`.
    pub shards: Option<u16>,
    /// `--salvage`.
    pub salvage: bool,
}

impl Server {
    /// Starts the server of a data directory, and makes the directory if there is none.
    pub async fn start(sim: &Sim, setup: &Setup, options: StartOptions) -> Result<Rc<Self>, StartFailure> {
        let platform = sim.platform();
        let store_options = StoreOptions {
            directory: DIRECTORY.into(),
            root_key: RootKeyInput::None,
            expected_key_id: None,
            shards_wanted: options.shards,
            default_shards: setup.shards,
        };
        let opened = match options.salvage {
            true => Store::open_to_read(&platform, store_options).await?,
            false => Store::open_or_create(&platform, store_options).await?,
        };
        let store = Arc::new(opened.store);
        let wanted = opened.shards_wanted.filter(|_| !options.salvage);
        if let Some(shards) = wanted {
            change_shards(&platform, &store, shards, setup.sizes).await?;
        }
        let templates = Templates::open(&platform, &store.layout().templates()).await;
        let templates = templates.map_err(|error| StartFailure::Io(error.to_string()))?;
        let shards = usize::from(store.shards());
        let metrics = Metrics::new(shards);
        let mut storages = Vec::new();
        for shard in 0..shards {
            let log_options = LogOptions {
                create: !store.is_complete(),
                directory: store.shard_directory(shard),
                identity: LogIdentity {
                    store_id: store.id(),
                    generation: store.generation() as u32,
                    shard: shard as u16,
                },
                keyring: store.keyring(),
                salvage: options.salvage,
                metrics: metrics.clone(),
                sizes: setup.sizes,
            };
            storages.push(LogStorage::open(platform.clone(), log_options).await?);
        }
        if !options.salvage {
            store.complete_creation(&platform).await?;
            store.remove_other_generations(&platform).await?;
        }
        let topology = Arc::new(Topology::new(store.hash_seed(), shards));
        let mut server = Self {
            reports: storages.iter().map(|storage| storage.open_report().clone()).collect(),
            topology,
            board: Arc::new(Board::new(shards)),
            metrics,
            platform,
            store,
            shards: Vec::new(),
            resized: wanted.is_some(),
        };
        server.join(sim, setup, storages, &templates, options.salvage);
        let server = Rc::new(server);
        (0..shards).for_each(|shard| server.spawn_tasks(sim, setup, shard, &templates));
        Ok(server)
    }

    fn join(
        &mut self,
        sim: &Sim,
        setup: &Setup,
        storages: Vec<Rc<ShardStorage>>,
        templates: &Arc<Templates>,
        salvage: bool,
    ) {
        let shards = storages.len();
        let mailboxes = Mailboxes::within(shards, setup.mailbox_bounds(shards));
        let authenticator = Arc::new(Authenticator::new(&"key".into()));
        let addresses: Arc<[OnceLock<_>]> = (0..shards).map(|_| OnceLock::new()).collect::<Vec<_>>().into();
        for (shard, storage) in storages.into_iter().enumerate() {
            let delivery = Rc::new(Delivery::new(mailboxes.end(shard, sim.doorbell())));
            let sink = delivery.clone();
            let cache = CacheOptions { bytes_max: setup.cache_bytes, entries_max: 1 << 16, ttl_ms: setup.cache_ttl_ms };
            let sink = Rc::new(move |ticket, outcome| sink.deliver(ticket, outcome));
            let engine = Engine::start(self.platform.clone(), storage, cache, self.metrics.clone(), shard, sink);
            engine.set_bounds(setup.engine_bounds());
            let custodian = (shard == 0).then(|| StoreCustodian::keeping(self.store.clone(), self.platform.clone()));
            self.shards.push(Dispatch::new(Parts {
                platform: self.platform.clone(),
                shard,
                engine,
                delivery,
                templates: templates.clone(),
                authenticator: authenticator.clone(),
                topology: self.topology.clone(),
                shard_addresses: addresses.clone(),
                board: self.board.clone(),
                metrics: self.metrics.clone(),
                body_bytes_max: 1 << 20,
                custodian,
                salvage,
            }));
        }
    }

    /// The turns and the housekeeping of one shard.
    fn spawn_tasks(&self, sim: &Sim, setup: &Setup, shard: usize, templates: &Arc<Templates>) {
        let (turning, doorbell) = (self.shards[shard].clone(), sim.doorbell());
        let yielding = self.platform.clone();
        self.platform.spawn().spawn(TaskClass::Foreground, async move {
            loop {
                while turning.turn() {
                    yielding.spawn().yield_now().await;
                }
                doorbell.rung(shard).await;
            }
        });
        let (keeping, board, platform) = (self.shards[shard].clone(), self.board.clone(), self.platform.clone());
        let templates = templates.clone();
        self.platform.spawn().spawn(TaskClass::Foreground, async move {
            while !board.is_draining() {
                keeping.keep_house();
                if shard == 0 {
                    let _ = templates.rescan(&platform).await;
                }
                platform.clock().sleep(Duration::from_millis(200)).await;
            }
        });
        if shard > 0 {
            return;
        }
        let (keeping, board, platform) = (self.shards[shard].clone(), self.board.clone(), self.platform.clone());
        let period = Duration::from_millis(setup.drop_keys_ms);
        self.platform.spawn().spawn(TaskClass::Foreground, async move {
            while !board.is_draining() {
                platform.clock().sleep(period).await;
                keeping.drop_unused_keys().await;
            }
        });
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The shard that owns an entity.
    pub fn owner_of(&self, name: &Name) -> usize {
        self.topology.owner_of(&name.0, &name.1)
    }

    /// Has a shard receive a command.
    pub fn call(&self, shard: usize, command: Command<'static>) -> impl Future<Output = Outcome> + use<> {
        let caller = Principal::admin();
        let shard = self.shards[shard].clone();
        async move { shard.call(&caller, command).await }
    }

    /// What the index of its owner says of an entity.
    pub fn durable_version(&self, name: &Name) -> Option<Version> {
        self.storage(self.owner_of(name)).durable_version(EntityRef { schema: &name.0, key: &name.1 })
    }

    /// The shards whose index holds an entity.
    pub fn holders_of(&self, name: &Name) -> Vec<usize> {
        let entity = EntityRef { schema: &name.0, key: &name.1 };
        (0..self.shards()).filter(|shard| self.storage(*shard).durable_version(entity).is_some()).collect()
    }

    /// Where a shard keeps its files.
    pub fn shard_directory(&self, shard: usize) -> PathBuf {
        self.store.shard_directory(shard)
    }

    /// Looks at the disk.
    pub fn look_at_disk<T>(&self, look: impl FnOnce(&DiskImage) -> T) -> T {
        self.platform.look(look)
    }

    /// Requests of a shard's that wait for room in the mailbox of another.
    pub fn waiting_for_room(&self, shard: usize) -> usize {
        self.shards[shard].waiting_for_room()
    }

    /// A shard's storage.
    pub fn storage(&self, shard: usize) -> &Rc<ShardStorage> {
        self.shards[shard].engine().storage()
    }

    /// Requests of a shard that are not answered.
    pub fn outstanding(&self, shard: usize) -> usize {
        self.shards[shard].outstanding()
    }

    /// A shard's figures, brought up to date.
    pub fn figures(&self, shard: usize) -> &ShardMetrics {
        self.shards[shard].keep_house();
        &self.metrics.shards[shard]
    }

    /// What opening each shard found.
    pub fn reports(&self) -> &[OpenReport] {
        &self.reports
    }

    /// The generation of its shards.
    pub fn generation(&self) -> u64 {
        self.store.generation()
    }

    /// Data keys in the keyring.
    pub fn data_keys(&self) -> usize {
        self.store.keyring().keys().count()
    }

    /// The keyring's generation.
    pub fn keyring_generation(&self) -> u64 {
        self.store.keyring().generation()
    }

    /// Whether a shard refuses writes for good.
    pub fn refuses_writes(&self) -> Option<String> {
        (0..self.shards()).find_map(|shard| self.storage(shard).status().refuses_writes)
    }

    /// Whether a shard begins no writes because a commit takes too long.
    pub fn is_stalled(&self) -> bool {
        self.shards.iter().any(|shard| shard.engine().is_stalled())
    }

    /// Drops every cached document.
    pub fn clear_caches(&self) {
        self.shards.iter().for_each(|shard| shard.engine().clear_cache());
    }

    /// Stops as a signal would make it; returns what sealing the logs came to.
    pub async fn stop(&self) -> Result<(), String> {
        self.stop_within(PATIENCE).await
    }

    /// The same on a disk that may keep its callers waiting.
    pub async fn stop_within(&self, patience: Duration) -> Result<(), String> {
        self.board.begin_drain();
        let deadline_ns = self.platform.clock().now_ns() + patience.as_nanos() as u64;
        while (0..self.shards()).any(|shard| self.outstanding(shard) > 0) {
            if self.platform.clock().now_ns() > deadline_ns {
                return Err("requests were never answered".to_owned());
            }
            self.platform.clock().sleep(Duration::from_millis(1)).await;
        }
        let mut result = Ok(());
        for shard in 0..self.shards() {
            let sealed = self.storage(shard).shutdown().await;
            result = result.and(sealed.map_err(|error| format!("shard {shard} was not sealed: {error}")));
        }
        result
    }

    /// Everything that the shards hold, read from the disk; entities with the shards that hold them.
    pub async fn observe(&self) -> BTreeMap<Name, Vec<(usize, Read)>> {
        let mut found: BTreeMap<Name, Vec<(usize, Read)>> = BTreeMap::new();
        for shard in 0..self.shards() {
            let storage = self.storage(shard);
            for (schema, _) in storage.schemas() {
                for (key, version) in storage.list(&schema, "", None, usize::MAX) {
                    let name: Name = (schema.as_str().into(), (&*key).into());
                    let read = self.read(shard, &name, version).await;
                    found.entry(name).or_default().push((shard, read));
                }
            }
        }
        found
    }

    async fn read(&self, shard: usize, name: &Name, listed: Version) -> Read {
        let entity = EntityRef { schema: &name.0, key: &name.1 };
        let mut tries = 0;
        loop {
            match self.storage(shard).read(entity).await {
                Ok(Some((version, document))) if version == listed => return Ok((version, Rc::from(document.body()))),
                Ok(found) => {
                    let found = found.map(|(version, _)| version);
                    let reason = format!("listed at version {listed}, read at {found:?}");
                    return Err(ReadError::Corrupted { place: format!("{name:?}"), reason });
                }
                // A disk that fails now and then.
                Err(ReadError::Io { .. }) if tries < 50 => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

impl From<StoreError> for StartFailure {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        match error {
            StoreError::Io { error, .. } => Self::of_io(&error, text),
            StoreError::ChangeUnderWay | StoreError::ChangeFailed { .. } => Self::Other(text),
            _ => Self::Damaged(text),
        }
    }
}

impl From<OpenError> for StartFailure {
    fn from(error: OpenError) -> Self {
        let text = error.to_string();
        match error {
            OpenError::Io { source, .. } => Self::of_io(&source, text),
            _ => Self::Damaged(text),
        }
    }
}

impl From<ChangeError> for StartFailure {
    fn from(error: ChangeError) -> Self {
        let text = error.to_string();
        match error {
            ChangeError::Publish(error) => error.into(),
            ChangeError::Rewrite(RewriteError::Open(error)) => error.into(),
            ChangeError::Rewrite(RewriteError::Io { source, .. }) => Self::of_io(&source, text),
            ChangeError::Rewrite(RewriteError::OutOfSpace { .. }) => Self::OutOfSpace(text),
            ChangeError::Rewrite(RewriteError::Damaged(_)) => Self::Damaged(text),
            ChangeError::Rewrite(RewriteError::Write(_)) => Self::Other(text),
        }
    }
}

impl StartFailure {
    fn of_io(source: &io::Error, text: String) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull => Self::OutOfSpace(text),
            _ => Self::Io(text),
        }
    }
}
