//! What the wire skin needs of the shard's sockets, as a trait, so that it can be tested without any.

use crate::limits::OUTPUT_BYTES_MAX;
use crate::runtime::net::ConnectionId;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Output and control of connections. Everything is queued; nothing here waits, and nothing calls back into the skin
/// before it returns. A connection that is gone, or was closed from this side, takes no more output.
pub trait WireOutput: 'static {
    /// Lets `write` append to what the connection will send. `None` when it takes no more.
    fn output<R>(&self, connection: ConnectionId, write: impl FnOnce(&mut Vec<u8>) -> R) -> Option<R>;

    /// Sends a range of shared bytes after everything written so far, without a copy.
    fn send_shared(&self, connection: ConnectionId, bytes: Arc<[u8]>, range: Range<usize>) -> bool;

    /// Bytes written and not yet taken by the kernel.
    fn output_bytes(&self, connection: ConnectionId) -> usize;

    /// How many a connection may have now.
    fn output_bytes_max(&self) -> usize {
        OUTPUT_BYTES_MAX
    }

    /// Whether the connection has more. If so, a `Drained` event follows once it does not.
    fn is_full(&self, connection: ConnectionId) -> bool {
        self.output_bytes(connection) > self.output_bytes_max()
    }

    /// Stops receiving; what is already on its way may still arrive.
    fn pause(&self, connection: ConnectionId);

    /// Receives again.
    fn resume(&self, connection: ConnectionId);

    /// Closes once all that was written is sent.
    fn close(&self, connection: ConnectionId);

    /// Closes it after this long, unless set again; `None` for never.
    fn set_deadline(&self, connection: ConnectionId, after: Option<Duration>);
}
