//! The connection table of one shard: slots, what each wants next, deadlines and listeners.
//!
//! Every change of a connection lists it as touched; before a submission [`Table::settle`] looks at each touched one
//! and queues what it wants: a receive, a send, a cancellation, a shutdown, its end. So the rules of a connection's
//! life are written once, here, whoever changed it. A slot and its descriptor are freed only when no operation of
//! the connection is outstanding.
#![allow(unsafe_code)]

use super::connection::{Connection, NEVER_MS, Phase};
use super::outbox::{Outgoing, SendBuffers};
use super::stream::StreamState;
use super::{CloseReason, ConnectionId, ListenerId};
use crate::limits;
use crate::metrics::{Metrics, ShardMetrics};
use crate::runtime::buffers::BUFFER_GROUP;
use crate::runtime::preflight::{connections_max, turned_away_max};
use crate::runtime::ring::{OperationKind, Ring, Token, cancel_entry};
use io_uring::{opcode, types};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// How long a closed connection waits for its peer to read the rest and close, so that no reset destroys the reply.
const LINGER_MS: u64 = 1_000;
/// The coarseness of deadlines.
const TICK_MS: Range<u64> = 10..250;

/// What the service is told after the table was left alone.
pub(super) enum Pending {
    Expired(ConnectionId),
    Drained(ConnectionId),
    Closed(ConnectionId, CloseReason),
}

/// A listening socket.
pub(super) struct Listener {
    pub id: ListenerId,
    pub fd: Option<OwnedFd>,
    pub path: Option<PathBuf>,
    pub accepting: bool,
    pub stopping: bool,
    /// After an accept error: when to try again.
    pub retry_ms: Option<u64>,
}

/// All sockets of a shard.
pub(super) struct Table {
    ring: Rc<Ring>,
    metrics: Arc<Metrics>,
    index: usize,
    pub connections: Vec<Connection>,
    free: Vec<u32>,
    pub open: usize,
    connections_max: usize,
    /// Memory that the output of all connections holds.
    pub held_bytes: usize,
    touched: Vec<u32>,
    starved: Vec<u32>,
    pub buffers: SendBuffers,
    alarms: BinaryHeap<Reverse<(u64, u32, u32)>>,
    pub listeners: Vec<Listener>,
    listeners_touched: bool,
    pub pending: Vec<Pending>,
    pub timer_armed: bool,
    timer: Box<types::Timespec>,
}

/// Milliseconds of a coarse monotonic clock: a few nanoseconds to read, a few milliseconds of error.
pub(super) fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

impl Table {
    pub fn new(ring: Rc<Ring>, metrics: Arc<Metrics>, index: usize) -> Self {
        let connections_max = connections_max(metrics.shards.len());
        Self {
            ring,
            metrics,
            index,
            connections: Vec::new(),
            free: Vec::new(),
            open: 0,
            connections_max,
            held_bytes: 0,
            touched: Vec::new(),
            starved: Vec::new(),
            buffers: SendBuffers::default(),
            alarms: BinaryHeap::new(),
            listeners: Vec::new(),
            listeners_touched: false,
            pending: Vec::new(),
            timer_armed: false,
            timer: Box::default(),
        }
    }

    pub fn figures(&self) -> &ShardMetrics {
        &self.metrics.shards[self.index]
    }

    /// The connection, unless it is gone.
    #[inline]
    pub fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(id.slot as usize)?;
        (connection.generation == id.generation && connection.phase != Phase::Free).then_some(connection)
    }

    /// Changes a connection and lists it for the next look.
    pub fn change(&mut self, id: ConnectionId, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.get(id) {
            change(connection);
            self.touch(id.slot);
        }
    }

    #[inline]
    pub fn touch(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if !connection.touched {
            connection.touched = true;
            self.touched.push(slot);
        }
        self.ring.wake_driver();
    }

    pub fn has_work(&self) -> bool {
        !self.touched.is_empty() || self.listeners_touched || !self.pending.is_empty() || !self.starved.is_empty()
    }

    pub fn is_idle(&self) -> bool {
        self.open == 0 && !self.has_work() && self.listeners.iter().all(|listener| !listener.accepting)
    }

    pub fn all(&self) -> Vec<ConnectionId> {
        let taken = self.connections.iter().zip(0..).filter(|(connection, _)| connection.phase != Phase::Free);
        taken.map(|(connection, slot)| ConnectionId { slot, generation: connection.generation }).collect()
    }

    /// Takes a slot for an accepted socket, and says whether it is one of those to be turned away; gives the socket
    /// back when there are too many even of them.
    pub fn accept(&mut self, fd: OwnedFd) -> Result<(ConnectionId, bool), OwnedFd> {
        let turned_away = self.open >= self.connections_max;
        if self.open >= self.connections_max + turned_away_max(self.connections_max) {
            return Err(fd);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(Connection::free());
            self.connections.len() as u32 - 1
        });
        let connection = &mut self.connections[slot as usize];
        connection.open(fd);
        let generation = connection.generation;
        self.open += 1;
        self.figures().connections.set(self.open as u64);
        self.touch(slot);
        Ok((ConnectionId { slot, generation }, turned_away))
    }

    pub fn lend(&mut self, id: ConnectionId) -> Option<Vec<u8>> {
        let connection = self.connections.get_mut(id.slot as usize)?;
        if connection.generation != id.generation || !connection.takes_output() {
            return None;
        }
        Some(connection.outbox.lend(&mut self.buffers))
    }

    pub fn put_back(&mut self, id: ConnectionId, buffer: Vec<u8>) {
        match self.get(id) {
            Some(connection) if connection.takes_output() => {
                connection.outbox.put_back(buffer);
                self.output_grew(id.slot);
            }
            _ => self.buffers.give(buffer),
        }
    }

    pub fn send_shared(&mut self, id: ConnectionId, bytes: Arc<[u8]>, range: Range<usize>) -> bool {
        assert!(range.start <= range.end && range.end <= bytes.len(), "a range outside the shared bytes");
        match self.get(id) {
            Some(connection) if connection.takes_output() => {
                connection.outbox.push_shared(bytes, range);
                self.output_grew(id.slot);
                true
            }
            _ => false,
        }
    }

    fn output_grew(&mut self, slot: u32) {
        self.count_held(slot);
        let bytes_max = self.output_bytes_max();
        let connection = &mut self.connections[slot as usize];
        if connection.outbox.owed_bytes() > bytes_max {
            connection.throttled = true;
        }
        self.touch(slot);
    }

    pub fn set_deadline(&mut self, id: ConnectionId, deadline_ms: u64) {
        if let Some(connection) = self.get(id)
            && connection.phase == Phase::Open
        {
            connection.deadline_ms = deadline_ms;
            self.ensure_alarm(id.slot);
        }
    }

    pub fn stream(&mut self, id: ConnectionId) -> Rc<RefCell<StreamState>> {
        let state = Rc::new(RefCell::new(StreamState::default()));
        match self.get(id) {
            Some(connection) => connection.stream = Some(state.clone()),
            None => state.borrow_mut().closed(CloseReason::Peer),
        }
        state
    }

    pub fn listen(&mut self, id: ListenerId, fd: OwnedFd, path: Option<PathBuf>) {
        self.listeners.push(Listener { id, fd: Some(fd), path, accepting: false, stopping: false, retry_ms: None });
        self.touch_listeners();
    }

    pub fn stop_listening(&mut self) {
        for listener in self.listeners.iter_mut().filter(|listener| !listener.stopping) {
            listener.stopping = true;
            if let Some(path) = listener.path.take() {
                // The name goes first, so that clients see at once that nobody answers; it may be gone already.
                let _ = std::fs::remove_file(path);
            }
        }
        for index in 0..self.listeners.len() {
            if self.listeners[index].accepting {
                let token = Token::new(OperationKind::Accept, index as u32, 0);
                let cancel = Token::new(OperationKind::AcceptCancel, index as u32, 0);
                // SAFETY: a cancellation points to nothing.
                unsafe { self.ring.queue(cancel, cancel_entry(token)) };
            }
        }
        self.touch_listeners();
    }

    pub fn touch_listeners(&mut self) {
        self.listeners_touched = true;
        self.ring.wake_driver();
    }

    /// Out of receive buffers: again at the end of the turn.
    pub fn starve(&mut self, slot: u32) {
        self.connections[slot as usize].starved = true;
        self.starved.push(slot);
    }

    /// The turn's buffers are back.
    pub fn feed_starved(&mut self) {
        while let Some(slot) = self.starved.pop() {
            self.connections[slot as usize].starved = false;
            self.touch(slot);
        }
    }

    /// Queues what every touched connection and listener wants.
    pub fn settle(&mut self) {
        while let Some(slot) = self.touched.pop() {
            self.connections[slot as usize].touched = false;
            self.settle_connection(slot);
        }
        if std::mem::take(&mut self.listeners_touched) {
            (0..self.listeners.len()).for_each(|index| self.settle_listener(index));
        }
        self.arm_timer();
    }

    fn settle_connection(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if matches!(connection.phase, Phase::Open | Phase::Draining) && !connection.sending {
            if !connection.outbox.is_empty() {
                self.start_send(slot);
            } else if connection.phase == Phase::Draining {
                self.finish_sending(slot);
            }
        }
        let connection = &mut self.connections[slot as usize];
        let wants_input = connection.wants_input();
        if wants_input && !connection.receiving {
            self.start_receive(slot);
        } else if !wants_input && connection.receiving && !connection.receive_cancelled {
            connection.receive_cancelled = true;
            self.cancel(slot, OperationKind::Receive);
        }
        if self.connections[slot as usize].phase == Phase::Ending {
            self.settle_end(slot);
        }
    }

    /// Everything is sent: shuts the write side and waits for the peer, unless it has gone first.
    fn finish_sending(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if connection.end_of_input {
            connection.phase = Phase::Ending;
            return;
        }
        connection.phase = Phase::Lingering;
        connection.deadline_ms = now_ms() + LINGER_MS;
        self.shut_down(slot, libc::SHUT_WR);
        self.ensure_alarm(slot);
    }

    fn settle_end(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        connection.outbox.discard_filling(&mut self.buffers);
        self.count_held(slot);
        let connection = &mut self.connections[slot as usize];
        if connection.operations == 0 {
            return self.release(slot);
        }
        if !connection.shut_down && (connection.receiving || connection.sending) {
            connection.shut_down = true;
            if connection.sending {
                self.cancel(slot, OperationKind::Send);
            }
            self.shut_down(slot, libc::SHUT_RDWR);
        }
    }

    /// No operation is left: the descriptor and the slot are free.
    fn release(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        let id = ConnectionId { slot, generation: connection.generation };
        let reason = connection.reason;
        connection.outbox.discard(&mut self.buffers);
        self.count_held(slot);
        let connection = &mut self.connections[slot as usize];
        connection.phase = Phase::Free;
        connection.alarm_ms = NEVER_MS;
        if let Some(stream) = connection.stream.take() {
            stream.borrow_mut().closed(reason);
        }
        if let Some(fd) = connection.fd.take() {
            self.close(fd);
        }
        self.free.push(slot);
        self.open -= 1;
        self.figures().connections.set(self.open as u64);
        self.pending.push(Pending::Closed(id, reason));
    }

    /// Closes a descriptor on which nothing is outstanding, with the next submission.
    pub fn close(&mut self, fd: OwnedFd) {
        let entry = opcode::Close::new(types::Fd(fd.into_raw_fd())).build();
        // SAFETY: the entry points to nothing, and the descriptor was given up to it.
        unsafe { self.ring.queue(Token::new(OperationKind::Ignored, 0, 0), entry) };
    }

    fn start_receive(&mut self, slot: u32) {
        let (fd, token) = self.operation(slot, OperationKind::Receive);
        self.connections[slot as usize].receiving = true;
        let entry = opcode::RecvMulti::new(fd, BUFFER_GROUP).build();
        // SAFETY: it writes only to the provided buffers, which outlive every operation of the ring.
        unsafe { self.ring.queue(token, entry) };
    }

    fn start_send(&mut self, slot: u32) {
        let (fd, token) = self.operation(slot, OperationKind::Send);
        let connection = &mut self.connections[slot as usize];
        connection.sending = true;
        let blocked = connection.blocked;
        // A send that does not wait is over within its submission. One that finds no room is made again, to wait.
        let flags = libc::MSG_NOSIGNAL | if blocked { 0 } else { libc::MSG_DONTWAIT };
        let entry = match connection.outbox.start() {
            Outgoing::Bytes(bytes, len) => opcode::Send::new(fd, bytes, len).flags(flags).build(),
            Outgoing::Message(header) => opcode::SendMsg::new(fd, header).flags(flags as u32).build(),
        };
        connection.send_deadline_ms = now_ms() + limits::SEND_TIMEOUT_MS;
        // SAFETY: the outbox keeps what it handed out in place until it is told that the send is over, which happens
        // only at the send's completion; a connection is not released before.
        unsafe {
            match blocked {
                true => self.ring.queue(token, entry),
                false => self.ring.queue_immediate(token, entry),
            }
        }
        self.ensure_alarm(slot);
    }

    fn cancel(&mut self, slot: u32, kind: OperationKind) {
        let target = Token::new(kind, slot, self.connections[slot as usize].generation);
        let (_, token) = self.operation(slot, OperationKind::Control);
        // SAFETY: a cancellation points to nothing.
        unsafe { self.ring.queue(token, cancel_entry(target)) };
    }

    fn shut_down(&mut self, slot: u32, how: i32) {
        let (fd, token) = self.operation(slot, OperationKind::Control);
        // SAFETY: a shutdown points to nothing.
        unsafe { self.ring.queue(token, opcode::Shutdown::new(fd, how).build()) };
    }

    /// Counts one more operation on the connection.
    fn operation(&mut self, slot: u32, kind: OperationKind) -> (types::Fd, Token) {
        let connection = &mut self.connections[slot as usize];
        connection.operations += 1;
        let fd = connection.fd.as_ref().map_or(-1, |fd| fd.as_raw_fd());
        (types::Fd(fd), Token::new(kind, slot, connection.generation))
    }

    fn settle_listener(&mut self, index: usize) {
        let listener = &mut self.listeners[index];
        if listener.accepting {
            return;
        }
        if listener.stopping {
            listener.fd = None;
            return;
        }
        let Some(fd) = listener.fd.as_ref().map(|fd| types::Fd(fd.as_raw_fd())) else { return };
        if listener.retry_ms.is_none() {
            listener.accepting = true;
            let entry = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build();
            // SAFETY: a multishot accept is given no address to fill; the listener is kept until its completion.
            unsafe { self.ring.queue(Token::new(OperationKind::Accept, index as u32, 0), entry) };
        }
    }

    fn ensure_alarm(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        let due_ms = connection.due_ms();
        if due_ms < connection.alarm_ms {
            connection.alarm_ms = due_ms;
            self.alarms.push(Reverse((due_ms, slot, connection.generation)));
            if !self.timer_armed {
                self.ring.wake_driver();
            }
        }
    }

    fn arm_timer(&mut self) {
        if self.timer_armed {
            return;
        }
        let retry_ms = self.listeners.iter().filter_map(|listener| listener.retry_ms).min();
        let Some(due_ms) = self.alarms.peek().map(|alarm| alarm.0.0).into_iter().chain(retry_ms).min() else { return };
        let wait_ms = due_ms.saturating_sub(now_ms()).clamp(TICK_MS.start, TICK_MS.end);
        *self.timer = types::Timespec::new().nsec((wait_ms * 1_000_000) as u32);
        self.timer_armed = true;
        // SAFETY: the time lies in a box of this table and is changed only when no timer is armed; the kernel copies
        // it at submission.
        unsafe { self.ring.queue(Token::new(OperationKind::Timer, 0, 0), opcode::Timeout::new(&*self.timer).build()) };
    }

    /// Looks at every connection and listener whose time has come.
    pub fn tick(&mut self) {
        self.timer_armed = false;
        let now_ms = now_ms();
        while let Some(Reverse((alarm_ms, slot, generation))) = self.alarms.peek().copied() {
            if alarm_ms > now_ms {
                break;
            }
            self.alarms.pop();
            let connection = &mut self.connections[slot as usize];
            if connection.generation != generation || connection.alarm_ms != alarm_ms {
                continue;
            }
            connection.alarm_ms = NEVER_MS;
            if connection.due_ms() > now_ms {
                self.ensure_alarm(slot);
                continue;
            }
            if connection.phase != Phase::Lingering && !connection.expired {
                self.metrics.shards[self.index].connections_timed_out.add(1);
            }
            if self.connections[slot as usize].expire(now_ms) {
                self.pending.push(Pending::Expired(ConnectionId { slot, generation }));
                self.ensure_alarm(slot);
            } else {
                self.connections[slot as usize].end(CloseReason::Timeout);
            }
            self.touch(slot);
        }
        for listener in &mut self.listeners {
            listener.retry_ms = listener.retry_ms.filter(|retry_ms| *retry_ms > now_ms);
        }
        self.touch_listeners();
    }
}
