//! A wire connection without a client: frames as bytes, for what no client would do.

use crate::{ADMIN_KEY, http};
use delta_wire::encode::Scratch;
use delta_wire::{Reply, decode_reply};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// One connection.
pub struct RawWire {
    stream: TcpStream,
}

impl RawWire {
    /// Connected, nothing said.
    pub fn connect(address: SocketAddr) -> Self {
        Self { stream: http::connect(address).expect("the wire port accepts") }
    }

    /// Connected and welcomed.
    pub fn welcomed(address: SocketAddr) -> Self {
        let mut raw = Self::connect(address);
        raw.hello(Some(ADMIN_KEY.as_bytes()));
        match raw.receive() {
            Some((_, Reply::Welcome(_))) => raw,
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// Sends a Hello.
    pub fn hello(&mut self, credential: Option<&[u8]>) {
        let mut frame = Vec::new();
        Scratch::new().hello(&mut frame, 1, credential);
        self.send(&frame);
    }

    /// Sends bytes. The other side may have closed already; what it says then is what counts.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends as much as is taken without waiting.
    pub fn send_what_fits(&mut self, bytes: &[u8]) {
        self.stream.set_nonblocking(true).expect("a socket option");
        let _ = self.stream.write_all(bytes);
        self.stream.set_nonblocking(false).expect("a socket option");
    }

    /// Ends sending; receiving goes on.
    pub fn end_sending(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// One reply with the id of its request; `None` when the connection was closed instead.
    pub fn receive(&mut self) -> Option<(u64, Reply)> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut frame = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut frame).ok()?;
        Some(decode_reply(&frame).expect("the server's frames are well-formed"))
    }

    /// Whether the server closes the connection, whatever it still says.
    pub fn is_closed(&mut self) -> bool {
        while self.receive().is_some() {}
        // A read that fails for lack of time is no close.
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}
