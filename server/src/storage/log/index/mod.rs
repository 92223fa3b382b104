//! The index of one shard: which entities live, at which version, and where.
//!
//! 256 hash tables picked by the top bits of a seeded hash, so that no table grows for long; each holds the hash's
//! next 32 bits and the entry's id, so that growing touches no entry. Entries lie in a slab; each schema keeps its
//! ids in key order. It holds what is durable, nothing that is pending. It reads no file.

mod order;
mod replay;
mod slab;

pub use replay::Replayed;
pub use slab::{Entry, Place};

use crate::command::EntityRef;
use crate::sabotage::{Sabotage, is_on};
use crate::storage::ListEntry;
use compact_str::CompactString;
use hashbrown::HashTable;
use order::Order;
use slab::Slab;
use std::ops::ControlFlow;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const TABLES: usize = 256;
/// Look-ups whose waiting for memory overlaps: see [`Index::warm`].
pub const WARM_TOGETHER: usize = 32;

/// One bucket: 32 bits of the hash, and whose.
#[derive(Clone, Copy)]
struct Bucket {
    bits: u32,
    id: u32,
}

struct Schema {
    name: Box<str>,
    order: Order,
    entities: u64,
    /// Entries of this schema that mark deletions.
    markers: u64,
    /// How many schemas there had been before it; unlike its number never used again.
    birth: u64,
}

/// What an entity was before a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// Its version.
    pub version: u64,
    /// Where it lay.
    pub place: Place,
}

/// How far a walk over all entries has come.
#[derive(Default)]
pub struct WalkCursor {
    schema: usize,
    after: Option<String>,
    /// Schemas there had been when it began.
    births: Option<u64>,
}

/// The index of one shard.
pub struct Index {
    seed: u64,
    tables: Vec<HashTable<Bucket>>,
    slab: Slab,
    schemas: Vec<Option<Schema>>,
    schemas_by_name: HashTable<u32>,
    free_schemas: Vec<u32>,
    /// Schemas there have been.
    births: u64,
    entities: u64,
    /// Bytes of all keys.
    key_bytes: usize,
    /// Of them, those that lie in their entries.
    key_bytes_in_place: usize,
    /// Keys that have an allocation of their own.
    keys_allocated: usize,
    /// Deletions seen in replay.
    markers: Vec<u32>,
    /// Key order is made at the end of the replay.
    order_later: bool,
}

impl Index {
    /// An empty index whose hashes nobody outside can predict.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            tables: (0..TABLES).map(|_| HashTable::new()).collect(),
            slab: Slab::new(),
            schemas: Vec::new(),
            schemas_by_name: HashTable::new(),
            free_schemas: Vec::new(),
            births: 0,
            entities: 0,
            key_bytes: 0,
            key_bytes_in_place: 0,
            keys_allocated: 0,
            markers: Vec::new(),
            order_later: false,
        }
    }

    /// Live entities.
    pub fn len(&self) -> u64 {
        self.entities
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entities == 0
    }

    /// Version and place of a live entity.
    #[inline]
    pub fn find(&self, entity: EntityRef<'_>) -> Option<Previous> {
        let entry = self.slab.get(self.find_id(self.hash(entity), entity)?);
        Some(Previous { version: entry.version, place: entry.place })
    }

    /// The entry of a live entity by id, for [`Index::repoint`].
    pub fn find_with_id(&self, entity: EntityRef<'_>) -> Option<(u32, Previous)> {
        let id = self.find_id(self.hash(entity), entity)?;
        let entry = self.slab.get(id);
        Some((id, Previous { version: entry.version, place: entry.place }))
    }

    /// Makes this the entity's version; returns the one before.
    #[inline]
    pub fn put(&mut self, entity: EntityRef<'_>, version: u64, place: Place) -> Option<Previous> {
        self.put_hashed(self.hash(entity), entity, version, place)
    }

    /// The same, for whoever has the entity's hash already.
    #[inline]
    pub fn put_hashed(&mut self, hash: u64, entity: EntityRef<'_>, version: u64, place: Place) -> Option<Previous> {
        if let Some(id) = self.find_id(hash, entity) {
            let entry = self.slab.get_mut(id);
            let previous = Previous { version: entry.version, place: entry.place };
            (entry.version, entry.place) = (version, place);
            return Some(previous);
        }
        let schema = self.schema_number(entity.schema);
        let id = self.insert(hash, schema, entity.key, version, place);
        self.enter(schema, id);
        None
    }

    /// Touches the memory that looking up these hashes will touch, each step for all of them before the next step: what
    /// is not in the processor's cache is then waited for together instead of one after the other.
    pub fn warm(&self, hashes: &[u64]) {
        let mut ids = [None; WARM_TOGETHER];
        for hashes in hashes.chunks(WARM_TOGETHER) {
            for (id, hash) in ids.iter_mut().zip(hashes) {
                let bits = bits_of(*hash);
                let found = self.tables[table_of(*hash)].find(spread(bits), |bucket| bucket.bits == bits);
                *id = found.map(|bucket| bucket.id);
            }
            for id in ids[..hashes.len()].iter().flatten() {
                std::hint::black_box(self.slab.get(*id).version);
            }
        }
    }

    /// Removes an entity; returns what it was.
    pub fn remove(&mut self, entity: EntityRef<'_>) -> Option<Previous> {
        let hash = self.hash(entity);
        let id = self.find_id(hash, entity)?;
        let (schema, previous) = {
            let entry = self.slab.get(id);
            (entry.schema, Previous { version: entry.version, place: entry.place })
        };
        self.leave(schema, entity.key);
        self.erase(hash, id);
        self.release_schema(schema);
        Some(previous)
    }

    /// Moves an entry to another place if it is still the version at the old one.
    pub fn repoint(&mut self, id: u32, version: u64, from: Place, to: Place) -> bool {
        let entry = self.slab.get_mut(id);
        let unchanged = (entry.version == version && entry.place == from) || is_on(Sabotage::RepointBlindly);
        if unchanged {
            entry.place = to;
        }
        unchanged
    }

    /// Up to `limit` keys of a schema with the prefix, after `after`, in byte order.
    pub fn list(&self, schema: &str, prefix: &str, after: Option<&str>, limit: usize) -> Vec<ListEntry> {
        let Some(schema) = self.schema_named(schema) else { return Vec::new() };
        let from = after.filter(|after| *after > prefix).unwrap_or(prefix);
        let entries = schema.order.from(&self.slab, from).map(|id| self.slab.get(id));
        entries
            .skip_while(|entry| after.is_some_and(|after| *entry.key <= *after))
            .take_while(|entry| entry.key.starts_with(prefix))
            .take(limit)
            .map(|entry| (Box::from(&*entry.key), entry.version))
            .collect()
    }

    /// Schemas with live entities, and how many each has.
    pub fn schemas(&self) -> Vec<(String, u64)> {
        let schemas = self.schemas.iter().flatten().filter(|schema| schema.entities > 0);
        schemas.map(|schema| (schema.name.to_string(), schema.entities)).collect()
    }

    /// Visits entries, schema by schema and in key order within each, until the visitor breaks or all were seen; the
    /// next call goes on behind the last one visited. Returns whether all were seen. Whatever changes between calls,
    /// every entry that is there throughout is visited exactly once, and no key of a schema twice.
    pub fn walk(&self, cursor: &mut WalkCursor, mut visit: impl FnMut(&str, &Entry) -> ControlFlow<()>) -> bool {
        let births = *cursor.births.get_or_insert(self.births);
        while let Some(schema) = self.schemas.get(cursor.schema) {
            // A schema that came later is passed over: it may have been visited before it ended, and taken a number
            // ahead of the walk now. Nothing in it was there throughout.
            if let Some(schema) = schema.as_ref().filter(|schema| schema.birth < births) {
                let after = cursor.after.take();
                let mut last = None;
                let entries = schema.order.from(&self.slab, after.as_deref().unwrap_or(""));
                for entry in entries.map(|id| self.slab.get(id)) {
                    if after.as_deref().is_some_and(|after| *entry.key <= *after) {
                        continue;
                    }
                    last = Some(entry);
                    if visit(&schema.name, entry).is_break() {
                        break;
                    }
                    last = None;
                }
                if let Some(last) = last {
                    cursor.after = Some(last.key.to_string());
                    return false;
                }
            }
            cursor.after = None;
            cursor.schema += 1;
        }
        true
    }

    /// Memory of the index, keys included.
    pub fn bytes(&self) -> usize {
        self.overhead_bytes() + self.key_bytes
    }

    /// Memory of the index, without its keys' own bytes.
    pub fn overhead_bytes(&self) -> usize {
        let tables: usize = self.tables.iter().map(HashTable::allocation_size).sum();
        let orders: usize = self.schemas.iter().flatten().map(|schema| schema.order.bytes() + schema.name.len()).sum();
        let schemas = self.schemas.capacity() * size_of::<Option<Schema>>() + self.schemas_by_name.allocation_size();
        // The allocator's own overhead a key: a header and rounding, at most this on average.
        let allocations = self.keys_allocated * 16;
        let entries = self.slab.bytes() - self.key_bytes_in_place;
        tables + TABLES * size_of::<HashTable<Bucket>>() + orders + schemas + entries + allocations
    }

    /// Makes room for so many entities more, so that loading them does not grow any table.
    pub fn reserve(&mut self, entities: usize) {
        let each = entities / TABLES + entities / TABLES / 8;
        for table in &mut self.tables {
            table.reserve(each, |bucket| spread(bucket.bits));
        }
    }

    /// The number of a schema in this index; it gets one if it has none.
    pub fn schema_number(&mut self, name: &str) -> u32 {
        let hash = xxh3_64_with_seed(name.as_bytes(), self.seed);
        let schemas = &self.schemas;
        let is = |number: &u32| schemas[*number as usize].as_ref().is_some_and(|schema| *schema.name == *name);
        if let Some(number) = self.schemas_by_name.find(hash, is) {
            return *number;
        }
        let number = self.free_schemas.pop().map_or_else(
            || {
                self.schemas.push(None);
                self.schemas.len() - 1
            },
            |number| number as usize,
        );
        let birth = self.births;
        self.births += 1;
        let (name, order) = (name.into(), Order::default());
        self.schemas[number] = Some(Schema { name, order, entities: 0, markers: 0, birth });
        let (schemas, seed) = (&self.schemas, self.seed);
        self.schemas_by_name.insert_unique(hash, number as u32, |number| {
            let name = schemas[*number as usize].as_ref().map_or("", |schema| &schema.name);
            xxh3_64_with_seed(name.as_bytes(), seed)
        });
        number as u32
    }

    /// Adds an entity of this hash that is known to be new, and whose key is above all others of its schema. False when
    /// it is not above.
    pub fn load(&mut self, hash: u64, schema: u32, key: &str, version: u64, place: Place) -> bool {
        let Some(target) = self.schemas[schema as usize].as_ref() else { return false };
        if target.order.last().is_some_and(|last| *self.slab.get(last).key >= *key) {
            return false;
        }
        let id = self.insert(hash, schema, key, version, place);
        if let Some(target) = &mut self.schemas[schema as usize] {
            target.order.push(&self.slab, id);
            target.entities += 1;
        }
        self.entities += 1;
        true
    }

    /// Entities for which the predicate holds go; returns how many (salvage only).
    pub fn remove_where(&mut self, mut gone: impl FnMut(&Entry) -> bool) -> u64 {
        let mut names = Vec::new();
        let mut cursor = WalkCursor::default();
        self.walk(&mut cursor, |schema, entry| {
            if gone(entry) {
                names.push((schema.to_owned(), entry.key.to_string()));
            }
            ControlFlow::Continue(())
        });
        for (schema, key) in &names {
            self.remove(EntityRef { schema, key });
        }
        names.len() as u64
    }

    /// The entity's hash in this index.
    #[inline]
    pub fn hash(&self, entity: EntityRef<'_>) -> u64 {
        let schema = xxh3_64_with_seed(entity.schema.as_bytes(), self.seed);
        xxh3_64_with_seed(entity.key.as_bytes(), schema)
    }

    #[inline]
    fn find_id(&self, hash: u64, entity: EntityRef<'_>) -> Option<u32> {
        let bits = bits_of(hash);
        let is = |bucket: &Bucket| {
            if bucket.bits != bits {
                return false;
            }
            let entry = self.slab.get(bucket.id);
            let schema = self.schemas[entry.schema as usize].as_ref();
            *entry.key == *entity.key && schema.is_some_and(|schema| *schema.name == *entity.schema)
        };
        self.tables[table_of(hash)].find(spread(bits), is).map(|bucket| bucket.id)
    }

    fn insert(&mut self, hash: u64, schema: u32, key: &str, version: u64, place: Place) -> u32 {
        let key = CompactString::new(key);
        self.key_bytes += key.len();
        match key.is_heap_allocated() {
            true => self.keys_allocated += 1,
            false => self.key_bytes_in_place += key.len(),
        }
        let id = self.slab.insert(Entry { key, version, place, schema });
        let bucket = Bucket { bits: bits_of(hash), id };
        self.tables[table_of(hash)].insert_unique(spread(bucket.bits), bucket, |bucket| spread(bucket.bits));
        id
    }

    /// Takes an id out of its hash table and the slab.
    fn erase(&mut self, hash: u64, id: u32) {
        let table = &mut self.tables[table_of(hash)];
        if let Ok(found) = table.find_entry(spread(bits_of(hash)), |bucket| bucket.id == id) {
            found.remove();
        }
        let key = self.slab.remove(id);
        self.key_bytes -= key.len();
        match key.is_heap_allocated() {
            true => self.keys_allocated -= 1,
            false => self.key_bytes_in_place -= key.len(),
        }
    }

    /// Counts an entry as live and puts it in order.
    fn enter(&mut self, schema: u32, id: u32) {
        if let Some(schema) = &mut self.schemas[schema as usize] {
            schema.entities += 1;
            if !self.order_later {
                schema.order.insert(&self.slab, id);
            }
        }
        self.entities += 1;
    }

    /// The opposite.
    fn leave(&mut self, schema: u32, key: &str) {
        if let Some(schema) = &mut self.schemas[schema as usize] {
            schema.entities -= 1;
            if !self.order_later {
                schema.order.remove(&self.slab, key);
            }
        }
        self.entities -= 1;
    }

    /// Frees the number of a schema that nothing refers to any more.
    fn release_schema(&mut self, number: u32) {
        let target = &mut self.schemas[number as usize];
        if target.as_ref().is_none_or(|schema| schema.entities > 0 || schema.markers > 0) {
            return;
        }
        if let Some(schema) = target.take() {
            let hash = xxh3_64_with_seed(schema.name.as_bytes(), self.seed);
            if let Ok(found) = self.schemas_by_name.find_entry(hash, |other| *other == number) {
                found.remove();
            }
            self.free_schemas.push(number);
        }
    }

    fn schema_named(&self, name: &str) -> Option<&Schema> {
        let hash = xxh3_64_with_seed(name.as_bytes(), self.seed);
        let is = |number: &u32| self.schemas[*number as usize].as_ref().is_some_and(|schema| *schema.name == *name);
        let number = self.schemas_by_name.find(hash, is)?;
        self.schemas[*number as usize].as_ref()
    }
}

#[inline]
fn table_of(hash: u64) -> usize {
    (hash >> 56) as usize
}

/// The bits a bucket keeps: those below the table's.
#[inline]
fn bits_of(hash: u64) -> u32 {
    (hash >> 24) as u32
}

/// A table takes its position from the low bits of a hash and its control bytes from the top ones.
#[inline]
fn spread(bits: u32) -> u64 {
    u64::from(bits) << 32 | u64::from(bits)
}

#[cfg(test)]
mod tests;
