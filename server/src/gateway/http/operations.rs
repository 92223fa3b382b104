//! Health, figures, key rotation and the page: what operators ask for.

use super::body::ReplyBody;
use super::problem::Problem;
use super::reply::{ContentType, Reply};
use super::service::{Context, unexpected};
use crate::command::{Command, ErrorCode, Outcome};
use crate::gateway::api::{Api, Health};
use crate::gateway::ui;
use crate::metrics::render;
use crate::runtime::platform::Clock;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

/// `GET /health`: for people and load balancers.
pub fn health<A: Api, C: Clock>(context: &Context<'_, A, C>) -> Result<Reply, Problem> {
    let health = context.gateway.api.health();
    if !health.ready || health.draining {
        return Err(not_ready(health));
    }
    let shards = context.gateway.api.topology().shards();
    let body = json!({"status": "ok", "version": env!("CARGO_PKG_VERSION"), "shards": shards});
    Ok(Reply::json(with_alerts(body, health.alerts)))
}

/// `GET /livez`: the process answers.
pub fn live() -> Reply {
    Reply::json(&b"{\"status\":\"ok\"}"[..])
}

/// `GET /readyz`: reads and writes are served, or why not; damage that was found stands in `alerts`.
pub fn ready<A: Api, C: Clock>(context: &Context<'_, A, C>) -> Result<Reply, Problem> {
    let health = context.gateway.api.health();
    if !health.ready || health.draining {
        return Err(not_ready(health));
    }
    Ok(Reply::json(with_alerts(json!({"status": "ok"}), health.alerts)))
}

/// `GET /metrics`: OpenMetrics text.
pub fn metrics<A: Api, C: Clock>(context: &Context<'_, A, C>) -> Reply {
    let text = render::open_metrics(context.gateway.api.metrics());
    Reply::of(StatusCode::OK, ContentType::Metrics, ReplyBody::whole(text.into()))
}

/// `GET /admin/stats`: figures of the whole server as JSON.
pub async fn stats<A: Api, C: Clock>(context: &Context<'_, A, C>) -> Result<Reply, Problem> {
    match context.call(Command::Stats).await? {
        Outcome::Stats(text) => Ok(Reply::json(text)),
        other => Err(unexpected(&other)),
    }
}

/// `POST /admin/keys/rotate`: a new data key, active on every shard.
pub async fn rotate_key<A: Api, C: Clock>(context: &Context<'_, A, C>) -> Result<Reply, Problem> {
    match context.call(Command::RotateKey).await? {
        Outcome::KeyRotated { key_id } => {
            let body = json!({"status": "ok", "key_id": key_id}).to_string();
            Ok(Reply::json(body))
        }
        other => Err(unexpected(&other)),
    }
}

/// `GET /`: the web UI.
pub fn page() -> Reply {
    Reply::of(StatusCode::OK, ContentType::Html, ReplyBody::whole(Bytes::from_static(ui::PAGE.as_bytes())))
}

fn not_ready(health: Health) -> Problem {
    let detail = if health.draining {
        "the server is stopping; ask another, or again after its restart"
    } else {
        "the server cannot serve everything now: 'reasons' says why"
    };
    Problem::new(ErrorCode::Unavailable, detail).with_reasons([health.reasons, health.alerts].concat())
}

fn with_alerts(mut body: Value, alerts: Vec<String>) -> String {
    if !alerts.is_empty() {
        body["alerts"] = alerts.into();
    }
    body.to_string()
}
