//! One entity as a machine with a state: what each answered call demands of the state, and what it leaves behind.

use super::super::{Answer, Call, Operation};
use delta_wire::Condition;
use std::collections::{HashMap, HashSet};

/// What there is. A version is unknown after a write whose answer was lost and that no read found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// Value and version, if there is anything.
    pub content: Option<(u64, Option<u64>)>,
    /// The highest version that is known to have been given.
    pub floor: u64,
}

/// An operation as the machine takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A read saw this.
    Reads(Option<(u64, u64)>),
    /// A condition did not hold: this version was there, or nothing.
    Fails { condition: Condition, found: Option<u64> },
    /// A write, or a deletion when there is no value.
    Writes { value: Option<u64>, version: Option<u64>, condition: Condition, created: Option<bool> },
}

/// What all answers of a history together say of versions.
#[derive(Default)]
pub struct Facts {
    /// The version of each value that a read found.
    found: HashMap<u64, u64>,
    /// Versions that belong to a known write.
    owned: HashSet<u64>,
}

impl Facts {
    /// Gathers them.
    pub fn of(operations: &[Operation]) -> Self {
        let mut facts = Self::default();
        for operation in operations {
            match operation.answer {
                Answer::Found { value, version } => {
                    facts.found.insert(value, version);
                    facts.owned.insert(version);
                }
                Answer::Written { version, .. } | Answer::Deleted { version } => {
                    facts.owned.insert(version);
                }
                Answer::Absent | Answer::ConditionFailed { .. } | Answer::Unknown => {}
            }
        }
        facts
    }

    /// What an operation demands; none for one that shows nothing. The flag: whether it must have taken effect.
    pub fn effect(&self, operation: &Operation) -> Option<(Effect, bool)> {
        let effect = match (operation.call, operation.answer) {
            (Call::Get, Answer::Found { value, version }) => Effect::Reads(Some((value, version))),
            (Call::Get, Answer::Absent) | (Call::Delete { .. }, Answer::Absent) => Effect::Reads(None),
            (Call::Put { value, condition }, Answer::Written { version, created }) => {
                Effect::Writes { value: Some(value), version: Some(version), condition, created }
            }
            (Call::Delete { condition }, Answer::Deleted { version }) => {
                Effect::Writes { value: None, version: Some(version), condition, created: None }
            }
            (Call::Put { condition, .. } | Call::Delete { condition }, Answer::ConditionFailed { found }) => {
                Effect::Fails { condition, found }
            }
            (Call::Get, Answer::Unknown) => return None,
            (Call::Put { value, condition }, Answer::Unknown) => {
                let version = self.found.get(&value).copied();
                let effect = Effect::Writes { value: Some(value), version, condition, created: None };
                return Some((effect, version.is_some()));
            }
            (Call::Delete { condition }, Answer::Unknown) => {
                return Some((Effect::Writes { value: None, version: None, condition, created: None }, false));
            }
            (call, answer) => panic!("{answer:?} does not answer {call:?}"),
        };
        Some((effect, true))
    }

    /// The state after the effect, if it can take place in this one.
    pub fn apply(&self, state: State, effect: &Effect) -> Option<State> {
        match *effect {
            Effect::Reads(None) => state.content.is_none().then_some(state),
            Effect::Reads(Some((value, version))) => match state.content {
                Some((own, Some(known))) => (own == value && known == version).then_some(state),
                Some((own, None)) if own == value => self.bind(state, version),
                _ => None,
            },
            Effect::Fails { condition, found } => {
                let state = match found {
                    None => state.content.is_none().then_some(state),
                    Some(version) => self.bind(state, version),
                }?;
                let fails = match condition {
                    Condition::None => false,
                    Condition::IfAbsent => found.is_some(),
                    Condition::IfPresent => found.is_none(),
                    Condition::IfVersion(wanted) => found != Some(wanted),
                };
                fails.then_some(state)
            }
            Effect::Writes { value, version, condition, created } => {
                let existed = state.content.is_some();
                let state = match condition {
                    Condition::None => Some(state),
                    Condition::IfAbsent => (!existed).then_some(state),
                    Condition::IfPresent => existed.then_some(state),
                    Condition::IfVersion(wanted) => self.bind(state, wanted),
                }?;
                let fits = (existed || value.is_some()) && created.is_none_or(|created| created != existed);
                let rises = version.is_none_or(|version| version > state.floor);
                let content = value.map(|value| (value, version));
                (fits && rises).then_some(State { content, floor: version.unwrap_or(state.floor) })
            }
        }
    }

    /// The state with its version taken to be this one, if it can be.
    fn bind(&self, state: State, version: u64) -> Option<State> {
        match state.content? {
            (_, Some(known)) => (known == version).then_some(state),
            (value, None) => {
                let free = version > state.floor && !self.owned.contains(&version);
                free.then_some(State { content: Some((value, Some(version))), floor: version })
            }
        }
    }
}
