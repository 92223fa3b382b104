//! The keys of one schema in byte order: a two-level list of entry ids, whose keys the slab holds.
//!
//! Looking a key up in the slab costs cache misses, so the list keeps a few bytes of keys at hand: each leaf eight
//! bytes of its first key, each id four bytes of its own, taken behind the prefix that all keys of the list (or of
//! the leaf) share. Only where those bytes are equal are the keys themselves compared.
//!
//! Leaves hold up to 512 ids and are never empty. Every method that compares takes the slab the ids belong to.

use super::slab::Slab;
use std::cmp::Ordering;

const LEAF_IDS_MAX: usize = 512;
const LEAF_IDS_MIN: usize = LEAF_IDS_MAX / 4;

/// An id and the bytes of its key behind the leaf's shared prefix.
#[derive(Clone, Copy)]
struct Slot {
    bytes: u32,
    id: u32,
}

struct Leaf {
    /// Bytes of the first key behind the list's shared prefix.
    first: u64,
    /// Length of the prefix that all keys of the leaf share (or share at least).
    shared: u32,
    slots: Vec<Slot>,
}

/// Ids in the order of their keys.
#[derive(Default)]
pub struct Order {
    /// Length of the prefix that all keys share (or share at least).
    shared: usize,
    leaves: Vec<Leaf>,
}

impl Order {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Adds an id whose key is not there yet.
    pub fn insert(&mut self, slab: &Slab, id: u32) {
        let key = slab.get(id).key.as_bytes();
        if self.leaves.is_empty() {
            self.begin_leaf(slab, id);
            return;
        }
        self.share(slab, key);
        let position = self.leaf_of(slab, key);
        let last = position + 1 == self.leaves.len();
        let leaf = &mut self.leaves[position];
        let at = leaf.position_of(slab, key);
        if leaf.slots.len() < LEAF_IDS_MAX {
            leaf.insert(slab, at, id);
        } else if last && at == LEAF_IDS_MAX {
            // Rising keys leave full leaves behind instead of half-empty ones.
            self.begin_leaf(slab, id);
            return;
        } else {
            let mut upper = leaf.split(slab);
            match at.checked_sub(LEAF_IDS_MAX / 2) {
                Some(at) if at > 0 => upper.insert(slab, at, id),
                _ => leaf.insert(slab, at, id),
            }
            upper.first = bytes_behind(upper.first_key(slab), self.shared);
            self.leaves.insert(position + 1, upper);
        }
        if at == 0 {
            self.leaves[position].first = bytes_behind(key, self.shared);
        }
    }

    /// Adds an id whose key is above all others.
    pub fn push(&mut self, slab: &Slab, id: u32) {
        let key = slab.get(id).key.as_bytes();
        self.share(slab, key);
        match self.leaves.last_mut() {
            Some(leaf) if leaf.slots.len() < LEAF_IDS_MAX => {
                let end = leaf.slots.len();
                leaf.insert(slab, end, id);
            }
            _ => self.begin_leaf(slab, id),
        }
    }

    /// Fills an empty list.
    pub fn fill(&mut self, slab: &Slab, ids: Vec<u32>) {
        let key = |id: u32| slab.get(id).key.as_bytes();
        let Some(first) = ids.first().map(|id| key(*id)) else { return };
        let shared = ids.iter().fold(first.len(), |shared, id| shared.min(shared_bytes(first, key(*id))));
        let mut keyed: Vec<(u64, u32)> = ids.into_iter().map(|id| (bytes_behind(key(id), shared), id)).collect();
        keyed.sort_unstable_by(|(one, one_id), (other, other_id)| {
            one.cmp(other).then_with(|| key(*one_id).cmp(key(*other_id)))
        });
        self.shared = shared;
        for part in keyed.chunks(LEAF_IDS_MAX) {
            let slots = part.iter().map(|(_, id)| Slot { bytes: 0, id: *id }).collect();
            let mut leaf = Leaf { first: part.first().map_or(0, |(bytes, _)| *bytes), shared: 0, slots };
            leaf.refresh(slab);
            self.leaves.push(leaf);
        }
    }

    /// The id with the highest key.
    pub fn last(&self) -> Option<u32> {
        self.leaves.last().and_then(|leaf| leaf.slots.last()).map(|slot| slot.id)
    }

    /// Removes the id of a key, if it is there. The slab still holds it.
    pub fn remove(&mut self, slab: &Slab, key: &str) {
        let (position, at) = self.position_of(slab, key.as_bytes());
        let Some(leaf) = self.leaves.get_mut(position) else { return };
        if leaf.slots.get(at).is_none_or(|slot| *slab.get(slot.id).key != *key) {
            return;
        }
        leaf.slots.remove(at);
        if leaf.slots.is_empty() {
            self.leaves.remove(position);
            return;
        }
        if at == 0 {
            leaf.first = bytes_behind(leaf.first_key(slab), self.shared);
        }
        if leaf.slots.len() < LEAF_IDS_MIN {
            self.merge(slab, position);
        }
    }

    /// The ids from the first key at or above `from`, in order.
    pub fn from<'a>(&'a self, slab: &Slab, from: &str) -> impl Iterator<Item = u32> + use<'a> {
        let (position, at) = self.position_of(slab, from.as_bytes());
        let first = self.leaves.get(position).map_or(&[][..], |leaf| &leaf.slots[at..]);
        let rest = self.leaves.get(position + 1..).unwrap_or(&[]);
        first.iter().chain(rest.iter().flat_map(|leaf| &leaf.slots)).map(|slot| slot.id)
    }

    /// Memory of the list.
    pub fn bytes(&self) -> usize {
        let leaves: usize = self.leaves.iter().map(|leaf| leaf.slots.capacity() * size_of::<Slot>()).sum();
        leaves + self.leaves.capacity() * size_of::<Leaf>()
    }

    /// The leaf a key belongs in, and the position of the first id there whose key is at or above it.
    fn position_of(&self, slab: &Slab, key: &[u8]) -> (usize, usize) {
        let Some(reference) = self.leaves.first() else { return (0, 0) };
        match side_of(key, reference.first_key(slab), self.shared) {
            Ordering::Less => (0, 0),
            Ordering::Greater => (self.leaves.len() - 1, self.leaves[self.leaves.len() - 1].slots.len()),
            Ordering::Equal => {
                let position = self.leaf_of(slab, key);
                (position, self.leaves[position].position_of(slab, key))
            }
        }
    }

    /// The last leaf whose first key is at or below the key, which shares the list's prefix; else the first leaf.
    fn leaf_of(&self, slab: &Slab, key: &[u8]) -> usize {
        let bytes = bytes_behind::<u64>(key, self.shared);
        let above = self.leaves.partition_point(|leaf| match leaf.first.cmp(&bytes) {
            Ordering::Equal => leaf.first_key(slab) <= key,
            other => other == Ordering::Less,
        });
        above.saturating_sub(1)
    }

    /// Shortens the shared prefix to what this key shares too.
    fn share(&mut self, slab: &Slab, key: &[u8]) {
        let Some(reference) = self.leaves.first() else { return };
        let shared = shared_bytes(reference.first_key(slab), key);
        if shared < self.shared {
            self.shared = shared;
            for leaf in &mut self.leaves {
                leaf.first = bytes_behind(leaf.first_key(slab), shared);
            }
        }
    }

    fn begin_leaf(&mut self, slab: &Slab, id: u32) {
        let key = slab.get(id).key.as_bytes();
        if self.leaves.is_empty() {
            self.shared = key.len();
        }
        let slots = vec![Slot { bytes: 0, id }];
        self.leaves.push(Leaf { first: bytes_behind(key, self.shared), shared: key.len() as u32, slots });
    }

    /// Joins a small leaf with a neighbour when both fit into one with room to spare.
    fn merge(&mut self, slab: &Slab, position: usize) {
        let first = if position + 1 < self.leaves.len() { position } else { position.saturating_sub(1) };
        if first + 1 >= self.leaves.len() {
            return;
        }
        if self.leaves[first].slots.len() + self.leaves[first + 1].slots.len() <= LEAF_IDS_MAX * 3 / 4 {
            let upper = self.leaves.remove(first + 1);
            let leaf = &mut self.leaves[first];
            leaf.slots.extend_from_slice(&upper.slots);
            leaf.refresh(slab);
        }
    }
}

impl Leaf {
    fn first_key<'a>(&self, slab: &'a Slab) -> &'a [u8] {
        self.slots.first().map_or(&[], |slot| slab.get(slot.id).key.as_bytes())
    }

    fn position_of(&self, slab: &Slab, key: &[u8]) -> usize {
        match side_of(key, self.first_key(slab), self.shared as usize) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.slots.len(),
            Ordering::Equal => {}
        }
        let bytes = bytes_behind::<u32>(key, self.shared as usize);
        self.slots.partition_point(|slot| match slot.bytes.cmp(&bytes) {
            Ordering::Equal => slab.get(slot.id).key.as_bytes() < key,
            other => other == Ordering::Less,
        })
    }

    fn insert(&mut self, slab: &Slab, at: usize, id: u32) {
        let key = slab.get(id).key.as_bytes();
        let shared = shared_bytes(self.first_key(slab), key);
        if shared < self.shared as usize {
            self.shared = shared as u32;
            self.rewrite(slab);
        }
        self.slots.insert(at, Slot { bytes: bytes_behind(key, self.shared as usize), id });
    }

    /// Takes the upper half off; both halves share more than the whole did.
    fn split(&mut self, slab: &Slab) -> Leaf {
        let slots = self.slots.split_off(LEAF_IDS_MAX / 2);
        let mut upper = Leaf { first: 0, shared: 0, slots };
        upper.refresh(slab);
        self.refresh(slab);
        upper
    }

    /// Finds the shared prefix anew: in order, what the first and last key share is shared by all.
    fn refresh(&mut self, slab: &Slab) {
        let last = self.slots.last().map_or(&[][..], |slot| slab.get(slot.id).key.as_bytes());
        self.shared = shared_bytes(self.first_key(slab), last) as u32;
        self.rewrite(slab);
    }

    fn rewrite(&mut self, slab: &Slab) {
        for slot in &mut self.slots {
            slot.bytes = bytes_behind(slab.get(slot.id).key.as_bytes(), self.shared as usize);
        }
    }
}

/// On which side of all keys that begin as `reference` does for `shared` bytes a key lies; equal when it begins so.
fn side_of(key: &[u8], reference: &[u8], shared: usize) -> Ordering {
    let prefix = &reference[..shared.min(reference.len())];
    key[..shared.min(key.len())].cmp(prefix)
}

fn shared_bytes(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

/// An integer that orders as the bytes it is made of.
trait FromBytes {
    fn from_front(bytes: &[u8]) -> Self;
}

impl FromBytes for u64 {
    fn from_front(bytes: &[u8]) -> Self {
        bytes.first_chunk().map_or_else(|| pad(bytes), |chunk| u64::from_be_bytes(*chunk))
    }
}

impl FromBytes for u32 {
    fn from_front(bytes: &[u8]) -> Self {
        bytes.first_chunk().map_or_else(|| (pad(bytes) >> 32) as u32, |chunk| u32::from_be_bytes(*chunk))
    }
}

/// Fewer than eight bytes, as if zeros followed.
fn pad(bytes: &[u8]) -> u64 {
    let mut padded = [0; 8];
    let len = bytes.len().min(8);
    padded[..len].copy_from_slice(&bytes[..len]);
    u64::from_be_bytes(padded)
}

fn bytes_behind<T: FromBytes>(key: &[u8], shared: usize) -> T {
    T::from_front(key.get(shared..).unwrap_or(&[]))
}
