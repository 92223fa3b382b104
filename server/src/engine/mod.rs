//! Reads and writes of the entities one shard owns: conditions, pending writes, group commit, cache fills.
//!
//! Invariants: a write is answered only after the commit that holds it; nothing undurable is shown, and an answer that
//! was decided by an undurable version leaves with that version's commit; at most one commit is in flight. Documents
//! arrive validated: the engine never judges JSON, never asks who the caller is, and never sees ciphertext. A panic in
//! here stops the process: half-applied state must not be served.

mod commit;
mod fatal;
mod patience;
mod pending;
mod read;
#[cfg(test)]
mod tests;
mod write;

use crate::cache::{Cache, CacheOptions};
use crate::command::{Access, Command, EntityRef, ErrorCode, Failure, Outcome, Ticket, Version};
use crate::limits::{PAGE_ENTRIES_MAX, PENDING_BYTES_MAX, READS_IN_FLIGHT_MAX};
use crate::metrics::Metrics;
use crate::runtime::platform::{Clock, Entropy, Platform, Spawn, TaskClass};
use crate::runtime::roster::Roster;
use crate::runtime::signal::Signal;
use crate::storage::Storage;
use fatal::AbortOnPanic;
use patience::{Gate, Tick};
use pending::{Backlog, PendingWrites};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Cache slots looked at for expiry in one round of housekeeping.
const CACHE_SLOTS_SWEPT: usize = 4096;

/// Entities below which index and cache mostly lie in the processor's caches anyhow.
const LOOK_AHEAD_ENTITIES_MIN: u64 = 100_000;
/// Requests looked ahead for at once: what they touch has to be there still when the last of them is carried out.
const LOOK_AHEAD_REQUESTS_MAX: usize = 512;

/// Where delayed outcomes go, exactly one a ticket.
pub type Sink = Rc<dyn Fn(Ticket, Outcome)>;

/// What an engine lets wait at once; beyond that it answers `Overloaded`. Other than the default in tests only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineBounds {
    /// Bytes of writes that found no room in a batch.
    pub pending_bytes: usize,
    /// Reads of the device.
    pub reads: usize,
}

impl Default for EngineBounds {
    fn default() -> Self {
        Self { pending_bytes: PENDING_BYTES_MAX, reads: READS_IN_FLIGHT_MAX }
    }
}

/// The engine of one shard. Lives in an `Rc`; all its tasks run on the shard's thread.
pub struct Engine<P: Platform, S: Storage> {
    platform: P,
    storage: Rc<S>,
    cache: RefCell<Cache>,
    writes: RefCell<PendingWrites>,
    backlog: RefCell<Backlog>,
    batch_opened: Signal,
    /// Reused by every append, so that a put allocates nothing but its document.
    versions: Cell<Vec<Version>>,
    /// Reads of the disk under way; those that nobody waits for any more are among them.
    reads_in_flight: Cell<usize>,
    readers: RefCell<Roster<Reader>>,
    gate: Cell<Gate>,
    /// What whoever begins to wait notes down.
    tick: Cell<Tick>,
    bounds: Cell<EngineBounds>,
    /// Whether the store is large enough for [`Engine::look_ahead`] to pay.
    looks_ahead: Cell<bool>,
    /// Hashes of reads and of writes to come; kept for their memory.
    ahead: Cell<(Vec<u64>, Vec<u64>)>,
    /// Per process, from `Entropy`, so that nobody can aim keys at one bucket.
    hash_seed: u64,
    caches_expire: bool,
    metrics: Arc<Metrics>,
    shard: usize,
    sink: Sink,
}

impl<P: Platform, S: Storage> Engine<P, S> {
    /// Starts the engine of one shard over its opened storage; its tasks run until the executor ends.
    pub fn start(
        platform: P,
        storage: Rc<S>,
        cache: CacheOptions,
        metrics: Arc<Metrics>,
        shard: usize,
        sink: Sink,
    ) -> Rc<Self> {
        let engine = Rc::new(Self {
            hash_seed: platform.entropy().next_u64(),
            caches_expire: cache.ttl_ms != 0,
            cache: RefCell::new(Cache::new(cache)),
            storage,
            writes: RefCell::default(),
            backlog: RefCell::default(),
            batch_opened: Signal::default(),
            versions: Cell::default(),
            reads_in_flight: Cell::new(0),
            readers: RefCell::default(),
            gate: Cell::new(Gate::Open),
            tick: Cell::new(0),
            bounds: Cell::default(),
            looks_ahead: Cell::new(false),
            ahead: Cell::default(),
            metrics,
            shard,
            sink,
            platform,
        });
        engine.platform.spawn().spawn(TaskClass::Foreground, commit::run(engine.clone()));
        engine.platform.spawn().spawn(TaskClass::Foreground, patience::watch(engine.clone()));
        engine
    }

    /// Replaces what may wait from now on.
    pub fn set_bounds(&self, bounds: EngineBounds) {
        self.bounds.set(bounds);
    }

    /// Carries out a command on entities this shard owns. `Some` when the outcome is known now; otherwise the sink
    /// gets it with this ticket. Commands about templates, keys and the whole server do not belong here.
    pub fn execute(self: &Rc<Self>, command: Command<'_>, ticket: Ticket) -> Option<Outcome> {
        let _fatal = AbortOnPanic("engine");
        match command {
            Command::Get { schema, key } => self.get(EntityRef { schema: &schema, key: &key }, ticket),
            Command::MultiGet { schema, keys } => self.multi_get(&schema, &keys, ticket),
            Command::List { schema, prefix, after, limit, .. } => {
                Some(self.list(&schema, &prefix, after.as_deref(), limit))
            }
            Command::Schemas => Some(Outcome::Schemas(self.storage.schemas())),
            write @ (Command::Put { .. } | Command::Delete { .. } | Command::MultiPut { .. }) => {
                self.write(write, ticket)
            }
            other => Some(refuse_misrouted(&other)),
        }
    }

    /// Entities that requests which have arrived will ask for: what they will touch is brought into the processor's
    /// cache, for all of them together. For a store that is not large that is not worth the hashing.
    pub fn look_ahead<'a>(&self, entities: &mut dyn Iterator<Item = (EntityRef<'a>, Access)>) {
        if !self.looks_ahead.get() {
            return;
        }
        let (mut reads, mut writes) = self.ahead.take();
        for (entity, access) in entities.take(LOOK_AHEAD_REQUESTS_MAX) {
            match access {
                Access::Read => reads.push(self.hash(entity)),
                Access::Write => writes.push(self.storage.hash(entity)),
            }
        }
        self.cache.borrow().warm(reads.drain(..));
        self.storage.warm(&writes);
        writes.clear();
        self.ahead.set((reads, writes));
    }

    /// Writes that are accepted and not answered yet, and reads that are waited for.
    pub fn outstanding(&self) -> usize {
        self.writes.borrow().waiters() + self.backlog.borrow().len() + self.readers.borrow().waiting()
    }

    /// The storage under this engine.
    pub fn storage(&self) -> &Rc<S> {
        &self.storage
    }

    /// Drops every cached document, so that the next reads come from disk.
    pub fn clear_cache(&self) {
        self.cache.borrow_mut().clear();
    }

    /// About once a second: lets expired documents go, and brings the figures of this shard up to date.
    pub fn keep_house(&self) {
        let now_ms = self.now_ms();
        let mut cache = self.cache.borrow_mut();
        cache.sweep(now_ms, CACHE_SLOTS_SWEPT);
        cache.report(self.shard_metrics());
        drop(cache);
        self.publish_gauges();
    }

    fn publish_gauges(&self) {
        let status = self.storage.status();
        let metrics = self.shard_metrics();
        self.looks_ahead.set(status.entities >= LOOK_AHEAD_ENTITIES_MIN);
        metrics.entities.set(status.entities);
        metrics.live_bytes.set(status.live_bytes);
        metrics.segment_bytes.set(status.segment_bytes);
        metrics.segments.set(status.segments);
        metrics.tombstones.set(status.tombstones);
        metrics.index_bytes.set(status.index_bytes);
        metrics.segments_on_old_keys.set(status.segments_on_old_keys);
        metrics.writes_waiting.set((self.writes.borrow().waiters() + self.backlog.borrow().len()) as u64);
    }

    fn list(&self, schema: &str, prefix: &str, after: Option<&str>, limit: usize) -> Outcome {
        let limit = limit.clamp(1, PAGE_ENTRIES_MAX);
        let mut keys = self.storage.list(schema, prefix, after, limit + 1);
        let more = keys.len() > limit;
        keys.truncate(limit);
        let next = if more { keys.last().map(|(key, _)| key.to_string()) } else { None };
        let entry = |(key, version): (Box<str>, Version)| crate::command::PageEntry {
            key: key.into_string(),
            version,
            document: None,
        };
        Outcome::Page(crate::command::Page { entries: keys.into_iter().map(entry).collect(), next })
    }

    fn hash(&self, entity: EntityRef<'_>) -> u64 {
        hash_entity(self.hash_seed, entity)
    }

    fn now_ms(&self) -> u64 {
        if self.caches_expire { self.platform.clock().now_ns() / 1_000_000 } else { 0 }
    }

    fn shard_metrics(&self) -> &crate::metrics::ShardMetrics {
        &self.metrics.shards[self.shard]
    }

    fn deliver(&self, ticket: Ticket, outcome: Outcome) {
        (self.sink)(ticket, outcome);
    }
}

/// One caller waiting for reads of the disk.
struct Reader {
    ticket: Ticket,
    since: Tick,
}

/// Seeded hash of an entity's name; the schema's hash is the seed of its keys'.
#[inline]
fn hash_entity(seed: u64, entity: EntityRef<'_>) -> u64 {
    xxh3_64_with_seed(entity.key.as_bytes(), xxh3_64_with_seed(entity.schema.as_bytes(), seed))
}

fn refuse_misrouted(command: &Command<'_>) -> Outcome {
    let name = match command {
        Command::Stats => "Stats",
        Command::Ping => "Ping",
        Command::RotateKey => "RotateKey",
        _ => "a template command",
    };
    Failure::new(ErrorCode::Internal, format!("{name} reached an engine; it is not about one shard's entities")).into()
}

fn not_found(entity: EntityRef<'_>) -> Outcome {
    let EntityRef { schema, key } = entity;
    Failure::new(ErrorCode::NotFound, format!("there is no entity '{key}' in schema '{schema}'")).into()
}
