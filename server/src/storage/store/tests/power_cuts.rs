//! The whole life of a data directory on the simulated disk, with the power cut at every step of it.

use super::*;
use crate::crypto::keyring::DataKeyId;
use crate::runtime::platform::Disk;
use crate::runtime::sim::{DiskImage, Halt, PowerCut, Sim, SimPlatform, Survival};
use std::cell::RefCell;

/// What a caller was told is done.
#[derive(Clone, Default)]
struct Promised {
    store_id: Option<[u8; 16]>,
    complete: bool,
    keyring_generation: u64,
    active: Option<DataKeyId>,
    generation: u64,
}

fn options() -> StoreOptions {
    let directory = PathBuf::from("/srv/data");
    StoreOptions {
        directory,
        root_key: RootKeyInput::None,
        expected_key_id: None,
        shards_wanted: None,
        default_shards: 1,
    }
}

async fn open(platform: &SimPlatform) -> Result<Opened, StoreError> {
    Store::open_or_create(platform, options()).await
}

async fn live(platform: &SimPlatform, promised: &RefCell<Promised>) -> Result<(), StoreError> {
    let store = open(platform).await?.store;
    promised.borrow_mut().store_id = Some(store.id());
    for generation in [1, 2] {
        let shard = store.layout().shard(generation, 0);
        platform.disk().create_dir_all(&shard).await.map_err(StoreError::io("create", &shard))?;
        match generation {
            1 => store.complete_creation(platform).await?,
            _ => store.publish_generation(platform, 1, generation).await?,
        }
        let keyring = store.rotate_data_key(platform).await?;
        let mut promised = promised.borrow_mut();
        (promised.complete, promised.generation) = (true, generation);
        (promised.keyring_generation, promised.active) = (keyring.generation(), Some(keyring.active().id()));
    }
    store.remove_other_generations(platform).await?;
    let keyring = store.drop_keys_not_in(platform, &[]).await?;
    promised.borrow_mut().keyring_generation = keyring.generation();
    Ok(())
}

/// The next start opens the directory and finds at least what was promised; so does the one after it.
fn check(image: DiskImage, promised: &Promised, place: &str) {
    let sim = Sim::on_disk(2, image);
    let platform = sim.platform();
    let opened = sim.run_until(open(&platform)).unwrap().unwrap_or_else(|error| panic!("{place}: {error}"));
    let (store, keyring) = (&opened.store, opened.store.keyring());
    assert!(promised.store_id.is_none_or(|id| id == store.id()), "{place}: another store");
    assert!(!(promised.complete && opened.created), "{place}: complete was forgotten");
    assert!(keyring.generation() >= promised.keyring_generation, "{place}: an older keyring");
    assert!(promised.active.is_none_or(|id| keyring.get(id).is_some()), "{place}: a key was lost");
    assert!(store.generation() >= promised.generation, "{place}: an older generation");
    let again = sim.run_until(open(&platform)).unwrap().unwrap_or_else(|error| panic!("{place}, again: {error}"));
    assert_eq!(again.store.id(), store.id(), "{place}");
}

#[test]
fn a_power_cut_at_any_step_loses_nothing_promised() {
    let mut cuts = 0;
    for step in 1.. {
        let (sim, promised) = (Sim::new(1), RefCell::new(Promised::default()));
        sim.cut_power(PowerCut::AtStep(step));
        let platform = sim.platform();
        let outcome = sim.run_until(live(&platform, &promised));
        let finished = match outcome {
            Ok(outcome) => outcome.map(|()| true).unwrap(),
            Err(halt) => {
                assert!(matches!(halt, Halt::PowerLost), "{halt:?}");
                false
            }
        };
        let image = sim.power_loss_image();
        for (survival, seed) in
            [(Survival::Nothing, 0), (Survival::Everything, 0), (Survival::Random, 1), (Survival::Random, 2)]
        {
            let place = format!("step {step}, {survival:?} survives, seed {seed}");
            check(image.after_power_loss(survival, seed), &promised.borrow(), &place);
        }
        if finished {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 60, "only {cuts} steps were cut");
}

/// A start builds on names that it sees, and a killed process may not have made them durable.
#[test]
fn a_kill_amid_creation_and_a_power_cut_amid_its_resumption_leave_a_store_that_starts() {
    let mut tried = 0;
    for first in 1.. {
        let sim = Sim::new(first);
        sim.cut_power(PowerCut::DuringSync(first));
        if sim.run_until(live(&sim.platform(), &RefCell::default())).is_ok() {
            break;
        }
        let killed = sim.kill();
        for second in 1..=8 {
            let sim = Sim::on_disk(first, killed.clone());
            sim.cut_power(PowerCut::DuringSync(second));
            let platform = sim.platform();
            let resumed = async {
                let store = open(&platform).await?.store;
                let shard = store.layout().shard(store.generation(), 0);
                platform.disk().create_dir_all(&shard).await.map_err(StoreError::io("create", &shard))?;
                store.complete_creation(&platform).await
            };
            if let Ok(resumed) = sim.run_until(resumed) {
                resumed.unwrap();
                break;
            }
            let image = sim.power_loss_image();
            for seed in 0..12 {
                let place = format!("killed amid sync {first}, power lost amid sync {second}, seed {seed}");
                check(image.after_power_loss(Survival::Random, seed), &Promised::default(), &place);
                tried += 1;
            }
        }
    }
    assert!(tried > 500, "only {tried} disks were tried");
}
