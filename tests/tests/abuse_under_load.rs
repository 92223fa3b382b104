//! Ten thousand connections that behave in every wrong way at once: each is answered, memory stays within its bound,
//! and whoever behaves is served throughout.
//!
//! Latencies of those who behave are printed and not judged: a test machine is no instrument. `bench/` has one.

use delta_tests::crowd::{Crowd, FLOOD_DOCUMENT_BYTES, FLOOD_DOCUMENTS, FLOOD_REQUESTS, Manners, file_descriptors};
use delta_tests::{TestServer, filler};
use delta_wire::Condition;
use delta_wire::client::Client;
use deltadb::limits::{
    CONNECTIONS_MAX, HTTP_HEAD_BYTES_MAX, OUTPUT_BYTES_SHARD_MAX, PENDING_BYTES_MAX, REQUEST_TIMEOUT_MS,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

const CACHE_BYTES: u64 = 32 << 20;
const SHARDS: u64 = 2;
/// What a connection without much to say may cost: buffers of both directions, its state, its task.
const CONNECTION_BYTES: u64 = HTTP_HEAD_BYTES_MAX as u64 + (16 << 10);

/// The same of one that floods: what was read ahead of it, in the stream and in the protocol's buffers.
const FLOOD_CONNECTION_BYTES: u64 = 256 << 10;

/// Clients that behave, and how they fare.
struct GoodClients {
    threads: Vec<std::thread::JoinHandle<Vec<Duration>>>,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
}

impl GoodClients {
    /// Two over the wire protocol and two over HTTP, writing and reading without a pause; any failure is theirs.
    fn start(server: &TestServer) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..4)
            .map(|number| {
                let (stop, served) = (stop.clone(), served.clone());
                let wire = (number % 2 == 0).then(|| server.wire_client());
                let mut http = server.http();
                std::thread::spawn(move || {
                    let (mut wire, mut times) = (wire, Vec::new());
                    for round in 0.. {
                        if stop.load(SeqCst) {
                            break;
                        }
                        let (key, document) = (format!("good{number}-{}", round % 50), format!("[{round}]"));
                        let started = Instant::now();
                        match &mut wire {
                            Some(client) => by_wire(client, &key, &document),
                            None => {
                                let response = http.put(&format!("/entity/good/{key}"), &document);
                                assert!(matches!(response.status, 200 | 201), "{}", response.text());
                                assert_eq!(http.get(&format!("/entity/good/{key}")).expect(200).text(), document);
                            }
                        }
                        times.push(started.elapsed());
                        served.fetch_add(1, SeqCst);
                    }
                    times
                })
            })
            .collect();
        Self { threads, stop, served }
    }

    /// What each took, sorted, and how many there were.
    fn finish(self) -> Vec<Duration> {
        self.stop.store(true, SeqCst);
        let mut times: Vec<Duration> =
            self.threads.into_iter().flat_map(|thread| thread.join().expect("a good client is served")).collect();
        times.sort();
        times
    }
}

fn by_wire(client: &mut Client, key: &str, document: &str) {
    client.put("good", key, document.as_bytes(), Condition::None).expect("a good write is taken");
    let stored = client.get("good", key).expect("a good read is served").expect("it was written");
    assert_eq!(stored.content, document.as_bytes());
}

/// The time that so many in a hundred stay under.
fn percentile(times: &[Duration], hundredths: usize) -> Duration {
    times.get(times.len() * hundredths / 100).or(times.last()).copied().unwrap_or_default()
}

fn server(shards: u64) -> TestServer {
    TestServer::builder().shards(shards as usize).arguments(["--cache-bytes", &CACHE_BYTES.to_string()]).start()
}

#[test]
fn ten_thousand_unruly_connections_are_each_answered_and_others_served() {
    let server = server(SHARDS);
    server.http().put("/entity/crowd/known", "[1]").expect(201);
    let calm = GoodClients::start(&server);
    delta_tests::eventually("some good requests are served", || calm.served.load(SeqCst) > 2000);
    let calm = calm.finish();
    let before = server.resident_bytes();

    let good = GoodClients::start(&server);
    let wanted = 10_000;
    // Half of them stay and behave; the others break every rule there is.
    let manners = (0..wanted).map(|number| match number % 4 {
        0 => Manners::HttpIdle,
        1 => Manners::WireIdle,
        _ => Manners::UNRULY[number / 2 % Manners::UNRULY.len()],
    });
    let (mut crowd, kept_out) = Crowd::connect(server.rest, server.wire, manners);
    let count = crowd.members().len();
    if kept_out > 0 {
        println!("{count} connections only: the limit of file descriptors kept {kept_out} out");
    }
    let served_before = good.served.load(SeqCst);
    let patience = Duration::from_millis(3 * REQUEST_TIMEOUT_MS);
    crowd.until("every idle member has its reply", patience, |member| {
        member.manners.must_end() || member.told.len() > usize::from(member.manners.is_wire())
    });
    let peak = server.resident_bytes();
    crowd.until("every unruly member was ended", patience, |member| member.ended || !member.manners.must_end());
    assert!(good.served.load(SeqCst) > served_before, "good clients were not served meanwhile");
    // Those that stayed are still there.
    crowd.say(|manners, _| manners.question());
    crowd.until("every idle member has its second reply", patience, |member| {
        member.manners.must_end() || member.told.len() > 1 + usize::from(member.manners.is_wire())
    });
    let under = good.finish();
    let wrong: Vec<String> = crowd.members().iter().filter_map(|member| member.judge().err()).collect();
    assert!(wrong.is_empty(), "{} of {count} members: {:#?}", wrong.len(), wrong.iter().take(20).collect::<Vec<_>>());

    let grown = peak.max(server.resident_bytes()).saturating_sub(before);
    let bound = count as u64 * CONNECTION_BYTES + CACHE_BYTES + SHARDS * PENDING_BYTES_MAX as u64;
    println!(
        "{count} connections: grew by {} MiB (bound {} MiB); good clients' p99 {:?} calm, {:?} among them, \
         {} and {} rounds",
        grown >> 20,
        bound >> 20,
        percentile(&calm, 99),
        percentile(&under, 99),
        calm.len(),
        under.len()
    );
    assert!(grown < bound, "grew by {grown} bytes, {bound} are allowed");
    drop(crowd);
    server.stop_cleanly();
}

#[test]
fn those_for_whom_there_is_no_room_are_told_so() {
    const TOO_MANY: usize = 40;
    let server = server(1);
    server.http().put("/entity/crowd/known", "[1]").expect(201);
    let wanted = CONNECTIONS_MAX + TOO_MANY;
    if file_descriptors() < wanted + 500 {
        println!("skipped: the limit of file descriptors is below what {wanted} connections need");
        return;
    }
    let manners = (0..wanted).map(|number| if number % 2 == 0 { Manners::HttpIdle } else { Manners::WireIdle });
    let (mut crowd, _) = Crowd::connect(server.rest, server.wire, manners);
    crowd.until("everybody was answered", Duration::from_millis(3 * REQUEST_TIMEOUT_MS), |member| {
        member.ended || member.told.len() > usize::from(member.manners.is_wire())
    });
    let is_refusal = |told: &String| matches!(told.as_str(), "503" | "overloaded");
    let turned_away = crowd.members().iter().filter(|member| member.told.iter().any(is_refusal)).count();
    let served = crowd.members().iter().filter(|member| member.judge().is_ok()).count();
    assert_eq!((turned_away, served), (TOO_MANY, CONNECTIONS_MAX));
    drop(crowd);
    delta_tests::eventually("there is room again", || {
        std::panic::catch_unwind(|| server.http().get("/health")).is_ok_and(|response| response.status == 200)
    });
    server.stop_cleanly();
}

#[test]
fn floods_stay_within_the_bounds_of_memory_and_are_answered_when_they_read() {
    let server = server(1);
    let mut client = server.wire_client();
    client.put("crowd", "known", b"[1]", Condition::None).expect("a durable write");
    // More than the cache holds, so that what is owed is memory of its own.
    let document = format!("\"{}\"", filler(FLOOD_DOCUMENT_BYTES, 1));
    for number in 0..FLOOD_DOCUMENTS {
        client.put("crowd", &format!("large{number}"), document.as_bytes(), Condition::None).expect("a durable write");
    }
    let before = server.resident_bytes();
    let good = GoodClients::start(&server);
    let members = if long() { 1000 } else { 200 };
    let manners = (0..members).map(|number| if number % 2 == 0 { Manners::HttpFlood } else { Manners::WireFlood });
    let (mut crowd, kept_out) = Crowd::connect(server.rest, server.wire, manners);
    assert_eq!(kept_out, 0, "the limit of file descriptors is too low for {members} connections");
    crowd.say(|manners, number| Some(manners.flood(number)));
    let mut peak = 0;
    let served = good.served.load(SeqCst);
    for _ in 0..40 {
        crowd.go_on(Duration::from_millis(100));
        peak = peak.max(server.resident_bytes());
    }
    assert!(good.served.load(SeqCst) > served, "good clients were not served meanwhile");
    let grown = peak.saturating_sub(before);
    let bound =
        CACHE_BYTES + members as u64 * FLOOD_CONNECTION_BYTES + (OUTPUT_BYTES_SHARD_MAX + PENDING_BYTES_MAX) as u64;
    let asked = (members * FLOOD_REQUESTS * FLOOD_DOCUMENT_BYTES) >> 20;
    println!("{members} floods asked for {asked} MiB: grew by {} MiB (bound {} MiB)", grown >> 20, bound >> 20);
    assert!(grown < bound, "grew by {grown} bytes, {bound} are allowed");
    // Now they read: whatever was asked is answered, with the document or with a refusal.
    crowd.all_read();
    crowd.until("every flood was answered or ended", Duration::from_secs(150), |member| {
        member.ended || member.told.len() >= FLOOD_REQUESTS
    });
    let mut refused = 0;
    for member in crowd.members() {
        let told = &member.told;
        refused += told.iter().filter(|told| matches!(told.as_str(), "overloaded" | "503")).count();
        let known = |told: &String| matches!(told.as_str(), "ok" | "200" | "overloaded" | "503" | "request_timeout");
        assert!(told.iter().all(known), "{:?} was told {:?}", member.manners, told.last());
        let whole = told.len() >= FLOOD_REQUESTS || told.last().is_some_and(|told| told != "ok" && told != "200");
        assert!(whole, "{:?} got {} replies and no reason", member.manners, told.len());
    }
    let times = good.finish();
    println!("{refused} refusals; good clients' p99 {:?} in {} rounds", percentile(&times, 99), times.len());
    drop(crowd);
    server.stop_cleanly();
}

/// Whether the long mode was asked for.
fn long() -> bool {
    std::env::var_os("DELTA_TESTS_LONG").is_some_and(|value| value == "1")
}
