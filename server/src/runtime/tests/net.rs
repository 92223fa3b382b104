//! Sockets of a real shard against clients of every temper.

use super::super::net::{CloseReason, ConnectionId, ListenAddress, ListenerId, Net, NetEvent, Stream};
use super::super::platform::{Clock, Platform, Spawn, TaskClass};
use super::super::shard::ShardContext;
use super::{Handler, Server, on_shard};
use crate::limits;
use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Long enough never to matter unless something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

fn echo(net: &Net, event: NetEvent<'_>) {
    match event {
        NetEvent::Received { connection, bytes } => {
            net.output(connection, |output| output.extend_from_slice(bytes));
        }
        NetEvent::EndOfInput { connection } => net.close(connection),
        _ => {}
    }
}

fn connect(server: &Server) -> TcpStream {
    let client = TcpStream::connect(server.address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    client
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|index| ((index * 31) ^ (index >> 8) ^ seed) as u8).collect()
}

#[test]
fn requests_are_echoed_pipelined_and_after_half_close() {
    let server = Server::start(|_| echo);
    let mut client = connect(&server);
    for round in 0..100 {
        let request = pattern(14 + round, round);
        client.write_all(&request).unwrap();
        let mut reply = vec![0; request.len()];
        client.read_exact(&mut reply).unwrap();
        assert_eq!(reply, request);
    }
    let big = pattern(3 << 20, 1);
    let (mut writer, sent) = (client.try_clone().unwrap(), big.clone());
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == big, "{} of {} bytes came back", received.len(), big.len());
    let figures = &server.metrics.shards[0];
    assert_eq!(figures.received_bytes.value(), figures.sent_bytes.value());
    assert_eq!(figures.connections_accepted.value(), 1);
}

#[test]
fn unix_sockets_work_the_same_and_their_name_goes_with_the_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wire");
    let name = path.clone();
    let reply = on_shard(move |context: ShardContext| {
        let path = path.clone();
        async move {
            let net = context.net.clone();
            net.attach(Rc::new(Handler(net.clone(), echo)));
            net.listen(ListenerId(1), ListenAddress::Unix(path.clone())).unwrap();
            let (sender, receiver) = channel();
            let client = std::thread::spawn(move || {
                let mut client = UnixStream::connect(path).unwrap();
                client.write_all(b"over a unix socket").unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                let mut reply = Vec::new();
                client.read_to_end(&mut reply).unwrap();
                sender.send(reply).unwrap();
            });
            while !client.is_finished() {
                context.platform.clock().sleep(Duration::from_millis(1)).await;
            }
            client.join().unwrap();
            receiver.recv().unwrap()
        }
    });
    assert_eq!(reply, b"over a unix socket");
    assert!(!name.exists());
}

#[test]
fn shared_bytes_keep_their_place_among_copied_ones() {
    let document: Arc<[u8]> = pattern(700_000, 3).into();
    let expected: Vec<u8> = [b"head", &document[5..], b"middle", &document[..9], b"tail"].concat();
    let server = Server::start(move |_| {
        let document = document.clone();
        move |net: &Net, event: NetEvent<'_>| {
            if let NetEvent::Received { connection, .. } = event {
                net.output(connection, |output| output.extend_from_slice(b"head")).unwrap();
                assert!(net.send_shared(connection, document.clone(), 5..document.len()));
                net.output(connection, |output| output.extend_from_slice(b"middle")).unwrap();
                assert!(net.send_shared(connection, document.clone(), 0..9));
                net.output(connection, |output| output.extend_from_slice(b"tail")).unwrap();
                assert_eq!(net.output_bytes(connection), 700_000 - 5 + 4 + 6 + 9 + 4);
                net.close(connection);
                assert_eq!(net.output(connection, |_| ()), None);
                assert!(!net.send_shared(connection, document.clone(), 0..9));
            }
        }
    });
    let mut client = connect(&server);
    client.write_all(b"?").unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
}

#[test]
fn a_reader_that_never_reads_is_bounded_and_goes_on_when_it_does() {
    let (told, drained) = channel();
    let owed_max = Arc::new(AtomicUsize::new(0));
    let (told, owed) = (told, owed_max.clone());
    let server = Server::start(move |_| {
        let (told, owed) = (told.clone(), owed.clone());
        move |net: &Net, event: NetEvent<'_>| match event {
            // Two bytes back for each byte in.
            NetEvent::Received { connection, bytes } => {
                net.output(connection, |output| bytes.iter().for_each(|byte| output.extend_from_slice(&[*byte; 2])));
                owed.fetch_max(net.output_bytes(connection), Ordering::Relaxed);
            }
            NetEvent::Drained { .. } => told.send(()).unwrap(),
            NetEvent::EndOfInput { connection } => net.close(connection),
            _ => {}
        }
    });
    let mut client = connect(&server);
    let mut writer = client.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        writer.write_all(&pattern(48 << 20, 2)).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    // The writer must get stuck: only reading lets it finish.
    while owed_max.load(Ordering::Relaxed) <= limits::OUTPUT_BYTES_MAX {
        std::thread::yield_now();
    }
    assert!(!writing.is_finished());
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert_eq!(received.len(), 96 << 20);
    assert!(drained.recv().is_ok());
    // What lies in receive buffers, and once more until the receive is cancelled, still arrives after the bound.
    assert!(owed_max.load(Ordering::Relaxed) <= limits::OUTPUT_BYTES_MAX + 2 * 2 * (512 * 8192));
}

/// Tells what happens, and does what the request's first byte says.
fn scripted(told: Sender<(ConnectionId, &'static str)>) -> impl Fn(&Net, NetEvent<'_>) {
    move |net: &Net, event: NetEvent<'_>| {
        let tell = |connection, what| told.send((connection, what)).unwrap();
        match event {
            NetEvent::Accepted { connection, listener } => {
                assert_eq!(listener, ListenerId(7));
                tell(connection, "accepted");
            }
            NetEvent::Received { connection, bytes } => match bytes[0] {
                b'a' => net.abort(connection),
                b'c' => {
                    net.output(connection, |output| output.extend_from_slice(b"bye")).unwrap();
                    net.close(connection);
                }
                b'd' => net.set_deadline(connection, Some(Duration::from_millis(20))),
                b'p' => {
                    net.output(connection, |output| output.extend_from_slice(b"paused")).unwrap();
                    net.pause(connection);
                }
                b'u' => {
                    net.set_deadline(connection, Some(Duration::from_millis(1)));
                    net.set_deadline(connection, None);
                    net.output(connection, |output| output.extend_from_slice(b"undone")).unwrap();
                }
                _ => tell(connection, "received"),
            },
            NetEvent::EndOfInput { connection } => {
                tell(connection, "end");
                net.close(connection);
            }
            NetEvent::Drained { connection } => tell(connection, "drained"),
            NetEvent::TurnedAway { connection, .. } => tell(connection, "turned away"),
            NetEvent::Expired { connection } => {
                tell(connection, "expired");
                net.output(connection, |output| output.extend_from_slice(b"late")).unwrap();
            }
            NetEvent::Closed { connection, reason } => tell(
                connection,
                match reason {
                    CloseReason::Peer => "closed by peer",
                    CloseReason::Local => "closed here",
                    CloseReason::Timeout => "timed out",
                    CloseReason::Error(_) => "failed",
                },
            ),
        }
    }
}

#[test]
fn close_abort_and_deadline_end_a_connection_once_and_say_why() {
    let (told, events) = channel();
    let server = Server::start(move |_| scripted(told.clone()));
    let mut ids = Vec::new();
    for (request, reason) in [(b"a", "closed here"), (b"c", "closed here"), (b"d", "timed out")] {
        let mut client = connect(&server);
        let (id, what) = events.recv().unwrap();
        assert_eq!(what, "accepted");
        client.write_all(request).unwrap();
        let mut reply = Vec::new();
        // An abort may reach the client as a reset.
        let _ = client.read_to_end(&mut reply);
        let expected: &[u8] = match request {
            b"c" => b"bye",
            b"d" => b"late",
            _ => b"",
        };
        assert_eq!(reply, expected);
        drop(client);
        if request == b"d" {
            assert_eq!(events.recv().unwrap(), (id, "expired"));
        }
        assert_eq!(events.recv().unwrap(), (id, reason));
        ids.push(id);
    }
    assert_eq!(server.metrics.shards[0].connections_timed_out.value(), 1);
    assert_eq!(server.metrics.shards[0].connections.value(), 0);
    // The slot is the same each time, its user is not.
    assert!(ids.iter().all(|id| id.slot == ids[0].slot));
    assert!(ids.windows(2).all(|pair| pair[0].generation != pair[1].generation));
    server.stop();
    assert!(events.recv().is_err());
}

#[test]
fn a_deadline_taken_back_does_nothing() {
    let (told, events) = channel();
    let server = Server::start(move |_| scripted(told.clone()));
    let mut client = connect(&server);
    client.write_all(b"u").unwrap();
    let mut reply = [0; 6];
    client.read_exact(&mut reply).unwrap();
    // Another connection's deadline passes later, so this one's would have passed before.
    let mut other = connect(&server);
    other.write_all(b"d").unwrap();
    let mut last_words = String::new();
    other.read_to_string(&mut last_words).unwrap();
    assert_eq!(last_words, "late");
    client.write_all(b"x").unwrap();
    drop(other);
    let mut whats: Vec<&str> = (0..5).map(|_| events.recv().unwrap().1).collect();
    whats.sort_unstable();
    assert_eq!(whats, ["accepted", "accepted", "expired", "received", "timed out"]);
}

#[test]
fn a_peer_that_goes_is_noticed_also_while_paused_once_it_is_written_to_or_closed() {
    let (told, events) = channel();
    let server = Server::start(move |_| scripted(told.clone()));
    let client = connect(&server);
    let (id, _) = events.recv().unwrap();
    drop(client);
    assert_eq!(events.recv().unwrap(), (id, "end"));
    assert_eq!(events.recv().unwrap(), (id, "closed here"));

    let mut client = connect(&server);
    let (id, _) = events.recv().unwrap();
    client.write_all(b"p").unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    client.write_all(b"never delivered").unwrap();
    drop(client);
    server.stop();
    assert_eq!(events.recv().unwrap(), (id, "closed here"));
    assert!(events.recv().is_err());
}

#[test]
fn thousands_of_idle_connections_cost_a_slot_each_and_one_still_gets_its_answer() {
    const CLIENTS: usize = 2000;
    let server = Server::start(|_| echo);
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(&server)).collect();
    for client in clients.iter_mut().step_by(97) {
        client.write_all(b"still here?").unwrap();
        client.read_exact(&mut [0; 11]).unwrap();
    }
    // All at once: more chunks than there are receive buffers.
    for client in &mut clients {
        client.write_all(b"all of us").unwrap();
    }
    for client in &mut clients {
        let mut reply = [0; 9];
        client.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"all of us");
    }
    assert_eq!(server.metrics.shards[0].connections.value(), CLIENTS as u64);
    drop(clients);
    let metrics = server.metrics.clone();
    server.stop();
    assert_eq!(metrics.shards[0].connections.value(), 0);
}

#[test]
fn over_the_connection_limit_the_next_is_turned_away_and_counted() {
    let server = Server::start(|_| {
        |net: &Net, event: NetEvent<'_>| {
            if let NetEvent::TurnedAway { connection, .. } = event {
                net.output(connection, |output| output.extend_from_slice(b"no room")).unwrap();
                net.close(connection);
            }
        }
    });
    // Each connection takes two descriptors of this process, the limit on which is below what the table takes.
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    if (descriptors as usize) < 2 * limits::CONNECTIONS_MAX + 1000 {
        assert_eq!(server.metrics.shards[0].connections_refused.value(), 0);
        return;
    }
    let clients: Vec<TcpStream> = (0..limits::CONNECTIONS_MAX).map(|_| connect(&server)).collect();
    let mut refused = connect(&server);
    let mut told = String::new();
    refused.read_to_string(&mut told).unwrap();
    assert_eq!(told, "no room");
    assert_eq!(server.metrics.shards[0].connections_refused.value(), 1);
    drop(clients);
}

#[test]
fn a_panic_while_appending_undoes_only_what_it_appended() {
    let server = Server::start(|_| {
        |net: &Net, event: NetEvent<'_>| {
            if let NetEvent::Received { connection, .. } = event {
                net.output(connection, |output| output.extend_from_slice(b"before ")).unwrap();
                let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    net.output(connection, |output| {
                        output.extend_from_slice(b"half an answ");
                        panic!("expected by this test");
                    })
                }));
                assert!(caught.is_err());
                net.output(connection, |output| output.extend_from_slice(b"after")).unwrap();
                net.close(connection);
            }
        }
    });
    let mut client = connect(&server);
    client.write_all(b"?").unwrap();
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "before after");
}

async fn read(stream: &mut Stream, into: &mut [u8]) -> std::io::Result<usize> {
    poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, into)).await
}

async fn write_all(stream: &mut Stream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| stream.poll_write(cx, bytes)).await?;
        bytes = &bytes[written..];
    }
    poll_fn(|cx| stream.poll_flush(cx)).await
}

/// A server whose connections are streams echoed by a task each; `told` gets each task's end.
fn stream_server(told: Sender<Result<usize, ErrorKind>>) -> Server {
    Server::start(move |_| {
        let told = told.clone();
        move |net: &Net, event: NetEvent<'_>| match event {
            NetEvent::Accepted { connection, .. } => {
                let (mut stream, told) = (net.stream(connection), told.clone());
                assert_eq!(stream.connection(), connection);
                let task = async move {
                    let (mut buffer, mut total) = (vec![0; 50_000], 0);
                    let ended = loop {
                        match read(&mut stream, &mut buffer).await {
                            Ok(0) => break Ok(total),
                            Ok(count) => {
                                total += count;
                                if let Err(error) = write_all(&mut stream, &buffer[..count]).await {
                                    break Err(error.kind());
                                }
                            }
                            Err(error) => break Err(error.kind()),
                        }
                    };
                    if ended.is_ok() {
                        poll_fn(|cx| stream.poll_shutdown(cx)).await.unwrap();
                    }
                    told.send(ended).unwrap();
                };
                drop(glommio::spawn_local(task).detach());
            }
            NetEvent::TurnedAway { .. } | NetEvent::Closed { .. } => {}
            _ => panic!("a stream's events are its own"),
        }
    })
}

#[test]
fn a_stream_echoes_with_back_pressure_both_ways() {
    let (told, ends) = channel();
    let server = stream_server(told);
    let mut client = connect(&server);
    let mut writer = client.try_clone().unwrap();
    const BYTES: usize = 24 << 20;
    let (sender, progress) = channel();
    let writing = std::thread::spawn(move || {
        for chunk in pattern(BYTES, 5).chunks(1 << 20) {
            writer.write_all(chunk).unwrap();
            sender.send(()).unwrap();
        }
        writer.shutdown(Shutdown::Write).unwrap();
    });
    // With nobody reading, only what fits in the bounds and the sockets gets through; then reading frees it.
    progress.recv().unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == pattern(BYTES, 5), "{} of {BYTES} bytes", received.len());
    assert_eq!(ends.recv().unwrap(), Ok(BYTES));
}

#[test]
fn a_stream_hears_of_the_end_of_its_connection() {
    let (told, ends) = channel();
    let server = stream_server(told);
    let mut client = connect(&server);
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    drop(client);
    assert_eq!(ends.recv().unwrap(), Ok(5));
    let client = connect(&server);
    server.stop();
    // The shard ended under the stream's hands: its task was told, or dropped with the executor.
    assert!(!matches!(ends.recv(), Ok(Ok(1..))));
    drop(client);
}

#[test]
fn a_task_that_writes_while_the_shard_is_parked_wakes_it() {
    let received = on_shard(|context: ShardContext| async move {
        let net = context.net.clone();
        let (give, take) = channel::<ConnectionId>();
        net.attach(Rc::new(Handler(net.clone(), move |_: &Net, event: NetEvent<'_>| {
            if let NetEvent::Accepted { connection, .. } = event {
                give.send(connection).unwrap();
            }
        })));
        let any = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let address = net.listen(ListenerId(0), any).unwrap().unwrap();
        let client = std::thread::spawn(move || {
            let mut client = TcpStream::connect(address).unwrap();
            let mut received = [0; 5];
            (0..50).for_each(|_| client.read_exact(&mut received).unwrap());
            received
        });
        let connection = loop {
            context.platform.clock().sleep(Duration::from_millis(1)).await;
            if let Ok(connection) = take.try_recv() {
                break connection;
            }
        };
        for _ in 0..50 {
            // Far longer than the spin: by now the driver is parked.
            context.platform.clock().sleep(Duration::from_millis(1)).await;
            context.platform.spawn().spawn(TaskClass::Background, {
                let net = net.clone();
                async move { net.output(connection, |output| output.extend_from_slice(b"woken")).unwrap() }
            });
        }
        while !client.is_finished() {
            context.platform.clock().sleep(Duration::from_millis(1)).await;
        }
        client.join().unwrap()
    });
    assert_eq!(&received, b"woken");
}
