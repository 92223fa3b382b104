//! The framing of the wire protocol, the verifier and both readers of a frame.
//!
//! Holds: a stream gives the same frames and the same end however it is cut; no frame is above its bound and no more
//! is kept than arrived; what the fast reader takes, the verifier takes too and reads alike; what was read can be
//! written again and reads the same.

use super::input::Input;
use delta_wire::encode::Scratch;
use delta_wire::generated::{self as tables, Frame};
use delta_wire::{
    Condition, FrameDecoder, FramingError, HotRequest, LENGTH_PREFIX_BYTES, Request, decode_reply, read_frame,
    read_hot_request,
};

/// Tries one input: a bound, two lengths of pieces, then the stream.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let frame_bytes_max = [64, 512, 4 << 10, 1 << 20][input.below(4)];
    let lengths = [usize::from(input.byte()) + 1, input.below(7) + 1];
    let stash_every = input.below(4) + 2;
    let stream = input.rest();
    let whole = cut(stream, &[stream.len().max(1)], usize::MAX, frame_bytes_max);
    let pieces = cut(stream, &lengths, stash_every, frame_bytes_max);
    assert!(whole == pieces, "the same stream gave other frames when cut at {lengths:?}");
    whole.0.iter().for_each(|frame| judge(frame));
}

/// One of everything there is to send.
pub fn seeds() -> Vec<Vec<u8>> {
    let (schema, key, condition) = ("people", "ada", Condition::IfVersion(7));
    let requests = [
        Request::Get { schema, key },
        Request::Put { schema, key, document: b"{\"a\":1}", condition: Condition::None },
        Request::Put { schema, key, document: b"{}", condition },
        Request::Put { schema, key, document: b"[]", condition: Condition::IfAbsent },
        Request::Delete { schema, key, condition },
        Request::MultiGet { schema, keys: &["a", "b", ""] },
        Request::MultiPut { schema, items: &[("a", b"1"), ("b", b"\"x\"")] },
        Request::List { schema, prefix: "a", after: Some("ab"), limit: 9, documents: true },
        Request::SchemaPut { id: schema, template: b"{}" },
        Request::SchemaGet { id: schema },
        Request::Ping,
    ];
    let mut frames = vec![Vec::new(); 4];
    for (request_id, request) in (1..).zip(&requests) {
        let mut frame = Vec::new();
        Scratch::new().request(&mut frame, request_id, request);
        frames.push(frame);
    }
    Scratch::new().hello(&mut frames[0], 1, Some(b"key"));
    delta_wire::encode::document(&mut frames[1], 5, 6, b"{\"a\":[]}");
    delta_wire::encode::written(&mut frames[2], 5, 6, true);
    frames[3] = vec![7, 0, 0, 0];
    let stream = frames.concat();
    let seed = |bytes: &[u8]| [&[3, 40, 2, 1], bytes].concat();
    // One byte, and eight, above the smallest bound.
    let too_large = [65, 72].map(|len| [&[0, 40, 2, 1, len, 0, 0, 0][..], &[0; 80]].concat());
    frames.iter().map(|frame| seed(frame)).chain([seed(&stream)]).chain(too_large).collect()
}

/// Frames, how many bytes are left over, and what ended the stream.
type Cut = (Vec<Vec<u8>>, usize, Option<FramingError>);

fn cut(stream: &[u8], lengths: &[usize], stash_every: usize, frame_bytes_max: usize) -> Cut {
    let mut decoder = FrameDecoder::new();
    let (mut frames, mut rest, mut arrived, mut stashed) = (Vec::new(), stream, 0, 0);
    let mut lengths = lengths.iter().cycle();
    for number in 1.. {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(lengths.next().map_or(1, |length| (*length).min(rest.len())));
        (rest, arrived) = (after, arrived + piece.len());
        let mut input = piece;
        if number % stash_every == 0 && !rest.is_empty() {
            decoder.stash(piece);
            stashed += piece.len();
            continue;
        }
        loop {
            match decoder.next(&mut input, frame_bytes_max) {
                Ok(Some(frame)) => {
                    assert!(frame.len() <= frame_bytes_max, "a frame of {} bytes", frame.len());
                    frames.push(frame.to_vec());
                }
                Ok(None) => break,
                Err(error) => return (frames, 0, Some(error)),
            }
        }
        assert!(input.is_empty(), "asking for more leaves nothing behind");
        let kept_max = arrived.min(frame_bytes_max + LENGTH_PREFIX_BYTES + stashed);
        assert!(decoder.buffered_bytes() <= kept_max, "{} bytes are kept", decoder.buffered_bytes());
    }
    (frames, decoder.buffered_bytes(), None)
}

fn judge(bytes: &[u8]) {
    let verified = read_frame(bytes);
    if let Some(hot) = read_hot_request(bytes) {
        let frame = verified.expect("what the fast reader takes, the verifier takes");
        let same = match hot {
            HotRequest::Get { request_id, schema, key } => frame
                .body_as_get()
                .is_some_and(|get| (frame.request_id(), get.schema(), get.key()) == (request_id, schema, key)),
            HotRequest::Put { request_id, schema, key, document, condition } => {
                frame.body_as_put().is_some_and(|put| {
                    let names = (frame.request_id(), put.schema(), put.key(), put.document().bytes());
                    let read = condition_of(put.condition(), put.version());
                    names == (request_id, schema, key, document) && read == Some(condition)
                })
            }
        };
        assert!(same, "both readers read the same");
    }
    let reply = decode_reply(bytes);
    let Ok(frame) = verified else {
        return assert!(reply.is_err(), "a reply was read from a frame that is not valid");
    };
    if let Ok((request_id, _)) = reply {
        assert_eq!(request_id, frame.request_id());
    }
    if let Some(fields) = fields_of(&frame) {
        let mut out = Vec::new();
        fields.with_request(|request| Scratch::new().request(&mut out, frame.request_id(), request));
        let again = read_frame(&out[LENGTH_PREFIX_BYTES..]).expect("what is written here is valid");
        assert_eq!(again.request_id(), frame.request_id());
        assert!(fields_of(&again).is_some_and(|again| again == fields), "written again, it reads the same");
    }
}

/// A request's content, apart from the frame it came in.
#[derive(PartialEq)]
enum Fields<'a> {
    Get(&'a str, &'a str),
    Put(&'a str, &'a str, &'a [u8], Condition),
    Delete(&'a str, &'a str, Condition),
    MultiGet(&'a str, Vec<&'a str>),
    MultiPut(&'a str, Vec<(&'a str, &'a [u8])>),
    List(&'a str, &'a str, Option<&'a str>, u32, bool),
    SchemaPut(&'a str, &'a [u8]),
}

impl Fields<'_> {
    fn with_request(&self, write: impl FnOnce(&Request<'_>)) {
        match *self {
            Fields::Get(schema, key) => write(&Request::Get { schema, key }),
            Fields::Put(schema, key, document, condition) => {
                write(&Request::Put { schema, key, document, condition });
            }
            Fields::Delete(schema, key, condition) => write(&Request::Delete { schema, key, condition }),
            Fields::MultiGet(schema, ref keys) => write(&Request::MultiGet { schema, keys }),
            Fields::MultiPut(schema, ref items) => write(&Request::MultiPut { schema, items }),
            Fields::List(schema, prefix, after, limit, documents) => {
                write(&Request::List { schema, prefix, after, limit, documents });
            }
            Fields::SchemaPut(id, template) => write(&Request::SchemaPut { id, template }),
        }
    }
}

fn fields_of<'a>(frame: &Frame<'a>) -> Option<Fields<'a>> {
    if let Some(get) = frame.body_as_get() {
        return Some(Fields::Get(get.schema(), get.key()));
    }
    if let Some(put) = frame.body_as_put() {
        let condition = condition_of(put.condition(), put.version())?;
        return Some(Fields::Put(put.schema(), put.key(), put.document().bytes(), condition));
    }
    if let Some(delete) = frame.body_as_delete() {
        let condition = condition_of(delete.condition(), delete.version())?;
        return Some(Fields::Delete(delete.schema(), delete.key(), condition));
    }
    if let Some(get) = frame.body_as_multi_get() {
        return Some(Fields::MultiGet(get.schema(), get.keys().iter().collect()));
    }
    if let Some(put) = frame.body_as_multi_put() {
        let items = put.items().iter().map(|item| (item.key(), item.document().bytes()));
        return Some(Fields::MultiPut(put.schema(), items.collect()));
    }
    if let Some(list) = frame.body_as_list() {
        let prefix = list.prefix().unwrap_or_default();
        return Some(Fields::List(list.schema(), prefix, list.after(), list.limit(), list.documents()));
    }
    let put = frame.body_as_schema_put()?;
    Some(Fields::SchemaPut(put.id(), put.template().bytes()))
}

fn condition_of(tag: tables::Condition, version: u64) -> Option<Condition> {
    Some(match tag {
        tables::Condition::None => Condition::None,
        tables::Condition::IfAbsent => Condition::IfAbsent,
        tables::Condition::IfVersion => Condition::IfVersion(version),
        tables::Condition::IfPresent => Condition::IfPresent,
        _ => return None,
    })
}
