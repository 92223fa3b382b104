//! The account against servers that lose, double, swap, damage or withhold replies.

use super::*;
use crate::driver::{Address, Redis, Stream, Wire};
use crate::measure::Faults;
use crate::random::Distribution;
use crate::workload::{Draws, Mix, Preload};
use delta_wire::encode::{Scratch, document, written};
use delta_wire::generated::{self as tables, Body};
use delta_wire::{FrameDecoder, read_frame};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const KEYS: u64 = 20;
const CONNECTIONS: usize = 3;
/// Of open loops, in requests per second; the time between two requests.
const RATE: f64 = 2_000.0;
const INTERVAL: Duration = Duration::from_micros(500);
/// More in flight on a connection than there are requests in these runs: none waits for a free connection.
const AMPLE: usize = 4_096;
/// The server stops at this request, until as many more are due.
const STALL_AT: usize = 100;
const STALLED: usize = 600;

/// Documents by key, with their versions; shared by the fake servers of one run.
type Store = Arc<Mutex<HashMap<String, (u64, Vec<u8>)>>>;

/// What a fake server does to the batch of replies that one read caused, given how many it has answered.
type Mischief = fn(&mut Vec<Vec<u8>>, usize);

fn none(_: &mut Vec<Vec<u8>>, _: usize) {}

/// A short run of a mix of all, as the tests of faults want it.
fn short_run(driver: &mut dyn Driver, serve: fn(UnixStream, Mischief, Store), mischief: Mischief) -> Measured {
    run_against(driver, serve, mischief, CONNECTIONS, &plan(), &mut draws())
}

fn plan() -> Plan {
    Plan {
        pipeline: 8,
        rate: None,
        warmup: Duration::from_millis(5),
        duration: Some(Duration::from_millis(60)),
        server_pids: vec![std::process::id()],
        drain: Duration::from_millis(100),
        first_revision: 1_000,
    }
}

/// At [`RATE`]. Slow machines take their time to answer the last requests.
fn open_loop(pipeline: usize) -> Plan {
    Plan { pipeline, rate: Some(RATE), drain: DRAIN, ..plan() }
}

fn draws() -> Draws {
    let (mix, distribution) = Mix::ycsb("F").unwrap();
    Draws::new(3, mix, Distribution::by_name(distribution, KEYS).unwrap(), KEYS)
}

/// A run over connections that each lead to a fake server of its own, all with every key stored.
fn run_against(
    driver: &mut dyn Driver,
    serve: fn(UnixStream, Mischief, Store),
    mischief: Mischief,
    connection_count: usize,
    plan: &Plan,
    source: &mut dyn Source,
) -> Measured {
    let mut servers: Vec<JoinHandle<()>> = Vec::new();
    let store = Store::default();
    let mut connections = Vec::new();
    for _ in 0..connection_count {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let store = store.clone();
        servers.push(std::thread::spawn(move || serve(theirs, mischief, store)));
        connections.push(Connection { stream: Stream::Unix(ours), lane: None });
    }
    let documents = Documents::new(200).unwrap();
    let setup = Setup { driver, source, documents: &documents, lanes: &Lanes::default() };
    let measured = run(plan, setup, connections).unwrap();
    servers.into_iter().for_each(|server| server.join().unwrap());
    measured
}

fn redis_run(mischief: Mischief) -> Measured {
    short_run(&mut Redis::new(Address::from("")), serve_redis, mischief)
}

fn wire_run(mischief: Mischief) -> Measured {
    let mut driver = Wire::new(Address::from(""), "s".to_owned(), "", false, 8);
    short_run(&mut driver, serve_wire, mischief)
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
        // What was in flight at the end of the measured time has a latency, and none of the time's rate.
        let in_flight_max = (CONNECTIONS * plan().pipeline) as u64;
        assert!(reads > 0 && writes > 0 && reads + writes <= measured.answered + in_flight_max);
        assert!(measured.answered_by_step.iter().sum::<u64>() == measured.answered);
    }
}

/// An open loop of one or more connections with ample room, and how often it must and may have asked by its schedule,
/// however fast the machine is.
fn ask_on_schedule(mischief: Mischief, connection_count: usize, plan: &Plan) -> Measured {
    let begun = Instant::now();
    let mut driver = Redis::new(Address::from(""));
    let measured = run_against(&mut driver, serve_redis, mischief, connection_count, plan, &mut draws());
    let at_most = (begun.elapsed().as_secs_f64() * RATE) as u64 + 1;
    assert!(measured.is_clean(), "{:?} {:?}", measured.faults, measured.first_trouble);
    // Each paced request of this mix reads, and the write that may follow is not paced. Every reply is waited for.
    let asked = measured.verified;
    let at_least = ((plan.warmup + measured.elapsed).as_secs_f64() * RATE) as u64;
    assert!((at_least..=at_most).contains(&asked), "asked {asked} times, not {at_least} to {at_most}");
    measured
}

#[test]
fn an_open_loop_asks_at_its_rate_no_slower_and_no_faster() {
    let measured = ask_on_schedule(none, CONNECTIONS, &open_loop(AMPLE));
    assert!(measured.answered > 0);
    assert!(measured.latencies_ns(Kind::Read).len() as f64 <= measured.elapsed.as_secs_f64() * RATE + 1.0);
}

#[test]
fn a_stalled_server_is_asked_as_often_as_any() {
    thread_local!(static WITHHELD: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) });
    // It waits for requests: from a generator that waits for its replies none would come, and these would be lost.
    let withhold: Mischief = |replies, answered| {
        let received = answered + replies.len();
        WITHHELD.with_borrow_mut(|withheld| {
            withheld.append(replies);
            if !(STALL_AT..STALL_AT + STALLED).contains(&received) {
                replies.append(withheld);
            }
        });
    };
    // At the end of the measured time, more have been due than the server waits for.
    let duration = Some(INTERVAL * (STALL_AT + STALLED + 100) as u32);
    ask_on_schedule(withhold, 1, &Plan { duration, ..open_loop(AMPLE) });
}

#[test]
fn a_stall_is_charged_to_every_request_that_was_due_during_it() {
    // The stall itself; nothing is waited for by it.
    let stall: Mischief = |replies, answered| {
        if (answered..answered + replies.len()).contains(&STALL_AT) {
            std::thread::sleep(INTERVAL * STALLED as u32);
        }
    };
    let asked = (STALL_AT + STALLED + 100) as u64;
    // Few requests find room on the connection during the stall: most of its price is that of those that do not.
    let plan = Plan { warmup: Duration::ZERO, duration: None, ..open_loop(8) };
    let begun = Instant::now();
    let mut driver = Redis::new(Address::from(""));
    let measured = run_against(&mut driver, serve_redis, stall, 1, &plan, &mut Preload::reading(asked));
    let unmeasured = begun.elapsed() - measured.elapsed;
    assert!(measured.is_clean(), "{:?} {:?}", measured.faults, measured.first_trouble);
    let latencies_ns = measured.latencies_ns(Kind::Read);
    assert_eq!((measured.verified, measured.answered), (asked, asked));
    // What is due at the very start is due before the measuring begins, and only that has no latency.
    let early = asked - latencies_ns.len();
    assert!(early <= (unmeasured.as_secs_f64() * RATE) as u64 + 1, "{early} requests have no latency");
    // The server had the first of them when it was due, or later, and each later one had to wait for an interval less:
    // of all that were due, a quarter waited for three quarters of the stall, half of them for half of it, and so on.
    for quarters in 0..4 {
        let latency = INTERVAL * STALLED as u32 * quarters / 4;
        let count = latencies_ns.count_between(latency.as_nanos() as u64, u64::MAX);
        let due_in_stall = STALLED as u64 * u64::from(4 - quarters) / 4;
        let expected = due_in_stall.saturating_sub(early.saturating_sub(STALL_AT as u64));
        assert!(count >= expected, "{count} requests took {latency:?} or longer, not {expected}");
    }
}

/// How many latencies there are, and how many of so many intervals or more.
fn latencies_from(measured: &Measured, intervals: usize) -> (u64, u64) {
    let latencies_ns = measured.latencies_ns(Kind::Read);
    let at_least = (INTERVAL * intervals as u32).as_nanos() as u64;
    (latencies_ns.len(), latencies_ns.count_between(at_least, u64::MAX))
}

#[test]
fn a_stall_beyond_the_measured_time_is_charged_in_full() {
    let stall: Mischief = |replies, answered| {
        if (answered..answered + replies.len()).contains(&STALL_AT) {
            std::thread::sleep(INTERVAL * STALLED as u32);
        }
    };
    const UNTIL_END: usize = STALLED / 2;
    let duration = Some(INTERVAL * (STALL_AT + UNTIL_END) as u32);
    for pipeline in [8, AMPLE] {
        let plan = Plan { warmup: Duration::ZERO, duration, server_pids: Vec::new(), ..open_loop(pipeline) };
        let measured = ask_on_schedule(stall, 1, &plan);
        // Whatever was due from when the stall began until the end was answered after it.
        let (count, long) = latencies_from(&measured, STALLED - UNTIL_END);
        assert!(long >= UNTIL_END as u64, "{long} of {count} requests were charged with the stall");
        assert!(measured.answered < count, "an answer after the end is none of the measured time's");
        assert_eq!(measured.never_sent, 0);
    }
}

#[test]
fn what_a_slow_server_is_never_asked_is_charged_with_its_wait() {
    /// A reply takes so many intervals.
    const SLOWNESS: usize = 8;
    let crawl: Mischief = |_, _| std::thread::sleep(INTERVAL * SLOWNESS as u32);
    const MEASURED: usize = 800;
    const DRAINED: usize = 100;
    let (duration, drain) = (Some(INTERVAL * MEASURED as u32), INTERVAL * DRAINED as u32);
    let plan = Plan { warmup: Duration::ZERO, duration, drain, ..open_loop(1) };
    let mut driver = Redis::new(Address::from(""));
    let measured = run_against(&mut driver, serve_redis, crawl, 1, &plan, &mut Preload::reading(1 << 20));
    // It answered what it was asked, however long it took.
    assert!(measured.is_clean(), "{:?} {:?}", measured.faults, measured.first_trouble);
    let (count, long) = latencies_from(&measured, DRAINED);
    assert!(measured.never_sent >= MEASURED as u64 / 2, "{} were never sent", measured.never_sent);
    assert!(long >= measured.never_sent && count >= long, "{count} latencies, {long} long ones");
    assert!(measured.answered < measured.never_sent && measured.verified < measured.never_sent);
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
