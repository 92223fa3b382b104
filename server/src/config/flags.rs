//! The flags of `deltadb serve`, as text: one parser judges a value whichever way it came.

use clap::Args;

/// Flags of `deltadb serve`. Each has a variable `DELTA_<FLAG>` and a key of its name in the file of --config.
#[derive(Args, Default)]
pub struct ServeFlags {
    /// Where everything is kept [default: ./delta-data]
    #[arg(long, value_name = "DIR", alias = "shared-fs")]
    pub data_dir: Option<String>,
    /// Address of the HTTP gateway; port 0 lets the system choose [default: 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT")]
    pub rest_addr: Option<String>,
    /// Address of the wire protocol; port 0 lets the system choose [default: 127.0.0.1:7400]
    #[arg(long, value_name = "HOST:PORT")]
    pub wire_addr: Option<String>,
    /// Also serve the wire protocol on this Unix socket
    #[arg(long, value_name = "PATH")]
    pub wire_socket: Option<String>,
    /// First of the ports on which each shard listens for itself; 0 lets the system choose [default: 0]
    #[arg(long, value_name = "PORT")]
    pub wire_shard_base_port: Option<String>,
    /// Shard threads. Another number than the store has rewrites it [default: as the store; fresh: usable CPUs]
    #[arg(long, value_name = "N")]
    pub shards: Option<String>,
    /// Memory for decrypted documents, all shards together [default: a quarter of the memory limit]
    #[arg(long, value_name = "SIZE")]
    pub cache_bytes: Option<String>,
    /// Most documents kept in memory, all shards together [default: bounded by --cache-bytes alone]
    #[arg(long, value_name = "N")]
    pub cache_size: Option<String>,
    /// Age at which a cached document is dropped; 0: only when room is needed [default: 0]
    #[arg(long, value_name = "DURATION")]
    pub cache_ttl: Option<String>,
    /// The admin key. Visible in the process list: prefer --admin-key-file [default: DATA_DIR/admin.key, made once]
    #[arg(long, value_name = "KEY", hide_env_values = true)]
    pub admin_key: Option<String>,
    /// File that holds the admin key
    #[arg(long, value_name = "FILE")]
    pub admin_key_file: Option<String>,
    /// The root key, hex or base64. Visible in the process list: prefer --master-key-file
    #[arg(long, value_name = "KEY", hide_env_values = true)]
    pub master_key: Option<String>,
    /// File that holds the root key [default: DATA_DIR/master.key, made for a fresh directory only]
    #[arg(long, value_name = "FILE")]
    pub master_key_file: Option<String>,
    /// The root key id expected: start is refused with any other
    #[arg(long, value_name = "ID")]
    pub key_id: Option<String>,
    /// Largest body and document [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    pub rest_max_body_size: Option<String>,
    /// How log lines are written: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Least severe log lines written: off, error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Read settings from this TOML file too
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Microseconds a shard spins before it sleeps; 0 saves power, more saves latency [default: 20]
    #[arg(long, value_name = "N")]
    pub spin_us: Option<String>,
    /// Most that is read over in the background to find damage, in MiB a second; 0: nothing is [default: 4]
    #[arg(long, value_name = "N")]
    pub scrub_mib_per_s: Option<String>,
    /// Start read-only with what is intact of a damaged store
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub salvage: Option<String>,
}

impl ServeFlags {
    /// The flags that were given, by name.
    pub(super) fn into_values(self) -> Vec<(&'static str, String)> {
        let all = [
            ("data-dir", self.data_dir),
            ("rest-addr", self.rest_addr),
            ("wire-addr", self.wire_addr),
            ("wire-socket", self.wire_socket),
            ("wire-shard-base-port", self.wire_shard_base_port),
            ("shards", self.shards),
            ("cache-bytes", self.cache_bytes),
            ("cache-size", self.cache_size),
            ("cache-ttl", self.cache_ttl),
            ("admin-key", self.admin_key),
            ("admin-key-file", self.admin_key_file),
            ("master-key", self.master_key),
            ("master-key-file", self.master_key_file),
            ("key-id", self.key_id),
            ("rest-max-body-size", self.rest_max_body_size),
            ("log-format", self.log_format),
            ("log-level", self.log_level),
            ("config", self.config),
            ("spin-us", self.spin_us),
            ("scrub-mib-per-s", self.scrub_mib_per_s),
            ("salvage", self.salvage),
        ];
        all.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect()
    }
}
