//! What the server may answer, by the contract: a register an entity, with all that clients did to it and were told.
//!
//! Versions are part of every answer, so linearizability is checked as answers come, without a search: an answer must
//! not be older than what was known when its request began, and must be something that was written. What is not
//! answered yet, or was answered "outcome unknown", is pending: after a restart it is there or not, from then on for
//! good. No answer is trusted: the state of the index and of recovered disks is held against this record.

use deltadb::command::{Condition, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Schema and key.
pub type Name = (Rc<str>, Rc<str>);
/// A document.
pub type Body = Rc<[u8]>;

/// A broken rule of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which rule: failures of one rule count as the same failure when a history is shortened.
    pub rule: &'static str,
    /// What was seen.
    pub detail: String,
}

/// For `return`: a broken rule.
pub fn broken<T>(rule: &'static str, detail: impl Into<String>) -> Result<T, Broken> {
    Err(Broken { rule, detail: detail.into() })
}

/// A version of an entity; no body: deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The version.
    pub version: Version,
    /// The document.
    pub body: Option<Body>,
}

/// One write of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId {
    /// The step.
    pub step: u32,
    /// Which of its items.
    pub item: u32,
}

/// A write about to be asked for.
#[derive(Clone)]
pub struct Write {
    /// To which entity.
    pub name: Name,
    /// What it becomes.
    pub body: Option<Body>,
    /// On what condition.
    pub condition: Condition,
    /// The shard that owns it.
    pub shard: usize,
    /// It stands or falls with the other items of its step on this shard.
    pub atomic: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    InFlight,
    /// Its caller was told that the outcome is unknown, because the disk takes long: it may still happen.
    Late,
    /// It does not happen any more while this server runs.
    Unknown,
}

#[derive(Clone)]
pub(super) struct Pending {
    pub(super) write: Write,
    began: u64,
    /// No version at or below this one may be given to it.
    pub(super) floor: Version,
    fate: Fate,
    /// A reader has seen it at this version.
    pub(super) seen: Option<Version>,
}

/// A write that is known to be durable.
#[derive(Clone)]
pub(super) struct Logged {
    pub(super) condition: Condition,
    pub(super) body: Option<Body>,
    pub(super) created: Option<bool>,
}

#[derive(Clone, Default)]
pub(super) struct Entity {
    pub(super) newest: Option<Known>,
    pub(super) log: BTreeMap<Version, Logged>,
    /// It was found deleted after a start: by a deletion whose version nobody was told, above the newest that is known.
    pub(super) found_deleted: bool,
    /// When a deletion was last under way.
    deleting_at: u64,
    /// Versions that failed conditions named.
    pub(super) named: Vec<Version>,
}

/// What was known when a read began.
#[derive(Clone)]
pub struct ReadTicket {
    /// Of which entity.
    pub name: Name,
    floor: Option<Known>,
    at: u64,
}

impl ReadTicket {
    /// Whether nothing newer than this version was known when the read began.
    pub fn may_show(&self, version: Version) -> bool {
        self.floor.as_ref().is_none_or(|floor| floor.version <= version)
    }
}

/// The record.
#[derive(Clone, Default)]
pub struct Model {
    pub(super) entities: BTreeMap<Name, Entity>,
    pub(super) pending: BTreeMap<WriteId, Pending>,
    /// Every document that was ever written, for judging what a damaged store still shows.
    pub(super) written: BTreeMap<Name, Vec<Body>>,
    /// Highest version that each shard is known to have given out.
    shard_floors: BTreeMap<usize, Version>,
    pub(super) acknowledged: BTreeSet<(usize, Version)>,
    /// Shards on which a commit failed in this life, and since when.
    pub(super) failed: BTreeMap<usize, u64>,
    generation: u64,
    now: u64,
}

impl Model {
    pub(super) fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    /// Every entity that was ever written to.
    pub fn names(&self) -> Vec<Name> {
        self.entities.keys().cloned().collect()
    }

    /// Entities that exist, as far as is known.
    pub fn living_names(&self) -> Vec<Name> {
        let living = self.entities.iter().filter(|(_, entity)| live(&entity.newest).is_some());
        living.map(|(name, _)| name.clone()).collect()
    }

    /// Names of a schema that exist beyond doubt: nothing that could change them is under way.
    pub fn certain_names(&self, schema: &str) -> BTreeMap<Rc<str>, Version> {
        let uncertain: BTreeSet<&Name> = self.in_flight().map(|pending| &pending.write.name).collect();
        let of_schema = self.entities.iter().filter(|(name, _)| *name.0 == *schema && !uncertain.contains(name));
        of_schema.filter_map(|(name, entity)| Some((name.1.clone(), live(&entity.newest)?.0))).collect()
    }

    /// The present version of an entity, when it exists as far as is known.
    pub fn version_of(&self, name: &Name) -> Option<Version> {
        self.entities.get(name).and_then(|entity| live(&entity.newest)).map(|(version, _)| version)
    }

    /// Entities that exist, as far as is known, by schema; and whether that is beyond doubt.
    pub fn counts(&self) -> (BTreeMap<Rc<str>, u64>, bool) {
        let mut counts = BTreeMap::new();
        let living = self.entities.iter().filter(|(_, entity)| live(&entity.newest).is_some());
        living.for_each(|(name, _)| *counts.entry(name.0.clone()).or_default() += 1);
        (counts, self.in_flight().next().is_none())
    }

    /// Moments so far; grows with every beginning and end.
    pub fn now(&self) -> u64 {
        self.now
    }

    fn in_flight(&self) -> impl Iterator<Item = &Pending> {
        self.pending.values().filter(|pending| pending.fate != Fate::Unknown)
    }

    fn in_flight_on<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a Pending> {
        self.in_flight().filter(move |pending| pending.write.name == *name)
    }

    /// A write is asked for.
    pub fn begin_write(&mut self, id: WriteId, write: Write) {
        let now = self.tick();
        let entity = self.entities.entry(write.name.clone()).or_default();
        match &write.body {
            Some(body) => self.written.entry(write.name.clone()).or_default().push(body.clone()),
            None => entity.deleting_at = now,
        }
        let own = entity.newest.as_ref().map_or(0, |known| known.version);
        let floor = own.max(self.shard_floors.get(&write.shard).copied().unwrap_or(0));
        self.pending.insert(id, Pending { write, began: now, floor, fate: Fate::InFlight, seen: None });
    }

    /// It is acknowledged. `created`: what the answer said of it, for a put.
    pub fn acknowledge(&mut self, id: WriteId, version: Version, created: Option<bool>) -> Result<(), Broken> {
        let now = self.tick();
        let Some(pending) = self.pending.remove(&id) else {
            return broken("one answer a request", format!("a second answer to {id:?}"));
        };
        let Write { name, body, condition, shard, .. } = pending.write;
        if version <= pending.floor {
            let floor = pending.floor;
            return broken(
                "versions rise",
                format!("{name:?} got version {version} though {floor} was given out before"),
            );
        }
        if self.failed.get(&shard).is_some_and(|failed| *failed < pending.began) {
            return broken("a failed shard refuses writes", format!("{name:?} was written after a commit had failed"));
        }
        if !self.acknowledged.insert((shard, version)) {
            return broken("versions rise", format!("version {version} of shard {shard} was given out twice"));
        }
        if pending.seen.is_some_and(|seen| seen != version) {
            return broken("reads are linearizable", format!("{name:?} was seen at another version than {version}"));
        }
        let floor = self.shard_floors.entry(shard).or_default();
        *floor = (*floor).max(version);
        let entity = self.entities.entry(name.clone()).or_default();
        if body.is_none() {
            entity.deleting_at = now;
        }
        entity.log.insert(version, Logged { condition, body: body.clone(), created });
        entity.advance(Known { version, body });
        Ok(())
    }

    /// It was refused: nothing of it was or will be written.
    pub fn refuse(&mut self, id: WriteId) -> Result<(), Broken> {
        let now = self.tick();
        let Some(pending) = self.pending.remove(&id) else {
            return broken("one answer a request", format!("a second answer to {id:?}"));
        };
        if pending.write.body.is_none() {
            self.entities.entry(pending.write.name.clone()).or_default().deleting_at = now;
        }
        match pending.seen {
            Some(version) => {
                let name = pending.write.name;
                broken("reads are linearizable", format!("{name:?} was seen at version {version} and then refused"))
            }
            None => Ok(()),
        }
    }

    /// Its outcome is not known.
    pub fn leave_open(&mut self, id: WriteId) {
        let now = self.tick();
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.fate = Fate::Unknown;
            self.failed.entry(pending.write.shard).or_insert(now);
            if pending.write.body.is_none() {
                self.entities.entry(pending.write.name.clone()).or_default().deleting_at = now;
            }
        }
    }

    /// Its outcome is not known yet: the disk has not confirmed it in time.
    pub fn leave_late(&mut self, id: WriteId) {
        self.tick();
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.fate = Fate::Late;
        }
    }

    /// Whether something that was called unknown may have happened since, or may still.
    pub fn has_late_writes(&self) -> bool {
        self.pending.values().any(|pending| pending.fate == Fate::Late)
    }

    /// The server is gone: whatever was not answered stays open.
    pub fn lose_server(&mut self) {
        self.tick();
        self.pending.values_mut().for_each(|pending| pending.fate = Fate::Unknown);
    }

    /// A read begins.
    pub fn begin_read(&mut self, name: &Name) -> ReadTicket {
        let at = self.tick();
        let floor = self.entities.get(name).and_then(|entity| entity.newest.clone());
        ReadTicket { name: name.clone(), floor, at }
    }

    /// A read gave a document.
    pub fn judge_found(&mut self, ticket: &ReadTicket, version: Version, body: &[u8]) -> Result<(), Broken> {
        const RULE: &str = "reads are linearizable";
        self.tick();
        let name = &ticket.name;
        if let Some(floor) = &ticket.floor {
            if version < floor.version {
                let floor = floor.version;
                return broken(RULE, format!("{name:?} was read at version {version} after version {floor} was known"));
            }
            if version == floor.version && floor.body.as_deref() != Some(body) {
                return broken(RULE, format!("{name:?} was read at version {version} with another document"));
            }
        }
        let entity = self.entities.entry(name.clone()).or_default();
        if let Some(known) = entity.newest.as_ref().filter(|known| known.version == version) {
            return match known.body.as_deref() == Some(body) {
                true => Ok(()),
                false => broken(RULE, format!("{name:?} was read at version {version} with another document")),
            };
        }
        if let Some(logged) = entity.log.get(&version) {
            return match logged.body.as_deref() == Some(body) {
                true => Ok(()),
                false => broken(RULE, format!("{name:?} was read at version {version} with another document")),
            };
        }
        let same = |pending: &&mut Pending| pending.write.name == *name && pending.write.body.as_deref() == Some(body);
        let Some(pending) = self.pending.values_mut().find(same) else {
            return broken(RULE, format!("{name:?} was read at version {version}, which was never written"));
        };
        if pending.fate == Fate::Unknown {
            return broken("nothing undurable is shown", format!("{name:?} shows a write whose commit failed"));
        }
        if pending.seen.is_some_and(|seen| seen != version) || version <= pending.floor {
            return broken(RULE, format!("{name:?} was read at version {version}, which is not its own"));
        }
        pending.seen = Some(version);
        entity.advance(Known { version, body: Some(Rc::from(body)) });
        Ok(())
    }

    /// A read gave nothing.
    pub fn judge_absent(&mut self, ticket: &ReadTicket) -> Result<(), Broken> {
        self.tick();
        let Some((version, _)) = live(&ticket.floor) else { return Ok(()) };
        if self.may_have_been_deleted(&ticket.name, ticket.at) {
            return Ok(());
        }
        let name = &ticket.name;
        broken("reads are linearizable", format!("{name:?} was not found though it was known at version {version}"))
    }

    /// A failed condition named a version.
    pub fn judge_named(&mut self, ticket: &ReadTicket, version: Version) -> Result<(), Broken> {
        self.tick();
        let name = &ticket.name;
        if let Some(floor) = ticket.floor.as_ref().filter(|floor| version < floor.version) {
            let detail = format!("a condition on {name:?} failed by version {version}, older than {}", floor.version);
            return broken("reads are linearizable", detail);
        }
        self.entities.entry(name.clone()).or_default().named.push(version);
        Ok(())
    }

    /// What was shown must be durable: the index holds it, or something newer.
    pub fn judge_shown(&self, ticket: &ReadTicket, version: Version, durable: Option<Version>) -> Result<(), Broken> {
        let name = &ticket.name;
        let fine = match durable {
            Some(durable) => durable >= version,
            None => self.may_have_been_deleted(name, ticket.at),
        };
        if fine {
            return Ok(());
        }
        let detail = format!("version {version} of {name:?} was shown when {durable:?} was durable");
        broken("nothing undurable is shown", detail)
    }

    /// The index against the record.
    pub fn judge_index(&self, name: &Name, durable: Option<Version>) -> Result<(), Broken> {
        let known = self.entities.get(name).and_then(|entity| entity.newest.as_ref());
        let (mut puts, mut deletes) = (false, false);
        for pending in self.in_flight_on(name) {
            puts |= pending.write.body.is_some();
            deletes |= pending.write.body.is_none();
        }
        let fine = match (known, durable) {
            (Some(Known { version, body: Some(_) }), Some(durable)) => {
                durable == *version || (puts && durable > *version)
            }
            (Some(Known { version, body: None }), Some(durable)) => puts && durable > *version,
            (None, Some(_)) => puts,
            (Some(Known { body: Some(_), .. }), None) => deletes,
            (_, None) => true,
        };
        if fine {
            return Ok(());
        }
        let known = known.map(|known| (known.version, known.body.is_some()));
        broken("the index is the model", format!("{name:?} is at {durable:?} in the index and known as {known:?}"))
    }

    /// With no answer owed: every conditional write must have followed what its condition asked for, and failed
    /// conditions must have named versions that there were. Where a late write may have come between, nobody can say.
    pub fn judge_conditions(&mut self) -> Result<(), Broken> {
        let unknown: BTreeSet<Name> = self.pending.values().map(|pending| pending.write.name.clone()).collect();
        let late: BTreeSet<Name> = self.in_flight().map(|pending| pending.write.name.clone()).collect();
        for (name, entity) in self.entities.iter_mut().filter(|(name, _)| !late.contains(*name)) {
            let mut before: Option<(Version, bool)> = None;
            for (version, logged) in &entity.log {
                let alive = before.filter(|(_, alive)| *alive).map(|(version, _)| version);
                let holds = match logged.condition {
                    Condition::None => true,
                    Condition::IfAbsent => alive.is_none(),
                    Condition::IfPresent => alive.is_some(),
                    Condition::IfVersion(wanted) => alive == Some(wanted),
                };
                let told = logged.created.is_none_or(|created| created == alive.is_none());
                let deletes_something = logged.body.is_some() || alive.is_some();
                if !holds || !told || !deletes_something {
                    let (condition, created) = (logged.condition, logged.created);
                    let detail =
                        format!("{name:?} version {version}: {condition:?}, created {created:?}, after {before:?}");
                    return broken("conditions hold", detail);
                }
                before = Some((*version, logged.body.is_some()));
            }
            let named = std::mem::take(&mut entity.named);
            let known = |version: &Version| entity.log.contains_key(version) || unknown.contains(name);
            if let Some(version) = named.iter().find(|version| !known(version)) {
                return broken(
                    "nothing undurable is shown",
                    format!("{name:?}: version {version} was named but never was"),
                );
            }
        }
        Ok(())
    }

    fn may_have_been_deleted(&self, name: &Name, since: u64) -> bool {
        let deleting = self.in_flight_on(name).any(|pending| pending.write.body.is_none());
        deleting || self.entities.get(name).is_some_and(|entity| entity.deleting_at >= since)
    }

    /// Another generation of shards: every one starts above all that was given out.
    pub fn enter_generation(&mut self, generation: u64, shards: usize) {
        if std::mem::replace(&mut self.generation, generation) == generation {
            return;
        }
        let floor = self.shard_floors.values().copied().max().unwrap_or(0);
        self.shard_floors = (0..shards).map(|shard| (shard, floor)).collect();
    }

    /// Whether a write to an entity is open: its answer was "unknown", or is owed.
    pub fn is_open(&self, name: &Name) -> bool {
        self.pending.values().any(|pending| pending.write.name == *name)
    }

    /// What must be found by a store that lost nothing: exactly what is known. For stores with nothing pending.
    pub fn expected(&self) -> BTreeMap<Name, (Version, Body)> {
        let living = self.entities.iter().filter_map(|(name, entity)| Some((name.clone(), live(&entity.newest)?)));
        living.map(|(name, (version, body))| (name, (version, body.clone()))).collect()
    }
}

impl Entity {
    fn advance(&mut self, known: Known) {
        if self.newest.as_ref().is_none_or(|newest| newest.version < known.version) {
            self.newest = Some(known);
            self.found_deleted = false;
        }
    }
}

pub(super) fn live(known: &Option<Known>) -> Option<(Version, &Body)> {
    let known = known.as_ref()?;
    Some((known.version, known.body.as_ref()?))
}
