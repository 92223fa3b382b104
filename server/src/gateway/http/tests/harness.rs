//! A connection in memory, a clock that stands still until told, and a reader of raw replies.

use super::fake_api::{FakeApi, KEY};
use crate::gateway::http::{ByteStream, HttpGateway, HttpLimits};
use crate::metrics::ShardMetrics;
use crate::runtime::platform::Clock;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Time moves only by `advance`.
#[derive(Clone, Default)]
pub struct TestClock(Rc<ClockState>);

#[derive(Default)]
struct ClockState {
    now_ns: Cell<u64>,
    sleepers: RefCell<Vec<Waker>>,
    sleeps: Cell<usize>,
}

impl TestClock {
    pub fn advance(&self, ms: u64) {
        self.0.now_ns.set(self.0.now_ns.get() + ms * 1_000_000);
        self.0.sleepers.take().into_iter().for_each(Waker::wake);
    }

    /// How often anything went to sleep.
    pub fn sleeps(&self) -> usize {
        self.0.sleeps.get()
    }
}

impl Clock for TestClock {
    fn now_ns(&self) -> u64 {
        self.0.now_ns.get()
    }
    fn unix_ms(&self) -> u64 {
        0
    }
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let state = self.0.clone();
        state.sleeps.set(state.sleeps.get() + 1);
        let until_ns = state.now_ns.get() + duration.as_nanos() as u64;
        std::future::poll_fn(move |context| {
            if state.now_ns.get() >= until_ns {
                return Poll::Ready(());
            }
            state.sleepers.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
    }
}

#[derive(Default)]
struct Pipe {
    input: VecDeque<u8>,
    input_ended: bool,
    output: Vec<u8>,
    output_room: usize,
    shut_down: bool,
    waker: Option<Waker>,
}

/// The server's end.
pub struct Server(Rc<RefCell<Pipe>>);

impl ByteStream for Server {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.0.borrow_mut();
        if pipe.input.is_empty() && !pipe.input_ended {
            pipe.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = pipe.input.len().min(buffer.len());
        for (target, byte) in buffer.iter_mut().zip(pipe.input.drain(..count)) {
            *target = byte;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.0.borrow_mut();
        assert!(!pipe.shut_down, "written after the shutdown");
        let count = bytes.len().min(pipe.output_room);
        if count == 0 && !bytes.is_empty() {
            pipe.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        pipe.output_room -= count;
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
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One connection to a gateway, seen from the client.
pub struct Client {
    pub api: Rc<FakeApi>,
    pub clock: TestClock,
    pub gateway: Rc<HttpGateway<Rc<FakeApi>, TestClock>>,
    pipe: Rc<RefCell<Pipe>>,
    task: Option<Pin<Box<dyn Future<Output = ()>>>>,
    woken: Arc<Flag>,
}

impl Client {
    pub fn new() -> Self {
        let (api, clock) = (FakeApi::new(), TestClock::default());
        let gateway = HttpGateway::new(Rc::new(api.clone()), clock.clone(), HttpLimits::default());
        let pipe = Rc::new(RefCell::new(Pipe { output_room: usize::MAX, ..Pipe::default() }));
        let task: Pin<Box<dyn Future<Output = ()>>> = Box::pin(gateway.serve(Server(pipe.clone())));
        let mut client =
            Self { api, clock, gateway, pipe, task: Some(task), woken: Arc::new(Flag(AtomicBool::new(true))) };
        client.run();
        client
    }

    /// Runs the connection until it waits for something.
    pub fn run(&mut self) {
        let waker = Waker::from(self.woken.clone());
        while self.woken.0.swap(false, Ordering::SeqCst) {
            let Some(task) = &mut self.task else { return };
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                self.task = None;
            }
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let mut pipe = self.pipe.borrow_mut();
        pipe.input.extend(bytes.as_ref());
        let waker = pipe.waker.take();
        drop(pipe);
        waker.into_iter().for_each(Waker::wake);
        self.run();
    }

    /// Sends no more.
    pub fn end(&mut self) {
        self.pipe.borrow_mut().input_ended = true;
        self.send("");
    }

    /// Its last bytes and the end of them at once.
    pub fn send_and_end(&mut self, bytes: impl AsRef<[u8]>) {
        self.pipe.borrow_mut().input_ended = true;
        self.send(bytes);
    }

    /// How much the client takes from now on.
    pub fn set_room(&mut self, bytes: usize) {
        self.pipe.borrow_mut().output_room = bytes;
        self.send("");
    }

    pub fn advance(&mut self, ms: u64) {
        self.clock.advance(ms);
        self.run();
    }

    /// What has arrived since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pipe.borrow_mut().output)
    }

    pub fn is_shut_down(&self) -> bool {
        self.pipe.borrow().shut_down
    }

    /// Whether the server is done with this connection.
    pub fn is_closed(&self) -> bool {
        self.task.is_none()
    }

    pub fn metrics(&self) -> &ShardMetrics {
        use crate::gateway::api::Api;
        &self.api.metrics().shards[0]
    }

    /// One request with the admin key and its only reply.
    pub fn ask(&mut self, method: &str, target: &str, headers: &[&str], body: &str) -> Answer {
        let key = format!("authorization: Bearer {KEY}");
        let headers = [&[key.as_str()], headers].concat();
        self.ask_bare(method, target, &headers, body)
    }

    /// The same without a credential.
    pub fn ask_bare(&mut self, method: &str, target: &str, headers: &[&str], body: &str) -> Answer {
        self.send(request(method, target, headers, body));
        let bytes = self.take();
        let mut answers = Answer::all(&bytes, method == "HEAD");
        assert_eq!(answers.len(), 1, "{method} {target}: {}", String::from_utf8_lossy(&bytes));
        answers.remove(0)
    }
}

pub fn request(method: &str, target: &str, headers: &[&str], body: &str) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\nhost: test\r\n");
    for header in headers {
        text += header;
        text += "\r\n";
    }
    if !body.is_empty() {
        text += &format!("content-length: {}\r\n", body.len());
    }
    text + "\r\n" + body
}

/// One reply.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
    /// The last chunk is missing.
    pub broken_off: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Cuts a stream of replies; interim ones (1xx) count as replies without a body.
    pub fn all(bytes: &[u8], without_bodies: bool) -> Vec<Answer> {
        let mut text = std::str::from_utf8(bytes).expect("replies of text");
        let mut answers = Vec::new();
        while let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let status = lines.next().unwrap();
            let status: u16 = status.strip_prefix("HTTP/1.1 ").expect(status)[..3].parse().unwrap();
            let headers: Vec<_> = lines
                .map(|line| line.split_once(": ").unwrap())
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let mut answer = Answer { status, headers, body: String::new(), broken_off: false };
            text = rest;
            if without_bodies || matches!(status, 100 | 204 | 304) {
            } else if answer.header("transfer-encoding").is_some() {
                text = answer.read_chunks(rest);
            } else {
                let length: usize = answer.header("content-length").expect("a length").parse().unwrap();
                let (body, rest) = rest.split_at(length);
                answer.body = body.to_owned();
                text = rest;
            }
            answers.push(answer);
        }
        assert_eq!(text, "", "leftover bytes");
        answers
    }

    fn read_chunks<'a>(&mut self, mut text: &'a str) -> &'a str {
        loop {
            let Some((size, rest)) = text.split_once("\r\n") else {
                self.broken_off = true;
                return text;
            };
            let size = usize::from_str_radix(size, 16).unwrap();
            self.body += &rest[..size];
            text = rest[size..].strip_prefix("\r\n").unwrap();
            if size == 0 {
                return text;
            }
        }
    }
}
