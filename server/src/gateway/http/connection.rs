//! One connection from accept to close: hyper drives the protocol, this file its deadlines, drain and last words.

use super::pace::{Alarm, Pace, Phase};
use super::problem::Problem;
use super::stream::{ByteStream, HyperStream};
use super::{HttpGateway, Registration, service};
use crate::command::ErrorCode;
use crate::gateway::api::Api;
use crate::limits::{HTTP_LINGER_BYTES_MAX, HTTP_LINGER_MS};
use crate::metrics::HTTP_ROUTES;
use crate::runtime::platform::Clock;
use http::StatusCode;
use hyper::server::conn::http1;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

/// How hyper's part ended.
enum End {
    /// The protocol is done with the connection, or the peer with us.
    Finished { unparsable: bool },
    /// The head did not arrive in time.
    HeadTimeout,
    /// Nothing more is owed to this peer: idle too long, silent from the start, or not reading.
    Abandoned,
}

/// Serves one connection.
pub(super) async fn serve<A: Api, C: Clock, S: ByteStream>(gateway: Rc<HttpGateway<A, C>>, stream: S) {
    let registration = Registration::new(gateway.clone());
    let pace = Rc::new(Pace::new(gateway.clock.now_ns(), gateway.limits.timeouts));
    let io = HyperStream::new(stream, gateway.scratch.clone(), pace.clone());
    let service = {
        let (gateway, pace) = (gateway.clone(), pace.clone());
        hyper::service::service_fn(move |request| service::answer(gateway.clone(), pace.clone(), request))
    };
    let mut connection = http1::Builder::new()
        .max_header_size(gateway.limits.head_bytes_max)
        .max_buf_size(super::stream::SCRATCH_BYTES.max(gateway.limits.head_bytes_max))
        .header_read_timeout(None)
        // A peer that has sent its last request may end its side at once; it is owed the reply all the same.
        .half_close(true)
        .serve_connection(io, service);

    let mut alarm = Alarm::new(gateway.clock.clone());
    let mut registered = false;
    let mut told_to_drain = false;
    let end = poll_fn(|context| {
        if !registered {
            registration.wake_on_drain(context.waker());
            registered = true;
        }
        if gateway.draining.get() && !told_to_drain {
            told_to_drain = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        loop {
            pace.tick(gateway.clock.now_ns());
            if let Poll::Ready(result) = Pin::new(&mut connection).poll(context) {
                // A head that ends with the connection is answered too: the peer may only have ended its side.
                let unparsable = result.is_err_and(|error| error.is_parse() || error.is_incomplete_message());
                return Poll::Ready(End::Finished { unparsable });
            }
            if alarm.poll(context, pace.deadline_ns()).is_pending() {
                return Poll::Pending;
            }
            match pace.expire() {
                // Its reader has been told, and answers when the connection is polled again.
                Phase::Body => {}
                Phase::Head => return Poll::Ready(End::HeadTimeout),
                _ => return Poll::Ready(End::Abandoned),
            }
        }
    })
    .await;

    let (mut stream, held_back) = connection.into_parts().io.into_parts();
    match (end, held_back) {
        (End::Finished { .. }, Some(status)) => refuse(&gateway, &mut stream, unparsable_head(status)).await,
        (End::Finished { unparsable: true }, None) if !pace.is_serving() => {
            refuse(&gateway, &mut stream, unparsable_head(400)).await;
        }
        (End::HeadTimeout, _) => {
            count_timeout(&gateway);
            let problem = Problem::new(ErrorCode::RequestTimeout, "the request head did not arrive in time");
            refuse(&gateway, &mut stream, problem).await;
        }
        (End::Finished { .. }, None) if pace.lingers() => linger(&gateway, &mut stream).await,
        (End::Finished { .. }, None) => {}
        (End::Abandoned, _) => count_timeout(&gateway),
    }
}

fn count_timeout<A: Api, C: Clock>(gateway: &HttpGateway<A, C>) {
    if let Some(shard) = gateway.api.metrics().shards.get(gateway.api.shard()) {
        shard.connections_timed_out.add(1);
    }
}

/// The problem behind a status that hyper chose for a head it could not parse.
fn unparsable_head(status: u16) -> Problem {
    match status {
        431 => Problem::new(
            ErrorCode::HeadersTooLarge,
            "the request head is larger than this server takes: send fewer or shorter headers",
        ),
        414 => Problem::new(ErrorCode::BadRequest, "the request target is longer than this server takes")
            .with_status(StatusCode::URI_TOO_LONG),
        _ => Problem::new(ErrorCode::BadRequest, "the request head is not HTTP/1.1 that this server understands"),
    }
}

/// The reply to a connection for which there is no room.
pub(super) fn turned_away() -> Vec<u8> {
    last_words(&Problem::new(
        ErrorCode::Overloaded,
        "this server has as many connections as it may have; try again later",
    ))
}

/// A whole reply after which the connection closes.
fn last_words(problem: &Problem) -> Vec<u8> {
    let body = problem.to_json();
    let retry_after = if problem.status() == StatusCode::SERVICE_UNAVAILABLE { "retry-after: 1\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n{retry_after}\
         cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n",
        problem.status(),
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

/// Sends a reply outside of hyper, as the last thing on the connection.
async fn refuse<A: Api, C: Clock, S: ByteStream>(gateway: &HttpGateway<A, C>, stream: &mut S, problem: Problem) {
    service::count(gateway, HTTP_ROUTES.len() - 1, problem.status(), None);
    let reply = last_words(&problem);
    let mut alarm = Alarm::new(gateway.clock.clone());
    let deadline_ns = gateway.clock.now_ns().saturating_add(gateway.limits.timeouts.send_ms.saturating_mul(1_000_000));
    let mut sent = 0;
    let delivered = poll_fn(|context| {
        while let Some(rest) = reply.get(sent..).filter(|rest| !rest.is_empty()) {
            match stream.poll_write(context, rest) {
                Poll::Ready(Ok(count)) if count > 0 => sent += count,
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending => return alarm.poll(context, deadline_ns).map(|()| false),
            }
        }
        match stream.poll_flush(context) {
            Poll::Ready(result) => Poll::Ready(result.is_ok()),
            Poll::Pending => alarm.poll(context, deadline_ns).map(|()| false),
        }
    })
    .await;
    if delivered {
        linger(gateway, stream).await;
    }
}

/// Ends the output and reads on for a moment: closing with unread input would make the kernel throw the reply away.
async fn linger<A: Api, C: Clock, S: ByteStream>(gateway: &HttpGateway<A, C>, stream: &mut S) {
    let mut alarm = Alarm::new(gateway.clock.clone());
    let deadline_ns = gateway.clock.now_ns().saturating_add(HTTP_LINGER_MS * 1_000_000);
    let mut ended = false;
    let mut drained = 0;
    poll_fn(|context| {
        if !ended {
            match stream.poll_shutdown(context) {
                Poll::Ready(Ok(())) => ended = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return alarm.poll(context, deadline_ns),
            }
        }
        let mut scratch = gateway.scratch.borrow_mut();
        while drained < HTTP_LINGER_BYTES_MAX {
            match stream.poll_read(context, &mut scratch) {
                Poll::Ready(Ok(count)) if count > 0 => drained += count,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return alarm.poll(context, deadline_ns),
            }
        }
        Poll::Ready(())
    })
    .await;
}
