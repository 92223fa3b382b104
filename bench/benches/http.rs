//! What the HTTP skin costs a request, without sockets and without a store: reading the head, routing, judging the
//! credential, and writing head and document of the reply.

use criterion::{Criterion, criterion_group, criterion_main};
use deltadb::auth::{Authenticator, Principal};
use deltadb::command::{Command, Document, EntityRef, Failure, Outcome, Ticket};
use deltadb::gateway::api::{Api, Health};
use deltadb::gateway::http::{ByteStream, HttpGateway, HttpLimits};
use deltadb::metrics::Metrics;
use deltadb::routing::Topology;
use deltadb::runtime::platform::Platform;
use deltadb::runtime::sim::Sim;
use secrecy::SecretString;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

const KEY: &str = "the-admin-key";

/// Answers every Get with the same document and every Put with the same version.
struct OneDocument {
    authenticator: Authenticator,
    document: Document,
    metrics: Arc<Metrics>,
}

impl Api for OneDocument {
    fn authenticate(&self, credential: Option<&[u8]>) -> Result<Principal, Failure> {
        self.authenticator.authenticate(credential)
    }

    fn submit(&self, _: &Principal, command: Command<'_>, _: Ticket) -> Option<Outcome> {
        Some(self.answer(&command))
    }

    fn call(&self, _: &Principal, command: Command<'static>) -> impl Future<Output = Outcome> + 'static {
        std::future::ready(self.answer(&command))
    }

    fn health(&self) -> Health {
        Health { ready: true, ..Health::default() }
    }

    fn topology(&self) -> Topology {
        Topology::new(0, 1)
    }

    fn body_bytes_max(&self) -> usize {
        1 << 20
    }

    fn shard(&self) -> usize {
        0
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

impl OneDocument {
    fn answer(&self, command: &Command<'_>) -> Outcome {
        match command {
            Command::Get { .. } => Outcome::Document { version: 7, document: self.document.clone() },
            _ => Outcome::Written { version: 8, created: false },
        }
    }
}

#[derive(Default)]
struct Pipe {
    input: VecDeque<u8>,
    output: Vec<u8>,
}

/// The server's end; the other one is the bench itself, so that nobody has to be woken.
struct Connection(Rc<RefCell<Pipe>>);

impl ByteStream for Connection {
    fn poll_read(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match io::Read::read(&mut self.0.borrow_mut().input, buffer)? {
            0 => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn http(criterion: &mut Criterion) {
    let sim = Sim::new(1);
    let api = OneDocument {
        authenticator: Authenticator::new(&SecretString::from(KEY)),
        document: Document::new(EntityRef { schema: "bench", key: "key-000000000001" }, &[b'7'; 400]),
        metrics: Metrics::new(1),
    };
    let gateway = HttpGateway::new(Rc::new(api), sim.platform().clock().clone(), HttpLimits::default());
    let pipe = Rc::new(RefCell::new(Pipe::default()));
    let mut served = pin!(gateway.serve(Connection(pipe.clone())));
    let mut context = Context::from_waker(Waker::noop());
    let head = format!("Host: 127.0.0.1:8080\r\nAuthorization: Bearer {KEY}\r\n");
    let body = "7".repeat(400);
    let get = format!("GET /entity/bench/key-000000000001 HTTP/1.1\r\n{head}\r\n");
    let put = format!(
        "PUT /entity/bench/key-000000000001 HTTP/1.1\r\n{head}Content-Type: application/json\r\n\
         Content-Length: 400\r\n\r\n{body}"
    );
    for (name, request) in [("http_get_400", &get), ("http_put_400", &put)] {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                pipe.borrow_mut().input.extend(request.as_bytes());
                assert!(served.as_mut().poll(&mut context).is_pending(), "the connection ended");
                let mut pipe = pipe.borrow_mut();
                assert!(pipe.output.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&pipe.output));
                pipe.output.clear();
            });
        });
    }
}

criterion_group!(benches, http);
criterion_main!(benches);
