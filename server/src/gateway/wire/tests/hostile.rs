//! Whatever a peer may send: it is told so, and nothing else happens.

use super::fakes::{BODY_BYTES_MAX, Bench, CREDENTIAL, frame_of, hello};
use crate::command::{Command, ErrorCode, Outcome};
use crate::limits::{FRAME_OVERHEAD_BYTES_MAX, MULTI_KEYS_MAX};
use delta_wire::encode::Scratch;
use delta_wire::generated::{self as tables, Body};
use delta_wire::{Condition, Reply, Request};
use proptest::prelude::*;

fn pong(_: Command<'static>) -> Option<Outcome> {
    Some(Outcome::Pong)
}

#[test]
fn before_hello_nothing_else_is_taken() {
    let bench = Bench::new(pong);
    bench.request(6, Request::Ping);
    assert_eq!(bench.error(), (6, ErrorCode::Unauthenticated));
    assert!(bench.is_closed());

    let bench = Bench::new(pong);
    bench.receive(&hello(b"the wrong key"));
    assert_eq!(bench.error(), (1, ErrorCode::Unauthenticated));
    assert!(bench.is_closed());

    let bench = Bench::new(pong);
    bench.receive(&hello(&[b'x'; 5000]));
    assert_eq!(bench.error(), (0, ErrorCode::TooLarge));
    assert!(bench.is_closed());
    assert!(bench.api.tickets.borrow().is_empty());
}

#[test]
fn another_protocol_number_is_refused_by_name() {
    let mut out = Vec::new();
    Scratch::new().frame(&mut out, 2, Body::Hello, |builder| {
        let credential = Some(builder.create_vector(CREDENTIAL));
        tables::Hello::create(builder, &tables::HelloArgs { protocol: 2, credential }).as_union_value()
    });
    let bench = Bench::new(pong);
    bench.receive(&out);
    assert_eq!(bench.error(), (2, ErrorCode::UnsupportedProtocol));
    assert!(bench.is_closed());
}

#[test]
fn what_is_no_request_ends_the_connection_with_its_id() {
    let mut unknown = Vec::new();
    Scratch::new().empty(&mut unknown, 21, Body(63));
    let mut reply = Vec::new();
    Scratch::new().empty(&mut reply, 22, Body::Pong);
    let mut condition = Vec::new();
    Scratch::new().frame(&mut condition, 23, Body::Delete, |builder| {
        let name = Some(builder.create_string("n"));
        let args = tables::DeleteArgs { schema: name, key: name, condition: tables::Condition(9), version: 0 };
        tables::Delete::create(builder, &args).as_union_value()
    });
    for (request_id, frame) in [(21, unknown), (22, reply), (23, condition), (1, hello(CREDENTIAL))] {
        let bench = Bench::welcomed(pong);
        bench.receive(&frame);
        assert_eq!(bench.error(), (request_id, ErrorCode::BadRequest));
        assert!(bench.is_closed());
        assert!(bench.api.tickets.borrow().is_empty());
        bench.request(30, Request::Ping);
        assert!(bench.replies().is_empty(), "nothing is taken any more");
    }
}

#[test]
fn required_fields_and_utf8_are_required() {
    let mut no_key = Vec::new();
    // A table without fields where Get is announced.
    Scratch::new().empty(&mut no_key, 1, Body::Get);
    let mut not_utf8 = frame_of(1, Request::Get { schema: "abcd", key: "k" });
    let position = not_utf8.windows(4).position(|bytes| bytes == b"abcd").unwrap();
    not_utf8[position] = 0xff;
    for frame in [no_key, not_utf8] {
        let bench = Bench::welcomed(pong);
        bench.receive(&frame);
        assert_eq!(bench.error(), (0, ErrorCode::BadRequest));
        assert!(bench.is_closed());
    }
}

#[test]
fn an_oversize_document_is_refused_and_an_oversize_frame_ends_the_connection() {
    let bench = Bench::welcomed(pong);
    let document = vec![b' '; BODY_BYTES_MAX + 1];
    let (schema, key) = ("s", "k");
    bench.request(1, Request::Put { schema, key, document: &document, condition: Condition::None });
    assert_eq!(bench.error(), (1, ErrorCode::TooLarge));
    bench.request(2, Request::MultiPut { schema, items: &[(key, b"1"), (key, &document)] });
    assert_eq!(bench.error(), (2, ErrorCode::TooLarge));
    bench.request(3, Request::SchemaPut { id: schema, template: &document });
    assert_eq!(bench.error(), (3, ErrorCode::TooLarge));
    bench.request(4, Request::MultiGet { schema, keys: &vec!["k"; MULTI_KEYS_MAX + 1] });
    assert_eq!(bench.error(), (4, ErrorCode::TooLarge));
    assert!(bench.api.tickets.borrow().is_empty());
    bench.request(5, Request::Put { schema, key, document: &document[..BODY_BYTES_MAX], condition: Condition::None });
    assert_eq!(bench.reply(), (5, Reply::Pong));

    let announced = (BODY_BYTES_MAX + FRAME_OVERHEAD_BYTES_MAX + 1) as u32;
    bench.receive(&announced.to_le_bytes());
    assert_eq!(bench.error(), (0, ErrorCode::TooLarge));
    assert!(bench.is_closed());
}

#[test]
fn shared_offsets_that_unfold_into_more_are_refused() {
    let mut out = Vec::new();
    Scratch::new().frame(&mut out, 1, Body::MultiGet, |builder| {
        let schema = Some(builder.create_string("s"));
        let key = builder.create_string(&"k".repeat(4000));
        let keys = Some(builder.create_vector(&[key; 1000]));
        tables::MultiGet::create(builder, &tables::MultiGetArgs { schema, keys }).as_union_value()
    });
    let bench = Bench::welcomed(pong);
    bench.receive(&out);
    assert_eq!(bench.error(), (0, ErrorCode::BadRequest));
    assert!(bench.is_closed());
}

/// One frame of every kind that has something to damage.
fn frames() -> Vec<Vec<u8>> {
    let (schema, key) = ("people", "a key");
    let condition = Condition::IfVersion(3);
    vec![
        frame_of(1, Request::Get { schema, key }),
        frame_of(2, Request::Put { schema, key, document: b"{\"a\":1}", condition }),
        frame_of(3, Request::Put { schema, key, document: b"{}", condition: Condition::None }),
        frame_of(4, Request::Delete { schema, key, condition }),
        frame_of(5, Request::MultiGet { schema, keys: &["a", "b", "c"] }),
        frame_of(6, Request::MultiPut { schema, items: &[("a", b"1"), ("b", b"2")] }),
        frame_of(7, Request::List { schema, prefix: "p", after: Some("q"), limit: 9, documents: true }),
        frame_of(8, Request::SchemaPut { id: schema, template: b"{}" }),
        frame_of(9, Request::Ping),
        hello(CREDENTIAL),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_frames_get_an_answer_or_an_end_and_never_a_panic(
        which in 0usize..10,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        is_welcome in any::<bool>(),
    ) {
        let bench = if is_welcome { Bench::welcomed(pong) } else { Bench::new(pong) };
        let mut frame = frames().swap_remove(which);
        for (position, value) in damage {
            // The length stays, so that the damage meets the verifier and not the framing.
            let position = 4 + position.index(frame.len() - 4);
            frame[position] = value;
        }
        let (first, second) = frame.split_at(cut.index(frame.len()));
        bench.receive(first);
        bench.receive(second);
        let replies = bench.replies();
        prop_assert_eq!(replies.len(), 1);
        prop_assert_eq!(bench.figures().panics_caught.value(), 0);
        let is_error = matches!(replies[0].1, Reply::Error(_));
        prop_assert_eq!(bench.is_closed(), is_error);
    }

    #[test]
    fn garbage_never_panics(garbage in prop::collection::vec(any::<u8>(), 0..300), is_welcome in any::<bool>()) {
        let bench = if is_welcome { Bench::welcomed(pong) } else { Bench::new(pong) };
        bench.receive(&garbage);
        bench.gateway.on_end_of_input(super::fakes::CLIENT);
        prop_assert!(bench.is_closed());
        bench.replies();
    }

    #[test]
    fn any_split_of_a_stream_gets_the_same_replies(cuts in prop::collection::vec(1usize..80, 1..10)) {
        let bench = Bench::welcomed(pong);
        let stream: Vec<u8> = frames().into_iter().take(9).flatten().collect();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            bench.receive(piece);
            rest = after;
        }
        let expected: Vec<_> = (1..=9).map(|request_id| (request_id, Reply::Pong)).collect();
        prop_assert_eq!(bench.replies(), expected);
    }
}
