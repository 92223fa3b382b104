//! The ring against peers that echo, and against itself.

use super::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

fn echo(mut peer: UnixStream, total_bytes: usize) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut left = total_bytes;
        let mut buffer = vec![0; 4096];
        while left > 0 {
            let length = peer.read(&mut buffer).unwrap();
            peer.write_all(&buffer[..length]).unwrap();
            left -= length;
        }
    })
}

#[test]
fn every_byte_comes_back_in_order_and_the_end_is_told_once() {
    let total_bytes = 3 << 20;
    let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().unwrap()).collect();
    let (mut sockets, mut peers) = (Vec::new(), Vec::new());
    for (ours, theirs) in pairs {
        sockets.push(OwnedFd::from(ours));
        peers.push(echo(theirs, total_bytes));
    }
    let mut ring = Ring::new(sockets).unwrap();
    let sent: Vec<u8> = (0..total_bytes).map(|position| (position % 251) as u8).collect();
    (0..3).for_each(|socket| ring.outbound(socket).extend_from_slice(&sent));
    let mut received = vec![Vec::new(); 3];
    let mut closed = [0; 3];
    while closed.iter().sum::<usize>() < 3 {
        ring.turn(Wait::Endless).unwrap();
        ring.reap(|socket, event, _| match event {
            Event::Received(bytes) => received[socket].extend_from_slice(bytes),
            Event::Closed(_) => closed[socket] += 1,
            Event::Opened => panic!("this ring does not listen"),
        });
    }
    drop(ring);
    peers.into_iter().for_each(|peer| peer.join().unwrap());
    assert!(received.iter().all(|bytes| *bytes == sent));
    assert_eq!(closed, [1; 3]);
}

#[test]
fn a_turn_that_may_not_wait_returns_without_an_event() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut ring = Ring::new(vec![ours.into()]).unwrap();
    for wait in [Wait::Until(Duration::ZERO), Wait::Until(Duration::from_millis(1))] {
        ring.turn(wait).unwrap();
        ring.reap(|_, _, _| panic!("nothing happened on the socket"));
    }
}

#[test]
fn a_listening_ring_serves_whoever_comes_and_uses_places_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    const CLIENTS: usize = 20;
    let clients = std::thread::spawn(move || {
        for client in 0..CLIENTS {
            let mut stream = UnixStream::connect(&path).unwrap();
            let sent = vec![client as u8; 1 + client * 3000];
            stream.write_all(&sent).unwrap();
            let mut received = vec![0; sent.len()];
            stream.read_exact(&mut received).unwrap();
            assert_eq!(received, sent);
        }
    });
    let mut ring = Ring::listening(listener.into()).unwrap();
    let (mut opened, mut closed, mut highest) = (0, 0, 0);
    while closed < CLIENTS {
        ring.turn(Wait::Endless).unwrap();
        ring.reap(|socket, event, out| {
            highest = highest.max(socket);
            match event {
                Event::Opened => opened += 1,
                Event::Received(bytes) => out.extend_from_slice(bytes),
                Event::Closed(_) => closed += 1,
            }
        });
    }
    clients.join().unwrap();
    assert_eq!(opened, CLIENTS);
    // One at a time: the next may come before the kernel has let go of the one before it, but not much before.
    assert!(highest < CLIENTS / 2, "{highest}");
}
