//! store.json, LOCK and keyring files of one data directory.
