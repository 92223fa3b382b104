//! What `deltadb serve` was asked to do: validated plain data.
//!
//! Values come from flags, then `DELTA_…` variables, then the file of `--config`, then the defaults here. Every
//! check that needs nothing but the value happens here, so that later rooms can trust what they are handed. What
//! depends on the machine (how many CPUs, how much memory) stays `None` and is found by the runtime. A secret is a
//! `SecretString` from the moment it is taken, and is given by exactly one means. This room refuses to guess: an
//! unknown key, a value out of range or a secret given twice is an error that names where it came from.

mod error;
mod flags;
mod layers;
mod parse;
mod secret;

pub use error::ConfigError;
pub use flags::ServeFlags;
pub use layers::{CLIENT_VARIABLES, SETTINGS, Setting, unknown_variables};
pub use parse::{parse_duration, parse_size};
pub use secret::{Means, MeansKind, SecretSource, choose_secret};

use crate::limits::{BODY_BYTES_CEILING, BODY_BYTES_DEFAULT, SHARDS_MAX};
use layers::Layers;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where data lies unless said otherwise.
pub const DATA_DIR_DEFAULT: &str = "./delta-data";
/// HTTP address unless said otherwise.
pub const REST_ADDR_DEFAULT: &str = "127.0.0.1:8080";
/// Wire address unless said otherwise.
pub const WIRE_ADDR_DEFAULT: &str = "127.0.0.1:7400";
/// How long a shard spins before it parks, in microseconds, unless said otherwise.
pub const SPIN_US_DEFAULT: u64 = 20;
/// Longest spin that makes sense: beyond it a shard only burns its CPU.
pub const SPIN_US_MAX: u64 = 10_000;
/// File in the data directory that holds the admin key made at first start.
pub const ADMIN_KEY_FILE: &str = "admin.key";
/// File in the data directory that holds the root key made at first start.
pub const MASTER_KEY_FILE: &str = "master.key";

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The least severe log lines that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What needs somebody to act.
    Error,
    /// What may need somebody to act.
    Warn,
    /// What happened.
    #[default]
    Info,
    /// How it happened.
    Debug,
    /// Everything.
    Trace,
}

/// What a server was asked to do.
#[derive(Debug)]
pub struct Config {
    /// The data directory.
    pub data_dir: PathBuf,
    /// HTTP listens here; port 0 is chosen by the system.
    pub rest_addr: SocketAddr,
    /// The wire protocol listens here; port 0 is chosen by the system.
    pub wire_addr: SocketAddr,
    /// The wire protocol listens on this Unix socket too.
    pub wire_socket: Option<PathBuf>,
    /// Shard `n` listens on this port plus `n`; 0: each port is chosen by the system.
    pub wire_shard_base_port: u16,
    /// Shard threads; `None`: what the store records, and for a fresh store the CPUs this process may use.
    pub shards: Option<usize>,
    /// Cache of all shards together, in bytes; `None`: a quarter of the memory limit.
    pub cache_bytes: Option<u64>,
    /// Cache of all shards together, in entities; `None`: bounded by bytes alone.
    pub cache_entries: Option<u64>,
    /// Cached documents are dropped at this age; `None`: only when room is needed.
    pub cache_ttl: Option<Duration>,
    /// The admin key; `None`: `<data-dir>/admin.key`, made at first start.
    pub admin_key: Option<SecretSource>,
    /// The root key; `None`: `<data-dir>/master.key`, made for a fresh directory only.
    pub master_key: Option<SecretSource>,
    /// The root key id that must result (16 hex digits, lower case).
    pub key_id: Option<String>,
    /// Largest body and document, in bytes.
    pub body_bytes_max: usize,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// The least severe log lines that are written.
    pub log_level: LogLevel,
    /// How long a shard spins before it parks, in microseconds; 0: it parks at once.
    pub spin_us: u64,
    /// Start read-only with whatever of a damaged store is intact.
    pub salvage: bool,
}

impl Config {
    /// Merges flags, variables, file and defaults. `variable` looks up one environment variable.
    pub fn resolve(flags: ServeFlags, variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let layers = Layers::collect(flags.into_values(), variable)?;
        let shards = layers.parsed("shards", |text| parse::parse_count(text, 1, SHARDS_MAX as u64))?;
        let config = Self {
            data_dir: layers.parsed("data-dir", parse::parse_path)?.unwrap_or_else(|| DATA_DIR_DEFAULT.into()),
            rest_addr: layers.parsed_or("rest-addr", REST_ADDR_DEFAULT, parse::parse_address)?,
            wire_addr: layers.parsed_or("wire-addr", WIRE_ADDR_DEFAULT, parse::parse_address)?,
            wire_socket: layers.parsed("wire-socket", parse::parse_path)?,
            wire_shard_base_port: layers.parsed_or("wire-shard-base-port", "0", |text| {
                parse::parse_count(text, 0, u64::from(u16::MAX)).map(|port| port as u16)
            })?,
            shards: shards.map(|count| count as usize),
            cache_bytes: layers.parsed("cache-bytes", parse_size)?,
            cache_entries: layers.parsed("cache-size", |text| parse::parse_count(text, 0, u64::MAX))?,
            cache_ttl: layers.parsed("cache-ttl", parse_duration)?.filter(|ttl| !ttl.is_zero()),
            admin_key: layers.secret("admin-key", "admin-key-file")?,
            master_key: layers.secret("master-key", "master-key-file")?,
            key_id: layers.parsed("key-id", parse::parse_key_id)?,
            body_bytes_max: layers
                .parsed("rest-max-body-size", |text| parse::parse_size_within(text, 1024, BODY_BYTES_CEILING as u64))?
                .map_or(BODY_BYTES_DEFAULT, |bytes| bytes as usize),
            log_format: layers.parsed("log-format", parse::parse_log_format)?.unwrap_or_default(),
            log_level: layers.parsed("log-level", parse::parse_log_level)?.unwrap_or_default(),
            spin_us: layers
                .parsed("spin-us", |text| parse::parse_count(text, 0, SPIN_US_MAX))?
                .unwrap_or(SPIN_US_DEFAULT),
            salvage: layers.parsed("salvage", parse::parse_switch)?.unwrap_or(false),
        };
        config.check_relations()?;
        Ok(config)
    }

    /// Where the admin key is kept when none is given.
    pub fn admin_key_path(&self) -> PathBuf {
        self.data_dir.join(ADMIN_KEY_FILE)
    }

    /// Where the root key is kept when none is given.
    pub fn master_key_path(&self) -> PathBuf {
        self.data_dir.join(MASTER_KEY_FILE)
    }

    fn check_relations(&self) -> Result<(), ConfigError> {
        if self.rest_addr == self.wire_addr && self.rest_addr.port() != 0 {
            return Err(ConfigError::Relation {
                reason: format!("--rest-addr and --wire-addr are both {}: give them different ports", self.rest_addr),
            });
        }
        if self.wire_shard_base_port != 0 {
            let (first, count) = (u64::from(self.wire_shard_base_port), self.shards.unwrap_or(1) as u64);
            if first + count - 1 > u64::from(u16::MAX) {
                return Err(ConfigError::Relation {
                    reason: format!(
                        "--wire-shard-base-port {first} leaves no room for {count} ports: give a base of at most {}",
                        u64::from(u16::MAX) + 1 - count
                    ),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
