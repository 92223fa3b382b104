//! A blocking socket for the first words with a server, and where servers are.

use anyhow::{Context, Result};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// How long the first words may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`
    Tcp(String),
    /// The path of a socket.
    Unix(PathBuf),
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        match text.strip_prefix("unix:") {
            Some(path) => Self::Unix(path.into()),
            None if text.starts_with('/') => Self::Unix(text.into()),
            None => Self::Tcp(text.to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => formatter.write_str(address),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// A connected socket.
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects; TCP without delay.
    pub fn connect(address: &Address) -> Result<Self> {
        let connect = || -> io::Result<Self> {
            Ok(match address {
                Address::Tcp(address) => {
                    let stream = TcpStream::connect(address)?;
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    Self::Tcp(stream)
                }
                Address::Unix(path) => {
                    let stream = UnixStream::connect(path)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    Self::Unix(stream)
                }
            })
        };
        connect().with_context(|| format!("cannot connect to {address}"))
    }

    /// Fills `buffer` up to what `parse` needs: it is tried after every piece that arrives, and gives `None` to wait
    /// for more.
    pub fn receive<T>(&mut self, mut parse: impl FnMut(&[u8]) -> Result<Option<T>>) -> Result<T> {
        let mut received = Vec::new();
        let mut piece = [0; 16 << 10];
        loop {
            if let Some(result) = parse(&received)? {
                return Ok(result);
            }
            let length = self.read(&mut piece).context("the server did not answer")?;
            anyhow::ensure!(length > 0, "the server closed the connection instead of answering");
            received.extend_from_slice(&piece[..length]);
        }
    }
}

impl From<Stream> for OwnedFd {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Tcp(stream) => stream.into(),
            Stream::Unix(stream) => stream.into(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
