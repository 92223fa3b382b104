//! One connection of a load, and what is known of a request until its reply.

use crate::ledger::Ledger;
use crate::workload::Operation;

/// A request until its reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub operation: Operation,
    /// Whether this is the write of a read-modify-write.
    pub is_second: bool,
    pub is_read: bool,
    /// When it was due (open loop) or written (closed loop).
    pub start_ns: u64,
    /// The newest version of its key that was acknowledged when it was asked.
    pub version_known: u64,
    /// When the operation it belongs to started.
    pub operation_start_ns: u64,
}

/// One connection.
pub(super) struct Line {
    pub ledger: Ledger<Pending>,
    pub lane: Option<u16>,
    /// The beginning of a reply whose rest has not arrived.
    pub partial: Vec<u8>,
    pub is_open: bool,
    /// Whether the source has no more for it.
    pub is_dry: bool,
}

impl Line {
    pub fn new(pipeline: usize, keeps_order: bool, lane: Option<u16>) -> Self {
        Self { ledger: Ledger::new(pipeline, keeps_order), lane, partial: Vec::new(), is_open: true, is_dry: false }
    }
}
