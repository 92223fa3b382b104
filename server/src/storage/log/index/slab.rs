//! Index entries in chunks: stable ids, no slack from doubling, freed ones reused.

use compact_str::CompactString;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Slot of the segment in the shard's segment table.
    pub slot: u32,
    /// Offset of the record in the segment.
    pub offset: u32,
    /// Bytes of the record.
    pub length: u32,
}

/// One entity.
pub struct Entry {
    /// Its key, in place when it is short: a look-up then compares it without another miss of the processor's cache.
    pub key: CompactString,
    /// Its newest durable version.
    pub version: u64,
    /// Where that version lies; length 0 marks a deletion while the log is replayed.
    pub place: Place,
    /// The number of its schema in this index.
    pub schema: u32,
}

impl Entry {
    /// Whether it is a deletion seen in replay.
    pub fn is_marker(&self) -> bool {
        self.place.length == 0
    }
}

const CHUNK_ENTRIES: usize = 1024;
const NONE: u32 = u32::MAX;

/// All entries of an index.
pub struct Slab {
    chunks: Vec<Vec<Entry>>,
    /// The first free entry; each holds the next one in its offset.
    free: u32,
}

impl Slab {
    /// Empty.
    pub fn new() -> Self {
        Self { chunks: Vec::new(), free: NONE }
    }

    /// The entry of an id that was handed out and not given back.
    #[inline]
    pub fn get(&self, id: u32) -> &Entry {
        &self.chunks[id as usize / CHUNK_ENTRIES][id as usize % CHUNK_ENTRIES]
    }

    /// The same, to change it.
    #[inline]
    pub fn get_mut(&mut self, id: u32) -> &mut Entry {
        &mut self.chunks[id as usize / CHUNK_ENTRIES][id as usize % CHUNK_ENTRIES]
    }

    /// Stores an entry and returns its id.
    pub fn insert(&mut self, entry: Entry) -> u32 {
        if self.free != NONE {
            let id = self.free;
            let target = self.get_mut(id);
            let next = target.place.offset;
            *target = entry;
            self.free = next;
            return id;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_ENTRIES) {
            // The first chunk grows as needed, so that a shard with few entities stays small.
            let capacity = if self.chunks.is_empty() { 0 } else { CHUNK_ENTRIES };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let chunk = self.chunks.len() - 1;
        let id = chunk * CHUNK_ENTRIES + self.chunks[chunk].len();
        assert!(id < NONE as usize, "a shard holds fewer than 2^32 entities");
        self.chunks[chunk].push(entry);
        id as u32
    }

    /// Gives an id back; returns its key.
    pub fn remove(&mut self, id: u32) -> CompactString {
        let free = self.free;
        let entry = self.get_mut(id);
        entry.version = 0;
        entry.place = Place { slot: NONE, offset: free, length: 0 };
        let key = std::mem::take(&mut entry.key);
        self.free = id;
        key
    }

    /// Memory of the entries, with those keys that lie in them.
    pub fn bytes(&self) -> usize {
        let entries: usize = self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<Entry>()).sum();
        entries + self.chunks.capacity() * size_of::<Vec<Entry>>()
    }
}
