//! Bare servers of `delta-limits`: the least that can be done with the same bytes.

use super::delta::SCHEMA;
use super::process::{Process, directory};
use super::{Grounds, Peer, Reach, as_text};
use crate::driver::{Address, Http, Ping, Wire};
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::process::Command;

pub(super) fn start(name: &'static str, grounds: &Grounds) -> Result<Option<Peer>> {
    let Some(program) = &grounds.limits else { return Ok(None) };
    let directory = directory(&grounds.parent)?;
    let kind = match name {
        "floor-http" => "serve-http",
        "floor-ping" => "serve-ping",
        _ => "serve-wire",
    };
    let listen = match name {
        "floor-unix" => as_text(&directory.path().join("socket")),
        _ => "127.0.0.1:0".to_owned(),
    };
    let mut command = Command::new(program);
    command.args([kind, "--listen", &listen]);
    command.args(["--value-bytes", &grounds.value_bytes.to_string(), "--keys", &grounds.keys.to_string()]);
    let mut process = Process::start(command, &grounds.cpus, directory, Signal::TERM)?;
    let ready = process.wait_until(|process| {
        let out = process.stdout();
        out.ends_with('\n').then_some(out)
    })?;
    let address = ready.trim().strip_prefix("ready ").context("a bare server did not say where it listens")?;
    let address = Address::from(address);
    let reach: Reach = match name {
        "floor-http" => Box::new(move |_| Box::new(Http::new(address.clone(), SCHEMA.to_owned(), ""))),
        "floor-ping" => Box::new(move |_| Box::new(Ping::new(address.clone()))),
        _ => Box::new(move |_| Box::new(Wire::bare(address.clone(), SCHEMA.to_owned()))),
    };
    let ready_after = process.age();
    Ok(Some(Peer { name, is_durable: false, process, reach, admin: None, ready_after }))
}
