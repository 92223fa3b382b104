//! Hand-laid FlatBuffers for the hottest frames.
//!
//! Every frame here is: length, root offset, the vtable of Frame, the vtable of its body, the Frame table, the body's
//! table, then strings and vectors, the document last. Only forward offsets and fixed positions, so that all but a
//! few fields are constants: writing one is a copy and a few stores, and a frame whose constants are all in place can
//! be read at fixed positions. A frame laid out otherwise is as good; it is read through the verifier.

mod read;
mod write;

pub use read::{HotReply, HotRequest, read_hot_reply, read_hot_request};
pub use write::{document, document_prefix, get, put, written};

use crate::framing::LENGTH_PREFIX_BYTES;
use crate::generated::Body;

/// Position of Frame's vtable in the message, and its size.
const FRAME_VTABLE_AT: usize = 4;
const FRAME_VTABLE: [u16; 5] = [10, 20, 8, 16, 4];
/// Position of the body's vtable.
const BODY_VTABLE_AT: usize = FRAME_VTABLE_AT + 10;
/// Where in the Frame table its fields are.
const FRAME_BODY: usize = 4;
const FRAME_REQUEST_ID: usize = 8;
const FRAME_BODY_TYPE: usize = 16;
const FRAME_TABLE_BYTES: usize = 20;

/// Document: version at 8, content at 4; the vector's length follows the table.
const DOCUMENT_VTABLE: [u16; 4] = [8, 16, 8, 4];
/// Written: created at 4, version at 8.
const WRITTEN_VTABLE: [u16; 4] = [8, 16, 4, 8];
/// Get: schema at 4, key at 8.
const GET_VTABLE: [u16; 4] = [8, 12, 4, 8];
/// Put without a condition: schema, key, document at 4, 8, 12.
const PUT_VTABLE: [u16; 5] = [10, 16, 4, 8, 12];
/// Put with one: condition at 4, version at 8, schema, key, document at 16, 20, 24.
const PUT_IF_VTABLE: [u16; 7] = [14, 28, 16, 20, 24, 4, 8];

const FRAME_AT: usize = frame_at(4);
const PUT_FRAME_AT: usize = frame_at(5);
const PUT_IF_FRAME_AT: usize = frame_at(7);
/// Tables holding a u64 at 8 start on a multiple of eight; the others on one of four.
const WIDE_AT: usize = (FRAME_AT + FRAME_TABLE_BYTES).next_multiple_of(8);
const GET_AT: usize = FRAME_AT + FRAME_TABLE_BYTES;
const PUT_AT: usize = PUT_FRAME_AT + FRAME_TABLE_BYTES;
const PUT_IF_AT: usize = (PUT_IF_FRAME_AT + FRAME_TABLE_BYTES).next_multiple_of(8);

const DOCUMENT_BYTES: usize = LENGTH_PREFIX_BYTES + WIDE_AT + 16 + 4;
const WRITTEN_BYTES: usize = LENGTH_PREFIX_BYTES + WIDE_AT + 16;
const GET_BYTES: usize = LENGTH_PREFIX_BYTES + GET_AT + 12;
const PUT_BYTES: usize = LENGTH_PREFIX_BYTES + PUT_AT + 16;
const PUT_IF_BYTES: usize = LENGTH_PREFIX_BYTES + PUT_IF_AT + 28;

const DOCUMENT: [u8; DOCUMENT_BYTES] = head(Body::Document, &DOCUMENT_VTABLE, FRAME_AT, WIDE_AT);
const WRITTEN: [u8; WRITTEN_BYTES] = head(Body::Written, &WRITTEN_VTABLE, FRAME_AT, WIDE_AT);
const GET: [u8; GET_BYTES] = head(Body::Get, &GET_VTABLE, FRAME_AT, GET_AT);
const PUT: [u8; PUT_BYTES] = head(Body::Put, &PUT_VTABLE, PUT_FRAME_AT, PUT_AT);
const PUT_IF: [u8; PUT_IF_BYTES] = head(Body::Put, &PUT_IF_VTABLE, PUT_IF_FRAME_AT, PUT_IF_AT);

/// Where the Frame table goes after a body vtable of so many entries: a multiple of eight, for its request id.
const fn frame_at(body_vtable_entries: usize) -> usize {
    (BODY_VTABLE_AT + 2 * body_vtable_entries).next_multiple_of(8)
}

/// The constant part of a frame, ending with the body's table.
const fn head<const BYTES: usize>(body: Body, body_vtable: &[u16], frame_at: usize, body_at: usize) -> [u8; BYTES] {
    let mut head = [0; BYTES];
    set_u32(&mut head, 0, frame_at);
    set_vtable(&mut head, FRAME_VTABLE_AT, &FRAME_VTABLE);
    set_vtable(&mut head, BODY_VTABLE_AT, body_vtable);
    set_u32(&mut head, frame_at, frame_at - FRAME_VTABLE_AT);
    set_u32(&mut head, frame_at + FRAME_BODY, body_at - frame_at - FRAME_BODY);
    head[LENGTH_PREFIX_BYTES + frame_at + FRAME_BODY_TYPE] = body.0;
    set_u32(&mut head, body_at, body_at - BODY_VTABLE_AT);
    head
}

const fn set_vtable(head: &mut [u8], at: usize, vtable: &[u16]) {
    let mut entry = 0;
    while entry < vtable.len() {
        let bytes = vtable[entry].to_le_bytes();
        head[LENGTH_PREFIX_BYTES + at + 2 * entry] = bytes[0];
        head[LENGTH_PREFIX_BYTES + at + 2 * entry + 1] = bytes[1];
        entry += 1;
    }
}

#[inline(always)]
const fn set_bytes<const COUNT: usize>(head: &mut [u8], at: usize, bytes: [u8; COUNT]) {
    let mut position = 0;
    while position < COUNT {
        head[at + position] = bytes[position];
        position += 1;
    }
}

#[inline(always)]
const fn set_u32(head: &mut [u8], at: usize, value: usize) {
    set_bytes(head, LENGTH_PREFIX_BYTES + at, (value as u32).to_le_bytes());
}

#[inline(always)]
const fn set_u64(head: &mut [u8], at: usize, value: u64) {
    set_bytes(head, LENGTH_PREFIX_BYTES + at, value.to_le_bytes());
}

#[inline(always)]
const fn set_length(head: &mut [u8], frame_bytes_with_prefix: usize) {
    set_bytes(head, 0, ((frame_bytes_with_prefix - LENGTH_PREFIX_BYTES) as u32).to_le_bytes());
}

/// Bytes of a string: its length, itself, a zero, and padding to a multiple of four.
#[inline]
const fn string_bytes(string: &str) -> usize {
    (4 + string.len() + 1).next_multiple_of(4)
}
