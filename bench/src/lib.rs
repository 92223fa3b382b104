//! `delta-bench`: a load generator that accounts for every reply, and the comparison of servers made with it.
//!
//! From the bottom up: `ring` moves bytes, `driver` speaks a protocol, `ledger` keeps the account of a connection,
//! `workload` (with `random` and `document`) says what is asked, `load` runs it all, `measure` holds what came out,
//! `output` and
//! `report` show it, and `peers` starts servers to compare.

pub mod cpu;
pub mod document;
pub mod driver;
pub mod ledger;
pub mod load;
pub mod measure;
pub mod output;
pub mod peers;
pub mod random;
pub mod report;
pub mod ring;
pub mod workload;
