//! One FlatBuffers builder, used again for every frame that is not laid out by hand.

use crate::frame::PROTOCOL;
use crate::generated as tables;
use crate::generated::Body;
use crate::request::{Condition, Request};
use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

/// The builder that [`Scratch::frame`] lends out.
pub type Builder = FlatBufferBuilder<'static>;

/// After a frame larger than this the builder's memory is given back.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// A reusable encoder.
#[derive(Default)]
pub struct Scratch {
    builder: Builder,
}

impl Scratch {
    /// One that has allocated next to nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a frame whose body `build` makes.
    pub fn frame(
        &mut self,
        out: &mut Vec<u8>,
        request_id: u64,
        body_type: Body,
        build: impl FnOnce(&mut Builder) -> WIPOffset<UnionWIPOffset>,
    ) {
        self.builder.reset();
        let body = Some(build(&mut self.builder));
        let root = tables::Frame::create(&mut self.builder, &tables::FrameArgs { request_id, body_type, body });
        self.builder.finish_minimal(root);
        let message = self.builder.finished_data();
        out.reserve(4 + message.len());
        out.extend_from_slice(&(message.len() as u32).to_le_bytes());
        out.extend_from_slice(message);
        if message.len() > KEPT_BYTES_MAX {
            self.builder = Builder::new();
        }
    }

    /// Appends a Hello.
    pub fn hello(&mut self, out: &mut Vec<u8>, request_id: u64, credential: Option<&[u8]>) {
        self.frame(out, request_id, Body::Hello, |builder| {
            let credential = credential.map(|credential| builder.create_vector(credential));
            let args = tables::HelloArgs { protocol: PROTOCOL, credential };
            tables::Hello::create(builder, &args).as_union_value()
        });
    }

    /// Appends a request.
    pub fn request(&mut self, out: &mut Vec<u8>, request_id: u64, request: &Request<'_>) {
        match *request {
            Request::Get { schema, key } => super::get(out, request_id, schema, key),
            Request::Put { schema, key, document, condition } => {
                super::put(out, request_id, schema, key, document, condition);
            }
            Request::Delete { schema, key, condition } => self.frame(out, request_id, Body::Delete, |builder| {
                let (condition, version) = match condition {
                    Condition::None => (tables::Condition::None, 0),
                    Condition::IfAbsent => (tables::Condition::IfAbsent, 0),
                    Condition::IfVersion(version) => (tables::Condition::IfVersion, version),
                    Condition::IfPresent => (tables::Condition::IfPresent, 0),
                };
                let (schema, key) = (Some(builder.create_string(schema)), Some(builder.create_string(key)));
                let args = tables::DeleteArgs { schema, key, condition, version };
                tables::Delete::create(builder, &args).as_union_value()
            }),
            Request::MultiGet { schema, keys } => self.frame(out, request_id, Body::MultiGet, |builder| {
                let keys: Vec<_> = keys.iter().map(|key| builder.create_string(key)).collect();
                let keys = Some(builder.create_vector(&keys));
                let schema = Some(builder.create_string(schema));
                tables::MultiGet::create(builder, &tables::MultiGetArgs { schema, keys }).as_union_value()
            }),
            Request::MultiPut { schema, items } => self.frame(out, request_id, Body::MultiPut, |builder| {
                let items: Vec<_> = items
                    .iter()
                    .map(|(key, document)| {
                        let document = Some(builder.create_vector(document));
                        let key = Some(builder.create_string(key));
                        tables::PutItem::create(builder, &tables::PutItemArgs { key, document })
                    })
                    .collect();
                let items = Some(builder.create_vector(&items));
                let schema = Some(builder.create_string(schema));
                tables::MultiPut::create(builder, &tables::MultiPutArgs { schema, items }).as_union_value()
            }),
            Request::List { schema, prefix, after, limit, documents } => {
                self.frame(out, request_id, Body::List, |builder| {
                    let schema = Some(builder.create_string(schema));
                    let prefix = (!prefix.is_empty()).then(|| builder.create_string(prefix));
                    let after = after.map(|after| builder.create_string(after));
                    let args = tables::ListArgs { schema, prefix, after, limit, documents };
                    tables::List::create(builder, &args).as_union_value()
                });
            }
            Request::SchemaGet { id } => self.frame(out, request_id, Body::SchemaGet, |builder| {
                let id = Some(builder.create_string(id));
                tables::SchemaGet::create(builder, &tables::SchemaGetArgs { id }).as_union_value()
            }),
            Request::SchemaPut { id, template } => self.frame(out, request_id, Body::SchemaPut, |builder| {
                let template = Some(builder.create_vector(template));
                let id = Some(builder.create_string(id));
                tables::SchemaPut::create(builder, &tables::SchemaPutArgs { id, template }).as_union_value()
            }),
            Request::SchemaDelete { id } => self.frame(out, request_id, Body::SchemaDelete, |builder| {
                let id = Some(builder.create_string(id));
                tables::SchemaDelete::create(builder, &tables::SchemaDeleteArgs { id }).as_union_value()
            }),
            // Tables without fields are all alike; only the union's number tells them apart.
            Request::Schemas => self.empty(out, request_id, Body::Schemas),
            Request::SchemaList => self.empty(out, request_id, Body::SchemaList),
            Request::Stats => self.empty(out, request_id, Body::Stats),
            Request::Ping => self.empty(out, request_id, Body::Ping),
            Request::RotateKey => self.empty(out, request_id, Body::RotateKey),
        }
    }

    /// Appends a frame whose body has no fields.
    pub fn empty(&mut self, out: &mut Vec<u8>, request_id: u64, body_type: Body) {
        self.frame(out, request_id, body_type, |builder| {
            tables::Ping::create(builder, &tables::PingArgs {}).as_union_value()
        });
    }
}
