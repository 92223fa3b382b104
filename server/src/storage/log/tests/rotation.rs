//! Data keys over rotations: none may be dropped while anything that a crash could bring back names it.

use super::*;
use crate::crypto::keyring::DataKeyId;
use crate::runtime::platform::{Clock, Disk, Platform};
use crate::runtime::sim::{DiskImage, Effect, Fault, Operation, PowerCut, Sim, SimPlatform, Survival};
use std::time::Duration;

fn options(keyring: Keyring) -> LogOptions {
    LogOptions {
        create: true,
        directory: "/shards/1/0".into(),
        identity: LogIdentity { store_id: [7; 16], generation: 1, shard: 0 },
        keyring: Arc::new(keyring),
        salvage: false,
        metrics: Metrics::new(1),
        sizes: small_sizes(),
    }
}

async fn open(platform: &SimPlatform, keyring: Keyring) -> Rc<LogStorage<SimPlatform>> {
    platform.disk().create_dir_all("/shards/1/0".as_ref()).await.unwrap();
    LogStorage::open(platform.clone(), options(keyring)).await.unwrap()
}

/// A log of several segments and a checkpoint under one key, then a rotation, and the power cut at a sync point of what
/// follows. The keyring and the keys in use at that moment, and the disk; `None` when nothing was left to sync.
fn rotated_and_cut(number: u64) -> Option<(Keyring, Vec<DataKeyId>, DiskImage)> {
    let sim = Sim::new(number);
    let platform = sim.platform();
    let first = Keyring::create(platform.entropy(), [7; 16], 0);
    let second = first.rotate(platform.entropy(), 1);
    let prepare = async {
        let log = open(&platform, first.clone()).await;
        for number in 0..60 {
            let key = format!("k{}", number % 20);
            log.append(&[put("s", &key, &[7; 2000])], &mut Vec::new()).unwrap();
            log.commit().await.unwrap();
        }
        log.state.borrow_mut().checkpoint_forced = true;
        log.signals.maintain.notify();
        platform.clock().sleep(Duration::from_secs(1)).await;
        log.adopt_keyring(Arc::new(second.clone())).await.unwrap();
        log
    };
    let log = sim.run_until(prepare).unwrap();
    sim.cut_power(PowerCut::DuringSync(sim.sync_points() + number));
    sim.run_until(platform.clock().sleep(Duration::from_secs(5))).err()?;
    let in_use = log.key_ids_in_use();
    drop(log);
    Some((second, in_use, sim.power_loss_image().after_power_loss(Survival::Nothing, 0)))
}

#[test]
fn a_key_is_in_use_while_the_manifest_on_disk_names_it() {
    let mut cuts = 0;
    for number in 1.. {
        let Some((keyring, in_use, image)) = rotated_and_cut(number) else { break };
        cuts += 1;
        let unused: Vec<_> = keyring.keys().map(|key| key.id()).filter(|id| !in_use.contains(id)).collect();
        let sim = Sim::on_disk(number, image);
        let platform = sim.platform();
        let log = sim.run_until(open(&platform, keyring.without(&unused))).unwrap();
        assert_eq!(log.status().entities, 20, "after the cut at sync point {number}");
    }
    assert!(cuts > 8, "{cuts} sync points after a rotation");
}

/// It will be named by the manifest as soon as it is whole, whatever was rotated and dropped in the meantime.
#[test]
fn the_key_of_a_checkpoint_is_in_use_while_the_checkpoint_is_written() {
    let sim = Sim::new(1);
    let platform = sim.platform();
    let first = Keyring::create(platform.entropy(), [7; 16], 0);
    let second = first.rotate(platform.entropy(), 1);
    let third = second.rotate(platform.entropy(), 2);
    let run = async {
        let log = open(&platform, first.clone()).await;
        log.append(&[put("s", "k", &[7; 100])], &mut Vec::new()).unwrap();
        log.commit().await.unwrap();
        sim.inject(Fault::next(&[Operation::Write], Effect::Delay(Duration::from_millis(300))).on_path(".ckpt"));
        log.adopt_keyring(Arc::new(second.clone())).await.unwrap();
        platform.clock().sleep(Duration::from_millis(100)).await;
        log.adopt_keyring(Arc::new(third.clone())).await.unwrap();
        let mut dropped = Vec::new();
        while log.figures().checkpoints.value() == 0 {
            platform.clock().sleep(Duration::from_millis(5)).await;
            let in_use = log.key_ids_in_use();
            let keys = third.keys().map(|key| key.id());
            dropped.extend(keys.filter(|id| *id != third.active().id() && !in_use.contains(id)));
        }
        dropped
    };
    let dropped = sim.run_until(run).unwrap();
    let sim = Sim::on_disk(2, sim.power_loss_image().after_power_loss(Survival::Nothing, 0));
    let platform = sim.platform();
    let log = sim.run_until(open(&platform, third.without(&dropped))).unwrap();
    assert!(log.open_report().damage.is_empty(), "{:?}", log.open_report().damage);
}

/// Otherwise it would have no end for ever, and maintenance and the stop would wait for one.
#[test]
fn a_segment_that_finds_no_space_for_its_footer_poisons() {
    let mut poisoned = 0;
    for skip in 0..4 {
        let sim = Sim::new(1);
        let platform = sim.platform();
        let first = Keyring::create(platform.entropy(), [7; 16], 0);
        let second = first.rotate(platform.entropy(), 1);
        let run = async {
            let log = open(&platform, first.clone()).await;
            log.append(&[put("s", "k", &[7; 100])], &mut Vec::new()).unwrap();
            log.commit().await.unwrap();
            platform.clock().sleep(Duration::from_secs(1)).await;
            sim.inject(Fault::next(&[Operation::SyncedWrite], Effect::Error(28)).after(skip));
            let adopted = log.adopt_keyring(Arc::new(second.clone())).await;
            let is_poisoned = log.state.borrow().check_writable().is_err();
            assert!(adopted.is_err() || !is_poisoned);
            // It ends, whatever there was.
            assert_eq!(log.shutdown().await.is_err(), is_poisoned);
            u64::from(is_poisoned)
        };
        poisoned += sim.run_until(run).unwrap();
        let sim = Sim::on_disk(2, sim.power_loss_image().after_power_loss(Survival::Nothing, 0));
        let log = sim.run_until(open(&sim.platform(), second)).unwrap();
        assert_eq!((log.open_report().damage.len(), log.status().entities), (0, 1));
    }
    assert_eq!(poisoned, 1);
}
