//! Sockets of one shard: what a protocol skin sees of them.
//!
//! [`Net`] is a handle for the shard's thread; events go to the attached [`Service`] or, for one connection, to a
//! [`Stream`]. Nothing here waits: output is queued and leaves with the turn's submission, closing is asked for and
//! told by an event. Every connection is bounded in what it may owe and in how long it may take to pay.

mod budget;
mod completions;
mod connection;
mod outbox;
mod sockets;
mod stream;
mod table;

use super::buffers::BufferPool;
use super::ring::Ring;
use crate::metrics::Metrics;
use connection::{NEVER_MS, Phase};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use table::Table;

pub use sockets::probe_address;
pub use stream::Stream;

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
    /// A new connection for which there is no room: the service says so and closes it.
    TurnedAway { connection: ConnectionId, listener: ListenerId },
    /// Its deadline has passed: the service may say so and close it; otherwise it ends a moment later. Streams are not
    /// told.
    Expired { connection: ConnectionId },
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
    /// Once a turn, before its events: the bytes that some of them will bring, of whatever connections. Nothing may come
    /// of it but that memory is at hand sooner.
    fn look_ahead(&self, _arrivals: &mut dyn Iterator<Item = &[u8]>) {}
    /// One event on a socket.
    fn on_event(&self, event: NetEvent<'_>);
    /// Once every turn, after its completions: drain mailboxes, hand over replies. `true` when more waits already,
    /// so that the shard must not park.
    fn on_turn(&self) -> bool;
}

/// The sockets of this shard. Cheap to clone; stays on its thread.
#[derive(Clone)]
pub struct Net(Rc<Shared>);

struct Shared {
    pool: BufferPool,
    table: RefCell<Table>,
    service: RefCell<Option<Rc<dyn Service>>>,
}

impl Net {
    /// The sockets of the shard `index`, counted into its metrics.
    pub(super) fn new(ring: Rc<Ring>, metrics: Arc<Metrics>, index: usize) -> io::Result<Self> {
        let pool = BufferPool::new(ring.clone())?;
        let table = RefCell::new(Table::new(ring, metrics, index));
        Ok(Self(Rc::new(Shared { pool, table, service: RefCell::new(None) })))
    }

    /// Whom events go to; must be attached before anything listens.
    pub fn attach(&self, service: Rc<dyn Service>) {
        *self.0.service.borrow_mut() = Some(service);
    }

    /// Listens, and answers the bound address of a TCP listener (port 0 lets the system choose).
    pub fn listen(&self, listener: ListenerId, address: ListenAddress) -> io::Result<Option<SocketAddr>> {
        let (fd, bound) = sockets::listen(&address)?;
        let path = match address {
            ListenAddress::Tcp(_) => None,
            ListenAddress::Unix(path) => Some(path),
        };
        self.0.table.borrow_mut().listen(listener, fd, path);
        Ok(bound)
    }

    /// Accepts no more; connections stay.
    pub fn stop_listening(&self) {
        self.0.table.borrow_mut().stop_listening();
    }

    /// Appends reply bytes straight to the connection's send buffer; they leave with this turn's submission. `None`,
    /// and nothing is called, when the connection is gone or closing. If `write` panics, what it appended is undone.
    pub fn output<R>(&self, connection: ConnectionId, write: impl FnOnce(&mut Vec<u8>) -> R) -> Option<R> {
        let buffer = self.0.table.borrow_mut().lend(connection)?;
        let mut lent = Lent { net: self, connection, len_before: buffer.len(), buffer, finished: false };
        let result = write(&mut lent.buffer);
        lent.finished = true;
        Some(result)
    }

    /// Queues shared bytes behind earlier output without copying them; `false` when the connection is gone.
    pub fn send_shared(&self, connection: ConnectionId, bytes: Arc<[u8]>, range: Range<usize>) -> bool {
        self.0.table.borrow_mut().send_shared(connection, bytes, range)
    }

    /// Output not yet accepted by the kernel; 0 when the connection is gone.
    pub fn output_bytes(&self, connection: ConnectionId) -> usize {
        self.0.table.borrow_mut().get(connection).map_or(0, |connection| connection.outbox.owed_bytes())
    }

    /// What a connection may owe now: less than `OUTPUT_BYTES_MAX` while all of the shard owe much together.
    pub fn output_bytes_max(&self) -> usize {
        self.0.table.borrow().output_bytes_max()
    }

    /// Whether the connection owes more than it may now. If so, `Drained` follows once it does not.
    pub fn is_full(&self, connection: ConnectionId) -> bool {
        self.0.table.borrow_mut().is_full(connection)
    }

    /// Whether output is still taken.
    pub fn is_open(&self, connection: ConnectionId) -> bool {
        self.0.table.borrow_mut().get(connection).is_some_and(|connection| connection.takes_output())
    }

    /// Stops receiving; what has already arrived is still delivered.
    pub fn pause(&self, connection: ConnectionId) {
        self.0.table.borrow_mut().change(connection, |connection| connection.paused = true);
    }

    /// Receives again.
    pub fn resume(&self, connection: ConnectionId) {
        self.0.table.borrow_mut().change(connection, |connection| connection.paused = false);
    }

    /// Closes once what is owed was sent; input is thrown away from now on. `Closed` follows.
    pub fn close(&self, connection: ConnectionId) {
        self.0.table.borrow_mut().change(connection, |connection| {
            if connection.phase == Phase::Open {
                connection.reason = CloseReason::Local;
                connection.phase = Phase::Draining;
            }
        });
    }

    /// Closes at once; unsent output is lost. `Closed` follows.
    pub fn abort(&self, connection: ConnectionId) {
        self.0.table.borrow_mut().change(connection, |connection| connection.end(CloseReason::Local));
    }

    /// Tells `Expired` when so much time has passed, up to a quarter of a second late, and ends the connection with
    /// [`CloseReason::Timeout`] if nobody closes it then; each call replaces the earlier one, `None` takes it back.
    pub fn set_deadline(&self, connection: ConnectionId, after: Option<Duration>) {
        let deadline_ms = after.map_or(NEVER_MS, |after| {
            table::now_ms().saturating_add(u64::try_from(after.as_millis()).unwrap_or(NEVER_MS))
        });
        self.0.table.borrow_mut().set_deadline(connection, deadline_ms);
    }

    /// Connections whose `Closed` has not been told yet.
    pub fn connections(&self) -> usize {
        self.0.table.borrow().open
    }

    /// From now on the connection's input, its end and its drained output go to the stream; `Closed` still goes to
    /// the service too. Of a connection that is gone the stream is at its end.
    pub fn stream(&self, connection: ConnectionId) -> Stream {
        let state = self.0.table.borrow_mut().stream(connection);
        Stream { net: self.clone(), id: connection, state }
    }

    fn stream_caught_up(&self, connection: ConnectionId) {
        let mut table = self.0.table.borrow_mut();
        if table.get(connection).is_some_and(|connection| connection.stream_full) {
            table.change(connection, |connection| connection.stream_full = false);
        }
    }

    /// Whether a turn would find something to do here.
    pub(super) fn has_work(&self) -> bool {
        self.0.table.borrow().has_work()
    }

    /// Whether no socket and no operation on one is left.
    pub(super) fn is_idle(&self) -> bool {
        self.0.table.borrow().is_idle()
    }

    /// Closes or aborts every connection.
    pub(super) fn end_all(&self, gracefully: bool) {
        let all = self.0.table.borrow().all();
        for connection in all {
            match gracefully {
                true => self.close(connection),
                false => self.abort(connection),
            }
        }
    }

    /// The attached service, for one turn.
    pub(super) fn service(&self) -> Option<Rc<dyn Service>> {
        self.0.service.borrow().clone()
    }

    /// Lets go of the service, which usually holds this very handle.
    pub(super) fn detach(&self) {
        let service = self.0.service.borrow_mut().take();
        drop(service);
    }
}

/// A send buffer lent to a caller's closure; goes back when dropped, even by a panic.
struct Lent<'a> {
    net: &'a Net,
    connection: ConnectionId,
    len_before: usize,
    buffer: Vec<u8>,
    finished: bool,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.buffer.truncate(self.len_before);
        }
        let buffer = std::mem::take(&mut self.buffer);
        self.net.0.table.borrow_mut().put_back(self.connection, buffer);
    }
}
