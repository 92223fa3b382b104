//! Counters of one process, one set a shard, and their rendering.
//!
//! Each shard's figures have one writer, its own thread, so an increment is a plain load and store; any thread may
//! read them. Nothing here knows what it counts for.

mod catalogue;
mod process;
pub mod render;
mod stats;

pub use stats::stats_json;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A figure that only grows. One writer thread.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it; only the owning thread may call this.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }
    /// The value, from any thread.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A figure that goes up and down. One writer thread.
#[derive(Default, Debug)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it; only the owning thread may call this.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
    /// The value, from any thread.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Buckets of a histogram: powers of two.
pub const HISTOGRAM_BUCKETS: usize = 40;

/// A distribution in powers of two: bucket `i` counts values in `2^i .. 2^(i+1)` (bucket 0 also counts 0).
/// One writer thread.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; HISTOGRAM_BUCKETS],
    sum: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Counter::default()), sum: Counter::default() }
    }
}

impl Histogram {
    /// Records one value; only the owning thread may call this.
    #[inline]
    pub fn record(&self, value: u64) {
        let bucket = (63 - (value | 1).leading_zeros() as usize).min(HISTOGRAM_BUCKETS - 1);
        self.buckets[bucket].add(1);
        self.sum.add(value);
    }
    /// Count a bucket, from any thread.
    pub fn bucket_counts(&self) -> [u64; HISTOGRAM_BUCKETS] {
        std::array::from_fn(|bucket| self.buckets[bucket].value())
    }
    /// Sum of all values, from any thread.
    pub fn sum(&self) -> u64 {
        self.sum.value()
    }
}

/// The figures of one shard thread.
#[derive(Default, Debug)]
#[repr(align(128))]
pub struct ShardMetrics {
    pub cache_hits: Counter,
    pub cache_misses: Counter,
    pub cache_evictions: Counter,
    pub cache_expirations: Counter,
    pub cache_entries: Gauge,
    pub cache_bytes: Gauge,

    pub commits: Counter,
    pub commit_records: Histogram,
    pub commit_bytes: Histogram,
    pub commit_ns: Histogram,
    pub segment_wait_ns: Histogram,
    pub commit_failures: Counter,
    pub writes_waiting: Gauge,
    pub storage_read_bytes: Counter,
    pub storage_reads: Counter,
    pub storage_written_bytes: Counter,
    pub entities: Gauge,
    pub live_bytes: Gauge,
    pub segment_bytes: Gauge,
    pub segments: Gauge,
    pub tombstones: Gauge,
    pub index_bytes: Gauge,
    pub segments_on_old_keys: Gauge,
    pub checkpoints: Counter,
    pub compactions: Counter,
    pub compacted_bytes: Counter,
    pub seal_failures: Counter,
    pub open_failures: Counter,
    pub scrubbed_bytes: Counter,
    pub scrub_passes: Counter,
    pub scrub_last_pass_seconds: Gauge,
    pub scrub_damage: Counter,

    pub validations: Counter,
    pub validation_failures: Counter,
    pub panics_caught: Counter,

    pub connections: Gauge,
    pub connections_accepted: Counter,
    pub connections_refused: Counter,
    pub connections_timed_out: Counter,
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    pub mailbox_requests: Counter,
    pub mailbox_refused: Counter,
    pub mailbox_outstanding: Gauge,
    pub mailbox_waiting: Gauge,
    pub wire_requests: [Counter; 16],
    pub wire_errors: Counter,
    pub request_ns: Histogram,
    pub http: HttpMetrics,
}

/// What `ShardMetrics::wire_requests` counts, by index: the kinds of request that the wire skin tells apart.
pub const WIRE_OPERATIONS: [&str; 16] = [
    "hello",
    "get",
    "put",
    "delete",
    "multi_get",
    "multi_put",
    "list",
    "schemas",
    "schema_get",
    "schema_put",
    "schema_delete",
    "schema_list",
    "stats",
    "ping",
    "rotate_key",
    "malformed",
];

/// Routes that `/metrics` tells apart.
pub const HTTP_ROUTES: [&str; 16] = [
    "entity_put_many",
    "entity_get",
    "entity_put",
    "entity_delete",
    "entity_list",
    "schema_get",
    "schema_put",
    "schema_delete",
    "schema_list",
    "schemas",
    "health",
    "metrics",
    "admin",
    "ui",
    "entity_patch",
    "other",
];

/// HTTP requests by route and status.
#[derive(Debug, Default)]
pub struct HttpMetrics {
    /// By route (index into [`HTTP_ROUTES`]) and status class or code; see [`HTTP_STATUSES`].
    pub requests: [[Counter; HTTP_STATUSES.len()]; HTTP_ROUTES.len()],
    /// Latency, by route and class of status; see [`HTTP_CLASSES`].
    pub latency_ns: [[Histogram; HTTP_CLASSES.len()]; HTTP_ROUTES.len()],
}

/// Classes of status that latencies are told apart by: what was done, what needed no doing, what was refused, and what
/// the server could not do. Mixing them would hide slow successes behind quick refusals.
pub const HTTP_CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// Statuses that `/metrics` tells apart; anything else counts as the last.
pub const HTTP_STATUSES: [u16; 22] =
    [200, 201, 204, 304, 400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 422, 428, 431, 500, 501, 503, 507, 0];

/// The figures of the whole process.
#[derive(Debug)]
pub struct Metrics {
    /// One set a shard.
    pub shards: Vec<ShardMetrics>,
}

impl Metrics {
    /// Zeroes for so many shards.
    pub fn new(shards: usize) -> Arc<Self> {
        Arc::new(Self { shards: (0..shards).map(|_| ShardMetrics::default()).collect() })
    }
}
