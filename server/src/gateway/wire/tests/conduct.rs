//! Manners of a connection: bounds, deadlines, half-closing, draining, panics.

use super::fakes::{Bench, CLIENT, CREDENTIAL, frame_of, hello};
use crate::command::{Access, Command, ErrorCode, Outcome, Ticket};
use crate::limits::{HELLO_TIMEOUT_MS, IDLE_TIMEOUT_MS, OUTPUT_BYTES_MAX, REQUEST_TIMEOUT_MS, REQUESTS_IN_FLIGHT_MAX};
use crate::runtime::net::ConnectionId;
use delta_wire::{Condition as Ask, Reply, Request};
use std::time::Duration;

const SECOND_NS: u64 = 1_000_000_000;

fn pings(ids: std::ops::Range<u64>) -> Vec<u8> {
    ids.flat_map(|request_id| frame_of(request_id, Request::Ping)).collect()
}

/// Shows a connection that its delayed replies are small, so that its window opens to the full.
fn widen(bench: &Bench) {
    const FIRST_ID: u64 = 1 << 40;
    for round in 0..40 {
        let ids = FIRST_ID + round * 16..FIRST_ID + (round + 1) * 16;
        bench.receive(&pings(ids.clone()));
        ids.for_each(|request_id| bench.gateway.deliver(CLIENT, request_id, &Outcome::Pong));
    }
    assert_eq!(bench.replies().len(), 640);
    bench.api.tickets.borrow_mut().clear();
}

#[test]
fn what_delayed_replies_may_bring_is_bounded_before_and_after_their_size_is_known() {
    let bench = Bench::welcomed(|_| None);
    bench.receive(&pings(0..100));
    assert_eq!(bench.api.tickets.borrow().len(), 64, "the first window");
    let entity = crate::command::EntityRef { schema: "s", key: "k" };
    let document = crate::command::Document::new(entity, &vec![b'1'; 1 << 20]);
    bench.gateway.deliver(CLIENT, 0, &Outcome::Document { version: 1, document });
    (1..63).for_each(|request_id| bench.gateway.deliver(CLIENT, request_id, &Outcome::Pong));
    assert!(bench.api.tickets.borrow().len() < 80, "megabytes were brought: few are let in at a time");
}

#[test]
fn too_much_in_flight_stops_reading_and_refuses_nothing() {
    let bench = Bench::welcomed(|_| None);
    widen(&bench);
    let limit = REQUESTS_IN_FLIGHT_MAX as u64;
    bench.receive(&pings(0..limit - 1));
    assert!(!bench.is_paused());
    bench.receive(&pings(limit - 1..limit + 100));
    assert!(bench.is_paused());
    assert_eq!(bench.api.tickets.borrow().len(), REQUESTS_IN_FLIGHT_MAX);
    bench.receive(&pings(limit + 100..limit + 200));
    assert_eq!(bench.api.tickets.borrow().len(), REQUESTS_IN_FLIGHT_MAX, "nothing is taken while paused");

    for request_id in 0..limit / 2 {
        bench.gateway.deliver(CLIENT, request_id, &Outcome::Pong);
    }
    assert!(!bench.is_paused());
    assert_eq!(bench.api.tickets.borrow().len(), REQUESTS_IN_FLIGHT_MAX + 200, "what was kept back is handled");
    assert_eq!(bench.replies().len() as u64, limit / 2);
}

#[test]
fn a_peer_that_floods_a_paused_connection_is_cut_off() {
    let bench = Bench::welcomed(|_| None);
    widen(&bench);
    bench.receive(&pings(0..REQUESTS_IN_FLIGHT_MAX as u64));
    let flood = vec![0xff; 1 << 20];
    for _ in 0..6 {
        bench.receive(&flood);
    }
    assert_eq!(bench.error(), (0, ErrorCode::Overloaded));
    for request_id in 0..REQUESTS_IN_FLIGHT_MAX as u64 {
        assert!(!bench.is_closed(), "replies owed come first");
        bench.gateway.deliver(CLIENT, request_id, &Outcome::Pong);
    }
    assert!(bench.is_closed());
    assert!(bench.is_paused());
}

#[test]
fn unsent_output_holds_requests_back_until_it_is_drained() {
    let bench = Bench::welcomed(|_| Some(Outcome::Pong));
    bench.net.with(CLIENT, |socket| socket.unsent_bytes = OUTPUT_BYTES_MAX + 1);
    bench.receive(&pings(0..10));
    assert!(bench.replies().is_empty());
    bench.net.with(CLIENT, |socket| socket.unsent_bytes = OUTPUT_BYTES_MAX);
    bench.gateway.on_drained(CLIENT);
    assert_eq!(bench.replies().len(), 10);
}

/// A connection on which a request for statistics waits for room at another shard, and the count of those waiting.
fn crowded() -> (Bench, std::rc::Rc<std::cell::Cell<usize>>) {
    let bench = Bench::welcomed(|_| None);
    let waiting = bench.api.waiting.clone();
    let count = waiting.clone();
    *bench.api.handler.borrow_mut() = Box::new(move |command| {
        if matches!(command, Command::Stats) {
            count.set(count.get() + 1);
        }
        None
    });
    (bench, waiting)
}

#[test]
fn a_request_that_waits_for_another_shard_holds_its_connection_and_refuses_nothing() {
    let (bench, waiting) = crowded();
    let mut input = pings(0..3);
    input.extend(frame_of(3, Request::Stats));
    input.extend(pings(4..8));
    bench.receive(&input);
    assert_eq!(bench.api.tickets.borrow().len(), 4, "what follows the request that waits is kept back");
    assert!(bench.is_paused());
    bench.gateway.deliver(CLIENT, 0, &Outcome::Pong);
    bench.gateway.on_turn();
    assert!(bench.is_paused() && bench.api.tickets.borrow().len() == 4, "there is no room yet");
    waiting.set(0);
    bench.gateway.on_turn();
    assert!(!bench.is_paused());
    assert_eq!(bench.api.tickets.borrow().len(), 8);
    (1..8).for_each(|request_id| bench.gateway.deliver(CLIENT, request_id, &Outcome::Pong));
    assert_eq!(bench.replies().len(), 8);
}

#[test]
fn connections_that_wait_go_on_one_for_each_request_that_found_room() {
    let (bench, waiting) = crowded();
    let other = ConnectionId { slot: CLIENT.slot + 1, ..CLIENT };
    bench.gateway.on_accepted(other);
    bench.gateway.on_received(other, &hello(CREDENTIAL));
    for (id, first) in [(CLIENT, 10), (other, 20)] {
        let input = [frame_of(first, Request::Stats), pings(first + 1..first + 3)].concat();
        bench.gateway.on_received(id, &input);
    }
    assert_eq!((waiting.get(), bench.api.tickets.borrow().len()), (2, 2));
    waiting.set(1);
    bench.gateway.on_turn();
    assert_eq!(bench.api.tickets.borrow().len(), 4, "the first to wait is the first to go on");
    assert!(!bench.is_paused() && bench.net.with(other, |socket| socket.paused));
    bench.gateway.on_closed(other);
    waiting.set(0);
    bench.gateway.on_turn();
    assert_eq!(bench.api.tickets.borrow().len(), 4, "what a connection that is gone had kept back is not carried out");
}

#[test]
fn half_closing_or_draining_while_a_request_waits_for_another_shard_ends_well() {
    for drains in [false, true] {
        let (bench, waiting) = crowded();
        bench.receive(&[frame_of(0, Request::Stats), pings(1..3)].concat());
        if drains {
            bench.gateway.drain();
        } else {
            bench.gateway.on_end_of_input(CLIENT);
        }
        waiting.set(0);
        bench.gateway.on_turn();
        let accepted = if drains { 1 } else { 3 };
        assert_eq!(bench.api.tickets.borrow().len(), accepted);
        for request_id in 0..accepted as u64 {
            assert!(!bench.is_closed());
            bench.gateway.deliver(CLIENT, request_id, &Outcome::Pong);
        }
        assert!(bench.is_closed());
        let replies = bench.replies();
        assert_eq!(replies.len(), 3, "what was kept back is answered too");
        let told =
            |reply: &(u64, Reply)| matches!(&reply.1, Reply::Error(error) if error.code == ErrorCode::Unavailable);
        assert_eq!(replies.iter().filter(|reply| told(reply)).count(), 3 - accepted);
    }
}

#[test]
fn a_half_closed_client_gets_what_it_is_owed() {
    let bench = Bench::welcomed(|_| None);
    bench.receive(&pings(0..3));
    bench.gateway.on_end_of_input(CLIENT);
    for request_id in [2, 0, 1] {
        assert!(!bench.is_closed());
        bench.gateway.deliver(CLIENT, request_id, &Outcome::Pong);
    }
    assert!(bench.is_closed());
    assert_eq!(bench.replies(), [(2, Reply::Pong), (0, Reply::Pong), (1, Reply::Pong)]);

    let bench = Bench::welcomed(|_| None);
    bench.gateway.on_end_of_input(CLIENT);
    assert!(bench.is_closed());
}

#[test]
fn half_closing_while_requests_are_held_back_loses_none() {
    let bench = Bench::welcomed(|command| matches!(command, Command::Ping).then_some(Outcome::Pong));
    bench.net.with(CLIENT, |socket| socket.unsent_bytes = OUTPUT_BYTES_MAX + 1);
    bench.receive(&pings(0..5));
    bench.gateway.on_end_of_input(CLIENT);
    assert!(!bench.is_closed());
    bench.net.with(CLIENT, |socket| socket.unsent_bytes = 0);
    bench.gateway.on_drained(CLIENT);
    assert_eq!(bench.replies().len(), 5);
    assert!(bench.is_closed());
}

#[test]
fn ending_within_a_frame_is_told() {
    let bench = Bench::welcomed(|_| Some(Outcome::Pong));
    let frame = frame_of(1, Request::Ping);
    bench.receive(&frame[..frame.len() - 1]);
    bench.gateway.on_end_of_input(CLIENT);
    assert_eq!(bench.error(), (0, ErrorCode::BadRequest));
    assert!(bench.is_closed());
}

#[test]
fn outcomes_for_a_connection_that_is_gone_are_dropped() {
    let bench = Bench::welcomed(|_| None);
    bench.request(4, Request::Ping);
    let Some(&Ticket::Wire { connection, request_id: 4 }) = bench.api.tickets.borrow().last() else {
        panic!("a wire ticket was due")
    };
    assert_eq!(ConnectionId::from_u64(connection), CLIENT);
    bench.gateway.on_closed(CLIENT);
    assert_eq!(bench.gateway.connections(), 0);
    let successor = ConnectionId { generation: CLIENT.generation + 1, ..CLIENT };
    bench.gateway.on_accepted(successor);
    bench.gateway.deliver(CLIENT, 4, &Outcome::Pong);
    assert!(bench.net.with(successor, |socket| socket.sent.is_empty()));
    assert!(bench.replies().is_empty());
}

#[test]
fn a_panic_is_answered_and_counted_and_the_connection_goes_on() {
    let bench = Bench::welcomed(|command| match command {
        Command::Stats => panic!("planted"),
        _ => Some(Outcome::Pong),
    });
    bench.request(1, Request::Stats);
    assert_eq!(bench.error(), (1, ErrorCode::Internal));
    assert_eq!(bench.figures().panics_caught.value(), 1);
    bench.request(2, Request::Ping);
    assert_eq!(bench.reply(), (2, Reply::Pong));
}

#[test]
fn a_drain_finishes_what_was_accepted_and_takes_nothing_more() {
    let bench = Bench::welcomed(|_| None);
    bench.receive(&pings(0..2));
    bench.receive(&pings(2..3)[..9]);
    bench.gateway.drain();
    assert!(bench.is_paused() && !bench.is_closed());
    bench.receive(&pings(3..4));
    assert_eq!(bench.api.tickets.borrow().len(), 2);
    bench.gateway.deliver(CLIENT, 0, &Outcome::Pong);
    assert!(!bench.is_closed());
    bench.gateway.deliver(CLIENT, 1, &Outcome::Pong);
    assert!(bench.is_closed());
    assert_eq!(bench.replies().len(), 2);

    let idle = Bench::welcomed(|_| None);
    idle.gateway.drain();
    assert!(idle.is_closed());
}

#[test]
fn requests_are_counted_by_kind_and_one_a_piece_is_timed() {
    let bench = Bench::welcomed(|command| matches!(command, Command::Ping).then_some(Outcome::Pong));
    bench.receive(&pings(0..10));
    bench.request(11, Request::Stats);
    bench.clock.0.set(5_000);
    bench.gateway.deliver(CLIENT, 11, &Outcome::Pong);
    let figures = bench.figures();
    let count = |kind: &str| {
        let index = crate::gateway::wire::WIRE_REQUEST_KINDS.iter().position(|name| *name == kind).unwrap();
        figures.wire_requests[index].value()
    };
    assert_eq!((count("hello"), count("ping"), count("stats"), count("malformed")), (1, 10, 1, 0));
    assert_eq!(figures.request_ns.bucket_counts().iter().sum::<u64>(), 2);
    assert_eq!(figures.request_ns.sum(), 5_000);
}

fn deadlines(bench: &Bench) -> Vec<u64> {
    let set = bench.net.with(CLIENT, |socket| std::mem::take(&mut socket.deadlines));
    set.into_iter().map(|after| after.unwrap_or(Duration::ZERO).as_millis() as u64).collect()
}

#[test]
fn deadlines_fit_the_state_and_are_not_set_for_each_request() {
    let bench = Bench::new(|_| Some(Outcome::Pong));
    assert_eq!(deadlines(&bench), [HELLO_TIMEOUT_MS]);
    let hello = hello(CREDENTIAL);
    bench.receive(&hello[..10]);
    bench.clock.0.set(SECOND_NS);
    bench.receive(&hello[10..20]);
    assert_eq!(deadlines(&bench), [] as [u64; 0], "a trickling Hello gains no time");
    bench.receive(&hello[20..]);
    let idle = IDLE_TIMEOUT_MS + IDLE_TIMEOUT_MS / 16;
    assert_eq!(deadlines(&bench), [idle]);
    for request_id in 0..100 {
        bench.request(request_id, Request::Ping);
    }
    assert_eq!(deadlines(&bench), [] as [u64; 0]);
    bench.clock.0.set(100 * SECOND_NS);
    bench.request(100, Request::Ping);
    assert_eq!(deadlines(&bench), [idle]);

    let frame = frame_of(101, Request::Ping);
    bench.receive(&frame[..5]);
    assert_eq!(deadlines(&bench), [REQUEST_TIMEOUT_MS + REQUEST_TIMEOUT_MS / 16]);
    for position in 5..frame.len() - 1 {
        bench.clock.0.set((101 + position as u64) * SECOND_NS);
        bench.receive(&frame[position..=position]);
    }
    assert_eq!(deadlines(&bench), [] as [u64; 0], "a trickling request gains no time");
    bench.receive(&frame[frame.len() - 1..]);
    assert_eq!(deadlines(&bench), [idle]);
}

#[test]
fn looking_ahead_names_what_whole_frames_ask_for_and_does_nothing() {
    let bench = Bench::welcomed(|_| panic!("nothing was asked yet"));
    let get = frame_of(1, Request::Get { schema: "s", key: "one" });
    let put = frame_of(2, Request::Put { schema: "s", key: "two", document: b"{}", condition: Ask::IfAbsent });
    let listing = frame_of(3, Request::Schemas);
    let burst = [&get[..], &listing, &put, &get[..get.len() - 1]].concat();
    let arrivals = [&burst[..], &get[7..], b"no frame at all", &[0xff; 64], b"", &put];
    bench.gateway.look_ahead(&mut arrivals.into_iter());
    let expected = [("one", Access::Read), ("two", Access::Write), ("two", Access::Write)];
    assert_eq!(bench.api.ahead.take(), expected.map(|(key, access)| ("s".to_owned(), key.to_owned(), access)));
    assert_eq!(bench.replies(), []);
}
