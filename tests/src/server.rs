//! One `deltadb serve` process: started, watched, signalled, and surely gone at the end.

use crate::{ADMIN_KEY, HttpClient, PATIENCE, binary};
use delta_wire::client::{Address, Client, ClientOptions, Credential};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

/// How a server is to be started.
#[derive(Clone, Default)]
pub struct ServerBuilder {
    data_dir: Option<PathBuf>,
    working_dir: Option<PathBuf>,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    launcher: Vec<String>,
    own_key: bool,
    own_addresses: bool,
}

/// A server that did not start, or has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; 128 + n when signal n ended it.
    pub status: i32,
    /// All it said on stdout.
    pub stdout: String,
    /// All it said on stderr.
    pub stderr: String,
}

/// A running server.
pub struct TestServer {
    /// Where HTTP listens.
    pub rest: SocketAddr,
    /// Where the wire protocol listens.
    pub wire: SocketAddr,
    /// The start block.
    pub start_block: Vec<String>,
    child: Child,
    pid_fd: OwnedFd,
    ended: bool,
    data_dir: PathBuf,
    stdout: mpsc::Receiver<String>,
    scratch: TempDir,
}

impl ServerBuilder {
    /// Keeps data here; without it the directory goes with the server.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// Runs there, with the default data directory in it.
    pub fn working_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.working_dir = Some(path.into());
        self
    }

    /// With so many shards.
    pub fn shards(self, count: usize) -> Self {
        self.arguments(["--shards".to_owned(), count.to_string()])
    }

    /// With more flags.
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// With a variable in its environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Through another command, which must become what follows it on its command line.
    pub fn launcher(mut self, command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.launcher = command.into_iter().map(Into::into).collect();
        self
    }

    /// Lets the server make its own admin key.
    pub fn own_key(mut self) -> Self {
        self.own_key = true;
        self
    }

    /// Leaves the addresses to `arguments`.
    pub fn own_addresses(mut self) -> Self {
        self.own_addresses = true;
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> TestServer {
        self.try_start().unwrap_or_else(|ended| panic!("the server did not start: {ended:#?}"))
    }

    /// Starts it; the end of the process is the error.
    pub fn try_start(self) -> Result<TestServer, Ended> {
        let mut server = self.spawn();
        if server.read_start_block() { Ok(server) } else { Err(server.wait()) }
    }

    /// Starts it and kills it after so long, wherever in its start it is then; says what it had said.
    pub fn start_and_kill(self, after: Duration) -> Ended {
        let server = self.spawn();
        if server.ends_within(after) { server.wait() } else { server.kill() }
    }

    /// Starts it, and waits for nothing.
    fn spawn(self) -> TestServer {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let data_dir = match (&self.data_dir, &self.working_dir) {
            (Some(path), _) => path.clone(),
            (None, Some(path)) => path.join("delta-data"),
            (None, None) => scratch.path().join("data"),
        };
        let stderr = std::fs::File::create(scratch.path().join("stderr")).expect("a file for stderr");
        let mut command = self.command(&data_dir);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().expect("deltadb can be run");
        let pid = Pid::from_child(&child);
        let pid_fd = pidfd_open(pid, PidfdFlags::empty()).expect("a descriptor of the child");
        let stdout = read_lines(child.stdout.take().expect("stdout is piped"));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        TestServer {
            rest: nowhere,
            wire: nowhere,
            start_block: Vec::new(),
            child,
            pid_fd,
            ended: false,
            data_dir,
            stdout,
            scratch,
        }
    }

    fn command(&self, data_dir: &Path) -> Command {
        let mut command = match self.launcher.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary::deltadb());
                command
            }
            None => Command::new(binary::deltadb()),
        };
        clean_environment(&mut command);
        command.arg("serve");
        match &self.working_dir {
            Some(path) => command.current_dir(path),
            None => command.arg("--data-dir").arg(data_dir),
        };
        if !self.own_addresses {
            command.env("DELTA_REST_ADDR", "127.0.0.1:0").env("DELTA_WIRE_ADDR", "127.0.0.1:0");
        }
        if !self.own_key {
            command.env("ADMIN_KEY", ADMIN_KEY);
        }
        command.args(&self.arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl TestServer {
    /// A server on a directory of its own.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// Options first.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// An HTTP client with the admin key.
    pub fn http(&self) -> HttpClient {
        HttpClient::new(self.rest, Some(ADMIN_KEY))
    }

    /// An HTTP client without a key.
    pub fn http_anonymous(&self) -> HttpClient {
        HttpClient::new(self.rest, None)
    }

    /// A wire client with the admin key, on one connection.
    pub fn wire_client(&self) -> Client {
        Client::connect(self.wire_options()).expect("the server welcomes the client")
    }

    /// A wire client that sends requests straight to the shard that owns them.
    pub fn wire_client_shard_aware(&self) -> Client {
        let options = ClientOptions { shard_aware: true, ..self.wire_options() };
        Client::connect(options).expect("the server welcomes the client")
    }

    /// How its wire port is reached with the admin key.
    pub fn wire_options(&self) -> ClientOptions {
        ClientOptions {
            credential: Some(Credential::new(ADMIN_KEY)),
            connect_timeout: PATIENCE,
            request_timeout: PATIENCE,
            ..ClientOptions::new(Address::Tcp(self.wire))
        }
    }

    /// The command line, pointed at this server.
    pub fn cli(&self) -> crate::Cli {
        crate::Cli::new(&self.wire.to_string())
    }

    /// Where its data lies.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        status_bytes(self.pid(), "VmRSS:").expect("the process runs")
    }

    /// The most memory that was ever resident, in bytes.
    pub fn resident_bytes_peak(&self) -> u64 {
        status_bytes(self.pid(), "VmHWM:").expect("the process runs")
    }

    /// What it has said on stderr so far.
    pub fn stderr(&self) -> String {
        let bytes = std::fs::read(self.scratch.path().join("stderr")).expect("stderr was kept");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.pid_fd, signal).expect("the server runs");
    }

    /// SIGSTOP, and returns when every one of its threads has stopped: until then some answer, whoever sent the signal.
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
        let stopped =
            waitid(WaitId::PidFd(self.pid_fd.as_fd()), WaitIdOptions::STOPPED).expect("the server is a child");
        assert!(stopped.is_some_and(|status| status.stopped()), "the server ended instead: {stopped:?}");
    }

    /// SIGTERM, and the end.
    pub fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// SIGTERM; the exit must be clean.
    pub fn stop_cleanly(self) {
        let ended = self.stop();
        assert_eq!(ended.status, 0, "{ended:#?}");
    }

    /// SIGKILL, and the end.
    pub fn kill(self) -> Ended {
        self.signal(Signal::KILL);
        self.wait()
    }

    /// Whether it ends within this time.
    pub fn ends_within(&self, patience: Duration) -> bool {
        let mut watched = [PollFd::new(&self.pid_fd, PollFlags::IN)];
        let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
        poll(&mut watched, Some(&timeout)).expect("poll") == 1
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let in_time = self.ends_within(PATIENCE);
        if !in_time {
            let _ = self.child.kill();
        }
        let status = self.child.wait().expect("the child can be waited for");
        self.ended = true;
        let mut stdout = self.start_block.join("\n");
        stdout.extend(self.stdout.iter().map(|line| format!("\n{line}")));
        let stderr = self.stderr();
        assert!(in_time, "the server did not end in {PATIENCE:?}; stdout: {stdout}; stderr: {stderr}");
        let status = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
        Ended { status, stdout, stderr }
    }

    /// Reads lines until the one that says it is ready; false when the output ends before.
    fn read_start_block(&mut self) -> bool {
        loop {
            let line = match self.stdout.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(mpsc::RecvTimeoutError::Disconnected) => return false,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("neither ready nor ended; stdout: {:?}; stderr: {}", self.start_block, self.stderr())
                }
            };
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["rest", url, ..] => self.rest = address(url.trim_start_matches("http://")).unwrap_or(self.rest),
                ["wire", text, ..] => self.wire = address(text).unwrap_or(self.wire),
                _ => {}
            }
            let ready = words.first().is_some_and(|word| word.starts_with("ready"));
            self.start_block.push(line);
            if ready {
                let known = self.rest.port() != 0 && self.wire.port() != 0;
                assert!(known, "the start block lacks an address: {:#?}", self.start_block);
                return true;
            }
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// An amount of memory in the status of a process, in bytes, while it runs.
pub(crate) fn status_bytes(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// Removes everything from a command's environment that `deltadb` would hear.
pub fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let heard = name.to_str().is_some_and(|name| {
            name.starts_with("DELTA_") || ["ADMIN_KEY", "MASTER_KEY", "MASTER_KEY_FILE"].contains(&name)
        });
        if heard {
            command.env_remove(name);
        }
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

fn read_lines(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
