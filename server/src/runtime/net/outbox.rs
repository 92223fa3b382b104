//! What one connection owes its peer: bytes being filled, and bytes the kernel is sending.
//!
//! While a send is in flight its bytes belong to the kernel and stay where they are; new output fills other memory.
//! Plain buffers come from and return to a pool, so a reply allocates nothing and an idle connection owns nothing.
//! Shared pieces (large documents) keep their place among the plain bytes without being copied.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

/// Capacity of a fresh buffer.
const BUFFER_BYTES_FIRST: usize = 4 << 10;
/// A buffer that grew over this is freed instead of kept.
const BUFFER_BYTES_KEPT: usize = 64 << 10;
/// Buffers kept for the next connection.
const BUFFERS_KEPT: usize = 512;
/// Pieces of one message send; the rest follows with the next.
const PIECES_MAX: usize = 64;

/// Empty buffers with capacity, the warmest on top.
#[derive(Default)]
pub(super) struct SendBuffers(Vec<Vec<u8>>);

impl SendBuffers {
    pub fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES_FIRST))
    }

    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && buffer.capacity() <= BUFFER_BYTES_KEPT && self.0.len() < BUFFERS_KEPT {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

/// A piece sent from somebody else's memory, after `at` plain bytes.
struct Piece {
    at: usize,
    bytes: Arc<[u8]>,
    range: Range<usize>,
}

#[derive(Default)]
struct Batch {
    plain: Vec<u8>,
    pieces: Vec<Piece>,
    pieces_bytes: usize,
}

impl Batch {
    fn len(&self) -> usize {
        self.plain.len() + self.pieces_bytes
    }

    fn held_bytes(&self) -> usize {
        self.plain.capacity() + self.pieces_bytes
    }

    fn clear(&mut self, buffers: &mut SendBuffers) {
        buffers.give(std::mem::take(&mut self.plain));
        self.pieces.clear();
        self.pieces_bytes = 0;
    }
}

/// The header of a message send and its pieces, at an address that stays.
struct Message {
    header: libc::msghdr,
    pieces: [libc::iovec; PIECES_MAX],
}

/// What to hand to the kernel.
pub(super) enum Outgoing {
    Bytes(*const u8, u32),
    Message(*const libc::msghdr),
}

/// The output of one connection.
#[derive(Default)]
pub(super) struct Outbox {
    filling: Batch,
    sending: Batch,
    sent: usize,
    message: Option<Box<Message>>,
}

impl Outbox {
    /// Bytes not yet accepted by the kernel.
    pub fn owed_bytes(&self) -> usize {
        self.filling.len() + self.sending.len() - self.sent
    }

    /// Memory that what is owed holds: buffers as large as they are, and shared pieces.
    pub fn held_bytes(&self) -> usize {
        self.filling.held_bytes() + self.sending.held_bytes()
    }

    pub fn is_empty(&self) -> bool {
        self.owed_bytes() == 0
    }

    /// The buffer being filled, lent out; [`Outbox::put_back`] must follow.
    pub fn lend(&mut self, buffers: &mut SendBuffers) -> Vec<u8> {
        match self.filling.plain.capacity() {
            0 => buffers.take(),
            _ => std::mem::take(&mut self.filling.plain),
        }
    }

    /// Takes the lent buffer back; what was appended in between goes behind it.
    pub fn put_back(&mut self, buffer: Vec<u8>) {
        let between = std::mem::replace(&mut self.filling.plain, buffer);
        self.filling.plain.extend_from_slice(&between);
    }

    /// Queues shared bytes behind everything so far.
    pub fn push_shared(&mut self, bytes: Arc<[u8]>, range: Range<usize>) {
        self.filling.pieces_bytes += range.len();
        self.filling.pieces.push(Piece { at: self.filling.plain.len(), bytes, range });
    }

    /// What the next send carries. No send may be in flight, and something must be owed. Until [`Outbox::sent`] the
    /// memory behind the answer stays as it is.
    pub fn start(&mut self) -> Outgoing {
        if self.sent == self.sending.len() {
            debug_assert!(self.sending.len() == 0);
            std::mem::swap(&mut self.filling, &mut self.sending);
        }
        if self.sending.pieces.is_empty() {
            let rest = &self.sending.plain[self.sent..];
            return Outgoing::Bytes(rest.as_ptr(), u32::try_from(rest.len()).unwrap_or(u32::MAX));
        }
        let message = self.message.get_or_insert_with(|| {
            // SAFETY: both are plain C structures for which all zero (null pointers, no lengths) is valid.
            Box::new(unsafe { std::mem::zeroed::<Message>() })
        });
        message.header.msg_iovlen = gather(&self.sending, self.sent, &mut message.pieces) as _;
        message.header.msg_iov = message.pieces.as_mut_ptr();
        Outgoing::Message(&message.header)
    }

    /// So many bytes were accepted by the kernel, and the memory is ours again.
    pub fn sent(&mut self, count: usize, buffers: &mut SendBuffers) {
        self.sent += count;
        debug_assert!(self.sent <= self.sending.len());
        if self.sent >= self.sending.len() {
            self.sending.clear(buffers);
            self.sent = 0;
        }
    }

    /// Forgets what the kernel does not hold.
    pub fn discard_filling(&mut self, buffers: &mut SendBuffers) {
        self.filling.clear(buffers);
    }

    /// Forgets everything; no send may be in flight.
    pub fn discard(&mut self, buffers: &mut SendBuffers) {
        self.filling.clear(buffers);
        self.sending.clear(buffers);
        self.sent = 0;
        self.message = None;
    }
}

/// Lists the pieces of `batch` from byte `skip` on; answers how many.
fn gather(batch: &Batch, skip: usize, into: &mut [libc::iovec; PIECES_MAX]) -> usize {
    let (mut count, mut skip, mut plain_from) = (0, skip, 0);
    let mut add = |bytes: &[u8]| {
        let skipped = skip.min(bytes.len());
        skip -= skipped;
        if skipped < bytes.len() && count < PIECES_MAX {
            let rest = &bytes[skipped..];
            into[count] = libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() };
            count += 1;
        }
    };
    for piece in &batch.pieces {
        add(&batch.plain[plain_from..piece.at]);
        plain_from = piece.at;
        add(&piece.bytes[piece.range.clone()]);
    }
    add(&batch.plain[plain_from..]);
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads what a send would carry, up to `limit` bytes.
    fn carried(outgoing: Outgoing, limit: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        match outgoing {
            // SAFETY: the outbox is alive and untouched while its memory is read.
            Outgoing::Bytes(pointer, len) => unsafe {
                bytes.extend_from_slice(std::slice::from_raw_parts(pointer, len as usize))
            },
            // SAFETY: as above; the header lists `msg_iovlen` valid pieces.
            Outgoing::Message(header) => unsafe {
                for piece in std::slice::from_raw_parts((*header).msg_iov, (*header).msg_iovlen) {
                    bytes.extend_from_slice(std::slice::from_raw_parts(piece.iov_base.cast(), piece.iov_len));
                }
            },
        }
        bytes.truncate(limit);
        bytes
    }

    fn append(outbox: &mut Outbox, buffers: &mut SendBuffers, bytes: &[u8]) {
        let mut buffer = outbox.lend(buffers);
        buffer.extend_from_slice(bytes);
        outbox.put_back(buffer);
    }

    #[test]
    fn every_split_of_short_sends_keeps_the_order() {
        let document: Arc<[u8]> = (0..=255).collect::<Vec<u8>>().into();
        for step in 1..40 {
            let (mut outbox, mut buffers) = (Outbox::default(), SendBuffers::default());
            let mut expected = Vec::new();
            for round in 0..80u8 {
                append(&mut outbox, &mut buffers, &[round, 200]);
                expected.extend_from_slice(&[round, 200]);
                if round % 3 != 0 {
                    outbox.push_shared(document.clone(), 10..13 + usize::from(round));
                    expected.extend_from_slice(&document[10..13 + usize::from(round)]);
                }
            }
            assert_eq!(outbox.owed_bytes(), expected.len());
            let mut received = Vec::new();
            while !outbox.is_empty() {
                let part = carried(outbox.start(), step * 7);
                if received.is_empty() {
                    append(&mut outbox, &mut buffers, b"tail");
                    expected.extend_from_slice(b"tail");
                }
                received.extend_from_slice(&part);
                outbox.sent(part.len(), &mut buffers);
            }
            assert_eq!(received, expected);
        }
    }

    #[test]
    fn buffers_are_reused_and_big_ones_given_back() {
        let (mut outbox, mut buffers) = (Outbox::default(), SendBuffers::default());
        append(&mut outbox, &mut buffers, b"small");
        let Outgoing::Bytes(first, 5) = outbox.start() else { panic!("five plain bytes") };
        outbox.sent(5, &mut buffers);
        append(&mut outbox, &mut buffers, b"again");
        let Outgoing::Bytes(second, 5) = outbox.start() else { panic!("five plain bytes") };
        assert_eq!(first, second);
        outbox.sent(5, &mut buffers);
        append(&mut outbox, &mut buffers, &vec![0; BUFFER_BYTES_KEPT + 1]);
        let Outgoing::Bytes(_, len) = outbox.start() else { panic!("plain bytes") };
        outbox.sent(len as usize, &mut buffers);
        assert!(buffers.0.is_empty() && outbox.filling.plain.capacity() == 0);
    }
}
