//! A server of a few maps. Some keys make it fail on purpose.

use crate::auth::{Authenticator, Permission, Principal};
use crate::command::{
    Command, Condition, Document, EntityRef, ErrorCode, Failure, Outcome, Page, PageEntry, Ticket, Version, Violation,
};
use crate::gateway::api::{Api, Health};
use crate::metrics::Metrics;
use crate::routing::Topology;
use secrecy::SecretString;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

pub const KEY: &str = "the-admin-key";
pub const BODY_BYTES_MAX: usize = 100_000;

/// (schema, key) to version and document.
type Entities = BTreeMap<(String, String), (Version, Vec<u8>)>;

pub struct FakeApi {
    pub entities: RefCell<Entities>,
    pub templates: RefCell<BTreeMap<String, Vec<u8>>>,
    pub health: RefCell<Health>,
    pub calls: Cell<usize>,
    /// While set, calls do not come back.
    pub stalled: Cell<bool>,
    authenticator: Authenticator,
    metrics: Arc<Metrics>,
    version: Cell<Version>,
}

impl FakeApi {
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            entities: RefCell::default(),
            templates: RefCell::default(),
            health: RefCell::new(Health { ready: true, ..Health::default() }),
            calls: Cell::new(0),
            stalled: Cell::new(false),
            authenticator: Authenticator::new(&SecretString::from(KEY)),
            metrics: Metrics::new(1),
            version: Cell::new(0),
        })
    }

    pub fn insert(&self, schema: &str, key: &str, document: &str) -> Version {
        let version = self.version.get() + 1;
        self.version.set(version);
        self.entities.borrow_mut().insert((schema.into(), key.into()), (version, document.into()));
        version
    }

    fn put(&self, schema: &str, key: &str, document: &[u8], condition: Condition) -> Result<(Version, bool), Failure> {
        if let Some(code) = planned_failure(key) {
            let mut failure = Failure::new(code, "failed on purpose");
            if code == ErrorCode::SchemaViolation {
                failure.violations =
                    vec![Violation { pointer: "/a".into(), keyword: "type".into(), detail: "is not a string".into() }];
            }
            return Err(failure);
        }
        let found = self.entities.borrow().get(&(schema.into(), key.into())).map(|(version, _)| *version);
        judge(condition, found)?;
        let text = std::str::from_utf8(document).map_err(|_| Failure::new(ErrorCode::InvalidJson, "not UTF-8"))?;
        if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
            return Err(Failure::new(ErrorCode::InvalidJson, "not well-formed"));
        }
        Ok((self.insert(schema, key, text), found.is_none()))
    }

    fn list(&self, schema: &str, prefix: &str, after: Option<&str>, limit: usize, documents: bool) -> Page {
        let entities = self.entities.borrow();
        let mut entries: Vec<PageEntry> = entities
            .iter()
            .filter(|((in_schema, key), _)| in_schema == schema && key.starts_with(prefix))
            .filter(|((_, key), _)| after.is_none_or(|after| key.as_str() > after))
            .take(limit + 1)
            .map(|((_, key), (version, document))| PageEntry {
                key: key.clone(),
                version: *version,
                document: documents.then(|| Document::new(EntityRef { schema, key }, document)),
            })
            .collect();
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| more).map(|entry| entry.key.clone());
        Page { entries, next }
    }

    fn execute(&self, principal: &Principal, command: Command<'_>) -> Result<Outcome, Failure> {
        self.calls.set(self.calls.get() + 1);
        match command {
            Command::SchemaGet { .. } | Command::SchemaList => {}
            Command::Get { .. } | Command::List { .. } | Command::Schemas => principal.require(Permission::Read)?,
            Command::Stats | Command::RotateKey => principal.require(Permission::Admin)?,
            _ => principal.require(Permission::Write)?,
        }
        Ok(match command {
            Command::Get { schema, key } => {
                if key == "panic" {
                    panic!("on purpose");
                }
                if let Some(code) = planned_failure(&key) {
                    return Err(Failure::new(code, "failed on purpose"));
                }
                match self.entities.borrow().get(&(schema.to_string(), key.to_string())) {
                    Some((version, document)) => Outcome::Document {
                        version: *version,
                        document: Document::new(EntityRef { schema: &schema, key: &key }, document),
                    },
                    None => return Err(not_found()),
                }
            }
            Command::Put { schema, key, document, condition } => {
                let (version, created) = self.put(&schema, &key, &document, condition)?;
                Outcome::Written { version, created }
            }
            Command::MultiPut { schema, items } => Outcome::WrittenMany(
                items.iter().map(|item| self.put(&schema, &item.key, &item.document, Condition::None)).collect(),
            ),
            Command::Delete { schema, key, condition } => {
                let name = (schema.to_string(), key.to_string());
                let found = self.entities.borrow().get(&name).map(|(version, _)| *version);
                judge(condition, found)?;
                self.entities.borrow_mut().remove(&name).ok_or_else(not_found)?;
                Outcome::Deleted { version: 1000 }
            }
            Command::List { schema, prefix, after, limit, documents } => {
                if prefix == "broken" && after.is_some() {
                    return Err(Failure::new(ErrorCode::Corrupted, "on purpose"));
                }
                Outcome::Page(self.list(&schema, &prefix, after.as_deref(), limit, documents))
            }
            Command::Schemas => Outcome::Schemas(vec![("people".into(), 2), ("things".into(), 1)]),
            Command::SchemaGet { id } => {
                Outcome::Template(self.templates.borrow().get(&*id).cloned().ok_or_else(not_found)?)
            }
            Command::SchemaPut { id, template } => {
                if template.as_ref() == b"7" {
                    return Err(Failure::new(ErrorCode::InvalidSchema, "7 is not a schema"));
                }
                let old = self.templates.borrow_mut().insert(id.to_string(), template.to_vec());
                Outcome::TemplateChanged { created: old.is_none() }
            }
            Command::SchemaDelete { id } => {
                self.templates.borrow_mut().remove(&*id).ok_or_else(not_found)?;
                Outcome::TemplateChanged { created: false }
            }
            Command::SchemaList => Outcome::Templates(self.templates.borrow().keys().cloned().collect()),
            Command::Stats => Outcome::Stats(crate::metrics::stats_json(&self.metrics, serde_json::json!({}))),
            Command::RotateKey => Outcome::KeyRotated { key_id: "00ff".into() },
            Command::MultiGet { .. } | Command::Ping => Outcome::Pong,
        })
    }
}

fn judge(condition: Condition, found: Option<Version>) -> Result<(), Failure> {
    let holds = match condition {
        Condition::None => true,
        Condition::IfAbsent => found.is_none(),
        Condition::IfPresent => found.is_some(),
        Condition::IfVersion(version) => found == Some(version),
    };
    if holds {
        return Ok(());
    }
    let mut failure = Failure::new(ErrorCode::PreconditionFailed, "the condition does not hold");
    failure.version = found;
    Err(failure)
}

fn not_found() -> Failure {
    Failure::new(ErrorCode::NotFound, "there is no such thing")
}

/// `fail-<code>` fails with that code.
fn planned_failure(key: &str) -> Option<ErrorCode> {
    let name = key.strip_prefix("fail-")?;
    ErrorCode::ALL.iter().copied().find(|code| code.name() == name)
}

impl Api for Rc<FakeApi> {
    fn authenticate(&self, credential: Option<&[u8]>) -> Result<Principal, Failure> {
        if credential == Some(b"powerless") {
            return Ok(Principal::anonymous());
        }
        self.authenticator.authenticate(credential)
    }

    fn submit(&self, principal: &Principal, command: Command<'_>, _: Ticket) -> Option<Outcome> {
        Some(self.execute(principal, command).unwrap_or_else(Outcome::Failed))
    }

    fn call(&self, principal: &Principal, command: Command<'static>) -> impl Future<Output = Outcome> + 'static {
        let (api, principal) = (self.clone(), principal.clone());
        async move {
            if api.stalled.get() {
                std::future::pending::<()>().await;
            }
            api.execute(&principal, command).unwrap_or_else(Outcome::Failed)
        }
    }

    fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    fn topology(&self) -> Topology {
        Topology::new(1, 1)
    }

    fn body_bytes_max(&self) -> usize {
        BODY_BYTES_MAX
    }

    fn shard(&self) -> usize {
        0
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}
