//! Small whole files: read in one piece, replaced so that a crash leaves the old content or the new, never a mixture.
//!
//! Publishing is: write a temporary neighbour, fdatasync, rename over the name, fsync the directory. One publisher a
//! path at a time, for two would share the neighbour's name. Neighbours a crash left behind are removed at start.

use super::buffer::AlignedBuffer;
use super::platform::{Caching, Disk, DiskFile, Durability, OpenMode};
use crate::sabotage::{Sabotage, is_on};
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroize;

/// What a temporary neighbour's name ends in.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// Makes `bytes` the durable content of `path`. After an error the old content still stands, or the new one is
/// visible without being known to be durable: which of the two, an error for want of space tells, for that is the old.
pub async fn publish<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    publish_with(disk, path, bytes, async { disk.sync_dir(parent_of(path)).await }).await
}

/// The same where the directory's sync is the caller's own.
pub async fn publish_with<D: Disk>(
    disk: &D,
    path: &Path,
    bytes: &[u8],
    sync_directory: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let temporary = temporary_of(path);
    remove_if_there(disk, &temporary).await?;
    if let Err(error) = write_whole(disk, &temporary, bytes).await {
        // The write's own error says more than one of the clean-up.
        let _ = disk.remove_file(&temporary).await;
        return Err(error);
    }
    disk.rename(&temporary, path).await?;
    if is_on(Sabotage::SkipDirectorySync) {
        return Ok(());
    }
    let in_place = |error| io::Error::other(format!("the new content is in place and may not be durable: {error}"));
    sync_directory.await.map_err(in_place)
}

/// The whole content of a file, if it has no more than `bytes_max` bytes; `InvalidData` when it has more.
pub async fn read_whole<D: Disk>(disk: &D, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read, Caching::Buffered).await?;
    let size = file.size().await?;
    // One byte more than the size is asked for, so that a file which grows meanwhile is noticed.
    let wanted = usize::try_from(size).unwrap_or(usize::MAX).min(bytes_max) + 1;
    let mut content = Vec::with_capacity(wanted);
    while content.len() < wanted {
        let buffer = AlignedBuffer::zeroed(wanted - content.len());
        let (result, buffer) = file.read_at(content.len() as u64, buffer).await;
        let count = result?;
        if count == 0 {
            break;
        }
        content.extend(buffer.iter().take(count));
    }
    if content.len() > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {bytes_max} bytes")));
    }
    Ok(content)
}

/// The directory a path lies in.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Removes the temporary neighbours a crash left in a directory; returns how many there were.
pub async fn remove_stray_temporaries<D: Disk>(disk: &D, directory: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for name in disk.read_dir(directory).await? {
        if name.ends_with(TEMPORARY_SUFFIX) {
            remove_if_there(disk, &directory.join(name)).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes a file; none there is fine.
pub async fn remove_if_there<D: Disk>(disk: &D, path: &Path) -> io::Result<()> {
    match disk.remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn temporary_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    name.into()
}

async fn write_whole<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    const PIECE_BYTES: usize = 1 << 20;
    let file = disk.open(path, OpenMode::CreateNew, Caching::Buffered).await?;
    let mut written = 0;
    let mut buffer = AlignedBuffer::zeroed(bytes.len().min(PIECE_BYTES));
    while written < bytes.len() {
        let rest = &bytes[written..];
        let wanted = rest.len().min(buffer.capacity());
        buffer.set_len(wanted);
        buffer.copy_from_slice(&rest[..wanted]);
        let (result, back) = file.write_at(written as u64, buffer, Durability::Later).await;
        buffer = back;
        // Some of what is published is secret.
        buffer.zeroize();
        match result? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => written += count,
        }
    }
    if is_on(Sabotage::SkipFileSync) {
        return Ok(());
    }
    file.sync_data().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::log::testing::TestPlatform;

    #[test]
    fn a_crash_at_any_point_leaves_the_old_content_or_the_new() {
        let path = Path::new("data/file");
        for survives in 0..12 {
            let platform = TestPlatform::new(1);
            let (old, new) = (vec![1; 5000], vec![2; 3 << 20]);
            platform.run(platform.disk.create_dir_all(Path::new("data"))).unwrap();
            platform.run(publish(&platform.disk, path, &old)).unwrap();
            platform.disk.die_after(survives);
            let published = platform.run(publish(&platform.disk, path, &new)).is_ok();
            for disk in [platform.disk.after_power_failure(), platform.disk.after_kill()] {
                let platform = TestPlatform::with_disk(2, disk.clone());
                let found = platform.run(read_whole(&disk, path, 8 << 20)).unwrap();
                assert!(found == new || (found == old && !published), "after {survives} operations");
                let removed = platform.run(remove_stray_temporaries(&disk, Path::new("data"))).unwrap();
                assert_eq!(disk.paths(), [path], "{removed} were removed");
                assert!(platform.run(read_whole(&disk, path, 4999)).is_err(), "the bound holds");
            }
        }
    }
}
