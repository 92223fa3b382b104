//! Entities: read, write, delete, and the map form that writes many.

use super::condition::{Preconditions, ReadVerdict, WriteCondition};
use super::problem;
use super::problem::{KeyFailure, Problem, Versions};
use super::reply::Reply;
use super::request::Request;
use super::service::{Context, unexpected};
use crate::command::{Command, Condition, ErrorCode, Failure, Outcome, Version, check_entity_key};
use crate::gateway::api::Api;
use crate::runtime::platform::Clock;
use crate::schema::parse_entity_map;
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use std::borrow::Cow;

/// Takes the key from `?key=` instead of the path.
pub fn keyed(request: &mut Request<'_>) -> Result<(), Failure> {
    let Some(key) = request.query.key.take() else {
        return Err(Failure::new(ErrorCode::BadRequest, "name the entity: add '?key=<entity key>' or '/<entity key>'"));
    };
    if request.query != Default::default() {
        return Err(Failure::new(ErrorCode::BadRequest, "'key' names one entity and stands alone"));
    }
    check_entity_key(&key)?;
    request.key = key;
    Ok(())
}

/// `GET`: the document itself.
pub async fn get<A: Api, C: Clock>(context: &Context<'_, A, C>, request: &mut Request<'_>) -> Result<Reply, Problem> {
    let preconditions = Preconditions::parse(request.headers)?;
    let command = Command::Get { schema: owned(&request.schema), key: owned(&request.key) };
    match context.call(command).await? {
        Outcome::Document { version, document } => match preconditions.judge_read(version) {
            ReadVerdict::Send => Ok(Reply::document(version, document)),
            ReadVerdict::NotModified => Ok(Reply::empty(StatusCode::NOT_MODIFIED).with_version(version)),
            ReadVerdict::Failed => {
                let mut failure =
                    Failure::new(ErrorCode::PreconditionFailed, "If-Match names another version of this entity");
                failure.version = Some(version);
                Err(failure.into())
            }
        },
        other => Err(unexpected(&other)),
    }
}

/// `PUT` of one document: 201 when it is new, 200 when it replaced one.
pub async fn put<A: Api, C: Clock>(context: &Context<'_, A, C>, request: &mut Request<'_>) -> Result<Reply, Problem> {
    let condition = Preconditions::parse(request.headers)?.for_put()?;
    let body = request.read_json().await?;
    let (schema, key) = (request.schema.as_ref(), request.key.as_ref());
    let command = |condition, document| Command::Put {
        schema: owned(schema),
        key: owned(key),
        document: Cow::Owned(document),
        condition,
    };
    let outcome = match &condition {
        WriteCondition::One(one) => context.call(command(*one, Vec::from(body))).await?,
        several => any_of(context, several, |one| command(one, body.to_vec())).await?,
    };
    match outcome {
        Outcome::Written { version, created } => {
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            let body = format!("{{\"status\":\"ok\",\"version\":{version},\"created\":{created}}}");
            Ok(Reply::json(body).with_status(status).with_version(version))
        }
        other => Err(unexpected(&other)),
    }
}

/// `DELETE` of one entity.
pub async fn delete<A: Api, C: Clock>(
    context: &Context<'_, A, C>,
    request: &mut Request<'_>,
) -> Result<Reply, Problem> {
    let condition = Preconditions::parse(request.headers)?.for_delete()?;
    let (schema, key) = (request.schema.as_ref(), request.key.as_ref());
    let command = |condition| Command::Delete { schema: owned(schema), key: owned(key), condition };
    match any_of(context, &condition, command).await? {
        Outcome::Deleted { version } => Ok(Reply::json(format!("{{\"status\":\"ok\",\"version\":{version}}}"))),
        other => Err(unexpected(&other)),
    }
}

/// Tries a write with one condition after the other, as long as the version found is one the caller would accept.
async fn any_of<A: Api, C: Clock>(
    context: &Context<'_, A, C>,
    condition: &WriteCondition,
    command: impl Fn(Condition) -> Command<'static>,
) -> Result<Outcome, Failure> {
    let mut tried = condition.first();
    // Versions only grow, so each acceptable one is tried at most once.
    loop {
        let failure = match context.call(command(tried)).await {
            Err(failure) if failure.code == ErrorCode::PreconditionFailed => failure,
            decided => return decided,
        };
        match condition.after(tried, failure.version) {
            Some(next) => tried = next,
            None if condition.names_no_version() => {
                let message = "If-Match names no version of this entity: send the tag that ETag gave, not a weak one";
                return Err(Failure { message: message.into(), ..failure });
            }
            None => return Err(failure),
        }
    }
}

/// `PUT` of `{key: document, …}`: each key stands for itself, and all are checked before any is written.
pub async fn put_many<A: Api, C: Clock>(
    context: &Context<'_, A, C>,
    request: &mut Request<'_>,
) -> Result<Reply, Problem> {
    Preconditions::require_none(request.headers, "with many documents at once")?;
    let body: Bytes = request.read_json().await?;
    let items = parse_entity_map(&body)?;
    if items.is_empty() {
        return Ok(Reply::json(&b"{\"status\":\"ok\",\"versions\":{}}"[..]));
    }
    let keys: Vec<String> = items.iter().map(|item| item.key.clone().into_owned()).collect();
    let command = Command::MultiPut { schema: owned(&request.schema), items }.into_owned();
    match context.call(command).await? {
        Outcome::WrittenMany(results) if results.len() == keys.len() => many_reply(keys, results),
        other => Err(unexpected(&other)),
    }
}

fn many_reply(keys: Vec<String>, results: Vec<Result<(Version, bool), Failure>>) -> Result<Reply, Problem> {
    let mut versions = Vec::with_capacity(keys.len());
    let mut failures = Vec::new();
    for (key, result) in keys.into_iter().zip(results) {
        match result {
            Ok((version, _created)) => versions.push((key, version)),
            Err(failure) => failures.push(KeyFailure { key, failure }),
        }
    }
    match worst(&failures) {
        None => {
            let body = serde_json::to_vec(&Written { status: "ok", versions: problem::Versions(&versions) });
            Ok(Reply::json(body.unwrap_or_default()))
        }
        Some(code) => {
            let (failed, total) = (failures.len(), failures.len() + versions.len());
            let detail = format!("{failed} of {total} documents were not written; 'versions' lists those that were");
            Err(Problem::new(code, detail).with_keys(versions, failures))
        }
    }
}

/// The code of the whole: a write of unknown outcome before any other failure, then the highest status, then the
/// first.
fn worst(failures: &[KeyFailure]) -> Option<ErrorCode> {
    let rank = |code: ErrorCode| (code == ErrorCode::OutcomeUnknown, code.http_status());
    failures.iter().map(|entry| entry.failure.code).reduce(
        |worst, code| {
            if rank(code) > rank(worst) { code } else { worst }
        },
    )
}

fn owned(name: &str) -> Cow<'static, str> {
    Cow::Owned(name.to_owned())
}

#[derive(Serialize)]
struct Written<'a> {
    status: &'static str,
    versions: Versions<'a>,
}
