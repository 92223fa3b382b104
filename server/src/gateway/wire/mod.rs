//! The wire protocol's skin: frames to commands, outcomes to frames, and the manners of a connection.
//!
//! Holds no behaviour of the store; it asks the dispatch path for everything. What holds here: Hello comes first;
//! each request gets exactly one reply unless its connection ends; whatever breaks the protocol is told so in an
//! error frame and then closed; when too much is in flight or unsent, reading stops and nothing is refused.

mod decode;
mod handshake;
mod output;
mod render;
mod session;
#[cfg(test)]
mod tests;

pub use decode::WIRE_REQUEST_KINDS;
pub use handshake::WireIdentity;
pub use output::WireOutput;

use crate::auth::Principal;
use crate::command::{Access, Command, EntityRef, ErrorCode, Failure, Outcome, Ticket};
use crate::gateway::api::Api;
use crate::limits::{
    COPY_BYTES_MAX, FRAME_OVERHEAD_BYTES_MAX, HELLO_TIMEOUT_MS, IDLE_TIMEOUT_MS, INPUT_BYTES_MIN,
    INPUT_BYTES_SHARD_MAX, OUTPUT_BYTES_MIN, REQUEST_TIMEOUT_MS,
};
use crate::metrics::{Metrics, ShardMetrics};
use crate::runtime::net::ConnectionId;
use crate::runtime::platform::Clock;
use decode::{Decoded, KIND_HELLO, KIND_MALFORMED, Refusal};
use delta_wire::HotRequest;
use delta_wire::encode::Scratch;
use session::{Connection, Deadline, Probe, Session, Table};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Largest frame before authentication.
const HELLO_FRAME_BYTES_MAX: usize = 4 << 10;
/// What may still arrive after reading was stopped, beyond one frame, before the peer is taken for hostile.
const STASH_BYTES_MAX: usize = 4 << 20;
/// A running deadline is set anew only after this fraction of its time.
const DEADLINE_FRACTION: u64 = 16;

/// The wire skin of one shard. Events come from the shard's sockets, delayed outcomes from the dispatch path; neither
/// may call back into it from inside a call it makes.
pub struct WireGateway<A: Api, N: WireOutput, C: Clock> {
    api: Rc<A>,
    net: N,
    clock: C,
    identity: WireIdentity,
    metrics: Arc<Metrics>,
    shard: usize,
    body_bytes_max: usize,
    connections: RefCell<Table>,
    /// Connections with a request that waits for room at another shard, in the order they came to wait.
    waiting: RefCell<VecDeque<ConnectionId>>,
    /// Input of all of them that waits.
    input_bytes: Cell<usize>,
    scratch: RefCell<Scratch>,
}

impl<A: Api, N: WireOutput, C: Clock> WireGateway<A, N, C> {
    /// A skin over one shard's dispatch path and sockets.
    pub fn new(api: Rc<A>, net: N, clock: C, identity: WireIdentity) -> Self {
        let metrics = api.metrics().clone();
        let shard = api.shard();
        assert!(shard < metrics.shards.len(), "shard {shard} has no metrics");
        Self {
            body_bytes_max: api.body_bytes_max(),
            api,
            net,
            clock,
            identity,
            metrics,
            shard,
            connections: RefCell::default(),
            waiting: RefCell::default(),
            input_bytes: Cell::new(0),
            scratch: RefCell::default(),
        }
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.connections.borrow().len()
    }

    /// A new connection: it has until the Hello deadline to say who it is.
    pub fn on_accepted(&self, id: ConnectionId) {
        self.net.set_deadline(id, Some(Duration::from_millis(HELLO_TIMEOUT_MS)));
        self.connections.borrow_mut().put_back(Box::new(Connection::new(id, self.clock.now_ns())));
    }

    /// A new connection for which there is no room: it is told so and closed.
    pub fn on_turned_away(&self, id: ConnectionId) {
        let message = "this server has as many connections as it may have; try again later";
        let failure = Failure::new(ErrorCode::Overloaded, message);
        self.figures().wire_errors.add(1);
        let mut scratch = self.scratch.borrow_mut();
        self.net.output(id, |out| render::render_failure(&mut scratch, out, 0, &failure));
        self.net.close(id);
    }

    /// A deadline passed: the connection is told which, and ends once what it is owed was sent.
    pub fn on_expired(&self, id: ConnectionId) {
        self.with(id, |connection| {
            let session = &mut connection.session;
            if session.refused || session.closed {
                return;
            }
            let message = match session.deadline {
                Deadline::Hello => "no Hello came in time; connect again",
                Deadline::Frame => "a request that had begun did not arrive in time; what was in it is not carried out",
                Deadline::Idle => "nothing was asked for long; connect again",
            };
            self.refuse(session, 0, Failure::new(ErrorCode::RequestTimeout, message));
            self.close_if_done(session);
        });
    }

    /// Lets the engine look ahead for the single-key requests in what has arrived. What does not begin with a frame, for
    /// its connection has part of one, is passed over or means nothing: neither does harm.
    pub fn look_ahead(&self, arrivals: &mut dyn Iterator<Item = &[u8]>) {
        let requests = arrivals.flat_map(delta_wire::whole_frames).filter_map(delta_wire::read_hot_request);
        self.api.look_ahead(&mut requests.map(|request| match request {
            HotRequest::Get { schema, key, .. } => (EntityRef { schema, key }, Access::Read),
            HotRequest::Put { schema, key, .. } => (EntityRef { schema, key }, Access::Write),
        }));
    }

    /// Input. Every whole frame in it is handled; a partial one is kept.
    pub fn on_received(&self, id: ConnectionId, bytes: &[u8]) {
        self.with(id, |connection| self.read(connection, bytes));
    }

    /// The peer sends no more: it still gets every reply it is owed.
    pub fn on_end_of_input(&self, id: ConnectionId) {
        self.with(id, |connection| {
            connection.session.input_ended = true;
            self.read(connection, &[]);
        });
    }

    /// Output is below its bound again: requests kept back are handled.
    pub fn on_drained(&self, id: ConnectionId) {
        self.with(id, |connection| self.read(connection, &[]));
    }

    /// The connection is gone; outcomes still to come for it are dropped.
    pub fn on_closed(&self, id: ConnectionId) {
        if let Some(connection) = self.connections.borrow_mut().take(id) {
            self.input_bytes.set(self.input_bytes.get() - connection.session.input_counted);
        }
    }

    /// A delayed outcome, for the ticket this skin gave.
    pub fn deliver(&self, id: ConnectionId, request_id: u64, outcome: &Outcome) {
        self.with(id, |connection| {
            let session = &mut connection.session;
            session.in_flight = session.in_flight.saturating_sub(1);
            if let Some(probe) = session.probe.take_if(|probe| probe.request_id == request_id) {
                self.figures().request_ns.record(self.clock.now_ns().saturating_sub(probe.start_ns));
            }
            session.note_reply(weight_bytes(outcome));
            self.reply(session, request_id, outcome);
            let resumed = self.resume_if_due(session);
            if resumed || session.input_ended || session.refused {
                self.read(connection, &[]);
            }
        });
    }

    /// Once a turn: for each request that found room at another shard, one connection goes on, first come first served.
    pub fn on_turn(&self) {
        while self.waiting.borrow().len() > self.api.waiting_for_room() {
            let Some(id) = self.waiting.borrow_mut().pop_front() else { break };
            self.with(id, |connection| {
                connection.session.waits_for_room = false;
                self.resume_if_due(&mut connection.session);
                self.read(connection, &[]);
            });
        }
    }

    /// Receives again once few enough requests are in flight. Whether it does.
    fn resume_if_due(&self, session: &mut Session) -> bool {
        let few = session.in_flight <= session.window() / 2;
        let is_due = session.paused && !session.refused && !session.waits_for_room && few;
        if is_due {
            session.paused = false;
            if !session.input_ended {
                self.net.resume(session.id);
            }
        }
        is_due
    }

    /// Takes no more requests, on any connection; each is closed once what it was owed is sent.
    pub fn drain(&self) {
        let ids = self.connections.borrow().ids();
        for id in ids {
            self.net.pause(id);
            self.with(id, |connection| {
                self.answer_held(connection);
                // A frame that has not arrived whole was never accepted.
                connection.session.refused = true;
                self.read(connection, &[]);
            });
        }
    }

    /// Whole frames that were held back are told of the stop, as far as the replies have room.
    fn answer_held(&self, connection: &mut Connection) {
        let Connection { decoder, session } = connection;
        while session.principal.is_some() && !session.refused && !self.net.is_full(session.id) {
            let Ok(Some(frame)) = decoder.next(&mut &[][..], self.frame_bytes_max(session)) else { return };
            let request_id = decode::decode(frame, self.body_bytes_max).request_id;
            self.reply(session, request_id, &Failure::shutting_down().into());
        }
    }

    /// Works on one connection outside the table, so that no borrow is held while others are called.
    #[inline]
    fn with(&self, id: ConnectionId, work: impl FnOnce(&mut Connection)) {
        let taken = self.connections.borrow_mut().take(id);
        if let Some(mut connection) = taken {
            work(&mut connection);
            self.connections.borrow_mut().put_back(connection);
        }
    }

    /// Handles every whole frame in what was kept and what has come, as far as bounds allow.
    fn read(&self, connection: &mut Connection, mut input: &[u8]) {
        let Connection { decoder, session } = connection;
        let start_ns = self.clock.now_ns();
        let mut frames = 0;
        while !session.refused {
            if self.is_held(session) {
                decoder.stash(input);
                if decoder.buffered_bytes() > self.frame_bytes_max(session) + STASH_BYTES_MAX {
                    let message = "more was sent than this connection may have waiting; read the replies";
                    self.refuse(session, 0, Failure::new(ErrorCode::Overloaded, message));
                }
                break;
            }
            match decoder.next(&mut input, self.frame_bytes_max(session)) {
                Ok(Some(frame)) => {
                    self.on_frame(session, frame, (frames == 0).then_some(start_ns));
                    frames += 1;
                }
                Ok(None) => {
                    if session.input_ended && decoder.buffered_bytes() > 0 {
                        let message = "the connection ended within a frame; what was in it is not carried out";
                        self.refuse(session, 0, Failure::new(ErrorCode::BadRequest, message));
                    }
                    break;
                }
                Err(error) => {
                    let code = match error {
                        delta_wire::FramingError::TooLarge { .. } => ErrorCode::TooLarge,
                        delta_wire::FramingError::TooSmall { .. } => ErrorCode::BadRequest,
                    };
                    self.figures().wire_requests[KIND_MALFORMED].add(1);
                    self.refuse(session, 0, Failure::new(code, error.to_string()));
                }
            }
        }
        if decoder.buffered_bytes() != session.input_counted {
            self.count_input(session, decoder.buffered_bytes());
        }
        self.close_if_done(session);
        self.watch(session, decoder.buffered_bytes() > 0, frames, start_ns);
    }

    /// What waits of the input has changed. Where all connections have too much of it, those with much are refused.
    fn count_input(&self, session: &mut Session, bytes: usize) {
        let total = self.input_bytes.get() + bytes - session.input_counted;
        self.input_bytes.set(total);
        session.input_counted = bytes;
        if total > INPUT_BYTES_SHARD_MAX && bytes > INPUT_BYTES_MIN && !session.refused {
            let message = "more is being sent than this server can keep; send again later, or smaller documents";
            self.refuse(session, 0, Failure::new(ErrorCode::Overloaded, message));
        }
    }

    /// Whether nothing more is handled for now: too much is in flight, or unsent, or other shards have no room.
    #[inline]
    fn is_held(&self, session: &mut Session) -> bool {
        if (session.waits_for_room || session.in_flight >= session.window()) && !session.paused {
            session.paused = true;
            self.net.pause(session.id);
        }
        session.paused || self.net.is_full(session.id)
    }

    /// One frame. `timed_from` asks for its latency to be measured: one request in each piece of input is, so that
    /// the clock is read per piece and not per request.
    #[inline]
    fn on_frame(&self, session: &mut Session, bytes: &[u8], timed_from: Option<u64>) {
        let Some(principal) = &session.principal else { return self.on_hello(session, bytes) };
        let Decoded { request_id, kind, command } = decode::decode(bytes, self.body_bytes_max);
        self.figures().wire_requests[kind].add(1);
        let waiting_before = self.api.waiting_for_room();
        let outcome = match command {
            Ok(command) => {
                let ticket = Ticket::Wire { connection: session.id.to_u64(), request_id };
                self.submit(principal, command, ticket)
            }
            Err(Refusal::Refused(failure)) => Some(Outcome::Failed(failure)),
            Err(Refusal::Malformed(failure)) => return self.refuse(session, request_id, failure),
        };
        match outcome {
            Some(outcome) => {
                self.reply(session, request_id, &outcome);
                if let Some(start_ns) = timed_from {
                    self.figures().request_ns.record(self.clock.now_ns().saturating_sub(start_ns));
                }
            }
            None => {
                session.in_flight += 1;
                if self.api.waiting_for_room() > waiting_before {
                    session.waits_for_room = true;
                    self.waiting.borrow_mut().push_back(session.id);
                }
                if let (Some(start_ns), None) = (timed_from, session.probe) {
                    session.probe = Some(Probe { request_id, start_ns });
                }
            }
        }
    }

    /// A panic in one request is that request's failure, not the server's.
    #[inline]
    fn submit(&self, principal: &Principal, command: Command<'_>, ticket: Ticket) -> Option<Outcome> {
        catch_unwind(AssertUnwindSafe(|| self.api.submit(principal, command, ticket))).unwrap_or_else(|_| {
            self.figures().panics_caught.add(1);
            tracing::error!("a wire request panicked; it was answered with an internal error");
            let message = "the server failed on this request, which is a bug in it; its log has more";
            Some(Outcome::Failed(Failure::new(ErrorCode::Internal, message)))
        })
    }

    fn on_hello(&self, session: &mut Session, bytes: &[u8]) {
        let Ok(frame) = delta_wire::read_frame(bytes) else {
            self.figures().wire_requests[KIND_MALFORMED].add(1);
            let failure = Failure::new(ErrorCode::BadRequest, delta_wire::Malformed.to_string());
            return self.refuse(session, 0, failure);
        };
        self.figures().wire_requests[decode::kind_of(frame.body_type())].add(1);
        let principal = match handshake::judge_hello(&*self.api, &frame) {
            Ok(principal) => principal,
            Err(failure) => return self.refuse(session, frame.request_id(), failure),
        };
        let mut scratch = self.scratch.borrow_mut();
        self.net.output(session.id, |out| {
            handshake::render_welcome(
                &*self.api,
                &self.identity,
                &principal,
                self.body_bytes_max + FRAME_OVERHEAD_BYTES_MAX,
                &mut scratch,
                out,
                frame.request_id(),
            );
        });
        session.principal = Some(principal);
    }

    /// Answers one request. An identity that is no longer valid ends its connection.
    #[inline]
    fn reply(&self, session: &mut Session, request_id: u64, outcome: &Outcome) {
        if let Outcome::Failed(failure) = outcome {
            self.figures().wire_errors.add(1);
            if failure.code == ErrorCode::Unauthenticated {
                session.refused = true;
            }
        }
        let mut scratch = self.scratch.borrow_mut();
        let weight_bytes = weight_bytes(outcome);
        if weight_bytes > COPY_BYTES_MAX && self.is_too_much(session.id, weight_bytes) {
            let message = "more was asked for than is being read: take the replies, then ask again";
            let failure = Failure::new(ErrorCode::Overloaded, message);
            self.figures().wire_errors.add(1);
            self.net.output(session.id, |out| render::render_failure(&mut scratch, out, request_id, &failure));
            return;
        }
        render::render(&self.net, &mut scratch, session.id, request_id, outcome);
    }

    /// Whether a large reply finds too much unread already, on its connection or on all of the shard together.
    #[cold]
    fn is_too_much(&self, id: ConnectionId, weight_bytes: usize) -> bool {
        let bytes_max = self.net.output_bytes_max();
        let exhausted = bytes_max == OUTPUT_BYTES_MIN && weight_bytes > OUTPUT_BYTES_MIN;
        exhausted || self.net.output_bytes(id) > 2 * bytes_max
    }

    /// Sends an error frame, after which nothing more is taken from the connection.
    #[cold]
    fn refuse(&self, session: &mut Session, request_id: u64, failure: Failure) {
        self.figures().wire_errors.add(1);
        let mut scratch = self.scratch.borrow_mut();
        self.net.output(session.id, |out| render::render_failure(&mut scratch, out, request_id, &failure));
        session.refused = true;
    }

    /// Closes what is finished: no more input will be handled and no reply is owed.
    fn close_if_done(&self, session: &mut Session) {
        if !session.refused && !session.input_ended || session.closed {
            return;
        }
        if session.refused && !session.paused {
            session.paused = true;
            self.net.pause(session.id);
        }
        let held = !session.refused && self.is_held(session);
        if session.in_flight == 0 && !held {
            session.closed = true;
            self.net.close(session.id);
        }
    }

    /// Keeps the deadline that fits the connection's state running, setting it as rarely as that allows.
    fn watch(&self, session: &mut Session, partial: bool, frames: usize, now_ns: u64) {
        if session.principal.is_none() || session.closed {
            return;
        }
        // Where this side does not read, the peer cannot be late.
        let (deadline, time_ms) = if partial && !session.paused && !self.net.is_full(session.id) {
            (Deadline::Frame, REQUEST_TIMEOUT_MS)
        } else {
            (Deadline::Idle, IDLE_TIMEOUT_MS)
        };
        // A frame's deadline moves only when another frame was completed, or a trickle of bytes would extend it.
        let extendable = deadline == Deadline::Idle || frames > 0;
        let worn_ns = Duration::from_millis(time_ms / DEADLINE_FRACTION).as_nanos() as u64;
        let is_due = extendable && now_ns.saturating_sub(session.deadline_set_ns) > worn_ns;
        if session.deadline != deadline || is_due {
            session.deadline = deadline;
            session.deadline_set_ns = now_ns;
            self.net.set_deadline(session.id, Some(Duration::from_millis(time_ms + time_ms / DEADLINE_FRACTION)));
        }
    }

    #[inline]
    fn frame_bytes_max(&self, session: &Session) -> usize {
        match session.principal {
            Some(_) => self.body_bytes_max + FRAME_OVERHEAD_BYTES_MAX,
            None => HELLO_FRAME_BYTES_MAX,
        }
    }

    #[inline]
    fn figures(&self) -> &ShardMetrics {
        &self.metrics.shards[self.shard]
    }
}

// The metrics hold one counter a kind.
const _: () = assert!(WIRE_REQUEST_KINDS.len() == 16 && KIND_HELLO == 0);

/// The document bytes that an outcome brings.
fn weight_bytes(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Document { document, .. } => document.body().len(),
        Outcome::Documents(results) => results.iter().flatten().map(|(_, document)| document.body().len()).sum(),
        Outcome::Page(page) => page.entries.iter().flat_map(|entry| &entry.document).map(|one| one.body().len()).sum(),
        _ => 0,
    }
}
