//! `delta-limits`: what the machine gives before a database is in the way.
//!
//! Servers that do the least a server can do with the same bytes, and loops over the device and the cipher alone.
//! `delta-bench compare` and `delta-bench limits` start them on the servers' CPU; by hand they are as good. Servers
//! print `ready ADDRESS` and serve until they are ended; loops print one JSON line.

mod bare;
mod disk;
mod documents;
mod http;
mod request_path;
mod seal;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

#[derive(Parser)]
#[command(name = "delta-limits", version, about = "Floors: bare servers, the device and the cipher alone")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the frames of the wire protocol from one io_uring, without executor, store or handshake
    ServeWire(ServeFlags),
    /// Answer each 14 bytes with +PONG from one io_uring
    ServePing(ServeFlags),
    /// Serve documents by hyper on the server's executor and sockets, and nothing else
    ServeHttp(ServeFlags),
    /// Durable writes, one after another
    Commit(CommitFlags),
    /// Direct reads at random places
    Read(ReadFlags),
    /// AES-256-GCM in place
    Seal(SealFlags),
    /// Answer requests on a simulated machine, to count their instructions
    RequestPath(RequestPathFlags),
}

#[derive(Args)]
struct ServeFlags {
    /// host:port, or the path of a Unix socket
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: String,
    /// Size of each document
    #[arg(long, default_value_t = 400, value_name = "BYTES")]
    value_bytes: usize,
    /// Keys there are documents for
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    keys: u64,
    /// Microseconds the executor's ring spins before it sleeps (serve-http)
    #[arg(long, default_value_t = 20, value_name = "N")]
    spin_us: u64,
}

#[derive(Args)]
struct CommitFlags {
    /// Where the file is made
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Bytes of each write; rounded up to whole blocks of 512
    #[arg(long, default_value_t = 4096, value_name = "N")]
    bytes: usize,
    /// Two system calls, pwrite and fdatasync, instead of one write through the ring that is durable by itself
    #[arg(long)]
    two_calls: bool,
    #[arg(long, default_value_t = 1.0, value_name = "N")]
    seconds: f64,
}

#[derive(Args)]
struct ReadFlags {
    /// Where the file is made
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Size of the file
    #[arg(long, default_value_t = 1 << 30, value_name = "BYTES")]
    file_bytes: u64,
    /// Bytes of each read; rounded up to whole blocks of 512
    #[arg(long, default_value_t = 4096, value_name = "N")]
    bytes: usize,
    /// Reads in flight
    #[arg(long, default_value_t = 50, value_name = "N")]
    depth: usize,
    /// Leave the file for the next run, and use the one that is there
    #[arg(long)]
    keep: bool,
    /// Reads per second; as many as there can be without it
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    #[arg(long, default_value_t = 1.0, value_name = "N")]
    seconds: f64,
}

#[derive(Args)]
struct SealFlags {
    /// Bytes of each message
    #[arg(long, default_value_t = 400, value_name = "N")]
    bytes: usize,
    #[arg(long, default_value_t = 1.0, value_name = "N")]
    seconds: f64,
}

#[derive(Args)]
struct RequestPathFlags {
    /// Put instead of Get
    #[arg(long)]
    put: bool,
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    requests: u64,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::ServeWire(flags) => {
            bare::serve(&flags.listen, bare::Wire::new(documents::Table::new(flags.keys, flags.value_bytes)?))
        }
        Command::ServePing(flags) => bare::serve(&flags.listen, bare::Ping),
        Command::ServeHttp(flags) => http::serve(&flags),
        Command::Commit(flags) => disk::commit(&flags),
        Command::Read(flags) => disk::read(&flags),
        Command::Seal(flags) => seal::seal(&flags),
        Command::RequestPath(flags) => request_path::answer(&flags),
    }
}
