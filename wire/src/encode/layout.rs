//! Hand-laid FlatBuffers for the hottest frames.
//!
//! Every frame here is: length, root offset, the vtable of Frame, the vtable of its body, the Frame table, the body's
//! table, then strings and vectors, the document last. Only forward offsets and fixed positions, so that all but a
//! few fields are constants. The tests hold each against the generated reader and its verifier.

use crate::framing::LENGTH_PREFIX_BYTES;
use crate::generated::{Body, Condition as Tag};
use crate::request::Condition;

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

/// A Document reply.
pub fn document(out: &mut Vec<u8>, request_id: u64, version: u64, content: &[u8]) {
    out.reserve(DOCUMENT_BYTES + content.len());
    document_prefix(out, request_id, version, content.len());
    out.extend_from_slice(content);
}

/// A Document reply but for its content, of which exactly `content_bytes` must follow; nothing comes after them.
pub fn document_prefix(out: &mut Vec<u8>, request_id: u64, version: u64, content_bytes: usize) {
    let mut head = DOCUMENT;
    set_length(&mut head, DOCUMENT_BYTES + content_bytes);
    set_u64(&mut head, FRAME_AT + FRAME_REQUEST_ID, request_id);
    set_u32(&mut head, WIDE_AT + 4, 12);
    set_u64(&mut head, WIDE_AT + 8, version);
    set_u32(&mut head, WIDE_AT + 16, content_bytes);
    out.extend_from_slice(&head);
}

/// A Written reply.
pub fn written(out: &mut Vec<u8>, request_id: u64, version: u64, created: bool) {
    let mut head = WRITTEN;
    set_length(&mut head, WRITTEN_BYTES);
    set_u64(&mut head, FRAME_AT + FRAME_REQUEST_ID, request_id);
    head[LENGTH_PREFIX_BYTES + WIDE_AT + 4] = u8::from(created);
    set_u64(&mut head, WIDE_AT + 8, version);
    out.extend_from_slice(&head);
}

/// A Get request.
pub fn get(out: &mut Vec<u8>, request_id: u64, schema: &str, key: &str) {
    let schema_bytes = string_bytes(schema);
    let total = GET_BYTES + schema_bytes + string_bytes(key);
    let mut head = GET;
    set_length(&mut head, total);
    set_u64(&mut head, FRAME_AT + FRAME_REQUEST_ID, request_id);
    set_u32(&mut head, GET_AT + 4, 12 - 4);
    set_u32(&mut head, GET_AT + 8, 12 + schema_bytes - 8);
    out.reserve(total);
    out.extend_from_slice(&head);
    push_string(out, schema);
    push_string(out, key);
}

/// A Put request.
pub fn put(out: &mut Vec<u8>, request_id: u64, schema: &str, key: &str, document: &[u8], condition: Condition) {
    let (tag, version) = match condition {
        Condition::None => (Tag::None, 0),
        Condition::IfAbsent => (Tag::IfAbsent, 0),
        Condition::IfVersion(version) => (Tag::IfVersion, version),
        Condition::IfPresent => (Tag::IfPresent, 0),
    };
    let (schema_bytes, key_bytes) = (string_bytes(schema), string_bytes(key));
    let tail = schema_bytes + key_bytes + 4 + document.len();
    if condition == Condition::None {
        let mut head = PUT;
        set_length(&mut head, PUT_BYTES + tail);
        set_u64(&mut head, PUT_FRAME_AT + FRAME_REQUEST_ID, request_id);
        set_u32(&mut head, PUT_AT + 4, 16 - 4);
        set_u32(&mut head, PUT_AT + 8, 16 + schema_bytes - 8);
        set_u32(&mut head, PUT_AT + 12, 16 + schema_bytes + key_bytes - 12);
        out.reserve(PUT_BYTES + tail);
        out.extend_from_slice(&head);
    } else {
        let mut head = PUT_IF;
        set_length(&mut head, PUT_IF_BYTES + tail);
        set_u64(&mut head, PUT_IF_FRAME_AT + FRAME_REQUEST_ID, request_id);
        head[LENGTH_PREFIX_BYTES + PUT_IF_AT + 4] = tag.0;
        set_u64(&mut head, PUT_IF_AT + 8, version);
        set_u32(&mut head, PUT_IF_AT + 16, 28 - 16);
        set_u32(&mut head, PUT_IF_AT + 20, 28 + schema_bytes - 20);
        set_u32(&mut head, PUT_IF_AT + 24, 28 + schema_bytes + key_bytes - 24);
        out.reserve(PUT_IF_BYTES + tail);
        out.extend_from_slice(&head);
    }
    push_string(out, schema);
    push_string(out, key);
    out.extend_from_slice(&(document.len() as u32).to_le_bytes());
    out.extend_from_slice(document);
}

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

#[inline]
fn push_string(out: &mut Vec<u8>, string: &str) {
    out.extend_from_slice(&(string.len() as u32).to_le_bytes());
    out.extend_from_slice(string.as_bytes());
    out.extend_from_slice(&[0; 4][..string_bytes(string) - 4 - string.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::read_frame;
    use crate::generated::Frame;

    /// The verified root of the one frame in `out`, whose length must be exact.
    fn only_frame(out: &[u8]) -> Frame<'_> {
        assert_eq!(u32::from_le_bytes(*out.first_chunk().unwrap()) as usize, out.len() - 4);
        read_frame(&out[4..]).expect("a hand-laid frame passes the verifier")
    }

    const NAMES: [&str; 8] = ["", "a", "ab", "abc", "abcd", "abcde", "schlüssel", "0123456789abcdef"];

    #[test]
    fn the_generated_reader_accepts_every_request() {
        let conditions = [
            (Condition::None, Tag::None, 0),
            (Condition::IfAbsent, Tag::IfAbsent, 0),
            (Condition::IfVersion(u64::MAX), Tag::IfVersion, u64::MAX),
            (Condition::IfPresent, Tag::IfPresent, 0),
        ];
        for schema in NAMES {
            for key in NAMES {
                let mut out = Vec::new();
                get(&mut out, 7, schema, key);
                let frame = only_frame(&out);
                let body = frame.body_as_get().unwrap();
                assert_eq!((frame.request_id(), body.schema(), body.key()), (7, schema, key));
                for (condition, tag, version) in conditions {
                    for document in [&b""[..], b"{}", b"{\"a\":1}", &[b' '; 401]] {
                        out.clear();
                        put(&mut out, u64::MAX, schema, key, document, condition);
                        let frame = only_frame(&out);
                        let body = frame.body_as_put().unwrap();
                        assert_eq!((frame.request_id(), body.schema(), body.key()), (u64::MAX, schema, key));
                        assert_eq!(body.document().bytes(), document);
                        assert_eq!((body.condition(), body.version()), (tag, version));
                    }
                }
            }
        }
    }

    #[test]
    fn the_generated_reader_accepts_every_reply() {
        for length in 0..70 {
            let content = vec![b'x'; length];
            let mut out = Vec::new();
            document(&mut out, 9, 1 << 52, &content);
            let frame = only_frame(&out);
            let body = frame.body_as_document().unwrap();
            assert_eq!((frame.request_id(), body.version(), body.content().bytes()), (9, 1 << 52, &content[..]));
        }
        for created in [false, true] {
            let mut out = Vec::new();
            written(&mut out, 0, 3, created);
            let body = only_frame(&out).body_as_written().unwrap();
            assert_eq!((body.version(), body.created()), (3, created));
        }
    }

    #[test]
    fn wide_fields_are_aligned_in_the_message() {
        for position in [FRAME_AT, PUT_FRAME_AT, PUT_IF_FRAME_AT, WIDE_AT, PUT_IF_AT] {
            assert_eq!((position + 8) % 8, 0);
        }
    }
}
