//! A whole store, so small that every bit of it can be tried: made, opened and checked in process, on a simulated
//! machine, with the product's own code.
//!
//! It has what a real one has: several shards, two data keys, overwritten and deleted documents, compacted segments,
//! checkpoints, a template. Its files are those of the current format; the old-format fixtures are made with it too.

use deltadb::command::EntityRef;
use deltadb::crypto::root_key::{RootKey, RootKeySource};
use deltadb::metrics::Metrics;
use deltadb::routing::Topology;
use deltadb::runtime::platform::{Clock, Disk, Platform};
use deltadb::runtime::publish::publish;
use deltadb::runtime::sim::{DiskImage, Sim, SimPlatform};
use deltadb::start::check_in;
use deltadb::storage::log::{LogIdentity, LogOptions, LogSizes, LogStorage};
use deltadb::storage::store::{Layout, Opened, RootKeyInput, Store, StoreOptions};
use deltadb::storage::{Change, Mutation, Storage};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Where it lies on the simulated disk.
pub const DIRECTORY: &str = "/data";
/// The root key of such stores. It protects nothing.
pub const ROOT_KEY: &str = "5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e";

/// Version and bytes of every document, by schema and key.
pub type Documents = BTreeMap<(String, String), (u64, Vec<u8>)>;

/// How much a store goes through.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// Seed of the machine: ids and keys follow from it.
    pub seed: u64,
    /// Shards of a fresh store.
    pub shards: u16,
    /// Documents written.
    pub documents: usize,
    /// Bytes of each.
    pub document_bytes: usize,
    /// How often all of them are overwritten.
    pub rounds: usize,
    /// Whether the data key is rotated half-way.
    pub rotates: bool,
    /// Documents written in one frame, of those that one shard owns.
    pub frame_records: usize,
    /// Documents that are never overwritten, so that compaction has to move them.
    pub kept: usize,
    /// Whether the data key is rotated once more before documents are deleted, so that files lie under two.
    pub rotates_at_end: bool,
}

/// One that is open.
struct Running {
    store: Store,
    shards: Vec<Rc<LogStorage<SimPlatform>>>,
    topology: Topology,
}

/// Segments of a few KiB, and everything verified at every start.
fn sizes() -> LogSizes {
    LogSizes {
        segment_bytes_first: 16 << 10,
        segment_bytes_max: 32 << 10,
        batch_bytes: 8 << 10,
        batch_records: 64,
        records_in_flight: 128,
        checkpoint_due_bytes: 64 << 10,
        checkpoint_chunk_bytes: 4 << 10,
        verify_at_open_bytes: u64::MAX,
        window_bytes: 16 << 10,
        space_kept_bytes: 16 << 10,
        ..LogSizes::default()
    }
}

/// Lives one life over a disk and shuts down cleanly; returns the disk, and what the store holds is in `documents`.
pub fn live(life: Life, disk: DiskImage, documents: &mut Documents) -> DiskImage {
    let sim = Sim::on_disk(life.seed, disk);
    let platform = sim.platform();
    let run = async {
        let running = open(&platform, life.shards).await?;
        running.write(&platform, life, documents).await?;
        running.shut_down().await
    };
    sim.run_until(run).expect("the machine does not halt").expect("a store that works");
    sim.disk_image()
}

/// Opens the store on a disk and reads all of it. An error is what a start, a read or the start's report says of
/// damage; none of it may be wrong.
pub fn open_and_read(disk: &DiskImage) -> Result<Documents, String> {
    let sim = Sim::on_disk(9, disk.clone());
    let platform = sim.platform();
    let run = async {
        let running = open(&platform, 1).await?;
        let reported = running.shards.iter().find_map(|shard| shard.open_report().damage.first().cloned());
        match reported {
            Some(damage) => Err(damage.to_string()),
            None => running.read_all().await,
        }
    };
    sim.run_until(run).expect("the machine does not halt")
}

/// What `deltadb check` says of a disk: one sentence for each damaged place; `Err` when it gets nowhere.
pub fn check(disk: &DiskImage) -> Result<Vec<String>, String> {
    let sim = Sim::on_disk(10, disk.clone());
    let platform = sim.platform();
    let run = async move {
        let layout = Layout::new(Path::new(DIRECTORY));
        let report = check_in(platform, &layout, root_key(), None).await.map_err(|error| error.to_string())?;
        Ok(report.damage)
    };
    sim.run_until(run).expect("the machine does not halt")
}

/// The files whose every bit is accounted for: all but templates, which people may edit.
pub fn protected_files(disk: &DiskImage) -> Vec<(PathBuf, Vec<u8>)> {
    let templates = Layout::new(Path::new(DIRECTORY)).templates();
    let files = disk.list_files().into_iter().map(|(path, _)| path).filter(|path| !path.starts_with(&templates));
    files.map(|path| (path.clone(), disk.peek(&path).expect("a listed file"))).collect()
}

fn root_key() -> RootKeyInput {
    let key = RootKey::parse(ROOT_KEY, "the test").expect("a well-formed key");
    RootKeyInput::Given { key, source: RootKeySource::CommandLine }
}

async fn open(platform: &SimPlatform, shards: u16) -> Result<Running, String> {
    let options = StoreOptions {
        directory: DIRECTORY.into(),
        root_key: root_key(),
        expected_key_id: None,
        shards_wanted: None,
        default_shards: shards,
    };
    let opened = Store::open_or_create(platform, options).await.map_err(|error| error.to_string())?;
    let Opened { store, created, .. } = opened;
    let metrics = Metrics::new(usize::from(store.shards()));
    let mut logs = Vec::new();
    for shard in 0..store.shards() {
        let options = LogOptions {
            create: created,
            directory: store.shard_directory(usize::from(shard)),
            identity: LogIdentity { store_id: store.id(), generation: store.generation() as u32, shard },
            keyring: store.keyring(),
            salvage: false,
            metrics: Arc::clone(&metrics),
            sizes: sizes(),
        };
        logs.push(LogStorage::open(platform.clone(), options).await.map_err(|error| error.to_string())?);
    }
    store.complete_creation(platform).await.map_err(|error| error.to_string())?;
    let topology = Topology::new(store.hash_seed(), logs.len());
    Ok(Running { store, shards: logs, topology })
}

impl Running {
    async fn write(&self, platform: &SimPlatform, life: Life, documents: &mut Documents) -> Result<(), String> {
        let template = self.store.layout().templates().join("people.json");
        let directory = self.store.layout().templates();
        platform.disk().create_dir_all(&directory).await.map_err(|error| error.to_string())?;
        publish(platform.disk(), &template, b"{\"type\":\"object\"}").await.map_err(|error| error.to_string())?;
        for round in 0..life.rounds {
            if life.rotates && round == life.rounds / 2 {
                self.rotate(platform).await?;
            }
            let filler: String = (0..life.document_bytes).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
            let document = format!("{{\"life\":{},\"round\":{round},\"of\":\"{filler}\"}}", life.seed);
            let written = life.documents - if round > 0 { life.kept } else { 0 };
            for frame in (0..written).collect::<Vec<_>>().chunks(life.frame_records) {
                self.put(frame, document.as_bytes(), documents).await?;
            }
            // Tail frames, footers, checkpoints and compaction have their time.
            platform.clock().sleep(Duration::from_secs(2)).await;
        }
        if life.rotates_at_end {
            self.rotate(platform).await?;
        }
        for number in (0..life.documents).step_by(5) {
            let (schema, key) = name(number);
            self.delete(&schema, &key, documents).await?;
        }
        Ok(())
    }

    async fn rotate(&self, platform: &SimPlatform) -> Result<(), String> {
        let keyring = self.store.rotate_data_key(platform).await.map_err(|error| error.to_string())?;
        for shard in &self.shards {
            shard.adopt_keyring(keyring.clone()).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Those of one shard go into one frame.
    async fn put(&self, numbers: &[usize], body: &[u8], documents: &mut Documents) -> Result<(), String> {
        for (shard, log) in self.shards.iter().enumerate() {
            let names: Vec<_> = numbers.iter().map(|number| name(*number)).collect();
            let own = names.iter().filter(|(schema, key)| self.topology.owner_of(schema, key) == shard);
            let own: Vec<_> = own.collect();
            if own.is_empty() {
                continue;
            }
            let entities = own.iter().map(|(schema, key)| EntityRef { schema, key });
            let changes: Vec<_> = entities.map(|entity| Change { entity, mutation: Mutation::Put(body) }).collect();
            for (name, version) in own.iter().zip(commit(log, &changes).await?) {
                documents.insert((*name).clone(), (version, body.to_vec()));
            }
        }
        Ok(())
    }

    async fn delete(&self, schema: &str, key: &str, documents: &mut Documents) -> Result<(), String> {
        let entity = EntityRef { schema, key };
        let log = &self.shards[self.topology.owner_of(schema, key)];
        commit(log, &[Change { entity, mutation: Mutation::Delete }]).await?;
        documents.remove(&(schema.to_owned(), key.to_owned()));
        Ok(())
    }

    async fn read_all(&self) -> Result<Documents, String> {
        let mut found = Documents::new();
        for shard in &self.shards {
            for (schema, _) in shard.schemas() {
                for (key, version) in shard.list(&schema, "", None, usize::MAX) {
                    let entity = EntityRef { schema: &schema, key: &key };
                    let read = shard.read(entity).await.map_err(|error| error.to_string())?;
                    let (read_version, document) = read.ok_or("a listed document is not there")?;
                    if read_version != version {
                        return Err(format!("{key} is listed at version {version} and read at {read_version}"));
                    }
                    found.insert((schema.clone(), key.into_string()), (version, document.body().to_vec()));
                }
            }
        }
        Ok(found)
    }

    async fn shut_down(self) -> Result<(), String> {
        for shard in &self.shards {
            shard.shutdown().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// Schema and key of a document.
fn name(number: usize) -> (String, String) {
    (if number.is_multiple_of(3) { "people" } else { "things" }.to_owned(), format!("né-{number:03}"))
}

async fn commit(log: &LogStorage<SimPlatform>, changes: &[Change<'_>]) -> Result<Vec<u64>, String> {
    let mut versions = Vec::new();
    log.append(changes, &mut versions).map_err(|refusal| refusal.to_string())?;
    log.commit().await.map_err(|error| error.to_string())?;
    match versions.len() == changes.len() {
        true => Ok(versions),
        false => Err("not each change was given a version".to_owned()),
    }
}
