//! Requests gathered first and sent together, one write a connection.

use super::error::ClientError;
use super::rounds;
use super::router::Router;
use crate::reply::Reply;
use crate::request::{Condition, Request};

/// Requests that borrow what they carry until [`Pipeline::run`]. They are independent of each other: the server may
/// carry them out in any order, so one that needs another's effect belongs in a later pipeline.
pub struct Pipeline<'client, 'data> {
    router: &'client mut Router,
    requests: Vec<Request<'data>>,
}

impl<'client, 'data> Pipeline<'client, 'data> {
    pub(super) fn new(router: &'client mut Router) -> Self {
        Self { router, requests: Vec::new() }
    }

    /// Adds any request; gives its place among the results.
    pub fn push(&mut self, request: Request<'data>) -> usize {
        self.requests.push(request);
        self.requests.len() - 1
    }

    /// Adds a read.
    pub fn get(&mut self, schema: &'data str, key: &'data str) -> usize {
        self.push(Request::Get { schema, key })
    }

    /// Adds a write.
    pub fn put(&mut self, schema: &'data str, key: &'data str, document: &'data [u8], condition: Condition) -> usize {
        self.push(Request::Put { schema, key, document, condition })
    }

    /// Adds a removal.
    pub fn delete(&mut self, schema: &'data str, key: &'data str, condition: Condition) -> usize {
        self.push(Request::Delete { schema, key, condition })
    }

    /// How many requests there are.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Sends them all and waits for every reply: one result a request, in the order added.
    pub fn run(self) -> Vec<Result<Reply, ClientError>> {
        rounds::run(self.router, &self.requests)
    }
}
