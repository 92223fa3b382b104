//! The blocking client against a scripted server.

mod fake_server;

use delta_wire::client::{Address, Client, ClientError, ClientOptions, Credential, ListQuery, Reconnect};
use delta_wire::encode;
use delta_wire::generated::{self as tables, Body, Frame};
use delta_wire::{Condition, ErrorCode, Reply, Stored, Written, slot_of};
use fake_server::{FakeServer, Peer, Then, Topology, serve_unix};
use std::net::SocketAddr;
use std::time::Duration;

fn options(address: SocketAddr) -> ClientOptions {
    let mut options = ClientOptions::new(Address::Tcp(address));
    options.credential = Some(Credential::new("key"));
    options.reconnect.delay_first = Duration::from_millis(1);
    options
}

fn connect(server: &FakeServer) -> Client {
    Client::connect(options(server.address)).unwrap()
}

/// Answers everything plausibly: documents echo the key.
fn obliging(frame: &Frame<'_>, peer: &mut Peer) -> Then {
    let request_id = frame.request_id();
    match frame.body_type() {
        Body::Get => match frame.body_as_get().unwrap().key() {
            "missing" => peer.error(request_id, ErrorCode::NotFound),
            key => encode::document(&mut peer.out, request_id, 7, key.as_bytes()),
        },
        Body::Put => encode::written(&mut peer.out, request_id, 8, true),
        Body::Delete => peer.scratch.frame(&mut peer.out, request_id, Body::Deleted, |builder| {
            tables::Deleted::create(builder, &tables::DeletedArgs { version: 9 }).as_union_value()
        }),
        Body::List => peer.scratch.frame(&mut peer.out, request_id, Body::Page, |builder| {
            let key = Some(builder.create_string("a"));
            let entry = tables::PageEntry::create(builder, &tables::PageEntryArgs { key, version: 1, content: None });
            let entries = Some(builder.create_vector(&[entry]));
            tables::Page::create(builder, &tables::PageArgs { entries, next: key }).as_union_value()
        }),
        Body::SchemaPut => peer.scratch.frame(&mut peer.out, request_id, Body::TemplateChanged, |builder| {
            let args = tables::TemplateChangedArgs { created: true };
            tables::TemplateChanged::create(builder, &args).as_union_value()
        }),
        Body::RotateKey => peer.scratch.frame(&mut peer.out, request_id, Body::KeyRotated, |builder| {
            let key_id = Some(builder.create_string("k2"));
            tables::KeyRotated::create(builder, &tables::KeyRotatedArgs { key_id }).as_union_value()
        }),
        Body::Ping => peer.pong(request_id),
        _ => peer.error(request_id, ErrorCode::Forbidden),
    }
    Then::Continue
}

fn check_obliging(client: &mut Client) {
    assert_eq!(client.get("s", "k").unwrap(), Some(Stored { version: 7, content: b"k".to_vec() }));
    assert_eq!(client.get("s", "missing").unwrap(), None);
    assert_eq!(client.put("s", "k", b"1", Condition::IfAbsent).unwrap(), Written { version: 8, created: true });
    assert_eq!(client.delete("s", "k", Condition::None).unwrap(), 9);
    let page = client.list(&ListQuery { schema: "s", ..ListQuery::default() }).unwrap();
    assert_eq!((page.entries.len(), page.next.as_deref()), (1, Some("a")));
    assert!(client.schema_put("s", b"true").unwrap());
    assert_eq!(client.rotate_key().unwrap(), "k2");
    client.ping().unwrap();
    assert_eq!(client.stats().unwrap_err().code(), Some(ErrorCode::Forbidden));
    assert_eq!(client.welcome().store_id, "store");
}

#[test]
fn typed_calls_over_tcp_and_unix_sockets() {
    check_obliging(&mut connect(&FakeServer::start(obliging)));
    let directory = std::env::temp_dir().join(format!("delta-wire-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("socket");
    serve_unix(&path, obliging);
    let mut unix = options("127.0.0.1:1".parse().unwrap());
    unix.address = Address::Unix(path);
    let mut client = Client::connect(unix).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    check_obliging(&mut client);
}

#[test]
fn a_wrong_credential_and_a_wrong_address_show_at_once() {
    let server = FakeServer::start(obliging);
    let mut wrong = options(server.address);
    wrong.credential = Some(Credential::new("guess"));
    assert_eq!(Client::connect(wrong).err().unwrap().code(), Some(ErrorCode::Unauthenticated));

    let nobody = FakeServer::bind().address;
    assert!(matches!(Client::connect(options(nobody)), Err(ClientError::Connection { .. })));
}

#[test]
fn replies_out_of_order_find_their_requests() {
    // Nothing is answered before all have come, then in reverse.
    let server = FakeServer::start(|frame, peer| {
        peer.held.push(frame.request_id());
        if peer.held.len() == 16 {
            for request_id in std::mem::take(&mut peer.held).into_iter().rev() {
                encode::document(&mut peer.out, request_id, request_id, b"{}");
            }
        }
        Then::Continue
    });
    let mut client = connect(&server);
    for batch in 0..3 {
        let mut pipeline = client.pipeline();
        for place in 0..16 {
            assert_eq!(pipeline.get("s", "k"), place);
        }
        let versions: Vec<_> = pipeline
            .run()
            .into_iter()
            .map(|result| match result {
                Ok(Reply::Document(stored)) => stored.version,
                other => panic!("a document was due, not {other:?}"),
            })
            .collect();
        let first = 2 + 16 * batch;
        assert_eq!(versions, (first..first + 16).collect::<Vec<_>>());
    }
}

#[test]
fn neither_side_blocks_the_other_in_a_large_pipeline() {
    let document = vec![b'7'; 16 << 10];
    let server = FakeServer::start({
        let document = document.clone();
        move |frame, peer| {
            encode::document(&mut peer.out, frame.request_id(), 1, &document);
            Then::Continue
        }
    });
    let mut client = connect(&server);
    let mut pipeline = client.pipeline();
    for _ in 0..1500 {
        pipeline.put("s", "k", &document, Condition::None);
    }
    let results = pipeline.run();
    assert!(results.iter().all(|result| matches!(result, Ok(Reply::Document(_)))));
}

#[test]
fn a_timeout_is_a_timeout_for_a_read_and_an_unknown_outcome_for_a_write() {
    let server = FakeServer::start(|_, _| Then::Continue);
    let mut impatient = options(server.address);
    impatient.request_timeout = Duration::from_millis(30);
    let mut client = Client::connect(impatient).unwrap();
    assert_eq!(client.get("s", "k"), Err(ClientError::Timeout { waited: Duration::from_millis(30) }));
    let lost = client.put("s", "k", b"1", Condition::None);
    assert!(matches!(lost, Err(ClientError::OutcomeUnknown { .. })), "{lost:?}");
    assert_eq!((server.count(Body::Get), server.count(Body::Put)), (1, 1));
}

#[test]
fn a_write_whose_reply_was_lost_is_never_sent_again() {
    let server = FakeServer::start(|frame, peer| match frame.body_type() {
        Body::Ping => obliging(frame, peer),
        _ => Then::Close,
    });
    let mut client = connect(&server);
    type Write = fn(&mut Client) -> ClientError;
    let writes: [(Body, Write); 5] = [
        (Body::Put, |client| client.put("s", "k", b"1", Condition::None).unwrap_err()),
        (Body::Delete, |client| client.delete("s", "k", Condition::None).unwrap_err()),
        (Body::MultiPut, |client| client.multi_put("s", &[("k", b"1")]).unwrap_err()),
        (Body::SchemaPut, |client| client.schema_put("s", b"1").unwrap_err()),
        (Body::RotateKey, |client| client.rotate_key().unwrap_err()),
    ];
    for (kind, write) in writes {
        let error = write(&mut client);
        assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error:?}");
        assert_eq!(error.code(), Some(ErrorCode::OutcomeUnknown));
        assert_eq!(server.count(kind), 1);
        client.ping().expect("the client connects anew");
    }
}

#[test]
fn a_lost_read_is_sent_again() {
    let server = FakeServer::start(|frame, peer| match peer.number {
        0 | 1 => Then::Close,
        _ => obliging(frame, peer),
    });
    let mut client = connect(&server);
    assert_eq!(client.get("s", "k").unwrap().unwrap().version, 7);
    assert_eq!(server.count(Body::Get), 3);

    let stubborn = FakeServer::start(|_, _| Then::Close);
    let mut hasty = options(stubborn.address);
    hasty.reconnect = Reconnect::never();
    let mut client = Client::connect(hasty).unwrap();
    assert!(matches!(client.get("s", "k"), Err(ClientError::Connection { .. })));
    assert_eq!(stubborn.count(Body::Get), 1);
}

#[test]
fn in_a_lost_pipeline_answered_requests_keep_their_answers() {
    let server = FakeServer::start(|frame, peer| {
        if peer.number > 0 || frame.body_type() == Body::Ping {
            return obliging(frame, peer);
        }
        Then::Close
    });
    let mut client = connect(&server);
    let mut pipeline = client.pipeline();
    pipeline.push(delta_wire::Request::Ping);
    pipeline.put("s", "k", b"1", Condition::None);
    pipeline.get("s", "k");
    let results = pipeline.run();
    assert_eq!(results[0], Ok(Reply::Pong));
    assert!(matches!(results[1], Err(ClientError::OutcomeUnknown { .. })), "{:?}", results[1]);
    assert!(matches!(results[2], Ok(Reply::Document(_))), "the read is sent again: {:?}", results[2]);
    assert_eq!((server.count(Body::Ping), server.count(Body::Put)), (1, 1));
}

#[test]
fn a_connection_that_ended_while_idle_is_replaced_before_a_write() {
    // The first connection is closed right after it answered.
    let server = FakeServer::start(|frame, peer| {
        obliging(frame, peer);
        if peer.number == 0 { Then::Close } else { Then::Continue }
    });
    let mut client = connect(&server);
    client.ping().unwrap();
    assert_eq!(server.closed.recv(), Ok(0));
    assert_eq!(client.put("s", "k", b"1", Condition::None).unwrap().version, 8);
    assert_eq!(*server.seen.lock().unwrap(), [(Body::Ping, 0), (Body::Put, 1)]);
}

#[test]
fn what_is_not_the_protocol_is_called_so() {
    let nonsense: [fn(&mut Peer, u64); 4] = [
        |peer, _| peer.out.extend_from_slice(&[255; 64]),
        |peer, _| peer.out.extend_from_slice(&[16, 0, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        |peer, request_id| peer.pong(request_id + 1),
        |peer, request_id| peer.scratch.empty(&mut peer.out, request_id, Body::Ping),
    ];
    for reply in nonsense {
        let server = FakeServer::start(move |frame, peer| {
            reply(peer, frame.request_id());
            Then::Continue
        });
        let mut client = connect(&server);
        let read = client.get("s", "k");
        assert!(matches!(read, Err(ClientError::Protocol { .. })), "{read:?}");
        let write = client.put("s", "k", b"1", Condition::None);
        assert!(matches!(write, Err(ClientError::OutcomeUnknown { .. })), "{write:?}");
        assert_eq!(server.count(Body::Put), 1);
    }
}

#[test]
fn an_error_about_the_connection_is_shown_to_who_waits() {
    let server = FakeServer::start(|_, peer| {
        peer.error(0, ErrorCode::Overloaded);
        Then::Close
    });
    let mut client = connect(&server);
    assert_eq!(client.get("s", "k").unwrap_err().code(), Some(ErrorCode::Overloaded));
    let write = client.put("s", "k", b"1", Condition::None);
    assert!(matches!(write, Err(ClientError::OutcomeUnknown { .. })), "{write:?}");
}

#[test]
fn too_large_is_refused_before_it_is_sent() {
    let server = FakeServer::start(obliging);
    let mut client = connect(&server);
    let document = vec![b' '; (1 << 20) + 1];
    let refused = ClientError::TooLarge { size_bytes: document.len(), size_bytes_max: 1 << 20 };
    assert_eq!(client.put("s", "k", &document, Condition::None), Err(refused));
    let half = &document[..600 << 10];
    let refused = client.multi_put("s", &[("a", half), ("b", half)]);
    assert!(matches!(refused, Err(ClientError::TooLarge { .. })), "{refused:?}");
    assert!(server.seen.lock().unwrap().is_empty());
    assert!(client.put("s", "k", &document[1..], Condition::None).is_ok());
}

#[test]
fn a_shard_aware_client_goes_straight_to_the_owner() {
    let bound = [FakeServer::bind(), FakeServer::bind()];
    let addresses = [bound[0].address, bound[1].address];
    let shards = vec![(0, 99, Some(addresses[0])), (100, 255, Some(addresses[1]))];
    let mut shard = 0;
    let servers = bound.map(|bound| {
        let topology = Topology { hash_seed: 5, shard, shards: shards.clone() };
        shard += 1;
        bound.serve(topology, obliging)
    });
    let mut aware = options(addresses[0]);
    aware.shard_aware = true;
    let mut client = Client::connect(aware).unwrap();
    let keys: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let mut owned = [0, 0];
    for key in &keys {
        owned[usize::from(slot_of(5, "s", key) > 99)] += 1;
        client.put("s", key, b"1", Condition::None).unwrap();
    }
    assert_eq!([servers[0].count(Body::Put), servers[1].count(Body::Put)], owned);
    let mut pipeline = client.pipeline();
    keys.iter().for_each(|key| {
        pipeline.get("s", key);
    });
    for (result, key) in pipeline.run().into_iter().zip(&keys) {
        assert_eq!(result, Ok(Reply::Document(Stored { version: 7, content: key.clone().into_bytes() })));
    }
    assert_eq!([servers[0].count(Body::Get), servers[1].count(Body::Get)], owned);
    assert!(owned[0] > 0 && owned[1] > 0);
}

#[test]
fn a_shard_that_cannot_be_reached_is_served_by_the_primary() {
    let nobody = FakeServer::bind().address;
    let topology = Topology { hash_seed: 5, shard: 0, shards: vec![(0, 99, None), (100, 255, Some(nobody))] };
    let server = FakeServer::bind().serve(topology, obliging);
    let mut aware = options(server.address);
    aware.shard_aware = true;
    let mut client = Client::connect(aware).unwrap();
    for number in 0..20 {
        client.put("s", &number.to_string(), b"1", Condition::None).unwrap();
    }
    assert_eq!(server.count(Body::Put), 20);
}

#[test]
fn a_request_whose_route_went_while_others_were_opened_is_not_taken_for_done() {
    // The primary comes back with other slot ranges, which ends the link to the shard that a request was meant for.
    let key_in = |slots: std::ops::RangeInclusive<u8>| {
        (0..).map(|number: u32| number.to_string()).find(|key| slots.contains(&slot_of(5, "s", key))).unwrap()
    };
    let (of_primary, of_shard) = (key_in(0..=80), key_in(120..=255));
    for reconnect in [Reconnect::never(), Reconnect::default()] {
        let shard = FakeServer::bind();
        let topology = |cut: u8| Topology {
            hash_seed: 5,
            shard: 0,
            shards: vec![(0, cut, None), (cut + 1, 255, Some(shard.address))],
        };
        let primary = FakeServer::bind().serve_changing(vec![topology(99), topology(89)], |frame, peer| {
            obliging(frame, peer);
            if peer.number == 0 { Then::Close } else { Then::Continue }
        });
        let of_the_shard = topology(99);
        let shard = shard.serve(of_the_shard, obliging);
        let mut client =
            Client::connect(ClientOptions { shard_aware: true, reconnect, ..options(primary.address) }).unwrap();
        client.get("s", &of_shard).unwrap();
        client.ping().unwrap();
        assert_eq!(primary.closed.recv(), Ok(0));
        let mut pipeline = client.pipeline();
        pipeline.put("s", &of_shard, b"1", Condition::None);
        pipeline.put("s", &of_primary, b"1", Condition::None);
        let results = pipeline.run();
        let sent = shard.count(Body::Put);
        match &results[0] {
            Ok(Reply::Written(_)) => assert_eq!(sent, 1),
            Err(ClientError::Connection { .. }) => assert_eq!((sent, reconnect), (0, Reconnect::never())),
            other => panic!("a write that was not sent came to {other:?}"),
        }
        assert!(matches!(results[1], Ok(Reply::Written(_))), "{:?}", results[1]);
    }
}
