//! Histories of the real server, recorded by concurrent clients of both protocols, are linearizable and their versions
//! strictly rising: with several shards, small caches, and crashes in the middle.

use delta_tests::history::History;
use delta_tests::recorded_crowd::{self as crowd, Crowd, Entities};
use delta_tests::{TestServer, long};
use std::sync::Arc;

#[test]
fn a_crowd_sees_one_copy_of_every_entity() {
    let entities = Entities::new(6);
    for shards in [1, 3] {
        let history = Arc::new(History::default());
        let server = TestServer::builder().shards(shards).start();
        let crowd = Crowd::start(&server, 12, entities, &history, shards as u64);
        crowd.wait_for(long::rounds(6_000, 200_000) as u64);
        crowd.finish();
        crowd::read_all(&server, entities, &history);
        let judged = crowd::judge(&server, entities, &history);
        assert_eq!(judged.unknown, 0, "nothing went wrong, so that every answer is known");
        server.stop_cleanly();
    }
}

#[test]
fn reads_that_come_from_the_disk_are_no_older() {
    let entities = Entities::new(6);
    let history = Arc::new(History::default());
    // With room for two documents nearly every read goes to the disk while writes pass it.
    let server = TestServer::builder().shards(2).arguments(["--cache-size", "2"]).start();
    let crowd = Crowd::start(&server, 12, entities, &history, 5);
    crowd.wait_for(long::rounds(6_000, 200_000) as u64);
    crowd.finish();
    crowd::read_all(&server, entities, &history);
    crowd::judge(&server, entities, &history);
    server.stop_cleanly();
}

#[test]
fn a_history_that_spans_crashes_and_restarts_is_still_linearizable() {
    let entities = Entities::new(6);
    let history = Arc::new(History::default());
    let directory = tempfile::tempdir().unwrap();
    for round in 0..long::rounds(6, 60) as u64 {
        let server = TestServer::builder().data_dir(directory.path()).shards(3).start();
        history.settle();
        let crowd = Crowd::start(&server, 12, entities, &history, 100 + round);
        crowd.wait_for(1_200);
        match round % 3 {
            2 => server.stop_cleanly(),
            _ => drop(server.kill()),
        }
        crowd.finish();
    }
    let server = TestServer::builder().data_dir(directory.path()).start();
    history.settle();
    crowd::read_all(&server, entities, &history);
    let judged = crowd::judge(&server, entities, &history);
    assert!(judged.unknown > 0, "the crashes met no write in flight");
}
