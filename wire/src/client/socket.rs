//! A stream socket of either kind, with the three things a pipelining client needs: sending without waiting,
//! receiving with or without, and waiting for either until a deadline.

use super::options::Address;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects; blocking receives will give up after `receive_timeout`.
    pub fn connect(address: &Address, connect_timeout: Duration, receive_timeout: Duration) -> io::Result<Self> {
        let receive_timeout = Some(receive_timeout.max(Duration::from_millis(1)));
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, connect_timeout.max(Duration::from_millis(1)))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(receive_timeout)?;
                Ok(Socket::Tcp(stream))
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(receive_timeout)?;
                Ok(Socket::Unix(stream))
            }
        }
    }

    /// The address of the other side, when it has one.
    pub fn peer_ip(&self) -> Option<IpAddr> {
        match self {
            Socket::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip()),
            Socket::Unix(_) => None,
        }
    }

    /// Sends what the kernel takes at once; `WouldBlock` when it takes nothing.
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        retried(|| send(self.fd(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
    }

    /// Receives, waiting up to the receive timeout.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        retried(|| recv(self.fd(), &mut *buffer, RecvFlags::empty()).map(|(_, count)| count))
    }

    /// Receives what is there; `WouldBlock` when nothing is.
    pub fn receive_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        retried(|| recv(self.fd(), &mut *buffer, RecvFlags::DONTWAIT).map(|(_, count)| count))
    }

    /// Whether it is open with nothing to read, as it must be between calls.
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let seen = retried(|| recv(self.fd(), &mut byte[..], RecvFlags::DONTWAIT | RecvFlags::PEEK).map(|_| ()));
        seen.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Waits until it can be read from, or also until it can be written to; `false` when the deadline has passed.
    pub fn wait(&self, or_writable: bool, deadline: Instant) -> io::Result<bool> {
        let flags = if or_writable { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let ready = retried(|| poll(&mut [PollFd::new(&self.fd(), flags)], Some(&timeout)))?;
        Ok(ready > 0)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

fn retried<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}
