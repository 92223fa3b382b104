//! How every file but a segment comes into being: whole or not at all.
//!
//! A reader sees the old content or the new one, never a mixture, and after [`publish`] returns the new one survives
//! a crash. What a crash leaves behind ends in `.tmp` and is removed at start.

use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{Caching, Disk, DiskFile, Durability, OpenMode};
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroize;

/// Ending of a file not yet published.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// Puts `bytes` under the name `path`, durably: temporary file, fdatasync, rename, fsync of the directory. One caller
/// a path at a time. After an error the old content or the new one is there.
pub async fn publish<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_path(path);
    match disk.remove_file(&temporary).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.open(&temporary, OpenMode::CreateNew, Caching::Buffered).await?;
    write_all(&file, bytes).await?;
    file.sync_data().await?;
    drop(file);
    disk.rename(&temporary, path).await?;
    disk.sync_dir(parent(path)).await
}

async fn write_all(file: &impl DiskFile, bytes: &[u8]) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        let mut buffer = AlignedBuffer::zeroed(bytes.len() - written);
        buffer.copy_from_slice(&bytes[written..]);
        let (count, mut buffer) = file.write_at(written as u64, buffer, Durability::Later).await;
        buffer.zeroize();
        match count? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => written += count,
        }
    }
    Ok(())
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    name.into()
}

/// The directory that holds a name; the current one for a bare name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
