//! Filling an index from the log: records in any order, of which the greatest version wins.
//!
//! A deletion stays as a marker until the end of the replay, since an older put of the same entity may still come.

use super::{Index, Place};
use crate::command::EntityRef;

/// What a replayed record did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// A newer one was known already.
    Ignored,
    /// It is the entity's newest version now; the place is that of the live version before.
    Applied(Option<Place>),
}

impl Index {
    /// For a replay that begins empty: key order is made at its end, which is faster than keeping it.
    pub fn order_later(&mut self) {
        self.order_later = true;
    }

    /// Applies a record from the log: the greater version wins, an equal one is pointed here. A record that does not
    /// create is dropped when its entity is not known.
    pub fn replay_put(&mut self, entity: EntityRef<'_>, version: u64, place: Place, creates: bool) -> Replayed {
        let hash = self.hash(entity);
        let Some(id) = self.find_id(hash, entity) else {
            if !creates {
                return Replayed::Ignored;
            }
            let schema = self.schema_number(entity.schema);
            let id = self.insert(hash, schema, entity.key, version, place);
            self.enter(schema, id);
            return Replayed::Applied(None);
        };
        let entry = self.slab.get_mut(id);
        let (marker, schema) = (entry.is_marker(), entry.schema);
        if version < entry.version || (version == entry.version && marker) || (marker && !creates) {
            return Replayed::Ignored;
        }
        if version > entry.version && !creates {
            return Replayed::Ignored;
        }
        let previous = (!marker).then_some(entry.place);
        (entry.version, entry.place) = (version, place);
        if marker {
            if let Some(schema) = &mut self.schemas[schema as usize] {
                schema.markers -= 1;
            }
            self.enter(schema, id);
        }
        Replayed::Applied(previous)
    }

    /// Applies a deletion from the log; it stays as a marker until [`Index::finish_replay`].
    pub fn replay_delete(&mut self, entity: EntityRef<'_>, version: u64) -> Replayed {
        const MARKER: Place = Place { slot: u32::MAX, offset: 0, length: 0 };
        let hash = self.hash(entity);
        let Some(id) = self.find_id(hash, entity) else {
            let schema = self.schema_number(entity.schema);
            let id = self.insert(hash, schema, entity.key, version, MARKER);
            self.mark(schema, id);
            return Replayed::Applied(None);
        };
        let entry = self.slab.get_mut(id);
        if version <= entry.version {
            return Replayed::Ignored;
        }
        let (schema, previous, marker) = (entry.schema, entry.place, entry.is_marker());
        (entry.version, entry.place) = (version, MARKER);
        if marker {
            return Replayed::Applied(None);
        }
        self.leave(schema, entity.key);
        self.mark(schema, id);
        Replayed::Applied(Some(previous))
    }

    /// Forgets the markers, and makes the key order if that was left for later.
    pub fn finish_replay(&mut self) {
        for id in std::mem::take(&mut self.markers) {
            let entry = self.slab.get(id);
            // The id may have come alive again, or have been marked twice and erased by the first.
            if !entry.is_marker() || entry.place.slot != u32::MAX || entry.key.is_empty() {
                continue;
            }
            let schema = entry.schema;
            let name = self.schemas[schema as usize].as_ref().map_or("", |schema| &schema.name);
            let hash = self.hash(EntityRef { schema: name, key: &entry.key });
            self.erase(hash, id);
            if let Some(schema) = &mut self.schemas[schema as usize] {
                schema.markers -= 1;
            }
            self.release_schema(schema);
        }
        if std::mem::take(&mut self.order_later) {
            self.make_order();
        }
    }

    fn mark(&mut self, schema: u32, id: u32) {
        self.markers.push(id);
        if let Some(schema) = &mut self.schemas[schema as usize] {
            schema.markers += 1;
        }
    }

    fn make_order(&mut self) {
        let mut ids: Vec<Vec<u32>> = self.schemas.iter().map(|_| Vec::new()).collect();
        for bucket in self.tables.iter().flatten() {
            ids[self.slab.get(bucket.id).schema as usize].push(bucket.id);
        }
        let slab = &self.slab;
        for (schema, ids) in self.schemas.iter_mut().zip(ids) {
            if let Some(schema) = schema {
                debug_assert!(schema.order.is_empty());
                schema.order.fill(slab, ids);
            }
        }
    }
}
