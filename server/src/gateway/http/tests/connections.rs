//! Raw bytes: heads that are no HTTP, bodies in pieces, pipelines, slow peers, and the end of connections.

use super::fake_api::{BODY_BYTES_MAX, KEY};
use super::harness::{Answer, Client, request};
use crate::limits::{
    HELLO_TIMEOUT_MS, HTTP_HEAD_BYTES_MAX, IDLE_TIMEOUT_MS, INPUT_BYTES_MIN, INPUT_BYTES_SHARD_MAX, REQUEST_TIMEOUT_MS,
    SEND_TIMEOUT_MS,
};

fn keyed(method: &str, target: &str, more: &[&str], body: &str) -> String {
    let key = format!("authorization: Bearer {KEY}");
    request(method, target, &[&[key.as_str()], more].concat(), body)
}

fn only(client: &mut Client) -> Answer {
    let bytes = client.take();
    let mut answers = Answer::all(&bytes, false);
    assert_eq!(answers.len(), 1, "{}", String::from_utf8_lossy(&bytes));
    answers.remove(0)
}

#[test]
fn heads_that_cannot_be_parsed_get_a_problem_document() {
    let long_name = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(HTTP_HEAD_BYTES_MAX));
    let endless = format!("GET /{} ", "y".repeat(HTTP_HEAD_BYTES_MAX + 10));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(150));
    let table: [(&str, u16); 10] = [
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/9.9\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n", 400),
        ("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (&long_name, 431),
        (&endless, 431),
        (&many, 431),
    ];
    for (bytes, status) in table {
        let mut client = Client::new();
        client.send(bytes);
        let answer = only(&mut client);
        let what = bytes.chars().take(60).collect::<String>();
        assert_eq!(answer.status, status, "{what}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
        assert_eq!(answer.json()["status"], status, "{what}");
        assert_eq!(answer.header("connection"), Some("close"), "{what}");
        client.end();
        assert!(client.is_closed(), "{what}");
    }
}

#[test]
fn a_head_that_ends_within_is_answered_400() {
    let mut client = Client::new();
    client.send("GET /entity/s/k HTTP/1.1\r\nhost: a\r\nx");
    client.end();
    assert_eq!(only(&mut client).status, 400);
    assert!(client.is_closed());
}

#[test]
fn who_finds_no_room_is_told_when_to_try_again() {
    let client = Client::new();
    let answer = Answer::all(&client.gateway.turned_away(), false).remove(0);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.json()["error"], "overloaded");
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn a_request_names_one_host() {
    for hosts in ["", "host: a\r\nhost: b\r\n", "host: a b\r\n", "host: u@a\r\n", "host: a/b\r\n"] {
        let mut client = Client::new();
        client.send(format!("GET / HTTP/1.1\r\n{hosts}\r\n"));
        assert_eq!(only(&mut client).status, 400, "{hosts}");
    }
    for host in ["", "a:80", "[::1]:8080", "ex%41mple.org"] {
        let mut client = Client::new();
        client.send(format!("GET /livez HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(only(&mut client).status, 200, "{host}");
    }
    let mut client = Client::new();
    client.send("GET /livez HTTP/1.0\r\n\r\n");
    assert!(client.take().starts_with(b"HTTP/1.0 200"));
    assert!(client.is_closed(), "HTTP/1.0 closes");
}

#[test]
fn a_peer_that_ends_its_side_after_a_request_gets_its_reply() {
    let mut client = Client::new();
    client.send(keyed("PUT", "/entity/s/a", &[], "1") + &keyed("GET", "/entity/s/a", &[], ""));
    client.end();
    let statuses: Vec<u16> = Answer::all(&client.take(), false).iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [201, 200]);
    assert!(client.is_closed());

    // Both at once, as it comes out of a pipe.
    let mut client = Client::new();
    client.send_and_end(keyed("GET", "/livez", &[], ""));
    assert_eq!(only(&mut client).status, 200);
    assert!(client.is_closed());
}

#[test]
fn bodies_under_another_transfer_coding_are_not_taken() {
    for coding in ["gzip, chunked", "chunked, chunked"] {
        let mut client = Client::new();
        let header = format!("transfer-encoding: {coding}");
        client.send(keyed("PUT", "/entity/s/a", &[&header], "") + "1\r\n1\r\n0\r\n\r\n");
        assert_eq!(only(&mut client).status, 501, "{coding}");
        assert!(client.api.entities.borrow().is_empty());
    }
}

#[test]
fn options_of_the_whole_server_name_every_method() {
    let mut client = Client::new();
    client.send("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n");
    let answer = only(&mut client);
    assert_eq!((answer.status, answer.header("allow")), (204, Some("GET, HEAD, PUT, POST, DELETE, OPTIONS")));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut client = Client::new();
    let all: String = [
        keyed("PUT", "/entity/s/a", &[], "1"),
        keyed("GET", "/entity/s/a", &[], ""),
        keyed("DELETE", "/entity/s/a", &[], ""),
        keyed("GET", "/entity/s/a", &[], ""),
        "garbage\r\n\r\n".to_owned(),
    ]
    .concat();
    client.send(all);
    let statuses: Vec<u16> = Answer::all(&client.take(), false).iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [201, 200, 200, 404, 400]);
}

#[test]
fn requests_may_arrive_byte_by_byte() {
    let mut client = Client::new();
    for byte in keyed("PUT", "/entity/s/a", &[], "{\"n\": [1, 2]}").bytes() {
        client.send([byte]);
    }
    assert_eq!(only(&mut client).status, 201);
    assert_eq!(client.ask("GET", "/entity/s/a", &[], "").body, "{\"n\": [1, 2]}");
}

#[test]
fn chunked_bodies_are_joined_and_counted() {
    let mut client = Client::new();
    let chunked = ["transfer-encoding: chunked"];
    client.send(keyed("PUT", "/entity/s/a", &chunked, "").to_owned() + "3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n");
    assert_eq!(only(&mut client).status, 201);
    assert_eq!(client.ask("GET", "/entity/s/a", &[], "").body, "[1,2]");

    client.send(keyed("PUT", "/entity/s/a", &chunked, ""));
    let chunk = format!("{:x}\r\n{}\r\n", 10_000, "x".repeat(10_000));
    for _ in 0..=BODY_BYTES_MAX / 10_000 {
        client.send(&chunk);
    }
    let answer = only(&mut client);
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));

    let mut client = Client::new();
    client.send(keyed("PUT", "/entity/s/a", &chunked, "") + "zz\r\n");
    assert_eq!(only(&mut client).status, 400);
}

#[test]
fn continue_is_sent_only_when_the_body_is_wanted() {
    let mut client = Client::new();
    let expect = ["expect: 100-continue", "content-length: 1"];
    client.send(keyed("PUT", "/entity/s/a", &expect, ""));
    assert_eq!(client.take(), b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("1");
    assert_eq!(only(&mut client).status, 201);

    client.send(request("PUT", "/entity/s/a", &expect, ""));
    assert_eq!(only(&mut client).status, 401, "a stranger's body is not asked for");
}

#[test]
fn an_unwanted_small_body_does_not_cost_the_connection() {
    let mut client = Client::new();
    client.send(request("PUT", "/entity/s/a", &["content-length: 4"], ""));
    client.send("12");
    client.send("34");
    assert_eq!(only(&mut client).status, 401);
    assert_eq!(client.ask("GET", "/livez", &[], "").status, 200);
}

#[test]
fn a_body_that_dribbles_in_is_answered_408() {
    let mut client = Client::new();
    client.send(keyed("PUT", "/entity/s/a", &["content-length: 1000"], ""));
    for _ in 0..REQUEST_TIMEOUT_MS / 1000 - 1 {
        client.send("x");
        client.advance(1000);
        assert_eq!(client.take(), b"");
    }
    client.send("x");
    client.advance(1000);
    let answer = only(&mut client);
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    assert_eq!(answer.json()["error"], "request_timeout");
    client.advance(10_000);
    assert!(client.is_closed());
    assert_eq!(client.api.calls.get(), 0);
}

#[test]
fn bodies_are_bounded_over_all_connections_and_only_large_ones_are_refused() {
    let mut client = Client::new();
    let others = INPUT_BYTES_SHARD_MAX - 10_000;
    client.gateway.bodies_bytes.set(others);
    let large = format!("\"{}\"", "x".repeat(INPUT_BYTES_MIN + 1000));
    let small = format!("\"{}\"", "x".repeat(INPUT_BYTES_MIN - 1000));
    client.send(keyed("PUT", "/entity/s/small", &["content-type: application/json"], &small));
    assert_eq!(only(&mut client).status, 201);
    assert_eq!(client.gateway.bodies_bytes.get(), others, "what was read is given back");
    let request = keyed("PUT", "/entity/s/large", &["content-type: application/json"], &large);
    let (head, body) = request.split_at(request.len() - large.len());
    client.send(head);
    body.as_bytes().chunks(4000).for_each(|piece| client.send(piece));
    let answer = only(&mut client);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    client.end();
    assert_eq!(client.gateway.bodies_bytes.get(), others);
}

#[test]
fn a_head_that_dribbles_in_is_answered_408() {
    let mut client = Client::new();
    for _ in 0..HELLO_TIMEOUT_MS / 1000 {
        client.send("G");
        client.advance(1000);
    }
    assert_eq!(only(&mut client).status, 408);
    client.advance(10_000);
    assert!(client.is_closed());

    // The same on a connection that has been good before.
    let mut client = Client::new();
    client.ask("GET", "/livez", &[], "");
    client.send("GET /li");
    client.advance(HELLO_TIMEOUT_MS);
    assert_eq!(only(&mut client).status, 408);
}

#[test]
fn silent_connections_are_closed_without_a_word() {
    let mut client = Client::new();
    client.advance(HELLO_TIMEOUT_MS - 1);
    assert!(!client.is_closed());
    client.advance(1);
    assert!(client.is_closed() && client.take().is_empty());
    assert_eq!(client.metrics().connections_timed_out.value(), 1);

    let mut client = Client::new();
    client.ask("GET", "/livez", &[], "");
    client.advance(IDLE_TIMEOUT_MS - 1);
    assert!(!client.is_closed(), "an idle connection has longer");
    client.advance(1);
    assert!(client.is_closed() && client.take().is_empty());
}

#[test]
fn a_peer_that_never_reads_is_dropped() {
    let mut client = Client::new();
    client.api.insert("s", "a", &format!("\"{}\"", "x".repeat(50_000)));
    client.set_room(1000);
    client.send(keyed("GET", "/entity/s/a", &[], ""));
    assert_eq!(client.take().len(), 1000);
    client.advance(SEND_TIMEOUT_MS - 1);
    client.set_room(1000);
    client.advance(SEND_TIMEOUT_MS - 1);
    assert!(!client.is_closed(), "progress earns more time");
    client.advance(1);
    assert!(client.is_closed());
}

#[test]
fn the_time_the_engine_takes_is_not_the_clients_fault() {
    let mut client = Client::new();
    client.api.stalled.set(true);
    client.send(keyed("GET", "/entity/s/a", &[], ""));
    client.advance(10 * IDLE_TIMEOUT_MS);
    assert!(!client.is_closed() && client.take().is_empty());
}

#[test]
fn a_busy_connection_does_not_set_a_timer_for_every_request() {
    let mut client = Client::new();
    for _ in 0..1000 {
        client.ask("GET", "/livez", &[], "");
        client.advance(1);
    }
    assert!(client.clock.sleeps() < 10, "{} sleeps", client.clock.sleeps());
}

#[test]
fn a_drain_closes_idle_connections_and_lets_busy_ones_finish() {
    let mut client = Client::new();
    client.ask("GET", "/livez", &[], "");
    assert_eq!(client.gateway.connections(), 1);
    client.gateway.drain();
    client.run();
    assert!(client.is_closed());
    assert_eq!(client.gateway.connections(), 0);

    let mut client = Client::new();
    client.send(keyed("PUT", "/entity/s/a", &["content-length: 1"], ""));
    client.gateway.drain();
    client.run();
    assert!(!client.is_closed());
    client.send("1");
    let answer = only(&mut client);
    assert_eq!((answer.status, answer.header("connection")), (201, Some("close")));
    assert!(client.is_closed());
}

#[test]
fn a_peer_that_goes_away_ends_the_connection() {
    for bytes in ["", "GET /", &keyed("PUT", "/entity/s/a", &["content-length: 9"], "")] {
        let mut client = Client::new();
        client.send(bytes);
        client.end();
        assert!(client.is_closed(), "after {bytes:?}");
        assert_eq!(client.api.calls.get(), 0);
    }
}
