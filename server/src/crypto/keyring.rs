//! Data keys, wrapped by the root key.

/// Names one data key of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataKeyId(pub [u8; 8]);

/// All data keys of a store.
pub struct Keyring;
