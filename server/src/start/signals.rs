//! SIGTERM and SIGINT: the first asks for a drain, the second ends the process at once.
//!
//! A signal handler may do next to nothing, so it leaves a byte in a socket, and a thread that sleeps on the other end
//! passes the word on: nobody has to look again and again.

use crate::exit::ExitStatus;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Whether a stop was asked for.
#[derive(Clone)]
pub(super) struct StopSignal(Arc<AtomicBool>);

impl StopSignal {
    /// Listens from now on. The handlers are armed in this order so that the first signal cannot end the process.
    pub(super) fn install() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            flag::register_conditional_shutdown(signal, i32::from(ExitStatus::StoppedAtOnce.number()), asked.clone())?;
            flag::register(signal, asked.clone())?;
        }
        Ok(Self(asked))
    }

    /// Calls `tell` when one of the signals comes. One may have come before: look at `is_raised` after this.
    pub(super) fn on_raise(&self, tell: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let (mut receiver, sender) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            pipe::register(signal, sender.try_clone()?)?;
        }
        let wait = move || {
            if receiver.read_exact(&mut [0]).is_ok() {
                tell();
            }
        };
        thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
    }

    /// Whether one of the signals came.
    pub(super) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
