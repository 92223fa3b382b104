//! Sockets of one shard: what a protocol skin sees of them.

use std::net::SocketAddr;
use std::path::PathBuf;

/// One connection: a slot and the generation that tells its users apart. Never a file descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// Index into the connection table.
    pub slot: u32,
    /// Goes up each time the slot is taken.
    pub generation: u32,
}

impl ConnectionId {
    /// Packed, for tickets.
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }
    /// Unpacked.
    pub fn from_u64(packed: u64) -> Self {
        Self { slot: packed as u32, generation: (packed >> 32) as u32 }
    }
}

/// Which listener a connection came from; the caller of `listen` chooses the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerId(pub u8);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// TCP, with SO_REUSEPORT (the start has already probed it without).
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed it.
    Peer,
    /// This side closed it.
    Local,
    /// A deadline passed.
    Timeout,
    /// The system reported an error number.
    Error(i32),
}

/// What happens on sockets. Bytes are consumed or copied by the callee before it returns.
#[derive(Debug)]
pub enum NetEvent<'a> {
    /// A new connection, ready for output and input.
    Accepted { connection: ConnectionId, listener: ListenerId },
    /// Input.
    Received { connection: ConnectionId, bytes: &'a [u8] },
    /// The peer sends no more; output still works.
    EndOfInput { connection: ConnectionId },
    /// Output that had exceeded its bound is below it again; receiving goes on.
    Drained { connection: ConnectionId },
    /// The connection is gone; its id means nothing from now on.
    Closed { connection: ConnectionId, reason: CloseReason },
}

/// What the shard's ring drives.
pub trait Service: 'static {
    /// One event on a socket.
    fn on_event(&self, event: NetEvent<'_>);
    /// Once every turn, after its completions: drain mailboxes, hand over replies. `true` when more waits already,
    /// so that the shard must not park.
    fn on_turn(&self) -> bool;
}
