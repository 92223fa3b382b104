//! Redis in its three modes. Rewriting of its log is off, to its advantage.

use super::process::{Process, directory};
use super::{Grounds, Peer, as_text, free_port, installed};
use crate::driver::{Address, Redis, Stream};
use anyhow::Result;
use rustix::process::Signal;
use std::process::Command;

pub(super) fn start(name: &str, grounds: &Grounds) -> Result<Option<Peer>> {
    let Some(program) = installed("redis-server", &[]) else { return Ok(None) };
    let (name, append_only, sync, is_durable) = match name {
        "redis-always" => ("redis-always", "yes", "always", true),
        "redis-everysec" => ("redis-everysec", "yes", "everysec", false),
        _ => ("redis-none", "no", "no", false),
    };
    let directory = directory(&grounds.parent)?;
    let port = free_port()?.to_string();
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--dir", &as_text(directory.path())]).args([
        "--appendonly",
        append_only,
        "--appendfsync",
        sync,
        "--auto-aof-rewrite-percentage",
        "0",
    ]);
    let mut process = Process::start(command, &grounds.cpus, directory, Signal::TERM)?;
    let address = Address::Tcp(format!("127.0.0.1:{port}"));
    process.wait_until(|_| Stream::connect(&address).ok())?;
    let reach = Box::new(move |_| Box::new(Redis::new(address.clone())) as _);
    Ok(Some(Peer { name, is_durable, process, reach }))
}
