//! Whole reads and writes over a [`DiskFile`], whose own may be short.

use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{DiskFile, Durability};
use crate::sabotage::{Sabotage, is_on};
use std::io;

/// Reads `offset..offset + buffer.len()`, or up to the end of the file; returns how many bytes. Offset and length keep
/// to the file's alignment.
pub async fn read_whole_range<F: DiskFile>(
    file: &F,
    offset: u64,
    buffer: AlignedBuffer,
) -> (io::Result<usize>, AlignedBuffer) {
    let wanted = buffer.len();
    let (result, mut buffer) = file.read_at(offset, buffer).await;
    let mut filled = match result {
        Ok(count) if count < wanted && count > 0 => count,
        other => return (other, buffer),
    };
    // Short: almost always the end of the file. Where it is not, the rest is read apart and copied.
    while filled < wanted {
        let from = filled - filled % file.alignment().max(1);
        let (result, rest) = file.read_at(offset + from as u64, AlignedBuffer::zeroed(wanted - from)).await;
        match result {
            Err(error) => return (Err(error), buffer),
            Ok(count) if from + count <= filled => break,
            Ok(count) => {
                buffer[from..from + count].copy_from_slice(&rest[..count]);
                filled = from + count;
            }
        }
    }
    (Ok(filled), buffer)
}

/// Writes the whole buffer. A short write that promised to be durable is an error, for what lies there now is not known
/// to be; of any other the rest is written, so that a disk that is full says so.
pub async fn write_whole_buffer<F: DiskFile>(
    file: &F,
    offset: u64,
    buffer: AlignedBuffer,
    durability: Durability,
) -> (io::Result<()>, AlignedBuffer) {
    let wanted = buffer.len();
    let (result, buffer) = file.write_at(offset, buffer, durability).await;
    let mut written = match result {
        Ok(count) => count,
        Err(error) => return (Err(error), buffer),
    };
    while written < wanted && !is_on(Sabotage::IgnoreShortWrite) {
        if written == 0 || durability == Durability::Synced {
            let error = io::Error::new(io::ErrorKind::WriteZero, format!("{written} of {wanted} bytes were written"));
            return (Err(error), buffer);
        }
        let mut rest = AlignedBuffer::zeroed(wanted - written);
        rest.copy_from_slice(&buffer[written..]);
        match file.write_at(offset + written as u64, rest, durability).await.0 {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
            Ok(count) => written += count,
            Err(error) => return (Err(error), buffer),
        }
    }
    (Ok(()), buffer)
}

/// Whether an error says that the disk, or the quota, is full.
pub fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::platform::{Caching, Disk, OpenMode, Platform};
    use crate::runtime::sim::{Effect, Fault, Operation, Sim};

    #[test]
    fn a_short_write_goes_on_unless_it_promised_to_be_durable() {
        for durability in [Durability::Later, Durability::Synced] {
            let sim = Sim::new(1);
            let platform = sim.platform();
            let run = async {
                let file = platform.disk().open("/f".as_ref(), OpenMode::CreateNew, Caching::Direct).await.unwrap();
                let mut buffer = AlignedBuffer::zeroed(8192);
                buffer.fill(7);
                sim.inject(Fault::next(Operation::WRITING, Effect::Short).times(2));
                write_whole_buffer(&file, 0, buffer, durability).await.0
            };
            let written = sim.run_until(run).unwrap();
            assert_eq!(written.is_ok(), durability == Durability::Later);
            let whole = sim.disk_image().peek("/f").unwrap() == [7; 8192];
            assert_eq!(whole, durability == Durability::Later);
        }
    }
}
