//! Keys and sealing.

pub mod keyring;
pub mod seal;
