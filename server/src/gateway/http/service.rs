//! The one path of every request: find the route, judge the credential, call the handler, count, reply.

use super::body::{self, ReplyBody, RequestBody};
use super::names::{self, Query};
use super::pace::Pace;
use super::problem::Problem;
use super::reply::Reply;
use super::request::{self, Request};
use super::routes::{self, Access, Endpoint, METRIC_ENTITY_GET, METRIC_OTHER, Route};
use super::{HttpGateway, entity, listing, operations, schemas};
use crate::auth::Principal;
use crate::command::{Command, ErrorCode, Failure, Outcome};
use crate::gateway::api::Api;
use crate::limits::HTTP_DISCARD_BYTES_MAX;
use crate::metrics::HTTP_STATUSES;
use crate::runtime::platform::Clock;
use futures_lite::FutureExt;
use http::{Method, Response, StatusCode, request::Parts};
use hyper::body::Incoming;
use std::borrow::Cow;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;

/// What handlers work with.
pub struct Context<'a, A, C> {
    /// The gateway.
    pub gateway: &'a Rc<HttpGateway<A, C>>,
    /// Who asks.
    pub principal: Principal,
}

impl<A: Api, C: Clock> Context<'_, A, C> {
    /// Carries out a command on the caller's behalf.
    pub async fn call(&self, command: Command<'static>) -> Result<Outcome, Failure> {
        match self.gateway.api.call(&self.principal, command).await {
            Outcome::Failed(failure) => Err(failure),
            outcome => Ok(outcome),
        }
    }
}

/// An outcome that does not answer the command: a bug in the server.
pub fn unexpected(outcome: &Outcome) -> Problem {
    // The variant's name only: outcomes can hold documents.
    let kind = match outcome {
        Outcome::Failed(_) => "a failure",
        Outcome::Document { .. } | Outcome::Documents(_) => "documents",
        Outcome::Page(_) => "a page",
        _ => "another kind of answer",
    };
    tracing::error!(kind, "a command was answered with the wrong kind of outcome");
    Problem::new(ErrorCode::Internal, "the server answered its own question wrongly; this is a bug, see its log")
}

/// Answers one request. Always answers: a panic in a handler becomes a 500.
pub async fn answer<A: Api, C: Clock>(
    gateway: Rc<HttpGateway<A, C>>,
    pace: Rc<Pace>,
    request: http::Request<Incoming>,
) -> Result<Response<ReplyBody>, Infallible> {
    pace.request_begins();
    let started_ns = pace.now_ns();
    let (parts, body) = request.into_parts();
    let mut body = RequestBody::new(body, gateway.bodies_bytes.clone());
    let mut metric = METRIC_OTHER;
    let handled = {
        // Pinned first, so that wrapping it moves a pointer and not the whole future.
        let handled = pin!(handle(&gateway, &pace, &parts, &mut body, &mut metric));
        AssertUnwindSafe(handled).catch_unwind().await
    };
    let mut reply = handled.unwrap_or_else(|_| panicked(&gateway));
    dispose(&mut reply, &parts, &mut body, &pace).await;
    if parts.method == Method::HEAD && matches!(reply.body, ReplyBody::Chunks(_)) {
        reply.body = ReplyBody::Empty;
    }
    let elapsed_ns = gateway.clock.now_ns().saturating_sub(started_ns);
    count(&gateway, metric, reply.status, Some(elapsed_ns));
    if !matches!(reply.body, ReplyBody::Chunks(_)) {
        pace.reply_ends();
    }
    pace.reply_begins();
    Ok(reply.into_response(parts.headers))
}

/// Counts a request; without a latency when it never reached the service.
pub fn count<A: Api, C: Clock>(
    gateway: &HttpGateway<A, C>,
    metric: usize,
    status: StatusCode,
    elapsed_ns: Option<u64>,
) {
    let api = &gateway.api;
    let Some(shard) = api.metrics().shards.get(api.shard()) else { return };
    let status = status.as_u16();
    let position = HTTP_STATUSES.iter().position(|known| *known == status).unwrap_or(HTTP_STATUSES.len() - 1);
    if let Some(counter) = shard.http.requests.get(metric).and_then(|route| route.get(position)) {
        counter.add(1);
    }
    // Classes begin at 2xx: an informational status is never a reply.
    let class = usize::from(status / 100).saturating_sub(2);
    let histogram = shard.http.latency_ns.get(metric).and_then(|route| route.get(class));
    if let (Some(histogram), Some(elapsed_ns)) = (histogram, elapsed_ns) {
        histogram.record(elapsed_ns);
    }
}

fn panicked<A: Api, C: Clock>(gateway: &HttpGateway<A, C>) -> Reply {
    let api = &gateway.api;
    if let Some(shard) = api.metrics().shards.get(api.shard()) {
        shard.panics_caught.add(1);
    }
    tracing::error!("a request handler panicked; the request was answered 500");
    let problem = Problem::new(ErrorCode::Internal, "the server met a bug while answering; see its log");
    let mut reply = Reply::from(problem);
    reply.close = true;
    reply
}

/// Deals with a body that no handler has read to its end: a small one is read and dropped, for any other the
/// connection ends after the reply.
async fn dispose(reply: &mut Reply, parts: &Parts, body: &mut RequestBody, pace: &Pace) {
    if body.has_ended() {
        return;
    }
    let disposable = reply.status != StatusCode::REQUEST_TIMEOUT
        && request::is_disposable(&parts.headers, body)
        && body::read(body, pace, HTTP_DISCARD_BYTES_MAX).await.is_ok();
    if !disposable {
        reply.close = true;
        pace.linger();
    }
}

/// From the request's head to a reply, good or bad.
async fn handle<A: Api, C: Clock>(
    gateway: &Rc<HttpGateway<A, C>>,
    pace: &Rc<Pace>,
    parts: &Parts,
    body: &mut RequestBody,
    metric: &mut usize,
) -> Reply {
    if let Err(failure) = request::check_host(parts.version, &parts.headers) {
        return failure.into();
    }
    if let Err(problem) = request::check_coding(&parts.headers) {
        return problem.into();
    }
    if parts.method == Method::OPTIONS && parts.uri.path() == "*" {
        return Reply::empty(StatusCode::NO_CONTENT).with_allow(routes::ALLOW_SOMEWHERE);
    }
    let Some(target) = routes::find(parts.uri.path()) else {
        return Problem::new(ErrorCode::NotFound, "there is no such route; README.md lists them").into();
    };
    let allow = target.resource.allow;
    let Some(route) = target.resource.route(&parts.method) else {
        if parts.method == Method::OPTIONS {
            return Reply::empty(StatusCode::NO_CONTENT).with_allow(allow);
        }
        return Problem::new(ErrorCode::MethodNotAllowed, format!("this route takes {allow}")).with_allow(allow).into();
    };
    *metric = route.metric;
    let prepared = prepare(gateway, route, &target, parts, body, pace);
    let (principal, mut request) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => return failure.into(),
    };
    if route.endpoint == Endpoint::EntityCollection && request.query.key.is_some() {
        *metric = METRIC_ENTITY_GET;
    }
    let context = Context { gateway, principal };
    match perform(route.endpoint, &context, &mut request).await {
        Ok(reply) => reply,
        Err(problem) => problem.into(),
    }
}

/// Credential first, so that a stranger learns nothing from the order of complaints; then names and parameters.
fn prepare<'a, A: Api, C: Clock>(
    gateway: &HttpGateway<A, C>,
    route: &Route,
    target: &routes::Target<'a>,
    parts: &'a Parts,
    body: &'a mut RequestBody,
    pace: &'a Rc<Pace>,
) -> Result<(Principal, Request<'a>), Failure> {
    let principal = match route.access {
        Access::Public => gateway.anonymous.clone(),
        Access::Needs(permission) => {
            let principal = gateway.api.authenticate(request::bearer(&parts.headers)?)?;
            principal.require(permission)?;
            principal
        }
    };
    let name = |segment: Option<&'a str>, check: fn(&'a str) -> Result<Cow<'a, str>, Failure>| {
        segment.map_or(Ok(Cow::Borrowed("")), check)
    };
    let request = Request {
        schema: name(target.schema, names::schema_id)?,
        key: name(target.key, names::entity_key)?,
        query: Query::parse(parts.uri.query(), route.query)?,
        headers: &parts.headers,
        body,
        pace,
        body_bytes_max: gateway.api.body_bytes_max(),
    };
    Ok((principal, request))
}

async fn perform<A: Api, C: Clock>(
    endpoint: Endpoint,
    context: &Context<'_, A, C>,
    request: &mut Request<'_>,
) -> Result<Reply, Problem> {
    match endpoint {
        Endpoint::EntityGet => entity::get(context, request).await,
        Endpoint::EntityPut => entity::put(context, request).await,
        Endpoint::EntityDelete => entity::delete(context, request).await,
        Endpoint::EntityPutMany => entity::put_many(context, request).await,
        Endpoint::EntityCollection => match request.query.key {
            Some(_) => {
                entity::keyed(request)?;
                entity::get(context, request).await
            }
            None => listing::list(context, request).await,
        },
        Endpoint::EntityDeleteByKey => {
            entity::keyed(request)?;
            entity::delete(context, request).await
        }
        Endpoint::SchemaGet => schemas::get(context, request).await,
        Endpoint::SchemaPut => schemas::put(context, request).await,
        Endpoint::SchemaDelete => schemas::delete(context, request).await,
        Endpoint::SchemaList => schemas::templates(context).await,
        Endpoint::Schemas => schemas::schemas(context, request).await,
        Endpoint::Stats => operations::stats(context).await,
        Endpoint::RotateKey => operations::rotate_key(context).await,
        Endpoint::Health => operations::health(context),
        Endpoint::Live => Ok(operations::live()),
        Endpoint::Ready => operations::ready(context),
        Endpoint::Metrics => Ok(operations::metrics(context)),
        Endpoint::Ui => Ok(operations::page()),
    }
}
