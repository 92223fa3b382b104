//! etcd as it comes, alone in its cluster; asked over its JSON gateway.

use super::process::{Process, directory};
use super::{Grounds, Peer, as_text, free_port, installed};
use crate::driver::{Address, Etcd, Stream, http_body};
use anyhow::{Result, ensure};
use rustix::process::Signal;
use std::io::Write;
use std::process::Command;

pub(super) fn start(grounds: &Grounds) -> Result<Option<Peer>> {
    let Some(program) = installed("etcd", &[]) else { return Ok(None) };
    let directory = directory(&grounds.parent)?;
    let (client, other) = (free_port()?, free_port()?);
    let (client, other) = (format!("127.0.0.1:{client}"), format!("http://127.0.0.1:{other}"));
    let url = format!("http://{client}");
    let mut command = Command::new(program);
    command.args(["--name", "bench", "--data-dir", &as_text(&directory.path().join("data"))]).args([
        "--listen-client-urls",
        &url,
        "--advertise-client-urls",
        &url,
        "--listen-peer-urls",
        &other,
        "--initial-advertise-peer-urls",
        &other,
        "--initial-cluster",
        &format!("bench={other}"),
    ]);
    let mut process = Process::start(command, &grounds.cpus, directory, Signal::TERM)?;
    let address = Address::Tcp(client);
    process.wait_until(|_| is_healthy(&address).ok())?;
    let reach = Box::new(move |_| Box::new(Etcd::new(address.clone())) as _);
    let ready_after = process.age();
    Ok(Some(Peer { name: "etcd", is_durable: true, process, reach, admin: None, ready_after }))
}

fn is_healthy(address: &Address) -> Result<()> {
    let mut stream = Stream::connect(address)?;
    stream.write_all(format!("GET /health HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let (status, body) = stream.receive(http_body)?;
    ensure!(status == 200 && body.starts_with(br#"{"health":"true""#), "not healthy yet");
    Ok(())
}
