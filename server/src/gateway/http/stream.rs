//! The connection as this skin sees it, and as hyper wants it.
//!
//! `ByteStream` is all the skin asks of a socket. `HyperStream` adapts it, reports what happens on it to the pace of
//! the connection, and holds back two things of hyper's: the bare replies it makes to a head it cannot parse (the
//! connection answers those with a problem document) and the shutdown of a connection whose peer still sends.

use super::pace::Pace;
use hyper::rt::{Read, ReadBufCursor, Write};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Bytes copied through the shared buffer at once.
pub const SCRATCH_BYTES: usize = 64 << 10;
/// A reply up to this size is handed over in one piece, so that it leaves in one send.
const GATHER_BYTES_MAX: usize = 16 << 10;

/// An ordered, reliable stream of bytes in both directions, used by one task.
pub trait ByteStream: Unpin + 'static {
    /// Reads up to `buffer.len()` bytes; 0 is the end of input.
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;
    /// Takes some of the bytes; they are copied before it returns.
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
    /// Ready once what was taken is on its way.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ends the output; input still works.
    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// A buffer shared by all connections of a shard: borrowed only within one poll.
pub type Scratch = Rc<RefCell<Box<[u8]>>>;

/// A fresh shared buffer.
pub fn scratch() -> Scratch {
    Rc::new(RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()))
}

/// A `ByteStream` as hyper's connection.
pub struct HyperStream<S> {
    stream: S,
    scratch: Scratch,
    pace: Rc<Pace>,
    /// The status of a reply hyper made by itself, which was held back.
    held_back: Option<u16>,
}

impl<S: ByteStream> HyperStream<S> {
    /// Adapts a stream.
    pub fn new(stream: S, scratch: Scratch, pace: Rc<Pace>) -> Self {
        Self { stream, scratch, pace, held_back: None }
    }

    /// The stream, and the status of a reply that was held back.
    pub fn into_parts(self) -> (S, Option<u16>) {
        (self.stream, self.held_back)
    }

    /// Whether these bytes are a reply nobody here made: no request has reached the service since the last one.
    fn hold_back(&mut self, bytes: &[u8]) -> bool {
        if self.pace.is_serving() {
            return false;
        }
        if self.held_back.is_none() {
            let status = bytes.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
            self.held_back = Some(status.and_then(|digits| digits.parse().ok()).unwrap_or(400));
        }
        true
    }

    fn write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(self.stream.poll_write(context, bytes))?;
        self.pace.sent();
        Poll::Ready(Ok(count))
    }
}

impl<S: ByteStream> Read for HyperStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let scratch = this.scratch.clone();
        let mut scratch = scratch.borrow_mut();
        let room = cursor.remaining().min(scratch.len());
        let count = ready!(this.stream.poll_read(context, &mut scratch[..room]))?;
        if count > 0 {
            this.pace.received();
            cursor.put_slice(&scratch[..count]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: ByteStream> Write for HyperStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.hold_back(bytes) { Poll::Ready(Ok(bytes.len())) } else { this.write(context, bytes) }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.stream.poll_flush(context))?;
        this.pace.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.held_back.is_some() || this.pace.lingers() {
            return Poll::Ready(Ok(()));
        }
        this.stream.poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        // So that hyper queues bodies instead of copying them behind the head.
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        let first = pieces.iter().find(|piece| !piece.is_empty()).map_or(&[][..], |piece| piece);
        if this.hold_back(first) {
            return Poll::Ready(Ok(total));
        }
        if first.len() == total {
            return this.write(context, first);
        }
        if total <= GATHER_BYTES_MAX {
            let scratch = this.scratch.clone();
            let mut scratch = scratch.borrow_mut();
            let mut filled = 0;
            for piece in pieces {
                scratch[filled..filled + piece.len()].copy_from_slice(piece);
                filled += piece.len();
            }
            return this.write(context, &scratch[..filled]);
        }
        this.write_pieces(context, pieces)
    }
}

impl<S: ByteStream> HyperStream<S> {
    /// Hands over piece after piece until the stream takes no more.
    fn write_pieces(&mut self, context: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            match self.write(context, piece) {
                Poll::Ready(Ok(count)) => {
                    taken += count;
                    if count < piece.len() {
                        break;
                    }
                }
                // What was taken before counts; the error or the wait comes again with the next call.
                _ if taken > 0 => break,
                other => return other,
            }
        }
        Poll::Ready(Ok(taken))
    }
}
