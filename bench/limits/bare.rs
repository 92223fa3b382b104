//! Servers that are one io_uring and nothing else: no executor, no store, no handshake, no spinning.
//!
//! They answer the generator's own requests, so that the same bytes move as with a server under measurement, and
//! what they answer is checked like any other reply.

use crate::documents::Table;
use anyhow::{Context, Result};
use delta_bench::driver::Address;
use delta_bench::ring::{Event, Ring, Wait};
use delta_wire::encode::{document, written};
use delta_wire::{HotRequest, LENGTH_PREFIX_BYTES, read_hot_request};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

/// What is spoken.
pub trait Protocol {
    /// Answers every whole request at the start of `bytes`; gives how many bytes they were. `None` ends the server:
    /// the peer is no generator.
    fn answer(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<usize>;
}

/// Serves until the process is ended.
pub fn serve(listen: &str, mut protocol: impl Protocol) -> Result<()> {
    let (listener, address) = match Address::from(listen) {
        Address::Tcp(address) => {
            let listener = TcpListener::bind(&address).with_context(|| format!("cannot listen on {address}"))?;
            let address = listener.local_addr()?.to_string();
            (listener.into(), address)
        }
        Address::Unix(path) => {
            let listener = UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
            (listener.into(), path.display().to_string())
        }
    };
    let mut ring = Ring::listening(listener)?;
    println!("ready {address}");
    let mut partial: Vec<Vec<u8>> = Vec::new();
    let mut is_sound = true;
    while is_sound {
        ring.turn(Wait::Endless)?;
        ring.reap(|socket, event, out| {
            if partial.len() <= socket {
                partial.resize_with(socket + 1, Vec::new);
            }
            let rest = &mut partial[socket];
            match event {
                Event::Opened | Event::Closed(_) => rest.clear(),
                Event::Received(bytes) if rest.is_empty() => match protocol.answer(bytes, out) {
                    Some(consumed) => rest.extend_from_slice(&bytes[consumed..]),
                    None => is_sound = false,
                },
                Event::Received(bytes) => {
                    rest.extend_from_slice(bytes);
                    match protocol.answer(rest, out) {
                        Some(consumed) => drop(rest.drain(..consumed)),
                        None => is_sound = false,
                    }
                }
            }
        });
    }
    anyhow::bail!("a peer sent something that the generator does not send")
}

/// 14 bytes in, 7 bytes out.
pub struct Ping;

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

impl Protocol for Ping {
    fn answer(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let requests = bytes.chunks_exact(PING.len());
        let consumed = bytes.len() - requests.remainder().len();
        for request in requests {
            if request != PING {
                return None;
            }
            out.extend_from_slice(b"+PONG\r\n");
        }
        Some(consumed)
    }
}

/// Get and Put of the wire protocol. A Put changes nothing.
pub struct Wire {
    documents: Table,
    /// What writes are answered with, so that each is newer than the one before.
    version: u64,
}

impl Wire {
    pub fn new(documents: Table) -> Self {
        Self { documents, version: 1 }
    }
}

impl Protocol for Wire {
    fn answer(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let mut consumed = 0;
        while let Some((prefix, rest)) = bytes[consumed..].split_first_chunk::<LENGTH_PREFIX_BYTES>() {
            let Some(frame) = rest.get(..u32::from_le_bytes(*prefix) as usize) else { break };
            match read_hot_request(frame)? {
                HotRequest::Get { request_id, key, .. } => {
                    document(out, request_id, self.version, self.documents.of(key)?);
                }
                HotRequest::Put { request_id, .. } => {
                    self.version += 1;
                    written(out, request_id, self.version, false);
                }
            }
            consumed += LENGTH_PREFIX_BYTES + frame.len();
        }
        Some(consumed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delta_bench::document::Documents;
    use delta_wire::encode::{get, put};
    use delta_wire::{Condition, Reply, decode_reply};

    fn wire() -> Wire {
        Wire::new(Table::new(10, 200).unwrap())
    }

    #[test]
    fn whole_requests_are_answered_with_the_right_document_and_the_rest_is_left() {
        let mut input = Vec::new();
        put(&mut input, 1, "bench", "key-000000000003", b"{}", Condition::None);
        get(&mut input, 2, "bench", "key-000000000003");
        let whole = input.len();
        input.extend_from_slice(&[40, 0, 0, 0, 1]);
        let mut out = Vec::new();
        assert_eq!(wire().answer(&input, &mut out), Some(whole));
        let first_bytes = LENGTH_PREFIX_BYTES + u32::from_le_bytes(out[..4].try_into().unwrap()) as usize;
        let (first, second) = out.split_at(first_bytes);
        let (ticket, reply) = decode_reply(&first[LENGTH_PREFIX_BYTES..]).unwrap();
        let Reply::Written(written) = reply else { panic!("a put is answered like a write") };
        assert_eq!(ticket, 1);
        let (ticket, reply) = decode_reply(&second[LENGTH_PREFIX_BYTES..]).unwrap();
        let Reply::Document(found) = reply else { panic!("a get is answered with a document") };
        assert_eq!((ticket, found.version), (2, written.version), "no read is older than a write before it");
        assert!(Documents::new(200).unwrap().check(3, &found.content).is_ok());
    }

    #[test]
    fn what_the_generator_never_sends_ends_the_server() {
        let mut out = Vec::new();
        assert_eq!(wire().answer(&[4, 0, 0, 0, 1, 2, 3, 4], &mut out), None);
        let mut unknown = Vec::new();
        get(&mut unknown, 1, "bench", "key-000000000010");
        assert_eq!(wire().answer(&unknown, &mut out), None);
        assert_eq!(Ping.answer(b"*1\r\n$4\r\nPONG\r\n", &mut out), None);
        assert_eq!(Ping.answer(b"*1\r\n$4\r\nPING\r\n*1\r\n", &mut out), Some(14));
        assert_eq!(out, b"+PONG\r\n");
    }
}
