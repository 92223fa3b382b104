//! Keys and sealing.

pub mod keyring;
