//! The Redis protocol (RESP2): SET and GET.

use super::{Address, Answer, Connection, Driver, Parsed, Request, Stream, line, number};
use anyhow::{Context, Result, bail};
use std::borrow::Cow;

/// A Redis server.
pub struct Redis {
    address: Address,
}

impl Redis {
    /// At an address.
    pub fn new(address: Address) -> Self {
        Self { address }
    }
}

impl Driver for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn connect(&mut self, count: usize) -> Result<Vec<Connection>> {
        (0..count).map(|_| Ok(Connection { stream: Stream::connect(&self.address)?, lane: None })).collect()
    }

    fn install(&mut self) -> Result<()> {
        Ok(())
    }

    fn write_request(&mut self, _ticket: u64, request: Request<'_>, out: &mut Vec<u8>) {
        match request {
            Request::Read { key } => {
                out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
                bulk(out, key.as_bytes());
            }
            Request::Write { key, document } => {
                out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
                bulk(out, key.as_bytes());
                bulk(out, document);
            }
        }
    }

    fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Parsed<'a>>> {
        let Some((first, after)) = line(bytes, 0) else { return Ok(None) };
        let (kind, rest) = first.split_first().context("an empty line instead of a reply")?;
        let (answer, consumed_bytes) = match kind {
            b'+' => (Answer::Stored, after),
            b'$' if rest == b"-1" => (Answer::Missing, after),
            b'$' => {
                let length = number(rest).context("a bulk reply without a length")?;
                let Some(whole) = bytes.get(after..after + length + 2) else { return Ok(None) };
                (Answer::Document(Cow::Borrowed(&whole[..length])), after + length + 2)
            }
            b'-' => {
                let code = rest.split(|byte| *byte == b' ').next().unwrap_or_default();
                (Answer::Refused(String::from_utf8_lossy(code)), after)
            }
            other => bail!("a reply of the unknown kind {:?}", char::from(*other)),
        };
        Ok(Some(Parsed { consumed_bytes, ticket: None, version: None, answer }))
    }
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'$');
    out.extend_from_slice(bytes.len().to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver() -> Redis {
        Redis::new(Address::from("127.0.0.1:0"))
    }

    #[test]
    fn requests_are_arrays_of_bulk_strings() {
        let mut out = Vec::new();
        driver().write_request(1, Request::Read { key: "k" }, &mut out);
        driver().write_request(2, Request::Write { key: "k", document: b"{}" }, &mut out);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n{}\r\n");
    }

    #[test]
    fn replies_are_taken_one_by_one_and_only_whole() {
        let stream = b"+OK\r\n$4\r\n\r\n\r\n\r\n$-1\r\n-OOM no memory\r\n";
        let expected =
            [Answer::Stored, Answer::Document(b"\r\n\r\n"[..].into()), Answer::Missing, Answer::Refused("OOM".into())];
        let mut rest = &stream[..];
        for answer in expected {
            let parsed = driver().parse(rest).unwrap().unwrap();
            assert_eq!(parsed.answer, answer);
            for cut in 0..parsed.consumed_bytes {
                assert_eq!(driver().parse(&rest[..cut]).unwrap(), None);
            }
            rest = &rest[parsed.consumed_bytes..];
        }
        assert!(rest.is_empty());
        assert!(driver().parse(b"?\r\n").is_err());
    }
}
