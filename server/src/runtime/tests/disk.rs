//! Files of the ring disk and of the plain one keep to the promises of `Disk` and `DiskFile`.
#![allow(unsafe_code)]

use super::super::buffer::AlignedBuffer;
use super::super::platform::{Caching, Disk, DiskFile, Durability, OpenMode, Platform, Spawn};
use super::super::shard::ShardContext;
use super::super::std_disk::StdDisk;
use super::on_shard;
use super::skips::skip;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

fn filled(len: usize, byte: u8) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::zeroed(len);
    buffer.fill(byte);
    buffer
}

/// What every disk promises.
async fn conformance<D: Disk>(disk: &D, root: &Path) -> io::Result<()> {
    let directory = root.join("a/b");
    disk.create_dir_all(&directory).await?;
    disk.create_dir_all(&directory).await?;
    for (name, caching) in [("buffered", Caching::Buffered), ("direct", Caching::Direct)] {
        let path = directory.join(name);
        let file = disk.open(&path, OpenMode::CreateNew, caching).await?;
        assert!(file.alignment().is_power_of_two() && file.alignment() <= 4096);
        assert_eq!(file.is_direct(), file.alignment() > 1);
        let again = disk.open(&path, OpenMode::CreateNew, caching).await.err().unwrap();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert!(again.to_string().contains(name), "{again}");

        file.write_zeros(0, 1 << 20).await?;
        file.sync_data().await?;
        assert_eq!(file.size().await?, 1 << 20);
        // More than one durable write, so that each way to it is met.
        for durability in [Durability::Later, Durability::Synced, Durability::Synced, Durability::Synced] {
            let (written, buffer) = file.write_at(8192, filled(4096, 9), durability).await;
            assert_eq!((written?, buffer.len()), (4096, 4096));
        }
        let (read, buffer) = file.read_at(4096, AlignedBuffer::zeroed(12288)).await;
        assert_eq!(read?, 12288);
        let expected = [[0; 4096], [9; 4096], [0; 4096]].concat();
        assert!(buffer[..] == expected);
        let (read, _) = file.read_at((1 << 20) - 4096, AlignedBuffer::zeroed(8192)).await;
        assert_eq!(read?, 4096);
        let (read, _) = file.read_at(2 << 20, AlignedBuffer::zeroed(4096)).await;
        assert_eq!(read?, 0);
        file.set_len(12288).await?;
        assert_eq!(file.clone().size().await?, 12288);

        let only_read = disk.open(&path, OpenMode::Read, caching).await?;
        let (refused, buffer) = only_read.write_at(0, filled(4096, 1), Durability::Synced).await;
        assert!(refused.unwrap_err().to_string().contains(name));
        assert_eq!(buffer.len(), 4096);
        disk.open(&path, OpenMode::ReadWrite, caching).await?;
    }
    let before = disk.stamp(&directory.join("direct")).await?;
    disk.rename(&directory.join("direct"), &directory.join("renamed")).await?;
    disk.sync_dir(&directory).await?;
    assert_eq!(disk.stamp(&directory.join("renamed")).await?, before);
    assert_eq!(before.size_bytes, 12288);
    let missing = disk.stamp(&directory.join("direct")).await.unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    let mut names = disk.read_dir(&directory).await?;
    names.sort();
    assert_eq!(names, ["buffered", "renamed"]);
    disk.remove_file(&directory.join("renamed")).await?;
    assert_eq!(disk.read_dir(&directory).await?, ["buffered"]);
    assert!(disk.space_available(root).await? > 0);
    disk.remove_dir_all(&root.join("a")).await?;
    disk.remove_dir_all(&root.join("a")).await?;
    let missing = disk.open(&directory, OpenMode::Read, Caching::Buffered).await.err().unwrap();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    Ok(())
}

/// Pages of a file that are in the page cache and not yet on the disk; `None` where the kernel does not tell.
fn pages_not_on_disk(path: &Path) -> Option<u64> {
    /// `cachestat` (Linux 6.5).
    const SYS_CACHESTAT: libc::c_long = 451;
    let file = File::open(path).unwrap();
    // Offset and length of the range: the whole file.
    let range = [0u64; 2];
    // Pages cached, dirty, under writeback, evicted, recently evicted.
    let mut counts = [0u64; 5];
    // SAFETY: range and counts have the layout of `cachestat_range` and `cachestat`, and outlive the call.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0) };
    (result == 0).then_some(counts[1] + counts[2])
}

#[test]
fn without_direct_io_a_synced_write_is_on_the_disk_when_it_says_so() {
    let directory = scratch();
    let path = directory.path().join("file");
    on_shard(move |context: ShardContext| {
        let path = path.clone();
        async move {
            let file = context.platform.disk().open(&path, OpenMode::CreateNew, Caching::Buffered).await.unwrap();
            assert!(!file.is_direct());
            file.write_zeros(0, 64 << 10).await.unwrap();
            file.sync_data().await.unwrap();
            file.write_at(0, filled(4096, 1), Durability::Later).await.0.unwrap();
            if pages_not_on_disk(&path).is_none_or(|pages| pages == 0) {
                skip("what of a file is not on the disk yet cannot be seen here (Linux 6.5, a real disk)");
                return;
            }
            for number in 0..16 {
                let written = file.write_at(number * 4096, filled(4096, 2), Durability::Synced).await.0;
                assert_eq!(written.unwrap(), 4096);
                assert_eq!(pages_not_on_disk(&path), Some(0), "write {number} was acknowledged from the page cache");
            }
        }
    });
}

/// A directory on a real disk where there is one: beside the test binary, not in a memory file system.
fn scratch() -> tempfile::TempDir {
    let beside: PathBuf = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    tempfile::tempdir_in(beside).unwrap()
}

#[test]
fn the_ring_disk_conforms() {
    let directory = scratch();
    let root = directory.path().to_owned();
    on_shard(move |context: ShardContext| {
        let root = root.clone();
        async move { conformance(context.platform.disk(), &root).await }
    })
    .unwrap();
}

#[test]
fn the_plain_disk_conforms() {
    let directory = scratch();
    futures_lite::future::block_on(conformance(&StdDisk, directory.path())).unwrap();
}

#[test]
fn a_memory_file_system_works_too() {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
    let root = directory.path().to_owned();
    on_shard(move |context: ShardContext| {
        let root = root.clone();
        async move { conformance(context.platform.disk(), &root).await }
    })
    .unwrap();
}

#[test]
fn dropping_an_operation_leaves_its_memory_to_the_kernel() {
    let directory = scratch();
    let path = directory.path().join("file");
    let ends = on_shard(move |context: ShardContext| {
        let path = path.clone();
        async move {
            let disk = context.platform.disk();
            let file = disk.open(&path, OpenMode::CreateNew, Caching::Direct).await?;
            file.write_zeros(0, 1 << 20).await?;
            for round in 0..200_u64 {
                let writing = file.write_at(round % 16 * 65536, filled(65536, round as u8), Durability::Synced);
                let mut writing = Box::pin(writing);
                // Polled once, so that it is queued, and dropped at several stages of its life.
                let polled = futures_lite::future::poll_once(writing.as_mut()).await;
                assert!(polled.is_none());
                for _ in 0..round % 5 {
                    context.platform.spawn().yield_now().await;
                }
                drop(writing);
            }
            file.sync_data().await?;
            let (read, buffer) = file.read_at(0, AlignedBuffer::zeroed(1 << 20)).await;
            assert_eq!(read?, 1 << 20);
            Ok::<_, io::Error>(buffer.chunks(65536).all(|chunk| chunk.iter().all(|byte| *byte == chunk[0])))
        }
    });
    assert!(ends.unwrap());
}

#[test]
fn many_operations_at_once_each_get_their_own_answer() {
    let directory = scratch();
    let path = directory.path().join("file");
    on_shard(move |context: ShardContext| {
        let path = path.clone();
        async move {
            let disk = context.platform.disk();
            let file = disk.open(&path, OpenMode::CreateNew, Caching::Direct).await.unwrap();
            file.write_zeros(0, 4 << 20).await.unwrap();
            let mut tasks = Vec::new();
            for page in 0..1024_u64 {
                let file = file.clone();
                // Guarded like all tasks of a shard, or the driver would sleep although one of them has woken this.
                tasks.push(glommio::spawn_local(context.platform.spawn().guard(async move {
                    let (written, _) = file.write_at(page * 4096, filled(4096, page as u8), Durability::Later).await;
                    assert_eq!(written.unwrap(), 4096);
                    let (read, buffer) = file.read_at(page * 4096, AlignedBuffer::zeroed(4096)).await;
                    assert_eq!(read.unwrap(), 4096);
                    assert!(buffer.iter().all(|byte| *byte == page as u8));
                })));
            }
            for task in tasks {
                task.await;
            }
        }
    });
}

/// A measurement, not a check: `cargo test --release -p deltadb --lib -- --ignored --nocapture commit_latency`.
#[test]
#[ignore = "a measurement"]
fn commit_latency() {
    let directory = scratch();
    let path = directory.path().join("file");
    let (direct, mean_us) = on_shard(move |context: ShardContext| {
        let path = path.clone();
        async move {
            const COMMITS: u64 = 2000;
            let file = context.platform.disk().open(&path, OpenMode::CreateNew, Caching::Direct).await.unwrap();
            file.write_zeros(0, COMMITS * 4096).await.unwrap();
            file.sync_data().await.unwrap();
            let mut buffer = filled(4096, 1);
            let began = std::time::Instant::now();
            for commit in 0..COMMITS {
                let (written, back) = file.write_at(commit * 4096, buffer, Durability::Synced).await;
                assert_eq!(written.unwrap(), 4096);
                buffer = back;
            }
            (file.is_direct(), began.elapsed().as_micros() as f64 / COMMITS as f64)
        }
    });
    println!("direct {direct}: {mean_us:.1} us a commit");
}
