//! What a client can ask for, in plain Rust.

/// What must hold of the entity for a write to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Condition {
    /// Always.
    #[default]
    None,
    /// The entity does not exist.
    IfAbsent,
    /// The entity exists at exactly this version.
    IfVersion(u64),
    /// The entity exists, at whatever version.
    IfPresent,
}

/// One request, borrowing what it names. It has no `Debug`: it may hold documents.
#[derive(Clone, Copy)]
pub enum Request<'a> {
    /// Read one entity.
    Get { schema: &'a str, key: &'a str },
    /// Create or replace one entity.
    Put { schema: &'a str, key: &'a str, document: &'a [u8], condition: Condition },
    /// Remove one entity.
    Delete { schema: &'a str, key: &'a str, condition: Condition },
    /// Read several entities of one schema.
    MultiGet { schema: &'a str, keys: &'a [&'a str] },
    /// Write several entities of one schema: key and document each, independent of each other.
    MultiPut { schema: &'a str, items: &'a [(&'a str, &'a [u8])] },
    /// A page of entities in key order; a limit of 0 means the server's default.
    List { schema: &'a str, prefix: &'a str, after: Option<&'a str>, limit: u32, documents: bool },
    /// Schemas that hold entities, with counts.
    Schemas,
    /// Read a template.
    SchemaGet { id: &'a str },
    /// Store a template.
    SchemaPut { id: &'a str, template: &'a [u8] },
    /// Remove a template.
    SchemaDelete { id: &'a str },
    /// Ids of all templates.
    SchemaList,
    /// Figures of the whole server.
    Stats,
    /// Nothing but a round trip.
    Ping,
    /// Make a new data key the active one.
    RotateKey,
}

impl Request<'_> {
    /// Whether it changes anything, so that it must not be sent twice.
    pub fn is_write(&self) -> bool {
        match self {
            Request::Put { .. }
            | Request::Delete { .. }
            | Request::MultiPut { .. }
            | Request::SchemaPut { .. }
            | Request::SchemaDelete { .. }
            | Request::RotateKey => true,
            Request::Get { .. }
            | Request::MultiGet { .. }
            | Request::List { .. }
            | Request::Schemas
            | Request::SchemaGet { .. }
            | Request::SchemaList
            | Request::Stats
            | Request::Ping => false,
        }
    }

    /// The one entity it concerns, by which a shard-aware client routes it.
    pub fn entity(&self) -> Option<(&str, &str)> {
        match self {
            Request::Get { schema, key } | Request::Put { schema, key, .. } | Request::Delete { schema, key, .. } => {
                Some((schema, key))
            }
            _ => None,
        }
    }

    /// Bytes of the largest document or template in it.
    pub fn document_bytes(&self) -> usize {
        match self {
            Request::Put { document, .. } => document.len(),
            Request::SchemaPut { template, .. } => template.len(),
            Request::MultiPut { items, .. } => items.iter().map(|(_, document)| document.len()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Bytes it takes on the wire at most, roughly; enough to compare with a frame limit.
    pub fn size_bytes_estimate(&self) -> usize {
        const TABLE_BYTES: usize = 128;
        TABLE_BYTES
            + match self {
                Request::Get { schema, key } | Request::Delete { schema, key, .. } => schema.len() + key.len(),
                Request::Put { schema, key, document, .. } => schema.len() + key.len() + document.len(),
                Request::MultiGet { schema, keys } => {
                    schema.len() + keys.iter().map(|key| key.len() + 12).sum::<usize>()
                }
                Request::MultiPut { schema, items } => {
                    schema.len() + items.iter().map(|(key, document)| key.len() + document.len() + 32).sum::<usize>()
                }
                Request::List { schema, prefix, after, .. } => {
                    schema.len() + prefix.len() + after.map_or(0, |after| after.len())
                }
                Request::SchemaGet { id } | Request::SchemaDelete { id } => id.len(),
                Request::SchemaPut { id, template } => id.len() + template.len(),
                Request::Schemas | Request::SchemaList | Request::Stats | Request::Ping | Request::RotateKey => 0,
            }
    }
}
