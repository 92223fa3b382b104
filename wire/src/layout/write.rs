//! Writes the hand-laid frames. The tests hold each against the generated reader and its verifier.

use super::*;
use crate::generated::Condition as Tag;
use crate::request::Condition;

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
