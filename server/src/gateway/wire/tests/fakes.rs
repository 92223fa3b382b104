//! The stand-ins.

use crate::auth::Principal;
use crate::command::{Access, Command, EntityRef, ErrorCode, Failure, Outcome, Ticket};
use crate::gateway::api::{Api, Health};
use crate::gateway::wire::{WireGateway, WireIdentity, WireOutput};
use crate::limits::{OUTPUT_BYTES_MAX, OUTPUT_BYTES_MIN};
use crate::metrics::Metrics;
use crate::routing::Topology;
use crate::runtime::net::ConnectionId;
use crate::runtime::platform::Clock;
use delta_wire::encode::Scratch;
use delta_wire::{FrameDecoder, Reply, Request, decode_reply};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub const BODY_BYTES_MAX: usize = 128 << 10;
pub const CREDENTIAL: &[u8] = b"the right key";
pub const CLIENT: ConnectionId = ConnectionId { slot: 3, generation: 9 };

type Handler = Box<dyn Fn(Command<'static>) -> Option<Outcome>>;

pub struct FakeApi {
    pub handler: RefCell<Handler>,
    pub tickets: RefCell<Vec<Ticket>>,
    /// How many requests wait for room at another shard.
    pub waiting: Rc<Cell<usize>>,
    /// What it was asked to look ahead for.
    pub ahead: RefCell<Vec<(String, String, Access)>>,
    metrics: Arc<Metrics>,
}

impl Api for FakeApi {
    fn authenticate(&self, credential: Option<&[u8]>) -> Result<Principal, Failure> {
        match credential {
            Some(credential) if credential == CREDENTIAL => Ok(Principal::admin()),
            _ => Err(Failure::new(ErrorCode::Unauthenticated, "not known")),
        }
    }
    fn submit(&self, _: &Principal, command: Command<'_>, ticket: Ticket) -> Option<Outcome> {
        self.tickets.borrow_mut().push(ticket);
        (self.handler.borrow())(command.into_owned())
    }
    fn call(&self, _: &Principal, _: Command<'static>) -> impl Future<Output = Outcome> + 'static {
        std::future::ready(Outcome::Pong)
    }
    fn look_ahead<'a>(&self, entities: &mut dyn Iterator<Item = (EntityRef<'a>, Access)>) {
        let owned = entities.map(|(entity, access)| (entity.schema.to_owned(), entity.key.to_owned(), access));
        self.ahead.borrow_mut().extend(owned);
    }
    fn waiting_for_room(&self) -> usize {
        self.waiting.get()
    }
    fn health(&self) -> Health {
        Health::default()
    }
    fn topology(&self) -> Topology {
        let mut topology = Topology::new(77, 2);
        topology.addresses[1] = Some("127.0.0.1:4001".parse().unwrap());
        topology
    }
    fn body_bytes_max(&self) -> usize {
        BODY_BYTES_MAX
    }
    fn shard(&self) -> usize {
        1
    }
    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

#[derive(Default)]
pub struct Socket {
    pub sent: Vec<u8>,
    pub shared_sends: usize,
    pub unsent_bytes: usize,
    pub all_owe_too_much: bool,
    pub paused: bool,
    pub closed: bool,
    pub deadlines: Vec<Option<Duration>>,
}

#[derive(Clone, Default)]
pub struct FakeNet(pub Rc<RefCell<HashMap<ConnectionId, Socket>>>);

impl FakeNet {
    pub fn with<R>(&self, id: ConnectionId, look: impl FnOnce(&mut Socket) -> R) -> R {
        look(self.0.borrow_mut().entry(id).or_default())
    }
}

impl WireOutput for FakeNet {
    fn output<R>(&self, id: ConnectionId, write: impl FnOnce(&mut Vec<u8>) -> R) -> Option<R> {
        self.with(id, |socket| (!socket.closed).then(|| write(&mut socket.sent)))
    }
    fn send_shared(&self, id: ConnectionId, bytes: Arc<[u8]>, range: Range<usize>) -> bool {
        self.with(id, |socket| {
            socket.sent.extend_from_slice(&bytes[range]);
            socket.shared_sends += 1;
            !socket.closed
        })
    }
    fn output_bytes(&self, id: ConnectionId) -> usize {
        self.with(id, |socket| socket.unsent_bytes)
    }
    fn output_bytes_max(&self) -> usize {
        let crowded = self.0.borrow().values().any(|socket| socket.all_owe_too_much);
        if crowded { OUTPUT_BYTES_MIN } else { OUTPUT_BYTES_MAX }
    }
    fn pause(&self, id: ConnectionId) {
        self.with(id, |socket| socket.paused = true);
    }
    fn resume(&self, id: ConnectionId) {
        self.with(id, |socket| socket.paused = false);
    }
    fn close(&self, id: ConnectionId) {
        self.with(id, |socket| socket.closed = true);
    }
    fn set_deadline(&self, id: ConnectionId, after: Option<Duration>) {
        self.with(id, |socket| socket.deadlines.push(after));
    }
}

#[derive(Clone, Default)]
pub struct FakeClock(pub Rc<Cell<u64>>);

impl Clock for FakeClock {
    fn now_ns(&self) -> u64 {
        self.0.get()
    }
    fn unix_ms(&self) -> u64 {
        0
    }
    fn sleep(&self, _: Duration) -> impl Future<Output = ()> + 'static {
        std::future::ready(())
    }
}

/// A gateway over the stand-ins, and a client's side of one connection.
pub struct Bench {
    pub api: Rc<FakeApi>,
    pub net: FakeNet,
    pub clock: FakeClock,
    pub gateway: WireGateway<FakeApi, FakeNet, FakeClock>,
    replies: RefCell<FrameDecoder>,
}

impl Bench {
    /// One whose connection is accepted and has said nothing yet.
    pub fn new(handler: impl Fn(Command<'static>) -> Option<Outcome> + 'static) -> Self {
        let api = Rc::new(FakeApi {
            handler: RefCell::new(Box::new(handler)),
            tickets: RefCell::default(),
            waiting: Rc::default(),
            ahead: RefCell::default(),
            metrics: Metrics::new(2),
        });
        let (net, clock) = (FakeNet::default(), FakeClock::default());
        let identity = WireIdentity { server_version: "1.2.3".into(), store_id: "c0ffee".into() };
        let gateway = WireGateway::new(api.clone(), net.clone(), clock.clone(), identity);
        gateway.on_accepted(CLIENT);
        Self { api, net, clock, gateway, replies: RefCell::default() }
    }

    /// One whose connection is welcome.
    pub fn welcomed(handler: impl Fn(Command<'static>) -> Option<Outcome> + 'static) -> Self {
        let bench = Self::new(handler);
        bench.receive(&hello(CREDENTIAL));
        assert!(matches!(bench.replies()[..], [(1, Reply::Welcome(_))]));
        bench
    }

    pub fn receive(&self, bytes: &[u8]) {
        self.gateway.on_received(CLIENT, bytes);
    }

    pub fn request(&self, request_id: u64, request: Request<'_>) {
        self.receive(&frame_of(request_id, request));
    }

    /// Replies sent since the last call.
    pub fn replies(&self) -> Vec<(u64, Reply)> {
        let sent = self.net.with(CLIENT, |socket| std::mem::take(&mut socket.sent));
        let mut decoder = self.replies.borrow_mut();
        let mut input = &sent[..];
        let mut replies = Vec::new();
        while let Some(frame) = decoder.next(&mut input, 1 << 30).expect("replies are framed well") {
            replies.push(decode_reply(frame).expect("replies are valid"));
        }
        assert_eq!(decoder.buffered_bytes(), 0, "replies are whole");
        replies
    }

    /// The only reply sent since the last call.
    pub fn reply(&self) -> (u64, Reply) {
        let mut replies = self.replies();
        assert_eq!(replies.len(), 1, "one reply, not {replies:?}");
        replies.remove(0)
    }

    /// The code of the only reply, which is an error, and the request it concerns.
    pub fn error(&self) -> (u64, ErrorCode) {
        match self.reply() {
            (request_id, Reply::Error(error)) => (request_id, error.code),
            (_, other) => panic!("an error was due, not {other:?}"),
        }
    }

    pub fn is_closed(&self) -> bool {
        self.net.with(CLIENT, |socket| socket.closed)
    }

    pub fn is_paused(&self) -> bool {
        self.net.with(CLIENT, |socket| socket.paused)
    }

    pub fn figures(&self) -> &crate::metrics::ShardMetrics {
        &self.api.metrics.shards[1]
    }
}

pub fn hello(credential: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Scratch::new().hello(&mut out, 1, Some(credential));
    out
}

pub fn frame_of(request_id: u64, request: Request<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    Scratch::new().request(&mut out, request_id, &request);
    out
}
