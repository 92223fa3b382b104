//! Reads: the cache first, then one device read. Only durable versions are ever shown.

use super::{Engine, Reader, not_found};
use crate::command::{Document, EntityRef, ErrorCode, Failure, Outcome, Ticket, Version};
use crate::limits::PAGE_BYTES_MAX;
use crate::runtime::platform::{Platform, Spawn, TaskClass};
use crate::sabotage::{Sabotage, is_on};
use crate::storage::{ReadError, Storage};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

type ReadResult = Result<(Version, Document), Failure>;

impl<P: Platform, S: Storage> Engine<P, S> {
    pub(super) fn get(self: &Rc<Self>, entity: EntityRef<'_>, ticket: Ticket) -> Option<Outcome> {
        let hash = self.hash(entity);
        if let Some((version, document)) = self.cached(hash, entity) {
            return Some(Outcome::Document { version, document });
        }
        if self.storage.durable_version(entity).is_none() {
            return Some(not_found(entity));
        }
        if let Some(failure) = self.refuses_reads(1) {
            return Some(failure.into());
        }
        let reader = self.waits(ticket);
        let (engine, schema, key) = (self.clone(), Box::<str>::from(entity.schema), Box::<str>::from(entity.key));
        self.platform.spawn().spawn(TaskClass::Foreground, async move {
            let outcome = match engine.read(hash, EntityRef { schema: &schema, key: &key }).await {
                Ok((version, document)) => Outcome::Document { version, document },
                Err(failure) => Outcome::Failed(failure),
            };
            engine.has_read(reader, outcome);
        });
        None
    }

    pub(super) fn multi_get(self: &Rc<Self>, schema: &str, keys: &[Cow<'_, str>], ticket: Ticket) -> Option<Outcome> {
        let gather = Rc::new(Gather {
            results: RefCell::new(Vec::with_capacity(keys.len())),
            missing: Cell::new(0),
            bytes: Cell::new(0),
        });
        let mut misses = Vec::new();
        for (position, key) in keys.iter().enumerate() {
            let entity = EntityRef { schema, key };
            let hash = self.hash(entity);
            let known = match self.cached(hash, entity) {
                Some(found) => Some(gather.admit(Ok(found))),
                None if self.storage.durable_version(entity).is_none() => Some(Err(as_failure(not_found(entity)))),
                None => {
                    misses.push((position, hash));
                    None
                }
            };
            gather.results.borrow_mut().push(known);
        }
        if misses.is_empty() {
            return Some(gather.outcome());
        }
        if let Some(failure) = self.refuses_reads(misses.len()) {
            return Some(failure.into());
        }
        let reader = self.waits(ticket);
        gather.missing.set(misses.len());
        let schema: Rc<str> = Rc::from(schema);
        for (position, hash) in misses {
            let (engine, gather, schema) = (self.clone(), gather.clone(), schema.clone());
            let key = Box::<str>::from(&*keys[position]);
            self.platform.spawn().spawn(TaskClass::Foreground, async move {
                let result = engine.read(hash, EntityRef { schema: &schema, key: &key }).await;
                if let Some(outcome) = gather.arrived(position, result) {
                    engine.has_read(reader, outcome);
                }
            });
        }
        None
    }

    fn refuses_reads(&self, reads: usize) -> Option<Failure> {
        if self.reads_in_flight.get() + reads > self.bounds.get().reads {
            return Some(Failure::new(ErrorCode::Overloaded, "too many reads wait for the disk: retry shortly"));
        }
        self.refuses_read()
    }

    /// Notes who waits for a read of the disk.
    fn waits(&self, ticket: Ticket) -> u32 {
        self.readers.borrow_mut().enter(Reader { ticket, since: self.tick.get() })
    }

    /// Answers whoever still waits for it.
    fn has_read(&self, reader: u32, outcome: Outcome) {
        let reader = self.readers.borrow_mut().leave(reader);
        if let Some(reader) = reader {
            self.deliver(reader.ticket, outcome);
        }
    }

    fn cached(&self, hash: u64, entity: EntityRef<'_>) -> Option<(Version, Document)> {
        let mut cache = self.cache.borrow_mut();
        let (version, document) = cache.get(hash, entity, self.now_ms())?;
        Some((version, document.clone()))
    }

    /// Reads from storage and fills the cache, if what was read is still the newest by then.
    async fn read(&self, hash: u64, entity: EntityRef<'_>) -> ReadResult {
        let _under_way = UnderWay::begin(&self.reads_in_flight);
        match self.storage.read(entity).await {
            Ok(Some((version, document))) => {
                if self.storage.durable_version(entity) == Some(version) || is_on(Sabotage::FillCacheBlindly) {
                    self.cache.borrow_mut().insert(hash, document.clone(), version, self.now_ms());
                }
                Ok((version, document))
            }
            Ok(None) => Err(as_failure(not_found(entity))),
            Err(error @ ReadError::Corrupted { .. }) => {
                tracing::error!("{error}");
                Err(Failure::new(ErrorCode::Corrupted, error.to_string()))
            }
            Err(error @ ReadError::Io { .. }) => {
                tracing::error!("{error}");
                Err(Failure::new(ErrorCode::Unavailable, error.to_string()))
            }
        }
    }
}

/// The results of one MultiGet, filled in as reads arrive.
struct Gather {
    results: RefCell<Vec<Option<ReadResult>>>,
    missing: Cell<usize>,
    bytes: Cell<usize>,
}

impl Gather {
    /// Keeps the reply within its bound: what no longer fits is refused by name, so that the caller asks for it again.
    fn admit(&self, result: ReadResult) -> ReadResult {
        let (version, document) = result?;
        let bytes = self.bytes.get() + document.body().len();
        if bytes > PAGE_BYTES_MAX && self.bytes.get() > 0 {
            let message = format!("the reply holds {PAGE_BYTES_MAX} bytes already: ask for this key again");
            return Err(Failure::new(ErrorCode::TooLarge, message));
        }
        self.bytes.set(bytes);
        Ok((version, document))
    }

    fn arrived(&self, position: usize, result: ReadResult) -> Option<Outcome> {
        let result = self.admit(result);
        self.results.borrow_mut()[position] = Some(result);
        self.missing.set(self.missing.get() - 1);
        (self.missing.get() == 0).then(|| self.outcome())
    }

    fn outcome(&self) -> Outcome {
        let unread = || Err(Failure::new(ErrorCode::Internal, "a read did not arrive"));
        Outcome::Documents(self.results.take().into_iter().map(|result| result.unwrap_or_else(unread)).collect())
    }
}

/// Counts a read while it lives.
struct UnderWay<'a>(&'a Cell<usize>);

impl<'a> UnderWay<'a> {
    fn begin(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn as_failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        _ => Failure::new(ErrorCode::Internal, "not a failure"),
    }
}
