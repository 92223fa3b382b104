//! A connection as an async byte stream, for a protocol library that wants to read and write by itself.
//!
//! Input is buffered here up to a bound, over which receiving is paused; output goes to the connection's own send
//! buffer with back-pressure. Dropping the stream closes the connection after what is owed was sent.

use super::{CloseReason, ConnectionId, Net};
use std::io;
use std::task::{Context, Poll, Waker};

/// Input that may wait for the reader before receiving is paused.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// An emptied input buffer over this is freed.
const INPUT_BYTES_KEPT: usize = 16 << 10;

/// What the connection and its stream share.
#[derive(Default)]
pub(super) struct StreamState {
    input: Vec<u8>,
    consumed: usize,
    end_of_input: bool,
    closed: Option<CloseReason>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl StreamState {
    /// Buffers received bytes; `true` when the reader is too far behind.
    pub fn received(&mut self, bytes: &[u8]) -> bool {
        if self.consumed == self.input.len() {
            self.input.clear();
            self.consumed = 0;
        }
        self.input.extend_from_slice(bytes);
        wake(&mut self.reader);
        self.waiting() >= INPUT_BYTES_MAX
    }

    pub fn end_of_input(&mut self) {
        self.end_of_input = true;
        wake(&mut self.reader);
    }

    pub fn closed(&mut self, reason: CloseReason) {
        self.closed = Some(reason);
        self.output_moved();
        wake(&mut self.reader);
    }

    /// Some output was accepted by the kernel.
    pub fn output_moved(&mut self) {
        wake(&mut self.writer);
    }

    fn waiting(&self) -> usize {
        self.input.len() - self.consumed
    }

    fn read(&mut self, into: &mut [u8]) -> usize {
        let count = self.waiting().min(into.len());
        into[..count].copy_from_slice(&self.input[self.consumed..self.consumed + count]);
        self.consumed += count;
        if self.consumed == self.input.len() {
            self.consumed = 0;
            match self.input.capacity() > INPUT_BYTES_KEPT {
                true => self.input = Vec::new(),
                false => self.input.clear(),
            }
        } else if self.consumed >= INPUT_BYTES_MAX {
            self.input.drain(..self.consumed);
            self.consumed = 0;
        }
        count
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The async side of one connection.
pub struct Stream {
    pub(super) net: Net,
    pub(super) id: ConnectionId,
    pub(super) state: std::rc::Rc<std::cell::RefCell<StreamState>>,
}

impl Stream {
    /// The connection it reads and writes.
    pub fn connection(&self) -> ConnectionId {
        self.id
    }

    /// Reads what has arrived; `Ok(0)` when the peer sends no more.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        if state.waiting() > 0 {
            let count = state.read(into);
            let caught_up = state.waiting() < INPUT_BYTES_MAX / 2;
            drop(state);
            if caught_up {
                self.net.stream_caught_up(self.id);
            }
            return Poll::Ready(Ok(count));
        }
        match state.closed {
            None if !state.end_of_input => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            None | Some(CloseReason::Peer) => Poll::Ready(Ok(0)),
            Some(reason) => Poll::Ready(Err(close_error(reason))),
        }
    }

    /// Takes as many bytes as the connection may owe now; they leave with this turn's submission.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let room = self.net.output_bytes_max().saturating_sub(self.net.output_bytes(self.id));
        let count = bytes.len().min(room);
        if count == 0 && !bytes.is_empty() && self.net.is_open(self.id) {
            self.state.borrow_mut().writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        match self.net.output(self.id, |output| output.extend_from_slice(&bytes[..count])) {
            Some(()) => Poll::Ready(Ok(count)),
            None => Poll::Ready(Err(self.gone())),
        }
    }

    /// Written bytes need no push: they are always on their way.
    pub fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.net.is_open(self.id) {
            true => Poll::Ready(Ok(())),
            false => Poll::Ready(Err(self.gone())),
        }
    }

    /// Ready once everything written was accepted by the kernel; the write side is shut when the stream is dropped.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.net.output_bytes(self.id) == 0 {
            return Poll::Ready(Ok(()));
        }
        self.state.borrow_mut().writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn gone(&self) -> io::Error {
        close_error(self.state.borrow().closed.unwrap_or(CloseReason::Local))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.net.close(self.id);
    }
}

fn close_error(reason: CloseReason) -> io::Error {
    match reason {
        CloseReason::Peer => io::ErrorKind::ConnectionReset.into(),
        CloseReason::Local => io::ErrorKind::NotConnected.into(),
        CloseReason::Timeout => io::ErrorKind::TimedOut.into(),
        CloseReason::Error(number) => io::Error::from_raw_os_error(number),
    }
}
