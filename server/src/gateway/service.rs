//! Ties the sockets of one shard to the skins: which listener speaks what, and who is told of what happens.

use super::dispatch::Dispatch;
use super::http::{ByteStream, HttpGateway, HttpLimits};
use super::wire::{WireGateway, WireIdentity, WireOutput};
use crate::runtime::net::{ConnectionId, ListenerId, Net, NetEvent, Service, Stream};
use crate::runtime::platform::{Doorbell, Platform, Spawn, TaskClass};
use crate::storage::Storage;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// HTTP connections come from this listener.
pub const HTTP_LISTENER: ListenerId = ListenerId(0);
/// Wire connections to the address all shards share.
pub const WIRE_LISTENER: ListenerId = ListenerId(1);
/// Wire connections to the shard's own port.
pub const WIRE_SHARD_LISTENER: ListenerId = ListenerId(2);
/// Wire connections to the Unix socket.
pub const WIRE_SOCKET_LISTENER: ListenerId = ListenerId(3);

type Handle<P, S, B> = Rc<Dispatch<P, S, B>>;

/// Both skins of one shard over its dispatch.
pub struct ShardService<P: Platform, S: Storage, B: Doorbell> {
    platform: P,
    net: Net,
    dispatch: Handle<P, S, B>,
    http: Rc<HttpGateway<Handle<P, S, B>, P::Clock>>,
    wire: WireGateway<Handle<P, S, B>, Net, P::Clock>,
}

impl<P: Platform, S: Storage, B: Doorbell> ShardService<P, S, B> {
    /// Joins them, and lets delayed wire outcomes find their connection.
    pub fn new(platform: P, net: Net, dispatch: Handle<P, S, B>, identity: WireIdentity) -> Rc<Self> {
        let api = Rc::new(dispatch.clone());
        let service = Rc::new(Self {
            http: HttpGateway::new(api.clone(), platform.clock().clone(), HttpLimits::default()),
            wire: WireGateway::new(api, net.clone(), platform.clock().clone(), identity),
            platform,
            net,
            dispatch,
        });
        let replies = service.clone();
        service.dispatch.delivery().set_wire(Rc::new(move |connection, request_id, outcome| {
            replies.wire.deliver(ConnectionId::from_u64(connection), request_id, &outcome);
        }));
        service
    }

    /// Begins a graceful stop: idle connections close, busy ones after the replies they owe.
    pub fn drain(&self) {
        self.http.drain();
        self.wire.drain();
    }
}

impl<P: Platform, S: Storage, B: Doorbell> Service for ShardService<P, S, B> {
    fn look_ahead(&self, arrivals: &mut dyn Iterator<Item = &[u8]>) {
        self.wire.look_ahead(arrivals);
    }

    fn on_event(&self, event: NetEvent<'_>) {
        match event {
            NetEvent::Accepted { connection, listener: HTTP_LISTENER } => {
                let stream = self.net.stream(connection);
                self.platform.spawn().spawn(TaskClass::Foreground, self.http.serve(stream));
            }
            NetEvent::Accepted { connection, .. } => self.wire.on_accepted(connection),
            NetEvent::TurnedAway { connection, listener: HTTP_LISTENER } => {
                self.net.output(connection, |out| out.extend_from_slice(&self.http.turned_away()));
                self.net.close(connection);
            }
            NetEvent::TurnedAway { connection, .. } => self.wire.on_turned_away(connection),
            NetEvent::Expired { connection } => self.wire.on_expired(connection),
            NetEvent::Received { connection, bytes } => self.wire.on_received(connection, bytes),
            NetEvent::EndOfInput { connection } => self.wire.on_end_of_input(connection),
            NetEvent::Drained { connection } => self.wire.on_drained(connection),
            NetEvent::Closed { connection, .. } => self.wire.on_closed(connection),
        }
    }

    fn on_turn(&self) -> bool {
        let has_more = self.dispatch.turn();
        self.wire.on_turn();
        has_more
    }
}

impl ByteStream for Stream {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Stream::poll_read(self, context, buffer)
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Stream::poll_write(self, context, bytes)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_flush(self, context)
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_shutdown(self, context)
    }
}

impl WireOutput for Net {
    fn output<R>(&self, connection: ConnectionId, write: impl FnOnce(&mut Vec<u8>) -> R) -> Option<R> {
        Net::output(self, connection, write)
    }

    fn send_shared(&self, connection: ConnectionId, bytes: Arc<[u8]>, range: Range<usize>) -> bool {
        Net::send_shared(self, connection, bytes, range)
    }

    fn output_bytes(&self, connection: ConnectionId) -> usize {
        Net::output_bytes(self, connection)
    }

    fn output_bytes_max(&self) -> usize {
        Net::output_bytes_max(self)
    }

    fn is_full(&self, connection: ConnectionId) -> bool {
        Net::is_full(self, connection)
    }

    fn pause(&self, connection: ConnectionId) {
        Net::pause(self, connection);
    }

    fn resume(&self, connection: ConnectionId) {
        Net::resume(self, connection);
    }

    fn close(&self, connection: ConnectionId) {
        Net::close(self, connection);
    }

    fn set_deadline(&self, connection: ConnectionId, after: Option<Duration>) {
        Net::set_deadline(self, connection, after);
    }
}
