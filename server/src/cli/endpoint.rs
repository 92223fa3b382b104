//! Which server a client subcommand talks to, and as whom: flags and variables to checked values.

use super::arguments::ClientFlags;
use super::error::CliError;
use crate::config::{ADMIN_KEY_FILE, Means, MeansKind, SecretSource, choose_secret, parse_duration};
use secrecy::SecretString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// One or more addresses of the same host, in the order to try.
    Tcp(Vec<SocketAddr>),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Parses `HOST:PORT` or `unix:PATH`, and resolves the host.
    pub(super) fn parse(text: &str) -> Result<Self, CliError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(CliError::Usage("--addr unix: lacks the path of the socket".into()));
            }
            return Ok(Address::Unix(path.into()));
        }
        if text.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
            return Err(CliError::Usage(format!("--addr {text}: write it like 127.0.0.1:7400 or unix:/run/deltadb")));
        }
        match text.to_socket_addrs().map(Vec::from_iter) {
            Ok(addresses) if !addresses.is_empty() => Ok(Address::Tcp(addresses)),
            Ok(_) => Err(CliError::Unreachable(format!("--addr {text}: the host has no address"))),
            Err(error) => Err(CliError::Unreachable(format!("--addr {text}: {error}"))),
        }
    }

    /// Whether the server is on this machine for certain, so that its admin.key may be at hand.
    fn is_local(&self) -> bool {
        match self {
            Address::Tcp(addresses) => addresses.iter().all(|address| address.ip().is_loopback()),
            Address::Unix(_) => true,
        }
    }
}

/// Everything needed to connect.
pub(super) struct Endpoint {
    pub address: Address,
    pub credential: SecretString,
    pub timeout: Duration,
}

impl Endpoint {
    /// Judges flags and variables. `variable` looks up one environment variable.
    pub(super) fn resolve(flags: &ClientFlags, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, CliError> {
        let address = Address::parse(&flags.addr)?;
        let timeout =
            parse_duration(&flags.timeout).map_err(|reason| CliError::Usage(format!("--timeout: {reason}")))?;
        if timeout.is_zero() {
            return Err(CliError::Usage("--timeout: 0 leaves no time at all; give for example 10s".into()));
        }
        let sources = key_sources(flags, variable);
        let source = match choose_secret("key", sources)? {
            Some(source) => source,
            None => own_key(&address, Path::new(&flags.data_dir))?,
        };
        Ok(Self { address, credential: source.read_credential()?, timeout })
    }
}

fn key_sources(flags: &ClientFlags, variable: &dyn Fn(&str) -> Option<String>) -> Vec<SecretSource> {
    let value = |secret: String, means: Means| SecretSource::Value { secret: secret.into(), means };
    let file = |path: String, means: Means| SecretSource::File { path: path.into(), means };
    [
        flags.credential.clone().map(|secret| value(secret, Means::flag("--key"))),
        flags.key_file.clone().map(|path| file(path, Means::flag("--key-file"))),
        variable("DELTA_KEY").map(|secret| value(secret, Means::variable("DELTA_KEY"))),
        variable("DELTA_KEY_FILE").map(|path| file(path, Means::variable("DELTA_KEY_FILE"))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn own_key(address: &Address, data_dir: &Path) -> Result<SecretSource, CliError> {
    let path = data_dir.join(ADMIN_KEY_FILE);
    if address.is_local() && path.exists() {
        let means = Means { kind: MeansKind::Default, text: "the server's own key file".into() };
        return Ok(SecretSource::File { path, means });
    }
    let looked = if address.is_local() { format!(" (none in {})", path.display()) } else { String::new() };
    Err(CliError::NoKey(format!("a key is needed{looked}: give --key-file FILE or $DELTA_KEY, or name --data-dir")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::ExitStatus;
    use secrecy::ExposeSecret;

    fn flags(directory: &Path) -> ClientFlags {
        ClientFlags {
            addr: "127.0.0.1:7400".into(),
            credential: None,
            key_file: None,
            data_dir: directory.to_str().unwrap().into(),
            timeout: "10s".into(),
            verbose: false,
        }
    }

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn addresses_are_hosts_with_ports_or_unix_paths() {
        assert_eq!(Address::parse("127.0.0.1:1").unwrap(), Address::Tcp(vec!["127.0.0.1:1".parse().unwrap()]));
        assert_eq!(Address::parse("unix:/run/x").unwrap(), Address::Unix("/run/x".into()));
        for wrong in ["unix:", "7400", ":7400", "localhost", "127.0.0.1:http", "127.0.0.1:70000"] {
            assert_eq!(Address::parse(wrong).unwrap_err().status(), ExitStatus::Usage, "{wrong}");
        }
    }

    #[test]
    fn the_key_of_a_local_server_is_found_and_of_another_is_not() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(ADMIN_KEY_FILE), "own-key\n").unwrap();
        let endpoint = Endpoint::resolve(&flags(directory.path()), &nothing).unwrap();
        assert_eq!(endpoint.credential.expose_secret(), "own-key");
        let remote = ClientFlags { addr: "192.0.2.1:7400".into(), ..flags(directory.path()) };
        let error = Endpoint::resolve(&remote, &nothing).err().unwrap();
        assert_eq!(error.status(), ExitStatus::Unauthenticated);
    }

    #[test]
    fn a_key_counts_once_and_two_are_refused_without_showing_them() {
        let directory = tempfile::tempdir().unwrap();
        let variable = |name: &str| (name == "DELTA_KEY").then(|| "hunter2".to_owned());
        let endpoint = Endpoint::resolve(&flags(directory.path()), &variable).unwrap();
        assert_eq!(endpoint.credential.expose_secret(), "hunter2");
        let twice = ClientFlags { credential: Some("hunter3".into()), ..flags(directory.path()) };
        let error = Endpoint::resolve(&twice, &variable).err().unwrap();
        let text = error.to_string();
        assert!(text.contains("--key") && text.contains("$DELTA_KEY") && !text.contains("hunter"), "{text}");
        assert_eq!(error.status(), ExitStatus::Usage);
    }

    #[test]
    fn a_timeout_of_nothing_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for wrong in ["0", "soon"] {
            let flags = ClientFlags { timeout: wrong.into(), ..flags(directory.path()) };
            assert_eq!(Endpoint::resolve(&flags, &nothing).err().unwrap().status(), ExitStatus::Usage);
        }
    }
}
