//! Reads the hand-laid frames back at their fixed positions, several times faster than through the verifier.
//!
//! A frame is taken only if all its constants are in place, its parts fill it exactly and its strings are UTF-8; the
//! verifier accepts each of these too. Anything else, damaged frames included, is left to the verifier to judge.

use super::*;
use crate::generated::Condition as Tag;
use crate::request::Condition;

/// A request in the hand-laid form. It has no `Debug`: it may hold a document.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum HotRequest<'a> {
    /// Read one entity.
    Get { request_id: u64, schema: &'a str, key: &'a str },
    /// Create or replace one entity.
    Put { request_id: u64, schema: &'a str, key: &'a str, document: &'a [u8], condition: Condition },
}

/// A reply in the hand-laid form. It has no `Debug`: it may hold a document.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum HotReply<'a> {
    /// A document.
    Document { request_id: u64, version: u64, content: &'a [u8] },
    /// A durable write.
    Written { request_id: u64, version: u64, created: bool },
}

/// The request in a frame (without its length prefix), if it is in the hand-laid form.
#[inline]
pub fn read_hot_request(frame: &[u8]) -> Option<HotRequest<'_>> {
    if fits(frame, &GET, FRAME_AT, GET_AT) {
        let (schema, schema_end) = string(frame, GET_AT + 12)?;
        let (key, key_end) = string(frame, schema_end)?;
        let offsets = [word(frame, GET_AT + 4)?, word(frame, GET_AT + 8)?];
        let fits = offsets == [12 - 4, schema_end - GET_AT - 8] && key_end == frame.len();
        let request_id = wide(frame, FRAME_AT + FRAME_REQUEST_ID)?;
        return fits.then_some(HotRequest::Get { request_id, schema, key });
    }
    if fits(frame, &PUT, PUT_FRAME_AT, PUT_AT) {
        let (schema, schema_end) = string(frame, PUT_AT + 16)?;
        let (key, key_end) = string(frame, schema_end)?;
        let document = bytes_to_the_end(frame, key_end)?;
        let offsets = [word(frame, PUT_AT + 4)?, word(frame, PUT_AT + 8)?, word(frame, PUT_AT + 12)?];
        let fits = offsets == [16 - 4, schema_end - PUT_AT - 8, key_end - PUT_AT - 12];
        let request_id = wide(frame, PUT_FRAME_AT + FRAME_REQUEST_ID)?;
        let condition = Condition::None;
        return fits.then_some(HotRequest::Put { request_id, schema, key, document, condition });
    }
    if fits(frame, &PUT_IF, PUT_IF_FRAME_AT, PUT_IF_AT) {
        let (schema, schema_end) = string(frame, PUT_IF_AT + 28)?;
        let (key, key_end) = string(frame, schema_end)?;
        let document = bytes_to_the_end(frame, key_end)?;
        let offsets = [word(frame, PUT_IF_AT + 16)?, word(frame, PUT_IF_AT + 20)?, word(frame, PUT_IF_AT + 24)?];
        let fits = offsets == [28 - 16, schema_end - PUT_IF_AT - 20, key_end - PUT_IF_AT - 24];
        let condition = match Tag(*frame.get(PUT_IF_AT + 4)?) {
            Tag::IfAbsent => Condition::IfAbsent,
            Tag::IfVersion => Condition::IfVersion(wide(frame, PUT_IF_AT + 8)?),
            Tag::IfPresent => Condition::IfPresent,
            _ => return None,
        };
        let request_id = wide(frame, PUT_IF_FRAME_AT + FRAME_REQUEST_ID)?;
        return fits.then_some(HotRequest::Put { request_id, schema, key, document, condition });
    }
    None
}

/// The reply in a frame (without its length prefix), if it is in the hand-laid form.
#[inline]
pub fn read_hot_reply(frame: &[u8]) -> Option<HotReply<'_>> {
    if fits(frame, &DOCUMENT, FRAME_AT, WIDE_AT) {
        let content = bytes_to_the_end(frame, WIDE_AT + 16)?;
        let request_id = wide(frame, FRAME_AT + FRAME_REQUEST_ID)?;
        let version = wide(frame, WIDE_AT + 8)?;
        let fits = word(frame, WIDE_AT + 4)? == 12;
        return fits.then_some(HotReply::Document { request_id, version, content });
    }
    if fits(frame, &WRITTEN, FRAME_AT, WIDE_AT) {
        let request_id = wide(frame, FRAME_AT + FRAME_REQUEST_ID)?;
        let version = wide(frame, WIDE_AT + 8)?;
        let created = *frame.get(WIDE_AT + 4)? != 0;
        let fits = frame.len() == WRITTEN_BYTES - LENGTH_PREFIX_BYTES;
        return fits.then_some(HotReply::Written { request_id, version, created });
    }
    None
}

/// Whether everything constant in a frame of this form is in place: root, vtables and the links between tables.
#[inline(always)]
fn fits<const BYTES: usize>(frame: &[u8], head: &[u8; BYTES], frame_at: usize, body_at: usize) -> bool {
    let Some(fixed) = frame.get(..BYTES - LENGTH_PREFIX_BYTES) else { return false };
    let head = &head[LENGTH_PREFIX_BYTES..];
    let (before_id, after_id) = (frame_at + FRAME_REQUEST_ID, frame_at + FRAME_BODY_TYPE);
    fixed[..before_id] == head[..before_id] && fixed[after_id..body_at + 4] == head[after_id..body_at + 4]
}

#[inline(always)]
fn word(frame: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*frame.get(at..)?.first_chunk()?) as usize)
}

#[inline(always)]
fn wide(frame: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*frame.get(at..)?.first_chunk()?))
}

/// The zero-terminated string at a position, and where its padding ends.
#[inline(always)]
fn string(frame: &[u8], at: usize) -> Option<(&str, usize)> {
    let start = at + 4;
    let end = start.checked_add(word(frame, at)?)?;
    let text = frame.get(start..end)?;
    (*frame.get(end)? == 0).then_some(())?;
    Some((std::str::from_utf8(text).ok()?, (end + 1).next_multiple_of(4)))
}

/// The bytes at a position, which must be the frame's last.
#[inline(always)]
fn bytes_to_the_end(frame: &[u8], at: usize) -> Option<&[u8]> {
    let bytes = frame.get(at + 4..)?;
    (word(frame, at)? == bytes.len()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::read_frame;
    use crate::request::Condition;
    use proptest::prelude::*;

    /// The same through the verifier and the generated reader.
    fn general_request(frame: &[u8]) -> Option<HotRequest<'_>> {
        let frame = read_frame(frame).ok()?;
        let request_id = frame.request_id();
        if let Some(get) = frame.body_as_get() {
            return Some(HotRequest::Get { request_id, schema: get.schema(), key: get.key() });
        }
        let put = frame.body_as_put()?;
        let condition = match put.condition() {
            Tag::IfAbsent => Condition::IfAbsent,
            Tag::IfVersion => Condition::IfVersion(put.version()),
            Tag::IfPresent => Condition::IfPresent,
            _ => Condition::None,
        };
        let (schema, key, document) = (put.schema(), put.key(), put.document().bytes());
        Some(HotRequest::Put { request_id, schema, key, document, condition })
    }

    fn general_reply(frame: &[u8]) -> Option<HotReply<'_>> {
        let frame = read_frame(frame).ok()?;
        let request_id = frame.request_id();
        if let Some(table) = frame.body_as_document() {
            return Some(HotReply::Document { request_id, version: table.version(), content: table.content().bytes() });
        }
        let table = frame.body_as_written()?;
        Some(HotReply::Written { request_id, version: table.version(), created: table.created() })
    }

    fn any_condition() -> impl Strategy<Value = Condition> {
        prop_oneof![
            Just(Condition::None),
            Just(Condition::IfAbsent),
            Just(Condition::IfPresent),
            any::<u64>().prop_map(Condition::IfVersion),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn agrees_with_the_verifier_on_whatever_it_takes(
            (schema, key) in ("\\PC{0,9}", "\\PC{0,9}"),
            document in prop::collection::vec(any::<u8>(), 0..40),
            condition in any_condition(),
            (request_id, version) in any::<(u64, u64)>(),
            kind in 0..4,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            length in any::<prop::sample::Index>(),
            cut in 0..4,
        ) {
            let mut out = Vec::new();
            match kind {
                0 => get(&mut out, request_id, &schema, &key),
                1 => put(&mut out, request_id, &schema, &key, &document, condition),
                2 => crate::layout::document(&mut out, request_id, version, &document),
                _ => written(&mut out, request_id, version, version % 2 == 0),
            }
            let mut frame = out.split_off(4);
            let is_whole = damage.is_empty() && cut > 0;
            for (position, value) in damage {
                let position = position.index(frame.len());
                frame[position] = value;
            }
            if cut == 0 {
                frame.truncate(length.index(frame.len()));
            }
            let (request, reply) = (read_hot_request(&frame), read_hot_reply(&frame));
            prop_assert!(request.is_none() || request == general_request(&frame));
            prop_assert!(reply.is_none() || reply == general_reply(&frame));
            if is_whole {
                prop_assert_eq!((request.is_some(), reply.is_some()), (kind < 2, kind >= 2));
            }
        }
    }
}
