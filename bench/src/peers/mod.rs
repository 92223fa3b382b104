//! Servers started for a comparison: each on loopback, in a directory of its own, kept on the same CPUs.

mod admin;
mod delta;
mod etcd;
mod floor;
mod interrupt;
mod postgres;
mod process;
mod redis;

pub use admin::{Admin, Stats};
pub use delta::start_delta;
pub use process::{Process, on_cpus};

use crate::driver::Driver;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A server that runs, and the ways to reach it.
pub struct Peer {
    /// Its name in tables.
    pub name: &'static str,
    /// Whether it may answer writes before they are on stable storage.
    pub is_durable: bool,
    /// The process; it ends with this value.
    pub process: Process,
    /// Whom to ask for its figures; ours only.
    pub admin: Option<Admin>,
    /// How long it took from its start until it took requests.
    pub ready_after: Duration,
    reach: Reach,
}

/// Makes a driver for so many requests in flight a connection.
type Reach = Box<dyn Fn(usize) -> Box<dyn Driver>>;

impl Peer {
    /// A driver for it, for so many requests in flight a connection.
    pub fn driver(&self, pipeline: usize) -> Box<dyn Driver> {
        (self.reach)(pipeline)
    }
}

/// Where and how peers are started.
pub struct Grounds {
    /// Directories of the servers are made here; it has to lie on the disk that is to be measured.
    pub parent: PathBuf,
    /// CPUs of the servers.
    pub cpus: Vec<usize>,
    /// CPUs of servers with two shards.
    pub cpus_of_two: Vec<usize>,
    /// Our server's program.
    pub delta: PathBuf,
    /// The program of the bare servers and loops, where it was built.
    pub limits: Option<PathBuf>,
    /// Size of the documents, and how many keys there are: bare servers make them beforehand.
    pub value_bytes: usize,
    pub keys: u64,
}

/// Starts one of [`NAMES`]. `None` when it is not installed.
pub fn start(name: &str, grounds: &Grounds) -> Result<Option<Peer>> {
    let Some(name) = NAMES.into_iter().find(|known| *known == name) else {
        anyhow::bail!("no server is called '{name}'; take one of {}", NAMES.join(", "))
    };
    match name {
        "redis-always" | "redis-everysec" | "redis-none" | "redis-ping" => redis::start(name, grounds),
        "postgres" => postgres::start(grounds),
        "etcd" => etcd::start(grounds),
        _ if name.starts_with("floor-") => floor::start(name, grounds),
        _ => delta::start(name, grounds).map(Some),
    }
}

/// Every name there is, ours first and the bare servers last.
pub const NAMES: [&str; 15] = [
    "delta",
    "delta-unix",
    "delta-http",
    "delta-two",
    "delta-two-unaware",
    "redis-always",
    "redis-everysec",
    "redis-none",
    "redis-ping",
    "postgres",
    "etcd",
    "floor-wire",
    "floor-unix",
    "floor-http",
    "floor-ping",
];

/// A program in the search path or one of these directories.
fn installed(program: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let searched = std::env::split_paths(&path).collect::<Vec<_>>();
    searched.iter().chain(directories).map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// A port of loopback that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn as_text(path: &Path) -> String {
    path.display().to_string()
}
