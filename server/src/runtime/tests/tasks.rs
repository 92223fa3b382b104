//! Background work, timers and panics on a real shard.

use super::super::buffer::AlignedBuffer;
use super::super::platform::{Caching, Clock, Disk, DiskFile, Durability, OpenMode, Platform, Spawn, TaskClass};
use super::super::shard::ShardContext;
use super::on_shard;
use std::cell::{Cell, RefCell};
use std::os::unix::process::ExitStatusExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

#[test]
fn background_work_and_everything_else_make_way_for_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let slices = on_shard(move |context: ShardContext| {
        let path = path.clone();
        async move {
            let platform = context.platform;
            let (finish, slices) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0_u64)));
            let (finishing, counting, spawn) = (finish.clone(), slices.clone(), platform.spawn().clone());
            platform.spawn().spawn(TaskClass::Background, async move {
                // Never waits for anything: only its yields let others run.
                while !finishing.get() {
                    let began = Instant::now();
                    while began.elapsed() < Duration::from_micros(5) {}
                    counting.set(counting.get() + 1);
                    spawn.yield_if_due().await;
                }
                counting.set(u64::MAX);
            });
            let file = platform.disk().open(&path, OpenMode::CreateNew, Caching::Direct).await.unwrap();
            for round in 0..50 {
                let (written, _) = file.write_at(round * 4096, AlignedBuffer::zeroed(4096), Durability::Synced).await;
                assert_eq!(written.unwrap(), 4096);
                platform.clock().sleep(Duration::from_micros(100)).await;
                platform.spawn().yield_now().await;
            }
            let ran = slices.get();
            finish.set(true);
            while slices.get() != u64::MAX {
                platform.clock().sleep(Duration::from_micros(100)).await;
            }
            ran
        }
    });
    assert!(slices > 50, "background work ran {slices} times");
}

#[test]
fn sleepers_wake_in_the_order_of_their_times_and_may_be_dropped() {
    let order = on_shard(|context: ShardContext| async move {
        let clock = context.platform.clock().clone();
        let order = Rc::new(RefCell::new(Vec::new()));
        for (name, wait_ms) in [("third", 15), ("first", 1), ("second", 8)] {
            let (clock, order) = (clock.clone(), order.clone());
            context.platform.spawn().spawn(TaskClass::Foreground, async move {
                clock.sleep(Duration::from_millis(wait_ms)).await;
                order.borrow_mut().push(name);
            });
        }
        let mut dropped = Box::pin(clock.sleep(Duration::from_millis(2)));
        assert!(futures_lite::future::poll_once(dropped.as_mut()).await.is_none());
        drop(dropped);
        let endless = clock.sleep(Duration::MAX);
        let before = clock.now_ns();
        futures_lite::future::or(endless, clock.sleep(Duration::from_millis(20))).await;
        assert!(clock.now_ns() - before >= 20_000_000);
        order.take()
    });
    assert_eq!(order, ["first", "second", "third"]);
}

/// Not a test of its own: what the next one runs in another process.
#[test]
fn panicking_child() {
    if std::env::var_os("DELTA_TEST_PANICKING_CHILD").is_none() {
        return;
    }
    on_shard(|context: ShardContext| async move {
        context.platform.spawn().spawn(TaskClass::Background, async { panic!("expected by this test") });
        context.platform.clock().sleep(Duration::from_secs(60)).await;
    });
}

#[test]
fn a_panic_in_a_task_stops_the_process() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "runtime::tests::tasks::panicking_child"])
        .env("DELTA_TEST_PANICKING_CHILD", "1")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(child.signal(), Some(libc::SIGABRT));
}
