//! What the server must answer: a map of entities, and which command comes next.

use super::super::input::Input;
use crate::sim::model::Name;
use deltadb::command::{Command, Condition, ErrorCode, Failure, Outcome, PutItem, Version};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The schemas there are.
pub const SCHEMAS: [&str; 2] = ["orders", "s"];
/// Keys in each.
const KEYS: u8 = 16;
/// Rotations after which no more are asked for: a keyring has room for so many keys only.
const ROTATIONS_MAX: u32 = 6;

type Body = Rc<[u8]>;
/// What is known of an entity that exists.
type Known = (Version, Body);
/// A key as a listing shows it.
pub type Listed = (String, Version, Option<Body>);

/// The name of an entity.
pub fn name(schema: &str, key: &str) -> Name {
    (schema.into(), key.into())
}

/// One read or write of one key.
#[derive(Clone, Debug)]
pub struct Touch {
    key: String,
    /// A write makes it this; `None`: a deletion, or a read.
    body: Option<Body>,
    expected: Expected,
}

/// What must be answered.
#[derive(Clone, Debug)]
enum Expected {
    Written { created: bool },
    Deleted,
    Found(Version, Body),
    NotFound,
    Refused(Option<Version>),
}

/// A command that is under way.
#[derive(Debug)]
pub enum Call {
    /// On one key.
    One(&'static str, Touch),
    /// On several, in the order asked.
    Many(&'static str, Vec<Touch>),
    /// A new data key.
    Rotation,
}

impl Call {
    /// The schema of its keys.
    pub fn schema(&self) -> &'static str {
        match self {
            Call::One(schema, _) | Call::Many(schema, _) => schema,
            Call::Rotation => "",
        }
    }
}

/// The record.
#[derive(Default)]
pub struct Book {
    entities: BTreeMap<Name, Known>,
    /// Writes that are not answered, at most one a name; `None`: a deletion.
    open: BTreeMap<Name, Option<Body>>,
    /// Names that commands under way touch.
    touched: BTreeSet<Name>,
    /// The highest version that each shard gave out before what is under way, as far as is known.
    floors: Vec<Version>,
    /// And since, in whatever order the answers came.
    given_out: BTreeSet<(usize, Version)>,
    generation: u64,
    bodies: u32,
    rotations: u32,
}

impl Book {
    /// A server has started. Another generation begins above whatever was given out.
    pub fn enter(&mut self, generation: u64, shards: usize) {
        self.touched.clear();
        if std::mem::replace(&mut self.generation, generation) != generation {
            let given_out = self.given_out.iter().map(|(_, version)| *version);
            let highest = self.floors.iter().copied().chain(given_out).max().unwrap_or(0);
            self.given_out.clear();
            self.floors = vec![highest; shards];
        }
        assert_eq!(self.floors.len(), shards, "the shard count of a generation changed");
    }

    /// The command that the input spells, unless one under way touches its only key.
    pub fn next_call(&mut self, kind: u8, input: &mut Input<'_>) -> Option<(Command<'static>, Call)> {
        if kind == 11 {
            if self.rotations == ROTATIONS_MAX {
                return None;
            }
            self.rotations += 1;
            return Some((Command::RotateKey, Call::Rotation));
        }
        let schema = SCHEMAS[usize::from(input.byte() & 0x80 != 0)];
        match kind {
            0 => {
                let (key, condition) = self.one(schema, input)?;
                let body = self.body(input);
                let touch = self.writes(schema, key, Some(body.clone()), condition);
                let command = Command::Put {
                    schema: Cow::Borrowed(schema),
                    key: Cow::Owned(touch.key.clone()),
                    document: Cow::Owned(body.to_vec()),
                    condition,
                };
                Some((command, Call::One(schema, touch)))
            }
            1 => {
                let (key, condition) = self.one(schema, input)?;
                let touch = self.writes(schema, key, None, condition);
                let command =
                    Command::Delete { schema: Cow::Borrowed(schema), key: Cow::Owned(touch.key.clone()), condition };
                Some((command, Call::One(schema, touch)))
            }
            2 => {
                let mut touches = Vec::new();
                for key in self.several(schema, input) {
                    let body = self.body(input);
                    touches.push(self.writes(schema, key, Some(body), Condition::None));
                }
                let items = touches.iter().map(|touch| PutItem {
                    key: Cow::Owned(touch.key.clone()),
                    document: Cow::Owned(touch.body.as_deref().unwrap_or_default().to_vec()),
                });
                let command = Command::MultiPut { schema: Cow::Borrowed(schema), items: items.collect() };
                Some((command, Call::Many(schema, touches)))
            }
            _ => {
                let keys = self.several(schema, input);
                let touches: Vec<Touch> = keys.into_iter().map(|key| self.reads(schema, key)).collect();
                let schema_name = Cow::Borrowed(schema);
                if let [touch] = &touches[..] {
                    let command = Command::Get { schema: schema_name, key: Cow::Owned(touch.key.clone()) };
                    return Some((command, Call::One(schema, touch.clone())));
                }
                let keys = touches.iter().map(|touch| Cow::Owned(touch.key.clone())).collect();
                Some((Command::MultiGet { schema: schema_name, keys }, Call::Many(schema, touches)))
            }
        }
    }

    /// Judges an answer; returns what the index must hold now, of keys that were written.
    pub fn judge(
        &mut self,
        call: &Call,
        outcome: Outcome,
        owner_of: impl Fn(&str) -> usize,
    ) -> Vec<(String, Option<Version>)> {
        match (call, outcome) {
            (Call::Rotation, Outcome::KeyRotated { .. }) => Vec::new(),
            // One is under way, or an unused key is being dropped.
            (Call::Rotation, Outcome::Failed(failure)) if failure.code == ErrorCode::Overloaded => Vec::new(),
            (Call::One(schema, touch), outcome) => {
                let answer = match outcome {
                    Outcome::Written { version, created } => Answer::Written(version, created),
                    Outcome::Deleted { version } => Answer::Deleted(version),
                    Outcome::Document { version, document } => Answer::Found(version, Rc::from(document.body())),
                    Outcome::Failed(failure) => Answer::Failed(failure),
                    other => panic!("{call:?} was answered by {other:?}"),
                };
                self.judge_one(schema, touch, answer, &owner_of).into_iter().collect()
            }
            (Call::Many(schema, touches), Outcome::WrittenMany(results)) if results.len() == touches.len() => {
                let answers = results.into_iter().map(|result| match result {
                    Ok((version, created)) => Answer::Written(version, created),
                    Err(failure) => Answer::Failed(failure),
                });
                self.judge_each(schema, touches, answers, &owner_of)
            }
            (Call::Many(schema, touches), Outcome::Documents(results)) if results.len() == touches.len() => {
                let answers = results.into_iter().map(|result| match result {
                    Ok((version, document)) => Answer::Found(version, Rc::from(document.body())),
                    Err(failure) => Answer::Failed(failure),
                });
                self.judge_each(schema, touches, answers, &owner_of)
            }
            (call, outcome) => panic!("{call:?} was answered by {outcome:?}"),
        }
    }

    /// Commands that were under way together are all answered.
    pub fn all_answered(&mut self) {
        assert!(self.open.is_empty(), "writes without an answer: {:?}", self.open.keys());
        self.touched.clear();
        self.raise_floors();
    }

    /// After a start, all of a schema was found to be this: what was acknowledged, and of the open writes each all or
    /// nothing. [`Book::settle`] follows once every schema was looked at.
    pub fn adopt(&mut self, schema: &str, found: Vec<Listed>, owner_of: impl Fn(&str) -> usize) {
        let mut found: BTreeMap<Name, Known> = found
            .into_iter()
            .map(|(key, version, body)| (name(schema, &key), (version, body.unwrap_or_default())))
            .collect();
        let known = self.entities.keys().chain(self.open.keys()).chain(found.keys());
        let names: BTreeSet<Name> = known.filter(|name| &*name.0 == schema).cloned().collect();
        for name in names {
            let (before, after) = (self.entities.get(&name).cloned(), found.remove(&name));
            if before == after {
                continue;
            }
            let open = self
                .open
                .get(&name)
                .unwrap_or_else(|| panic!("{name:?} came back as {:?}, known was {:?}", words(&after), words(&before)));
            assert_eq!(after.as_ref().map(|(_, body)| body), open.as_ref(), "{name:?} came back as nobody wrote it");
            match after {
                Some((version, body)) => {
                    let own = before.map_or(0, |(version, _)| version);
                    assert!(version > own, "{name:?} came back at version {version}, {own} was known");
                    self.given_out.insert((owner_of(&name.1), version));
                    self.entities.insert(name, (version, body));
                }
                None => drop(self.entities.remove(&name)),
            }
        }
    }

    /// Whatever was open has turned out to be there or not, for good.
    pub fn settle(&mut self) {
        self.open.clear();
        self.raise_floors();
    }

    /// A listing to its end is exactly what there is.
    pub fn judge_listing(&self, schema: &str, prefix: &str, found: &[Listed]) {
        let listed = |(name, _): &(&Name, &Known)| &*name.0 == schema && name.1.starts_with(prefix);
        let expected: Vec<(&str, &Known)> =
            self.entities.iter().filter(listed).map(|(name, known)| (&*name.1, known)).collect();
        assert_eq!(found.len(), expected.len(), "a listing of '{prefix}' in '{schema}' has another length");
        for ((key, version, body), (expected_key, expected)) in found.iter().zip(expected) {
            assert_eq!((key.as_str(), *version), (expected_key, expected.0), "a listing of '{prefix}' in '{schema}'");
            assert!(body.as_ref().is_none_or(|body| *body == expected.1), "'{key}' is listed with another document");
        }
    }

    /// Entities by schema.
    pub fn counts(&self) -> Vec<(String, u64)> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        self.entities.keys().for_each(|name| *counts.entry(name.0.to_string()).or_default() += 1);
        counts.into_iter().collect()
    }

    fn one(&mut self, schema: &str, input: &mut Input<'_>) -> Option<(String, Condition)> {
        let key = key_of(input.byte());
        let present = self.entities.get(&name(schema, &key)).map(|(version, _)| *version);
        let condition = match input.byte() % 8 {
            1 => Condition::IfAbsent,
            2 => Condition::IfPresent,
            3 => Condition::IfVersion(present.unwrap_or(1)),
            4 => Condition::IfVersion(present.map_or(7, |version| version.saturating_sub(1).max(1))),
            _ => Condition::None,
        };
        self.touched.insert(name(schema, &key)).then_some((key, condition))
    }

    /// Up to eight keys that nothing under way touches.
    fn several(&mut self, schema: &str, input: &mut Input<'_>) -> Vec<String> {
        let count = input.below(8) + 1;
        let keys = (0..count).map(|_| key_of(input.byte()));
        keys.filter(|key| self.touched.insert(name(schema, key))).collect()
    }

    fn body(&mut self, input: &mut Input<'_>) -> Body {
        self.bodies += 1;
        let bytes = match input.byte() {
            250.. => 6 << 10,
            short => usize::from(short) * 6,
        };
        format!(r#"{{"number":{},"fill":"{}"}}"#, self.bodies, "x".repeat(bytes)).into_bytes().into()
    }

    fn writes(&mut self, schema: &str, key: String, body: Option<Body>, condition: Condition) -> Touch {
        let name = name(schema, &key);
        let present = self.entities.get(&name).map(|(version, _)| *version);
        let holds = match condition {
            Condition::None => true,
            Condition::IfAbsent => present.is_none(),
            Condition::IfPresent => present.is_some(),
            Condition::IfVersion(wanted) => present == Some(wanted),
        };
        let expected = match (holds, &body, present) {
            (false, _, present) => Expected::Refused(present),
            (true, Some(_), present) => Expected::Written { created: present.is_none() },
            (true, None, Some(_)) => Expected::Deleted,
            (true, None, None) => Expected::NotFound,
        };
        if matches!(expected, Expected::Written { .. } | Expected::Deleted) {
            self.open.insert(name, body.clone());
        }
        Touch { key, body, expected }
    }

    fn reads(&self, schema: &str, key: String) -> Touch {
        let known = self.entities.get(&name(schema, &key));
        let expected = known.map_or(Expected::NotFound, |(version, body)| Expected::Found(*version, body.clone()));
        Touch { key, body: None, expected }
    }

    fn judge_each(
        &mut self,
        schema: &str,
        touches: &[Touch],
        answers: impl Iterator<Item = Answer>,
        owner_of: &impl Fn(&str) -> usize,
    ) -> Vec<(String, Option<Version>)> {
        let each = touches.iter().zip(answers);
        each.filter_map(|(touch, answer)| self.judge_one(schema, touch, answer, owner_of)).collect()
    }

    fn judge_one(
        &mut self,
        schema: &str,
        touch: &Touch,
        answer: Answer,
        owner_of: &impl Fn(&str) -> usize,
    ) -> Option<(String, Option<Version>)> {
        let key = &touch.key;
        match (&touch.expected, answer) {
            (Expected::Written { created }, Answer::Written(version, said)) if *created == said => {
                self.give_out(owner_of(key), version);
                let body = self.open.remove(&name(schema, key)).flatten();
                self.entities.insert(name(schema, key), (version, body.unwrap_or_default()));
                Some((key.clone(), Some(version)))
            }
            (Expected::Deleted, Answer::Deleted(version)) => {
                self.give_out(owner_of(key), version);
                self.open.remove(&name(schema, key));
                self.entities.remove(&name(schema, key));
                Some((key.clone(), None))
            }
            (Expected::Found(version, body), Answer::Found(at, found)) if (*version, body) == (at, &found) => None,
            (Expected::NotFound, Answer::Failed(failure)) if failure.code == ErrorCode::NotFound => None,
            (Expected::Refused(version), Answer::Failed(failure))
                if failure.code == ErrorCode::PreconditionFailed && failure.version == *version =>
            {
                None
            }
            (expected, answer) => panic!("'{key}' in '{schema}': {expected:?} was due, {answer:?} came"),
        }
    }

    fn give_out(&mut self, shard: usize, version: Version) {
        let floor = self.floors[shard];
        assert!(version > floor, "version {version} of shard {shard} is not above {floor}, which was given out before");
        assert!(self.given_out.insert((shard, version)), "version {version} of shard {shard} was given out twice");
    }

    fn raise_floors(&mut self) {
        for (shard, version) in std::mem::take(&mut self.given_out) {
            self.floors[shard] = self.floors[shard].max(version);
        }
    }
}

#[derive(Debug)]
enum Answer {
    Written(Version, bool),
    Deleted(Version),
    Found(Version, Body),
    Failed(Failure),
}

fn words(known: &Option<Known>) -> Option<(Version, usize)> {
    known.as_ref().map(|(version, body)| (*version, body.len()))
}

/// Keys that share prefixes and differ in length.
fn key_of(byte: u8) -> String {
    let number = byte % KEYS;
    match number % 4 {
        0 => format!("{number}"),
        1 => format!("k{number}"),
        2 => format!("key-{number}"),
        _ => format!("k{number}\u{e9}"),
    }
}
