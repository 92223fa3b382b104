//! A wall clock that a test can move while the server runs.
//!
//! A small library, compiled by the C compiler that Rust links with, is preloaded into the server and adds an offset
//! to CLOCK_REALTIME; the offset lies in a file that both have mapped or open. Monotonic clocks stay as they are, as
//! they do when an operator or NTP sets a clock.

use crate::ServerBuilder;
use crate::binary::repository;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use tempfile::TempDir;

/// The clock of servers started with it.
pub struct WallClock {
    scratch: TempDir,
    offset: File,
}

impl WallClock {
    /// A clock that is right.
    pub fn new() -> Self {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let source = repository().join("tests/shims/wall_clock.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-shared", "-fPIC", "-o"]).arg(scratch.path().join("wall_clock.so")).arg(source);
        assert!(compiler.status().expect("cc runs").success(), "the clock does not compile");
        let offset = File::options().read(true).write(true).create_new(true).open(scratch.path().join("offset"));
        let clock = Self { offset: offset.expect("a file for the offset"), scratch };
        clock.set(0);
        clock
    }

    /// Moves it so far from the true time.
    pub fn set(&self, offset_seconds: i64) {
        self.offset.write_all_at(&offset_seconds.to_ne_bytes(), 0).expect("the offset can be written");
    }

    /// A server that goes by it.
    pub fn given_to(&self, server: ServerBuilder) -> ServerBuilder {
        let path = |name: &str| self.scratch.path().join(name).display().to_string();
        server.variable("LD_PRELOAD", &path("wall_clock.so")).variable("WALL_CLOCK_OFFSET_FILE", &path("offset"))
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::new()
    }
}
