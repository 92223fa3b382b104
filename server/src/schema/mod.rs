//! Whether a document may be stored: well-formed JSON always, and valid against its schema's template when there is one.
//!
//! * `json` parses (RFC 8259, UTF-8, depth) without building a tree; `tape` shows the parse to the `jsonschema` crate.
//! * `checker` brings them together for one document; `members` finds repeated names and serves wide objects.
//! * `template` is one compiled JSON Schema; `shape` and `patterns` bound what it can cost;
//!   `violations` words what a document breaks, without its values.
//! * `templates` keeps the template files of the store, one set a process; `shard` is a shard's view of it, lock-free.
//! * `entity_map` splits the body of a multi-key write into names and untouched documents.
//!
//! A template is draft-07 unless its `$schema` names another draft. `format` is asserted in drafts 4, 6 and 7, and an
//! annotation only from 2019-09 on, as those drafts say. References reach only into the template itself and to the
//! drafts' metaschemas. Patterns run on an engine without backtracking; look-around and backreferences are refused.
//! The room never changes or re-encodes a document, and refuses to reach over the network or to follow a file name.

pub mod checker;
pub mod entity_map;
pub mod json;
mod members;
mod patterns;
mod shape;
pub mod shard;
mod tape;
pub mod template;
pub mod templates;
mod turn;
mod violations;

#[cfg(test)]
mod memory_disk;

pub use checker::Checker;
pub use entity_map::{EntityMap, parse_entity_map};
pub use json::JsonParser;
pub use shard::{CheckError, ShardTemplates};
pub use template::Template;
pub use templates::{FileChange, Templates};
