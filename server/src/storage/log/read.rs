//! Reading one entity: one device read of the aligned range that holds its record.

use super::Damage;
use super::device::read_whole_range;
use super::format::BLOCK_BYTES_MAX;
use super::format::record::{RecordKind, open_record};
use super::index::Previous;
use super::state::{LogStorage, SegmentOf};
use crate::command::{Document, EntityRef, Version};
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{DiskFile, Platform};
use crate::storage::ReadError;
use std::path::Path;

/// Read buffers kept for reuse, and the largest that is.
const BUFFERS_KEPT: usize = 32;
const BUFFER_KEPT_BYTES: usize = 64 << 10;

impl<P: Platform> LogStorage<P> {
    /// See [`crate::storage::Storage::read`].
    pub(super) async fn read_entity(&self, entity: EntityRef<'_>) -> Result<Option<(Version, Document)>, ReadError> {
        let (found, segment) = {
            let state = self.state.borrow();
            let Some(found) = state.index.find(entity) else { return Ok(None) };
            (found, state.segments.get(found.place.slot).cloned())
        };
        // The clone pins the segment until the read is over.
        let Some(segment) = segment else {
            let nowhere = self.directory.join(format!("slot {}", found.place.slot));
            return Err(self.corrupted(&nowhere, 0, "its segment is not there".to_owned()));
        };
        self.read_record(&segment, found, entity).await.map(Some)
    }

    async fn read_record(
        &self,
        segment: &SegmentOf<P>,
        found: Previous,
        entity: EntityRef<'_>,
    ) -> Result<(Version, Document), ReadError> {
        let corrupted = |reason| self.corrupted(&segment.path, u64::from(found.place.offset), reason);
        let Some(file) = segment.file.get() else {
            return Err(corrupted("the segment is not open".to_owned()));
        };
        let (offset, length) = (found.place.offset as usize, found.place.length as usize);
        let alignment = file.alignment().max(1);
        let start = offset - offset % alignment;
        let wanted = (offset + length).next_multiple_of(alignment) - start;
        let (result, mut buffer) = read_whole_range(file, start as u64, self.take_read_buffer(wanted)).await;
        self.figures().storage_reads.add(1);
        let outcome = match result {
            Err(error) => {
                let place = place_of(&segment.path, u64::from(found.place.offset));
                Err(ReadError::Io { place, reason: error.to_string() })
            }
            Ok(count) => {
                self.figures().storage_read_bytes.add(count as u64);
                let record = buffer[..count].get_mut(offset - start..offset - start + length);
                let opened = check_record(record.unwrap_or(&mut []), segment, found, entity);
                opened.map_err(corrupted)
            }
        };
        self.return_read_buffer(buffer);
        outcome.map(|document| (found.version, document))
    }

    fn corrupted(&self, file: &Path, offset: u64, reason: String) -> ReadError {
        self.figures().open_failures.add(1);
        self.note_damage(Damage { file: file.to_owned(), offset, reason: reason.clone() });
        ReadError::Corrupted { place: place_of(file, offset), reason }
    }

    fn take_read_buffer(&self, bytes: usize) -> AlignedBuffer {
        let kept = self.state.borrow_mut().read_buffers.pop_if(|buffer| buffer.capacity() >= bytes);
        // Most records take one or two blocks; a buffer of four serves nearly all of them.
        let mut buffer = kept.unwrap_or_else(|| AlignedBuffer::zeroed(bytes.max(4 * BLOCK_BYTES_MAX)));
        buffer.set_len(bytes);
        buffer
    }

    fn return_read_buffer(&self, buffer: AlignedBuffer) {
        let mut state = self.state.borrow_mut();
        if buffer.capacity() <= BUFFER_KEPT_BYTES && state.read_buffers.len() < BUFFERS_KEPT {
            state.read_buffers.push(buffer);
        }
    }
}

fn place_of(file: &Path, offset: u64) -> String {
    format!("{} offset {offset}", file.display())
}

/// Opens the record and compares it with what was asked for; the reason names no content.
fn check_record<F>(
    record: &mut [u8],
    segment: &super::segment::Segment<F>,
    found: Previous,
    entity: EntityRef<'_>,
) -> Result<Document, String> {
    let length = record.len();
    if length != found.place.length as usize {
        return Err("the file ends within it".to_owned());
    }
    let (header, content) = open_record(record, &segment.key, &segment.binding).map_err(|error| error.to_string())?;
    if content.entity != entity {
        return Err("it holds another entity".to_owned());
    }
    if header.kind != RecordKind::Put || header.sequence != found.version || header.record_bytes() != length {
        return Err("it holds another version".to_owned());
    }
    Ok(Document::new(entity, content.document))
}
