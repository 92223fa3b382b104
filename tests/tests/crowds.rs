//! Many clients at once that know nothing of shards: all of them are served, none is told to come back later.

use delta_tests::TestServer;
use delta_tests::raw_wire::RawWire;
use delta_wire::client::{Address, Client, ClientOptions};
use delta_wire::encode::Scratch;
use delta_wire::{Condition, Reply, Request};
use std::net::SocketAddr;

/// The own address of shard 0: whatever comes in there for another shard has to cross.
fn address_of_shard_0(server: &TestServer) -> SocketAddr {
    let client = server.wire_client();
    let address = client.welcome().shards[0].address.clone().expect("each shard announces its own port");
    address.parse().expect("an address")
}

#[test]
fn a_crowd_that_pipelines_through_one_shard_is_never_refused() {
    const CONNECTIONS: usize = 50;
    const PIPELINED: usize = 64;
    let server = TestServer::builder().shards(2).start();
    let options = ClientOptions { address: Address::Tcp(address_of_shard_0(&server)), ..server.wire_options() };
    let crowd: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let mut client = Client::connect(options.clone()).expect("the server welcomes the client");
            std::thread::spawn(move || {
                let keys: Vec<String> = (0..PIPELINED).map(|key| format!("c{number}k{key}")).collect();
                for round in 0..8 {
                    let document = format!("[{number},{round}]");
                    let mut pipeline = client.pipeline();
                    for key in &keys {
                        pipeline.put("crowd", key, document.as_bytes(), Condition::None);
                    }
                    pipeline.run().into_iter().for_each(|result| drop(result.expect("a write is not refused")));
                    let mut pipeline = client.pipeline();
                    for key in &keys {
                        pipeline.get("crowd", key);
                    }
                    for result in pipeline.run() {
                        match result.expect("a read is not refused") {
                            Reply::Document(stored) => assert_eq!(stored.content, document.as_bytes()),
                            other => panic!("a document was asked for: {other:?}"),
                        }
                    }
                }
            })
        })
        .collect();
    crowd.into_iter().for_each(|client| client.join().expect("every client is served"));
    let metrics = server.http().get("/metrics").expect(200).text();
    let refused = |line: &&str| line.starts_with("deltadb_mailbox_refused_total") && !line.ends_with(" 0");
    assert_eq!(metrics.lines().find(refused), None);
    server.stop_cleanly();
}

#[test]
fn one_connection_that_sends_everything_before_it_reads_gets_every_reply() {
    const REQUESTS: u64 = 20_000;
    let server = TestServer::builder().shards(2).start();
    let mut raw = RawWire::welcomed(address_of_shard_0(&server));
    let mut scratch = Scratch::new();
    let mut frames = Vec::new();
    for request_id in 0..REQUESTS {
        let (key, document) = (format!("k{request_id}"), request_id.to_string());
        let document = document.as_bytes();
        let put = Request::Put { schema: "s", key: &key, document, condition: Condition::IfAbsent };
        scratch.request(&mut frames, request_id, &put);
    }
    // A client that half-closes after its last request is owed every reply all the same.
    raw.send(&frames);
    raw.end_sending();
    let mut answered = vec![false; REQUESTS as usize];
    for _ in 0..REQUESTS {
        match raw.receive().expect("every request is answered before the connection ends") {
            (request_id, Reply::Written(written)) => {
                assert!(written.created && !std::mem::replace(&mut answered[request_id as usize], true));
            }
            (request_id, other) => panic!("{request_id}: {other:?}"),
        }
    }
    assert!(raw.is_closed());
    server.stop_cleanly();
}
