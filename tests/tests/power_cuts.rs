//! Power cuts below a real file system: what was acknowledged survives, whatever the disk had not flushed, and the
//! disk itself is shown to lose what it should.

use delta_tests::history::History;
use delta_tests::power::{self, Faults, PoweredDisk, Survivors};
use delta_tests::recorded_crowd::{self as crowd, Crowd, Dice, Entities};
use delta_tests::{TestServer, eventually, long};
use rustix::fs::OFlags;
use rustix::io::{ReadWriteFlags, pwritev2};
use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

#[test]
fn the_disk_loses_names_and_bytes_that_were_not_synced_and_keeps_those_that_were() {
    power::with_disk(64, |disk| {
        assert!(power::is_ext4(&disk.path()));
        let write = |disk: &PoweredDisk, name: &str| {
            let mut file = File::create(disk.path().join(name)).unwrap();
            file.write_all(&[7; 10_000]).unwrap();
            file
        };
        write(disk, "synced").sync_all().unwrap();
        write(disk, "unsynced");
        disk.reboot(Survivors::None);
        assert_eq!(std::fs::read(disk.path().join("synced")).unwrap(), [7; 10_000]);
        assert!(!disk.path().join("unsynced").exists());
        // A rename is lost with its name until the directory is synced.
        let rename = |disk: &PoweredDisk, from: &str, to: &str| {
            std::fs::rename(disk.path().join(from), disk.path().join(to)).unwrap();
        };
        rename(disk, "synced", "renamed");
        disk.reboot(Survivors::None);
        rename(disk, "synced", "renamed");
        File::open(disk.path()).unwrap().sync_all().unwrap();
        disk.reboot(Survivors::None);
        assert!(disk.path().join("renamed").exists() && !disk.path().join("synced").exists());
    });
}

/// Memory as direct I/O wants it, carved from a larger vector.
fn aligned(fill: u8) -> (Vec<u8>, std::ops::Range<usize>) {
    let bytes = vec![fill; 3 * 4096];
    let start = bytes.as_ptr().align_offset(4096);
    (bytes, start..start + 4096)
}

#[test]
fn a_direct_write_with_dsync_reaches_the_disk_as_a_write_and_a_flush_and_without_as_a_write() {
    power::with_disk(64, |disk| {
        let path = disk.path().join("log");
        let file = File::create(&path).unwrap();
        file.write_all_at(&[0; 64 << 10], 0).unwrap();
        file.sync_all().unwrap();
        let direct = OpenOptions::new().write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(&path).unwrap();
        let write = |fill: u8, offset: u64, flags: ReadWriteFlags| {
            let (bytes, range) = aligned(fill);
            let before = disk.device().counts();
            assert_eq!(pwritev2(&direct, &[IoSlice::new(&bytes[range])], offset, flags).unwrap(), 4096);
            let after = disk.device().counts();
            (after.writes - before.writes, after.flushes - before.flushes)
        };
        let (writes, flushes) = write(1, 4096, ReadWriteFlags::DSYNC);
        assert!(writes >= 1 && flushes >= 1, "{writes} writes, {flushes} flushes");
        let (writes, _) = write(2, 8192, ReadWriteFlags::empty());
        assert!(writes >= 1);
        drop(direct);
        disk.reboot(Survivors::None);
        let bytes = std::fs::read(disk.path().join("log")).unwrap();
        assert_eq!((bytes[4095], bytes[4096], bytes[8191], bytes[8192]), (0, 1, 1, 0));
    });
}

#[test]
fn whatever_was_acknowledged_survives_power_cuts_under_load() {
    power::with_disk(640, |disk| {
        let entities = Entities::new(6);
        let history = Arc::new(History::default());
        let mut dice = Dice::new(11, 0);
        for round in 0..long::rounds(12, 200) as u64 {
            let server = start(&disk.path());
            history.settle();
            let crowd = Crowd::start(&server, 8, entities, &history, 500 + round);
            crowd.wait_for(1);
            // Amid the first commits, a segment's zeros, a checkpoint or a manifest: wherever that many requests lead.
            disk.device().cut_after(dice.below(1_500));
            eventually("the power goes", || !disk.device().has_power());
            server.kill();
            crowd.finish();
            disk.reboot(match round % 3 {
                0 => Survivors::None,
                _ => Survivors::Some(round),
            });
        }
        let server = start(&disk.path());
        history.settle();
        crowd::read_all(&server, entities, &history);
        let judged = crowd::judge(&server, entities, &history);
        assert!(judged.versions > 0 && judged.unknown > 0, "the cuts met no write: {judged:?}");
        server.stop_cleanly();
        disk.reboot(Survivors::None);
        disk.examine().unwrap();
    });
}

#[test]
fn a_power_cut_at_every_request_of_the_first_start_leaves_a_store_that_starts() {
    power::with_disk(640, |disk| {
        let mut cuts = 0;
        for requests in (0..).step_by(long::rounds(23, 1)) {
            let data = disk.path().join(format!("data-{requests}"));
            disk.device().cut_after(requests);
            let first = TestServer::builder().data_dir(&data).shards(2).try_start();
            let was_cut = !disk.device().has_power();
            if let Ok(server) = first {
                server.kill();
            }
            cuts += u64::from(was_cut);
            disk.reboot(Survivors::Some(requests));
            let data = disk.path().join(format!("data-{requests}"));
            let server = TestServer::builder().data_dir(&data).shards(2).start();
            server.http().put("/entity/s/k", "1").expect(201);
            server.stop_cleanly();
            std::fs::remove_dir_all(&data).unwrap();
            if !was_cut {
                break;
            }
        }
        assert!(cuts > 2, "the first start asks the disk for more than that");
    });
}

#[test]
fn a_power_cut_at_any_request_of_a_change_of_the_shard_count_leaves_one_whole_generation() {
    power::with_disk(640, |disk| {
        let entities = Entities::new(6);
        let history = Arc::new(History::default());
        let builder = |disk: &PoweredDisk| TestServer::builder().data_dir(disk.path().join("data"));
        let (mut cuts, mut shards) = (0, 2);
        let server = start(&disk.path());
        Crowd::start(&server, 6, entities, &history, 900).wait_for_and_finish(400);
        server.kill();
        for requests in (0..).step_by(long::rounds(13, 1)) {
            disk.device().cut_after(requests);
            let changed = builder(disk).shards(1 + shards % 3).try_start();
            let was_cut = !disk.device().has_power();
            match changed {
                Ok(server) => drop(server.kill()),
                Err(ended) => assert!(was_cut, "the shard count was not changed: {ended:#?}"),
            }
            cuts += u64::from(was_cut);
            disk.reboot(if requests % 2 == 0 { Survivors::None } else { Survivors::Some(requests) });
            // Whichever it is, one generation serves, and goes on from all that was answered before.
            let server = builder(disk).start();
            history.settle();
            shards = server.wire_client().welcome().shards.len();
            crowd::read_all(&server, entities, &history);
            Crowd::start(&server, 4, entities, &history, 901 + requests).wait_for_and_finish(30);
            match requests % 3 {
                0 => server.stop_cleanly(),
                _ => drop(server.kill()),
            }
            if !was_cut {
                break;
            }
        }
        assert!(cuts > 4, "a change of the shard count asks the disk for more than that");
        crowd::judge_without_shards(&history);
        disk.examine().unwrap();
    });
}

#[test]
fn a_disk_that_lies_about_flushes_is_found_out() {
    power::with_disk(640, |disk| {
        let entities = Entities::new(6);
        let history = Arc::new(History::default());
        let server = start(&disk.path());
        let crowd = Crowd::start(&server, 4, entities, &history, 77);
        crowd.wait_for(200);
        disk.device().set_faults(Faults { flushes_lie: true, ..Faults::default() });
        crowd.wait_for(400);
        disk.device().cut();
        server.kill();
        crowd.finish();
        disk.reboot(Survivors::None);
        let server = start(&disk.path());
        history.settle();
        crowd::read_all(&server, entities, &history);
        let verdict = crowd::verdict(&server, entities, &history);
        let is_noticed = verdict.as_ref().is_err_and(|reason| reason.contains("is not linearizable"));
        assert!(is_noticed, "acknowledged writes were dropped, and nobody noticed: {verdict:?}");
    });
}

fn start(disk: &Path) -> TestServer {
    TestServer::builder().data_dir(disk.join("data")).shards(2).start()
}
