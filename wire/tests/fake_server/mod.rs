//! A server that does what a script says, on an ephemeral loopback port.

use delta_wire::encode::Scratch;
use delta_wire::generated::{self as tables, Body, Frame};
use delta_wire::{FrameDecoder, PROTOCOL, read_frame};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

/// What the script does after a request.
#[derive(PartialEq, Eq)]
pub enum Then {
    Continue,
    Close,
}

/// One connection as the script sees it.
pub struct Peer {
    /// Which connection it is, in order of acceptance.
    pub number: usize,
    /// What will be sent.
    pub out: Vec<u8>,
    /// Ids the script wants to remember.
    pub held: Vec<u64>,
    pub scratch: Scratch,
}

impl Peer {
    pub fn pong(&mut self, request_id: u64) {
        self.scratch.empty(&mut self.out, request_id, Body::Pong);
    }

    pub fn error(&mut self, request_id: u64, code: delta_wire::ErrorCode) {
        self.scratch.frame(&mut self.out, request_id, Body::Error, |builder| {
            let message = Some(builder.create_string("scripted"));
            let args = tables::ErrorArgs { code: code.number(), message, ..Default::default() };
            tables::Error::create(builder, &args).as_union_value()
        });
    }
}

/// What every Welcome says.
#[derive(Clone, Default)]
pub struct Topology {
    pub hash_seed: u64,
    pub shard: u16,
    pub shards: Vec<(u8, u8, Option<SocketAddr>)>,
}

pub struct FakeServer {
    pub address: SocketAddr,
    /// Kind and connection number of each request, in order of arrival.
    pub seen: Arc<Mutex<Vec<(Body, usize)>>>,
    /// The number of each connection this side has closed.
    pub closed: Receiver<usize>,
}

impl FakeServer {
    pub fn start(script: impl Fn(&Frame<'_>, &mut Peer) -> Then + Send + Sync + 'static) -> Self {
        Self::bind().serve(Topology::default(), script)
    }

    /// Binds first, so that a topology can name the address.
    pub fn bind() -> Bound {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Bound { address: listener.local_addr().unwrap(), listener }
    }

    pub fn count(&self, kind: Body) -> usize {
        self.seen.lock().unwrap().iter().filter(|(seen, _)| *seen == kind).count()
    }
}

pub struct Bound {
    pub address: SocketAddr,
    listener: TcpListener,
}

impl Bound {
    pub fn serve(
        self,
        topology: Topology,
        script: impl Fn(&Frame<'_>, &mut Peer) -> Then + Send + Sync + 'static,
    ) -> FakeServer {
        self.serve_changing(vec![topology], script)
    }

    /// Every connection is told its own topology; those beyond the last, the last.
    pub fn serve_changing(
        self,
        topologies: Vec<Topology>,
        script: impl Fn(&Frame<'_>, &mut Peer) -> Then + Send + Sync + 'static,
    ) -> FakeServer {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (closing, closed) = channel();
        let (server_seen, script) = (seen.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for (number, stream) in self.listener.incoming().enumerate() {
                let (seen, script) = (server_seen.clone(), script.clone());
                let topology = topologies[number.min(topologies.len() - 1)].clone();
                let (stream, closing) = (stream.unwrap(), closing.clone());
                std::thread::spawn(move || {
                    converse(stream, number, &topology, &seen, &*script);
                    // The test may be over and not listen any more.
                    let _ = closing.send(number);
                });
            }
        });
        FakeServer { address: self.address, seen, closed }
    }
}

/// Serves one connection on a Unix socket.
pub fn serve_unix(path: &Path, script: impl Fn(&Frame<'_>, &mut Peer) -> Then + Send + Sync + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        converse(stream, 0, &Topology::default(), &Mutex::default(), &script);
    });
}

fn converse(
    mut stream: impl Read + Write,
    number: usize,
    topology: &Topology,
    seen: &Mutex<Vec<(Body, usize)>>,
    script: &dyn Fn(&Frame<'_>, &mut Peer) -> Then,
) {
    let mut peer = Peer { number, out: Vec::new(), held: Vec::new(), scratch: Scratch::new() };
    let mut decoder = FrameDecoder::new();
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        let mut input = &buffer[..count];
        let mut then = Then::Continue;
        while let Some(bytes) = decoder.next(&mut input, 1 << 30).unwrap() {
            let frame = read_frame(bytes).unwrap();
            if frame.body_type() == Body::Hello {
                welcome(&frame, topology, &mut peer);
                continue;
            }
            seen.lock().unwrap().push((frame.body_type(), number));
            then = script(&frame, &mut peer);
            if then == Then::Close {
                break;
            }
        }
        if stream.write_all(&std::mem::take(&mut peer.out)).is_err() || then == Then::Close {
            return;
        }
    }
}

fn welcome(frame: &Frame<'_>, topology: &Topology, peer: &mut Peer) {
    let hello = frame.body_as_hello().unwrap();
    if hello.credential().map(|credential| credential.bytes()) != Some(b"key") {
        return peer.error(frame.request_id(), delta_wire::ErrorCode::Unauthenticated);
    }
    peer.scratch.frame(&mut peer.out, frame.request_id(), Body::Welcome, |builder| {
        let shards: Vec<_> = topology
            .shards
            .iter()
            .map(|(first_slot, last_slot, address)| {
                let address = address.map(|address| builder.create_string(&address.to_string()));
                let args = tables::ShardArgs { first_slot: *first_slot, last_slot: *last_slot, address };
                tables::Shard::create(builder, &args)
            })
            .collect();
        let limits = tables::LimitsArgs {
            document_bytes: 1 << 20,
            frame_bytes: (1 << 20) + (64 << 10),
            requests_in_flight: 4096,
            multi_keys: 1024,
            page_entries: 1000,
        };
        let args = tables::WelcomeArgs {
            protocol: PROTOCOL,
            store_id: Some(builder.create_string("store")),
            hash_seed: topology.hash_seed,
            shard: topology.shard,
            shards: Some(builder.create_vector(&shards)),
            limits: Some(tables::Limits::create(builder, &limits)),
            ..Default::default()
        };
        tables::Welcome::create(builder, &args).as_union_value()
    });
}
