//! The command line as a subprocess.

use crate::{ADMIN_KEY, binary, server};
use std::io::Write;
use std::process::{Command, Stdio};

/// `deltadb` with an address and a key in its environment.
#[derive(Clone)]
pub struct Cli {
    variables: Vec<(String, String)>,
}

/// How one call ended.
#[derive(Debug)]
pub struct Output {
    /// The exit status.
    pub status: i32,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Cli {
    /// Pointed at an address, with the admin key of test servers.
    pub fn new(address: &str) -> Self {
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Self { variables: vec![own("DELTA_ADDR", address), own("DELTA_KEY", ADMIN_KEY)] }
    }

    /// With another variable, or another value of one.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(own, _)| own != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without a variable.
    pub fn without(mut self, name: &str) -> Self {
        self.variables.retain(|(own, _)| own != name);
        self
    }

    /// Runs it without input.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, b"")
    }

    /// Runs it with input.
    #[track_caller]
    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(binary::deltadb());
        server::clean_environment(&mut command);
        command.args(arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("deltadb can be run");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            // A command that does not want its input closes it; that is no failure.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().expect("deltadb ends");
        writer.join().expect("the writer ends");
        Output {
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Output {
    /// Stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Insists on an exit status.
    #[track_caller]
    pub fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "stdout: {}; stderr: {}", self.text(), self.stderr);
        self
    }
}
