//! Clients that break the rules: each is dealt with by itself, and everyone else is served meanwhile.

use delta_tests::raw_wire::RawWire;
use delta_tests::skips::skip;
use delta_tests::{ADMIN_KEY, PATIENCE, TestServer, filler, http};
use delta_wire::encode::Scratch;
use delta_wire::{Condition, Reply, Request};
use deltadb::limits::SEND_TIMEOUT_MS;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Whether the server closes the connection; what it says before does not matter.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset || error.kind() == ErrorKind::BrokenPipe,
        }
    }
}

fn is_served(server: &TestServer) {
    server.http().get("/health").expect(200);
    server.cli().run(&["ping"]).expect(0);
}

#[test]
fn garbage_on_the_wire_port_closes_that_connection_only() {
    let server = TestServer::builder().shards(2).start();
    let frame = |body: &[u8]| [&(body.len() as u32).to_le_bytes()[..], body].concat();
    let noise = filler(5000, 9).into_bytes();
    let mut cases: Vec<Vec<u8>> = vec![
        0u32.to_le_bytes().to_vec(),
        u32::MAX.to_le_bytes().to_vec(),
        [&(1u32 << 31).to_le_bytes()[..], &noise].concat(),
        frame(&[0xff; 64]),
        frame(&[0x00; 64]),
        frame(&noise[..1000]),
        frame(&[&[0xf0, 0xff, 0xff, 0x7f][..], &[0x41; 200]].concat()),
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
    ];
    // Offsets that point everywhere in a frame that is nearly one.
    cases.extend((0..64u32).map(|n| {
        let mut body: Vec<u8> = (0..128u32).flat_map(|word| (word * n % 97).to_le_bytes()).collect();
        body.truncate(16 + n as usize * 3);
        frame(&body)
    }));
    for bytes in cases {
        let mut stream = http::connect(server.wire).unwrap();
        // It may be closed before all of it is written.
        let _ = stream.write_all(&bytes);
        assert!(is_closed(&mut stream), "still open after {} bytes of garbage", bytes.len());
    }
    is_served(&server);
}

#[test]
fn mutilated_frames_of_a_welcomed_client_close_that_connection_only() {
    let server = TestServer::builder().shards(2).start();
    let mut frame = Vec::new();
    let put = Request::Put { schema: "s", key: "k", document: b"[1,2,3]", condition: Condition::None };
    Scratch::new().request(&mut frame, 7, &put);
    for position in 4..frame.len() {
        let mut bytes = frame.clone();
        bytes[position] ^= 0x81;
        let mut raw = RawWire::welcomed(server.wire);
        raw.send(&bytes);
        // What was changed may still be a request; what is none gets an error without an id, and the end.
        if let Some((0, Reply::Error(_))) = raw.receive() {
            assert!(raw.is_closed(), "byte {position}");
        }
    }
    is_served(&server);
}

#[test]
fn a_wire_client_that_never_reads_costs_bounded_memory_and_nobody_else() {
    let server = TestServer::builder().shards(2).arguments(["--cache-bytes", "64MiB"]).start();
    let document = format!("\"{}\"", filler(900_000, 2));
    server.wire_client().put("s", "large", document.as_bytes(), Condition::None).unwrap();
    let before = server.resident_bytes();
    let mut requests = Vec::new();
    for id in 0..200 {
        Scratch::new().request(&mut requests, id, &Request::Get { schema: "s", key: "large" });
    }
    let greedy: Vec<RawWire> = (0..20)
        .map(|_| {
            let mut raw = RawWire::welcomed(server.wire);
            raw.send_what_fits(&requests);
            raw
        })
        .collect();
    for _ in 0..20 {
        is_served(&server);
    }
    // 4,000 requests for 900 KB each were asked for: 3.6 GB.
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 400 << 20, "grew by {grown} bytes for clients that never read");
    drop(greedy);
    is_served(&server);
}

#[test]
fn a_frame_cut_short_is_forgotten_with_its_connection() {
    let server = TestServer::start();
    for length in [1, 3, 4, 5, 40] {
        let mut stream = http::connect(server.wire).unwrap();
        let bytes = [&64u32.to_le_bytes()[..], &[7; 64]].concat();
        stream.write_all(&bytes[..length]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(is_closed(&mut stream));
    }
    is_served(&server);
}

#[test]
fn slow_senders_are_closed_on_both_ports_while_others_are_served() {
    let server = TestServer::start();
    let request = format!("PUT /entity/s/slow HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\n");
    let http = std::thread::spawn({
        let (address, bytes) = (server.rest, request.into_bytes());
        move || drip(address, bytes)
    });
    let wire = std::thread::spawn({
        let address = server.wire;
        move || drip(address, [&4096u32.to_le_bytes()[..], &[1; 4096]].concat())
    });
    for _ in 0..20 {
        is_served(&server);
    }
    assert!(http.join().unwrap(), "a byte at a time was taken for ever over HTTP");
    assert!(wire.join().unwrap(), "a byte at a time was taken for ever on the wire port");
    server.http().get("/entity/s/slow").expect(404);
}

/// Sends a byte whenever nothing was received for half a second; true when the server had enough of it.
fn drip(address: SocketAddr, bytes: Vec<u8>) -> bool {
    let mut stream = http::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let deadline = Instant::now() + 2 * PATIENCE;
    let mut bytes = bytes.into_iter().cycle();
    let mut buffer = [0; 1024];
    while Instant::now() < deadline {
        if stream.write_all(&[bytes.next().unwrap_or(0)]).is_err() {
            return true;
        }
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return true,
        }
    }
    false
}

#[test]
fn a_client_that_never_reads_costs_bounded_memory_and_nobody_else() {
    let server = TestServer::builder().shards(2).arguments(["--cache-bytes", "64MiB"]).start();
    server.http().put("/entity/s/large", &format!("\"{}\"", filler(900_000, 2))).expect(201);
    let before = server.resident_bytes();
    let request = format!("GET /entity/s/large HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\n\r\n");
    let greedy: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = http::connect(server.rest).unwrap();
            stream.set_nonblocking(true).unwrap();
            // As much as the server takes: it must stop taking before its memory does.
            for _ in 0..4000 {
                if stream.write_all(request.as_bytes()).is_err() {
                    break;
                }
            }
            stream
        })
        .collect();
    for _ in 0..20 {
        is_served(&server);
    }
    // 80,000 requests for 900 KB each were asked for: 72 GB.
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 400 << 20, "grew by {grown} bytes for clients that never read");
    drop(greedy);
    is_served(&server);
}

/// It takes less in the time that a send may wait than the kernel has room for.
#[test]
fn a_client_that_takes_a_little_now_and_then_gets_everything() {
    const READS: usize = 8;
    let server = TestServer::builder().shards(1).start();
    let document = format!("\"{}\"", filler(900_000, 2));
    server.http().put("/entity/s/large", &document).expect(201);
    let mut stream = http::connect(server.rest).unwrap();
    let request = format!("GET /entity/s/large HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\n\r\n");
    stream.write_all(request.repeat(READS).as_bytes()).unwrap();
    let mut received = Vec::new();
    let mut take = |bytes: u64| (&stream).take(bytes).read_to_end(&mut received).expect("a reply goes on");
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_millis(SEND_TIMEOUT_MS + 5_000) {
        assert_eq!(take(2_000), 2_000, "the server ended it after {:?}", asked.elapsed());
        // Its pace is what is tested.
        std::thread::park_timeout(Duration::from_millis(200));
    }
    stream.shutdown(Shutdown::Write).unwrap();
    take(u64::MAX);
    let whole = received.windows(document.len()).filter(|window| *window == document.as_bytes()).count();
    assert_eq!(whole, READS);
    server.stop_cleanly();
}

#[test]
fn thousands_of_idle_connections_are_held_and_others_served() {
    let server = TestServer::builder().shards(2).start();
    let wanted = 4000.min(file_descriptors() / 2);
    if wanted < 4000 {
        skip(&format!("all but {wanted} of 4000 connections: the limit of file descriptors keeps them out"));
    }
    let mut idle = Vec::new();
    for n in 0..wanted {
        let address = if n % 2 == 0 { server.rest } else { server.wire };
        idle.push(TcpStream::connect(address).unwrap_or_else(|error| panic!("connection {n}: {error}")));
        if n % 500 == 0 {
            is_served(&server);
        }
    }
    is_served(&server);
    server.http().put("/entity/s/k", "1").expect(201);
    drop(idle);
    server.stop_cleanly();
}

/// How many descriptors this process may have, after asking for all it can get.
fn file_descriptors() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(1 << 16) as usize
}

#[test]
fn requests_without_end_on_one_connection_are_all_answered() {
    let server = TestServer::builder().shards(2).start();
    server.http().put("/entity/s/k", "1").expect(201);
    let mut stream = http::connect(server.rest).unwrap();
    let request = format!("GET /entity/s/k HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\n\r\n");
    let mut writer = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for _ in 0..5000 {
            writer.write_all(request.as_bytes()).unwrap();
        }
    });
    let mut ahead = Vec::new();
    for _ in 0..5000 {
        http::read_response(&mut stream, &mut ahead, false).unwrap().expect(200);
    }
    sender.join().unwrap();
}
