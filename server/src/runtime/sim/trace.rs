//! A running hash of everything that happens in a simulation, and, when asked for, the events in words.
//!
//! Two runs of a seed must give the same hash; a difference means that something outside the seed (a hash map's random
//! state, real time, an address) decided something.

/// The hash, and the words if they are kept.
pub(super) struct Trace {
    hash: u64,
    words: Option<Vec<String>>,
}

impl Trace {
    pub(super) fn new() -> Self {
        Self { hash: 0x9E37_79B9_7F4A_7C15, words: None }
    }

    /// Folds numbers in; the words are made only when they are kept.
    pub(super) fn add(&mut self, numbers: &[u64], words: impl FnOnce() -> String) {
        for number in numbers {
            self.hash = (self.hash ^ number).wrapping_mul(0x9FB2_1C65_1E98_DF25);
            self.hash ^= self.hash >> 32;
        }
        if let Some(kept) = &mut self.words {
            kept.push(words());
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn keep_words(&mut self) {
        self.words.get_or_insert_default();
    }

    pub(super) fn take_words(&mut self) -> Vec<String> {
        self.words.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// A hash of bytes, for folding contents into the trace.
pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}
