//! Walking a whole shard: every live entity with its document, or every byte for a check. Sequential reads, in the
//! order of the segments, not of the keys.

use super::Damage;
use super::format::FormatError;
use super::format::record::RecordKind;
use super::format::segment::SEGMENT_HEADER_BYTES;
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

    /// Reads and authenticates every frame and record of every listed segment; returns all damage, one place a
    /// segment. The shard must not be written meanwhile.
    pub async fn check_segments(&self) -> Vec<Damage> {
        let mut damage = Vec::new();
        let segments = self.state.borrow().segments.listed();
        for segment in segments {
            if let Some((offset, reason)) = self.check_segment(&segment).await {
                damage.push(Damage { file: segment.path.clone(), offset, reason });
            }
        }
        damage
    }

    async fn check_segment(&self, segment: &SegmentOf<P>) -> Option<(u64, String)> {
        let file = segment.file.get()?.clone();
        let footer = segment.end.get().is_some_and(|end| end.footer);
        let limit = segment.written.get() + if footer { segment.block_bytes.get() as u64 } else { 0 };
        let window = Window::new(self.sizes.window_bytes);
        let mut scanner = Scanner::new(segment, file, SEGMENT_HEADER_BYTES as u64, limit, window);
        let mut previous = None;
        loop {
            let offset = scanner.offset();
            match scanner.step().await {
                Ok(Step::Frame(header)) => {
                    let follows =
                        previous.is_none_or(|(number, tag)| header.number == number + 1 && header.previous_tag == tag);
                    if !follows {
                        return Some((offset, format!("frame {} does not follow the one before", header.number)));
                    }
                    previous = Some((header.number, header.tag));
                    let opened = scanner.records(|_, _, _| Ok::<(), FormatError>(()));
                    if let Err((offset, error)) = opened {
                        return Some((offset, error.to_string()));
                    }
                }
                Ok(Step::End) if footer => return Some((offset, "its footer is missing".to_owned())),
                Ok(Step::End | Step::Footer(_)) => return None,
                Ok(Step::Invalid(problem)) => return Some((offset, problem.to_string())),
                Err(error) => return Some((offset, error.to_string())),
            }
            self.platform.spawn().yield_if_due().await;
        }
    }
}
