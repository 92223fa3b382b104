//! Thousands of connections on one thread, well- and ill-mannered, and what each was told before its end.
//!
//! Sockets do not block; one loop sends what each member's manners allow and keeps what it receives. What a member
//! must have been told is judged by its [`Manners`].

mod floods;
mod manners;
mod replies;

pub use floods::{FLOOD_SCHEMA, Flood};
pub use manners::{Manners, SLOW_READ_KEY, SLOW_READS, slow_read_document};

use crate::PATIENCE;
use replies::Replies;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often those who drip send a byte, and those who sip take some.
const DRIP: Duration = Duration::from_millis(250);
/// What those who sip take at once.
const SIP_BYTES: usize = 500;
/// The receive buffer of those who sip; the kernel doubles it.
const SIP_BUFFER_BYTES: usize = 2 << 10;
/// Their segments, as over Ethernet. By those of the loopback device the kernel would measure the server's send buffers:
/// in megabytes, which would take all that these members are owed.
const SIP_SEGMENT_BYTES: u32 = 1460;

/// One connection.
pub struct Member {
    /// How it behaves.
    pub manners: Manners,
    /// What it was told, in short: a status over HTTP; on the wire the code of an error, or "ok".
    pub told: Vec<String>,
    /// Its end came.
    pub ended: bool,
    replies: Replies,
    /// The document that it takes for no other.
    due: Option<Vec<u8>>,
    stream: TcpStream,
    /// What it has to say, in pieces that members may share, and how much of the first is said.
    unsent: VecDeque<Arc<[u8]>>,
    sent: usize,
    reads: bool,
    half_closed: bool,
}

/// All of them.
pub struct Crowd {
    members: Vec<Member>,
    epoll: OwnedFd,
    dripped: Instant,
}

impl Crowd {
    /// Connects them all; says how many connections the process's limit of descriptors kept out.
    pub fn connect(rest: SocketAddr, wire: SocketAddr, manners: impl IntoIterator<Item = Manners>) -> (Self, usize) {
        let mut room = file_descriptors().saturating_sub(200);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll descriptor");
        let mut crowd = Self { members: Vec::new(), epoll, dripped: Instant::now() };
        let mut kept_out = 0;
        for manners in manners {
            if room == 0 {
                kept_out += 1;
                continue;
            }
            room -= 1;
            crowd.join(if manners.is_wire() { wire } else { rest }, manners);
            if crowd.members.len().is_multiple_of(64) {
                crowd.turn(Duration::ZERO);
            }
        }
        (crowd, kept_out)
    }

    /// One more member.
    pub fn join(&mut self, address: SocketAddr, manners: Manners) {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        if manners.sips() {
            // Both count from the handshake on.
            socket.set_tcp_mss(SIP_SEGMENT_BYTES).expect("a socket option");
            socket.set_recv_buffer_size(SIP_BUFFER_BYTES).expect("a socket option");
        }
        socket.connect_timeout(&address.into(), PATIENCE).expect("the server accepts");
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(true).expect("a socket option");
        stream.set_nodelay(true).expect("a socket option");
        if !manners.reads() && !manners.sips() {
            // What is not read shall wait in the server and not in the kernel.
            sockopt::set_socket_recv_buffer_size(&stream, 16 << 10).expect("a socket option");
        }
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(self.members.len() as u64);
        epoll::add(&self.epoll, &stream, data, flags).expect("epoll takes a socket");
        self.members.push(Member {
            unsent: [Arc::from(manners.first_words())].into(),
            reads: manners.reads(),
            manners,
            told: Vec::new(),
            replies: Replies::new(manners.is_wire()),
            due: manners.sips().then(|| slow_read_document().into()),
            ended: false,
            stream,
            sent: 0,
            half_closed: false,
        });
        let last = self.members.len() - 1;
        self.members[last].progress();
    }

    /// The members.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Goes on until something holds of all; panics with how many it does not hold of.
    pub fn until(&mut self, what: &str, patience: Duration, holds: impl Fn(&Member) -> bool) {
        let deadline = Instant::now() + patience;
        while !self.members.iter().all(&holds) {
            if Instant::now() > deadline {
                let mut missing: BTreeMap<String, usize> = BTreeMap::new();
                for member in self.members.iter().filter(|member| !holds(member)) {
                    *missing.entry(format!("{:?}", member.manners)).or_default() += 1;
                }
                panic!("never came true of all: {what}; not of {missing:?}");
            }
            self.turn(Duration::from_millis(50));
        }
    }

    /// Goes on while something holds; panics when it always does.
    pub fn go_on_while(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while holds() {
            assert!(Instant::now() < deadline, "never ended: {what}");
            self.turn(Duration::from_millis(20));
        }
    }

    /// Lets members say more, as their manners have it.
    pub fn say(&mut self, words: impl Fn(Manners) -> Option<Vec<u8>>) {
        for member in self.members.iter_mut().filter(|member| !member.ended) {
            if let Some(words) = words(member.manners) {
                member.unsent.push_back(words.into());
                member.progress();
            }
        }
    }

    /// Lets every member flood: all its requests at once, each beginning at another place.
    pub fn flood(&mut self, flood: Flood) {
        let words = [false, true].map(|is_wire| flood.words(is_wire));
        for (number, member) in self.members.iter_mut().enumerate() {
            let words = &words[usize::from(member.manners.is_wire())];
            let own = words.iter().cycle().skip(number * 37 % words.len()).take(flood.requests());
            member.unsent.extend(own.cloned());
            member.progress();
        }
    }

    /// Bytes that members could not get rid of yet.
    pub fn unsent_bytes(&self) -> usize {
        self.members.iter().map(Member::unsent_bytes).sum()
    }

    /// Everybody reads from now on.
    pub fn all_read(&mut self) {
        for member in &mut self.members {
            if !std::mem::replace(&mut member.reads, true) {
                sockopt::set_socket_recv_buffer_size(&member.stream, 512 << 10).expect("a socket option");
            }
            member.progress();
        }
    }

    fn turn(&mut self, wait: Duration) {
        if self.dripped.elapsed() >= DRIP {
            self.dripped = Instant::now();
            self.members.iter_mut().for_each(Member::drip);
        }
        let mut events = Vec::with_capacity(1024);
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos() as i64 };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("epoll: {error}"),
        }
        for event in events {
            self.members[event.data.u64() as usize].progress();
        }
    }
}

impl Member {
    /// Whether the last thing it was told is that its connection ends, and why.
    pub fn was_told_of_the_end(&self) -> bool {
        self.replies.says_end
    }

    /// Sends and receives what can be.
    fn progress(&mut self) {
        if !self.manners.drips() {
            self.send(usize::MAX);
        }
        if self.reads {
            self.receive();
        }
    }

    /// What it does from time to time: says a byte, or takes some.
    fn drip(&mut self) {
        if self.ended {
            return;
        }
        if self.manners.drips() {
            self.send(1);
            self.receive();
        } else if self.manners.sips() && !self.reads {
            self.receive_some(&mut [0; SIP_BYTES]);
        }
    }

    fn send(&mut self, bytes_max: usize) {
        let mut left = bytes_max;
        while let Some(piece) = self.unsent.front() {
            if self.sent == piece.len() {
                self.unsent.pop_front();
                self.sent = 0;
                continue;
            }
            let end = piece.len().min(self.sent.saturating_add(left));
            match self.stream.write(&piece[self.sent..end]) {
                Ok(count) => (self.sent, left) = (self.sent + count, left - count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Closed by the other side: what it said is still to be read.
                Err(_) => {
                    (self.unsent, self.sent) = (VecDeque::new(), 0);
                    return;
                }
            }
            if left == 0 {
                return;
            }
        }
        if self.manners.half_closes() && !std::mem::replace(&mut self.half_closed, true) {
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    fn unsent_bytes(&self) -> usize {
        self.unsent.iter().map(|piece| piece.len()).sum::<usize>() - self.sent
    }

    fn receive(&mut self) {
        let mut buffer = [0; 16 << 10];
        while !self.ended && self.receive_some(&mut buffer) {}
    }

    /// Receives once; whether there may be more.
    fn receive_some(&mut self, buffer: &mut [u8]) -> bool {
        match self.stream.read(buffer) {
            Ok(count) if count > 0 => {
                self.replies.take(&buffer[..count], self.due.as_deref(), &mut self.told);
                return true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => self.ended = true,
        }
        false
    }
}

/// How many descriptors this process may have, after asking for all it can get.
pub fn file_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(1 << 20) as usize
}
