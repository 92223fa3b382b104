//! `kill -9` at random moments under mixed load, again and again on the same stores: whatever was answered before is
//! there after, whatever was not is wholly there or wholly not, and versions go on rising.

use delta_tests::history::History;
use delta_tests::recorded_crowd::{self as crowd, Crowd, Dice, Entities};
use delta_tests::{ADMIN_KEY, HttpClient, TestServer, long};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

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

fn start(directory: &Path, shards: usize) -> TestServer {
    TestServer::builder().data_dir(directory).shards(shards).start()
}

/// Asks for a new data key while the server may be killed: the answer does not matter.
fn rotate(server: &TestServer) -> JoinHandle<()> {
    let mut client = HttpClient::new(server.rest, Some(ADMIN_KEY)).on_one_connection();
    std::thread::spawn(move || drop(client.send("POST", "/admin/keys/rotate", &[], b"")))
}
