//! What the output of all connections of a shard may hold together, and what that leaves to each.
//!
//! Counted is memory, not bytes owed: a buffer is as large as its capacity. Few connections that owe get all they may;
//! many share, down to a least that each may always have.

use super::ConnectionId;
use super::table::Table;
use crate::limits;

impl Table {
    /// What a connection's output holds has changed.
    pub fn count_held(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        let held = connection.outbox.held_bytes();
        self.held_bytes = self.held_bytes + held - connection.held_counted;
        connection.held_counted = held;
    }

    /// What one connection may owe now: as much as is left of what the output of all may hold, within its own bounds. So a
    /// few that owe get all they may, and many share.
    pub fn output_bytes_max(&self) -> usize {
        let left = limits::OUTPUT_BYTES_SHARD_MAX.saturating_sub(self.held_bytes);
        left.clamp(limits::OUTPUT_BYTES_MIN, limits::OUTPUT_BYTES_MAX)
    }

    /// Whether a connection owes more than it may; one that does is told when it no longer does.
    pub fn is_full(&mut self, id: ConnectionId) -> bool {
        let bytes_max = self.output_bytes_max();
        let Some(connection) = self.get(id) else { return false };
        let full = connection.outbox.owed_bytes() > bytes_max;
        if full && !connection.throttled {
            connection.throttled = true;
            self.touch(id.slot);
        }
        full
    }
}
