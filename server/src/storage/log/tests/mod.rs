//! Tests of the whole room over the memory disk.

mod basics;
mod codecs;
mod compaction;
mod conformance;
mod damage;
mod faults;
mod full_disk;
mod manifest;
mod measure;
mod recovery;
mod rewrite;
mod rotation;
mod scrub;

use super::testing::{MemoryDisk, TestPlatform};
use super::*;
use crate::command::EntityRef;
use crate::crypto::keyring::Keyring;
use crate::storage::{Change, CommitError, Mutation, ReadError, Storage};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

pub type TestLog = Rc<LogStorage<TestPlatform>>;

/// What the log should hold.
pub type Model = BTreeMap<(String, String), (u64, Vec<u8>)>;

/// One shard's directory over restarts and crashes.
pub struct Fixture {
    pub platform: TestPlatform,
    pub keyring: Arc<Keyring>,
    pub sizes: LogSizes,
    pub model: Model,
    seed: u64,
}

pub fn small_sizes() -> LogSizes {
    LogSizes {
        segment_bytes_first: 32 << 10,
        segment_bytes_max: 64 << 10,
        batch_bytes: 16 << 10,
        batch_records: 64,
        records_in_flight: 128,
        checkpoint_due_bytes: 1 << 40,
        checkpoint_chunk_bytes: 4 << 10,
        verify_at_open_bytes: 1 << 30,
        window_bytes: 16 << 10,
        space_kept_bytes: 16 << 10,
        ..LogSizes::default()
    }
}

impl Fixture {
    pub fn new() -> Self {
        let platform = TestPlatform::new(1);
        let keyring = Arc::new(Keyring::create(&platform.entropy, [7; 16], 0));
        Self { platform, keyring, sizes: small_sizes(), model: Model::new(), seed: 1 }
    }

    pub fn directory(&self) -> PathBuf {
        PathBuf::from("shards/1/0")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    pub fn options(&self, salvage: bool) -> LogOptions {
        LogOptions {
            create: true,
            directory: self.directory(),
            identity: LogIdentity { store_id: [7; 16], generation: 1, shard: 0 },
            keyring: self.keyring.clone(),
            salvage,
            metrics: Metrics::new(1),
            sizes: self.sizes,
        }
    }

    pub fn try_open(&self) -> Result<TestLog, OpenError> {
        self.platform.run(LogStorage::open(self.platform.clone(), self.options(false)))
    }

    pub fn open(&self) -> TestLog {
        self.try_open().unwrap()
    }

    pub fn salvage(&self) -> TestLog {
        self.platform.run(LogStorage::open(self.platform.clone(), self.options(true))).unwrap()
    }

    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.platform.run(future)
    }

    /// Lets background work go on for a while.
    pub fn settle(&self) {
        use crate::runtime::platform::Clock;
        for _ in 0..20 {
            self.run(self.platform.clock.sleep(std::time::Duration::from_millis(50)));
        }
    }

    /// Another process over a disk.
    pub fn restart_on(&mut self, disk: MemoryDisk) {
        self.seed += 1;
        self.platform = TestPlatform::with_disk(self.seed, disk);
    }

    pub fn power_failure(&mut self) {
        self.restart_on(self.platform.disk.after_power_failure());
    }

    pub fn shut_down(&mut self, log: TestLog) {
        self.run(log.shutdown()).unwrap();
        drop(log);
        self.restart_on(self.platform.disk.after_power_failure());
    }

    /// One durable write, of one entity.
    pub fn put(&mut self, log: &TestLog, schema: &str, key: &str, body: &[u8]) -> u64 {
        self.try_put(log, schema, key, body).unwrap()
    }

    pub fn try_put(&mut self, log: &TestLog, schema: &str, key: &str, body: &[u8]) -> Result<u64, CommitError> {
        let mut versions = Vec::new();
        log.append(&[put(schema, key, body)], &mut versions)?;
        self.run(log.commit())?;
        self.model.insert((schema.to_owned(), key.to_owned()), (versions[0], body.to_vec()));
        Ok(versions[0])
    }

    pub fn delete(&mut self, log: &TestLog, schema: &str, key: &str) -> u64 {
        self.try_delete(log, schema, key).unwrap()
    }

    pub fn try_delete(&mut self, log: &TestLog, schema: &str, key: &str) -> Result<u64, CommitError> {
        let mut versions = Vec::new();
        log.append(&[delete(schema, key)], &mut versions)?;
        self.run(log.commit())?;
        self.model.remove(&(schema.to_owned(), key.to_owned()));
        Ok(versions[0])
    }

    /// Everything in the model is there, and nothing else.
    pub fn check(&self, log: &TestLog) {
        assert_eq!(self.read_all(log).unwrap(), self.model);
    }

    /// Everything the log holds.
    pub fn read_all(&self, log: &TestLog) -> Result<Model, ReadError> {
        let mut found = Model::new();
        for (schema, count) in log.schemas() {
            let entries = log.list(&schema, "", None, usize::MAX);
            assert_eq!(entries.len() as u64, count);
            assert!(entries.is_sorted());
            for (key, version) in entries {
                let entity = EntityRef { schema: &schema, key: &key };
                assert_eq!(log.durable_version(entity), Some(version));
                let (read, document) = self.run(log.read(entity))?.expect("a listed entity");
                assert_eq!(read, version);
                found.insert((schema.clone(), key.into_string()), (version, document.body().to_vec()));
            }
        }
        Ok(found)
    }
}

pub fn put<'a>(schema: &'a str, key: &'a str, body: &'a [u8]) -> Change<'a> {
    Change { entity: EntityRef { schema, key }, mutation: Mutation::Put(body) }
}

pub fn delete<'a>(schema: &'a str, key: &'a str) -> Change<'a> {
    Change { entity: EntityRef { schema, key }, mutation: Mutation::Delete }
}
