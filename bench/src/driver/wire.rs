//! The wire protocol of DeltaDatabase, with connections straight to the shards that own the keys.

use super::{Address, Answer, Connection, Driver, Parsed, Request, Stream};
use crate::document::TEMPLATE;
use anyhow::{Context, Result, bail, ensure};
use delta_wire::encode::{Scratch, get, put};
use delta_wire::{Condition, ErrorCode, LENGTH_PREFIX_BYTES, Reply, Welcome, decode_reply, slot_of};
use std::borrow::Cow;
use std::io::Write;

/// Largest reply that is taken.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// A DeltaDatabase server.
pub struct Wire {
    address: Address,
    schema: String,
    credential: String,
    is_shard_aware: bool,
    in_flight: usize,
    /// Whether there is a handshake and a store; a bare server has neither.
    is_bare: bool,
    /// Seed of the slot hash and the owner of each slot, once several shards with addresses are known.
    topology: Option<(u64, Vec<u16>)>,
}

impl Wire {
    /// With `in_flight` requests a connection at most.
    pub fn new(address: Address, schema: String, credential: &str, is_shard_aware: bool, in_flight: usize) -> Self {
        let credential = credential.to_owned();
        Self { address, schema, credential, is_shard_aware, in_flight, is_bare: false, topology: None }
    }

    /// The same frames to a server that knows nothing but them: no greeting, no template.
    pub fn bare(address: Address, schema: String) -> Self {
        Self { is_bare: true, ..Self::new(address, schema, "", false, 0) }
    }

    fn greet(&self, address: &Address) -> Result<(Stream, Welcome)> {
        let mut stream = Stream::connect(address)?;
        let mut hello = Vec::new();
        let credential = (!self.credential.is_empty()).then_some(self.credential.as_bytes());
        Scratch::new().hello(&mut hello, 1, credential);
        stream.write_all(&hello)?;
        match stream.receive(whole_reply)? {
            Reply::Welcome(welcome) => Ok((stream, *welcome)),
            Reply::Error(error) => bail!("{address} refused the connection: {error}"),
            _ => bail!("{address} did not answer with a welcome"),
        }
    }

    /// The addresses of all shards, when each has one and there are several.
    fn shard_addresses(&self, welcome: &Welcome) -> Option<Vec<Address>> {
        let wanted = self.is_shard_aware && matches!(self.address, Address::Tcp(_)) && welcome.shards.len() > 1;
        if !wanted {
            return None;
        }
        welcome.shards.iter().map(|shard| shard.address.as_deref().map(Address::from)).collect()
    }
}

impl Driver for Wire {
    fn name(&self) -> &'static str {
        "wire"
    }

    fn keeps_order(&self) -> bool {
        false
    }

    fn connect(&mut self, count: usize) -> Result<Vec<Connection>> {
        if self.is_bare {
            let connect = |_| Ok(Connection { stream: Stream::connect(&self.address)?, lane: None });
            return (0..count).map(connect).collect();
        }
        let (stream, welcome) = self.greet(&self.address)?;
        let in_flight_max = welcome.limits.requests_in_flight as usize;
        ensure!(
            in_flight_max == 0 || self.in_flight <= in_flight_max,
            "the server takes {in_flight_max} requests in flight a connection; lower --pipeline"
        );
        let Some(addresses) = self.shard_addresses(&welcome) else {
            let mut connections = vec![Connection { stream, lane: None }];
            for _ in 1..count {
                connections.push(Connection { stream: self.greet(&self.address)?.0, lane: None });
            }
            return Ok(connections);
        };
        ensure!(count >= addresses.len(), "{} shards need at least as many --connections", addresses.len());
        let mut owners = vec![0; delta_wire::SLOTS];
        for (number, shard) in welcome.shards.iter().enumerate() {
            let range = usize::from(shard.first_slot)..=usize::from(shard.last_slot);
            owners.get_mut(range).context("the topology names no valid slots")?.fill(number as u16);
        }
        self.topology = Some((welcome.hash_seed, owners));
        (0..count)
            .map(|number| {
                let lane = number % addresses.len();
                Ok(Connection { stream: self.greet(&addresses[lane])?.0, lane: Some(lane as u16) })
            })
            .collect()
    }

    fn install(&mut self) -> Result<()> {
        if self.is_bare {
            return Ok(());
        }
        let (mut stream, _) = self.greet(&self.address)?;
        let mut request = Vec::new();
        let template = delta_wire::Request::SchemaPut { id: &self.schema, template: TEMPLATE.as_bytes() };
        Scratch::new().request(&mut request, 2, &template);
        stream.write_all(&request)?;
        match stream.receive(whole_reply)? {
            Reply::TemplateChanged { .. } => Ok(()),
            Reply::Error(error) => bail!("the template was refused: {error}"),
            _ => bail!("the template was answered with something else"),
        }
    }

    fn lane_of(&self, key: &str) -> Option<u16> {
        let (seed, owners) = self.topology.as_ref()?;
        owners.get(usize::from(slot_of(*seed, &self.schema, key))).copied()
    }

    fn write_request(&mut self, ticket: u64, request: Request<'_>, out: &mut Vec<u8>) {
        match request {
            Request::Read { key } => get(out, ticket, &self.schema, key),
            Request::Write { key, document } => put(out, ticket, &self.schema, key, document, Condition::None),
        }
    }

    fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Parsed<'a>>> {
        let Some((frame, consumed_bytes)) = whole_frame(bytes)? else { return Ok(None) };
        let (ticket, reply) = decode_reply(frame)?;
        let version = match &reply {
            Reply::Document(stored) => Some(stored.version),
            Reply::Written(written) => Some(written.version),
            _ => None,
        };
        let answer = match reply {
            Reply::Document(stored) => Answer::Document(Cow::Owned(stored.content)),
            Reply::Written(_) => Answer::Stored,
            Reply::Error(error) if ticket == 0 => bail!("the server ended the connection: {error}"),
            Reply::Error(error) if error.code == ErrorCode::NotFound => Answer::Missing,
            Reply::Error(error) => Answer::Refused(Cow::Borrowed(error.code.name())),
            _ => bail!("a reply of a kind that was not asked for"),
        };
        Ok(Some(Parsed { consumed_bytes, ticket: Some(ticket), version, answer }))
    }
}

fn whole_frame(bytes: &[u8]) -> Result<Option<(&[u8], usize)>> {
    let Some(prefix) = bytes.first_chunk::<LENGTH_PREFIX_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes(*prefix) as usize;
    ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes is announced; this is not the wire protocol");
    let end = LENGTH_PREFIX_BYTES + length;
    Ok(bytes.get(LENGTH_PREFIX_BYTES..end).map(|frame| (frame, end)))
}

fn whole_reply(bytes: &[u8]) -> Result<Option<Reply>> {
    match whole_frame(bytes)? {
        Some((frame, end)) => {
            ensure!(end == bytes.len(), "the server said more than it was asked");
            Ok(Some(decode_reply(frame)?.1))
        }
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delta_wire::encode::{document, written};

    #[test]
    fn replies_carry_their_tickets_and_are_taken_only_whole() {
        let mut driver = Wire::new(Address::from("127.0.0.1:0"), "s".to_owned(), "", false, 1);
        let mut stream = Vec::new();
        document(&mut stream, 7, 1, b"{}");
        written(&mut stream, 6, 2, false);
        let mut rest = &stream[..];
        for (ticket, answer) in [(7, Answer::Document(b"{}"[..].into())), (6, Answer::Stored)] {
            let parsed = driver.parse(rest).unwrap().unwrap();
            assert_eq!((parsed.ticket, &parsed.answer), (Some(ticket), &answer));
            for cut in 0..parsed.consumed_bytes {
                assert_eq!(driver.parse(&rest[..cut]).unwrap(), None);
            }
            rest = &rest[parsed.consumed_bytes..];
        }
        assert!(rest.is_empty());
        assert!(driver.parse(&[0xff; 8]).is_err());
    }
}
