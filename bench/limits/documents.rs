//! The document of every key, made beforehand and lying in one piece.

use anyhow::Result;
use bytes::Bytes;
use delta_bench::document::Documents;

/// Revision of all of them.
const REVISION: u64 = 1;

/// Documents by the number in their key; clones share the memory.
#[derive(Clone)]
pub struct Table {
    all: Bytes,
    value_bytes: usize,
}

impl Table {
    /// Of so many keys.
    pub fn new(keys: u64, value_bytes: usize) -> Result<Self> {
        let documents = Documents::new(value_bytes)?;
        let mut all = Vec::with_capacity(keys as usize * value_bytes);
        let mut document = Vec::new();
        for key in 0..keys {
            documents.write(key, REVISION, &mut document);
            all.extend_from_slice(&document);
        }
        Ok(Self { all: all.into(), value_bytes })
    }

    /// The document of a key, as the generator names keys.
    pub fn of(&self, key: &str) -> Option<&[u8]> {
        let start = self.start(key)?;
        self.all.get(start..start + self.value_bytes)
    }

    /// The same, sharing the memory.
    pub fn shared(&self, key: &str) -> Option<Bytes> {
        let start = self.start(key)?;
        (start + self.value_bytes <= self.all.len()).then(|| self.all.slice(start..start + self.value_bytes))
    }

    fn start(&self, key: &str) -> Option<usize> {
        key.strip_prefix("key-")?.parse::<usize>().ok()?.checked_mul(self.value_bytes)
    }
}
