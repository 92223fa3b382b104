//! The wire protocol with its own client, and what only raw frames can show.

use delta_tests::raw_wire::RawWire;
use delta_tests::{PATIENCE, TestServer, filler};
use delta_wire::client::{Address, Client, ClientError, ClientOptions, Credential, ListQuery};
use delta_wire::encode::Scratch;
use delta_wire::{Condition, ErrorCode, Reply, Request};

#[track_caller]
fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ErrorCode {
    result.expect_err("this must be refused").code().expect("the server gives a code")
}

#[test]
fn the_welcome_tells_limits_topology_and_permissions() {
    let server = TestServer::builder().shards(4).start();
    let client = server.wire_client();
    let welcome = client.welcome();
    assert_eq!(welcome.server_version, env!("CARGO_PKG_VERSION"));
    assert_eq!(welcome.shards.len(), 4);
    let mut next = 0;
    for shard in &welcome.shards {
        assert_eq!(u16::from(shard.first_slot), next, "slots are covered in order");
        next = u16::from(shard.last_slot) + 1;
        assert!(shard.address.is_some(), "each shard announces its own port");
    }
    assert_eq!(next, 256);
    assert_eq!(welcome.permissions, ["read", "write", "admin"]);
    assert_eq!(welcome.limits.document_bytes, 1 << 20);
}

#[test]
fn every_request_works_routed_and_unrouted() {
    let server = TestServer::builder().shards(3).start();
    for (round, mut client) in [server.wire_client(), server.wire_client_shard_aware()].into_iter().enumerate() {
        let schema = format!("s{round}");
        for n in 0..50 {
            let written = client.put(&schema, &format!("k{n:02}"), n.to_string().as_bytes(), Condition::IfAbsent);
            assert!(written.unwrap().created);
        }
        for n in 0..50 {
            let stored = client.get(&schema, &format!("k{n:02}")).unwrap().unwrap();
            assert_eq!(stored.content, n.to_string().as_bytes());
        }
        let results = client.multi_get(&schema, &["k00", "absent", "k49"]).unwrap();
        assert_eq!(results[0].as_ref().unwrap().content, b"0");
        assert_eq!(results[1].as_ref().unwrap_err().code, ErrorCode::NotFound);
        assert_eq!(results[2].as_ref().unwrap().content, b"49");
        let refused = client.multi_put(&schema, &[("k00", b"100"), ("bad", b"{"), ("new", b"1")]).unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::InvalidJson), "all are validated before any is written");
        assert_eq!(client.get(&schema, "k00").unwrap().unwrap().content, b"0");
        let results = client.multi_put(&schema, &[("k00", b"100"), ("new", b"1")]).unwrap();
        assert!(!results[0].as_ref().unwrap().created && results[1].as_ref().unwrap().created);
        let query = ListQuery { schema: &schema, prefix: "k", limit: 20, documents: true, ..ListQuery::default() };
        let page = client.list(&query).unwrap();
        assert_eq!((page.entries.len(), page.next.as_deref()), (20, Some("k19")));
        assert_eq!(page.entries[7].content.as_deref(), Some(&b"7"[..]));
        client.delete(&schema, "new", Condition::None).unwrap();
        assert_eq!(client.get(&schema, "new").unwrap(), None);
        assert!(client.schemas().unwrap().contains(&(schema.clone(), 50)));
        assert!(client.schema_put(&schema, br#"{"type":"integer"}"#).unwrap());
        assert_eq!(code(client.put(&schema, "k", b"\"x\"", Condition::None)), ErrorCode::SchemaViolation);
        assert_eq!(client.schema_get(&schema).unwrap().as_deref(), Some(&br#"{"type":"integer"}"#[..]));
        client.schema_delete(&schema).unwrap();
        client.ping().unwrap();
        client.stats().unwrap();
        client.rotate_key().unwrap();
    }
}

#[test]
fn refusals_have_the_codes_of_the_table() {
    let server = TestServer::start();
    let mut client = server.wire_client();
    let deep = format!("{}1{}", "[".repeat(129), "]".repeat(129));
    for (schema, key, document, expected) in [
        ("s", "k", &b"{"[..], ErrorCode::InvalidJson),
        ("s", "k", b"", ErrorCode::InvalidJson),
        ("s", "k", b"\"\xff\"", ErrorCode::InvalidJson),
        ("s", "k", deep.as_bytes(), ErrorCode::InvalidJson),
        ("", "k", b"1", ErrorCode::InvalidName),
        ("s", "", b"1", ErrorCode::InvalidName),
        ("s", "a/b", b"1", ErrorCode::InvalidName),
        ("..", "k", b"1", ErrorCode::InvalidName),
        ("s", "a\nb", b"1", ErrorCode::InvalidName),
    ] {
        assert_eq!(code(client.put(schema, key, document, Condition::None)), expected, "{schema:?} {key:?}");
    }
    assert_eq!(code(client.put("s", &"k".repeat(513), b"1", Condition::None)), ErrorCode::InvalidName);
    let version = client.put("s", "k", b"1", Condition::None).unwrap().version;
    assert_eq!(code(client.put("s", "k", b"2", Condition::IfAbsent)), ErrorCode::PreconditionFailed);
    assert_eq!(code(client.put("s", "k", b"2", Condition::IfVersion(version + 1))), ErrorCode::PreconditionFailed);
    assert_eq!(code(client.put("s", "new", b"2", Condition::IfPresent)), ErrorCode::PreconditionFailed);
    assert_eq!(code(client.delete("s", "absent", Condition::None)), ErrorCode::NotFound);
    assert_eq!(code(client.schema_put("s", br#"{"type":"nonsense"}"#)), ErrorCode::InvalidSchema);
    let large = format!("\"{}\"", filler(1 << 20, 1));
    assert_eq!(code(client.put("s", "k", large.as_bytes(), Condition::None)), ErrorCode::TooLarge);
    assert_eq!(client.get("s", "k").unwrap().unwrap().content, b"1");
}

#[test]
fn without_a_known_key_nothing_but_an_error_comes() {
    let server = TestServer::start();
    for credential in [None, Some(&b"wrong"[..]), Some(b"")] {
        let mut raw = RawWire::connect(server.wire);
        raw.hello(credential);
        match raw.receive() {
            Some((_, Reply::Error(error))) => assert_eq!(error.code, ErrorCode::Unauthenticated),
            other => panic!("{credential:?}: {other:?}"),
        }
        assert!(raw.is_closed());
    }
    let mut raw = RawWire::connect(server.wire);
    let mut frame = Vec::new();
    Scratch::new().request(&mut frame, 5, &Request::Ping);
    raw.send(&frame);
    assert!(!matches!(raw.receive(), Some((_, Reply::Pong))), "a request before Hello was served");
    assert!(raw.is_closed());
}

#[test]
fn pipelined_requests_are_each_answered_once_by_their_id() {
    let server = TestServer::builder().shards(2).start();
    let mut raw = RawWire::welcomed(server.wire);
    let (mut frames, mut scratch) = (Vec::new(), Scratch::new());
    for id in 0..2000u64 {
        let (key, document) = (format!("k{}", id % 100), id.to_string());
        let put = Request::Put { schema: "s", key: &key, document: document.as_bytes(), condition: Condition::None };
        scratch.request(&mut frames, 10_000 + id, if id % 3 == 0 { &Request::Ping } else { &put });
    }
    raw.send(&frames);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2000 {
        let (id, reply) = raw.receive().expect("a reply to each");
        assert!(matches!(reply, Reply::Pong | Reply::Written(_)), "{reply:?}");
        assert!(seen.insert(id), "{id} was answered twice");
    }
    assert_eq!((seen.first(), seen.last()), (Some(&10_000), Some(&11_999)));
}

#[test]
fn writes_of_one_key_in_a_pipeline_keep_their_order() {
    let server = TestServer::builder().shards(2).start();
    let mut client = server.wire_client();
    let documents: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let mut pipeline = client.pipeline();
    for document in &documents {
        pipeline.put("s", "k", document.as_bytes(), Condition::None);
    }
    let versions: Vec<u64> = pipeline
        .run()
        .iter()
        .map(|result| match result {
            Ok(Reply::Written(written)) => written.version,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(versions.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(client.get("s", "k").unwrap().unwrap().content, b"499");
}

#[test]
fn the_last_requests_before_the_end_of_input_are_answered() {
    let server = TestServer::start();
    let mut raw = RawWire::welcomed(server.wire);
    let mut frame = Vec::new();
    let put = Request::Put { schema: "s", key: "k", document: b"1", condition: Condition::None };
    Scratch::new().request(&mut frame, 3, &put);
    raw.send(&frame);
    raw.end_sending();
    assert!(matches!(raw.receive(), Some((3, Reply::Written(_)))));
    assert!(raw.is_closed());
}

#[test]
fn a_write_whose_server_dies_has_an_unknown_outcome_and_is_not_sent_again() {
    let server = TestServer::builder().shards(1).start();
    let mut client = server.wire_client();
    client.put("s", "k", b"0", Condition::None).unwrap();
    server.suspend();
    let writer = std::thread::spawn(move || client.put("s", "k", b"1", Condition::None));
    server.kill();
    match writer.join().unwrap() {
        Err(ClientError::OutcomeUnknown { .. } | ClientError::Connection { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unserved_address_is_an_error_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let options = ClientOptions {
        credential: Some(Credential::new("x")),
        connect_timeout: PATIENCE,
        ..ClientOptions::new(Address::Tcp(address))
    };
    assert!(matches!(Client::connect(options), Err(ClientError::Connection { .. })));
}
