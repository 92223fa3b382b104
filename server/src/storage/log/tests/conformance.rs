//! The storage conformance suite on this backend: simulated machines, and the real disk of a real shard.

use super::*;
use crate::runtime::placement::Placement;
use crate::runtime::platform::{Disk, Platform};
use crate::runtime::production::Production;
use crate::runtime::shard;
use crate::runtime::sim::SimPlatform;
use crate::storage::conformance::{
    Effort, StorageUnderTest, Violation, check_contract, check_contract_on_sim, check_damage, check_on_sim,
};
use std::marker::PhantomData;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

/// Opens the log of a store's only shard.
pub struct LogUnderTest<P = SimPlatform> {
    keyring: Arc<Keyring>,
    sizes: LogSizes,
    platform: PhantomData<P>,
}

impl<P: Platform> LogUnderTest<P> {
    /// As it is in production.
    pub fn full_size() -> Self {
        Self::with_sizes(LogSizes::default())
    }

    /// With segments so small that a short life fills some, and checkpoints that are due often.
    pub fn small() -> Self {
        Self::with_sizes(LogSizes {
            segment_bytes_first: 64 << 10,
            segment_bytes_max: 1 << 20,
            batch_bytes: 128 << 10,
            checkpoint_due_bytes: 256 << 10,
            checkpoint_chunk_bytes: 4 << 10,
            window_bytes: 64 << 10,
            space_kept_bytes: 64 << 10,
            ..LogSizes::default()
        })
    }

    fn with_sizes(sizes: LogSizes) -> Self {
        let keyring = Arc::new(Keyring::create(&TestPlatform::new(1).entropy, [1; 16], 0));
        Self { keyring, sizes, platform: PhantomData }
    }
}

impl<P: Platform> StorageUnderTest for LogUnderTest<P> {
    type Platform = P;
    type Storage = LogStorage<P>;

    async fn open(&self, platform: &P, directory: &Path) -> Result<Rc<LogStorage<P>>, String> {
        let disk = platform.disk();
        disk.create_dir_all(directory).await.map_err(|error| error.to_string())?;
        // What the owner of the whole store does for its directory.
        for ancestor in directory.ancestors().skip(1) {
            disk.sync_dir(ancestor).await.map_err(|error| error.to_string())?;
        }
        let options = LogOptions {
            create: true,
            directory: directory.join("shards/0/0"),
            identity: LogIdentity { store_id: [1; 16], generation: 0, shard: 0 },
            keyring: self.keyring.clone(),
            salvage: false,
            metrics: Metrics::new(1),
            sizes: self.sizes,
        };
        LogStorage::open(platform.clone(), options).await.map_err(|error| error.to_string())
    }
}

fn must_conform(result: Result<(), Violation>) {
    if let Err(violation) = result {
        panic!("{violation}");
    }
}

/// Contract, replay, faults, every sync point, kills and churn.
#[test]
fn the_log_conforms_on_simulated_machines() {
    let effort = Effort { seeds: 1, batches: 4, churn_batches: 8, outcomes: 3, ..Effort::default() };
    must_conform(check_on_sim(&LogUnderTest::small(), effort));
}

#[test]
#[ignore = "takes minutes: run it in release after a change of the log"]
fn the_log_conforms_from_many_seeds() {
    must_conform(check_on_sim(&LogUnderTest::small(), Effort { seeds: 60, ..Effort::default() }));
    for seed in 1..20 {
        must_conform(check_damage(&LogUnderTest::small(), seed, 40));
    }
}

#[test]
fn the_log_conforms_at_its_full_size() {
    must_conform(check_contract_on_sim(&LogUnderTest::full_size(), 1));
}

#[test]
fn damage_to_the_log_is_detected_or_harmless() {
    must_conform(check_damage(&LogUnderTest::small(), 1, 30));
}

/// One shard with its ring, and files below the working directory: the system's temporary one may have no direct I/O.
#[test]
fn the_log_conforms_on_a_real_disk() {
    let directory = tempfile::tempdir_in(".").unwrap();
    let path = directory.path().canonicalize().unwrap();
    let (sender, receiver) = channel();
    let placement = Placement::detect().unwrap();
    let threads = shard::start(&placement, 1, Duration::ZERO, Metrics::new(1), move |context| {
        let (sender, path) = (sender.clone(), path.clone());
        async move {
            let under_test = LogUnderTest::<Production>::small();
            sender.send(check_contract(&under_test, &context.platform, &path).await).unwrap();
        }
    });
    let result = receiver.recv().unwrap();
    threads.unwrap().join().unwrap();
    must_conform(result);
}
