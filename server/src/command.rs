//! What a client can ask for and what it can get: the one vocabulary of both protocols, the mailboxes and the engine.
//!
//! Plain data. A `Command` borrows from the receive buffer on the hot path and can be made owned to cross shards; an
//! `Outcome` is always owned and `Send`. No behaviour lives here beyond name checks and layout.

use crate::limits::{ENTITY_KEY_BYTES_MAX, SCHEMA_ID_BYTES_MAX};
use std::borrow::Cow;
use std::sync::Arc;

pub use delta_wire::ErrorCode;

/// A version of an entity: the sequence number of the record that holds it. Strictly increasing in a shard.
pub type Version = u64;

/// Names one entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityRef<'a> {
    /// The namespace.
    pub schema: &'a str,
    /// The key in it.
    pub key: &'a str,
}

/// What a request is about to do with an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Change it.
    Write,
}

/// One document with the entity it belongs to, in one shared allocation: made once when a write is accepted, then
/// shared by the pending write, the cache and a large reply.
#[derive(Clone)]
pub struct Document {
    /// schema bytes, key bytes, document bytes.
    bytes: Arc<[u8]>,
    schema_bytes: u16,
    key_bytes: u16,
}

impl Document {
    /// Copies entity and body into one allocation.
    pub fn new(entity: EntityRef<'_>, body: &[u8]) -> Self {
        let (schema, key) = (entity.schema.as_bytes(), entity.key.as_bytes());
        let total = schema.len() + key.len() + body.len();
        // Collected from an exact-size iterator, so that the Arc is allocated once and filled in place.
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, total).collect();
        if let Some(target) = Arc::get_mut(&mut bytes) {
            let (names, rest) = target.split_at_mut(schema.len() + key.len());
            names[..schema.len()].copy_from_slice(schema);
            names[schema.len()..].copy_from_slice(key);
            rest.copy_from_slice(body);
        }
        Self { bytes, schema_bytes: schema.len() as u16, key_bytes: key.len() as u16 }
    }

    /// The entity this document belongs to.
    pub fn entity(&self) -> EntityRef<'_> {
        let (schema, rest) = self.bytes.split_at(self.schema_bytes as usize);
        let key = &rest[..self.key_bytes as usize];
        // Both came from `&str` in `new`; a mismatch would be a bug, shown as an empty name rather than by a panic.
        EntityRef { schema: std::str::from_utf8(schema).unwrap_or(""), key: std::str::from_utf8(key).unwrap_or("") }
    }

    /// Whether this is the document of that entity (bytes compared, no UTF-8 check).
    pub fn is_of(&self, entity: EntityRef<'_>) -> bool {
        let names = self.schema_bytes as usize + self.key_bytes as usize;
        self.schema_bytes as usize == entity.schema.len()
            && names == entity.schema.len() + entity.key.len()
            && &self.bytes[..entity.schema.len()] == entity.schema.as_bytes()
            && &self.bytes[entity.schema.len()..names] == entity.key.as_bytes()
    }

    /// Whether both are documents of one entity.
    pub fn is_of_the_same(&self, other: &Self) -> bool {
        (self.schema_bytes, self.key_bytes) == (other.schema_bytes, other.key_bytes) && self.names() == other.names()
    }

    /// Reads the shared allocation, and no more of it than its first byte.
    pub fn first_byte(&self) -> Option<u8> {
        self.bytes.first().copied()
    }

    /// The stored document: the bytes the client sent.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.body_start()..]
    }

    /// The shared allocation and where the body starts in it, for sends without a copy.
    pub fn shared(&self) -> (&Arc<[u8]>, usize) {
        (&self.bytes, self.body_start())
    }

    /// A copy in an allocation of its own, to cross to another shard without sharing a reference count.
    pub fn detach(&self) -> Self {
        Self { bytes: Arc::from(&*self.bytes), ..*self }
    }

    /// Schema and key, one behind the other.
    fn names(&self) -> &[u8] {
        &self.bytes[..self.body_start()]
    }

    fn body_start(&self) -> usize {
        self.schema_bytes as usize + self.key_bytes as usize
    }
}

impl std::fmt::Debug for Document {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the content: a debug line may reach a log.
        write!(formatter, "Document({} bytes)", self.bytes.len() - self.body_start())
    }
}

/// What must hold of the newest accepted version for a write to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Condition {
    /// Always.
    #[default]
    None,
    /// The entity does not exist (create only).
    IfAbsent,
    /// The entity exists at exactly this version.
    IfVersion(Version),
    /// The entity exists, at whatever version (`If-Match: *`).
    IfPresent,
}

/// One key and document of a multi-key write.
#[derive(Clone, Debug)]
pub struct PutItem<'a> {
    /// The entity key.
    pub key: Cow<'a, str>,
    /// The document.
    pub document: Cow<'a, [u8]>,
}

/// A request, from either protocol.
#[derive(Clone, Debug)]
pub enum Command<'a> {
    /// Read one entity.
    Get { schema: Cow<'a, str>, key: Cow<'a, str> },
    /// Create or replace one entity.
    Put { schema: Cow<'a, str>, key: Cow<'a, str>, document: Cow<'a, [u8]>, condition: Condition },
    /// Remove one entity.
    Delete { schema: Cow<'a, str>, key: Cow<'a, str>, condition: Condition },
    /// Read several entities of one schema.
    MultiGet { schema: Cow<'a, str>, keys: Vec<Cow<'a, str>> },
    /// Write several entities of one schema; keys are independent of each other.
    MultiPut { schema: Cow<'a, str>, items: Vec<PutItem<'a>> },
    /// A page of a schema's entities in key order.
    List { schema: Cow<'a, str>, prefix: Cow<'a, str>, after: Option<Cow<'a, str>>, limit: usize, documents: bool },
    /// Schemas that hold entities, with counts.
    Schemas,
    /// Read a template.
    SchemaGet { id: Cow<'a, str> },
    /// Compile and store a template.
    SchemaPut { id: Cow<'a, str>, template: Cow<'a, [u8]> },
    /// Remove a template.
    SchemaDelete { id: Cow<'a, str> },
    /// Ids of all templates.
    SchemaList,
    /// Figures of the whole server, as JSON.
    Stats,
    /// Nothing but a round trip.
    Ping,
    /// Make a new data key the active one on every shard.
    RotateKey,
}

impl Command<'_> {
    /// Whether it may change what is stored.
    pub fn changes(&self) -> bool {
        match self {
            Command::Put { .. }
            | Command::Delete { .. }
            | Command::MultiPut { .. }
            | Command::SchemaPut { .. }
            | Command::SchemaDelete { .. }
            | Command::RotateKey => true,
            Command::Get { .. }
            | Command::MultiGet { .. }
            | Command::List { .. }
            | Command::Schemas
            | Command::SchemaGet { .. }
            | Command::SchemaList
            | Command::Stats
            | Command::Ping => false,
        }
    }

    /// The same command owning all it names, to cross shards or outlive the receive buffer.
    pub fn into_owned(self) -> Command<'static> {
        fn own<T: ToOwned + ?Sized>(value: Cow<'_, T>) -> Cow<'static, T> {
            Cow::Owned(value.into_owned())
        }
        match self {
            Command::Get { schema, key } => Command::Get { schema: own(schema), key: own(key) },
            Command::Put { schema, key, document, condition } => {
                Command::Put { schema: own(schema), key: own(key), document: own(document), condition }
            }
            Command::Delete { schema, key, condition } => {
                Command::Delete { schema: own(schema), key: own(key), condition }
            }
            Command::MultiGet { schema, keys } => {
                Command::MultiGet { schema: own(schema), keys: keys.into_iter().map(own).collect() }
            }
            Command::MultiPut { schema, items } => Command::MultiPut {
                schema: own(schema),
                items: items
                    .into_iter()
                    .map(|item| PutItem { key: own(item.key), document: own(item.document) })
                    .collect(),
            },
            Command::List { schema, prefix, after, limit, documents } => {
                Command::List { schema: own(schema), prefix: own(prefix), after: after.map(own), limit, documents }
            }
            Command::Schemas => Command::Schemas,
            Command::SchemaGet { id } => Command::SchemaGet { id: own(id) },
            Command::SchemaPut { id, template } => Command::SchemaPut { id: own(id), template: own(template) },
            Command::SchemaDelete { id } => Command::SchemaDelete { id: own(id) },
            Command::SchemaList => Command::SchemaList,
            Command::Stats => Command::Stats,
            Command::Ping => Command::Ping,
            Command::RotateKey => Command::RotateKey,
        }
    }
}

/// One entry of a listing.
#[derive(Clone, Debug)]
pub struct PageEntry {
    /// The entity key.
    pub key: String,
    /// Its version.
    pub version: Version,
    /// Its document, when asked for.
    pub document: Option<Document>,
}

/// A page of a listing.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Entries in key order.
    pub entries: Vec<PageEntry>,
    /// Pass it as `after` for the next page; none at the end.
    pub next: Option<String>,
}

/// What a command came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A document at a version.
    Document { version: Version, document: Document },
    /// A durable write.
    Written { version: Version, created: bool },
    /// A durable deletion, with the version of the deletion itself.
    Deleted { version: Version },
    /// One result a key, in the order asked.
    Documents(Vec<Result<(Version, Document), Failure>>),
    /// One result a key, in the order given.
    WrittenMany(Vec<Result<(Version, bool), Failure>>),
    /// A page of a listing.
    Page(Page),
    /// Schemas and how many entities each holds, sorted by id.
    Schemas(Vec<(String, u64)>),
    /// A template's text, as stored.
    Template(Vec<u8>),
    /// The template is stored (created: there was none) or removed, on every shard.
    TemplateChanged { created: bool },
    /// Template ids, sorted.
    Templates(Vec<String>),
    /// JSON text.
    Stats(String),
    /// The answer to a ping.
    Pong,
    /// The id of the data key now active on every shard.
    KeyRotated { key_id: String },
    /// It was refused or went wrong.
    Failed(Failure),
}

/// One place in a document that breaks its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// JSON Pointer into the document.
    pub pointer: String,
    /// The schema keyword that was broken.
    pub keyword: String,
    /// What is wrong, without the document's values.
    pub detail: String,
}

/// Why a command was not carried out, in words a person can act on. Never holds document content or a secret.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The stable code; it decides the HTTP status.
    pub code: ErrorCode,
    /// One sentence naming the thing and the remedy.
    pub message: Cow<'static, str>,
    /// Schema violations, when that is the reason.
    pub violations: Vec<Violation>,
    /// The version found, when a condition failed on an existing entity.
    pub version: Option<Version>,
    /// The key it concerns, in a multi-key write.
    pub key: Option<String>,
}

impl Failure {
    /// A failure with a code and a message only.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), violations: Vec::new(), version: None, key: None }
    }

    /// What whoever asks a stopping server is told, if nothing of it was done.
    pub fn shutting_down() -> Self {
        Self::new(ErrorCode::Unavailable, "the server is shutting down: retry elsewhere or later")
    }

    /// What whoever asks a stopping server is told, if something of it may have been done.
    pub fn unknown_at_stop() -> Self {
        let message =
            "the outcome of the write is unknown: the server stopped before it was confirmed; read to find out";
        Self::new(ErrorCode::OutcomeUnknown, message)
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Outcome::Failed(failure)
    }
}

/// Whom a delayed outcome goes to. Opaque to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticket {
    /// A wire connection (slot and generation as the runtime packs them) and its request id.
    Wire { connection: u64, request_id: u64 },
    /// Another shard, and the reply slot there.
    Peer { shard: u16, slot: u32 },
    /// A local task's slot.
    Task { slot: u32 },
}

/// Checks a schema id: 1–128 bytes, no control characters, no `/`, `\` or `..`.
pub fn check_schema_id(id: &str) -> Result<(), Failure> {
    check_name("schema id", id, SCHEMA_ID_BYTES_MAX)
}

/// Checks an entity key: 1–512 bytes, no control characters, no `/`, `\` or `..`.
pub fn check_entity_key(key: &str) -> Result<(), Failure> {
    check_name("entity key", key, ENTITY_KEY_BYTES_MAX)
}

fn check_name(what: &str, name: &str, bytes_max: usize) -> Result<(), Failure> {
    if !name.is_empty() && name.len() <= bytes_max && is_plain(name.as_bytes()) {
        return Ok(());
    }
    let problem = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > bytes_max {
        format!("has {} bytes, at most {bytes_max} are allowed", name.len())
    } else if name.contains(['/', '\\']) {
        "holds a slash or backslash".to_owned()
    } else if name.contains("..") {
        "holds '..'".to_owned()
    } else {
        "holds a control character".to_owned()
    };
    Err(Failure::new(ErrorCode::InvalidName, format!("the {what} {problem}; choose another name")))
}

/// One pass over a name: no control character (C0, DEL, or C1 as UTF-8 encodes it), no slash, no backslash, no `..`.
fn is_plain(name: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in name {
        let c1_control = previous == 0xc2 && byte < 0xa0;
        let refused = byte < 0x20 || matches!(byte, 0x7f | b'/' | b'\\') || c1_control;
        if refused || (previous == b'.' && byte == b'.') {
            return false;
        }
        previous = byte;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_for_the_reason_that_holds() {
        for name in ["a", "å.b", "a.b.c", "日本", " ", "\u{a0}", "~", &"k".repeat(512)] {
            assert!(check_entity_key(name).is_ok(), "{name}");
        }
        let cases = [
            ("", "empty"),
            ("a/b", "slash"),
            ("a\\b", "slash"),
            ("..", "'..'"),
            ("a..b", "'..'"),
            ("a\nb", "control"),
            ("a\u{7f}", "control"),
            ("a\u{85}b", "control"),
            (&"k".repeat(513), "513 bytes"),
        ];
        for (name, reason) in cases {
            let failure = check_entity_key(name).unwrap_err();
            assert_eq!(failure.code, ErrorCode::InvalidName);
            assert!(failure.message.contains(reason), "{name:?}: {}", failure.message);
        }
    }

    #[test]
    fn a_document_knows_its_entity_and_keeps_the_bytes() {
        let entity = EntityRef { schema: "users", key: "7" };
        let document = Document::new(entity, b"{\"a\": 1}");
        assert_eq!((document.entity(), document.body()), (entity, &b"{\"a\": 1}"[..]));
        assert!(document.is_of(entity));
        for (schema, key) in [("users", "8"), ("user", "s7"), ("users7", ""), ("", "users7")] {
            assert!(!document.is_of(EntityRef { schema, key }), "{schema} {key}");
        }
        assert!(document.is_of_the_same(&Document::new(entity, b"")));
        for (schema, key) in [("users", "8"), ("user", "s7"), ("users7", "")] {
            assert!(
                !document.is_of_the_same(&Document::new(EntityRef { schema, key }, b"{\"a\": 1}")),
                "{schema} {key}"
            );
        }
        let detached = document.detach();
        assert_eq!(detached.body(), document.body());
        assert!(!Arc::ptr_eq(detached.shared().0, document.shared().0));
        assert_eq!(format!("{document:?}"), "Document(8 bytes)");
    }
}
