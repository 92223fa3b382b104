//! Redis in its three modes. Rewriting of its log is off, to its advantage.

use super::process::{Process, directory};
use super::{Grounds, Peer, Reach, as_text, free_port, installed};
use crate::driver::{Address, Ping, Redis, Stream};
use anyhow::Result;
use rustix::process::Signal;
use std::process::Command;

pub(super) fn start(name: &'static str, grounds: &Grounds) -> Result<Option<Peer>> {
    let Some(program) = installed("redis-server", &[]) else { return Ok(None) };
    let (append_only, sync, is_durable) = match name {
        "redis-always" => ("yes", "always", true),
        "redis-everysec" => ("yes", "everysec", false),
        _ => ("no", "no", false),
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
    let reach: Reach = match name {
        "redis-ping" => Box::new(move |_| Box::new(Ping::new(address.clone()))),
        _ => Box::new(move |_| Box::new(Redis::new(address.clone()))),
    };
    let ready_after = process.age();
    Ok(Some(Peer { name, is_durable, process, reach, admin: None, ready_after }))
}
