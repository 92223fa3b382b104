//! The HTTP skin over a connection in memory and a stand-in for the dispatch path: any bytes, in any pieces.
//!
//! Holds: whoever does not send the key reaches nothing but templates; names and sizes that reach the dispatch path
//! are within their rules; what comes back is a sequence of well-formed replies with statuses the product gives, every
//! refusal a problem document; a client that sends no more, or nothing for long, is closed.

use super::input::Input;
use deltadb::auth::{Permission, Principal};
use deltadb::command::{
    Command, Document, EntityRef, ErrorCode, Failure, Outcome, Page, PageEntry, Ticket, check_entity_key,
    check_schema_id,
};
use deltadb::gateway::api::{Api, Health};
use deltadb::gateway::http::{ByteStream, HttpGateway, HttpLimits};
use deltadb::metrics::Metrics;
use deltadb::routing::Topology;
use deltadb::runtime::platform::Clock;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const KEY: &str = "key-7";
const BODY_BYTES_MAX: usize = 2 << 10;

/// Tries one input: how it is cut and read, then what a client sends.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (lengths, reads) = ([usize::from(input.byte()) + 1, input.below(20) + 1], input.byte());
    let stream = input.rest();
    let mut client = Client::new(stream);
    let (mut rest, mut lengths) = (stream, lengths.iter().cycle());
    // A slow reader takes a few bytes for each piece it sends, and everything at the end.
    client.pipe.borrow_mut().room = if reads >= 128 { usize::from(reads) } else { usize::MAX };
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(lengths.next().map_or(1, |length| (*length).min(rest.len())));
        rest = after;
        client.send(piece);
    }
    client.pipe.borrow_mut().room = usize::MAX;
    client.send(&[]);
    if reads % 2 == 0 {
        client.pipe.borrow_mut().input_ended = true;
        client.send(&[]);
    } else {
        // Every deadline passes, one after the other.
        for _ in 0..8 {
            client.clock.advance(700_000);
            client.run();
        }
    }
    assert!(client.task.is_none(), "a client that sends no more is still connected");
    assert_eq!(client.gateway.connections(), 0);
    assert_eq!(client.api.metrics.shards[0].panics_caught.value(), 0, "a handler panicked");
    judge(&client.pipe.borrow().output);
}

/// One request to each route, and some manners of sending them.
pub fn seeds() -> Vec<Vec<u8>> {
    let auth = "authorization: Bearer key-7\r\n";
    let json = "content-type: application/json\r\n";
    let plain = |line: &str, more: &str| format!("{line} HTTP/1.1\r\nhost: x\r\n{auth}{more}\r\n");
    let with_body = |line: &str, more: &str, body: &str| {
        plain(line, &format!("{json}{more}content-length: {}\r\n", body.len())) + body
    };
    let requests = [
        plain("GET /entity/s/k", ""),
        plain("GET /entity/s/k", "if-none-match: \"7\", W/\"8\"\r\n"),
        plain("HEAD /entity/s?key=k", ""),
        plain("GET /entity/s?prefix=k&after=a&limit=3&documents=true", ""),
        plain("GET /entity/s", "accept: application/x-ndjson\r\n"),
        plain("DELETE /entity/s/k%20k", "if-match: *\r\n"),
        plain("DELETE /entity/s?key=k", ""),
        plain("GET /schema/s", ""),
        plain("DELETE /schema/s", ""),
        plain("GET /admin/schemas", ""),
        plain("GET /api/schemas?counts=true", ""),
        plain("GET /admin/stats", ""),
        plain("POST /admin/keys/rotate", "content-length: 0\r\n"),
        plain("GET /health", ""),
        plain("GET /livez", ""),
        plain("GET /readyz", ""),
        plain("GET /metrics", ""),
        plain("GET /", ""),
        plain("OPTIONS /entity/s", ""),
        plain("PATCH /entity/s/k", ""),
        plain("GET /nowhere", ""),
        with_body("PUT /entity/s/k", "", "{\"a\":1}"),
        with_body("PUT /entity/s/k", "if-none-match: *\r\n", "{\"a\":1}"),
        with_body("PUT /entity/s/k", "expect: 100-continue\r\n", "[1,2]"),
        with_body("PUT /entity/s", "", "{\"a\":1,\"b\":[]}"),
        with_body("PUT /schema/s", "", "{\"type\":\"object\"}"),
        plain("PUT /entity/s/k", &format!("{json}transfer-encoding: chunked\r\n")) + "3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n",
        "GET /entity/s/k HTTP/1.0\r\nconnection: keep-alive\r\n\r\n".to_owned(),
        "GET /entity/s/k HTTP/1.1\r\nhost: x\r\nauthorization: Bearer other\r\n\r\n".to_owned(),
        "GET  / HTTP/9\r\n\r\n".to_owned(),
        format!("PUT /entity/s/k HTTP/1.1\r\nhost: x\r\n{auth}{json}content-length: 5000\r\n\r\n[[["),
    ];
    let all = requests[..21].concat();
    let seed = |modes: [u8; 3], text: &str| [&modes[..], text.as_bytes()].concat();
    let mut seeds: Vec<Vec<u8>> = requests.iter().map(|text| seed([255, 0, 0], text)).collect();
    seeds.extend([seed([200, 7, 1], &all), seed([90, 3, 131], &all), seed([30, 3, 130], &requests[21..26].concat())]);
    seeds
}

/// A few entities by name, and every rule a command must meet.
struct FakeApi {
    input_holds_key: bool,
    metrics: Arc<Metrics>,
}

impl FakeApi {
    fn execute(&self, principal: &Principal, command: Command<'_>) -> Result<Outcome, Failure> {
        let schema = |schema: &str| assert!(check_schema_id(schema).is_ok(), "a schema id that breaks the rules");
        let key = |key: &str| assert!(check_entity_key(key).is_ok(), "an entity key that breaks the rules");
        let size = |document: &[u8]| assert!(document.len() <= BODY_BYTES_MAX, "a body above its bound");
        let is_public = matches!(command, Command::SchemaGet { .. } | Command::SchemaList);
        assert!(is_public || self.input_holds_key, "a command without the key");
        assert!(is_public || principal.may(Permission::Read), "a command of nobody");
        Ok(match command {
            Command::Get { schema: of, key: named } => {
                schema(&of);
                key(&named);
                if named.len() > 3 {
                    return Err(Failure::new(ErrorCode::NotFound, "there is no such entity"));
                }
                let document = Document::new(EntityRef { schema: &of, key: &named }, b"{\"found\":true}");
                Outcome::Document { version: 7, document }
            }
            Command::Put { schema: of, key: named, document, .. } => {
                schema(&of);
                key(&named);
                size(&document);
                Outcome::Written { version: 8, created: named.len() % 2 == 0 }
            }
            Command::MultiPut { schema: of, items } => {
                schema(&of);
                for item in &items {
                    key(&item.key);
                    size(&item.document);
                }
                let distinct: BTreeMap<&str, ()> = items.iter().map(|item| (&*item.key, ())).collect();
                assert_eq!(distinct.len(), items.len(), "a key twice in one write");
                let written = |item: &deltadb::command::PutItem<'_>| match item.key.len() {
                    0..5 => Ok((9, true)),
                    _ => Err(Failure::new(ErrorCode::InvalidJson, "failed on purpose")),
                };
                Outcome::WrittenMany(items.iter().map(written).collect())
            }
            Command::Delete { schema: of, key: named, .. } => {
                schema(&of);
                key(&named);
                Outcome::Deleted { version: 10 }
            }
            Command::List { schema: of, after, limit, documents, .. } => {
                schema(&of);
                assert!((1..=deltadb::limits::PAGE_ENTRIES_MAX).contains(&limit));
                let page = if after.is_none() { "a" } else { "b" };
                let keys = (0..limit.min(3)).map(|number| format!("{page}{number}"));
                let entries = keys.map(|key| PageEntry {
                    version: 3,
                    document: documents.then(|| Document::new(EntityRef { schema: &of, key: &key }, b"[1]")),
                    key,
                });
                Outcome::Page(Page { entries: entries.collect(), next: after.is_none().then(|| "a9".to_owned()) })
            }
            Command::Schemas => Outcome::Schemas(vec![("s".into(), 2)]),
            Command::SchemaGet { id } => {
                schema(&id);
                Outcome::Template(b"{}".to_vec())
            }
            Command::SchemaPut { id, template } => {
                schema(&id);
                size(&template);
                Outcome::TemplateChanged { created: true }
            }
            Command::SchemaDelete { id } => {
                schema(&id);
                return Err(Failure::new(ErrorCode::NotFound, "there is no such template"));
            }
            Command::SchemaList => Outcome::Templates(vec!["s".into()]),
            Command::Stats => Outcome::Stats(deltadb::metrics::stats_json(&self.metrics, serde_json::json!({}))),
            Command::RotateKey => Outcome::KeyRotated { key_id: "00ff".into() },
            _ => Outcome::Pong,
        })
    }
}

#[derive(Clone)]
struct Shared(Rc<FakeApi>);

impl Api for Shared {
    fn authenticate(&self, credential: Option<&[u8]>) -> Result<Principal, Failure> {
        match credential {
            Some(credential) if credential == KEY.as_bytes() => Ok(Principal::admin()),
            _ => Err(Failure::new(ErrorCode::Unauthenticated, "not known")),
        }
    }

    fn submit(&self, principal: &Principal, command: Command<'_>, _: Ticket) -> Option<Outcome> {
        Some(self.0.execute(principal, command).unwrap_or_else(Outcome::Failed))
    }

    fn call(&self, principal: &Principal, command: Command<'static>) -> impl Future<Output = Outcome> + 'static {
        let outcome = self.0.execute(principal, command).unwrap_or_else(Outcome::Failed);
        std::future::ready(outcome)
    }

    fn health(&self) -> Health {
        Health { ready: true, ..Health::default() }
    }

    fn topology(&self) -> Topology {
        Topology::new(1, 1)
    }

    fn body_bytes_max(&self) -> usize {
        BODY_BYTES_MAX
    }

    fn shard(&self) -> usize {
        0
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }
}

/// Time moves only when told.
#[derive(Clone, Default)]
struct StepClock(Rc<(Cell<u64>, RefCell<Vec<Waker>>)>);

impl StepClock {
    fn advance(&self, ms: u64) {
        self.0.0.set(self.0.0.get() + ms * 1_000_000);
        self.0.1.take().into_iter().for_each(Waker::wake);
    }
}

impl Clock for StepClock {
    fn now_ns(&self) -> u64 {
        self.0.0.get()
    }

    fn unix_ms(&self) -> u64 {
        0
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let (state, until_ns) = (self.0.clone(), self.now_ns() + duration.as_nanos() as u64);
        std::future::poll_fn(move |context| {
            if state.0.get() >= until_ns {
                return Poll::Ready(());
            }
            state.1.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
    }
}

#[derive(Default)]
struct Pipe {
    input: VecDeque<u8>,
    input_ended: bool,
    output: Vec<u8>,
    room: usize,
    shut_down: bool,
    waker: Option<Waker>,
}

struct ServerEnd(Rc<RefCell<Pipe>>);

impl ByteStream for ServerEnd {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.0.borrow_mut();
        if pipe.input.is_empty() && !pipe.input_ended {
            pipe.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = pipe.input.len().min(buffer.len());
        buffer.iter_mut().zip(pipe.input.drain(..count)).for_each(|(target, byte)| *target = byte);
        Poll::Ready(Ok(count))
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.0.borrow_mut();
        assert!(!pipe.shut_down, "written after the shutdown");
        let count = bytes.len().min(pipe.room);
        if count == 0 && !bytes.is_empty() {
            pipe.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        pipe.room = pipe.room.saturating_sub(count);
        pipe.output.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().shut_down = true;
        Poll::Ready(Ok(()))
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

struct Client {
    api: Rc<FakeApi>,
    clock: StepClock,
    gateway: Rc<HttpGateway<Shared, StepClock>>,
    pipe: Rc<RefCell<Pipe>>,
    task: Option<Pin<Box<dyn Future<Output = ()>>>>,
    woken: Arc<Flag>,
}

impl Client {
    fn new(stream: &[u8]) -> Self {
        let input_holds_key = stream.windows(KEY.len()).any(|window| window == KEY.as_bytes());
        let api = Rc::new(FakeApi { input_holds_key, metrics: Metrics::new(1) });
        let clock = StepClock::default();
        let gateway = HttpGateway::new(Rc::new(Shared(api.clone())), clock.clone(), HttpLimits::default());
        let pipe = Rc::new(RefCell::new(Pipe { room: usize::MAX, ..Pipe::default() }));
        let task: Pin<Box<dyn Future<Output = ()>>> = Box::pin(gateway.serve(ServerEnd(pipe.clone())));
        Self { api, clock, gateway, pipe, task: Some(task), woken: Arc::new(Flag(AtomicBool::new(true))) }
    }

    fn send(&mut self, bytes: &[u8]) {
        let waker = {
            let mut pipe = self.pipe.borrow_mut();
            pipe.input.extend(bytes);
            if pipe.room < 1 << 20 {
                pipe.room += 16;
            }
            pipe.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
        self.run();
    }

    /// Runs the connection until it waits for something.
    fn run(&mut self) {
        let waker = Waker::from(self.woken.clone());
        while self.woken.0.swap(false, SeqCst) {
            let Some(task) = &mut self.task else { return };
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                self.task = None;
            }
        }
    }
}

/// What the product answers with, and 100 before a body that was asked for.
const STATUSES: [u16; 22] =
    [100, 200, 201, 204, 304, 400, 401, 403, 404, 405, 406, 408, 409, 411, 412, 413, 414, 415, 422, 431, 501, 503];

/// Reads the output as replies. One to HEAD has a length and no body; bodies never begin as replies do.
fn judge(output: &[u8]) {
    let text = std::str::from_utf8(output).expect("replies of text");
    let mut rest = text;
    while !rest.is_empty() {
        let Some((head, after)) = rest.split_once("\r\n\r\n") else { panic!("half a head: {rest:?}") };
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse::<u16>().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {head:?}"));
        assert!(STATUSES.contains(&status), "status {status}");
        let headers: BTreeMap<String, &str> = lines
            .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no header: {line:?}")))
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        let body;
        (body, rest) = match (headers.get("content-length"), headers.get("transfer-encoding")) {
            _ if matches!(status, 100 | 204 | 304) => ("", after),
            _ if after.starts_with("HTTP/1.") => ("", after),
            (Some(length), _) => {
                let length: usize = length.parse().expect("a length is a number");
                if after.is_empty() { ("", "") } else { after.split_at(length) }
            }
            (None, Some(_)) => split_chunks(after),
            (None, None) => (after, ""),
        };
        if status >= 400 && !body.is_empty() {
            assert_eq!(headers.get("content-type"), Some(&"application/problem+json"), "{head}");
            let problem: serde_json::Value = serde_json::from_str(body).expect("a problem is JSON");
            assert_eq!(problem["status"], status, "{problem}");
            assert!(problem["error"].is_string() && problem["detail"].is_string(), "{problem}");
        }
        assert!(status != 401 || headers.contains_key("www-authenticate"), "{head}");
        assert!(status != 405 || headers.contains_key("allow"), "{head}");
    }
}

/// The chunks, not joined, and what follows; a stream may break off.
fn split_chunks(text: &str) -> (&str, &str) {
    let mut position = 0;
    while let Some((size, _)) = text[position..].split_once("\r\n") {
        let bytes = usize::from_str_radix(size, 16).expect("the size of a chunk");
        position += size.len() + 2 + bytes + 2;
        if bytes == 0 {
            return ("", &text[position..]);
        }
    }
    ("", "")
}
