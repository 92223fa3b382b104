//! PostgreSQL as it comes, with room for the connections; started as another user when this one is root.

use super::process::{Process, directory, on_cpus};
use super::{Grounds, Peer, as_text, free_port, installed};
use crate::driver::{Address, Postgres};
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const USER: &str = "postgres";
const TABLE: &str = "bench";

pub(super) fn start(grounds: &Grounds) -> Result<Option<Peer>> {
    let directories = versions();
    let programs = installed("postgres", &directories).zip(installed("initdb", &directories));
    let Some((postgres, initdb)) = programs else { return Ok(None) };
    let directory = directory(&grounds.parent)?;
    let account = rustix::process::geteuid().is_root().then(account).transpose()?;
    if let Some((user, group)) = account {
        chown(directory.path(), Some(user), Some(group))?;
    }
    let as_account = |program: PathBuf| {
        let mut command = Command::new(program);
        if let Some((user, group)) = account {
            command.uid(user).gid(group);
        }
        command.current_dir(directory.path());
        command
    };
    let data = as_text(&directory.path().join("data"));
    let mut make = as_account(initdb);
    make.args(["--auth=trust", "--encoding=UTF8", "--no-locale", "-U", USER, "-D", &data]);
    make.stdout(Stdio::null()).stderr(Stdio::null());
    let status = on_cpus(&grounds.cpus, || make.status())?.context("cannot run initdb")?;
    ensure!(status.success(), "initdb ended with {status}");
    let port = free_port()?.to_string();
    let mut command = as_account(postgres);
    command.args(["-D", &data, "-p", &port, "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=500"]).args([
        "-c",
        "unix_socket_directories=",
        "-c",
        "shared_buffers=256MB",
    ]);
    let mut process = Process::start(command, &grounds.cpus, directory, Signal::INT)?;
    let address = Address::Tcp(format!("127.0.0.1:{port}"));
    let driver = move || Postgres::new(address.clone(), USER.to_owned(), TABLE.to_owned());
    process.wait_until(|_| driver().answers().then_some(()))?;
    let reach = Box::new(move |_| Box::new(driver()) as _);
    let ready_after = process.age();
    Ok(Some(Peer { name: "postgres", is_durable: true, process, reach, admin: None, ready_after }))
}

/// Where distributions put its programs.
fn versions() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join("bin")).collect()
}

/// User and group of an account that is not root's.
fn account() -> Result<(u32, u32)> {
    let accounts = std::fs::read_to_string("/etc/passwd")?;
    let of = |name: &str| {
        let fields: Vec<&str> =
            accounts.lines().find(|line| line.starts_with(&format!("{name}:")))?.split(':').collect();
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    of(USER).or_else(|| of("nobody")).context("PostgreSQL does not run as root, and there is no other account")
}
