//! DeltaDatabase's server. Rooms, from the top down, and what each may import, are in README.md; a test holds them to it.

pub mod auth;
pub mod cache;
pub mod cli;
pub mod command;
pub mod config;
pub mod crypto;
pub mod engine;
pub mod exit;
pub mod gateway;
pub mod limits;
pub mod logging;
pub mod mailbox;
pub mod metrics;
pub mod routing;
pub mod runtime;
pub mod sabotage;
pub mod schema;
pub mod start;
pub mod storage;
