//! `kill -9` at random moments under mixed load, again and again on the same stores: whatever was answered before is
//! there after, whatever was not is wholly there or wholly not, and versions go on rising. Kills strike servers at work,
//! servers that start and recover, and servers that change their shard count.

use delta_tests::history::History;
use delta_tests::recorded_crowd::{self as crowd, Crowd, Dice, Entities};
use delta_tests::{ADMIN_KEY, Ended, HttpClient, ServerBuilder, TestServer, filler, long};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Kills on one store. Two stores take turns on two processors.
const KILLS_EVERYDAY: usize = 100;
const KILLS_NIGHTLY: usize = 1_000;

#[test]
fn nothing_answered_is_lost_by_hundreds_of_kills() {
    let stores = [(2, 1), (3, 2)].map(|(shards, seed)| std::thread::spawn(move || kill_often(shards, seed)));
    // Both to their end, so that no server outlives the test.
    let ends = stores.map(|store| store.join());
    ends.into_iter().for_each(|end| end.unwrap());
}

fn kill_often(shards: usize, seed: u64) {
    let entities = Entities::new(6);
    let history = Arc::new(History::default());
    let directory = tempfile::tempdir().unwrap();
    let mut dice = Dice::new(seed, 0);
    for round in 0..long::rounds(KILLS_EVERYDAY, KILLS_NIGHTLY) as u64 {
        let server = start(directory.path(), shards);
        history.settle();
        let crowd = Crowd::start(&server, 8, entities, &history, seed << 32 | round);
        let rotation = (dice.below(8) == 0).then(|| rotate(&server));
        // From amid the first calls to some hundreds later.
        crowd.wait_for(dice.below(300));
        server.kill();
        crowd.finish();
        rotation.into_iter().for_each(|rotation| rotation.join().unwrap());
    }
    let server = start(directory.path(), shards);
    history.settle();
    crowd::read_all(&server, entities, &history);
    let judged = crowd::judge(&server, entities, &history);
    assert!(judged.unknown > 0, "the kills met no write in flight");
    server.stop_cleanly();
}

/// Kills at work that are followed by kills amid starts.
const ROUNDS_EVERYDAY: usize = 8;
const ROUNDS_NIGHTLY: usize = 150;

#[test]
fn nothing_answered_is_lost_by_kills_amid_starts() {
    let is_ready = |ended: &Ended| ended.stdout.lines().any(|line| line.starts_with("ready"));
    let cut = kill_amid_starts(3, |_, start| start.shards(2), |ended| !is_ready(ended));
    assert!(cut >= ROUNDS_EVERYDAY / 2, "only {cut} kills met a start that was not over");
}

#[test]
fn nothing_answered_is_lost_by_kills_amid_changes_of_the_shard_count() {
    let is_amid = |ended: &Ended| {
        ended.stderr.contains("changing the shard count") && !ended.stderr.contains("entities now live in")
    };
    let cut = kill_amid_starts(4, |dice, start| start.shards(1 + dice.below(4) as usize), is_amid);
    assert!(cut >= ROUNDS_EVERYDAY / 4, "only {cut} kills met a change that was not over");
}

/// After each kill at work the server is started and killed at random moments of its start, several times in a row;
/// says how many of those kills met what they were meant for.
fn kill_amid_starts(
    seed: u64,
    options: impl Fn(&mut Dice, ServerBuilder) -> ServerBuilder,
    is_met: impl Fn(&Ended) -> bool,
) -> usize {
    let entities = Entities::new(6);
    let history = Arc::new(History::default());
    let directory = tempfile::tempdir().unwrap();
    let mut dice = Dice::new(seed, 0);
    let builder = || TestServer::builder().data_dir(directory.path());
    let server = builder().shards(2).start();
    let ballast: Vec<String> = (0..30).map(|number| format!("\"{}\"", filler(100 << 10, number))).collect();
    for (number, document) in ballast.iter().enumerate() {
        server.http().put(&format!("/entity/ballast/k{number}"), document).expect(201);
    }
    server.kill();
    let mut met = 0;
    for round in 0..long::rounds(ROUNDS_EVERYDAY, ROUNDS_NIGHTLY) as u64 {
        // How long it takes now, on this machine: a whole one is the measure of those that are cut.
        let began = Instant::now();
        options(&mut dice, builder()).start().kill();
        let whole_us = began.elapsed().as_micros() as u64;
        for _ in 0..1 + dice.below(4) {
            let after = Duration::from_micros(dice.below(whole_us));
            met += usize::from(is_met(&options(&mut dice, builder()).start_and_kill(after)));
        }
        let server = builder().start();
        history.settle();
        let crowd = Crowd::start(&server, 6, entities, &history, seed << 32 | round);
        crowd.wait_for(dice.below(200));
        server.kill();
        crowd.finish();
    }
    let server = builder().start();
    history.settle();
    crowd::read_all(&server, entities, &history);
    let judged = crowd::judge_without_shards(&history);
    assert!(judged.unknown > 0, "the kills met no write in flight");
    for (number, document) in ballast.iter().enumerate() {
        assert!(server.http().get(&format!("/entity/ballast/k{number}")).expect(200).text() == *document, "{number}");
    }
    server.stop_cleanly();
    println!("{met} kills met what they were meant for");
    met
}

fn start(directory: &Path, shards: usize) -> TestServer {
    TestServer::builder().data_dir(directory).shards(shards).start()
}

/// Asks for a new data key while the server may be killed: the answer does not matter.
fn rotate(server: &TestServer) -> JoinHandle<()> {
    let mut client = HttpClient::new(server.rest, Some(ADMIN_KEY)).on_one_connection();
    std::thread::spawn(move || drop(client.send("POST", "/admin/keys/rotate", &[], b"")))
}
