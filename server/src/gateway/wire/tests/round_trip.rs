//! Every command in, every outcome out.

use super::fakes::{BODY_BYTES_MAX, Bench, CLIENT, CREDENTIAL, hello};
use crate::command::{
    Command, Condition, Document, EntityRef, ErrorCode, Failure, Outcome, Page, PageEntry, PutItem, Violation,
};
use crate::limits::{COPY_BYTES_MAX, PAGE_ENTRIES_DEFAULT, PAGE_ENTRIES_MAX};
use delta_wire::encode::Scratch;
use delta_wire::generated::{self as tables, Body};
use delta_wire::{Condition as Ask, Reply, Request, ServerError, Stored, Written};
use std::cell::RefCell;
use std::rc::Rc;

/// What the Api was given for a request, in its `Debug` form.
fn received(request: Request<'_>) -> String {
    let seen = Rc::new(RefCell::new(String::new()));
    let handler_seen = seen.clone();
    let bench = Bench::welcomed(move |command| {
        *handler_seen.borrow_mut() = format!("{command:?}");
        Some(Outcome::Pong)
    });
    bench.request(5, request);
    assert_eq!(bench.reply(), (5, Reply::Pong));
    seen.take()
}

fn check_command(request: Request<'_>, expected: Command<'_>) {
    assert_eq!(received(request), format!("{expected:?}"));
}

#[test]
fn every_command_arrives_as_it_was_asked() {
    let (schema, key) = ("people", "zoë");
    check_command(Request::Get { schema, key }, Command::Get { schema: schema.into(), key: key.into() });
    let conditions = [
        (Ask::None, Condition::None),
        (Ask::IfAbsent, Condition::IfAbsent),
        (Ask::IfVersion(12), Condition::IfVersion(12)),
        (Ask::IfPresent, Condition::IfPresent),
    ];
    for (ask, condition) in conditions {
        check_command(
            Request::Put { schema, key, document: b"{}", condition: ask },
            Command::Put { schema: schema.into(), key: key.into(), document: b"{}"[..].into(), condition },
        );
        check_command(
            Request::Delete { schema, key, condition: ask },
            Command::Delete { schema: schema.into(), key: key.into(), condition },
        );
    }
    check_command(
        Request::MultiGet { schema, keys: &["a", "b"] },
        Command::MultiGet { schema: schema.into(), keys: vec!["a".into(), "b".into()] },
    );
    let items = [("a", "1"), ("b", "[2]")]
        .map(|(key, document)| PutItem { key: key.into(), document: document.as_bytes().into() });
    check_command(
        Request::MultiPut { schema, items: &[("a", b"1"), ("b", b"[2]")] },
        Command::MultiPut { schema: schema.into(), items: items.into() },
    );
    for (asked, limit) in [(0, PAGE_ENTRIES_DEFAULT), (7, 7), (u32::MAX, PAGE_ENTRIES_MAX)] {
        for after in [None, Some(""), Some("k")] {
            check_command(
                Request::List { schema, prefix: "p", after, limit: asked, documents: true },
                Command::List {
                    schema: schema.into(),
                    prefix: "p".into(),
                    after: after.map(Into::into),
                    limit,
                    documents: true,
                },
            );
        }
    }
    check_command(Request::Schemas, Command::Schemas);
    check_command(Request::SchemaGet { id: "s" }, Command::SchemaGet { id: "s".into() });
    check_command(
        Request::SchemaPut { id: "s", template: b"true" },
        Command::SchemaPut { id: "s".into(), template: b"true"[..].into() },
    );
    check_command(Request::SchemaDelete { id: "s" }, Command::SchemaDelete { id: "s".into() });
    check_command(Request::SchemaList, Command::SchemaList);
    check_command(Request::Stats, Command::Stats);
    check_command(Request::Ping, Command::Ping);
    check_command(Request::RotateKey, Command::RotateKey);
}

#[test]
fn requests_of_another_encoder_arrive_alike() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let handler_seen = seen.clone();
    let bench = Bench::welcomed(move |command| {
        handler_seen.borrow_mut().push(format!("{command:?}"));
        Some(Outcome::Pong)
    });
    for (condition, tag) in [(Condition::None, 0), (Condition::IfVersion(4), 2), (Condition::IfPresent, 3)] {
        let mut frames = Vec::new();
        Scratch::new().frame(&mut frames, 1, Body::Get, |builder| {
            let (key, schema) = (Some(builder.create_string("k")), Some(builder.create_string("s")));
            tables::Get::create(builder, &tables::GetArgs { schema, key }).as_union_value()
        });
        Scratch::new().frame(&mut frames, 2, Body::Put, |builder| {
            let (key, schema) = (Some(builder.create_string("k")), Some(builder.create_string("s")));
            let document = Some(builder.create_vector(b"{}"));
            let condition = tables::Condition(tag);
            let args = tables::PutArgs { schema, key, document, condition, version: 4 };
            tables::Put::create(builder, &args).as_union_value()
        });
        bench.receive(&frames);
        assert_eq!(bench.replies(), [(1, Reply::Pong), (2, Reply::Pong)]);
        let (schema, key) = ("s".into(), "k".into());
        let get = format!("{:?}", Command::Get { schema, key });
        let (schema, key, document) = ("s".into(), "k".into(), b"{}"[..].into());
        let put = format!("{:?}", Command::Put { schema, key, document, condition });
        assert_eq!(seen.take(), [get, put]);
    }
}

fn check_outcome(outcome: Outcome, expected: Reply) {
    let now = outcome.clone();
    let bench = Bench::welcomed(move |_| Some(now.clone()));
    bench.request(u64::MAX, Request::Ping);
    assert_eq!(bench.reply(), (u64::MAX, expected.clone()));

    let bench = Bench::welcomed(|_| None);
    bench.request(8, Request::Ping);
    assert!(bench.replies().is_empty());
    bench.gateway.deliver(CLIENT, 8, &outcome);
    assert_eq!(bench.reply(), (8, expected));
}

fn document(body: &[u8]) -> Document {
    Document::new(EntityRef { schema: "people", key: "zoë" }, body)
}

fn failure() -> (Failure, ServerError) {
    let mut failure = Failure::new(ErrorCode::SchemaViolation, "it breaks its schema");
    failure.version = Some(0);
    failure.key = Some("zoë".into());
    failure.violations =
        vec![Violation { pointer: "/a".into(), keyword: "type".into(), detail: "not a number".into() }];
    let error = ServerError {
        code: ErrorCode::SchemaViolation,
        code_number: 15,
        message: "it breaks its schema".into(),
        violations: vec![delta_wire::Violation {
            pointer: "/a".into(),
            keyword: "type".into(),
            detail: "not a number".into(),
        }],
        version: Some(0),
        key: Some("zoë".into()),
    };
    (failure, error)
}

#[test]
fn every_outcome_arrives_as_it_came_to_be() {
    let stored = |version, body: &[u8]| Stored { version, content: body.to_vec() };
    for size in [0, 400, COPY_BYTES_MAX, COPY_BYTES_MAX + 1, BODY_BYTES_MAX] {
        let body = vec![b'7'; size];
        check_outcome(Outcome::Document { version: 4, document: document(&body) }, Reply::Document(stored(4, &body)));
    }
    check_outcome(
        Outcome::Written { version: 5, created: true },
        Reply::Written(Written { version: 5, created: true }),
    );
    check_outcome(Outcome::Deleted { version: 6 }, Reply::Deleted { version: 6 });
    let (refused, error) = failure();
    check_outcome(
        Outcome::Documents(vec![Ok((1, document(b"1"))), Err(refused.clone()), Ok((2, document(b"")))]),
        Reply::Documents(vec![Ok(stored(1, b"1")), Err(error.clone()), Ok(stored(2, b""))]),
    );
    check_outcome(
        Outcome::WrittenMany(vec![Err(refused.clone()), Ok((9, false))]),
        Reply::WrittenMany(vec![Err(error.clone()), Ok(Written { version: 9, created: false })]),
    );
    let entry = |document| PageEntry { key: "k".into(), version: 3, document };
    check_outcome(
        Outcome::Page(Page { entries: vec![entry(Some(document(b"{}"))), entry(None)], next: Some("k".into()) }),
        Reply::Page {
            entries: [Some(b"{}".to_vec()), None]
                .map(|content| delta_wire::PageEntry { key: "k".into(), version: 3, content })
                .into(),
            next: Some("k".into()),
        },
    );
    check_outcome(Outcome::Page(Page::default()), Reply::Page { entries: vec![], next: None });
    check_outcome(Outcome::Schemas(vec![("s".into(), 7)]), Reply::SchemaCounts(vec![("s".into(), 7)]));
    check_outcome(Outcome::Template(b"true".to_vec()), Reply::Template(b"true".to_vec()));
    check_outcome(Outcome::TemplateChanged { created: true }, Reply::TemplateChanged { created: true });
    check_outcome(Outcome::Templates(vec!["a".into(), "b".into()]), Reply::Templates(vec!["a".into(), "b".into()]));
    check_outcome(Outcome::Stats("{\"a\":1}".into()), Reply::Figures("{\"a\":1}".into()));
    check_outcome(Outcome::Pong, Reply::Pong);
    check_outcome(Outcome::KeyRotated { key_id: "k2".into() }, Reply::KeyRotated { key_id: "k2".into() });
    check_outcome(Outcome::Failed(refused), Reply::Error(error));
}

#[test]
fn every_error_code_keeps_its_number() {
    for code in ErrorCode::ALL {
        let bench = Bench::welcomed(|_| Some(Outcome::Failed(Failure::new(*code, "why"))));
        bench.request(1, Request::Ping);
        assert_eq!(bench.error(), (1, *code));
        assert_eq!(bench.figures().wire_errors.value(), 1);
        assert_eq!(bench.is_closed(), *code == ErrorCode::Unauthenticated, "a revoked identity ends its connection");
    }
}

#[test]
fn a_large_document_is_sent_from_its_own_memory() {
    for (size, shared_sends) in [(COPY_BYTES_MAX, 0), (COPY_BYTES_MAX + 1, 1)] {
        let body = vec![b' '; size];
        let bench = Bench::welcomed(move |_| Some(Outcome::Document { version: 1, document: document(&body) }));
        bench.request(1, Request::Get { schema: "s", key: "k" });
        assert_eq!(bench.net.with(CLIENT, |socket| socket.shared_sends), shared_sends);
        assert!(matches!(bench.reply(), (1, Reply::Document(stored)) if stored.content.len() == size));
    }
}

#[test]
fn welcome_tells_the_topology_the_limits_and_the_permissions() {
    let bench = Bench::new(|_| None);
    bench.receive(&hello(CREDENTIAL));
    let (1, Reply::Welcome(welcome)) = bench.reply() else { panic!("no welcome") };
    assert_eq!((welcome.protocol, welcome.hash_seed, welcome.shard), (1, 77, 1));
    assert_eq!((&*welcome.server_version, &*welcome.store_id, &*welcome.principal), ("1.2.3", "c0ffee", "admin"));
    assert_eq!(welcome.permissions, ["read", "write", "admin"]);
    assert_eq!(welcome.limits.document_bytes as usize, BODY_BYTES_MAX);
    let ranges: Vec<_> = welcome.shards.iter().map(|shard| (shard.first_slot, shard.last_slot)).collect();
    assert_eq!(ranges, [(0, 127), (128, 255)]);
    assert_eq!(welcome.shards[0].address, None);
    assert_eq!(welcome.shards[1].address.as_deref(), Some("127.0.0.1:4001"));
}
