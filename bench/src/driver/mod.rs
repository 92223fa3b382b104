//! Protocols: how a request is written and a reply is read. A driver keeps no account; that is the ledger's.

mod etcd;
mod http;
mod http_message;
mod ping;
mod postgres;
mod redis;
mod stream;
mod wire;

pub use etcd::Etcd;
pub use http::Http;
pub use http_message::http_body;
pub use ping::Ping;
pub use postgres::Postgres;
pub use redis::Redis;
pub use stream::{Address, Stream};
pub use wire::Wire;

use anyhow::Result;
use std::borrow::Cow;

/// One request, as a driver gets it.
#[derive(Clone, Copy)]
pub enum Request<'a> {
    /// Read the document of a key.
    Read { key: &'a str },
    /// Create or replace it.
    Write { key: &'a str, document: &'a [u8] },
}

/// What a reply says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The write was carried out.
    Stored,
    /// The document of the key.
    Document(Cow<'a, [u8]>),
    /// There is no such key.
    Missing,
    /// Refused or failed, with a short code to count it under.
    Refused(Cow<'a, str>),
}

/// One reply at the start of received bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// Bytes it took.
    pub consumed_bytes: usize,
    /// The ticket of its request, in protocols that carry one.
    pub ticket: Option<u64>,
    /// The version of the document read or written, in protocols that tell it.
    pub version: Option<u64>,
    /// What it says.
    pub answer: Answer<'a>,
}

/// A connected socket, ready for requests.
pub struct Connection {
    /// With nothing unread in it.
    pub stream: Stream,
    /// The shard it leads to, when requests of other keys had better not go there.
    pub lane: Option<u16>,
}

/// A protocol.
pub trait Driver {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Whether replies come in the order of requests and carry no ticket.
    fn keeps_order(&self) -> bool {
        true
    }

    /// Opens connections and does whatever comes before the first request.
    fn connect(&mut self, count: usize) -> Result<Vec<Connection>>;

    /// Prepares the server for the documents: a template, a table.
    fn install(&mut self) -> Result<()>;

    /// The lane of a key, when keys have lanes.
    fn lane_of(&self, _key: &str) -> Option<u16> {
        None
    }

    /// Appends a request.
    fn write_request(&mut self, ticket: u64, request: Request<'_>, out: &mut Vec<u8>);

    /// The first reply in `bytes`, or `None` until more have arrived. After an error the connection is useless.
    fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Parsed<'a>>>;
}

/// Position after the first `\r\n` at or after `from`, and the line before it.
fn line(bytes: &[u8], from: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(from..)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&rest[..end], from + end + 2))
}

/// A decimal number, and nothing else.
fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.trim().parse().ok()
}
