//! hyper on the very executor and sockets of the server, with a service that only looks up a document.

use crate::ServeFlags;
use crate::documents::Table;
use anyhow::{Context as _, Result};
use bytes::Bytes;
use deltadb::metrics::Metrics;
use deltadb::runtime::net::{ListenAddress, ListenerId, Net, NetEvent, Service, Stream};
use deltadb::runtime::placement::Placement;
use deltadb::runtime::platform::{Platform, Spawn, TaskClass};
use deltadb::runtime::shard::{ShardContext, start};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Bytes read at once.
const PIECE_BYTES: usize = 8 << 10;

/// Serves until the process is ended.
pub fn serve(flags: &ServeFlags) -> Result<()> {
    let address: SocketAddr = flags.listen.parse().context("bare hyper listens on host:port only")?;
    let documents = Table::new(flags.keys, flags.value_bytes)?;
    let main = move |context: ShardContext| {
        // The one shard there is has it to itself, so that no count of its users is atomic.
        let documents = documents.clone();
        async move {
            let documents = Rc::new(documents);
            let (net, platform) = (context.net.clone(), context.platform.clone());
            context.net.attach(Rc::new(Hyper { net, platform, documents }));
            match context.net.listen(ListenerId(0), ListenAddress::Tcp(address)) {
                Ok(Some(address)) => println!("ready {address}"),
                Ok(None) => eprintln!("no address was bound"),
                Err(error) => eprintln!("cannot listen on {address}: {error}"),
            }
            context.stop.raised().await;
        }
    };
    start(&Placement::detect()?, 1, Duration::from_micros(flags.spin_us), Metrics::new(1), main)?.join()?;
    Ok(())
}

struct Hyper<P> {
    net: Net,
    platform: P,
    documents: Rc<Table>,
}

impl<P: Platform> Service for Hyper<P> {
    fn on_event(&self, event: NetEvent<'_>) {
        let NetEvent::Accepted { connection, .. } = event else { return };
        let stream = HyperStream { stream: self.net.stream(connection) };
        let documents = self.documents.clone();
        let service = hyper::service::service_fn(move |request| answer(documents.clone(), request));
        let served = http1::Builder::new().serve_connection(stream, service);
        self.platform.spawn().spawn(TaskClass::Foreground, async move {
            // A connection that ends early is the generator's to report.
            let _ = served.await;
        });
    }

    fn on_turn(&self) -> bool {
        false
    }
}

async fn answer(documents: Rc<Table>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_read = request.method() == Method::GET;
    let key = request.uri().path().rsplit('/').next().unwrap_or_default();
    let body = if is_read { documents.shared(key) } else { Some(Bytes::new()) };
    let status = match (&body, is_read) {
        (None, _) => StatusCode::NOT_FOUND,
        (Some(_), true) => StatusCode::OK,
        (Some(_), false) => StatusCode::CREATED,
    };
    let mut response = Response::new(Full::new(body.unwrap_or_default()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    if !is_read {
        // What does not arrive whole is the generator's to report.
        let _ = request.into_body().collect().await;
    }
    Ok(response)
}

/// A stream of the server's runtime as hyper's connection.
struct HyperStream {
    stream: Stream,
}

impl Read for HyperStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut piece = [0; PIECE_BYTES];
        let room = cursor.remaining().min(PIECE_BYTES);
        let count = ready!(self.stream.poll_read(context, &mut piece[..room]))?;
        cursor.put_slice(&piece[..count]);
        Poll::Ready(Ok(()))
    }
}

impl Write for HyperStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown(context)
    }
}
