//! Bodies: reading a request's within its bounds of size and time, and what a reply's can be.

use super::pace::Pace;
use crate::command::{ErrorCode, Failure};
use crate::limits::{INPUT_BYTES_MIN, INPUT_BYTES_SHARD_MAX};
use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Memory set aside for a body on the word of its Content-Length alone.
const RESERVE_BYTES_MAX: usize = 64 << 10;

/// A request's body, and whether it has been read to its end.
pub struct RequestBody {
    incoming: Incoming,
    ended: bool,
    /// What of the shard's bodies is in this one's pieces; given back when the request is over.
    held_bytes: usize,
    bodies_bytes: BodiesBytes,
}

/// Bytes of all bodies of a shard that are being read or worked on.
pub type BodiesBytes = Rc<Cell<usize>>;

impl RequestBody {
    /// Nothing read yet.
    pub fn new(incoming: Incoming, bodies_bytes: BodiesBytes) -> Self {
        let ended = incoming.is_end_stream();
        Self { incoming, ended, held_bytes: 0, bodies_bytes }
    }

    /// Counts what it holds now. Where all bodies hold too much, one that holds much is refused.
    fn hold(&mut self, bytes: usize) -> Result<(), Failure> {
        let total = self.bodies_bytes.get() + bytes - self.held_bytes;
        self.bodies_bytes.set(total);
        self.held_bytes = bytes;
        if total <= INPUT_BYTES_SHARD_MAX || bytes <= INPUT_BYTES_MIN {
            return Ok(());
        }
        let message = "more is being sent than this server can keep; send again later, or smaller documents";
        Err(Failure::new(ErrorCode::Overloaded, message))
    }

    /// Whether nothing of it is left on the connection.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Its length, when the head says.
    pub fn exact_bytes(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.bodies_bytes.set(self.bodies_bytes.get() - self.held_bytes);
    }
}

/// Reads a whole body of at most `bytes_max`. A declared length over that is refused before anything is read.
pub async fn read(body: &mut RequestBody, pace: &Pace, bytes_max: usize) -> Result<Bytes, Failure> {
    if body.incoming.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    pace.body_begins();
    let result = collect(body, pace, bytes_max).await;
    pace.works();
    result
}

async fn collect(body: &mut RequestBody, pace: &Pace, bytes_max: usize) -> Result<Bytes, Failure> {
    let Some(first) = next_chunk(body, pace).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > bytes_max {
        return Err(too_large(bytes_max));
    }
    if body.ended {
        return Ok(first);
    }
    let expected = usize::try_from(body.incoming.size_hint().lower()).unwrap_or(bytes_max).min(RESERVE_BYTES_MAX);
    let mut whole = BytesMut::with_capacity(first.len() + expected);
    whole.extend_from_slice(&first);
    while let Some(chunk) = next_chunk(body, pace).await? {
        if whole.len() + chunk.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        whole.extend_from_slice(&chunk);
        body.hold(whole.len())?;
    }
    Ok(whole.freeze())
}

/// The next piece of data; trailers are passed over.
async fn next_chunk(body: &mut RequestBody, pace: &Pace) -> Result<Option<Bytes>, Failure> {
    poll_fn(|context| {
        loop {
            if body.ended {
                return Poll::Ready(Ok(None));
            }
            if pace.body_expired() {
                return Poll::Ready(Err(Failure::new(
                    ErrorCode::RequestTimeout,
                    "the request body did not arrive in time",
                )));
            }
            match ready!(Pin::new(&mut body.incoming).poll_frame(context)) {
                None => body.ended = true,
                Some(Ok(frame)) => {
                    // True early for a body of known length; one in chunks ends with the frame after its last.
                    body.ended = body.incoming.is_end_stream();
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Ok(Some(data)));
                    }
                }
                Some(Err(_)) => {
                    return Poll::Ready(Err(Failure::new(
                        ErrorCode::BadRequest,
                        "the request body ended early or its chunks are malformed",
                    )));
                }
            }
        }
    })
    .await
}

fn too_large(bytes_max: usize) -> Failure {
    Failure::new(ErrorCode::TooLarge, format!("the request body is larger than {bytes_max} bytes, the limit here"))
}

/// The stream broke off: the connection is closed without the last chunk, so that the peer can tell.
#[derive(Debug, thiserror::Error)]
#[error("the listing broke off")]
pub struct BrokenOff;

/// A body that is made while it is sent.
pub trait ChunkSource {
    /// The next piece; `None` at the end.
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>>;
}

/// A reply's body.
pub enum ReplyBody {
    /// Nothing.
    Empty,
    /// All at once.
    Whole(Bytes),
    /// Piece by piece, length unknown.
    Chunks(Box<dyn ChunkSource>),
}

impl ReplyBody {
    /// All at once.
    pub fn whole(bytes: Bytes) -> Self {
        if bytes.is_empty() { ReplyBody::Empty } else { ReplyBody::Whole(bytes) }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut *self {
            ReplyBody::Empty => Poll::Ready(None),
            ReplyBody::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = ReplyBody::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            ReplyBody::Chunks(source) => {
                source.poll_chunk(context).map(|chunk| chunk.map(|result| result.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, ReplyBody::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Empty => SizeHint::with_exact(0),
            ReplyBody::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ReplyBody::Chunks(_) => SizeHint::default(),
        }
    }
}
