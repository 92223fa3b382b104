//! The wire skin over stand-ins for the sockets and the dispatch path: any bytes, in any pieces, between delayed
//! outcomes, full outputs, ends of input and a drain.
//!
//! Holds: nothing reaches the dispatch path before Hello was accepted or after the connection was given up; each
//! request that reached it is answered exactly once, with its own id, while the connection is open; whatever is sent
//! is well-formed; a peer that has ended its input and got what it is owed is closed.

use super::input::Input;
use delta_wire::encode::Scratch;
use delta_wire::{Condition, FrameDecoder, Reply, Request, decode_reply};
use deltadb::auth::Principal;
use deltadb::command::{Command, Document, EntityRef, ErrorCode, Failure, Outcome, Ticket};
use deltadb::gateway::api::{Api, Health};
use deltadb::gateway::wire::{WireGateway, WireIdentity, WireOutput};
use deltadb::limits::OUTPUT_BYTES_MAX;
use deltadb::metrics::Metrics;
use deltadb::routing::Topology;
use deltadb::runtime::net::ConnectionId;
use deltadb::runtime::platform::Clock;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const CREDENTIAL: &[u8] = b"the right key";
const CLIENT: ConnectionId = ConnectionId { slot: 0, generation: 3 };
const BODY_BYTES_MAX: usize = 4 << 10;

/// Tries one input: a list of events.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let peer = Peer::new(input.byte());
    while !input.is_empty() {
        peer.event(&mut input);
        peer.read_replies();
    }
    peer.finish();
}

/// A conversation of every request, and some that go wrong.
pub fn seeds() -> Vec<Vec<u8>> {
    let hello = [0, 1];
    let requests: Vec<u8> = (0..12).flat_map(|kind| [1, kind, 2, b's', 1, b'k', 3, b'1', b'2', b'3']).collect();
    let mut stream = Vec::new();
    Scratch::new().hello(&mut stream, 1, Some(CREDENTIAL));
    Scratch::new().request(&mut stream, 2, &Request::Ping);
    let (schema, key) = ("s", "k");
    Scratch::new().request(&mut stream, 3, &Request::Put { schema, key, document: b"1", condition: Condition::None });
    let raw: Vec<u8> = stream.chunks(50).flat_map(|piece| [&[2, 50][..], piece].concat()).collect();
    let raw = [&[0][..], &raw].concat();
    let delivered = [3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3];
    vec![
        [&[0][..], &hello, &requests].concat(),
        [&[1][..], &hello, &requests, &delivered, &[5]].concat(),
        [&[1][..], &hello, &requests, &[4, 1], &requests, &[3, 3, 4, 0, 6], &delivered].concat(),
        [&[2][..], &hello, &requests, &[5], &delivered].concat(),
        raw.clone(),
        [&raw[..raw.len() - 3], &[5]].concat(),
    ]
}

/// The dispatch path: outcomes at once, or when the input says.
struct FakeApi {
    net: FakeNet,
    delays: u8,
    waiting: RefCell<VecDeque<u64>>,
    /// Request id and serial number of every request that reached it.
    submitted: RefCell<BTreeMap<u64, u64>>,
    metrics: Arc<Metrics>,
}

impl FakeApi {
    /// An answer that can be told from every other.
    fn outcome(serial: u64) -> Outcome {
        match serial % 4 {
            0 => Outcome::Written { version: serial, created: true },
            1 => {
                let document = Document::new(EntityRef { schema: "s", key: "k" }, &vec![b' '; serial as usize * 700]);
                Outcome::Document { version: serial, document }
            }
            2 => Outcome::Deleted { version: serial },
            _ => {
                let mut failure = Failure::new(ErrorCode::PreconditionFailed, "it does not hold");
                failure.version = Some(serial);
                Outcome::Failed(failure)
            }
        }
    }
}

impl Api for FakeApi {
    fn authenticate(&self, credential: Option<&[u8]>) -> Result<Principal, Failure> {
        match credential {
            Some(CREDENTIAL) => {
                assert!(!self.net.0.welcomed.replace(true), "welcomed twice");
                Ok(Principal::admin())
            }
            _ => Err(Failure::new(ErrorCode::Unauthenticated, "not known")),
        }
    }

    fn submit(&self, _: &Principal, command: Command<'_>, ticket: Ticket) -> Option<Outcome> {
        assert!(self.net.0.welcomed.get(), "a request got through before Hello");
        assert!(!self.net.0.closed.get(), "a request got through after the end");
        let Ticket::Wire { connection, request_id } = ticket else { panic!("a ticket of the wire's") };
        assert_eq!(ConnectionId::from_u64(connection), CLIENT);
        if let Command::Put { document, .. } = &command {
            assert!(document.len() <= BODY_BYTES_MAX);
        }
        let serial = self.submitted.borrow().len() as u64 + 1;
        self.submitted.borrow_mut().insert(serial, request_id);
        let delayed = match self.delays {
            0 => false,
            1 => true,
            _ => serial.is_multiple_of(2),
        };
        if delayed {
            self.waiting.borrow_mut().push_back(serial);
            return None;
        }
        self.net.0.due.borrow_mut().insert(serial, request_id);
        Some(Self::outcome(serial))
    }

    fn call(&self, _: &Principal, _: Command<'static>) -> impl Future<Output = Outcome> + 'static {
        std::future::ready(Outcome::Pong)
    }

    fn health(&self) -> Health {
        Health::default()
    }

    fn topology(&self) -> Topology {
        Topology::new(7, 2)
    }

    fn body_bytes_max(&self) -> usize {
        BODY_BYTES_MAX
    }

    fn shard(&self) -> usize {
        0
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

/// The sockets: one of them.
#[derive(Default)]
struct Socket {
    sent: RefCell<Vec<u8>>,
    /// What the peer is said not to have read.
    unread_bytes: Cell<usize>,
    closed: Cell<bool>,
    welcomed: Cell<bool>,
    /// Replies that must come: serial number to request id.
    due: RefCell<BTreeMap<u64, u64>>,
}

#[derive(Clone, Default)]
struct FakeNet(Rc<Socket>);

impl WireOutput for FakeNet {
    fn output<R>(&self, id: ConnectionId, write: impl FnOnce(&mut Vec<u8>) -> R) -> Option<R> {
        assert_eq!(id, CLIENT);
        (!self.0.closed.get()).then(|| write(&mut self.0.sent.borrow_mut()))
    }

    fn send_shared(&self, _: ConnectionId, bytes: Arc<[u8]>, range: Range<usize>) -> bool {
        self.0.sent.borrow_mut().extend_from_slice(&bytes[range]);
        !self.0.closed.get()
    }

    fn output_bytes(&self, _: ConnectionId) -> usize {
        self.0.unread_bytes.get()
    }

    fn pause(&self, _: ConnectionId) {}

    fn resume(&self, _: ConnectionId) {}

    fn close(&self, _: ConnectionId) {
        self.0.closed.set(true);
    }

    fn set_deadline(&self, _: ConnectionId, _: Option<Duration>) {}
}

#[derive(Clone)]
struct StandingClock;

impl Clock for StandingClock {
    fn now_ns(&self) -> u64 {
        0
    }

    fn unix_ms(&self) -> u64 {
        0
    }

    fn sleep(&self, _: Duration) -> impl Future<Output = ()> + 'static {
        std::future::ready(())
    }
}

struct Peer {
    api: Rc<FakeApi>,
    net: FakeNet,
    gateway: WireGateway<FakeApi, FakeNet, StandingClock>,
    replies: RefCell<FrameDecoder>,
    next_id: Cell<u64>,
    ended: Cell<bool>,
}

impl Peer {
    fn new(delays: u8) -> Self {
        let net = FakeNet::default();
        let api = Rc::new(FakeApi {
            net: net.clone(),
            delays: delays % 3,
            waiting: RefCell::default(),
            submitted: RefCell::default(),
            metrics: Metrics::new(1),
        });
        let gateway = WireGateway::new(api.clone(), net.clone(), StandingClock, WireIdentity::default());
        gateway.on_accepted(CLIENT);
        Self { api, net, gateway, replies: RefCell::default(), next_id: Cell::new(10), ended: Cell::new(false) }
    }

    fn event(&self, input: &mut Input<'_>) {
        match input.byte() % 7 {
            0 => {
                let mut frame = Vec::new();
                let right = input.byte() != 0;
                Scratch::new().hello(&mut frame, 1, Some(if right { CREDENTIAL } else { b"another" }));
                self.receive(&frame);
            }
            1 => self.receive(&self.request(input)),
            2 => self.receive(input.short_bytes()),
            3 => self.deliver(),
            4 => {
                // More than the bound is unread, or all of it was read.
                let full = input.byte() != 0;
                self.net.0.unread_bytes.set(if full { OUTPUT_BYTES_MAX + 1 } else { 0 });
                if !full {
                    self.gateway.on_drained(CLIENT);
                }
            }
            5 => self.end(),
            _ => self.gateway.drain(),
        }
    }

    fn receive(&self, bytes: &[u8]) {
        if !self.ended.get() {
            self.gateway.on_received(CLIENT, bytes);
        }
    }

    fn end(&self) {
        if !self.ended.replace(true) {
            self.gateway.on_end_of_input(CLIENT);
        }
    }

    fn request(&self, input: &mut Input<'_>) -> Vec<u8> {
        let kind = input.byte();
        let schema = String::from_utf8_lossy(input.short_bytes()).into_owned();
        let key = String::from_utf8_lossy(input.short_bytes()).into_owned();
        let document = input.short_bytes().repeat(1 + 20 * usize::from(kind / 100));
        let (schema, key, document) = (schema.as_str(), key.as_str(), document.as_slice());
        let condition = [Condition::None, Condition::IfAbsent, Condition::IfVersion(3)][usize::from(kind % 3)];
        let request = match kind % 12 {
            0 => Request::Get { schema, key },
            1 => Request::Put { schema, key, document, condition },
            2 => Request::Delete { schema, key, condition },
            3 => Request::MultiGet { schema, keys: &[key, schema] },
            4 => Request::MultiPut { schema, items: &[(key, document)] },
            5 => Request::List { schema, prefix: key, after: Some(key), limit: 2, documents: true },
            6 => Request::Schemas,
            7 => Request::SchemaGet { id: schema },
            8 => Request::SchemaPut { id: schema, template: document },
            9 => Request::SchemaDelete { id: schema },
            10 => Request::Stats,
            _ => Request::Ping,
        };
        let mut frame = Vec::new();
        let request_id = self.next_id.get();
        self.next_id.set(request_id + 1);
        Scratch::new().request(&mut frame, request_id, &request);
        frame
    }

    /// The oldest outcome that waits.
    fn deliver(&self) {
        let Some(serial) = self.api.waiting.borrow_mut().pop_front() else { return };
        let request_id = self.api.submitted.borrow()[&serial];
        if !self.net.0.closed.get() {
            self.net.0.due.borrow_mut().insert(serial, request_id);
        }
        self.gateway.deliver(CLIENT, request_id, &FakeApi::outcome(serial));
    }

    fn read_replies(&self) {
        let sent = std::mem::take(&mut *self.net.0.sent.borrow_mut());
        let mut decoder = self.replies.borrow_mut();
        let mut input = &sent[..];
        while let Some(frame) = decoder.next(&mut input, 1 << 30).expect("replies are framed well") {
            let (request_id, reply) = decode_reply(frame).expect("replies are valid");
            let serial = match reply {
                Reply::Written(written) => Some(written.version),
                Reply::Document(stored) => Some(stored.version),
                Reply::Deleted { version } => Some(version),
                Reply::Error(error) if error.code == ErrorCode::PreconditionFailed => error.version,
                Reply::Welcome(_) => {
                    assert!(self.net.0.welcomed.get(), "welcomed without a credential");
                    None
                }
                _ => None,
            };
            if let Some(serial) = serial {
                let due = self.net.0.due.borrow_mut().remove(&serial);
                assert_eq!(due, Some(request_id), "reply {serial} was not due, or to another request");
            }
        }
        assert_eq!(decoder.buffered_bytes(), 0, "replies are whole");
        let due = self.net.0.due.borrow();
        // A large document may be refused instead, when the peer does not read.
        let is_held = self.net.0.unread_bytes.get() > 2 * OUTPUT_BYTES_MAX;
        assert!(due.is_empty() || is_held, "{} requests got no reply", due.len());
    }

    fn finish(&self) {
        self.net.0.unread_bytes.set(0);
        self.gateway.on_drained(CLIENT);
        self.end();
        while !self.api.waiting.borrow().is_empty() {
            self.deliver();
        }
        self.read_replies();
        assert!(self.net.0.closed.get(), "a peer that said and got everything is still there");
        assert_eq!(self.api.metrics.shards[0].panics_caught.value(), 0, "a request panicked");
        self.gateway.on_closed(CLIENT);
        assert_eq!(self.gateway.connections(), 0);
    }
}
