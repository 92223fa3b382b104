//! Templates, and the schemas that hold entities.

use super::condition::Preconditions;
use super::problem::Problem;
use super::reply::Reply;
use super::request::Request;
use super::service::{Context, unexpected};
use crate::command::{Command, Outcome};
use crate::gateway::api::Api;
use crate::limits::TEMPLATE_BYTES_MAX;
use crate::runtime::platform::Clock;
use http::StatusCode;
use serde::Serialize;
use std::borrow::Cow;

/// `GET /schema/{id}`: the template as stored.
pub async fn get<A: Api, C: Clock>(context: &Context<'_, A, C>, request: &mut Request<'_>) -> Result<Reply, Problem> {
    match context.call(Command::SchemaGet { id: id(request) }).await? {
        Outcome::Template(text) => Ok(Reply::json(text)),
        other => Err(unexpected(&other)),
    }
}

/// `PUT /schema/{id}`: compiled, stored, and in force on every shard.
pub async fn put<A: Api, C: Clock>(context: &Context<'_, A, C>, request: &mut Request<'_>) -> Result<Reply, Problem> {
    Preconditions::require_none(request.headers, "on a template")?;
    request.body_bytes_max = request.body_bytes_max.min(TEMPLATE_BYTES_MAX);
    let template = Vec::from(request.read_json().await?);
    match context.call(Command::SchemaPut { id: id(request), template: Cow::Owned(template) }).await? {
        Outcome::TemplateChanged { created } => {
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            Ok(Reply::json(format!("{{\"status\":\"ok\",\"created\":{created}}}")).with_status(status))
        }
        other => Err(unexpected(&other)),
    }
}

/// `DELETE /schema/{id}`.
pub async fn delete<A: Api, C: Clock>(
    context: &Context<'_, A, C>,
    request: &mut Request<'_>,
) -> Result<Reply, Problem> {
    Preconditions::require_none(request.headers, "on a template")?;
    match context.call(Command::SchemaDelete { id: id(request) }).await? {
        Outcome::TemplateChanged { .. } => Ok(Reply::json(&b"{\"status\":\"ok\"}"[..])),
        other => Err(unexpected(&other)),
    }
}

/// `GET /admin/schemas`: ids of all templates.
pub async fn templates<A: Api, C: Clock>(context: &Context<'_, A, C>) -> Result<Reply, Problem> {
    match context.call(Command::SchemaList).await? {
        Outcome::Templates(templates) => Ok(json(&Templates { templates })),
        other => Err(unexpected(&other)),
    }
}

/// `GET /api/schemas`: schemas that hold entities, with counts if asked for.
pub async fn schemas<A: Api, C: Clock>(
    context: &Context<'_, A, C>,
    request: &mut Request<'_>,
) -> Result<Reply, Problem> {
    let counts = request.query.wants_counts()?;
    match context.call(Command::Schemas).await? {
        Outcome::Schemas(schemas) => {
            let entry = |(id, entities)| SchemaEntry { id, entities: counts.then_some(entities) };
            Ok(json(&Schemas { schemas: schemas.into_iter().map(entry).collect() }))
        }
        other => Err(unexpected(&other)),
    }
}

fn id(request: &Request<'_>) -> Cow<'static, str> {
    Cow::Owned(request.schema.as_ref().to_owned())
}

fn json(value: &impl Serialize) -> Reply {
    // Strings and numbers: serializing to memory cannot fail.
    Reply::json(serde_json::to_vec(value).unwrap_or_default())
}

#[derive(Serialize)]
struct Templates {
    templates: Vec<String>,
}

#[derive(Serialize)]
struct Schemas {
    schemas: Vec<SchemaEntry>,
}

#[derive(Serialize)]
struct SchemaEntry {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    entities: Option<u64>,
}
