//! The decrypted documents of one shard, least recently used first to go.
//!
//! Bounded by bytes and by entries; with a time to live, an entry older than that is never returned. A held version
//! is never replaced by an older one. A hit allocates and copies nothing. The caller gives the key's hash and the
//! time. This room refuses to know whether an entry is still the newest: whoever accepts a write inserts or removes.

use crate::command::{Document, EntityRef, Version};
use crate::metrics::ShardMetrics;
use hashbrown::HashTable;
use std::hint::black_box;

/// The bounds of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// Memory, counting what each entry really costs; 0 caches nothing.
    pub bytes_max: usize,
    /// Documents; 0 caches nothing.
    pub entries_max: usize,
    /// How long an entry may be served after it was inserted; 0 for ever.
    pub ttl_ms: u64,
}

/// What has happened in a cache since it was made, and how full it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Reads answered.
    pub hits: u64,
    /// Reads not answered, expired ones included.
    pub misses: u64,
    /// Entries that gave way to others.
    pub evictions: u64,
    /// Entries that outlived the time to live.
    pub expirations: u64,
    /// Documents held.
    pub entries: usize,
    /// What they cost.
    pub bytes: usize,
}

/// An entry's index in the slab when there is none.
const NONE: u32 = u32::MAX;
/// No single document takes more than this fraction of the cache.
const SHARE_OF_ONE_DOCUMENT: usize = 8;
/// What the reference counts of an `Arc` take beside its bytes.
const SHARED_HEADER_BYTES: usize = 16;
/// What the allocator rounds up to.
const ALLOCATION_STEP_BYTES: usize = 16;
/// A slot of the table and its control byte, at the load the table keeps on average.
const TABLE_SHARE_BYTES: usize = 8;
/// Entries at the cold end that each insert looks at for expired ones.
const SWEEP_PER_INSERT: usize = 2;

struct Entry {
    hash: u64,
    version: Version,
    inserted_ms: u64,
    document: Document,
}

/// An entry's neighbours in the order of use, apart from the entries: a hit moves three entries' links, and this way
/// they are likely to lie in the processor's cache.
#[derive(Clone, Copy)]
struct Links {
    /// Towards the most recently used.
    newer: u32,
    /// Towards the least recently used.
    older: u32,
}

enum Slot {
    Used(Entry),
    /// The next free slot.
    Free(u32),
}

/// A shard's cache.
pub struct Cache {
    options: CacheOptions,
    table: HashTable<u32>,
    slab: Vec<Slot>,
    /// One a slot of the slab.
    links: Vec<Links>,
    free: u32,
    newest: u32,
    oldest: u32,
    sweep_from: usize,
    stats: CacheStats,
    reported: CacheStats,
}

impl Cache {
    /// An empty cache.
    pub fn new(options: CacheOptions) -> Self {
        Self {
            options: CacheOptions { entries_max: options.entries_max.min(NONE as usize), ..options },
            table: HashTable::new(),
            slab: Vec::new(),
            links: Vec::new(),
            free: NONE,
            newest: NONE,
            oldest: NONE,
            sweep_from: 0,
            stats: CacheStats::default(),
            reported: CacheStats::default(),
        }
    }

    /// The document held for an entity, which becomes the most recently used. `hash` is the entity's, the same in
    /// every call; `now_ms` only ever grows.
    pub fn get(&mut self, hash: u64, entity: EntityRef<'_>, now_ms: u64) -> Option<(Version, &Document)> {
        let Some(index) = self.find(hash, entity) else {
            self.stats.misses += 1;
            return None;
        };
        if self.is_expired(index, now_ms) {
            self.release(index);
            self.stats.expirations += 1;
            self.stats.misses += 1;
            return None;
        }
        self.stats.hits += 1;
        self.touch(index);
        self.entry(index).map(|entry| (entry.version, &entry.document))
    }

    /// Holds a document at a version, unless a newer one is held or it is too large; an older one held goes in any
    /// case.
    pub fn insert(&mut self, hash: u64, document: Document, version: Version, now_ms: u64) {
        let held = self.find_by(hash, |entry| entry.document.is_of_the_same(&document));
        if held.and_then(|held| self.entry(held)).is_some_and(|entry| entry.version > version) {
            return;
        }
        let cost = cost_bytes(&document);
        let is_kept = self.options.entries_max > 0 && cost <= self.options.bytes_max / SHARE_OF_ONE_DOCUMENT;
        match held {
            Some(held) if is_kept && self.options.ttl_ms == 0 => {
                return self.replace(held, document, version, cost);
            }
            Some(held) => self.release(held),
            None => {}
        }
        self.sweep_oldest(now_ms);
        if is_kept {
            self.add(Entry { hash, version, inserted_ms: now_ms, document }, cost);
        }
    }

    /// Touches the memory that inserting under these hashes will touch, each step for all of them before the next
    /// step: what is not in the processor's cache is then waited for together instead of one after the other.
    pub fn warm(&self, hashes: impl Iterator<Item = u64>) {
        const TOGETHER: usize = 32;
        let mut hashes = hashes.peekable();
        let mut slots = [NONE; TOGETHER];
        while hashes.peek().is_some() {
            let mut count = 0;
            for (slot, hash) in slots.iter_mut().zip(&mut hashes) {
                *slot = self.table.iter_hash(hash).next().copied().unwrap_or(NONE);
                count += 1;
            }
            for slot in &slots[..count] {
                if let (Some(entry), Some(links)) = (self.entry(*slot), self.links.get(*slot as usize)) {
                    black_box((entry.version, links.newer));
                }
            }
            for slot in &slots[..count] {
                if let (Some(entry), Some(links)) = (self.entry(*slot), self.links.get(*slot as usize)) {
                    let neighbours = (self.links.get(links.newer as usize), self.links.get(links.older as usize));
                    let neighbours = (neighbours.0.map(|links| links.older), neighbours.1.map(|links| links.newer));
                    black_box((entry.document.first_byte(), neighbours));
                }
            }
        }
    }

    /// Another document of an entity that is held, where entries do not expire.
    fn replace(&mut self, index: u32, document: Document, version: Version, cost: usize) {
        let Some(Slot::Used(entry)) = self.slab.get_mut(index as usize) else { return };
        entry.version = version;
        let before = std::mem::replace(&mut entry.document, document);
        self.stats.bytes = self.stats.bytes + cost - cost_bytes(&before);
        self.touch(index);
        // Ends before it comes to this one, which takes at most an eighth.
        while self.stats.bytes > self.options.bytes_max {
            self.evict_oldest();
        }
    }

    /// A document of an entity that is not held.
    fn add(&mut self, entry: Entry, cost: usize) {
        while self.stats.entries >= self.options.entries_max || self.stats.bytes + cost > self.options.bytes_max {
            // Ends: an empty cache has room for an entry of an eighth of it.
            self.evict_oldest();
        }
        let hash = entry.hash;
        let index = self.occupy(entry);
        let slab = &self.slab;
        self.table.insert_unique(hash, index, |other| hash_in(slab, *other));
        self.link_newest(index);
        self.stats.entries += 1;
        self.stats.bytes += cost;
    }

    /// Forgets an entity.
    pub fn remove(&mut self, hash: u64, entity: EntityRef<'_>) {
        if let Some(index) = self.find(hash, entity) {
            self.release(index);
        }
    }

    /// Forgets everything and returns the memory.
    pub fn clear(&mut self) {
        self.table = HashTable::new();
        self.slab = Vec::new();
        self.links = Vec::new();
        (self.free, self.newest, self.oldest, self.sweep_from) = (NONE, NONE, NONE, 0);
        (self.stats.entries, self.stats.bytes) = (0, 0);
    }

    /// Looks at the next `slots` places for expired entries, going round; background work calls it now and then so
    /// that entries nobody asks for do not outlive their time in memory.
    pub fn sweep(&mut self, now_ms: u64, slots: usize) {
        if self.options.ttl_ms == 0 {
            return;
        }
        for _ in 0..slots.min(self.slab.len()) {
            let index = self.sweep_from % self.slab.len();
            self.sweep_from = index + 1;
            self.expire(index as u32, now_ms);
        }
    }

    /// Counts and fill.
    pub fn stats(&self) -> CacheStats {
        self.stats
    }

    /// Carries what happened since the last report over to the shard's figures.
    pub fn report(&mut self, metrics: &ShardMetrics) {
        metrics.cache_hits.add(self.stats.hits - self.reported.hits);
        metrics.cache_misses.add(self.stats.misses - self.reported.misses);
        metrics.cache_evictions.add(self.stats.evictions - self.reported.evictions);
        metrics.cache_expirations.add(self.stats.expirations - self.reported.expirations);
        metrics.cache_entries.set(self.stats.entries as u64);
        metrics.cache_bytes.set(self.stats.bytes as u64);
        self.reported = self.stats;
    }

    fn find(&self, hash: u64, entity: EntityRef<'_>) -> Option<u32> {
        self.find_by(hash, |entry| entry.document.is_of(entity))
    }

    #[inline]
    fn find_by(&self, hash: u64, is: impl Fn(&Entry) -> bool) -> Option<u32> {
        let matches = |index: &u32| match self.slab.get(*index as usize) {
            Some(Slot::Used(entry)) => entry.hash == hash && is(entry),
            _ => false,
        };
        self.table.find(hash, matches).copied()
    }

    fn entry(&self, index: u32) -> Option<&Entry> {
        match self.slab.get(index as usize) {
            Some(Slot::Used(entry)) => Some(entry),
            _ => None,
        }
    }

    fn is_expired(&self, index: u32, now_ms: u64) -> bool {
        let ttl_ms = self.options.ttl_ms;
        ttl_ms != 0 && self.entry(index).is_some_and(|entry| now_ms.saturating_sub(entry.inserted_ms) >= ttl_ms)
    }

    fn expire(&mut self, index: u32, now_ms: u64) {
        if self.is_expired(index, now_ms) {
            self.release(index);
            self.stats.expirations += 1;
        }
    }

    fn sweep_oldest(&mut self, now_ms: u64) {
        for _ in 0..SWEEP_PER_INSERT {
            self.expire(self.oldest, now_ms);
        }
    }

    fn occupy(&mut self, entry: Entry) -> u32 {
        match self.slab.get_mut(self.free as usize) {
            Some(slot) => {
                let index = self.free;
                if let Slot::Free(next) = *slot {
                    self.free = next;
                }
                *slot = Slot::Used(entry);
                index
            }
            None => {
                // `entries_max` keeps the slab's length below NONE.
                self.slab.push(Slot::Used(entry));
                self.links.push(Links { newer: NONE, older: NONE });
                (self.slab.len() - 1) as u32
            }
        }
    }

    /// Takes an entry out of table, list and slab; nothing when the index holds none.
    fn release(&mut self, index: u32) {
        let Some(slot) = self.slab.get_mut(index as usize) else { return };
        let Slot::Used(entry) = std::mem::replace(slot, Slot::Free(self.free)) else {
            unreachable!("only used slots are in the table and in the list");
        };
        self.free = index;
        self.unlink(index);
        if let Ok(found) = self.table.find_entry(entry.hash, |other| *other == index) {
            found.remove();
        }
        self.stats.entries -= 1;
        self.stats.bytes -= cost_bytes(&entry.document);
    }

    fn evict_oldest(&mut self) {
        self.release(self.oldest);
        self.stats.evictions += 1;
    }

    fn touch(&mut self, index: u32) {
        if self.newest != index {
            self.unlink(index);
            self.link_newest(index);
        }
    }

    fn link_newest(&mut self, index: u32) {
        let second = self.newest;
        if let Some(links) = self.links.get_mut(index as usize) {
            *links = Links { newer: NONE, older: second };
        }
        match self.links.get_mut(second as usize) {
            Some(links) => links.newer = index,
            None => self.oldest = index,
        }
        self.newest = index;
    }

    fn unlink(&mut self, index: u32) {
        let Some(&Links { newer, older }) = self.links.get(index as usize) else { return };
        match self.links.get_mut(newer as usize) {
            Some(links) => links.older = older,
            None => self.newest = older,
        }
        match self.links.get_mut(older as usize) {
            Some(links) => links.newer = newer,
            None => self.oldest = newer,
        }
    }
}

fn hash_in(slab: &[Slot], index: u32) -> u64 {
    match slab.get(index as usize) {
        Some(Slot::Used(entry)) => entry.hash,
        _ => unreachable!("the table holds used slots only"),
    }
}

/// What holding a document takes: its allocation, its place in the slab and its share of the table.
fn cost_bytes(document: &Document) -> usize {
    let (bytes, _) = document.shared();
    (bytes.len() + SHARED_HEADER_BYTES).next_multiple_of(ALLOCATION_STEP_BYTES) + size_of::<Slot>() + TABLE_SHARE_BYTES
}

#[cfg(test)]
mod tests;
