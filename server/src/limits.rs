//! Every bound of the product, in one place, with the relations between them asserted at compile time.
//!
//! Nothing here does anything: other rooms read these numbers. A bound that an operator may change is a default
//! here and a field of `config::Config`; its ceiling is here too.

/// Longest schema id, in bytes of UTF-8.
pub const SCHEMA_ID_BYTES_MAX: usize = 128;
/// Longest entity key, in bytes of UTF-8.
pub const ENTITY_KEY_BYTES_MAX: usize = 512;
/// Deepest nesting of a JSON document.
pub const JSON_DEPTH_MAX: usize = 128;

/// Largest document or request body, unless configured otherwise.
pub const BODY_BYTES_DEFAULT: usize = 1 << 20;
/// Largest value `--rest-max-body-size` accepts.
pub const BODY_BYTES_CEILING: usize = 64 << 20;
/// What a wire frame may hold beyond the body: names, conditions and FlatBuffers overhead.
pub const FRAME_OVERHEAD_BYTES_MAX: usize = 64 << 10;

/// Sealed bytes that one group commit takes, unless a single larger record needs more.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Records that one group commit takes.
pub const BATCH_RECORDS_MAX: usize = 8192;
/// Records that may be sealed but not yet durable, in one shard: one batch in flight and one filling.
pub const RECORDS_IN_FLIGHT_MAX: usize = 2 * BATCH_RECORDS_MAX;
/// A full-size segment.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// A shard's first segment.
pub const SEGMENT_BYTES_FIRST: u64 = 4 << 20;
/// A checkpoint is due when the log has grown by this many times what it will take…
pub const CHECKPOINT_DUE_TIMES: u64 = 8;
/// …but not before so many log bytes…
pub const CHECKPOINT_DUE_BYTES_MIN: u64 = 128 << 20;
/// …and always after so many.
pub const CHECKPOINT_DUE_BYTES_MAX: u64 = 1 << 30;
/// What a checkpoint takes for one entity, about.
pub const CHECKPOINT_ENTITY_BYTES: u64 = 64;
/// Files of retired segments that a shard keeps, to write into them again…
pub const RETIRED_KEPT_MAX: usize = 4;
/// …but one only where the disk has room for less than so many full-size segments.
pub const RETIRED_KEPT_ROOM_SEGMENTS: u64 = 64;
/// Segments that no checkpoint covers, after which one is due whatever they hold.
pub const SEGMENTS_WITHOUT_CHECKPOINT_MAX: usize = 64;
/// Sealed checkpoint chunk, before its tag: archiving and sealing one holds the shard for some 50 µs. Chunks carry
/// their length, so files with chunks of another size are read all the same.
pub const CHECKPOINT_CHUNK_BYTES: usize = 64 << 10;
/// Bound on the scrub's reading, all shards together, unless configured otherwise.
pub const SCRUB_MIB_PER_S_DEFAULT: u64 = 4;
/// Largest value `--scrub-mib-per-s` accepts.
pub const SCRUB_MIB_PER_S_MAX: u64 = 16 << 10;
/// A pass of the scrub begins so long after the one before began.
pub const SCRUB_INTERVAL_MS: u64 = 24 * 3600 * 1000;
/// A pass is spread over so long, where its bound allows…
pub const SCRUB_PASS_SPREAD_MS: u64 = 6 * 3600 * 1000;
/// …but goes at least so fast, in one shard.
pub const SCRUB_BYTES_PER_S_MIN: u64 = 64 << 10;
/// The scrub rests after so many bytes.
pub const SCRUB_PIECE_BYTES: usize = 128 << 10;
/// Damaged places of one shard that the health report names.
pub const DAMAGED_PLACES_KEPT: usize = 16;
/// Versions stay exactly representable in a JSON number.
pub const VERSION_MAX: u64 = (1 << 53) - 1;

/// Slots of the 64-bit hash space; each shard owns one contiguous range.
pub const SLOTS: usize = 256;
/// Most shards in one store: one slot each.
pub const SHARDS_MAX: usize = SLOTS;

/// Keys in one multi-key command.
pub const MULTI_KEYS_MAX: usize = 1024;
/// Entries in one page of a listing.
pub const PAGE_ENTRIES_MAX: usize = 1000;
/// Entries in one page when the caller names no limit.
pub const PAGE_ENTRIES_DEFAULT: usize = 100;
/// Document bytes in one page of a listing, or in one MultiGet reply.
pub const PAGE_BYTES_MAX: usize = 8 << 20;

/// Connections of one shard.
pub const CONNECTIONS_MAX: usize = 16 * 1024;
/// Connections of one shard beyond those, which are told that there is no room and closed.
pub const CONNECTIONS_TURNED_AWAY_MAX: usize = 256;
/// Output bytes a connection may owe before its receiving is paused.
pub const OUTPUT_BYTES_MAX: usize = 4 << 20;
/// The same while the output of all connections of the shard holds as much as it may.
pub const OUTPUT_BYTES_MIN: usize = 64 << 10;
/// Memory that the output of all connections of a shard may hold. The more of it is held, the less each may owe; when
/// all is, large replies are refused.
pub const OUTPUT_BYTES_SHARD_MAX: usize = 256 << 20;
/// Input of all wire connections of a shard that waits for the rest of its frame, or for output to be read; and as much
/// again for the bodies of HTTP requests. When more does, connections that hold much of it are refused.
pub const INPUT_BYTES_SHARD_MAX: usize = 256 << 20;
/// Input that any connection may have waiting, whatever the others do.
pub const INPUT_BYTES_MIN: usize = 64 << 10;
/// Requests of one connection that may wait for their outcome.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 4096;
/// A document larger than this is sent from the cache's own memory instead of being copied.
pub const COPY_BYTES_MAX: usize = 16 << 10;
/// Completions handled in one turn of a shard.
pub const COMPLETIONS_PER_TURN_MAX: usize = 512;
/// Requests one shard may have outstanding at another.
pub const MAILBOX_CREDITS: usize = 1024;
/// Requests of one shard that may wait for a credit: a few for each connection, which asks for nothing more meanwhile.
pub const MAILBOX_WAITING_MAX: usize = 4 * CONNECTIONS_MAX;
/// What they may hold, in bytes of documents and keys.
pub const MAILBOX_WAITING_BYTES_MAX: usize = 64 << 20;
/// Reads of one shard that may wait for the disk.
pub const READS_IN_FLIGHT_MAX: usize = 4096;
/// A write that the disk has not confirmed by then is answered that its outcome is unknown, a read that it was not done.
pub const DISK_TIMEOUT_MS: u64 = 15_000;
/// How often a shard looks whether somebody has waited so long; that much longer the wait may take.
pub const DISK_WATCH_INTERVAL_MS: u64 = 1_000;
/// Writes that may wait for commits in one shard, in bytes of documents.
pub const PENDING_BYTES_MAX: usize = 64 << 20;

/// A template may be this large.
pub const TEMPLATE_BYTES_MAX: usize = 1 << 20;
/// Templates of one store.
pub const TEMPLATES_MAX: usize = 10_000;
/// Schema violations listed in one error.
pub const VIOLATIONS_MAX: usize = 32;

/// A connection that has not finished its first request or Hello by then is closed.
pub const HELLO_TIMEOUT_MS: u64 = 10_000;
/// A request that has begun must have arrived by then.
pub const REQUEST_TIMEOUT_MS: u64 = 30_000;
/// Longest HTTP request head, start line included.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 << 10;
/// A request body nobody wants is read and dropped up to this size, to keep the connection; beyond, it is closed.
pub const HTTP_DISCARD_BYTES_MAX: usize = 64 << 10;
/// A connection closed while its peer still sends is drained this long, so that the peer can read the last reply.
pub const HTTP_LINGER_MS: u64 = 2_000;
/// What is drained in that time at most.
pub const HTTP_LINGER_BYTES_MAX: usize = 16 << 20;

/// A connection without traffic is closed after this.
pub const IDLE_TIMEOUT_MS: u64 = 600_000;
/// Output must make progress within this.
pub const SEND_TIMEOUT_MS: u64 = 30_000;
/// A graceful drain takes no longer: whoever still waits then is answered without the disk.
pub const DRAIN_TIMEOUT_MS: u64 = 20_000;
/// After it, sealing the log may go on for as long as it gets ahead once in this time; what is not sealed is recovered at
/// the next start.
pub const SEAL_TIMEOUT_MS: u64 = 30_000;

const _: () = assert!(BODY_BYTES_DEFAULT <= BATCH_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX as u64 * 4 <= SEGMENT_BYTES_MAX);
const _: () = assert!(BODY_BYTES_DEFAULT <= BODY_BYTES_CEILING);
const _: () = assert!(SEGMENT_BYTES_FIRST <= SEGMENT_BYTES_MAX);
const _: () = assert!(CHECKPOINT_DUE_BYTES_MIN <= CHECKPOINT_DUE_BYTES_MAX);
const _: () = assert!(CHECKPOINT_DUE_BYTES_MAX / SEGMENT_BYTES_MAX < SEGMENTS_WITHOUT_CHECKPOINT_MAX as u64);
const _: () = assert!(SHARDS_MAX <= SLOTS);
const _: () = assert!(SCRUB_PASS_SPREAD_MS * 2 <= SCRUB_INTERVAL_MS);
const _: () = assert!(SCRUB_MIB_PER_S_DEFAULT <= SCRUB_MIB_PER_S_MAX);
const _: () = assert!(DISK_TIMEOUT_MS + DISK_WATCH_INTERVAL_MS < DRAIN_TIMEOUT_MS);
const _: () = assert!(DISK_TIMEOUT_MS.is_multiple_of(DISK_WATCH_INTERVAL_MS));
const _: () = assert!(TEMPLATE_BYTES_MAX <= BODY_BYTES_DEFAULT);
const _: () = assert!(PAGE_ENTRIES_DEFAULT <= PAGE_ENTRIES_MAX);
const _: () = assert!(COPY_BYTES_MAX < OUTPUT_BYTES_MIN);
const _: () = assert!(OUTPUT_BYTES_MIN < OUTPUT_BYTES_MAX);
const _: () = assert!(OUTPUT_BYTES_MAX + PAGE_BYTES_MAX <= OUTPUT_BYTES_SHARD_MAX);
const _: () = assert!(BODY_BYTES_CEILING + FRAME_OVERHEAD_BYTES_MAX <= INPUT_BYTES_SHARD_MAX);
