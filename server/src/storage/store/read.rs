//! Reading small files that may hold a secret: no copy of the content outlives the value handed out.

use super::StoreError;
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{Caching, Disk, DiskFile, OpenMode};
use std::io;
use std::path::Path;
use zeroize::{Zeroize, Zeroizing};

/// The whole file; one of more than `bytes_max` bytes is not what a store writes.
pub(super) async fn read<D: Disk>(disk: &D, path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let failed = |error| StoreError::io("read", path)(error);
    let file = disk.open(path, OpenMode::Read, Caching::Buffered).await.map_err(failed)?;
    let size = file.size().await.map_err(failed)?;
    if size > bytes_max as u64 {
        let reason = format!("it has {size} bytes, and at most {bytes_max} are expected");
        return Err(StoreError::Damaged { path: path.to_owned(), reason });
    }
    // Reserved whole, so that growing leaves no copy behind.
    let mut content = Zeroizing::new(Vec::with_capacity(size as usize));
    while (content.len() as u64) < size {
        let buffer = AlignedBuffer::zeroed(size as usize - content.len());
        let (count, mut buffer) = file.read_at(content.len() as u64, buffer).await;
        match count.map_err(failed)? {
            0 => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            count => content.extend_from_slice(&buffer[..count]),
        }
        buffer.zeroize();
    }
    Ok(content)
}
