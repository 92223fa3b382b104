//! PostgreSQL's protocol, version 3: one prepared upsert and one prepared select on a table `(key text, document jsonb)`.
//!
//! Trust authentication only: the peers of a comparison are started by it, on loopback.

use super::{Address, Answer, Connection, Driver, Parsed, Request, Stream};
use crate::document::canonical;
use anyhow::{Context, Result, bail, ensure};
use std::borrow::Cow;
use std::io::Write;

const PROTOCOL: u32 = 3 << 16;
const READ: &str = "r";
const WRITE: &str = "w";

/// A PostgreSQL server.
pub struct Postgres {
    address: Address,
    user: String,
    table: String,
}

impl Postgres {
    /// Connecting as `user` to the database `postgres`.
    pub fn new(address: Address, user: String, table: String) -> Self {
        Self { address, user, table }
    }

    /// Whether it takes connections.
    pub fn answers(&self) -> bool {
        self.greet().is_ok()
    }

    fn greet(&self) -> Result<Stream> {
        let mut stream = Stream::connect(&self.address)?;
        let mut startup = PROTOCOL.to_be_bytes().to_vec();
        for text in ["user", &self.user, "database", "postgres", ""] {
            startup.extend_from_slice(text.as_bytes());
            startup.push(0);
        }
        stream.write_all(&(startup.len() as u32 + 4).to_be_bytes())?;
        stream.write_all(&startup)?;
        stream.receive(until_ready)?;
        Ok(stream)
    }

    fn prepare(&self, stream: &mut Stream) -> Result<()> {
        let mut out = Vec::new();
        let table = &self.table;
        let write = format!(
            "insert into {table} (key, document) values ($1, $2) on conflict (key) do update set document = excluded.document"
        );
        for (name, text) in [(READ, format!("select document from {table} where key = $1")), (WRITE, write)] {
            message(&mut out, b'P', |out| {
                string(out, name);
                string(out, &text);
                out.extend_from_slice(&0u16.to_be_bytes());
            });
        }
        message(&mut out, b'S', |_| {});
        stream.write_all(&out)?;
        stream.receive(until_ready)
    }
}

impl Driver for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn connect(&mut self, count: usize) -> Result<Vec<Connection>> {
        (0..count)
            .map(|_| {
                let mut stream = self.greet()?;
                self.prepare(&mut stream).context("cannot prepare; was the table made with --install-template?")?;
                Ok(Connection { stream, lane: None })
            })
            .collect()
    }

    fn install(&mut self) -> Result<()> {
        let mut stream = self.greet()?;
        let mut out = Vec::new();
        message(&mut out, b'Q', |out| {
            string(out, &format!("create table if not exists {} (key text primary key, document jsonb)", self.table));
        });
        stream.write_all(&out)?;
        stream.receive(until_ready)
    }

    fn write_request(&mut self, _ticket: u64, request: Request<'_>, out: &mut Vec<u8>) {
        let (statement, parameters): (_, &[&[u8]]) = match request {
            Request::Read { key } => (READ, &[key.as_bytes()]),
            Request::Write { key, document } => (WRITE, &[key.as_bytes(), document]),
        };
        message(out, b'B', |out| {
            string(out, "");
            string(out, statement);
            out.extend_from_slice(&0u16.to_be_bytes());
            out.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
            for parameter in parameters {
                out.extend_from_slice(&(parameter.len() as u32).to_be_bytes());
                out.extend_from_slice(parameter);
            }
            out.extend_from_slice(&0u16.to_be_bytes());
        });
        message(out, b'E', |out| {
            string(out, "");
            out.extend_from_slice(&0u32.to_be_bytes());
        });
        message(out, b'S', |_| {});
    }

    fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Parsed<'a>>> {
        let mut at = 0;
        let mut answer = Answer::Missing;
        while let Some((kind, body, next)) = whole_message(bytes, at)? {
            at = next;
            match kind {
                b'Z' => return Ok(Some(Parsed { consumed_bytes: at, ticket: None, version: None, answer })),
                b'D' => answer = Answer::Document(as_written(first_column(body)?)),
                b'C' if body.starts_with(b"INSERT") => answer = Answer::Stored,
                b'E' => answer = Answer::Refused(Cow::Owned(error_code(body))),
                b'2' | b'C' | b'N' | b'S' => {}
                other => bail!("a message of the unexpected kind {:?}", char::from(other)),
            }
        }
        Ok(None)
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

fn message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// The message at a position: kind, body, and where the next one is.
fn whole_message(bytes: &[u8], at: usize) -> Result<Option<(u8, &[u8], usize)>> {
    let Some(head) = bytes.get(at..).and_then(|rest| rest.first_chunk::<5>()) else { return Ok(None) };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    ensure!((4..1 << 30).contains(&length), "a message of {length} bytes is announced; this is not PostgreSQL");
    let end = at + 1 + length;
    Ok(bytes.get(at + 5..end).map(|body| (head[0], body, end)))
}

fn first_column(row: &[u8]) -> Result<&[u8]> {
    let length = row.get(2..6).and_then(|bytes| bytes.first_chunk::<4>()).context("a row without a column")?;
    row.get(6..6 + u32::from_be_bytes(*length) as usize).context("a row that is cut off")
}

/// A jsonb comes back with other spaces and order of members than it was written with.
fn as_written(document: &[u8]) -> Cow<'_, [u8]> {
    canonical(document).map_or(Cow::Borrowed(document), Cow::Owned)
}

/// The SQLSTATE of an error.
fn error_code(body: &[u8]) -> String {
    let fields = body.split(|byte| *byte == 0);
    let code = fields.into_iter().find_map(|field| field.strip_prefix(b"C"));
    String::from_utf8_lossy(code.unwrap_or(b"unknown")).into_owned()
}

fn until_ready(bytes: &[u8]) -> Result<Option<()>> {
    let mut at = 0;
    while let Some((kind, body, next)) = whole_message(bytes, at)? {
        at = next;
        match kind {
            b'Z' => return Ok(Some(())),
            b'E' => bail!("PostgreSQL refused: SQLSTATE {}", error_code(body)),
            b'R' if body != [0; 4] => bail!("PostgreSQL wants a password; only trust authentication is spoken here"),
            _ => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_end_when_the_server_is_ready_again() {
        let mut driver = Postgres::new(Address::from("127.0.0.1:0"), "u".to_owned(), "t".to_owned());
        let mut stream = Vec::new();
        message(&mut stream, b'2', |_| {});
        message(&mut stream, b'D', |out| out.extend_from_slice(b"\0\x01\0\0\0\x02{}"));
        message(&mut stream, b'C', |out| string(out, "SELECT 1"));
        message(&mut stream, b'Z', |out| out.push(b'I'));
        let first = stream.len();
        message(&mut stream, b'2', |_| {});
        message(&mut stream, b'C', |out| string(out, "INSERT 0 1"));
        message(&mut stream, b'Z', |out| out.push(b'I'));
        let second = stream.len();
        message(&mut stream, b'E', |out| out.extend_from_slice(b"SERROR\0C40001\0Mno\0\0"));
        message(&mut stream, b'Z', |out| out.push(b'I'));
        for cut in 0..first {
            assert_eq!(driver.parse(&stream[..cut]).unwrap(), None);
        }
        let parsed = driver.parse(&stream).unwrap().unwrap();
        assert_eq!((parsed.consumed_bytes, parsed.answer), (first, Answer::Document(b"{}"[..].into())));
        assert_eq!(driver.parse(&stream[first..]).unwrap().unwrap().answer, Answer::Stored);
        assert_eq!(driver.parse(&stream[second..]).unwrap().unwrap().answer, Answer::Refused("40001".into()));
    }
}
