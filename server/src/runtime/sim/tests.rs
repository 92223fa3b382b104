//! What the simulated machine promises to those who test with it.

use super::*;
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{
    Caching, Clock, Disk, DiskFile, Doorbell, Durability, Entropy, OpenMode, Spawn, TaskClass,
};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

fn buffer(bytes: &[u8]) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::zeroed(bytes.len());
    buffer.copy_from_slice(bytes);
    buffer
}

async fn create(disk: &SimDisk, path: &str, bytes: &[u8], durability: Durability) -> io::Result<SimFile> {
    let file = disk.open(Path::new(path), OpenMode::CreateNew, Caching::Buffered).await?;
    let written = file.write_at(0, buffer(bytes), durability).await.0?;
    assert_eq!(written, bytes.len());
    Ok(file)
}

async fn read(file: &SimFile, len: usize) -> io::Result<Vec<u8>> {
    let (result, buffer) = file.read_at(0, AlignedBuffer::zeroed(len)).await;
    Ok(buffer[..result?].to_vec())
}

fn durable_file(path: &str, bytes: &[u8]) -> DiskImage {
    let mut image = DiskImage::default();
    image.replace(path, bytes).unwrap();
    image
}

/// The contents of `/f` over many power losses right after `setup`.
fn outcomes(setup: impl AsyncFn(&SimDisk) -> io::Result<()>, image: DiskImage) -> BTreeSet<Option<Vec<u8>>> {
    let sim = Sim::on_disk(1, image);
    let platform = sim.platform();
    sim.run_until(setup(platform.disk())).unwrap().unwrap();
    let image = sim.power_loss_image();
    (0..400).map(|seed| image.after_power_loss(Survival::Random, seed).peek("/f").ok()).collect()
}

#[test]
fn unsynced_bytes_survive_in_any_subset_and_synced_ones_always() {
    let found = outcomes(
        async |disk| {
            let file = create(disk, "/f", &[1; 1024], Durability::Synced).await?;
            disk.sync_dir(Path::new("/")).await?;
            file.write_at(0, buffer(&[2; 1024]), Durability::Later).await.0?;
            file.write_at(1024, buffer(&[3; 100]), Durability::Later).await.0?;
            Ok(())
        },
        DiskImage::default(),
    );
    let bytes =
        |parts: &[(u8, usize)]| Some(parts.iter().flat_map(|(byte, len)| vec![*byte; *len]).collect::<Vec<_>>());
    assert!(found.contains(&bytes(&[(1, 1024)])), "nothing survived");
    assert!(found.contains(&bytes(&[(2, 1024), (3, 100)])), "all survived");
    assert!(found.contains(&bytes(&[(2, 512), (1, 512)])), "a torn prefix");
    assert!(found.contains(&bytes(&[(1, 1024), (3, 100)])), "the second without the first");
    let whole = |content: &Vec<u8>| {
        content.len() >= 1024 && content.chunks(512).all(|chunk| chunk.iter().all(|byte| *byte == chunk[0]))
    };
    assert!(found.iter().all(|content| content.as_ref().is_some_and(whole)), "sectors are never mixed");
}

#[test]
fn a_sync_covers_only_what_was_written_before_it_was_issued() {
    let sim = Sim::new(3);
    let platform = sim.platform();
    let run = async {
        let file = create(platform.disk(), "/f", b"before", Durability::Later).await.unwrap();
        platform.disk().sync_dir(Path::new("/")).await.unwrap();
        sim.inject(Fault::next(&[Operation::Sync], Effect::Delay(Duration::from_millis(50))));
        let sync = file.clone();
        platform.spawn().spawn(TaskClass::Foreground, async move { sync.sync_data().await.unwrap() });
        platform.clock().sleep(Duration::from_millis(1)).await;
        file.write_at(0, buffer(b"during"), Durability::Later).await.0.unwrap();
        platform.clock().sleep(Duration::from_millis(100)).await;
    };
    sim.run_until(run).unwrap();
    let lost = sim.power_loss_image().after_power_loss(Survival::Nothing, 0);
    assert_eq!(lost.peek("/f").unwrap(), b"before");
}

#[test]
fn a_synced_write_is_not_undone_by_older_unsynced_ones() {
    let found = outcomes(
        async |disk| {
            let file = disk.open(Path::new("/f"), OpenMode::ReadWrite, Caching::Buffered).await?;
            file.write_at(0, buffer(&[7; 1536]), Durability::Later).await.0?;
            file.set_len(1024).await?;
            file.write_at(512, buffer(&[9; 512]), Durability::Synced).await.0?;
            Ok(())
        },
        durable_file("/f", &[0; 2048]),
    );
    for content in found {
        let content = content.unwrap();
        assert_eq!((content.len(), &content[512..]), (1024, [9; 512].as_slice()));
    }
}

#[test]
fn names_need_their_directory_synced_and_renames_are_atomic() {
    let publish = async |disk: &SimDisk| {
        create(disk, "/f.tmp", b"new", Durability::Synced).await?;
        disk.rename(Path::new("/f.tmp"), Path::new("/f")).await
    };
    let found = outcomes(publish, durable_file("/f", b"old"));
    assert_eq!(found, BTreeSet::from([Some(b"old".to_vec()), Some(b"new".to_vec())]));
    let synced = async |disk: &SimDisk| {
        publish(disk).await?;
        disk.sync_dir(Path::new("/")).await
    };
    assert_eq!(outcomes(synced, durable_file("/f", b"old")), BTreeSet::from([Some(b"new".to_vec())]));
    let removed = async |disk: &SimDisk| disk.remove_file(Path::new("/f")).await;
    assert_eq!(outcomes(removed, durable_file("/f", b"old")), BTreeSet::from([None, Some(b"old".to_vec())]));
}

#[test]
fn a_rename_across_directories_needs_both_synced() {
    let sim = Sim::on_disk(1, durable_file("/a/f", b"x"));
    let platform = sim.platform();
    let run = async {
        let disk = platform.disk();
        disk.create_dir_all(Path::new("/b")).await?;
        disk.sync_dir(Path::new("/")).await?;
        disk.rename(Path::new("/a/f"), Path::new("/b/f")).await?;
        disk.sync_dir(Path::new("/b")).await
    };
    sim.run_until(run).unwrap().unwrap();
    let before = sim.poke(|image| image.after_power_loss(Survival::Nothing, 0));
    assert!(before.exists("/a/f") && !before.exists("/b/f"));
    sim.run_until(platform.disk().sync_dir(Path::new("/a"))).unwrap().unwrap();
    let after = sim.poke(|image| image.after_power_loss(Survival::Nothing, 0));
    assert!(!after.exists("/a/f") && after.exists("/b/f"));
}

#[test]
fn a_failed_sync_is_not_healed_by_the_next_one() {
    let sim = Sim::on_disk(1, durable_file("/f", b"old"));
    let platform = sim.platform();
    let run = async {
        let file = platform.disk().open(Path::new("/f"), OpenMode::ReadWrite, Caching::Buffered).await.unwrap();
        file.write_at(0, buffer(b"new"), Durability::Later).await.0.unwrap();
        sim.inject(Fault::eio(Operation::MAKING_DURABLE));
        assert!(file.sync_data().await.is_err());
        file.sync_data().await.unwrap();
        assert_eq!(read(&file, 3).await.unwrap(), b"new");
    };
    sim.run_until(run).unwrap();
    assert_eq!(sim.power_loss_image().after_power_loss(Survival::Nothing, 0).peek("/f").unwrap(), b"old");
}

#[test]
fn a_new_process_can_sync_what_the_last_one_failed_to() {
    let sim = Sim::on_disk(1, durable_file("/f", b"old"));
    let platform = sim.platform();
    let run = async {
        let file = platform.disk().open(Path::new("/f"), OpenMode::ReadWrite, Caching::Buffered).await.unwrap();
        file.write_at(0, buffer(b"new"), Durability::Later).await.0.unwrap();
        sim.inject(Fault::eio(Operation::MAKING_DURABLE));
        assert!(file.sync_data().await.is_err());
    };
    sim.run_until(run).unwrap();
    let next = Sim::on_disk(2, sim.kill());
    let platform = next.platform();
    let run = async {
        let file = platform.disk().open(Path::new("/f"), OpenMode::ReadWrite, Caching::Buffered).await.unwrap();
        file.sync_data().await.unwrap();
    };
    next.run_until(run).unwrap();
    assert_eq!(next.power_loss_image().after_power_loss(Survival::Nothing, 0).peek("/f").unwrap(), b"new");
}

/// Whether a write in flight reached the device is decided by the outcome alone, never by the seed of the machine.
#[test]
fn a_write_in_flight_is_part_of_everything_and_not_of_nothing() {
    for (seed, durability) in (0..16).flat_map(|seed| [(seed, Durability::Later), (seed, Durability::Synced)]) {
        let sim = Sim::on_disk(seed, durable_file("/f", b"old"));
        sim.inject(Fault::next(Operation::WRITING, Effect::Hang));
        let platform = sim.platform();
        let write = async {
            let file = platform.disk().open(Path::new("/f"), OpenMode::ReadWrite, Caching::Buffered).await.unwrap();
            file.write_at(0, buffer(b"new"), durability).await.0
        };
        assert!(sim.run_until(write).is_err(), "it never ends");
        let image = sim.power_loss_image();
        let found = |survival| image.after_power_loss(survival, seed).peek("/f").unwrap();
        assert_eq!((found(Survival::Nothing), found(Survival::Everything)), (b"old".to_vec(), b"new".to_vec()));
    }
}

#[test]
fn the_power_goes_at_the_sync_point_asked_for() {
    let run = |cut| {
        let sim = Sim::on_disk(9, durable_file("/f", b"0"));
        sim.cut_power(cut);
        let platform = sim.platform();
        let steps = Cell::new(b'0');
        let write = async {
            let file = platform.disk().open(Path::new("/f"), OpenMode::ReadWrite, Caching::Buffered).await.unwrap();
            for digit in b'1'..=b'3' {
                file.write_at(0, buffer(&[digit]), Durability::Later).await.0.unwrap();
                file.sync_data().await.unwrap();
                steps.set(digit);
            }
        };
        let halt = sim.run_until(write);
        (halt, steps.get(), sim.power_loss_image().after_power_loss(Survival::Nothing, 0).peek("/f").unwrap())
    };
    assert_eq!(run(PowerCut::DuringSync(2)), (Err(Halt::PowerLost), b'1', b"1".to_vec()));
    assert_eq!(run(PowerCut::AfterSync(2)), (Err(Halt::PowerLost), b'1', b"2".to_vec()));
    assert_eq!(run(PowerCut::AfterSync(4)), (Ok(()), b'3', b"3".to_vec()));
    assert_eq!(run(PowerCut::AtStep(1)), (Err(Halt::PowerLost), b'0', b"0".to_vec()));
}

#[test]
fn direct_files_insist_on_alignment() {
    let sim = Sim::new(1);
    sim.set_direct_alignment(Some(4096));
    let platform = sim.platform();
    let run = async {
        let file = platform.disk().open(Path::new("/f"), OpenMode::CreateNew, Caching::Direct).await.unwrap();
        assert_eq!((file.alignment(), file.is_direct()), (4096, true));
        let misaligned = file.write_at(0, AlignedBuffer::zeroed(512), Durability::Synced).await.0;
        assert_eq!(misaligned.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let misplaced = file.read_at(512, AlignedBuffer::zeroed(4096)).await.0;
        assert_eq!(misplaced.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        file.write_at(4096, AlignedBuffer::zeroed(4096), Durability::Synced).await.0.unwrap()
    };
    assert_eq!(sim.run_until(run).unwrap(), 4096);
    sim.set_direct_alignment(None);
    let reopened = platform.disk().open(Path::new("/f"), OpenMode::Read, Caching::Direct);
    assert!(!sim.run_until(reopened).unwrap().unwrap().is_direct());
}

#[test]
fn space_runs_out_and_comes_back() {
    let sim = Sim::new(1);
    sim.set_capacity_bytes(Some(16_384));
    let platform = sim.platform();
    let disk = platform.disk();
    let run = async {
        let first = create(disk, "/first", &[1; 8192], Durability::Later).await.unwrap();
        let second = disk.open(Path::new("/second"), OpenMode::CreateNew, Caching::Buffered).await.unwrap();
        assert_eq!(second.write_at(0, AlignedBuffer::zeroed(12_288), Durability::Later).await.0.unwrap(), 8192);
        let refused = second.write_zeros(8192, 4096).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        first.write_at(0, AlignedBuffer::zeroed(8192), Durability::Later).await.0.unwrap();
        disk.remove_file(Path::new("/first")).await.unwrap();
        assert_eq!(disk.space_available(Path::new("/")).await.unwrap(), 0, "an open file keeps its space");
        drop(first);
        assert_eq!(disk.space_available(Path::new("/")).await.unwrap(), 8192);
        second.write_zeros(8192, 4096).await.unwrap();
    };
    sim.run_until(run).unwrap();
}

#[test]
fn a_write_torn_within_a_block_fails_as_it_was_told_to() {
    for seed in 0..16 {
        let sim = Sim::on_disk(seed, durable_file("/f", &[0; 4096]));
        sim.set_direct_alignment(Some(4096));
        let platform = sim.platform();
        let run = async {
            let file = platform.disk().open(Path::new("/f"), OpenMode::ReadWrite, Caching::Direct).await.unwrap();
            sim.inject(Fault::next(Operation::WRITING, Effect::Error(5)));
            let failed = file.write_at(0, AlignedBuffer::zeroed(4096), Durability::Synced).await.0.unwrap_err();
            assert_eq!(failed.raw_os_error(), Some(5), "seed {seed}");
        };
        sim.run_until(run).unwrap();
    }
}

#[test]
fn short_transfers_rot_and_a_read_only_disk() {
    let sim = Sim::on_disk(4, durable_file("/f", &[0; 4096]));
    let platform = sim.platform();
    let run = async {
        let file = platform.disk().open(Path::new("/f"), OpenMode::ReadWrite, Caching::Buffered).await.unwrap();
        sim.inject(Fault::next(&[Operation::Read], Effect::Short));
        sim.inject(Fault::next(Operation::WRITING, Effect::Short));
        assert!((1..4096).contains(&read(&file, 4096).await.unwrap().len()));
        assert!(
            (1..4096).contains(&file.write_at(0, AlignedBuffer::zeroed(4096), Durability::Synced).await.0.unwrap())
        );
        sim.set_fault_rates(FaultRates { rot_ppm: 1_000_000, ..FaultRates::default() });
        let ones: u32 = read(&file, 4096).await.unwrap().iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(ones, 1);
        sim.set_read_only(true);
        let refused = file.write_at(0, AlignedBuffer::zeroed(1), Durability::Later).await.0.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
        let refused = platform.disk().remove_file(Path::new("/f")).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
    };
    sim.run_until(run).unwrap();
}

#[test]
fn a_killed_process_may_leave_a_write_that_lands_later() {
    let mut landed_late = 0;
    for seed in 0..64 {
        let sim = Sim::on_disk(seed, durable_file("/f", b"old"));
        let platform = sim.platform();
        let disk = platform.disk().clone();
        platform.spawn().spawn(TaskClass::Foreground, async move {
            let file = disk.open(Path::new("/f"), OpenMode::ReadWrite, Caching::Buffered).await.unwrap();
            file.write_at(0, buffer(b"new"), Durability::Later).await.0.unwrap();
        });
        sim.inject(Fault::next(Operation::WRITING, Effect::Delay(Duration::from_secs(9))));
        sim.run_for(Duration::from_secs(1)).unwrap();
        let image = sim.kill();
        let at_start = image.peek("/f").unwrap();
        let next = Sim::on_disk(seed, image);
        next.run_until_idle().unwrap();
        landed_late += usize::from(at_start == b"old" && next.disk_image().peek("/f").unwrap() == b"new");
    }
    assert!((1..64).contains(&landed_late), "{landed_late} of 64 landed late");
}

/// Several tasks that write, sleep and draw; returns the order in which things happened.
fn busy_run(seed: u64) -> (Vec<u64>, u64, DiskImage) {
    let sim = Sim::new(seed);
    let platform = sim.platform();
    let order = Rc::new(RefCell::new(Vec::new()));
    for number in 0..8 {
        let (platform, order) = (platform.clone(), Rc::clone(&order));
        platform.clone().spawn().spawn(TaskClass::Background, async move {
            let file = create(platform.disk(), &format!("/{number}"), b"x", Durability::Later).await.unwrap();
            platform.spawn().yield_if_due().await;
            platform.clock().sleep(Duration::from_micros(platform.entropy().next_u64() % 300)).await;
            file.sync_data().await.unwrap();
            order.borrow_mut().push(number);
        });
    }
    sim.run_for(Duration::from_secs(1)).unwrap();
    (order.take(), sim.trace_hash(), sim.crash())
}

#[test]
fn a_seed_replays_to_the_byte_and_another_differs() {
    let (order, hash, image) = busy_run(11);
    let (order_again, hash_again, image_again) = busy_run(11);
    assert_eq!((&order, hash), (&order_again, hash_again));
    assert_eq!(image.list_files(), image_again.list_files());
    assert_eq!(order.len(), 8);
    let orders: BTreeSet<_> = (0..20).map(|seed| busy_run(seed).0).collect();
    assert!(orders.len() > 10, "the seed decides the order");
    assert_ne!(busy_run(12).1, hash);
}

#[test]
fn time_jumps_to_the_next_timer_and_a_deadlock_names_who_waits() {
    let sim = Sim::new(1);
    let platform = sim.platform();
    let before_ns = platform.clock().now_ns();
    sim.run_until(platform.clock().sleep(Duration::from_secs(3600))).unwrap();
    assert!(platform.clock().now_ns() - before_ns >= 3_600_000_000_000);
    platform.spawn().spawn(TaskClass::Background, pending());
    sim.inject(Fault::next(&[Operation::SyncDir], Effect::Hang));
    let Err(Halt::Deadlock(waiting)) = sim.run_until(platform.disk().sync_dir(Path::new("/"))) else {
        panic!("a hung sync must end in a deadlock");
    };
    let waiting = waiting.join("\n");
    assert!(waiting.contains("Background task") && waiting.contains("tests.rs"), "{waiting}");
    assert!(waiting.contains("hung disk operation: SyncDir"), "{waiting}");
}

#[test]
fn yielding_lets_every_other_task_run() {
    for seed in 0..32 {
        let sim = Sim::new(seed);
        let platform = sim.platform();
        let runs = Rc::new(Cell::new(0));
        for _ in 0..5 {
            let runs = Rc::clone(&runs);
            platform.spawn().spawn(TaskClass::Foreground, async move { runs.set(runs.get() + 1) });
        }
        sim.run_until(platform.spawn().yield_now()).unwrap();
        assert_eq!(runs.get(), 5);
    }
}

#[test]
fn a_livelock_ends_at_the_step_limit() {
    let sim = Sim::new(1);
    sim.set_step_limit(1000);
    let platform = sim.platform();
    let spin = async {
        loop {
            platform.spawn().yield_now().await;
        }
    };
    assert_eq!(
        sim.run_until::<std::pin::Pin<Box<dyn Future<Output = ()>>>>(Box::pin(spin)),
        Err(Halt::StepLimit(1000))
    );
}

#[test]
fn a_doorbell_rung_before_parking_is_heard() {
    let sim = Sim::new(1);
    let doorbell = sim.doorbell();
    doorbell.ring(2);
    sim.run_until(doorbell.rung(2)).unwrap();
    let ringer = doorbell.clone();
    sim.platform().spawn().spawn(TaskClass::Foreground, async move { ringer.ring(2) });
    sim.run_until(doorbell.rung(2)).unwrap();
    assert!(matches!(sim.run_until(doorbell.rung(1)), Err(Halt::Deadlock(_))));
}

#[test]
fn a_disk_at_rest_can_be_damaged() {
    let mut image = durable_file("/d/f", b"hello");
    image.flip_bit("/d/f", 0).unwrap();
    assert_eq!(image.peek("/d/f").unwrap(), b"iello");
    assert!(image.flip_bit("/d/f", 40).is_err());
    image.copy("/d/f", "/d/g").unwrap();
    image.truncate("/d/f", 2).unwrap();
    image.poke("/d/g", 4, b"p!").unwrap();
    assert_eq!(image.list_files(), [("/d/f".into(), 2), ("/d/g".into(), 6)]);
    assert_eq!(image.find_bytes(b"ellp!"), Some("/d/g".into()));
    image.move_file("/d/g", "/d/f").unwrap();
    let stored = image.after_power_loss(Survival::Nothing, 0);
    assert_eq!((stored.peek("/d/f").unwrap(), stored.exists("/d/g")), (b"iellp!".to_vec(), false));
    image.remove("/d").unwrap();
    assert_eq!(image.list_files(), []);
}

#[test]
fn requests_can_be_watched_and_the_wall_clock_jumps() {
    let sim = Sim::new(1);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let record = Rc::clone(&seen);
    sim.watch(Rc::new(move |request| record.borrow_mut().push(format!("{request:?}"))));
    let platform = sim.platform();
    let run = async {
        create(platform.disk(), "/a", b"xy", Durability::Later).await?;
        platform.disk().rename(Path::new("/a"), Path::new("/b")).await
    };
    sim.run_until(run).unwrap().unwrap();
    let seen = seen.take();
    assert!(matches!(&*seen, [write, rename] if write.contains("offset: 0") && rename.contains("/b")), "{seen:?}");
    let (wall_ms, monotonic_ns) = (platform.clock().unix_ms(), platform.clock().now_ns());
    sim.shift_wall_clock(-3_600_000);
    assert_eq!(platform.clock().unix_ms(), wall_ms - 3_600_000);
    assert_eq!(platform.clock().now_ns(), monotonic_ns);
}

#[test]
fn any_operation_may_fail_or_be_slow_and_torn_writes_are_counted() {
    let sim = Sim::on_disk(1, durable_file("/f", &[0; 4096]));
    let platform = sim.platform();
    sim.set_fault_rates(FaultRates { other_error_ppm: 1_000_000, slow_ppm: 1_000_000, ..FaultRates::default() });
    let before_ns = platform.clock().now_ns();
    let opened = sim.run_until(platform.disk().open(Path::new("/f"), OpenMode::Read, Caching::Buffered)).unwrap();
    assert!(opened.is_err() && platform.clock().now_ns() - before_ns >= FaultRates::default().slow_ns);
    sim.set_fault_rates(FaultRates::default());
    let run = async {
        let file = platform.disk().open(Path::new("/f"), OpenMode::ReadWrite, Caching::Buffered).await?;
        file.write_at(0, buffer(&[7; 4096]), Durability::Later).await.0
    };
    sim.run_until(run).unwrap().unwrap();
    let image = sim.power_loss_image();
    let outcomes = (0..64).map(|seed| image.after_power_loss(Survival::Random, seed));
    for found in outcomes {
        let sevens = found.peek("/f").unwrap().iter().filter(|byte| **byte == 7).count();
        assert_eq!(found.torn_writes() > 0, (1..4096).contains(&sevens), "{sevens} bytes survived");
    }
}

/// A journal may lose a change, but never replays an older one over a newer one.
#[test]
fn a_name_whose_sync_failed_does_not_come_back_after_it_was_removed_for_good() {
    for seed in 0..64 {
        let older = if seed % 2 == 0 { "/d/f" } else { "/d/g" };
        let sim = Sim::on_disk(seed, durable_file(older, b"old"));
        let platform = sim.platform();
        let directory = Path::new("/d");
        let run = async {
            let disk = platform.disk();
            create(disk, "/d/f.tmp", b"new", Durability::Synced).await.unwrap();
            disk.rename(Path::new("/d/f.tmp"), Path::new("/d/f")).await.unwrap();
            sim.inject(Fault::eio(&[Operation::SyncDir]));
            assert!(disk.sync_dir(directory).await.is_err());
            disk.remove_file(Path::new("/d/f")).await.unwrap();
            disk.sync_dir(directory).await.unwrap();
        };
        sim.run_until(run).unwrap();
        let left = sim.crash();
        assert!(!left.exists("/d/f") && left.exists("/d/g") == (older == "/d/g"), "seed {seed}");
    }
}
