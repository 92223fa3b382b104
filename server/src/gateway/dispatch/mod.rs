//! The one path of every request, whatever its protocol: authorize → check names → validate → route → execute.
//!
//! One a shard, on its thread. A key this shard owns is served without leaving it; any other goes through the mailbox
//! to its owner. Commands on several keys, templates and data keys run as local tasks (`scatter`, `admin`). A document
//! is validated by the shard that received it, before it is routed. A panic while a request is judged is caught and
//! answered; a panic in the engine is not survivable.

mod admin;
mod delivery;
mod ending;
mod scatter;
#[cfg(test)]
mod tests;

pub use admin::{KeyCustodian, KeyringFuture};
pub use delivery::{Delivery, WireReplies};

use super::api::{Api, Health};
use super::health::Board;
use crate::auth::{Authenticator, Permission, Principal};
use crate::command::{
    Access, Command, EntityRef, ErrorCode, Failure, Outcome, Ticket, check_entity_key, check_schema_id,
};
use crate::engine::Engine;
use crate::limits::{ENTITY_KEY_BYTES_MAX, MULTI_KEYS_MAX};
use crate::mailbox::{Answer, Errand};
use crate::metrics::Metrics;
use crate::routing::Topology;
use crate::runtime::platform::{Doorbell, Platform, Spawn, TaskClass};
use crate::runtime::roster::Roster;
use crate::sabotage::{Sabotage, is_on};
use crate::schema::{CheckError, ShardTemplates, Templates};
use crate::storage::Storage;
use ending::Answering;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

/// Messages of other shards handled in one turn.
const MAIL_PER_TURN_MAX: usize = 256;
/// How often one request waits for a template that changes while it is loaded.
const TEMPLATE_LOADS_MAX: usize = 8;

/// What a shard's dispatch stands on.
pub struct Parts<P: Platform, S: Storage, B: Doorbell> {
    /// The machine.
    pub platform: P,
    /// This shard's number.
    pub shard: usize,
    /// This shard's engine, whose sink is `delivery`.
    pub engine: Rc<Engine<P, S>>,
    /// The ways out.
    pub delivery: Rc<Delivery<B>>,
    /// Templates of the store.
    pub templates: Arc<Templates>,
    /// Judges credentials.
    pub authenticator: Arc<Authenticator>,
    /// Slots and shards.
    pub topology: Arc<Topology>,
    /// The wire address of each shard's own listener, once it is bound.
    pub shard_addresses: Arc<[OnceLock<SocketAddr>]>,
    /// State of all shards.
    pub board: Arc<Board>,
    /// Figures of all shards.
    pub metrics: Arc<Metrics>,
    /// Largest document or body.
    pub body_bytes_max: usize,
    /// Keeper of the data keys; shard 0 only.
    pub custodian: Option<Rc<dyn KeyCustodian>>,
    /// For `--salvage`: listings leave damaged documents out (they are logged) instead of ending there, and neither
    /// templates nor keys are changed.
    pub salvage: bool,
}

/// The dispatch of one shard. Lives in an `Rc`, on which `Api` is implemented.
pub struct Dispatch<P: Platform, S: Storage, B: Doorbell> {
    parts: Parts<P, S, B>,
    checker: RefCell<ShardTemplates>,
    rotating: Cell<bool>,
    answering: RefCell<Roster<Answering>>,
}

impl<P: Platform, S: Storage, B: Doorbell> Dispatch<P, S, B> {
    /// Joins the parts.
    pub fn new(parts: Parts<P, S, B>) -> Rc<Self> {
        let checker = RefCell::new(ShardTemplates::new(parts.templates.clone()));
        Rc::new(Self { parts, checker, rotating: Cell::new(false), answering: RefCell::default() })
    }

    /// Once a turn: errands of other shards, and their answers to this one's. `true` when more waits already.
    pub fn turn(self: &Rc<Self>) -> bool {
        let mailbox = &self.parts.delivery.mailbox;
        if mailbox.shards() == 1 {
            return false;
        }
        for _ in 0..MAIL_PER_TURN_MAX {
            let Some((ticket, answer)) = mailbox.take_reply() else { break };
            self.parts.delivery.deliver_answer(ticket, answer);
        }
        for _ in 0..MAIL_PER_TURN_MAX {
            let Some((ticket, errand)) = mailbox.take_request() else { break };
            self.run_errand(ticket, errand);
        }
        let metrics = &self.parts.metrics.shards[self.parts.shard];
        metrics.mailbox_outstanding.set(mailbox.outstanding() as u64);
        metrics.mailbox_waiting.set(mailbox.waiting_for_credit() as u64);
        mailbox.has_mail()
    }

    /// About once a second: figures that are cheaper to gather than to keep.
    pub fn keep_house(&self) {
        self.parts.engine.keep_house();
        self.checker.borrow_mut().report(&self.parts.metrics.shards[self.parts.shard]);
    }

    /// Whether mail waits: asked again after a shard has armed its wake-up.
    pub fn has_mail(&self) -> bool {
        self.parts.delivery.mailbox.has_mail()
    }

    /// Requests that are not answered yet, of whatever kind. A draining shard waits until there are none.
    pub fn outstanding(&self) -> usize {
        self.parts.engine.outstanding() + self.parts.delivery.mailbox.outstanding() + self.answering.borrow().waiting()
    }

    /// The ways out of this shard.
    pub fn delivery(&self) -> &Rc<Delivery<B>> {
        &self.parts.delivery
    }

    /// The engine of this shard.
    pub fn engine(&self) -> &Rc<Engine<P, S>> {
        &self.parts.engine
    }

    fn submit(self: &Rc<Self>, principal: &Principal, command: Command<'_>, ticket: Ticket) -> Option<Outcome> {
        if self.parts.board.is_draining() {
            return Some(Failure::shutting_down().into());
        }
        match self.judge_caught(principal, &command) {
            Judged::Refused(failure) => Some(failure.into()),
            Judged::Fine => self.route(command, ticket),
            Judged::NeedsTemplate => {
                self.load_then_submit(principal.clone(), command.into_owned(), ticket);
                None
            }
        }
    }

    /// A panic while a request is judged is that request's failure: nothing has been changed yet.
    fn judge_caught(&self, principal: &Principal, command: &Command<'_>) -> Judged {
        catch_unwind(AssertUnwindSafe(|| self.judge(principal, command))).unwrap_or_else(|_| {
            self.parts.metrics.shards[self.parts.shard].panics_caught.add(1);
            let message = "a bug stopped this request before it did anything; see the log";
            Judged::Refused(Failure::new(ErrorCode::Internal, message))
        })
    }

    fn judge(&self, principal: &Principal, command: &Command<'_>) -> Judged {
        if let Some(permission) = permission_of(command)
            && let Err(failure) = principal.require(permission)
        {
            return Judged::Refused(failure);
        }
        if let Err(failure) = check_names(command) {
            return Judged::Refused(failure);
        }
        match command {
            Command::Put { schema, document, .. } => self.validate(schema, None, document),
            Command::MultiPut { schema, items } => {
                let mut verdicts = items.iter().map(|item| self.validate(schema, Some(&item.key), &item.document));
                verdicts.find(|verdict| !matches!(verdict, Judged::Fine)).unwrap_or(Judged::Fine)
            }
            _ => Judged::Fine,
        }
    }

    fn validate(&self, schema: &str, key: Option<&str>, document: &[u8]) -> Judged {
        let body_bytes_max = self.parts.body_bytes_max;
        if document.len() > body_bytes_max {
            let message = format!("the document has {} bytes; the limit is {body_bytes_max}", document.len());
            return Judged::Refused(Failure::new(ErrorCode::TooLarge, message));
        }
        match self.checker.borrow_mut().check(schema, document) {
            Ok(()) => Judged::Fine,
            Err(CheckError::NeedsLoad) => Judged::NeedsTemplate,
            Err(CheckError::Failed(mut failure)) => {
                failure.key = key.map(str::to_owned);
                Judged::Refused(failure)
            }
        }
    }

    /// To the owner of the key, or to a task when there are several. Everything about the command has been judged.
    fn route(self: &Rc<Self>, command: Command<'_>, ticket: Ticket) -> Option<Outcome> {
        let topology = &self.parts.topology;
        let owner = match &command {
            Command::Get { schema, key } | Command::Put { schema, key, .. } | Command::Delete { schema, key, .. } => {
                topology.owner_of(schema, key)
            }
            Command::MultiGet { .. } | Command::MultiPut { .. } if topology.shards() == 1 => self.parts.shard,
            Command::Ping => return Some(Outcome::Pong),
            Command::Stats => return Some(Outcome::Stats(self.stats())),
            _ => {
                self.answer_by_task(command.into_owned(), ticket);
                return None;
            }
        };
        let misplaced = is_on(Sabotage::WriteWhereReceived) && matches!(command, Command::Put { .. });
        if owner == self.parts.shard || misplaced {
            return self.parts.engine.execute(command, ticket);
        }
        let metrics = &self.parts.metrics.shards[self.parts.shard];
        metrics.mailbox_requests.add(1);
        match self.parts.delivery.mailbox.request(owner, Errand::Execute(command.into_owned()), ticket) {
            Ok(()) => None,
            Err(failure) => {
                metrics.mailbox_refused.add(1);
                Some(failure.into())
            }
        }
    }

    fn load_then_submit(self: &Rc<Self>, principal: Principal, command: Command<'static>, ticket: Ticket) {
        let (this, task) = (self.clone(), self.will_answer(ticket, false));
        self.spawn(async move {
            let mut judged = Judged::NeedsTemplate;
            // A template that changes all the time is not waited for for ever.
            for _ in 0..TEMPLATE_LOADS_MAX {
                if let Command::Put { schema, .. } | Command::MultiPut { schema, .. } = &command {
                    this.parts.templates.load(&this.parts.platform, schema).await;
                }
                judged = this.judge_caught(&principal, &command);
                if !matches!(judged, Judged::NeedsTemplate) {
                    break;
                }
            }
            let Some(ticket) = this.ticket_of(task) else { return };
            let outcome = match judged {
                Judged::Fine => this.route(command, ticket),
                Judged::Refused(failure) => Some(failure.into()),
                Judged::NeedsTemplate => {
                    Some(Failure::new(ErrorCode::Overloaded, "the template of this schema is changing: retry").into())
                }
            };
            if let Some(outcome) = outcome {
                this.parts.delivery.deliver(ticket, outcome);
            }
        });
    }

    fn run_errand(self: &Rc<Self>, ticket: Ticket, errand: Errand) {
        match errand {
            Errand::Execute(command) => match command {
                Command::SchemaPut { .. } | Command::SchemaDelete { .. } | Command::RotateKey => {
                    self.answer_by_task(command, ticket);
                }
                command => {
                    if let Some(outcome) = self.parts.engine.execute(command, ticket) {
                        self.parts.delivery.deliver(ticket, outcome);
                    }
                }
            },
            Errand::RefreshTemplates => {
                self.checker.borrow_mut().refresh();
                self.parts.delivery.deliver_answer(ticket, Answer::Done);
            }
            Errand::AdoptKeyring(keyring) => {
                let (this, task) = (self.clone(), self.will_answer(ticket, true));
                self.spawn(async move {
                    let answer = this.adopt_keyring(keyring).await;
                    if let Some(ticket) = this.ticket_of(task) {
                        this.parts.delivery.deliver_answer(ticket, answer);
                    }
                });
            }
            Errand::KeyIdsInUse => {
                let ids = self.parts.engine.storage().key_ids_in_use();
                self.parts.delivery.deliver_answer(ticket, Answer::KeyIds(ids));
            }
        }
    }

    fn answer_by_task(self: &Rc<Self>, command: Command<'static>, ticket: Ticket) {
        let (this, task) = (self.clone(), self.will_answer(ticket, command.changes()));
        self.spawn(async move {
            let outcome = match command {
                Command::MultiGet { schema, keys } => this.multi_get(schema, keys).await,
                Command::MultiPut { schema, items } => this.multi_put(schema, items).await,
                Command::List { schema, prefix, after, limit, documents } => {
                    this.list(schema, prefix, after, limit, documents).await
                }
                Command::Schemas => this.schemas().await,
                command => this.administer(command).await,
            };
            if let Some(ticket) = this.ticket_of(task) {
                this.parts.delivery.deliver(ticket, outcome);
            }
        });
    }

    /// Carries out a command on one shard, this one or another, and waits.
    async fn execute_on(self: &Rc<Self>, shard: usize, command: Command<'static>) -> Outcome {
        if shard != self.parts.shard {
            return self.ask(shard, Errand::Execute(command)).await.into_outcome();
        }
        let slot = self.parts.delivery.tasks.reserve();
        match self.parts.engine.execute(command, Ticket::Task { slot }) {
            Some(outcome) => {
                self.parts.delivery.tasks.cancel(slot);
                outcome
            }
            None => self.parts.delivery.tasks.wait(slot).await.into_outcome(),
        }
    }

    /// Asks another shard and waits for its answer.
    async fn ask(&self, shard: usize, errand: Errand) -> Answer {
        let slot = self.parts.delivery.tasks.reserve();
        if let Err(failure) = self.parts.delivery.mailbox.request(shard, errand, Ticket::Task { slot }) {
            self.parts.delivery.tasks.cancel(slot);
            return Answer::Outcome(failure.into());
        }
        self.parts.delivery.tasks.wait(slot).await
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.parts.platform.spawn().spawn(TaskClass::Foreground, task);
    }
}

impl<P: Platform, S: Storage, B: Doorbell> Api for Rc<Dispatch<P, S, B>> {
    fn authenticate(&self, credential: Option<&[u8]>) -> Result<Principal, Failure> {
        self.parts.authenticator.authenticate(credential)
    }

    fn submit(&self, principal: &Principal, command: Command<'_>, ticket: Ticket) -> Option<Outcome> {
        Dispatch::submit(self, principal, command, ticket)
    }

    fn call(&self, principal: &Principal, command: Command<'static>) -> impl Future<Output = Outcome> + 'static {
        let (this, slot) = (self.clone(), self.parts.delivery.tasks.reserve());
        let known = Dispatch::submit(self, principal, command, Ticket::Task { slot });
        async move {
            match known {
                Some(outcome) => {
                    this.parts.delivery.tasks.cancel(slot);
                    outcome
                }
                None => this.parts.delivery.tasks.wait(slot).await.into_outcome(),
            }
        }
    }

    fn look_ahead<'a>(&self, entities: &mut dyn Iterator<Item = (EntityRef<'a>, Access)>) {
        self.parts.engine.look_ahead(entities);
    }

    fn waiting_for_room(&self) -> usize {
        self.parts.delivery.mailbox.waiting_for_credit()
    }

    fn health(&self) -> Health {
        self.parts.board.health()
    }

    fn topology(&self) -> Topology {
        let mut topology = (*self.parts.topology).clone();
        topology.addresses = self.parts.shard_addresses.iter().map(|address| address.get().copied()).collect();
        topology
    }

    fn body_bytes_max(&self) -> usize {
        self.parts.body_bytes_max
    }

    fn shard(&self) -> usize {
        self.parts.shard
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.parts.metrics
    }
}

enum Judged {
    Fine,
    Refused(Failure),
    NeedsTemplate,
}

fn permission_of(command: &Command<'_>) -> Option<Permission> {
    match command {
        Command::Get { .. } | Command::MultiGet { .. } | Command::List { .. } | Command::Schemas => {
            Some(Permission::Read)
        }
        Command::Put { .. }
        | Command::Delete { .. }
        | Command::MultiPut { .. }
        | Command::SchemaPut { .. }
        | Command::SchemaDelete { .. } => Some(Permission::Write),
        Command::Stats | Command::RotateKey => Some(Permission::Admin),
        Command::SchemaGet { .. } | Command::SchemaList | Command::Ping => None,
    }
}

fn check_names(command: &Command<'_>) -> Result<(), Failure> {
    match command {
        Command::Get { schema, key } | Command::Put { schema, key, .. } | Command::Delete { schema, key, .. } => {
            check_schema_id(schema)?;
            check_entity_key(key)
        }
        Command::MultiGet { schema, keys } => {
            check_schema_id(schema)?;
            check_count(keys.len())?;
            keys.iter().try_for_each(|key| check_entity_key(key))
        }
        Command::MultiPut { schema, items } => {
            check_schema_id(schema)?;
            check_count(items.len())?;
            items.iter().try_for_each(|item| {
                check_entity_key(&item.key).map_err(|failure| Failure { key: Some(item.key.to_string()), ..failure })
            })
        }
        Command::List { schema, prefix, after, .. } => {
            check_schema_id(schema)?;
            let longest = prefix.len().max(after.as_ref().map_or(0, |after| after.len()));
            if longest > ENTITY_KEY_BYTES_MAX {
                let message = format!("prefix and after have at most {ENTITY_KEY_BYTES_MAX} bytes, like keys");
                return Err(Failure::new(ErrorCode::InvalidName, message));
            }
            Ok(())
        }
        Command::SchemaGet { id } | Command::SchemaPut { id, .. } | Command::SchemaDelete { id } => check_schema_id(id),
        Command::Schemas | Command::SchemaList | Command::Stats | Command::Ping | Command::RotateKey => Ok(()),
    }
}

fn check_count(keys: usize) -> Result<(), Failure> {
    if keys <= MULTI_KEYS_MAX {
        return Ok(());
    }
    let message = format!("{keys} keys in one request; at most {MULTI_KEYS_MAX} are taken: send several requests");
    Err(Failure::new(ErrorCode::TooLarge, message))
}
