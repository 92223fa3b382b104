//! The end of every server when this program is told to end. They may be stopped (SIGSTOP), and would stay so for ever.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// The exit status of a program that an interrupt ended.
const INTERRUPTED: i32 = 130;

/// Servers that run, by process id, each with its directory.
static RUNNING: Mutex<Vec<(u32, PathBuf)>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<(u32, PathBuf)>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a server that an interrupt, a hang-up or a request to terminate ends too, however early it comes: it waits for
/// a start that is under way.
pub fn start(directory: &Path, spawn: impl FnOnce() -> Result<Child>) -> Result<Child> {
    static WATCHED: OnceLock<Result<(), io::ErrorKind>> = OnceLock::new();
    let watched = WATCHED.get_or_init(|| watch().map_err(|error| error.kind()));
    watched.map_err(io::Error::from).context("signals cannot be watched")?;
    let mut running = running();
    let child = spawn()?;
    running.push((child.id(), directory.to_owned()));
    Ok(child)
}

/// It has ended: its process id may be another's soon.
pub fn leave(pid: u32) {
    running().retain(|(other, _)| *other != pid);
}

fn watch() -> io::Result<()> {
    let (mut told, tell) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        pipe::register(signal, tell.try_clone()?)?;
    }
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        if told.read_exact(&mut [0]).is_ok() {
            // Nothing is started any more: whoever wants to waits for ever.
            let running = running();
            running.iter().for_each(|(pid, _)| end(*pid));
            running.iter().for_each(|(_, directory)| remove(directory));
            std::process::exit(INTERRUPTED);
        }
    })?;
    Ok(())
}

fn end(pid: u32) {
    let family: Vec<Pid> = crate::cpu::family(&[pid]).into_iter().filter_map(|pid| Pid::from_raw(pid as i32)).collect();
    for pid in family {
        // One that has ended since needs no signal; a stopped one needs no other than this.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Removes a directory whose owner may still be on its way out.
fn remove(directory: &Path) {
    for _ in 0..100 {
        if std::fs::remove_dir_all(directory).is_ok() || !directory.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
