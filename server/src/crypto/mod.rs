//! Keys and sealing: which secret protects what, and how bytes become unreadable and unforgeable.
//!
//! ```text
//! RootKey ──wraps──▶ Keyring {active, retiring…, store key}
//!                      DataKey ──HKDF(salt, purpose)──▶ SealingKey (AES-256-GCM)
//!                      store key ──HKDF──▶ MacKey (HMAC-SHA256) of store.json
//! ```
//! Invariants: every secret is wiped when dropped, no `Debug` or `Display` shows one, and no key serves two purposes.
//! This room knows no data directory and no record format: callers bring salt, nonce and associated data. It imports
//! nothing but the `Entropy` trait.

pub mod derive;
pub mod keyring;
pub mod mac;
pub mod mac_json;
pub mod root_key;
pub mod seal;
mod secret;

#[cfg(test)]
mod known_answers;
