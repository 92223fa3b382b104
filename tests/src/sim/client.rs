//! Clients: each step one operation, received by a shard of chance's choice, its answer judged when it comes.

use super::branch;
use super::judge::{Reply, judge_failed_write, reply_code};
use super::model::{Body, Broken, Name, ReadTicket, Write, WriteId, broken};
use super::plan::{BUSY_KEYS, EARLY_STEPS, Operation, Stream, stream};
use super::server::Server;
use super::setup::Workload;
use super::templates::Rule;
use super::world::World;
use deltadb::command::{Command, Condition, Document, ErrorCode, Failure, Outcome, PutItem, Version};
use deltadb::runtime::sim::Random;
use std::borrow::Cow;
use std::rc::Rc;

/// One acknowledgement in so many is answered by a power cut, in a branch.
const FORK_AT_ONE_ACKNOWLEDGEMENT_IN: u64 = 150;

/// One operation of one client.
pub struct Client {
    pub(super) world: Rc<World>,
    pub(super) server: Rc<Server>,
    pub(super) step: u32,
    pub(super) random: Random,
    pub(super) shard: usize,
    /// The entity of its operation, where chance does not choose it.
    pub(super) name: Option<Name>,
}

pub(super) type Done = Result<(), Broken>;

impl Client {
    /// The client of a step.
    pub fn new(world: Rc<World>, server: Rc<Server>, step: u32) -> Self {
        let mut random = stream(world.setup.seed, step, Stream::Act);
        let shard = random.below(server.shards() as u64) as usize;
        Self { world, server, step, random, shard, name: None }
    }

    /// Carries the operation out and judges what comes back.
    pub async fn run(mut self, operation: Operation) {
        let done = match operation {
            Operation::Put => self.put().await,
            Operation::Delete => self.delete().await,
            Operation::MultiPut => self.multi_put().await,
            Operation::Get => self.get().await,
            Operation::MultiGet => self.multi_get().await,
            Operation::List => self.list().await,
            Operation::Schemas => self.schemas().await,
            Operation::PutTemplate => self.put_template().await,
            Operation::DeleteTemplate => self.delete_template().await,
            Operation::ReadTemplates => self.read_templates().await,
            Operation::RotateKey => self.rotate_key().await,
            Operation::Stats => self.stats().await,
        };
        self.world.check(self.step, done);
    }

    pub(super) async fn call(&self, command: Command<'static>) -> Outcome {
        let outcome = self.server.call(self.shard, command).await;
        self.world.hit(format!("reply: {}", reply_code(&outcome)));
        outcome
    }

    pub(super) fn tell(&self, line: impl FnOnce() -> String) {
        self.world.tell(|| format!("{:>5} {}", self.step, line()));
    }

    fn any_name(&mut self, operation: Operation) -> Name {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let setup = self.world.setup;
        if setup.workload == Workload::Aging {
            let key = self.aging_key(operation);
            return World::name(self.random.below(setup.schemas), key);
        }
        // A few keys get most of the attention, so that operations meet.
        let key = if self.random.below(3) == 0 { self.random.below(2) } else { self.random.below(setup.keys) };
        World::name(self.random.below(setup.schemas), key)
    }

    fn aging_key(&mut self, operation: Operation) -> u64 {
        let keys = self.world.setup.keys;
        let early = self.step < EARLY_STEPS;
        match operation {
            Operation::Put if early => BUSY_KEYS + u64::from(self.step) % (keys - BUSY_KEYS),
            Operation::Delete if !early && self.random.below(3) == 0 => self.random.between(BUSY_KEYS, keys - 1),
            Operation::Put | Operation::Delete | Operation::MultiPut => self.random.below(BUSY_KEYS),
            _ => self.random.below(keys),
        }
    }

    fn document(&mut self, item: u32) -> Body {
        let usual = self.world.setup.document_bytes;
        let bytes = match self.random.below(60) {
            0 => self.random.below(3 * self.world.setup.sizes.batch_bytes as u64),
            1 => 0,
            _ => self.random.below(usual),
        };
        let fill = "abcdefghijklmnop".repeat(bytes as usize / 16);
        format!(r#"{{"step":{},"item":{item},"fill":"{fill}"}}"#, self.step).into_bytes().into()
    }

    fn condition(&mut self, name: &Name) -> Condition {
        let present = self.world.model.borrow().version_of(name);
        match self.random.below(12) {
            0 | 1 => Condition::IfAbsent,
            2 => Condition::IfPresent,
            3 | 4 => present.map_or(Condition::IfAbsent, Condition::IfVersion),
            5 => Condition::IfVersion(present.unwrap_or(7).saturating_sub(self.random.below(2)).max(1)),
            _ => Condition::None,
        }
    }

    async fn put(&mut self) -> Done {
        let name = self.any_name(Operation::Put);
        let (body, condition) = (self.document(0), self.condition(&name));
        let (id, ticket, since) = self.begin(0, &name, Some(body.clone()), condition, false);
        let (schema, key) = owned(&name);
        let command = Command::Put { schema, key, document: Cow::Owned(body.to_vec()), condition };
        let outcome = self.call(command).await;
        self.tell(|| format!("put {name:?} {} bytes {condition:?} -> {}", body.len(), Reply(&outcome)));
        match outcome {
            Outcome::Written { version, created } => self.written(id, &ticket, version, Some(created), since),
            Outcome::Failed(failure) => self.not_written(id, &ticket, &failure, condition, since),
            other => unexpected(&other),
        }
    }

    async fn delete(&mut self) -> Done {
        let name = self.any_name(Operation::Delete);
        let condition = self.condition(&name);
        let (id, ticket, since) = self.begin(0, &name, None, condition, false);
        let (schema, key) = owned(&name);
        let outcome = self.call(Command::Delete { schema, key, condition }).await;
        self.tell(|| format!("delete {name:?} {condition:?} -> {}", Reply(&outcome)));
        match outcome {
            Outcome::Deleted { version } => self.written(id, &ticket, version, None, since),
            Outcome::Failed(failure) => self.not_written(id, &ticket, &failure, condition, since),
            other => unexpected(&other),
        }
    }

    fn begin(
        &self,
        item: u32,
        name: &Name,
        body: Option<Body>,
        condition: Condition,
        atomic: bool,
    ) -> (WriteId, ReadTicket, u64) {
        let id = WriteId { step: self.step, item };
        let mut model = self.world.model.borrow_mut();
        let ticket = model.begin_read(name);
        let shard = self.server.owner_of(name);
        model.begin_write(id, Write { name: name.clone(), body, condition, shard, atomic });
        (id, ticket, model.now())
    }

    fn written(&self, id: WriteId, ticket: &ReadTicket, version: Version, created: Option<bool>, since: u64) -> Done {
        // Deletions are not judged by templates.
        if created.is_some() && !self.possible_rules(&ticket.name.0, since).iter().any(|rule| *rule != Rule::Refuses) {
            return broken("templates bind", format!("{:?} was written against its template", ticket.name));
        }
        let mut model = self.world.model.borrow_mut();
        model.acknowledge(id, version, created)?;
        model.judge_shown(ticket, version, self.server.durable_version(&ticket.name))?;
        model.judge_index(&ticket.name, self.server.durable_version(&ticket.name))?;
        drop(model);
        if let Some(broken) = self.world.watch.borrow().broken.clone() {
            return Err(broken);
        }
        self.world.places.borrow().judge_acknowledged(&self.server, &ticket.name, version)?;
        let mut chance = stream(self.world.setup.seed, self.step, Stream::Machine);
        if self.world.is_branch || chance.below(FORK_AT_ONE_ACKNOWLEDGEMENT_IN) > 0 {
            return Ok(());
        }
        self.server.look_at_disk(|disk| branch::what_if_the_power_went_now(&self.world, disk, &mut chance))
    }

    fn not_written(
        &self,
        id: WriteId,
        ticket: &ReadTicket,
        failure: &Failure,
        condition: Condition,
        since: u64,
    ) -> Done {
        if failure.code == ErrorCode::SchemaViolation {
            self.world.model.borrow_mut().refuse(id)?;
            return match self.possible_rules(&ticket.name.0, since).contains(&Rule::Refuses) {
                true => Ok(()),
                false => broken("templates bind", format!("{:?} was refused by no template", ticket.name)),
            };
        }
        judge_failed_write(self, id, ticket, failure, condition)
    }

    pub(super) fn possible_rules(&self, schema: &str, since: u64) -> Vec<Rule> {
        self.world.templates.borrow().possible(schema, since)
    }

    async fn multi_put(&mut self) -> Done {
        let schema = self.random.below(self.world.setup.schemas);
        let count = self.random.between(1, 9) as u32;
        let mut names: Vec<Name> = (0..count)
            .map(|_| match self.world.setup.workload {
                Workload::Even => World::name(schema, self.random.below(self.world.setup.keys)),
                Workload::Aging => World::name(schema, self.aging_key(Operation::MultiPut)),
            })
            .collect();
        names.sort();
        names.dedup();
        let items: Vec<(Name, Body)> =
            names.into_iter().enumerate().map(|(item, name)| (name, self.document(item as u32))).collect();
        // What does not fit a batch together is written each for itself.
        let bytes: usize = items.iter().map(|(name, body)| 128 + name.0.len() + name.1.len() + body.len()).sum();
        let atomic = bytes < self.world.setup.sizes.batch_bytes;
        let begun: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(item, (name, body))| self.begin(item as u32, name, Some(body.clone()), Condition::None, atomic))
            .collect();
        let put_items = items
            .iter()
            .map(|(name, body)| PutItem { key: Cow::Owned(name.1.to_string()), document: Cow::Owned(body.to_vec()) });
        let command =
            Command::MultiPut { schema: Cow::Owned(World::schema(schema).to_string()), items: put_items.collect() };
        let outcome = self.call(command).await;
        self.tell(|| format!("multi-put {} of s{schema} -> {}", items.len(), Reply(&outcome)));
        match outcome {
            Outcome::WrittenMany(results) if results.len() == items.len() => {
                for ((id, ticket, since), result) in begun.iter().zip(results) {
                    match result {
                        Ok((version, created)) => self.written(*id, ticket, version, Some(created), *since)?,
                        Err(failure) => {
                            self.world.hit(format!("reply: {}", code_words(failure.code)));
                            self.not_written(*id, ticket, &failure, Condition::None, *since)?;
                        }
                    }
                }
                Ok(())
            }
            Outcome::Failed(failure) => begun
                .iter()
                .try_for_each(|(id, ticket, since)| self.not_written(*id, ticket, &failure, Condition::None, *since)),
            other => unexpected(&other),
        }
    }

    async fn get(&mut self) -> Done {
        let name = self.any_name(Operation::Get);
        let ticket = self.world.model.borrow_mut().begin_read(&name);
        let (schema, key) = owned(&name);
        let outcome = self.call(Command::Get { schema, key }).await;
        self.tell(|| format!("get {name:?} -> {}", Reply(&outcome)));
        let result = match outcome {
            Outcome::Document { version, document } => Ok((version, document)),
            Outcome::Failed(failure) => Err(failure),
            other => return unexpected(&other),
        };
        self.read(&ticket, result)
    }

    pub(super) fn read(&self, ticket: &ReadTicket, result: Result<(Version, Document), Failure>) -> Done {
        let mut model = self.world.model.borrow_mut();
        match result {
            Ok((version, document)) => {
                let name = &ticket.name;
                if !document.is_of(deltadb::command::EntityRef { schema: &name.0, key: &name.1 }) {
                    return broken("reads are linearizable", format!("{name:?} reads as another entity"));
                }
                model.judge_found(ticket, version, document.body())?;
                model.judge_shown(ticket, version, self.server.durable_version(name))?;
                // What rotted beside a record in its frame does not concern its readers.
                match self.world.has_rot.get() {
                    true => Ok(()),
                    false => self.world.places.borrow().judge_shown(&self.server, name, version),
                }
            }
            Err(failure) if failure.code == ErrorCode::NotFound => model.judge_absent(ticket),
            Err(failure) if failure.code == ErrorCode::Corrupted => {
                drop(model);
                self.corrupted(ticket, &failure)
            }
            Err(failure) => self.failed_read(&failure),
        }
    }

    /// Only what rotted may be refused as damaged, and only while nothing newer is known.
    fn corrupted(&self, ticket: &ReadTicket, failure: &Failure) -> Done {
        let rotten = self.world.rotten.borrow().get(&ticket.name).copied();
        if rotten.is_some_and(|version| ticket.may_show(version)) {
            self.world.hit("rot: reads refused");
            return Ok(());
        }
        broken("damage does not spread", format!("{:?} did not rot and reads as {}", ticket.name, failure.message))
    }

    pub(super) fn failed_read(&self, failure: &Failure) -> Done {
        match failure.code {
            ErrorCode::Unavailable if self.world.licence.get().excuses_reads() => Ok(()),
            ErrorCode::Overloaded if self.world.excuses_overload(failure) => Ok(()),
            _ => broken(
                "nothing fails without a reason",
                format!("a read failed: {:?} {}", failure.code, failure.message),
            ),
        }
    }

    async fn multi_get(&mut self) -> Done {
        let schema = self.random.below(self.world.setup.schemas);
        let count = self.random.between(1, 12);
        let names: Vec<Name> =
            (0..count).map(|_| World::name(schema, self.random.below(self.world.setup.keys + 1))).collect();
        let tickets: Vec<ReadTicket> =
            names.iter().map(|name| self.world.model.borrow_mut().begin_read(name)).collect();
        let keys = names.iter().map(|name| Cow::Owned(name.1.to_string())).collect();
        let outcome =
            self.call(Command::MultiGet { schema: Cow::Owned(World::schema(schema).to_string()), keys }).await;
        self.tell(|| format!("multi-get {count} of s{schema} -> {}", Reply(&outcome)));
        match outcome {
            Outcome::Documents(results) if results.len() == tickets.len() => {
                tickets.iter().zip(results).try_for_each(|(ticket, result)| self.read(ticket, result))
            }
            Outcome::Failed(failure) => self.failed_read(&failure),
            other => unexpected(&other),
        }
    }
}

fn owned(name: &Name) -> (Cow<'static, str>, Cow<'static, str>) {
    (Cow::Owned(name.0.to_string()), Cow::Owned(name.1.to_string()))
}

pub(super) fn unexpected(outcome: &Outcome) -> Done {
    broken("one answer a request", format!("an answer to another question: {}", Reply(outcome)))
}

/// A code in the words of the coverage table.
pub(super) fn code_words(code: ErrorCode) -> String {
    code.name().replace('_', " ")
}
