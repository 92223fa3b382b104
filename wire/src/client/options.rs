//! How a client finds its server and how patient it is.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(formatter),
            Address::Unix(path) => path.display().fmt(formatter),
        }
    }
}

/// A secret that says who asks. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(Vec<u8>);

impl Credential {
    /// The admin key, an API key or a session token.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self(secret.into())
    }

    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credential(…)")
    }
}

/// What happens after a connection could not be made or was lost. Reads, and writes that were never sent whole, are
/// tried again; a write that was sent is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// Tries after the first.
    pub retries_max: u32,
    /// Pause before the first of them; it doubles each time.
    pub delay_first: Duration,
    /// Longest pause.
    pub delay_max: Duration,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { retries_max: 4, delay_first: Duration::from_millis(20), delay_max: Duration::from_secs(1) }
    }
}

impl Reconnect {
    /// No second try.
    pub fn never() -> Self {
        Self { retries_max: 0, ..Self::default() }
    }

    /// The pause before a retry (counted from 0): between half and all of the doubled delay, so that clients that
    /// lost the same server do not return in step. `noise` is any number.
    pub(super) fn delay(&self, retry: u32, noise: u64) -> Duration {
        let full = self.delay_first.saturating_mul(1 << retry.min(16)).min(self.delay_max);
        let half = full / 2;
        half + half.mul_f64((noise % 1024) as f64 / 1024.0)
    }
}

/// Everything a client needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// The server.
    pub address: Address,
    /// Who asks.
    pub credential: Option<Credential>,
    /// Longest wait for a connection and its welcome.
    pub connect_timeout: Duration,
    /// Longest wait for the replies to one call or one pipeline.
    pub request_timeout: Duration,
    /// Send single-entity requests straight to the shard that owns them, over a connection to it (TCP only).
    pub shard_aware: bool,
    /// What happens when a connection fails.
    pub reconnect: Reconnect,
}

impl ClientOptions {
    /// The usual: 5 s to connect, 30 s for a reply, one connection.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            credential: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            shard_aware: false,
            reconnect: Reconnect::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_bound_and_never_print_a_secret() {
        let reconnect = Reconnect::default();
        for retry in 0..40 {
            let full = Duration::from_millis(20 << retry.min(16)).min(Duration::from_secs(1));
            for noise in [0, 1023, u64::MAX] {
                let delay = reconnect.delay(retry, noise);
                assert!(delay >= full / 2 && delay <= full, "{retry}: {delay:?}");
            }
        }
        let mut options = ClientOptions::new(Address::Unix("/run/d.sock".into()));
        options.credential = Some(Credential::new("hunter2"));
        assert!(!format!("{options:?}").contains("hunter2"));
        assert!(!format!("{options:?}").contains("104"), "nor as bytes");
    }
}
