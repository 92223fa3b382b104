//! What machine and server a simulation runs on, and what its clients want of them; all of it decided by the seed.
//!
//! Draws that were added later come from streams of their own, so that the rest of a seed's setting stays as it was.

use deltadb::engine::EngineBounds;
use deltadb::mailbox::MailboxBounds;
use deltadb::runtime::sim::Random;
use deltadb::storage::log::LogSizes;

/// What the machine is like while the steps are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing goes wrong, but servers are stopped, started and resized.
    Calm,
    /// The power goes and processes are killed.
    Stormy,
    /// Writes, reads and syncs fail, are short or slow.
    Failing,
    /// The disk fills up and is emptied.
    Full,
    /// Branches of the history meet damaged and forged files.
    Rotten,
    /// All of it.
    Mixed,
}

const WEATHERS: [Weather; 8] = [
    Weather::Calm,
    Weather::Stormy,
    Weather::Stormy,
    Weather::Failing,
    Weather::Full,
    Weather::Rotten,
    Weather::Mixed,
    Weather::Mixed,
];

/// Which entities are written when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Any of them at any time: no segment stays alive for long.
    Even,
    /// Most are written once, early, and perhaps removed late; a few are written all the time. Old segments stay as
    /// they are while younger ones, and the deletions in them, are compacted.
    Aging,
}

/// Streams of a setting that were added to the one which decides the rest.
const SCRUB: u64 = 1;
const BOUNDS: u64 = 2;
const STALLS: u64 = 3;

/// The setting of a simulation.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Decides everything.
    pub seed: u64,
    /// What goes wrong.
    pub weather: Weather,
    /// Which entities are written when.
    pub workload: Workload,
    /// Alignment of direct files; `None`: the file system has none.
    pub direct_alignment: Option<usize>,
    /// Sizes of the logs.
    pub sizes: LogSizes,
    /// Shards of the fresh store.
    pub shards: u16,
    /// Memory of a shard's cache.
    pub cache_bytes: usize,
    /// Age at which a cached document goes; 0: never.
    pub cache_ttl_ms: u64,
    /// Schemas that documents are written to.
    pub schemas: u64,
    /// Keys in each.
    pub keys: u64,
    /// Length of a usual document is below this.
    pub document_bytes: u64,
    /// Operations under way at once.
    pub clients: usize,
    /// How often data keys that nothing names any more are looked for.
    pub drop_keys_ms: u64,
    /// So little may wait that floods are refused in part.
    pub tight: bool,
    /// The disk keeps everybody waiting longer than they do, now and then.
    pub stalls: bool,
}

impl Setup {
    /// The setting of a seed.
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::for_purpose(seed, 0);
        let weather = WEATHERS[random.below(WEATHERS.len() as u64) as usize];
        let direct_alignment = [Some(512), Some(512), Some(4096), None][random.below(4) as usize];
        // Room for a few dozen frames, whatever a block takes.
        let segment_bytes_first = if direct_alignment == Some(512) { 24 << 10 } else { 64 << 10 };
        let segment_bytes_max = segment_bytes_first << random.below(3);
        let sizes = LogSizes {
            segment_bytes_first,
            segment_bytes_max,
            batch_bytes: [4 << 10, 12 << 10][random.below(2) as usize],
            batch_records: 32,
            records_in_flight: 64,
            checkpoint_due_bytes: segment_bytes_first * random.between(2, 5),
            checkpoint_chunk_bytes: 2 << 10,
            verify_at_open_bytes: [0, 1 << 30][random.below(2) as usize],
            window_bytes: 8 << 10,
            space_kept_bytes: 16 << 10,
            ..LogSizes::default()
        };
        let drawn = Self {
            seed,
            weather,
            workload: Workload::Even,
            direct_alignment,
            sizes,
            shards: random.between(1, 3) as u16,
            cache_bytes: [0, 4 << 10, 1 << 20][random.below(3) as usize],
            cache_ttl_ms: [0, 0, 50][random.below(3) as usize],
            schemas: random.between(1, 3),
            keys: random.between(4, 24),
            document_bytes: [64, 400, 1500][random.below(3) as usize],
            clients: [1, 4, 16][random.below(3) as usize],
            drop_keys_ms: [400, 50, 5][random.below(3) as usize],
            tight: false,
            stalls: false,
        };
        let drawn = if random.below(8) == 0 { drawn.aging() } else { drawn };
        drawn.with_a_scrub().tightened().with_stalls()
    }

    /// What the scrub is like, which is off in one setting of four.
    fn with_a_scrub(self) -> Self {
        let mut random = Random::for_purpose(self.seed, SCRUB);
        let sizes = LogSizes {
            scrub_bytes_per_s: [0, 16 << 10, 1 << 20, 1 << 20][random.below(4) as usize],
            scrub_piece_bytes: [2 << 10, 8 << 10, 128 << 10][random.below(3) as usize],
            scrub_interval_ms: [100, 1_000][random.below(2) as usize],
            scrub_spread_ms: [50, 500][random.below(2) as usize],
            ..self.sizes
        };
        Self { sizes, ..self }
    }

    /// In one setting of three little may wait.
    fn tightened(self) -> Self {
        Self { tight: Random::for_purpose(self.seed, BOUNDS).below(3) == 0, ..self }
    }

    /// In one setting of three the disk stalls.
    fn with_stalls(self) -> Self {
        Self { stalls: Random::for_purpose(self.seed, STALLS).below(3) == 0, ..self }
    }

    /// What may wait in an engine.
    pub fn engine_bounds(&self) -> EngineBounds {
        match self.tight {
            true => EngineBounds { pending_bytes: 4 << 10, reads: 2 },
            false => EngineBounds::default(),
        }
    }

    /// What may wait between shards.
    pub fn mailbox_bounds(&self, shards: usize) -> MailboxBounds {
        match self.tight {
            true => MailboxBounds { credits: 2, waiting: 3, waiting_bytes: 4 << 10 },
            false => MailboxBounds::of(shards),
        }
    }

    /// The same machine with an aging workload, in one shard with small segments that the early entities fill.
    pub fn aging(self) -> Self {
        let segment_bytes = 24 << 10;
        let sizes = LogSizes {
            segment_bytes_first: segment_bytes,
            segment_bytes_max: segment_bytes,
            checkpoint_due_bytes: 2 * segment_bytes,
            ..self.sizes
        };
        Self {
            workload: Workload::Aging,
            direct_alignment: self.direct_alignment.map(|_| 512),
            sizes,
            shards: 1,
            schemas: 1,
            keys: 40,
            document_bytes: 1500,
            ..self
        }
    }

    /// The same in another weather.
    pub fn in_weather(self, weather: Weather) -> Self {
        Self { weather, ..self }
    }

    /// Whether some kind of misfortune may happen.
    pub fn has(&self, weather: Weather) -> bool {
        self.weather == weather || self.weather == Weather::Mixed
    }
}
