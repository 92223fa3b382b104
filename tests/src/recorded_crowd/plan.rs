//! What a client asks next: dice, and what it has learnt of versions.

use super::documents::Entities;
use crate::history::{Answer, Call, Operation};
use delta_wire::Condition;
use std::collections::HashMap;

/// Random numbers that a seed decides.
pub struct Dice(u64);

impl Dice {
    /// Dice for one client of one seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03);
        let mut dice = Self(mixed | 1);
        // The first numbers of neighbouring seeds are alike.
        for _ in 0..8 {
            dice.below(2);
        }
        dice
    }

    /// A number below the bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// How a client's calls are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Wire,
}

/// How the calls of one action are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Each for itself; over the wire all are sent before any answer is awaited.
    Each,
    /// One multi-key request: reads or unconditional writes of different keys of one schema.
    Together,
    /// One listing of a schema with its documents: a read of each of its entities.
    Listing,
}

/// Calls that are made at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    pub form: Form,
    pub calls: Vec<(usize, Call)>,
}

impl Action {
    /// A single call.
    pub fn one(entity: usize, call: Call) -> Self {
        Self { form: Form::Each, calls: vec![(entity, call)] }
    }
}

/// The plan of one client.
pub struct Plan {
    entities: Entities,
    protocol: Protocol,
    dice: Dice,
    /// Values of this client begin here: unique among all clients of a history.
    value_next: u64,
    /// A version that each entity had at some time.
    versions: HashMap<usize, u64>,
}

impl Plan {
    pub fn new(entities: Entities, protocol: Protocol, client: usize, seed: u64) -> Self {
        let value_next = (client as u64) << 32;
        Self { entities, protocol, dice: Dice::new(seed, client as u64), value_next, versions: HashMap::new() }
    }

    /// What to ask next.
    pub fn next(&mut self) -> Action {
        match (self.dice.below(16), self.protocol) {
            (0, _) => {
                let schema = self.dice.below(self.entities.schemas() as u64) as usize;
                let calls = self.entities.of_schema(schema).map(|entity| (entity, Call::Get)).collect();
                Action { form: Form::Listing, calls }
            }
            (1, _) => self.together(|plan| Call::Put { value: plan.value(), condition: Condition::None }),
            (2, Protocol::Wire) => self.together(|_| Call::Get),
            (3..9, Protocol::Wire) => {
                let count = 2 + self.dice.below(14);
                Action { form: Form::Each, calls: (0..count).map(|_| self.call()).collect() }
            }
            _ => Action { form: Form::Each, calls: vec![self.call()] },
        }
    }

    /// Remembers what an answer says of versions.
    pub fn learn(&mut self, operation: &Operation) {
        let version = match operation.answer {
            Answer::Found { version, .. } | Answer::Written { version, .. } => version,
            Answer::ConditionFailed { found: Some(version) } => version,
            _ => return,
        };
        self.versions.insert(operation.entity, version);
    }

    fn together(&mut self, call: impl Fn(&mut Self) -> Call) -> Action {
        let schema = self.dice.below(self.entities.schemas() as u64) as usize;
        let chosen: Vec<usize> = self.entities.of_schema(schema).filter(|_| self.dice.below(2) == 0).collect();
        let chosen = if chosen.is_empty() { vec![self.entities.of_schema(schema).start] } else { chosen };
        Action { form: Form::Together, calls: chosen.into_iter().map(|entity| (entity, call(self))).collect() }
    }

    fn call(&mut self) -> (usize, Call) {
        let entity = self.dice.below(self.entities.count() as u64) as usize;
        let call = match self.dice.below(10) {
            0..4 => Call::Get,
            4 => match self.condition(entity) {
                // Nothing can be removed that must not exist.
                Condition::IfAbsent => Call::Delete { condition: Condition::None },
                condition => Call::Delete { condition },
            },
            _ => Call::Put { value: self.value(), condition: self.condition(entity) },
        };
        (entity, call)
    }

    fn condition(&mut self, entity: usize) -> Condition {
        match (self.dice.below(8), self.versions.get(&entity)) {
            (0, _) => Condition::IfAbsent,
            (1, _) => Condition::IfPresent,
            (2..5, Some(version)) => Condition::IfVersion(*version),
            _ => Condition::None,
        }
    }

    fn value(&mut self) -> u64 {
        self.value_next += 1;
        self.value_next
    }
}
