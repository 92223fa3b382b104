//! The flags of `delta-bench`.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Measures DeltaDatabase and its peers: every reply accounted for, every document read checked.
#[derive(Parser)]
#[command(name = "delta-bench", version)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Load one server and print what came out
    Run(Box<RunFlags>),
    /// Start our server and its peers, and load them in alternating rounds
    Compare(Box<CompareFlags>),
    /// Measure the floors of this machine: bare servers, the device and the cipher alone
    Limits(Box<CompareFlags>),
}

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// DeltaDatabase's own
    Wire,
    /// HTTP gateway of DeltaDatabase
    Http,
    /// Redis: SET and GET
    Redis,
    /// PostgreSQL: an upsert and a select of one jsonb
    Postgres,
}

/// What to ask and how.
#[derive(Args, Clone)]
pub struct WorkloadFlags {
    /// Connections
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub connections: usize,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub pipeline: usize,
    /// Size of each document
    #[arg(long, default_value_t = 400, value_name = "BYTES")]
    pub value_bytes: usize,
    /// Keys that are read and written
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub keys: u64,
    /// Which keys are drawn: uniform, zipfian or latest [default: uniform, or what --mix says]
    #[arg(long, value_name = "NAME")]
    pub distribution: Option<String>,
    /// Per cent of requests that read
    #[arg(long, default_value_t = 100, value_name = "N", conflicts_with = "mix")]
    pub read_percent: u64,
    /// A core workload of YCSB: A, B, C, D or F
    #[arg(long, value_name = "LETTER")]
    pub mix: Option<String>,
    /// Open loop: requests per second, due at fixed times whatever the server does
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// Time measured
    #[arg(long, default_value_t = 5.0, value_name = "N")]
    pub seconds: f64,
    /// Time before it, in seconds
    #[arg(long, default_value_t = 1.0, value_name = "N")]
    pub warmup: f64,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// CPUs the generator runs on, like 1 or 2-3
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<String>,
}

/// One run.
#[derive(Args)]
pub struct RunFlags {
    /// What is spoken
    #[arg(long, value_enum, default_value = "wire")]
    pub protocol: Protocol,
    /// host:port, or the path of a Unix socket
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7400")]
    pub address: String,
    #[command(flatten)]
    pub workload: WorkloadFlags,
    /// Schema id (or table) of the documents
    #[arg(long, default_value = "bench", value_name = "NAME")]
    pub schema: String,
    /// Credential. Visible in the process list: prefer --credential-file or the variable
    #[arg(long, env = "DELTA_KEY", hide_env_values = true, value_name = "KEY", conflicts_with = "credential_file")]
    pub credential: Option<String>,
    /// File that holds the credential
    #[arg(long, value_name = "FILE")]
    pub credential_file: Option<PathBuf>,
    /// User for PostgreSQL
    #[arg(long, default_value = "postgres", value_name = "NAME")]
    pub user: String,
    /// First store the JSON Schema of the documents (or make the table)
    #[arg(long)]
    pub install_template: bool,
    /// First write every key once
    #[arg(long)]
    pub preload: bool,
    /// Send everything to --address, even when the shards have addresses of their own
    #[arg(long)]
    pub one_address: bool,
    /// Process of the server, to count its CPU time; may be given several times
    #[arg(long, value_name = "PID")]
    pub server_pid: Vec<u32>,
    /// Print one JSON line instead of a table
    #[arg(long)]
    pub json: bool,
    /// Also write one self-contained page with charts
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// One comparison.
#[derive(Args)]
pub struct CompareFlags {
    /// Program of our server [default: deltadb beside this program]
    #[arg(long, value_name = "FILE")]
    pub server: Option<PathBuf>,
    /// Servers to compare [default: all that are installed]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub peers: Vec<String>,
    /// Questions to put, by name; a wrong name lists them all [default: all but the large ones]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub questions: Vec<String>,
    /// Also put the large questions (maintenance, ten-million): minutes, and some 12 GB of disk and memory
    #[arg(long)]
    pub large: bool,
    /// Entities of the question ten-million
    #[arg(long, default_value_t = 10_000_000, value_name = "N")]
    pub large_keys: u64,
    /// Rounds each server is asked in, alternating
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub rounds: usize,
    /// Time measured in each round
    #[arg(long, default_value_t = 2.0, value_name = "N")]
    pub seconds: f64,
    /// Time before it, in seconds
    #[arg(long, default_value_t = 0.5, value_name = "N")]
    pub warmup: f64,
    /// Size of each document
    #[arg(long, default_value_t = 400, value_name = "BYTES")]
    pub value_bytes: usize,
    /// Keys that are read and written
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub keys: u64,
    /// Requests per second of the paced questions
    #[arg(long, default_value_t = 40_000.0, value_name = "N")]
    pub fixed_rate: f64,
    /// CPUs the servers run on [default: the first one allowed]
    #[arg(long, value_name = "LIST")]
    pub server_cpus: Option<String>,
    /// CPUs the generator runs on [default: the last one allowed]
    #[arg(long, value_name = "LIST")]
    pub load_cpus: Option<String>,
    /// Where the servers keep their data, in directories of their own [default: the temporary directory]
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Print JSON lines instead of tables
    #[arg(long)]
    pub json: bool,
    /// Also write one self-contained page with charts
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}
