//! `store.json`: what a store says of itself.
//!
//! | member | meaning |
//! | --- | --- |
//! | `format_version` | of the whole directory: [`STORE_FORMAT_VERSION`]; a newer one is refused |
//! | `store_id` | 32 hexadecimal digits, random |
//! | `hash_seed` | 16 hexadecimal digits, random: seed of the slot hash |
//! | `shards` | 1 to 256 |
//! | `generation` | names the directory under `shards/` that counts |
//! | `created_unix_ms` | when it was made |
//! | `complete` | false until every shard has its first files |
//! | `mac` | HMAC-SHA256 of all text before it, under a key derived from the keyring's store key |

use super::StoreError;
use crate::crypto::mac::MacKey;
use crate::crypto::mac_json;
use crate::limits::SHARDS_MAX;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The version this build writes, and the newest it reads.
pub const STORE_FORMAT_VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub store_id: [u8; 16],
    pub hash_seed: u64,
    pub shards: u16,
    pub generation: u64,
    pub created_unix_ms: u64,
    pub complete: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileBody {
    format_version: u32,
    store_id: String,
    hash_seed: String,
    shards: u16,
    generation: u64,
    created_unix_ms: u64,
    complete: bool,
}

#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
}

#[derive(Deserialize)]
struct StoreIdOnly {
    store_id: String,
}

impl Descriptor {
    pub fn render(&self, key: &MacKey) -> Vec<u8> {
        assert!((1..=SHARDS_MAX).contains(&usize::from(self.shards)), "{} shards", self.shards);
        let body = FileBody {
            format_version: STORE_FORMAT_VERSION,
            store_id: hex::encode(self.store_id),
            hash_seed: hex::encode(self.hash_seed.to_be_bytes()),
            shards: self.shards,
            generation: self.generation,
            created_unix_ms: self.created_unix_ms,
            complete: self.complete,
        };
        mac_json::render(&body, key)
    }

    /// `path` is for errors.
    pub fn open(text: &[u8], key: &MacKey, path: &Path) -> Result<Self, StoreError> {
        let body: FileBody = mac_json::open(text, key).map_err(|error| damaged(path, &error.to_string()))?;
        let hash_seed = u64::from_be_bytes(bytes(&body.hash_seed, path)?);
        if body.format_version != STORE_FORMAT_VERSION {
            return Err(damaged(path, "its format version is unknown"));
        }
        if !(1..=SHARDS_MAX).contains(&usize::from(body.shards)) {
            return Err(damaged(path, "its shard count is out of range"));
        }
        Ok(Self {
            store_id: bytes(&body.store_id, path)?,
            hash_seed,
            shards: body.shards,
            generation: body.generation,
            created_unix_ms: body.created_unix_ms,
            complete: body.complete,
        })
    }

    /// The store it says it describes, before there is a key; refuses newer formats.
    pub fn claimed_store_id(text: &[u8], path: &Path) -> Result<[u8; 16], StoreError> {
        let VersionOnly { format_version } =
            mac_json::peek(text).ok_or_else(|| damaged(path, "it describes no store"))?;
        if format_version > STORE_FORMAT_VERSION {
            let (found, supported) = (format_version, STORE_FORMAT_VERSION);
            return Err(StoreError::NewerFormat { path: path.to_owned(), found, supported });
        }
        let id: StoreIdOnly = mac_json::peek(text).ok_or_else(|| damaged(path, "it names no store"))?;
        bytes(&id.store_id, path)
    }
}

fn bytes<const N: usize>(digits: &str, path: &Path) -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    match hex::decode_to_slice(digits, &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(damaged(path, "an id or seed in it is unreadable")),
    }
}

fn damaged(path: &Path, reason: &str) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), reason: reason.to_owned() }
}
