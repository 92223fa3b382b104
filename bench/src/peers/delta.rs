//! Our own server, with default flags; reached over TCP, over its Unix socket, or over HTTP.

use super::process::{Process, directory};
use super::{Grounds, Peer, Reach, as_text};
use crate::driver::{Address, Http, Wire};
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::process::Command;

/// Schema of the documents.
const SCHEMA: &str = "bench";

pub(super) fn start(name: &str, grounds: &Grounds) -> Result<Peer> {
    let directory = directory(&grounds.parent)?;
    let path = |name: &str| as_text(&directory.path().join(name));
    let mut command = Command::new(&grounds.delta);
    command.args(["serve", "--rest-addr", "127.0.0.1:0", "--wire-addr", "127.0.0.1:0"]).args([
        "--data-dir",
        &path("data"),
        "--wire-socket",
        &path("socket"),
    ]);
    let mut process = Process::start(command, &grounds.cpus, directory, Signal::TERM)?;
    let block = process.wait_until(|process| {
        let block = process.stdout();
        block.contains("\nready").then_some(block)
    })?;
    let credential = std::fs::read_to_string(process.path("data/admin.key")).context("the server made no admin key")?;
    let credential = credential.trim().to_owned();
    let of_block = |what: &str| {
        let value = block.lines().find_map(|line| line.trim().strip_prefix(what)).map(str::trim);
        value.map(str::to_owned).with_context(|| format!("the start block does not say '{what}'"))
    };
    let tcp = Address::Tcp(of_block("wire ")?);
    let unix = Address::Unix(process.path("socket"));
    let http = Address::Tcp(of_block("rest ")?.trim_start_matches("http://").to_owned());
    let schema = || SCHEMA.to_owned();
    let (name, reach): (_, Reach) = match name {
        "delta-http" => ("delta-http", Box::new(move |_| Box::new(Http::new(http.clone(), schema(), &credential)))),
        "delta-unix" => (
            "delta-unix",
            Box::new(move |pipeline| Box::new(Wire::new(unix.clone(), schema(), &credential, false, pipeline))),
        ),
        _ => {
            ("delta", Box::new(move |pipeline| Box::new(Wire::new(tcp.clone(), schema(), &credential, true, pipeline))))
        }
    };
    Ok(Peer { name, is_durable: true, process, reach })
}
