//! Walking a whole shard: every live entity with its document. Sequential reads, in the order of the segments, not of
//! the keys.

use super::Damage;
use super::format::record::RecordKind;
use super::index::Place;
use super::scan::{Scanner, Step, Window};
use super::state::{LogStorage, SegmentOf};
use crate::command::{EntityRef, Version};
use crate::runtime::platform::{Platform, Spawn};

/// A live entity, as its record says it.
#[derive(Clone, Copy)]
pub struct LiveRecord<'a> {
    /// Which entity.
    pub entity: EntityRef<'a>,
    /// Its version.
    pub version: Version,
    /// When it was accepted.
    pub time_unix_ms: u64,
    /// When it ends; 0 for never.
    pub expiry_unix_ms: u64,
    /// Its document.
    pub document: &'a [u8],
}

/// Why a walk ended early.
#[derive(Debug, thiserror::Error)]
pub enum WalkError<E> {
    /// A segment is damaged.
    #[error("{0}")]
    Damaged(Damage),
    /// The visitor gave up.
    #[error("{0}")]
    Visitor(E),
}

impl<P: Platform> LogStorage<P> {
    /// Visits every durable live entity exactly once, unless writes or compaction move it meanwhile; meant for a log
    /// that is not written.
    pub async fn scan_live<E>(
        &self,
        mut visit: impl AsyncFnMut(LiveRecord<'_>) -> Result<(), E>,
    ) -> Result<(), WalkError<E>> {
        let mut window = Window::new(self.sizes.window_bytes);
        let segments = self.state.borrow().segments.listed();
        for segment in segments.iter().filter(|segment| segment.live_records.get() > 0) {
            window = self.scan_segment(segment, window, &mut visit).await?;
        }
        Ok(())
    }

    async fn scan_segment<E>(
        &self,
        segment: &SegmentOf<P>,
        window: Window,
        visit: &mut impl AsyncFnMut(LiveRecord<'_>) -> Result<(), E>,
    ) -> Result<Window, WalkError<E>> {
        let damaged =
            |offset: u64, reason: String| WalkError::Damaged(Damage { file: segment.path.clone(), offset, reason });
        let Some(file) = segment.file.get() else {
            return Err(damaged(0, "it is not open".to_owned()));
        };
        let mut scanner = Scanner::new(segment, file.clone(), 0, segment.written.get(), window);
        loop {
            let offset = scanner.offset();
            match scanner.step().await.map_err(|error| damaged(offset, error.to_string()))? {
                Step::Frame(_) => {}
                Step::Footer(_) | Step::End => return Ok(scanner.into_window()),
                Step::Invalid(problem) => return Err(damaged(offset, problem.to_string())),
            }
            let mut at = None;
            while let Some(record) = scanner.record_at(at) {
                let record = record.map_err(|(offset, error)| damaged(offset, error.to_string()))?;
                at = record.next();
                let (place, header, content) = (record.place, record.header, record.content);
                let here = Place { slot: segment.slot, offset: place as u32, length: header.record_bytes() as u32 };
                let found = self.state.borrow().index.find(content.entity);
                if header.kind == RecordKind::Put && found.is_some_and(|found| found.place == here) {
                    let live = LiveRecord {
                        entity: content.entity,
                        version: header.sequence,
                        time_unix_ms: header.time_unix_ms,
                        expiry_unix_ms: header.expiry_unix_ms,
                        document: content.document,
                    };
                    visit(live).await.map_err(WalkError::Visitor)?;
                }
                self.platform.spawn().yield_if_due().await;
            }
        }
    }
}
