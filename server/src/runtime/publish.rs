//! Small whole files: read in one piece, and replaced so that a crash leaves the old text or the new, never a mixture.
//!
//! A file is published by writing a temporary neighbour, syncing it, renaming it over the name and syncing the
//! directory. One publisher a path at a time: two would share the temporary name.

use super::buffer::AlignedBuffer;
use super::platform::{Caching, Disk, DiskFile, Durability, OpenMode};
use std::io;
use std::path::{Path, PathBuf};

/// What the temporary neighbour's name ends in; whoever lists a directory skips such names.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// Makes `bytes` the durable content of `path`. After an error the old content may still stand, or the new one may
/// be visible without being durable.
pub async fn publish<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_of(path);
    match disk.remove_file(&temporary).await {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if let Err(error) = write_synced(disk, &temporary, bytes).await {
        // Leaves no half-written neighbour behind; the write's own error says more than one of the cleanup.
        let _ = disk.remove_file(&temporary).await;
        return Err(error);
    }
    disk.rename(&temporary, path).await?;
    disk.sync_dir(parent_of(path)).await
}

/// The whole content of a file, if it has no more than `bytes_max` bytes; `InvalidData` when it has more.
pub async fn read_file<D: Disk>(disk: &D, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
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

fn temporary_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    PathBuf::from(name)
}

async fn write_synced<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.open(path, OpenMode::CreateNew, Caching::Buffered).await?;
    let mut written = 0;
    while written < bytes.len() {
        let mut buffer = AlignedBuffer::zeroed(bytes.len() - written);
        buffer.copy_from_slice(&bytes[written..]);
        let (result, _) = file.write_at(written as u64, buffer, Durability::Later).await;
        match result? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => written += count,
        }
    }
    file.sync_data().await
}
