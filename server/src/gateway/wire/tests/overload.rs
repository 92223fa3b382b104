//! Too many, too slow, too much: each is told so before it ends, and only those that hold much are refused.

use super::fakes::{Bench, CLIENT, CREDENTIAL, frame_of, hello};
use crate::command::{Command, Document, EntityRef, ErrorCode, Outcome};
use crate::limits::{COPY_BYTES_MAX, INPUT_BYTES_SHARD_MAX, OUTPUT_BYTES_MAX, OUTPUT_BYTES_MIN};
use crate::runtime::net::ConnectionId;
use delta_wire::{Condition, FrameDecoder, Reply, Request, decode_reply};

fn pong(_: Command<'static>) -> Option<Outcome> {
    Some(Outcome::Pong)
}

#[test]
fn a_deadline_that_passes_is_told_before_the_end() {
    let bench = Bench::new(pong);
    bench.gateway.on_expired(CLIENT);
    assert_eq!(bench.error(), (0, ErrorCode::RequestTimeout));
    assert!(bench.is_closed());

    let bench = Bench::welcomed(pong);
    bench.receive(&frame_of(2, Request::Ping)[..9]);
    bench.gateway.on_expired(CLIENT);
    assert_eq!(bench.error(), (0, ErrorCode::RequestTimeout));
    assert!(bench.is_closed());
    bench.gateway.on_expired(CLIENT);
    assert!(bench.replies().is_empty(), "it is told once");
}

#[test]
fn what_is_owed_when_a_deadline_passes_is_still_sent() {
    let bench = Bench::welcomed(|_| None);
    bench.request(2, Request::Ping);
    bench.gateway.on_expired(CLIENT);
    assert_eq!(bench.error(), (0, ErrorCode::RequestTimeout));
    assert!(!bench.is_closed());
    bench.gateway.deliver(CLIENT, 2, &Outcome::Pong);
    assert_eq!(bench.reply(), (2, Reply::Pong));
    assert!(bench.is_closed());
}

#[test]
fn a_frame_that_is_not_read_for_want_of_output_is_not_late() {
    let deadline_of = |unsent_bytes: usize| {
        let bench = Bench::welcomed(pong);
        bench.net.with(CLIENT, |socket| socket.unsent_bytes = unsent_bytes);
        bench.receive(&frame_of(2, Request::Ping)[..9]);
        bench.net.with(CLIENT, |socket| socket.deadlines.last().copied().flatten())
    };
    assert!(deadline_of(0) < deadline_of(OUTPUT_BYTES_MAX + 1));
}

#[test]
fn who_finds_no_room_is_told_so() {
    let bench = Bench::new(pong);
    bench.gateway.on_turned_away(CLIENT);
    assert_eq!(bench.error(), (0, ErrorCode::Overloaded));
    assert!(bench.is_closed());
}

#[test]
fn while_all_owe_too_much_only_large_replies_are_refused() {
    let document = |bytes: usize| {
        let document = Document::new(EntityRef { schema: "s", key: "k" }, &vec![b'1'; bytes]);
        Some(Outcome::Document { version: 1, document })
    };
    let bench = Bench::welcomed(move |command| match command {
        Command::Ping => document(OUTPUT_BYTES_MIN),
        _ => document(OUTPUT_BYTES_MIN + 1),
    });
    bench.request(2, Request::Stats);
    assert!(matches!(bench.reply(), (2, Reply::Document(_))));
    bench.net.with(CLIENT, |socket| socket.all_owe_too_much = true);
    bench.request(3, Request::Stats);
    assert_eq!(bench.error(), (3, ErrorCode::Overloaded));
    bench.request(4, Request::Ping);
    assert!(matches!(bench.reply(), (4, Reply::Document(_))), "a smaller one is given");
    const { assert!(OUTPUT_BYTES_MIN > COPY_BYTES_MAX) };
    assert!(!bench.is_closed());
}

#[test]
fn input_that_waits_is_bounded_over_all_connections() {
    let bench = Bench::new(pong);
    let document = vec![b'1'; 120 << 10];
    let put = Request::Put { schema: "s", key: "k", document: &document, condition: Condition::None };
    let frame = frame_of(2, put);
    let part = &frame[..frame.len() - 1];
    let id = |slot| ConnectionId { slot, generation: 1 };
    let begin = |slot, bytes: &[u8]| {
        bench.gateway.on_accepted(id(slot));
        bench.gateway.on_received(id(slot), &hello(CREDENTIAL));
        bench.gateway.on_received(id(slot), bytes);
        bench.net.with(id(slot), |socket| socket.closed)
    };
    let fit = (INPUT_BYTES_SHARD_MAX / part.len()) as u32;
    assert!((10..10 + fit).all(|slot| !begin(slot, part)), "as many as fit are kept");
    assert!(begin(10 + fit, part), "one more is not");
    let sent = bench.net.with(id(10 + fit), |socket| std::mem::take(&mut socket.sent));
    let (mut decoder, mut input, mut last) = (FrameDecoder::new(), &sent[..], None);
    while let Some(frame) = decoder.next(&mut input, 1 << 20).unwrap() {
        last = Some(decode_reply(frame).unwrap());
    }
    assert!(matches!(last, Some((0, Reply::Error(error))) if error.code == ErrorCode::Overloaded));
    bench.gateway.on_closed(id(10 + fit));
    assert!(!begin(11 + fit, &part[..1000]), "one that holds little is kept");
    // Whoever sends the rest, or goes, makes room.
    bench.gateway.on_received(id(10), &frame[frame.len() - 1..]);
    bench.gateway.on_closed(id(11));
    assert!(!begin(12 + fit, part));
    assert!(!begin(13 + fit, &part[..part.len() - 2000]));
    assert!(begin(14 + fit, part));
}
