//! The harness of the whole-server tests: the real binary, real sockets, real files.
//!
//! Every server gets a directory of its own and ports chosen by the system, listens on loopback only, and is gone
//! when its `TestServer` is dropped, whatever the test did. The HTTP client is plain `TcpStream`, so that what is
//! tested is what is on the wire.

pub mod binary;
pub mod cli;
pub mod crowd;
pub mod fixtures;
pub mod fuzz;
pub mod history;
pub mod http;
pub mod load;
pub mod long;
pub mod memory_group;
pub mod memory_watch;
pub mod mount;
pub mod power;
pub mod raw_wire;
pub mod readme;
pub mod recorded_crowd;
pub mod server;
pub mod sim;
pub mod skips;
pub mod small_store;
pub mod sources;
pub mod wall_clock;

pub use cli::{Cli, Output};
pub use http::{HttpClient, Response};
pub use server::{Ended, ServerBuilder, TestServer};

use std::time::{Duration, Instant};

/// How long anything may take before a test calls it stuck. Generous: it only bounds failures.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The admin key of test servers.
pub const ADMIN_KEY: &str = "test-admin-key-0123456789";

/// Waits until something holds; panics with its name when it never does.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A JSON string as long as wanted, of letters that compress badly and repeat for the same seed.
pub fn filler(length: usize, seed: u64) -> String {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let letter = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + (state % 26) as u8)
    };
    (0..length).map(letter).collect()
}
