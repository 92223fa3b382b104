//! The account against servers that lose, double, swap or damage replies.

use super::*;
use crate::driver::{Address, Redis, Stream, Wire};
use crate::measure::Faults;
use crate::random::Distribution;
use crate::workload::{Draws, Mix, Preload};
use delta_wire::encode::{Scratch, document, written};
use delta_wire::generated::{self as tables, Body};
use delta_wire::{FrameDecoder, read_frame};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const KEYS: u64 = 20;
const CONNECTIONS: usize = 3;

/// Documents by key, with their versions; shared by the fake servers of one run.
type Store = Arc<Mutex<HashMap<String, (u64, Vec<u8>)>>>;

/// What a fake server does to the batch of replies that one read caused, given how many it has answered.
type Mischief = fn(&mut Vec<Vec<u8>>, usize);

fn none(_: &mut Vec<Vec<u8>>, _: usize) {}

/// A run over connections that each lead to a fake server of its own, all with every key stored.
fn run_against(
    driver: &mut dyn Driver,
    serve: fn(UnixStream, Mischief, Store),
    mischief: Mischief,
    rate: Option<f64>,
) -> Measured {
    let mut servers: Vec<JoinHandle<()>> = Vec::new();
    let store = Store::default();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let store = store.clone();
        servers.push(std::thread::spawn(move || serve(theirs, mischief, store)));
        connections.push(Connection { stream: Stream::Unix(ours), lane: None });
    }
    let plan = Plan {
        pipeline: 8,
        rate,
        warmup: Duration::from_millis(5),
        duration: Some(Duration::from_millis(60)),
        server_pids: vec![std::process::id()],
        drain: Duration::from_millis(100),
        first_revision: 1_000,
    };
    let documents = Documents::new(200).unwrap();
    let (mix, distribution) = Mix::ycsb("F").unwrap();
    let mut source = Draws::new(3, mix, Distribution::by_name(distribution, KEYS).unwrap(), KEYS);
    let setup = Setup { driver, source: &mut source, documents: &documents, lanes: &Lanes::default() };
    let measured = run(&plan, setup, connections).unwrap();
    servers.into_iter().for_each(|server| server.join().unwrap());
    measured
}

fn redis_run(mischief: Mischief) -> Measured {
    run_against(&mut Redis::new(Address::from("")), serve_redis, mischief, None)
}

fn wire_run(mischief: Mischief) -> Measured {
    let mut driver = Wire::new(Address::from(""), "s".to_owned(), "", false, 8);
    run_against(&mut driver, serve_wire, mischief, None)
}

fn put(store: &Store, key: &str, document: &[u8]) -> u64 {
    let mut store = store.lock().unwrap();
    let version = store.get(key).map_or(2, |(version, _)| version + 1);
    store.insert(key.to_owned(), (version, document.to_vec()));
    version
}

/// Keys that were never put have a first revision.
fn get(store: &Store, documents: &Documents, key: &str) -> (u64, Vec<u8>) {
    store.lock().unwrap().get(key).cloned().unwrap_or_else(|| {
        let mut document = Vec::new();
        documents.write(key[4..].parse().unwrap(), 1, &mut document);
        (1, document)
    })
}

/// SET and GET, as the driver writes them: six or ten lines a request.
fn serve_redis(mut stream: UnixStream, mischief: Mischief, store: Store) {
    let documents = Documents::new(200).unwrap();
    let (mut received, mut piece) = (Vec::new(), [0; 4096]);
    let mut answered = 0;
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        received.extend_from_slice(&piece[..length]);
        let mut replies = Vec::new();
        while let Some((words, consumed)) = words_of(&received) {
            received.drain(..consumed);
            let key = String::from_utf8(words[1].clone()).unwrap();
            replies.push(if let Some(document) = words.get(2) {
                put(&store, &key, document);
                b"+OK\r\n".to_vec()
            } else {
                let (_, document) = get(&store, &documents, &key);
                [format!("${}\r\n", document.len()).as_bytes(), &document, b"\r\n"].concat()
            });
        }
        let count = replies.len();
        mischief(&mut replies, answered);
        answered += count;
        if stream.write_all(&replies.concat()).is_err() {
            return;
        }
    }
}

fn words_of(bytes: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    let line = |from: usize| {
        let end = from + bytes.get(from..)?.windows(2).position(|pair| pair == b"\r\n")?;
        Some((std::str::from_utf8(&bytes[from + 1..end]).unwrap().parse::<usize>().unwrap(), end + 2))
    };
    let (count, mut at) = line(0)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let (length, start) = line(at)?;
        words.push(bytes.get(start..start + length)?.to_vec());
        at = start + length + 2;
    }
    (at <= bytes.len()).then_some((words, at))
}

fn serve_wire(mut stream: UnixStream, mischief: Mischief, store: Store) {
    let documents = Documents::new(200).unwrap();
    let mut decoder = FrameDecoder::new();
    let mut piece = [0; 4096];
    let mut answered = 0;
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        let mut input = &piece[..length];
        let mut replies = Vec::new();
        while let Some(frame) = decoder.next(&mut input, 1 << 20).unwrap() {
            let frame = read_frame(frame).unwrap();
            let mut reply = Vec::new();
            if let Some(request) = frame.body_as_put() {
                let version = put(&store, request.key(), request.document().bytes());
                written(&mut reply, frame.request_id(), version, false);
            } else {
                let key = frame.body_as_get().unwrap().key();
                let (version, content) = get(&store, &documents, key);
                document(&mut reply, frame.request_id(), version, &content);
            }
            replies.push(reply);
        }
        let count = replies.len();
        mischief(&mut replies, answered);
        answered += count;
        if stream.write_all(&replies.concat()).is_err() {
            return;
        }
    }
}

#[test]
fn honest_servers_leave_a_clean_account() {
    for measured in [redis_run(none), wire_run(none), wire_run(|replies, _| replies.reverse())] {
        assert!(measured.is_clean(), "{:?} {:?}", measured.faults, measured.first_trouble);
        assert!(measured.answered > 0 && measured.verified > 0);
        assert!(measured.server_cpu.is_some());
        let reads = measured.latencies_ns(Kind::Read).len();
        let writes = measured.latencies_ns(Kind::Write).len();
        assert!(reads > 0 && writes > 0 && reads + writes <= measured.answered);
        assert!(measured.answered_by_step.iter().sum::<u64>() == measured.answered);
    }
}

#[test]
fn an_open_loop_asks_at_its_rate_and_no_faster() {
    let mut driver = Redis::new(Address::from(""));
    let measured = run_against(&mut driver, serve_redis, none, Some(2_000.0));
    assert!(measured.is_clean(), "{:?} {:?}", measured.faults, measured.first_trouble);
    // The second request of a read-modify-write is not paced.
    assert!(measured.answered > 0);
    assert!(measured.latencies_ns(Kind::Read).len() as f64 <= measured.elapsed.as_secs_f64() * 2_000.0 + 1.0);
}

#[test]
fn a_lost_reply_is_found() {
    let lose: Mischief = |replies, answered| {
        if answered > 10 && !replies.is_empty() {
            replies.remove(0);
        }
    };
    assert!(wire_run(lose).faults.lost > 0);
    // Without tickets the replies after a lost one settle the wrong requests, and some at the end none.
    let faults = redis_run(lose).faults;
    assert!(faults.lost > 0 && faults.misordered > 0, "{faults:?}");
}

#[test]
fn a_doubled_reply_is_found() {
    let double: Mischief = |replies, answered| {
        if answered > 10
            && let Some(last) = replies.last().cloned()
        {
            replies.push(last);
        }
    };
    assert!(wire_run(double).faults.doubled > 0);
    let faults = redis_run(double).faults;
    assert!(faults.unasked > 0 || faults.misordered > 0, "{faults:?}");
}

#[test]
fn swapped_replies_are_found_where_order_counts() {
    assert!(redis_run(|replies, _| replies.reverse()).faults.misordered > 0);
}

#[test]
fn a_changed_document_is_found() {
    let change: Mischief = |replies, _| {
        for reply in replies.iter_mut().filter(|reply| reply.len() > 100) {
            let position = reply.len() - 40;
            reply[position] ^= 1;
        }
    };
    assert!(redis_run(change).faults.damaged > 0);
    assert!(wire_run(change).faults.damaged > 0);
}

#[test]
fn an_old_version_is_found() {
    let age: Mischief = |replies, answered| {
        for reply in replies.iter_mut().filter(|reply| answered > 50 && reply.len() > 100) {
            let frame = read_frame(&reply[4..]).unwrap();
            let mut old = Vec::new();
            document(&mut old, frame.request_id(), 0, frame.body_as_document().unwrap().content().bytes());
            *reply = old;
        }
    };
    let faults = wire_run(age).faults;
    assert!(faults.stale > 0);
    assert_eq!(Faults { stale: 0, ..faults }, Faults::default());
}

#[test]
fn a_reply_to_nothing_and_an_early_end_are_found() {
    let invent: Mischief = |replies, answered| {
        if answered == 0 {
            let mut reply = Vec::new();
            written(&mut reply, u64::MAX, 1, false);
            replies.push(reply);
        }
    };
    assert_eq!(wire_run(invent).faults.unasked, CONNECTIONS as u64);
    let garble: Mischief = |replies, answered| {
        if answered > 10 {
            replies.push(vec![0xff; 64]);
        }
    };
    assert_eq!(wire_run(garble).faults.broken_connections, CONNECTIONS as u64);
}

#[test]
fn refusals_are_counted_by_code_and_have_no_latency() {
    let refuse: Mischief = |replies, _| {
        for reply in replies.iter_mut() {
            let frame = read_frame(&reply[4..]).unwrap();
            let request_id = frame.request_id();
            let mut refusal = Vec::new();
            Scratch::new().frame(&mut refusal, request_id, Body::Error, |builder| {
                let message = Some(builder.create_string("busy"));
                let code = delta_wire::ErrorCode::Overloaded.number();
                let args = tables::ErrorArgs { code, message, ..Default::default() };
                tables::Error::create(builder, &args).as_union_value()
            });
            *reply = refusal;
        }
    };
    let measured = wire_run(refuse);
    assert!(measured.errors["overloaded"] > 0 && measured.faults.none());
    assert!(Kind::ALL.iter().all(|kind| measured.latencies_ns(*kind).is_empty()));
}

#[test]
fn loading_writes_every_key_once_and_then_ends() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = std::thread::spawn(move || serve_redis(theirs, none, Store::default()));
    let plan = Plan {
        pipeline: 4,
        rate: None,
        warmup: Duration::ZERO,
        duration: None,
        server_pids: Vec::new(),
        drain: Duration::from_secs(5),
        first_revision: 0,
    };
    let mut driver = Redis::new(Address::from(""));
    let documents = Documents::new(200).unwrap();
    let setup =
        Setup { driver: &mut driver, source: &mut Preload::new(101), documents: &documents, lanes: &Lanes::default() };
    let connections = vec![Connection { stream: Stream::Unix(ours), lane: None }];
    let measured = run(&plan, setup, connections).unwrap();
    server.join().unwrap();
    assert!(measured.is_clean());
    assert_eq!((measured.answered, measured.latencies_ns(Kind::Write).len()), (101, 101));
}
