//! Ten thousand connections that behave in every wrong way at once, and floods of reads and writes whose senders read
//! nothing: each request is answered, memory stays within its bound, and whoever behaves is served throughout, nearly
//! as fast as ever.

use delta_tests::crowd::{
    Crowd, FLOOD_SCHEMA, Flood, Manners, SLOW_READ_KEY, SLOW_READS, file_descriptors, slow_read_document,
};
use delta_tests::memory_watch::MemoryWatch;
use delta_tests::skips::skip;
use delta_tests::{PATIENCE, TestServer, long};
use delta_wire::Condition;
use delta_wire::client::Client;
use deltadb::limits::{
    BATCH_BYTES_MAX, BODY_BYTES_DEFAULT, CONNECTIONS_MAX, HTTP_HEAD_BYTES_MAX, OUTPUT_BYTES_SHARD_MAX,
    PENDING_BYTES_MAX, REQUEST_TIMEOUT_MS, SEND_TIMEOUT_MS,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One test at a time: each wants most of the descriptors that a process may have, and judges pace or memory.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // One that failed leaves nothing behind.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const CACHE_BYTES: u64 = 32 << 20;
const SHARDS: u64 = 2;
/// What a connection without much to say may cost: buffers of both directions, its state, its task.
const CONNECTION_BYTES: u64 = HTTP_HEAD_BYTES_MAX as u64 + (16 << 10);
/// The same of one that floods: what was read ahead of it, in the stream and in the protocol's buffers.
const FLOOD_CONNECTION_BYTES: u64 = 256 << 10;
/// The same of one that reads slowly: all that it is owed, in a buffer that doubled as it grew, for there is room.
fn slow_reader_bytes() -> u64 {
    2 * (SLOW_READS * slow_read_document().len()) as u64 + CONNECTION_BYTES
}
/// What one shard may hold of writes on their way to the disk.
const WRITES_BYTES: u64 = (PENDING_BYTES_MAX + 2 * BATCH_BYTES_MAX) as u64;

/// When whoever reads nothing has been ended.
const SEND_DEADLINE_PASSED: Duration = Duration::from_millis(SEND_TIMEOUT_MS + 5_000);

/// Rounds of the clients that behave that their pace is judged by: so many calm ones, and at least as many among others.
const ROUNDS: u64 = 1000;
/// Rounds that they are served while many flood.
const ROUNDS_AMONG_MANY: u64 = 200;
/// How much slower the slowest hundredth of them may become.
const SLOWER_MAX: u32 = 10;
/// Floods whose pace is judged. A server that is not optimised spends the whole bound on a single large document; the
/// nightly command has one that is.
const FLOODS_PACED: &[Flood] = match cfg!(debug_assertions) {
    true => &[Flood::Reads, Flood::Writes],
    false => &[Flood::Reads, Flood::Writes, Flood::LargeWrites],
};
/// How often a pace is measured until it is good.
const ATTEMPTS_MAX: usize = 5;
/// What counts as calm in any case: less is the luck of an idle machine, and its scheduler alone can cost ten times it.
const CALM_MIN: Duration = Duration::from_millis(5);

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

    /// Rounds so far.
    fn served(&self) -> u64 {
        self.served.load(SeqCst)
    }

    /// What each took, sorted.
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

/// How they fare with nobody else there.
fn calm(server: &TestServer) -> Vec<Duration> {
    let good = GoodClients::start(server);
    delta_tests::eventually("good clients are served", || good.served() >= ROUNDS);
    good.finish()
}

/// The time that all but a hundredth stay under.
fn p99(times: &[Duration]) -> Duration {
    times.get(times.len() * 99 / 100).or(times.last()).copied().unwrap_or_default()
}

/// Whether those who behave were hardly slower among others than with nobody else there.
fn keeps_pace(calm: &[Duration], among: &[Duration]) -> bool {
    let (rounds, alone, slowed) = (among.len(), p99(calm), p99(among));
    println!("good clients' p99: {alone:?} calm, {slowed:?} among them; {} and {rounds} rounds", calm.len());
    assert!(rounds as u64 >= ROUNDS, "{rounds} rounds are too few to judge");
    slowed < SLOWER_MAX * alone.max(CALM_MIN)
}

fn server(shards: u64) -> TestServer {
    TestServer::builder().shards(shards as usize).arguments(["--cache-bytes", &CACHE_BYTES.to_string()]).start()
}

#[test]
fn ten_thousand_unruly_connections_are_each_answered_and_others_served() {
    let _alone = alone();
    let server = server(SHARDS);
    server.http().put("/entity/crowd/known", "[1]").expect(201);
    server.http().put(&format!("/entity/crowd/{SLOW_READ_KEY}"), &slow_read_document()).expect(201);
    let mut calm = calm(&server);
    let memory = MemoryWatch::start(&server);
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
    let connected = Instant::now();
    if kept_out > 0 {
        skip(&format!("all but {count} of {wanted} connections: the limit of file descriptors keeps them out"));
    }
    let patience = Duration::from_millis(3 * REQUEST_TIMEOUT_MS);
    crowd.until("every idle member has its reply", patience, |member| {
        member.manners.must_end() || member.told.len() > usize::from(member.manners.is_wire())
    });
    crowd.until("every unruly member was ended", patience, |member| member.ended || !member.manners.must_end());
    // Those that stayed are still there.
    crowd.say(|manners| manners.question());
    crowd.until("every idle member has its second reply", patience, |member| {
        member.manners.must_end() || member.told.len() > 1 + usize::from(member.manners.is_wire())
    });
    crowd.go_on_while("good clients are served", || good.served() < ROUNDS);
    let among = good.finish();
    // However slowly: longer than all may lie unread.
    crowd.go_on_while("a send's deadline passes", || connected.elapsed() < SEND_DEADLINE_PASSED);
    // Those that read slowly were not cut short, and the server still has what they did not take.
    let slow_readers = crowd.members().iter().filter(|member| member.manners.sips());
    let (sipping, done): (Vec<_>, Vec<_>) =
        slow_readers.partition(|member| !member.ended && member.told.len() < SLOW_READS / 2);
    assert!(done.is_empty(), "{} of {} slow readers were ended, or read fast", done.len(), done.len() + sipping.len());
    let sipping = sipping.len();
    crowd.all_read();
    crowd.until("every slow reader has all its replies", patience, |member| {
        !member.manners.sips() || member.told.len() >= SLOW_READS + usize::from(member.manners.is_wire())
    });
    let wrong: Vec<String> = crowd.members().iter().filter_map(|member| member.judge().err()).collect();
    assert!(wrong.is_empty(), "{} of {count} members: {:#?}", wrong.len(), wrong.iter().take(20).collect::<Vec<_>>());

    let grown = memory.finish();
    let connections = (count - sipping) as u64 * CONNECTION_BYTES + sipping as u64 * slow_reader_bytes();
    let bound = connections + CACHE_BYTES + SHARDS * PENDING_BYTES_MAX as u64;
    println!("{count} connections, {sipping} slow readers: grew by {} MiB (bound {} MiB)", grown >> 20, bound >> 20);
    assert!(grown < bound, "grew by {grown} bytes, {bound} are allowed");
    drop(crowd);
    // What else the machine does may change meanwhile: the measure is what was before and what is after.
    calm.extend(self::calm(&server));
    calm.sort();
    assert!(keeps_pace(&calm, &among), "good clients are slowed too much");
    server.stop_cleanly();
}

#[test]
fn a_client_that_floods_slows_the_others_little() {
    let _alone = alone();
    for &flood in FLOODS_PACED {
        let server = server(1);
        write_what_is_asked_for(&server, flood);
        let manners = [Manners::HttpFlood, Manners::WireFlood];
        let (mut crowd, _) = Crowd::connect(server.rest, server.wire, manners);
        crowd.all_read();
        let mut asked = 0;
        let mut keeps_pace = || {
            let calm = calm(&server);
            let good = GoodClients::start(&server);
            // All that a flood has, again and again, as soon as it was answered.
            while good.served() < ROUNDS {
                crowd.flood(flood);
                asked += flood.requests();
                crowd.until("what was asked is answered", PATIENCE, |member| member.told.len() >= asked);
            }
            keeps_pace(&calm, &good.finish())
        };
        // Whatever else the machine does can only slow them: once is enough.
        let kept = (0..ATTEMPTS_MAX).any(|_| keeps_pace());
        println!("{flood:?}: {asked} requests over either protocol");
        assert!(kept, "in none of {ATTEMPTS_MAX} attempts");
        drop(crowd);
        server.stop_cleanly();
    }
}

#[test]
fn those_for_whom_there_is_no_room_are_told_so() {
    let _alone = alone();
    const TOO_MANY: usize = 40;
    let server = server(1);
    server.http().put("/entity/crowd/known", "[1]").expect(201);
    let wanted = CONNECTIONS_MAX + TOO_MANY;
    if file_descriptors() < wanted + 500 {
        skip(&format!("the limit of file descriptors is below what {wanted} connections need"));
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
fn floods_of_reads_stay_within_the_bounds_of_memory_and_are_answered_when_they_read() {
    let _alone = alone();
    let members = long::rounds(200, 1000);
    let bound = CACHE_BYTES + members as u64 * FLOOD_CONNECTION_BYTES + OUTPUT_BYTES_SHARD_MAX as u64 + WRITES_BYTES;
    bears(Flood::Reads, members, bound);
}

#[test]
fn floods_of_writes_stay_within_the_bounds_of_memory_and_are_answered_when_they_read() {
    let _alone = alone();
    let members = long::rounds(100, 500);
    bears(Flood::Writes, members, CACHE_BYTES + members as u64 * FLOOD_CONNECTION_BYTES + WRITES_BYTES);
}

#[test]
fn floods_of_large_writes_stay_within_the_bounds_of_memory_and_are_answered_when_they_read() {
    let _alone = alone();
    let members = long::rounds(30, 200);
    // One body of each at a time.
    let connection = FLOOD_CONNECTION_BYTES + BODY_BYTES_DEFAULT as u64;
    let held = CACHE_BYTES + members as u64 * connection + WRITES_BYTES;
    // Memory of large documents that was given back is kept for the next ones, and not all of it fits them. That each
    // was returned to the system at once would cost half the pace of such writes.
    bears(Flood::LargeWrites, members, held + held / 2);
}

/// Writes what any member of the crowd reads.
fn write_what_is_asked_for(server: &TestServer, flood: Flood) {
    let mut client = server.wire_client();
    client.put("crowd", "known", b"[1]", Condition::None).expect("a durable write");
    if flood == Flood::Reads {
        // More than the cache holds, so that what is owed is memory of its own.
        let document = flood.document();
        for number in 0..flood.documents() {
            let key = flood.key(number);
            client.put(FLOOD_SCHEMA, &key, document.as_bytes(), Condition::None).expect("a durable write");
        }
    }
}

/// A server bears many floods over both protocols: its memory grows by less than the bound, everything is answered once
/// it is read, and others are served meanwhile. They wait, for all of the flood's writes are as good as theirs.
fn bears(flood: Flood, members: usize, bound: u64) {
    let server = server(1);
    write_what_is_asked_for(&server, flood);
    let memory = MemoryWatch::start(&server);
    let good = GoodClients::start(&server);
    let manners = (0..members).map(|number| if number % 2 == 0 { Manners::HttpFlood } else { Manners::WireFlood });
    let (mut crowd, kept_out) = Crowd::connect(server.rest, server.wire, manners);
    assert_eq!(kept_out, 0, "the limit of file descriptors is too low for {members} connections");
    crowd.flood(flood);
    let goal = good.served() + ROUNDS_AMONG_MANY;
    crowd.go_on_while("good clients are served meanwhile", || good.served() < goal);
    let unsent = crowd.unsent_bytes();
    // Now they read: whatever was asked is answered, with what is due or with a refusal.
    crowd.all_read();
    let requests = flood.requests();
    crowd.until("every flood was answered or ended", Duration::from_secs(150), |member| {
        member.ended || member.told.len() >= requests
    });
    good.finish();
    let mut refused = 0;
    for member in crowd.members() {
        let told = &member.told;
        let is_due = |told: &str| matches!(told, "ok" | "200" | "201");
        let is_refusal = |told: &str| matches!(told, "overloaded" | "503" | "request_timeout");
        assert!(told.iter().all(|told| is_due(told) || is_refusal(told)), "{:?}: {:?}", member.manners, told.last());
        refused += told.iter().filter(|told| is_refusal(told)).count();
        // The refusal of one request is no reason to leave the others unanswered.
        let is_whole = told.len() >= requests || member.was_told_of_the_end();
        assert!(is_whole, "{:?} got {} replies and no reason", member.manners, told.len());
    }
    let grown = memory.finish();
    println!(
        "{members} floods of {flood:?} asked {} MiB, {} MiB of it waited with them, {refused} requests were refused: \
         grew by {} MiB (bound {} MiB)",
        (members * requests * flood.document_bytes()) >> 20,
        unsent >> 20,
        grown >> 20,
        bound >> 20
    );
    assert!(grown < bound, "grew by {grown} bytes, {bound} are allowed");
    let (mut client, document) = (server.wire_client(), flood.document());
    let found = (0..flood.documents()).filter_map(|number| {
        let stored = client.get(FLOOD_SCHEMA, &flood.key(number)).expect("a read that is served");
        stored.map(|stored| assert!(stored.content == document.as_bytes(), "document {number} differs"))
    });
    assert!(found.count() > flood.documents() / 2, "most of it was refused");
    drop(crowd);
    server.stop_cleanly();
}
