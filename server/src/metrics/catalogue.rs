//! Every figure of a shard by name, kind, unit and meaning: one table for `/metrics` and `Stats`.

use super::{Histogram, ShardMetrics};

/// What a figure measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Things,
    /// Bytes.
    Bytes,
    /// A moment, in seconds since the Unix epoch; 0: there was none. Sums of it mean nothing.
    UnixSeconds,
}

/// A counter or gauge of a shard.
pub struct Figure {
    /// Name without prefix and unit.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// In what.
    pub unit: Unit,
    /// Whether it only grows.
    pub grows: bool,
    /// Where it is kept.
    pub value: fn(&ShardMetrics) -> u64,
}

impl Figure {
    /// The name with its unit, as in `Stats`.
    pub fn full_name(&self) -> String {
        match self.unit {
            Unit::Things | Unit::UnixSeconds => self.name.to_owned(),
            Unit::Bytes => format!("{}_bytes", self.name),
        }
    }
}

/// A distribution of a shard. Buckets are powers of two; those outside the range shown are merged into its ends.
pub struct Distribution {
    /// Name without prefix and unit.
    pub name: &'static str,
    /// What it measures.
    pub help: &'static str,
    /// Its unit's suffix; empty for plain numbers.
    pub unit: &'static str,
    /// First and last power of two that bounds a bucket.
    pub powers: (u32, u32),
    /// Recorded values times this are in `unit`.
    pub scale: f64,
    /// Where it is kept.
    pub values: fn(&ShardMetrics) -> &Histogram,
}

/// Nanoseconds to seconds.
pub const SECONDS: f64 = 1e-9;
/// Latencies are told apart from 4 µs to 17 s.
pub const LATENCY_POWERS: (u32, u32) = (12, 34);

macro_rules! figures {
    ($($kind:ident $unit:ident $name:literal $field:ident $help:literal;)*) => {
        &[$(Figure {
            name: $name,
            help: $help,
            unit: Unit::$unit,
            grows: figures!(@grows $kind),
            value: |shard| shard.$field.value(),
        },)*]
    };
    (@grows counter) => { true };
    (@grows gauge) => { false };
}

/// Counters and gauges.
pub static FIGURES: &[Figure] = figures! {
    counter Things "cache_hits" cache_hits "Reads served from the cache";
    counter Things "cache_misses" cache_misses "Reads that had to go to storage";
    counter Things "cache_evictions" cache_evictions "Documents evicted from the cache for want of room";
    counter Things "cache_expirations" cache_expirations "Documents dropped from the cache by their age";
    gauge Things "cache_entries" cache_entries "Documents in the cache";
    gauge Bytes "cache" cache_bytes "Memory of the cache";
    counter Things "commits" commits "Group commits made durable";
    counter Things "commit_failures" commit_failures "Group commits that failed";
    gauge Things "writes_waiting" writes_waiting "Writes waiting for their commit";
    counter Things "storage_reads" storage_reads "Reads from the device";
    counter Bytes "storage_read" storage_read_bytes "Read from the device";
    counter Bytes "storage_written" storage_written_bytes "Written to the device";
    gauge Things "entities" entities "Entities alive";
    gauge Bytes "live" live_bytes "Live records in the log";
    gauge Bytes "segments" segment_bytes "Listed segments";
    gauge Things "segments_listed" segments "Listed segments by number";
    gauge Things "tombstones" tombstones "Deletion markers kept";
    gauge Bytes "index" index_bytes "Memory of the index";
    gauge Things "segments_on_old_keys" segments_on_old_keys "Files that still name an older data key";
    counter Things "checkpoints" checkpoints "Index checkpoints written";
    counter Things "compactions" compactions "Segments compacted";
    counter Bytes "compacted" compacted_bytes "Live records rewritten by compaction";
    counter Things "seal_failures" seal_failures "Records that could not be encrypted";
    counter Things "open_failures" open_failures "Records that failed authentication when read back";
    counter Bytes "scrubbed" scrubbed_bytes "Stored data read over and verified in the background";
    counter Things "scrub_passes" scrub_passes "Passes of the scrub over all stored data";
    gauge UnixSeconds "scrub_last_pass_unix_seconds" scrub_last_pass_seconds "When the last pass of the scrub ended; 0: none has";
    counter Things "scrub_damage" scrub_damage "Damaged places that the scrub has come across";
    counter Things "validations" validations "Documents validated";
    counter Things "validation_failures" validation_failures "Documents refused by validation";
    counter Things "panics_caught" panics_caught "Panics caught in request handlers";
    gauge Things "connections" connections "Open connections";
    counter Things "connections_accepted" connections_accepted "Connections accepted";
    counter Things "connections_refused" connections_refused "Connections refused at the limit";
    counter Things "connections_timed_out" connections_timed_out "Connections closed for being too slow or idle";
    counter Bytes "network_received" received_bytes "Received from clients";
    counter Bytes "network_sent" sent_bytes "Sent to clients";
    counter Things "mailbox_requests" mailbox_requests "Commands sent to other shards";
    counter Things "mailbox_refused" mailbox_refused "Commands refused because another shard's mailbox was full";
    gauge Things "mailbox_outstanding" mailbox_outstanding "Commands waiting for another shard's answer";
    gauge Things "mailbox_waiting" mailbox_waiting "Commands waiting for room in another shard's mailbox";
    counter Things "wire_errors" wire_errors "Errors sent on the wire protocol";
};

/// Distributions.
pub static DISTRIBUTIONS: &[Distribution] = &[
    Distribution {
        name: "commit_records",
        help: "Records in one group commit",
        unit: "",
        powers: (1, 13),
        scale: 1.0,
        values: |shard| &shard.commit_records,
    },
    Distribution {
        name: "commit_size",
        help: "Sealed bytes in one group commit",
        unit: "bytes",
        powers: (9, 23),
        scale: 1.0,
        values: |shard| &shard.commit_bytes,
    },
    Distribution {
        name: "commit_duration",
        help: "Time from submitting a group commit to its completion",
        unit: "seconds",
        powers: (13, LATENCY_POWERS.1),
        scale: SECONDS,
        values: |shard| &shard.commit_ns,
    },
    Distribution {
        name: "segment_wait",
        help: "Time a group commit waited for the segment it goes to, of those that had to",
        unit: "seconds",
        powers: (13, LATENCY_POWERS.1),
        scale: SECONDS,
        values: |shard| &shard.segment_wait_ns,
    },
    Distribution {
        name: "wire_request_duration",
        help: "Time from a wire request's arrival to its reply; of requests that arrive together one is measured",
        unit: "seconds",
        powers: LATENCY_POWERS,
        scale: SECONDS,
        values: |shard| &shard.request_ns,
    },
];
