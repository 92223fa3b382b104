//! DeltaDatabase's server. Rooms, from the top down, and what each may import, are in README.md; a test holds them to it.

pub mod auth;
pub mod cache;
pub mod command;
pub mod crypto;
pub mod gateway;
pub mod limits;
pub mod metrics;
pub mod routing;
pub mod runtime;
pub mod schema;
pub mod storage;
