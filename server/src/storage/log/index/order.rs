//! The keys of one schema in byte order: a two-level list of entry ids, whose keys the slab holds.
//!
//! Leaves hold up to 512 ids and are never empty. Every method that compares takes the slab the ids belong to.

use super::slab::Slab;

const LEAF_IDS_MAX: usize = 512;
const LEAF_IDS_MIN: usize = LEAF_IDS_MAX / 4;

/// Ids in the order of their keys.
#[derive(Default)]
pub struct Order {
    leaves: Vec<Vec<u32>>,
}

impl Order {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Adds an id whose key is not there yet.
    pub fn insert(&mut self, slab: &Slab, id: u32) {
        let key = &*slab.get(id).key;
        let (leaf, position) = self.position_of(slab, key);
        let last = leaf + 1 >= self.leaves.len();
        let Some(ids) = self.leaves.get_mut(leaf) else {
            self.leaves.push(vec![id]);
            return;
        };
        if ids.len() < LEAF_IDS_MAX {
            ids.insert(position, id);
        } else if last && position == LEAF_IDS_MAX {
            // Rising keys leave full leaves behind instead of half-empty ones.
            self.leaves.push(vec![id]);
        } else {
            let mut upper = ids.split_off(LEAF_IDS_MAX / 2);
            match position.checked_sub(LEAF_IDS_MAX / 2) {
                Some(position) if position > 0 => upper.insert(position, id),
                _ => ids.insert(position, id),
            }
            self.leaves.insert(leaf + 1, upper);
        }
    }

    /// Adds an id whose key is above all others.
    pub fn push(&mut self, id: u32) {
        match self.leaves.last_mut() {
            Some(ids) if ids.len() < LEAF_IDS_MAX => ids.push(id),
            _ => self.leaves.push(vec![id]),
        }
    }

    /// The id with the highest key.
    pub fn last(&self) -> Option<u32> {
        self.leaves.last().and_then(|ids| ids.last()).copied()
    }

    /// Removes the id of a key, if it is there. The slab still holds it.
    pub fn remove(&mut self, slab: &Slab, key: &str) {
        let (leaf, position) = self.position_of(slab, key);
        let Some(ids) = self.leaves.get_mut(leaf) else { return };
        if ids.get(position).is_none_or(|id| &*slab.get(*id).key != key) {
            return;
        }
        ids.remove(position);
        if ids.is_empty() {
            self.leaves.remove(leaf);
        } else if ids.len() < LEAF_IDS_MIN {
            self.merge(leaf);
        }
    }

    /// The ids from the first key at or above `from`, in order.
    pub fn from<'a>(&'a self, slab: &Slab, from: &str) -> impl Iterator<Item = u32> + use<'a> {
        let (leaf, position) = self.position_of(slab, from);
        let first = self.leaves.get(leaf).map_or(&[][..], |ids| &ids[position..]);
        let rest = self.leaves.get(leaf + 1..).unwrap_or(&[]);
        first.iter().chain(rest.iter().flatten()).copied()
    }

    /// Memory of the list.
    pub fn bytes(&self) -> usize {
        let leaves: usize = self.leaves.iter().map(|ids| ids.capacity() * size_of::<u32>()).sum();
        leaves + self.leaves.capacity() * size_of::<Vec<u32>>()
    }

    /// The leaf a key belongs in, and the position of the first id there whose key is at or above it.
    fn position_of(&self, slab: &Slab, key: &str) -> (usize, usize) {
        let above = self.leaves.partition_point(|ids| ids.first().is_some_and(|id| *slab.get(*id).key <= *key));
        let leaf = above.saturating_sub(1);
        let position = self.leaves.get(leaf).map_or(0, |ids| ids.partition_point(|id| *slab.get(*id).key < *key));
        (leaf, position)
    }

    /// Joins a small leaf with a neighbour when both fit into one with room to spare.
    fn merge(&mut self, leaf: usize) {
        let first = if leaf + 1 < self.leaves.len() { leaf } else { leaf.saturating_sub(1) };
        if first + 1 >= self.leaves.len() {
            return;
        }
        if self.leaves[first].len() + self.leaves[first + 1].len() <= LEAF_IDS_MAX * 3 / 4 {
            let upper = self.leaves.remove(first + 1);
            self.leaves[first].extend_from_slice(&upper);
        }
    }
}
