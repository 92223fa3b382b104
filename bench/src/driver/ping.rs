//! `PING` of the Redis protocol: 14 bytes there, 7 back, nothing to look up. Every request is a write that succeeds.

use super::{Address, Answer, Connection, Driver, Parsed, Request, Stream};
use anyhow::{Result, ensure};

const REQUEST: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const REPLY: &[u8] = b"+PONG\r\n";

/// Whoever answers `PING`.
pub struct Ping {
    address: Address,
}

impl Ping {
    /// At an address.
    pub fn new(address: Address) -> Self {
        Self { address }
    }
}

impl Driver for Ping {
    fn name(&self) -> &'static str {
        "ping"
    }

    fn connect(&mut self, count: usize) -> Result<Vec<Connection>> {
        (0..count).map(|_| Ok(Connection { stream: Stream::connect(&self.address)?, lane: None })).collect()
    }

    fn install(&mut self) -> Result<()> {
        Ok(())
    }

    fn write_request(&mut self, _ticket: u64, _request: Request<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(REQUEST);
    }

    fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Parsed<'a>>> {
        let Some(reply) = bytes.get(..REPLY.len()) else { return Ok(None) };
        ensure!(reply == REPLY, "an answer other than PONG");
        Ok(Some(Parsed { consumed_bytes: REPLY.len(), ticket: None, version: None, answer: Answer::Stored }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pong_answers_ping() {
        let mut driver = Ping::new(Address::from("127.0.0.1:0"));
        assert_eq!(driver.parse(b"+PONG\r").unwrap(), None);
        let parsed = driver.parse(b"+PONG\r\n+PONG\r\n").unwrap().unwrap();
        assert_eq!((parsed.consumed_bytes, parsed.answer), (7, Answer::Stored));
        assert!(driver.parse(b"-ERR no\r\n").is_err());
    }
}
