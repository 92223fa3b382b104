//! What the completions of socket operations mean, and who is told.
//!
//! No borrow of the table is held while the service runs: it may call back into [`Net`] from every event.
#![allow(unsafe_code)]

use super::connection::Phase;
use super::stream::StreamState;
use super::table::{Pending, Table, now_ms};
use super::{CloseReason, ConnectionId, Net, NetEvent, Service};
use crate::runtime::ring::{Completion, OperationKind};
use std::cell::RefCell;
use std::os::fd::{FromRawFd, OwnedFd};
use std::rc::Rc;

/// How long a listener rests after an error that would only repeat itself.
const ACCEPT_RETRY_MS: u64 = 100;
/// Output must fall to this part of its bound before a throttled connection is received from again.
const DRAINED_PART: usize = 2;

/// Whose the received bytes are.
enum Recipient {
    Nobody,
    Service(ConnectionId),
    Stream(Rc<RefCell<StreamState>>),
}

impl Net {
    /// Queues what everybody wants and tells what came of it. Runs before each submission.
    pub(in crate::runtime) fn settle(&self, service: Option<&dyn Service>) {
        loop {
            let mut table = self.0.table.borrow_mut();
            table.settle();
            if table.pending.is_empty() {
                return;
            }
            let pending = std::mem::take(&mut table.pending);
            drop(table);
            let Some(service) = service else { continue };
            for event in pending {
                service.on_event(match event {
                    Pending::Expired(connection) => NetEvent::Expired { connection },
                    Pending::Drained(connection) => NetEvent::Drained { connection },
                    Pending::Closed(connection, reason) => NetEvent::Closed { connection, reason },
                });
            }
        }
    }

    /// Shows the service what this turn's completions will bring. None of them may have been handed on yet.
    pub(in crate::runtime) fn look_ahead(&self, completions: &[Completion], service: Option<&dyn Service>) {
        let Some(service) = service else { return };
        let mut arrivals = completions.iter().filter_map(|completion| {
            let buffer = completion.buffer.filter(|_| completion.token.kind == OperationKind::Receive)?;
            // SAFETY: a buffer goes back when its completion is handed on, and the iterator is gone by then.
            Some(unsafe { self.0.pool.peek(buffer, completion.result.max(0) as usize) })
        });
        service.look_ahead(&mut arrivals);
    }

    /// Ends the turn: every receive buffer is back.
    pub(in crate::runtime) fn end_turn(&self) {
        self.0.table.borrow_mut().feed_starved();
    }

    /// One completion of a socket operation or of the timer.
    pub(in crate::runtime) fn complete(&self, completion: Completion, service: Option<&dyn Service>) {
        match completion.token.kind {
            OperationKind::Receive => self.on_receive(completion, service),
            OperationKind::Send => self.0.table.borrow_mut().on_send(completion),
            OperationKind::Accept => self.on_accept(completion, service),
            OperationKind::Timer => self.0.table.borrow_mut().tick(),
            OperationKind::Control => {
                let mut table = self.0.table.borrow_mut();
                table.connections[completion.token.slot as usize].operations -= 1;
                table.touch(completion.token.slot);
            }
            _ => {}
        }
    }

    fn on_receive(&self, completion: Completion, service: Option<&dyn Service>) {
        let id = ConnectionId { slot: completion.token.slot, generation: completion.token.generation };
        let mut stream_full = false;
        if let Some(buffer) = completion.buffer {
            let len = completion.result.max(0) as usize;
            let recipient = self.0.table.borrow_mut().recipient(id, len);
            self.0.pool.consume(buffer, len, |bytes| match (recipient, service) {
                _ if bytes.is_empty() => {}
                (Recipient::Service(connection), Some(service)) => {
                    service.on_event(NetEvent::Received { connection, bytes });
                }
                (Recipient::Stream(state), _) => stream_full = state.borrow_mut().received(bytes),
                _ => {}
            });
        }
        if completion.more && completion.result > 0 && !stream_full {
            return;
        }
        let ended = self.0.table.borrow_mut().on_received(completion, stream_full);
        if let (Recipient::Service(connection), Some(service)) = (ended, service) {
            service.on_event(NetEvent::EndOfInput { connection });
        }
    }

    fn on_accept(&self, completion: Completion, service: Option<&dyn Service>) {
        let mut table = self.0.table.borrow_mut();
        let accepted = table.on_accept(completion);
        drop(table);
        let Some((connection, listener, turned_away)) = accepted else { return };
        match service {
            Some(service) if turned_away => service.on_event(NetEvent::TurnedAway { connection, listener }),
            Some(service) => service.on_event(NetEvent::Accepted { connection, listener }),
            None => self.abort(connection),
        }
    }
}

impl Table {
    fn recipient(&mut self, id: ConnectionId, len: usize) -> Recipient {
        self.figures().received_bytes.add(len as u64);
        match self.get(id) {
            Some(connection) if connection.phase == Phase::Open => match &connection.stream {
                Some(state) => Recipient::Stream(state.clone()),
                None => Recipient::Service(id),
            },
            _ => Recipient::Nobody,
        }
    }

    /// The bookkeeping behind a receive; answers whom to tell that the input has ended.
    fn on_received(&mut self, completion: Completion, stream_full: bool) -> Recipient {
        let slot = completion.token.slot;
        let connection = &mut self.connections[slot as usize];
        debug_assert_eq!(connection.generation, completion.token.generation);
        connection.stream_full |= stream_full;
        if !completion.more {
            connection.receiving = false;
            connection.receive_cancelled = false;
            connection.operations -= 1;
        }
        let mut ended = Recipient::Nobody;
        match -completion.result {
            0 => {
                connection.end_of_input = true;
                match (connection.phase, &connection.stream) {
                    (Phase::Open, Some(state)) => state.borrow_mut().end_of_input(),
                    (Phase::Open, None) => {
                        ended = Recipient::Service(ConnectionId { slot, generation: connection.generation });
                    }
                    (Phase::Lingering, _) => connection.phase = Phase::Ending,
                    _ => {}
                }
            }
            libc::ENOBUFS => self.starve(slot),
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            number if number > 0 => connection.end(reason(number)),
            _ => {}
        }
        self.touch(slot);
        ended
    }

    fn on_send(&mut self, completion: Completion) {
        let slot = completion.token.slot;
        let connection = &mut self.connections[slot as usize];
        debug_assert_eq!(connection.generation, completion.token.generation);
        connection.sending = false;
        connection.blocked = completion.result == -libc::EAGAIN;
        connection.operations -= 1;
        if completion.result >= 0 {
            connection.outbox.sent(completion.result as usize, &mut self.buffers);
            self.count_held(slot);
            let drained_bytes = self.output_bytes_max() / DRAINED_PART;
            let connection = &mut self.connections[slot as usize];
            let drained = connection.outbox.owed_bytes() <= drained_bytes;
            if connection.throttled && drained {
                connection.throttled = false;
                if connection.stream.is_none() && connection.phase == Phase::Open {
                    let id = ConnectionId { slot, generation: connection.generation };
                    self.pending.push(Pending::Drained(id));
                }
            }
            let connection = &self.connections[slot as usize];
            if let Some(state) = &connection.stream {
                state.borrow_mut().output_moved();
            }
            self.figures().sent_bytes.add(completion.result as u64);
        } else if !matches!(-completion.result, libc::EINTR | libc::EAGAIN) {
            connection.end(reason(-completion.result));
        }
        self.touch(slot);
    }

    /// Takes an accepted socket in, or says why not; answers the new connection, and whether it is to be turned away.
    fn on_accept(&mut self, completion: Completion) -> Option<(ConnectionId, super::ListenerId, bool)> {
        let listener = &mut self.listeners[completion.token.slot as usize];
        let id = listener.id;
        if !completion.more {
            listener.accepting = false;
            if completion.result < 0 && !passes_at_once(-completion.result) {
                // Out of descriptors or memory: the same error would come at once.
                listener.retry_ms = Some(now_ms() + ACCEPT_RETRY_MS);
                let error = std::io::Error::from_raw_os_error(-completion.result);
                tracing::warn!(%error, "cannot accept connections: trying again in {ACCEPT_RETRY_MS} ms");
            }
            self.touch_listeners();
        }
        if completion.result < 0 {
            return None;
        }
        // SAFETY: a successful accept gives a new descriptor, which nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(completion.result) };
        match self.accept(fd) {
            Ok((connection, turned_away)) => {
                let figures = self.figures();
                let counter = if turned_away { &figures.connections_refused } else { &figures.connections_accepted };
                counter.add(1);
                Some((connection, id, turned_away))
            }
            Err(fd) => {
                self.figures().connections_refused.add(1);
                self.close(fd);
                None
            }
        }
    }
}

/// Whether an accept error says nothing about the next accept.
fn passes_at_once(number: i32) -> bool {
    matches!(number, libc::ECANCELED | libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::EPROTO)
}

/// Why a connection ended, from the error of an operation on it.
fn reason(number: i32) -> CloseReason {
    match number {
        libc::ECONNRESET | libc::EPIPE => CloseReason::Peer,
        number => CloseReason::Error(number),
    }
}
