//! From an outcome to a reply frame in the connection's send buffer.
//!
//! A document up to `COPY_BYTES_MAX` is copied there once; a larger one is sent from its own memory.

use super::output::WireOutput;
use crate::command::{Document, Failure, Outcome, Page, Version};
use crate::limits::COPY_BYTES_MAX;
use crate::runtime::net::ConnectionId;
use delta_wire::encode::{self, Builder, Scratch};
use delta_wire::generated::{self as tables, Body};
use flatbuffers::{UnionWIPOffset, WIPOffset};

/// Writes the reply to one request.
#[inline]
pub fn render<N: WireOutput>(
    net: &N,
    scratch: &mut Scratch,
    connection: ConnectionId,
    request_id: u64,
    outcome: &Outcome,
) {
    match outcome {
        Outcome::Document { version, document } => {
            render_document(net, connection, request_id, *version, document);
        }
        Outcome::Written { version, created } => {
            net.output(connection, |out| encode::written(out, request_id, *version, *created));
        }
        other => {
            net.output(connection, |out| render_other(scratch, out, request_id, other));
        }
    }
}

/// Appends an Error frame.
pub fn render_failure(scratch: &mut Scratch, out: &mut Vec<u8>, request_id: u64, failure: &Failure) {
    scratch.frame(out, request_id, Body::Error, |builder| error(builder, failure).as_union_value());
}

fn render_document<N: WireOutput>(
    net: &N,
    connection: ConnectionId,
    request_id: u64,
    version: Version,
    document: &Document,
) {
    let body = document.body();
    if body.len() <= COPY_BYTES_MAX {
        net.output(connection, |out| encode::document(out, request_id, version, body));
        return;
    }
    let prefix = net.output(connection, |out| encode::document_prefix(out, request_id, version, body.len()));
    if prefix.is_some() {
        let (bytes, start) = document.shared();
        net.send_shared(connection, bytes.clone(), start..bytes.len());
    }
}

fn render_other(scratch: &mut Scratch, out: &mut Vec<u8>, request_id: u64, outcome: &Outcome) {
    let body_type = match outcome {
        Outcome::Document { .. } => Body::Document,
        Outcome::Written { .. } => Body::Written,
        Outcome::Deleted { .. } => Body::Deleted,
        Outcome::Documents(_) => Body::Documents,
        Outcome::WrittenMany(_) => Body::WrittenMany,
        Outcome::Page(_) => Body::Page,
        Outcome::Schemas(_) => Body::SchemaCounts,
        Outcome::Template(_) => Body::Template,
        Outcome::TemplateChanged { .. } => Body::TemplateChanged,
        Outcome::Templates(_) => Body::Templates,
        Outcome::Stats(_) => Body::Figures,
        Outcome::Pong => return scratch.empty(out, request_id, Body::Pong),
        Outcome::KeyRotated { .. } => Body::KeyRotated,
        Outcome::Failed(failure) => return render_failure(scratch, out, request_id, failure),
    };
    scratch.frame(out, request_id, body_type, |builder| body(builder, outcome));
}

fn body(builder: &mut Builder, outcome: &Outcome) -> WIPOffset<UnionWIPOffset> {
    match outcome {
        Outcome::Document { version, document } => {
            let content = Some(builder.create_vector(document.body()));
            tables::Document::create(builder, &tables::DocumentArgs { version: *version, content }).as_union_value()
        }
        Outcome::Written { version, created } => {
            let args = tables::WrittenArgs { created: *created, version: *version };
            tables::Written::create(builder, &args).as_union_value()
        }
        Outcome::Deleted { version } => {
            tables::Deleted::create(builder, &tables::DeletedArgs { version: *version }).as_union_value()
        }
        Outcome::Documents(results) => documents(builder, results),
        Outcome::WrittenMany(results) => written_many(builder, results),
        Outcome::Page(listing) => page(builder, listing),
        Outcome::Schemas(counts) => {
            let schemas: Vec<_> = counts
                .iter()
                .map(|(id, entities)| {
                    let args = tables::SchemaCountArgs { id: Some(builder.create_string(id)), entities: *entities };
                    tables::SchemaCount::create(builder, &args)
                })
                .collect();
            let schemas = Some(builder.create_vector(&schemas));
            tables::SchemaCounts::create(builder, &tables::SchemaCountsArgs { schemas }).as_union_value()
        }
        Outcome::Template(text) => {
            let content = Some(builder.create_vector(text));
            tables::Template::create(builder, &tables::TemplateArgs { content }).as_union_value()
        }
        Outcome::TemplateChanged { created } => {
            let args = tables::TemplateChangedArgs { created: *created };
            tables::TemplateChanged::create(builder, &args).as_union_value()
        }
        Outcome::Templates(ids) => {
            let ids: Vec<_> = ids.iter().map(|id| builder.create_string(id)).collect();
            let ids = Some(builder.create_vector(&ids));
            tables::Templates::create(builder, &tables::TemplatesArgs { ids }).as_union_value()
        }
        Outcome::Stats(text) => {
            let json = Some(builder.create_string(text));
            tables::Figures::create(builder, &tables::FiguresArgs { json }).as_union_value()
        }
        Outcome::Pong => tables::Pong::create(builder, &tables::PongArgs {}).as_union_value(),
        Outcome::KeyRotated { key_id } => {
            let key_id = Some(builder.create_string(key_id));
            tables::KeyRotated::create(builder, &tables::KeyRotatedArgs { key_id }).as_union_value()
        }
        Outcome::Failed(failure) => error(builder, failure).as_union_value(),
    }
}

fn documents(builder: &mut Builder, results: &[Result<(Version, Document), Failure>]) -> WIPOffset<UnionWIPOffset> {
    let results: Vec<_> = results
        .iter()
        .map(|result| {
            let args = match result {
                Ok((version, document)) => {
                    let content = Some(builder.create_vector(document.body()));
                    tables::ReadResultArgs { version: *version, content, error: None }
                }
                Err(failure) => {
                    tables::ReadResultArgs { version: 0, content: None, error: Some(error(builder, failure)) }
                }
            };
            tables::ReadResult::create(builder, &args)
        })
        .collect();
    let results = Some(builder.create_vector(&results));
    tables::Documents::create(builder, &tables::DocumentsArgs { results }).as_union_value()
}

fn written_many(builder: &mut Builder, results: &[Result<(Version, bool), Failure>]) -> WIPOffset<UnionWIPOffset> {
    let results: Vec<_> = results
        .iter()
        .map(|result| {
            let args = match result {
                Ok((version, created)) => tables::WriteResultArgs { version: *version, created: *created, error: None },
                Err(failure) => {
                    tables::WriteResultArgs { version: 0, created: false, error: Some(error(builder, failure)) }
                }
            };
            tables::WriteResult::create(builder, &args)
        })
        .collect();
    let results = Some(builder.create_vector(&results));
    tables::WrittenMany::create(builder, &tables::WrittenManyArgs { results }).as_union_value()
}

fn page(builder: &mut Builder, page: &Page) -> WIPOffset<UnionWIPOffset> {
    let entries: Vec<_> = page
        .entries
        .iter()
        .map(|entry| {
            let content = entry.document.as_ref().map(|document| builder.create_vector(document.body()));
            let key = Some(builder.create_string(&entry.key));
            tables::PageEntry::create(builder, &tables::PageEntryArgs { key, version: entry.version, content })
        })
        .collect();
    let entries = Some(builder.create_vector(&entries));
    let next = page.next.as_ref().map(|next| builder.create_string(next));
    tables::Page::create(builder, &tables::PageArgs { entries, next }).as_union_value()
}

fn error<'builder>(builder: &mut Builder, failure: &Failure) -> WIPOffset<tables::Error<'builder>> {
    let violations: Vec<_> = failure
        .violations
        .iter()
        .map(|violation| {
            let args = tables::ViolationArgs {
                pointer: Some(builder.create_string(&violation.pointer)),
                keyword: Some(builder.create_string(&violation.keyword)),
                detail: Some(builder.create_string(&violation.detail)),
            };
            tables::Violation::create(builder, &args)
        })
        .collect();
    let args = tables::ErrorArgs {
        code: failure.code.number(),
        message: Some(builder.create_string(&failure.message)),
        violations: (!violations.is_empty()).then(|| builder.create_vector(&violations)),
        version: failure.version,
        key: failure.key.as_ref().map(|key| builder.create_string(key)),
    };
    tables::Error::create(builder, &args)
}
