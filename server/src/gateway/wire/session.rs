//! What the skin remembers of each connection, and the table of them.
//!
//! A connection is named by slot and generation; asking with a stale generation finds nothing.

use crate::auth::Principal;
use crate::limits::{OUTPUT_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX};
use crate::runtime::net::ConnectionId;
use delta_wire::FrameDecoder;

/// Which deadline runs on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// Hello must be complete by then. Never extended.
    Hello,
    /// Nothing is begun; any traffic extends it.
    Idle,
    /// A frame has begun and must be complete by then.
    Frame,
}

/// A request whose latency is being measured.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Its id on this connection.
    pub request_id: u64,
    /// When it arrived.
    pub start_ns: u64,
}

/// One connection: its undecoded input apart from the rest, so that a frame can be handled where it lies.
pub struct Connection {
    /// Input that is not a whole frame yet, or that waits until more may be taken.
    pub decoder: FrameDecoder,
    /// Everything else.
    pub session: Session,
}

/// What a delayed reply is taken to bring before any has come.
const REPLY_BYTES_EXPECTED_FIRST: usize = OUTPUT_BYTES_MAX / 64;
/// The expectation forgets this part of itself with each smaller reply.
const REPLY_BYTES_FORGOTTEN: usize = 64;

/// The state of one connection but for its input.
pub struct Session {
    /// Its name.
    pub id: ConnectionId,
    /// Who it belongs to; none before Hello was accepted.
    pub principal: Option<Principal>,
    /// Requests submitted whose outcome is still to come.
    pub in_flight: usize,
    /// What one of them may bring: the largest delayed reply of late, in bytes.
    pub reply_bytes_expected: usize,
    /// What of the shard's waiting input it was counted to have.
    pub input_counted: usize,
    /// Receiving was stopped because too many were in flight.
    pub paused: bool,
    /// One of its requests waits for room at another shard: nothing more is handled until there is.
    pub waits_for_room: bool,
    /// The peer sends no more, or nothing more is taken from it: closed once nothing is in flight.
    pub input_ended: bool,
    /// An error frame about the connection was sent; whatever still arrives is dropped.
    pub refused: bool,
    /// `close` was called.
    pub closed: bool,
    /// The deadline that runs.
    pub deadline: Deadline,
    /// When it was last set.
    pub deadline_set_ns: u64,
    /// The one delayed request whose latency is being measured.
    pub probe: Option<Probe>,
}

impl Session {
    /// How many requests may wait for their outcome: as many as their replies would fit the output bound.
    pub fn window(&self) -> usize {
        (OUTPUT_BYTES_MAX / self.reply_bytes_expected.max(1)).clamp(1, REQUESTS_IN_FLIGHT_MAX)
    }

    /// A delayed reply of so many bytes came.
    pub fn note_reply(&mut self, reply_bytes: usize) {
        let forgotten = self.reply_bytes_expected - self.reply_bytes_expected / REPLY_BYTES_FORGOTTEN;
        self.reply_bytes_expected = reply_bytes.max(forgotten);
    }
}

impl Connection {
    /// A connection just accepted, whose Hello deadline was set now.
    pub fn new(id: ConnectionId, now_ns: u64) -> Self {
        let session = Session {
            id,
            principal: None,
            in_flight: 0,
            reply_bytes_expected: REPLY_BYTES_EXPECTED_FIRST,
            input_counted: 0,
            paused: false,
            waits_for_room: false,
            input_ended: false,
            refused: false,
            closed: false,
            deadline: Deadline::Hello,
            deadline_set_ns: now_ns,
            probe: None,
        };
        Self { decoder: FrameDecoder::new(), session }
    }
}

/// All connections of one shard, by slot.
#[derive(Default)]
pub struct Table {
    slots: Vec<Option<Box<Connection>>>,
    live: usize,
}

impl Table {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.live
    }

    /// The ids of all.
    pub fn ids(&self) -> Vec<ConnectionId> {
        self.slots.iter().flatten().map(|connection| connection.session.id).collect()
    }

    /// Takes one out to work on it; [`Table::put_back`] returns it.
    #[inline]
    pub fn take(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.as_ref()?.session.id != id {
            return None;
        }
        self.live -= 1;
        slot.take()
    }

    /// Puts in a new connection or one that was taken out. Whoever held the slot before is forgotten.
    #[inline]
    pub fn put_back(&mut self, connection: Box<Connection>) {
        let slot = connection.session.id.slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        if self.slots[slot].replace(connection).is_none() {
            self.live += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_generation_finds_nothing() {
        let mut table = Table::default();
        let old = ConnectionId { slot: 5, generation: 1 };
        let new = ConnectionId { slot: 5, generation: 2 };
        assert!(table.take(old).is_none());
        table.put_back(Box::new(Connection::new(old, 0)));
        table.put_back(Box::new(Connection::new(new, 0)));
        assert_eq!((table.len(), table.ids()), (1, vec![new]));
        assert!(table.take(old).is_none());
        let taken = table.take(new).unwrap();
        assert_eq!(table.len(), 0);
        assert!(table.take(new).is_none());
        table.put_back(taken);
        assert_eq!(table.len(), 1);
    }
}
