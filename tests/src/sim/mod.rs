//! Deterministic simulation of the whole server below the sockets.
//!
//! Store, logs, engines, caches, mailboxes and dispatch of several shards are the real ones; disk, clock, entropy and
//! scheduler are `deltadb::runtime::sim`, so one seed decides everything and a failing seed fails again.
//!
//! ```text
//! seed ─▶ plan (setup, steps) ─▶ run: life after life ─▶ report (failure, coverage, trace)
//!                                  │ clients ─▶ dispatch …      │
//!                                  │ model: may this be answered?   └▶ shrink ─▶ a short history and its command
//!                                  │ checks: at every step, when quiet
//!                                  └ branches: a crash or damage right now, on a copy of the disk
//! ```
//! The *invariants* are judged while a life goes on: every answer is linearizable and durable, the index is the model,
//! a key has one owner, sequences and nonces never come twice, memory and disk space are bounded. The *end oracle* is
//! separate: what a started server holds must be what was acknowledged, with each open write wholly there or not.
//!
//! A new kind of command is added in three places: [`plan::Operation`] and its weight, an arm in `client.rs`, and, if it
//! has state of its own, a model beside `templates.rs`.

mod admin;
mod branch;
mod checks;
mod client;
mod coverage;
mod damage;
mod durable;
#[cfg(feature = "deliberate-faults")]
pub mod faults;
mod judge;
mod life;
mod listing;
pub(crate) mod model;
mod oracle;
pub mod plan;
mod provoke;
mod rot;
mod run;
pub(crate) mod server;
pub mod setup;
mod shrink;
mod templates;
mod watch;
mod world;

pub use coverage::{Coverage, MET_AT_SYNC_POINTS, MUST_BE_MET};
pub use model::Broken;
pub use plan::Plan;
pub use run::{Exhausted, Failure, Keep, Report, disks_a_sync_point, exhaust, run};
pub use shrink::shrink;
