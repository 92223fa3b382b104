//! Our own server, with default flags; reached over TCP, over its Unix socket, or over HTTP.

use super::admin::Admin;
use super::process::{Process, directory};
use super::{Grounds, Peer, Reach, as_text};
use crate::driver::{Address, Http, Wire};
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::process::Command;
use tempfile::TempDir;

/// Schema of the documents.
pub(super) const SCHEMA: &str = "bench";

/// How a comparison reaches it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Tcp,
    /// Over TCP, but all through one address, whoever owns the key.
    OneAddress,
    Unix,
    Http,
}

pub(super) fn start(name: &'static str, grounds: &Grounds) -> Result<Peer> {
    let two_shards: &[&str] = &["--shards", "2"];
    let (way, cpus, flags) = match name {
        "delta-http" => (Way::Http, &grounds.cpus, &[][..]),
        "delta-unix" => (Way::Unix, &grounds.cpus, &[][..]),
        "delta-two" => (Way::Tcp, &grounds.cpus_of_two, two_shards),
        "delta-two-unaware" => (Way::OneAddress, &grounds.cpus_of_two, two_shards),
        _ => (Way::Tcp, &grounds.cpus, &[][..]),
    };
    launch(name, way, grounds, cpus, directory(&grounds.parent)?, flags)
}

/// Starts it over TCP with these flags, in a fresh directory or in that of an earlier one.
pub fn start_delta(grounds: &Grounds, earlier: Option<TempDir>, flags: &[&str]) -> Result<Peer> {
    let directory = earlier.map_or_else(|| directory(&grounds.parent), Ok)?;
    launch("delta", Way::Tcp, grounds, &grounds.cpus, directory, flags)
}

fn launch(
    name: &'static str,
    way: Way,
    grounds: &Grounds,
    cpus: &[usize],
    directory: TempDir,
    flags: &[&str],
) -> Result<Peer> {
    let path = |name: &str| as_text(&directory.path().join(name));
    let mut command = Command::new(&grounds.delta);
    command.args(["serve", "--rest-addr", "127.0.0.1:0", "--wire-addr", "127.0.0.1:0"]);
    command.args(["--data-dir", &path("data"), "--wire-socket", &path("socket")]).args(flags);
    let mut process = Process::start(command, cpus, directory, Signal::TERM)?;
    let block = process.wait_until(|process| {
        let block = process.stdout();
        block.contains("\nready").then_some(block)
    })?;
    let ready_after = process.age();
    let credential = std::fs::read_to_string(process.path("data/admin.key")).context("the server made no admin key")?;
    let credential = credential.trim().to_owned();
    let of_block = |what: &str| {
        let value = block.lines().find_map(|line| line.trim().strip_prefix(what)).map(str::trim);
        value.map(str::to_owned).with_context(|| format!("the start block does not say '{what}'"))
    };
    let tcp = Address::Tcp(of_block("wire ")?);
    let unix = Address::Unix(process.path("socket"));
    let http = Address::Tcp(of_block("rest ")?.trim_start_matches("http://").to_owned());
    let admin = Some(Admin::new(http.clone(), credential.clone()));
    let schema = || SCHEMA.to_owned();
    let reach: Reach = match way {
        Way::Http => Box::new(move |_| Box::new(Http::new(http.clone(), schema(), &credential))),
        Way::Unix => {
            Box::new(move |pipeline| Box::new(Wire::new(unix.clone(), schema(), &credential, false, pipeline)))
        }
        Way::Tcp | Way::OneAddress => {
            Box::new(move |pipeline| Box::new(Wire::new(tcp.clone(), schema(), &credential, way == Way::Tcp, pipeline)))
        }
    };
    Ok(Peer { name, is_durable: true, process, reach, admin, ready_after })
}
