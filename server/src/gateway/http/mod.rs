//! The HTTP/1.1 skin: requests to commands, outcomes to replies. No behaviour of the store lives here.
//!
//! It owns routes, names and parameters as they stand in a URL, conditions as headers state them, problem documents,
//! and how long a peer may take. It refuses what it does not know: unknown routes, methods, parameters, media types.
//! It never logs a header, a body or a query. One task serves one connection; everything is local to the shard.

mod body;
mod condition;
mod connection;
mod entity;
mod listing;
mod names;
mod operations;
mod pace;
mod problem;
mod reply;
mod request;
mod routes;
mod schemas;
mod service;
mod stream;

#[cfg(test)]
mod tests;

pub use pace::Timeouts;
pub use stream::ByteStream;

use super::api::Api;
use crate::auth::Principal;
use crate::limits::HTTP_HEAD_BYTES_MAX;
use crate::metrics::HTTP_ROUTES;
use crate::runtime::platform::Clock;
use http::StatusCode;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::task::Waker;

/// What an operator or a test may set.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Longest request head in bytes; longer ones are answered 431. At least 8192.
    pub head_bytes_max: usize,
    /// How long a peer may take.
    pub timeouts: Timeouts,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self { head_bytes_max: HTTP_HEAD_BYTES_MAX, timeouts: Timeouts::default() }
    }
}

/// The HTTP side of one shard.
pub struct HttpGateway<A, C> {
    api: Rc<A>,
    clock: C,
    limits: HttpLimits,
    scratch: stream::Scratch,
    anonymous: Principal,
    bodies_bytes: body::BodiesBytes,
    draining: Cell<bool>,
    next_connection: Cell<u64>,
    connections: RefCell<HashMap<u64, Option<Waker>>>,
}

impl<A: Api, C: Clock> HttpGateway<A, C> {
    /// A gateway without connections.
    pub fn new(api: Rc<A>, clock: C, limits: HttpLimits) -> Rc<Self> {
        Rc::new(Self {
            api,
            clock,
            limits,
            scratch: stream::scratch(),
            anonymous: Principal::anonymous(),
            bodies_bytes: body::BodiesBytes::default(),
            draining: Cell::new(false),
            next_connection: Cell::new(0),
            connections: RefCell::default(),
        })
    }

    /// Serves one connection to its end; spawn it as a foreground task.
    pub fn serve<S: ByteStream>(self: &Rc<Self>, stream: S) -> impl Future<Output = ()> + 'static {
        connection::serve(self.clone(), stream)
    }

    /// What a connection is told for which there is no room.
    pub fn turned_away(&self) -> Vec<u8> {
        service::count(self, HTTP_ROUTES.len() - 1, StatusCode::SERVICE_UNAVAILABLE, None);
        connection::turned_away()
    }

    /// Connections now being served.
    pub fn connections(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Begins a graceful stop: idle connections close, busy ones after the reply they owe. No way back.
    pub fn drain(&self) {
        self.draining.set(true);
        let wakers: Vec<Waker> = self.connections.borrow().values().flatten().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A connection's place in the gateway's table; leaves it when dropped.
struct Registration<A: Api, C: Clock> {
    gateway: Rc<HttpGateway<A, C>>,
    number: u64,
}

impl<A: Api, C: Clock> Registration<A, C> {
    fn new(gateway: Rc<HttpGateway<A, C>>) -> Self {
        let number = gateway.next_connection.get();
        gateway.next_connection.set(number + 1);
        gateway.connections.borrow_mut().insert(number, None);
        Self { gateway, number }
    }

    /// Notes whom a drain must wake.
    fn wake_on_drain(&self, waker: &Waker) {
        if let Some(known) = self.gateway.connections.borrow_mut().get_mut(&self.number) {
            *known = Some(waker.clone());
        }
    }
}

impl<A: Api, C: Clock> Drop for Registration<A, C> {
    fn drop(&mut self) {
        self.gateway.connections.borrow_mut().remove(&self.number);
    }
}
