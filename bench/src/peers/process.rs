//! A server process: started on given CPUs, waited for, and surely ended.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{sched_getaffinity, sched_setaffinity};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a server may take to start, and to stop: a large store is written down when it ends.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(5);

/// A running server with its directory, both gone when this is dropped.
pub struct Process {
    child: Child,
    /// Until it is handed on to another process.
    directory: Option<TempDir>,
    root: PathBuf,
    stop_signal: Signal,
    started: Instant,
}

impl Process {
    /// Starts `command` on `cpus`; what it prints goes to files in `directory`.
    pub fn start(mut command: Command, cpus: &[usize], directory: TempDir, stop_signal: Signal) -> Result<Self> {
        let output = |name: &str| File::create(directory.path().join(name));
        command.stdin(Stdio::null()).stdout(output("stdout")?).stderr(output("stderr")?);
        let program = command.get_program().to_owned();
        let root = directory.path().to_owned();
        let child = super::interrupt::start(&root, || {
            on_cpus(cpus, || command.spawn())?.with_context(|| format!("cannot start {}", program.to_string_lossy()))
        })?;
        Ok(Self { child, directory: Some(directory), root, stop_signal, started: Instant::now() })
    }

    /// Ends it, kindly or at once, and gives its directory to start another one in.
    pub fn end(mut self, signal: Signal) -> Result<TempDir> {
        self.stop_signal = signal;
        self.directory.take().context("the directory was handed on before")
    }

    /// Stops it, with all its descendants, from using any CPU time until [`Process::resume`]: while another server is
    /// asked something, this one must not be in the way.
    pub fn pause(&self) {
        self.signal_family(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal_family(Signal::CONT);
    }

    fn signal_family(&self, signal: Signal) {
        for pid in crate::cpu::family(&[self.pid()]) {
            // One that has ended since needs no signal.
            let _ = Pid::from_raw(pid as i32).map(|pid| kill_process(pid, signal));
        }
    }

    /// Time since it was started.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until `ready` gives something; the end of the process is an error.
    pub fn wait_until<T>(&mut self, ready: impl Fn(&Self) -> Option<T>) -> Result<T> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}: {}", self.last_words());
            }
            if let Some(result) = ready(self) {
                return Ok(result);
            }
            std::thread::sleep(POLL);
        }
        bail!("the server was not ready after {} s: {}", PATIENCE.as_secs(), self.last_words());
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// What it printed so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.path("stdout")).unwrap_or_default()
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.path("stderr")).unwrap_or_default() + &self.stdout();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
        super::interrupt::leave(self.pid());
    }
}

impl Process {
    fn stop(&mut self) {
        self.resume();
        // It may have ended by itself; then there is nothing to signal.
        let _ = kill_process(Pid::from_child(&self.child), self.stop_signal);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs something while this thread is on the given CPUs: a child inherits them.
pub fn on_cpus<T>(cpus: &[usize], act: impl FnOnce() -> T) -> Result<T> {
    let before = sched_getaffinity(None)?;
    crate::cpu::pin(cpus)?;
    let result = act();
    sched_setaffinity(None, &before)?;
    Ok(result)
}

/// A directory for a server, under `parent`.
pub fn directory(parent: &Path) -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("delta-bench-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot make a directory in {}", parent.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let cpu = crate::cpu::allowed().unwrap()[0];
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let directory = directory(&std::env::temp_dir()).unwrap();
        Process::start(command, &[cpu], directory, Signal::TERM).unwrap()
    }

    #[test]
    fn a_child_is_waited_for_placed_and_ended_with_its_directory() {
        let mut process = shell("echo ready; grep Cpus_allowed_list /proc/self/status; exec sleep 1000");
        process.wait_until(|process| process.stdout().contains("list:").then_some(())).unwrap();
        let cpu = crate::cpu::allowed().unwrap()[0];
        assert!(process.stdout().ends_with(&format!("\t{cpu}\n")), "{}", process.stdout());
        let (pid, path) = (process.pid(), process.path("stdout"));
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(!path.exists());
    }

    #[test]
    fn a_paused_process_does_nothing_until_it_is_resumed() {
        let process = shell("while :; do :; done");
        process.pause();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
        let is_stopped = || state().rsplit_once(") ").unwrap().1.starts_with('T');
        while !is_stopped() {
            std::thread::yield_now();
        }
        process.resume();
        while is_stopped() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_directory_outlives_the_process_it_is_taken_from() {
        let process = shell("exec sleep 1000");
        let (pid, path) = (process.pid(), process.path("stdout"));
        let directory = process.end(Signal::KILL).unwrap();
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(path.exists());
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn an_early_end_is_told_with_its_last_words() {
        let error = shell("echo the reason >&2; exit 3").wait_until(|_| None::<()>).unwrap_err().to_string();
        assert!(error.contains("the reason"), "{error}");
    }
}
