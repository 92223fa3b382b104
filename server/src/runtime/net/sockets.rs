//! Listening sockets: making them, and probing an address before anything is started on it.

use super::ListenAddress;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// What may lie unsent in the kernel before a send waits. By itself the kernel takes megabytes and then nothing until
/// much of them has gone: who reads slowly would look like one who does not read.
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// Whether several sockets may share the port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Exclusive,
    Shared,
}

/// Binds and listens; answers the bound address of a TCP socket. Several shards may listen on one TCP address.
pub(super) fn listen(address: &ListenAddress) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    match address {
        ListenAddress::Tcp(address) => {
            let fd = bind_tcp(*address, Sharing::Shared)?;
            let bound = net::getsockname(fd.as_fd())?;
            Ok((fd, Some(SocketAddr::try_from(bound)?)))
        }
        ListenAddress::Unix(path) => Ok((bind_unix(path)?, None)),
    }
}

/// Binds an address and lets it go again. Fails with `AddrInUse` when another process listens there, which sharing the
/// port would hide.
pub fn probe_address(address: &ListenAddress) -> io::Result<()> {
    match address {
        ListenAddress::Tcp(address) => bind_tcp(*address, Sharing::Exclusive).map(drop),
        ListenAddress::Unix(path) => {
            bind_unix(path)?;
            std::fs::remove_file(path)
        }
    }
}

fn bind_tcp(address: SocketAddr, sharing: Sharing) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if sharing == Sharing::Shared {
        sockopt::set_socket_reuseport(&fd, true)?;
    }
    // Accepted sockets inherit both, which saves system calls for each of them.
    sockopt::set_tcp_nodelay(&fd, true)?;
    SockRef::from(&fd).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    net::bind(&fd, &address)?;
    net::listen(&fd, BACKLOG)?;
    Ok(fd)
}

fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    let fd = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let address = SocketAddrUnix::new(path)?;
    match net::bind(&fd, &address) {
        Err(rustix::io::Errno::ADDRINUSE) if is_abandoned(path) => {
            std::fs::remove_file(path)?;
            net::bind(&fd, &address)?;
        }
        Err(rustix::io::Errno::ADDRINUSE) if !is_socket(path) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there"));
        }
        bound => bound?,
    }
    net::listen(&fd, BACKLOG)?;
    Ok(fd)
}

/// Whether the path is a socket that nobody listens on: what a killed process leaves behind.
fn is_abandoned(path: &Path) -> bool {
    let refused = std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    is_socket(path) && refused
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_found_even_when_its_owner_would_share_it() {
        let any = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let (first, bound) = listen(&any).unwrap();
        let bound = ListenAddress::Tcp(bound.unwrap());
        assert!(sockopt::tcp_nodelay(&first).unwrap());
        let client = std::net::TcpStream::connect(SocketAddr::try_from(net::getsockname(&first).unwrap()).unwrap());
        let accepted = net::accept(&first).unwrap();
        assert!(client.is_ok() && sockopt::tcp_nodelay(&accepted).unwrap());
        assert_eq!(SockRef::from(&accepted).tcp_notsent_lowat().unwrap(), UNSENT_BYTES_MAX);
        assert_eq!(probe_address(&bound).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let second = listen(&bound).unwrap();
        drop((first, second));
        probe_address(&bound).unwrap();
    }

    #[test]
    fn an_abandoned_unix_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let address = ListenAddress::Unix(directory.path().join("socket"));
        let (live, none) = listen(&address).unwrap();
        assert!(none.is_none());
        assert_eq!(probe_address(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(listen(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        probe_address(&address).unwrap();
        listen(&address).unwrap();
        probe_address(&address).unwrap();
        listen(&address).unwrap();
        let ListenAddress::Unix(path) = &address else { unreachable!() };
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, "not a socket").unwrap();
        for refused in [probe_address(&address), listen(&address).map(drop)] {
            assert!(refused.unwrap_err().to_string().contains("no socket"));
        }
        assert_eq!(std::fs::read(path).unwrap(), b"not a socket");
    }
}
