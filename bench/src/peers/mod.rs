//! Servers started for a comparison: each on loopback, in a directory of its own, kept on the same CPUs.

mod delta;
mod postgres;
mod process;
mod redis;

pub use process::Process;

use crate::driver::Driver;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// A server that runs, and the ways to reach it.
pub struct Peer {
    /// Its name in tables.
    pub name: &'static str,
    /// Whether it may answer writes before they are on stable storage.
    pub is_durable: bool,
    /// The process; it ends with this value.
    pub process: Process,
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
    /// Our server's program.
    pub delta: PathBuf,
}

/// Starts one by name: `delta`, `delta-unix`, `delta-http`, `redis-always`, `redis-everysec`, `redis-none` or
/// `postgres`. `None` when it is not installed.
pub fn start(name: &str, grounds: &Grounds) -> Result<Option<Peer>> {
    match name {
        "delta" | "delta-unix" | "delta-http" => delta::start(name, grounds).map(Some),
        "redis-always" | "redis-everysec" | "redis-none" => redis::start(name, grounds),
        "postgres" => postgres::start(grounds),
        _ => anyhow::bail!("no server is called '{name}'; take one of {}", NAMES.join(", ")),
    }
}

/// Every name there is, ours first.
pub const NAMES: [&str; 7] =
    ["delta", "delta-unix", "delta-http", "redis-always", "redis-everysec", "redis-none", "postgres"];

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
