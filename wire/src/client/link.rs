//! One welcomed connection: a batch of requests out, their replies back in any order.
//!
//! A batch is queued, started (one write, as much as the kernel takes) and finished (the rest is written while replies
//! are read, so that neither side can block the other). It knows which requests left whole: those may have been
//! carried out even if no reply came. After any failure the link is done for; it is never used again.

use super::error::ClientError;
use super::options::{Address, ClientOptions};
use super::socket::Socket;
use crate::encode::Scratch;
use crate::frame::PROTOCOL;
use crate::framing::FrameDecoder;
use crate::reply::{Reply, ServerError, Welcome, decode_reply};
use crate::request::Request;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Largest reply: a page of documents, or one of the largest document a server can be configured for.
const REPLY_BYTES_MAX: usize = 80 << 20;
/// Bytes received at once.
const RECEIVE_BYTES: usize = 64 << 10;
/// An output buffer larger than this is not kept.
const KEPT_OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Why a batch was not answered in full.
#[derive(Clone, Debug)]
pub enum Loss {
    /// The connection broke.
    Closed(String),
    /// Time ran out.
    Timeout(Duration),
    /// What came back is not the protocol.
    Protocol(String),
    /// The server ended the connection and said why.
    Refused(ServerError),
}

pub struct Link {
    socket: Socket,
    address: String,
    decoder: FrameDecoder,
    received: Box<[u8]>,
    scratch: Scratch,
    output: Vec<u8>,
    sent_bytes: usize,
    send_error: Option<io::Error>,
    /// Where each frame of the batch ends in `output`; the batch's ids count up from `first_id`.
    frame_ends: Vec<usize>,
    first_id: u64,
    welcome: Welcome,
}

impl Link {
    /// Connects and introduces itself.
    pub fn connect(address: &Address, options: &ClientOptions) -> Result<Self, ClientError> {
        let deadline = Instant::now() + options.connect_timeout;
        let socket = Socket::connect(address, options.connect_timeout, options.request_timeout)
            .map_err(|error| ClientError::Connection { address: address.to_string(), reason: error.to_string() })?;
        let mut link = Self {
            socket,
            address: address.to_string(),
            decoder: FrameDecoder::new(),
            received: vec![0; RECEIVE_BYTES].into(),
            scratch: Scratch::new(),
            output: Vec::new(),
            sent_bytes: 0,
            send_error: None,
            frame_ends: Vec::new(),
            first_id: 1,
            welcome: Welcome::default(),
        };
        let credential = options.credential.as_ref().map(|credential| credential.expose());
        link.scratch.hello(&mut link.output, link.first_id, credential);
        link.frame_ends.push(link.output.len());
        link.start();
        let mut replies = Vec::new();
        let finished = link.exchange(deadline, false, &mut replies);
        // The credential does not stay behind in the buffer.
        link.output.fill(0);
        link.clear();
        match (replies.pop().flatten(), finished) {
            (Some(Reply::Welcome(welcome)), _) if welcome.protocol == PROTOCOL => {
                link.welcome = *welcome;
                Ok(link)
            }
            (Some(Reply::Error(error)), _) | (_, Err(Loss::Refused(error))) => Err(error.into()),
            (_, Err(Loss::Closed(reason))) => Err(ClientError::Connection { address: link.address, reason }),
            (_, Err(Loss::Timeout(_))) => {
                let reason = format!("no welcome within {:?}", options.connect_timeout);
                Err(ClientError::Connection { address: link.address, reason })
            }
            (_, Err(Loss::Protocol(reason))) => Err(ClientError::Protocol { address: link.address, reason }),
            (_, Ok(())) => {
                let reason = "Hello was not answered with a Welcome of this protocol".into();
                Err(ClientError::Protocol { address: link.address, reason })
            }
        }
    }

    /// What the server said of itself.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Where it leads, for messages.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The address of the other side, when it has one.
    pub fn peer_ip(&self) -> Option<IpAddr> {
        self.socket.peer_ip()
    }

    /// Whether it can be trusted with a request: a server that went away in between has shown it by now, and asking
    /// costs far less than a write whose outcome is unknown.
    pub fn is_usable(&self) -> bool {
        self.socket.is_quiet()
    }

    /// Adds a request to the batch.
    pub fn queue(&mut self, request: &Request<'_>) {
        let request_id = self.first_id + self.frame_ends.len() as u64;
        self.scratch.request(&mut self.output, request_id, request);
        self.frame_ends.push(self.output.len());
    }

    /// Sends as much of the batch as the kernel takes at once. Failures show in `finish`.
    pub fn start(&mut self) {
        if self.sent_bytes == self.output.len() || self.send_error.is_some() {
            return;
        }
        match self.socket.send_now(&self.output[self.sent_bytes..]) {
            Ok(count) => self.sent_bytes += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.send_error = Some(error),
        }
    }

    /// Sends the rest and gathers one reply a request, in the order queued; those missing are `None`.
    pub fn finish(&mut self, timeout: Duration, replies: &mut Vec<Option<Reply>>) -> Result<(), Loss> {
        let finished = self.exchange(Instant::now() + timeout, true, replies);
        if finished.is_ok() {
            self.clear();
        }
        finished.map_err(|loss| match loss {
            Loss::Timeout(_) => Loss::Timeout(timeout),
            other => other,
        })
    }

    /// After a failed `finish`: whether this request of the batch left whole, so that it may have been carried out.
    pub fn was_sent(&self, position: usize) -> bool {
        self.frame_ends.get(position).is_some_and(|end| *end <= self.sent_bytes)
    }

    /// `may_block`: the socket's own receive timeout is as long as the time left, so the first wait needs no poll.
    fn exchange(
        &mut self,
        deadline: Instant,
        mut may_block: bool,
        replies: &mut Vec<Option<Reply>>,
    ) -> Result<(), Loss> {
        replies.clear();
        replies.resize_with(self.frame_ends.len(), || None);
        let mut missing = replies.len();
        while missing > 0 {
            self.start();
            let unsent = self.sent_bytes < self.output.len() && self.send_error.is_none();
            let received = if may_block && !unsent {
                self.socket.receive(&mut self.received)
            } else {
                self.socket.receive_now(&mut self.received)
            };
            match received {
                Ok(0) => return Err(self.closed("the server closed the connection")),
                Ok(count) => missing -= self.take_replies(count, replies)?,
                Err(error) if is_timeout(&error) => {
                    let ready = (unsent || !may_block)
                        && self.socket.wait(unsent, deadline).map_err(|error| self.closed(&error.to_string()))?;
                    if !ready {
                        return Err(Loss::Timeout(Duration::ZERO));
                    }
                }
                Err(error) => return Err(self.closed(&error.to_string())),
            }
            may_block = false;
        }
        Ok(())
    }

    /// Decodes what has just been received; gives how many replies were in it.
    fn take_replies(&mut self, received_bytes: usize, replies: &mut [Option<Reply>]) -> Result<usize, Loss> {
        let mut input = &self.received[..received_bytes];
        let mut taken = 0;
        loop {
            let frame = self.decoder.next(&mut input, REPLY_BYTES_MAX);
            let Some(frame) = frame.map_err(|error| Loss::Protocol(error.to_string()))? else { return Ok(taken) };
            let (request_id, reply) = decode_reply(frame).map_err(|error| Loss::Protocol(error.to_string()))?;
            if let (0, Reply::Error(error)) = (request_id, &reply) {
                return Err(Loss::Refused(error.clone()));
            }
            let position = request_id.checked_sub(self.first_id).and_then(|position| usize::try_from(position).ok());
            match position.and_then(|position| replies.get_mut(position)) {
                Some(slot @ None) => *slot = Some(reply),
                _ => return Err(Loss::Protocol(format!("a reply to request {request_id}, which awaits none"))),
            }
            taken += 1;
        }
    }

    fn closed(&self, reason: &str) -> Loss {
        match &self.send_error {
            Some(error) => Loss::Closed(error.to_string()),
            None => Loss::Closed(reason.to_owned()),
        }
    }

    fn clear(&mut self) {
        self.first_id += self.frame_ends.len() as u64;
        self.frame_ends.clear();
        self.sent_bytes = 0;
        self.output.clear();
        if self.output.capacity() > KEPT_OUTPUT_BYTES_MAX {
            self.output = Vec::new();
        }
    }
}

/// A receive timeout shows as either, depending on the system.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
