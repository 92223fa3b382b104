//! What a server answers, in plain Rust, copied out of a verified frame.
//!
//! Nothing here prints a document: types that hold one show its size only.

use crate::error_code::ErrorCode;
use crate::frame::{Malformed, read_frame};
use crate::generated::{self as tables, Body};
use crate::layout::{HotReply, read_hot_reply};
use std::fmt;

/// One place in a document that breaks its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// JSON Pointer into the document.
    pub pointer: String,
    /// The schema keyword that was broken.
    pub keyword: String,
    /// What is wrong.
    pub detail: String,
}

/// Why the server did not carry a request out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({})", code.name())]
pub struct ServerError {
    /// The stable code; a number this client does not know is shown as `Internal`.
    pub code: ErrorCode,
    /// The number as received.
    pub code_number: u16,
    /// One sentence for a person.
    pub message: String,
    /// Schema violations, when that is the reason.
    pub violations: Vec<Violation>,
    /// The version found, when a condition failed on an existing entity.
    pub version: Option<u64>,
    /// The key concerned, in a multi-key write.
    pub key: Option<String>,
}

/// A document and its version.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    /// Strictly increasing with every write of the entity.
    pub version: u64,
    /// JSON text, exactly as it was put.
    pub content: Vec<u8>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Stored(version {}, {} bytes)", self.version, self.content.len())
    }
}

/// A durable write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The version the entity has now.
    pub version: u64,
    /// Whether it did not exist before.
    pub created: bool,
}

/// One entry of a listing.
#[derive(Clone, PartialEq, Eq)]
pub struct PageEntry {
    /// The entity key.
    pub key: String,
    /// Its version.
    pub version: u64,
    /// Its document, when asked for.
    pub content: Option<Vec<u8>>,
}

impl fmt::Debug for PageEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.content.as_ref().map(Vec::len);
        write!(formatter, "PageEntry({:?}, version {}, {bytes:?} bytes)", self.key, self.version)
    }
}

/// What the server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Limits {
    /// Largest document or template.
    pub document_bytes: u32,
    /// Largest frame, without its length prefix.
    pub frame_bytes: u32,
    /// Requests of one connection that may wait for replies.
    pub requests_in_flight: u32,
    /// Keys in one multi-key request.
    pub multi_keys: u32,
    /// Entries in one page.
    pub page_entries: u32,
}

/// The slots of one shard and where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRange {
    /// First slot it owns.
    pub first_slot: u8,
    /// Last slot it owns.
    pub last_slot: u8,
    /// `ip:port` of its own listener, if it has one.
    pub address: Option<String>,
}

/// What the server says of itself once the credential was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Welcome {
    /// The protocol number it speaks.
    pub protocol: u16,
    /// Its version.
    pub server_version: String,
    /// The store's identity, in hex.
    pub store_id: String,
    /// Seed of the slot hash.
    pub hash_seed: u64,
    /// The shard this connection landed on.
    pub shard: u16,
    /// Every shard, in order.
    pub shards: Vec<ShardRange>,
    /// What it takes.
    pub limits: Limits,
    /// Who the credential belongs to.
    pub principal: String,
    /// What it may do.
    pub permissions: Vec<String>,
}

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Refused or failed.
    Error(ServerError),
    /// The answer to Hello.
    Welcome(Box<Welcome>),
    /// A document.
    Document(Stored),
    /// A durable write.
    Written(Written),
    /// A durable deletion, with the version of the deletion itself.
    Deleted { version: u64 },
    /// One result a key, in the order asked.
    Documents(Vec<Result<Stored, ServerError>>),
    /// One result a key, in the order given.
    WrittenMany(Vec<Result<Written, ServerError>>),
    /// A page of a listing, and what to pass as `after` for the next.
    Page { entries: Vec<PageEntry>, next: Option<String> },
    /// Schemas that hold entities, and how many.
    SchemaCounts(Vec<(String, u64)>),
    /// A template's text.
    Template(Vec<u8>),
    /// A template was stored or removed.
    TemplateChanged { created: bool },
    /// Template ids.
    Templates(Vec<String>),
    /// Figures, as JSON text.
    Figures(String),
    /// The answer to a ping.
    Pong,
    /// The data key now active.
    KeyRotated { key_id: String },
}

/// Verifies one frame (without its length prefix) and copies the reply out of it, with the id of its request.
pub fn decode_reply(frame: &[u8]) -> Result<(u64, Reply), Malformed> {
    match read_hot_reply(frame) {
        Some(HotReply::Document { request_id, version, content }) => {
            return Ok((request_id, Reply::Document(Stored { version, content: content.to_vec() })));
        }
        Some(HotReply::Written { request_id, version, created }) => {
            return Ok((request_id, Reply::Written(Written { version, created })));
        }
        None => {}
    }
    let frame = read_frame(frame)?;
    Ok((frame.request_id(), reply_of(&frame).ok_or(Malformed)?))
}

fn reply_of(frame: &tables::Frame<'_>) -> Option<Reply> {
    Some(match frame.body_type() {
        Body::Error => Reply::Error(error(frame.body_as_error()?)),
        Body::Welcome => Reply::Welcome(Box::new(welcome(frame.body_as_welcome()?))),
        Body::Document => {
            let table = frame.body_as_document()?;
            Reply::Document(Stored { version: table.version(), content: table.content().bytes().to_vec() })
        }
        Body::Written => {
            let table = frame.body_as_written()?;
            Reply::Written(Written { version: table.version(), created: table.created() })
        }
        Body::Deleted => Reply::Deleted { version: frame.body_as_deleted()?.version() },
        Body::Documents => {
            Reply::Documents(frame.body_as_documents()?.results().iter().map(read_result).collect::<Option<_>>()?)
        }
        Body::WrittenMany => {
            Reply::WrittenMany(frame.body_as_written_many()?.results().iter().map(write_result).collect())
        }
        Body::Page => {
            let table = frame.body_as_page()?;
            Reply::Page {
                entries: table.entries().iter().map(page_entry).collect(),
                next: table.next().map(str::to_owned),
            }
        }
        Body::SchemaCounts => Reply::SchemaCounts(
            frame
                .body_as_schema_counts()?
                .schemas()
                .iter()
                .map(|count| (count.id().to_owned(), count.entities()))
                .collect(),
        ),
        Body::Template => Reply::Template(frame.body_as_template()?.content().bytes().to_vec()),
        Body::TemplateChanged => Reply::TemplateChanged { created: frame.body_as_template_changed()?.created() },
        Body::Templates => Reply::Templates(frame.body_as_templates()?.ids().iter().map(str::to_owned).collect()),
        Body::Figures => Reply::Figures(frame.body_as_figures()?.json().to_owned()),
        Body::Pong => Reply::Pong,
        Body::KeyRotated => Reply::KeyRotated { key_id: frame.body_as_key_rotated()?.key_id().to_owned() },
        _ => return None,
    })
}

fn owned(text: Option<&str>) -> String {
    text.unwrap_or_default().to_owned()
}

fn error(table: tables::Error<'_>) -> ServerError {
    let violations = table.violations().into_iter().flatten().map(|violation| Violation {
        pointer: owned(violation.pointer()),
        keyword: owned(violation.keyword()),
        detail: owned(violation.detail()),
    });
    ServerError {
        code: ErrorCode::from_number(table.code()).unwrap_or(ErrorCode::Internal),
        code_number: table.code(),
        message: owned(table.message()),
        violations: violations.collect(),
        version: table.version(),
        key: table.key().map(str::to_owned),
    }
}

fn welcome(table: tables::Welcome<'_>) -> Welcome {
    let shards = table.shards().into_iter().flatten().map(|shard| ShardRange {
        first_slot: shard.first_slot(),
        last_slot: shard.last_slot(),
        address: shard.address().map(str::to_owned),
    });
    let limits = table.limits().map(|limits| Limits {
        document_bytes: limits.document_bytes(),
        frame_bytes: limits.frame_bytes(),
        requests_in_flight: limits.requests_in_flight(),
        multi_keys: limits.multi_keys(),
        page_entries: limits.page_entries(),
    });
    Welcome {
        protocol: table.protocol(),
        server_version: owned(table.server_version()),
        store_id: owned(table.store_id()),
        hash_seed: table.hash_seed(),
        shard: table.shard(),
        shards: shards.collect(),
        limits: limits.unwrap_or_default(),
        principal: owned(table.principal()),
        permissions: table.permissions().into_iter().flatten().map(str::to_owned).collect(),
    }
}

fn read_result(table: tables::ReadResult<'_>) -> Option<Result<Stored, ServerError>> {
    if let Some(failure) = table.error() {
        return Some(Err(error(failure)));
    }
    Some(Ok(Stored { version: table.version(), content: table.content()?.bytes().to_vec() }))
}

fn write_result(table: tables::WriteResult<'_>) -> Result<Written, ServerError> {
    match table.error() {
        Some(failure) => Err(error(failure)),
        None => Ok(Written { version: table.version(), created: table.created() }),
    }
}

fn page_entry(table: tables::PageEntry<'_>) -> PageEntry {
    PageEntry {
        key: table.key().to_owned(),
        version: table.version(),
        content: table.content().map(|content| content.bytes().to_vec()),
    }
}
