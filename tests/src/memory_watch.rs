//! The most memory that a server has resident while a test goes on.

use crate::TestServer;
use crate::server::status_bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// A thread that looks.
pub struct MemoryWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
    before: u64,
}

impl MemoryWatch {
    /// From now on.
    pub fn start(server: &TestServer) -> Self {
        let (stop, pid) = (Arc::new(AtomicBool::new(false)), server.pid());
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut peak = 0;
                while !stop.load(SeqCst)
                    && let Some(bytes) = status_bytes(pid, "VmRSS:")
                {
                    peak = peak.max(bytes);
                    std::thread::park_timeout(INTERVAL);
                }
                peak
            }
        });
        Self { stop, thread, before: server.resident_bytes() }
    }

    /// By how much memory had grown at the most. The server must still run.
    pub fn finish(self) -> u64 {
        self.stop.store(true, SeqCst);
        self.thread.thread().unpark();
        self.thread.join().expect("it only looks").saturating_sub(self.before)
    }
}
