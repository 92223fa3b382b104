//! From a frame to a command that borrows from it.
//!
//! Single-key commands cost no allocation. Names are checked by the dispatch path, alike for both protocols; what is
//! checked here is what only this protocol can get wrong.

use crate::command::{Command, Condition, ErrorCode, Failure, PutItem};
use crate::limits::{MULTI_KEYS_MAX, PAGE_ENTRIES_DEFAULT, PAGE_ENTRIES_MAX};
use delta_wire::generated::{Body, Condition as Tag, Frame};
use delta_wire::{Condition as Ask, HotRequest, read_frame, read_hot_request};
use std::borrow::Cow;

/// Kinds of request that the metrics tell apart; an index into `ShardMetrics::wire_requests`.
pub use crate::metrics::WIRE_OPERATIONS as WIRE_REQUEST_KINDS;

/// Index of what could not be understood.
pub const KIND_MALFORMED: usize = 15;
/// Index of Hello.
pub const KIND_HELLO: usize = 0;

/// Why a frame is no command.
#[derive(Debug)]
pub enum Refusal {
    /// It breaks the protocol: the connection ends.
    Malformed(Failure),
    /// It is understood and not taken: answered, and the connection goes on.
    Refused(Failure),
}

/// The index of a frame's kind in [`WIRE_REQUEST_KINDS`].
#[inline]
pub fn kind_of(body: Body) -> usize {
    match body {
        Body::Hello => KIND_HELLO,
        Body::Get => 1,
        Body::Put => 2,
        Body::Delete => 3,
        Body::MultiGet => 4,
        Body::MultiPut => 5,
        Body::List => 6,
        Body::Schemas => 7,
        Body::SchemaGet => 8,
        Body::SchemaPut => 9,
        Body::SchemaDelete => 10,
        Body::SchemaList => 11,
        Body::Stats => 12,
        Body::Ping => 13,
        Body::RotateKey => 14,
        _ => KIND_MALFORMED,
    }
}

/// A frame as the skin sees it.
pub struct Decoded<'a> {
    /// The id to answer to; 0 when the frame does not even have one.
    pub request_id: u64,
    /// Its index in [`WIRE_REQUEST_KINDS`].
    pub kind: usize,
    /// What it asks for.
    pub command: Result<Command<'a>, Refusal>,
}

/// Verifies and reads a request. `body_bytes_max` bounds each document.
#[inline]
pub fn decode(bytes: &[u8], body_bytes_max: usize) -> Decoded<'_> {
    match read_hot_request(bytes) {
        Some(HotRequest::Get { request_id, schema, key }) => {
            let command = Ok(Command::Get { schema: schema.into(), key: key.into() });
            Decoded { request_id, kind: kind_of(Body::Get), command }
        }
        Some(HotRequest::Put { request_id, schema, key, document, condition }) => {
            let condition = match condition {
                Ask::None => Condition::None,
                Ask::IfAbsent => Condition::IfAbsent,
                Ask::IfVersion(version) => Condition::IfVersion(version),
                Ask::IfPresent => Condition::IfPresent,
            };
            let command = checked_size(document, body_bytes_max).map(|document| Command::Put {
                schema: schema.into(),
                key: key.into(),
                document,
                condition,
            });
            Decoded { request_id, kind: kind_of(Body::Put), command }
        }
        None => decode_verified(bytes, body_bytes_max),
    }
}

fn decode_verified(bytes: &[u8], body_bytes_max: usize) -> Decoded<'_> {
    match read_frame(bytes) {
        Ok(frame) => Decoded {
            request_id: frame.request_id(),
            kind: kind_of(frame.body_type()),
            command: command(&frame, body_bytes_max),
        },
        Err(malformed) => {
            let failure = Failure::new(ErrorCode::BadRequest, malformed.to_string());
            Decoded { request_id: 0, kind: KIND_MALFORMED, command: Err(Refusal::Malformed(failure)) }
        }
    }
}

fn command<'a>(frame: &Frame<'a>, body_bytes_max: usize) -> Result<Command<'a>, Refusal> {
    Ok(match frame.body_type() {
        Body::Get => {
            let table = frame.body_as_get().ok_or_else(unexpected)?;
            Command::Get { schema: table.schema().into(), key: table.key().into() }
        }
        Body::Put => {
            let table = frame.body_as_put().ok_or_else(unexpected)?;
            let document = checked_size(table.document().bytes(), body_bytes_max)?;
            let condition = condition(table.condition(), table.version())?;
            Command::Put { schema: table.schema().into(), key: table.key().into(), document, condition }
        }
        Body::Delete => {
            let table = frame.body_as_delete().ok_or_else(unexpected)?;
            let condition = condition(table.condition(), table.version())?;
            Command::Delete { schema: table.schema().into(), key: table.key().into(), condition }
        }
        Body::MultiGet => {
            let table = frame.body_as_multi_get().ok_or_else(unexpected)?;
            checked_count(table.keys().len())?;
            Command::MultiGet { schema: table.schema().into(), keys: table.keys().iter().map(Cow::from).collect() }
        }
        Body::MultiPut => {
            let table = frame.body_as_multi_put().ok_or_else(unexpected)?;
            checked_count(table.items().len())?;
            let items = table.items().iter().map(|item| {
                let document = checked_size(item.document().bytes(), body_bytes_max)?;
                Ok(PutItem { key: item.key().into(), document })
            });
            Command::MultiPut { schema: table.schema().into(), items: items.collect::<Result<_, Refusal>>()? }
        }
        Body::List => {
            let table = frame.body_as_list().ok_or_else(unexpected)?;
            let limit = match table.limit() as usize {
                0 => PAGE_ENTRIES_DEFAULT,
                limit => limit.min(PAGE_ENTRIES_MAX),
            };
            Command::List {
                schema: table.schema().into(),
                prefix: table.prefix().unwrap_or_default().into(),
                after: table.after().map(Cow::from),
                limit,
                documents: table.documents(),
            }
        }
        Body::SchemaGet => Command::SchemaGet { id: frame.body_as_schema_get().ok_or_else(unexpected)?.id().into() },
        Body::SchemaPut => {
            let table = frame.body_as_schema_put().ok_or_else(unexpected)?;
            let template = checked_size(table.template().bytes(), body_bytes_max)?;
            Command::SchemaPut { id: table.id().into(), template }
        }
        Body::SchemaDelete => {
            Command::SchemaDelete { id: frame.body_as_schema_delete().ok_or_else(unexpected)?.id().into() }
        }
        Body::Schemas => Command::Schemas,
        Body::SchemaList => Command::SchemaList,
        Body::Stats => Command::Stats,
        Body::Ping => Command::Ping,
        Body::RotateKey => Command::RotateKey,
        _ => return Err(unexpected()),
    })
}

#[inline]
fn condition(tag: Tag, version: u64) -> Result<Condition, Refusal> {
    Ok(match tag {
        Tag::None => Condition::None,
        Tag::IfAbsent => Condition::IfAbsent,
        Tag::IfVersion => Condition::IfVersion(version),
        Tag::IfPresent => Condition::IfPresent,
        _ => {
            let message =
                format!("condition number {} is not known here; use a client of this server's version", tag.0);
            return Err(Refusal::Malformed(Failure::new(ErrorCode::BadRequest, message)));
        }
    })
}

#[inline]
fn checked_size(document: &[u8], bytes_max: usize) -> Result<Cow<'_, [u8]>, Refusal> {
    if document.len() <= bytes_max {
        return Ok(Cow::Borrowed(document));
    }
    let message = format!("the document has {} bytes, at most {bytes_max} are taken here; split it", document.len());
    Err(Refusal::Refused(Failure::new(ErrorCode::TooLarge, message)))
}

fn checked_count(keys: usize) -> Result<(), Refusal> {
    if keys <= MULTI_KEYS_MAX {
        return Ok(());
    }
    let message = format!("the request names {keys} keys, at most {MULTI_KEYS_MAX} are taken in one; send several");
    Err(Refusal::Refused(Failure::new(ErrorCode::TooLarge, message)))
}

#[cold]
fn unexpected() -> Refusal {
    Refusal::Malformed(Failure::new(
        ErrorCode::BadRequest,
        "the frame is not a request this server knows; use a client of the server's version, and send Hello once only",
    ))
}
