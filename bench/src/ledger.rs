//! The strict account of one connection: every request issued is settled by exactly one reply.
//!
//! A ticket names a request. Protocols that carry an id return it; for the others replies settle requests in the
//! order of issue. A reply nobody waits for, or a second one, is an error; what is never settled is found at the end.

use std::collections::VecDeque;

/// Places of requests at once; a ticket keeps its place in the low bits.
const PLACE_BITS: u32 = 16;
/// Most requests in flight of one connection.
pub const IN_FLIGHT_MAX: usize = 1 << PLACE_BITS;

/// A reply that settles nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It answers a request that was answered before.
    Doubled,
    /// It answers nothing that was asked.
    Unasked,
}

/// The account. `T` is what is known of a request until its reply.
pub struct Ledger<T> {
    places: Vec<Place<T>>,
    free: Vec<usize>,
    in_order: VecDeque<usize>,
    keeps_order: bool,
    issued: u64,
}

struct Place<T> {
    ticket: u64,
    request: Option<T>,
}

impl<T> Ledger<T> {
    /// An account of at most `in_flight_max` requests. With `keeps_order` replies carry no ticket.
    pub fn new(in_flight_max: usize, keeps_order: bool) -> Self {
        assert!((1..=IN_FLIGHT_MAX).contains(&in_flight_max), "1 to {IN_FLIGHT_MAX} requests may be in flight");
        Self {
            places: (0..in_flight_max).map(|_| Place { ticket: 0, request: None }).collect(),
            free: (0..in_flight_max).rev().collect(),
            in_order: VecDeque::new(),
            keeps_order,
            issued: 0,
        }
    }

    /// Whether another request may be issued.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Requests without a reply.
    pub fn outstanding(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Enters a request and gives its ticket, which is never zero; `None` without room.
    pub fn issue(&mut self, request: T) -> Option<u64> {
        let number = self.free.pop()?;
        self.issued += 1;
        let ticket = self.issued << PLACE_BITS | number as u64;
        self.places[number] = Place { ticket, request: Some(request) };
        if self.keeps_order {
            self.in_order.push_back(number);
        }
        Some(ticket)
    }

    /// Settles the request a reply is for.
    pub fn settle(&mut self, ticket: Option<u64>) -> Result<T, Fault> {
        let number = match ticket {
            None => self.in_order.pop_front().ok_or(Fault::Unasked)?,
            Some(ticket) => self.place_of(ticket)?,
        };
        let request = self.places[number].request.take().ok_or(Fault::Doubled)?;
        self.free.push(number);
        Ok(request)
    }

    fn place_of(&self, ticket: u64) -> Result<usize, Fault> {
        let number = (ticket & (IN_FLIGHT_MAX as u64 - 1)) as usize;
        let sequence = ticket >> PLACE_BITS;
        match self.places.get(number) {
            Some(place) if place.ticket == ticket => Ok(number),
            Some(place) if sequence > 0 && sequence < place.ticket >> PLACE_BITS => Err(Fault::Doubled),
            _ => Err(Fault::Unasked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_with_tickets_settle_in_any_order_and_once() {
        let mut ledger = Ledger::new(3, false);
        let tickets: Vec<u64> = (0..3).map(|request| ledger.issue(request).unwrap()).collect();
        assert_eq!(ledger.issue(9), None);
        assert_eq!(ledger.settle(Some(tickets[2])), Ok(2));
        assert_eq!(ledger.settle(Some(tickets[2])), Err(Fault::Doubled));
        assert_eq!(ledger.settle(Some(tickets[0])), Ok(0));
        let reused = ledger.issue(3).unwrap();
        assert_eq!(ledger.settle(Some(tickets[0])), Err(Fault::Doubled), "its place has another request now");
        assert_eq!(ledger.settle(Some(reused)), Ok(3));
        assert_eq!(ledger.outstanding(), 1, "the lost one remains");
    }

    #[test]
    fn tickets_that_were_never_given_are_unasked() {
        let mut ledger = Ledger::new(2, false);
        let ticket = ledger.issue(0).unwrap();
        for wrong in [0, ticket + (1 << PLACE_BITS), ticket + 1, 7, u64::MAX] {
            assert_eq!(ledger.settle(Some(wrong)), Err(Fault::Unasked), "{wrong}");
        }
        assert_eq!(ledger.settle(Some(ticket)), Ok(0));
    }

    #[test]
    fn replies_without_tickets_settle_in_order_and_no_more_than_were_issued() {
        let mut ledger = Ledger::new(4, true);
        for request in 0..4 {
            ledger.issue(request).unwrap();
        }
        assert_eq!(ledger.settle(None), Ok(0));
        ledger.issue(4).unwrap();
        assert_eq!((1..=4).map(|_| ledger.settle(None).unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(ledger.settle(None), Err(Fault::Unasked));
    }
}
