//! Whether the calls on one entity could have happened one after the other, each at some moment between call and answer.
//!
//! The search is Wing and Gong's with Lowe's memory of configurations: take any call that nothing unanswered precedes,
//! apply it to the model, go on; go back where nothing applies; never enter the same configuration twice. Two facts
//! about this store keep it nearly straight. Every answered write names its version and versions rise, so that of all
//! answered writes only the one with the lowest version left can come next. And a call that changes nothing can be
//! taken as soon as it applies, unless that would rule out a write of unknown outcome. Such writes are optional, and
//! what is left to search.

mod model;
#[cfg(test)]
mod tests;

use super::{Moment, Operation};
use model::{Effect, Facts, State};
use std::collections::HashSet;

/// Configurations that are looked at before the search gives up.
const STEPS_MAX: usize = 2_000_000;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none.
    Refused {
        /// How far the best attempt came, and what did not fit.
        reason: String,
    },
}

/// The search was given up: neither is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// How many configurations had been looked at.
    pub steps: usize,
}

/// Judges the operations of one entity that begins absent.
pub fn judge_entity(operations: &[Operation]) -> Result<Verdict, Undecided> {
    Search::new(operations).run()
}

/// One operation with what it does to the model.
#[derive(Clone, Copy)]
struct Step {
    called: Moment,
    answered: Moment,
    effect: Effect,
    operation: Operation,
}

/// A step by its place in `required` or `optional`.
#[derive(Clone, Copy)]
enum Place {
    Required(usize),
    Optional(usize),
}

/// What has to be put back when a step is taken back.
struct Taken {
    place: Place,
    state: State,
    first: usize,
    latest_call: Moment,
}

struct Branch {
    trail_len: usize,
    alternatives: Vec<(Place, State)>,
    tried: usize,
}

struct Search {
    facts: Facts,
    /// By the moment of the call.
    required: Vec<Step>,
    is_taken: Vec<bool>,
    /// By the moment after which they cannot take effect.
    optional: Vec<Step>,
    is_used: Vec<bool>,
    /// Places of required writes, by version; the first `writes_taken` are taken.
    writes: Vec<usize>,
    writes_taken: usize,
    /// Everything required before this is taken.
    first: usize,
    state: State,
    /// The latest call among the steps taken: what was over before it can no longer be taken.
    latest_call: Moment,
    trail: Vec<Taken>,
    best: (usize, String),
}

impl Search {
    fn new(operations: &[Operation]) -> Self {
        let facts = Facts::of(operations);
        let (mut required, mut optional) = (Vec::new(), Vec::new());
        for operation in operations {
            let Some((effect, must)) = facts.effect(operation) else { continue };
            let step = Step { called: operation.called, answered: operation.answered, effect, operation: *operation };
            if must { required.push(step) } else { optional.push(step) }
        }
        required.sort_unstable_by_key(|step| step.called);
        optional.sort_unstable_by_key(|step| step.answered);
        let version = |place: &usize| match required[*place].effect {
            Effect::Writes { version, .. } => version,
            _ => None,
        };
        let mut writes: Vec<usize> = (0..required.len()).filter(|place| version(place).is_some()).collect();
        writes.sort_by_key(version);
        Self {
            facts,
            is_taken: vec![false; required.len()],
            is_used: vec![false; optional.len()],
            required,
            optional,
            writes,
            writes_taken: 0,
            first: 0,
            state: State::default(),
            latest_call: 0,
            trail: Vec::new(),
            best: (0, String::new()),
        }
    }

    fn run(mut self) -> Result<Verdict, Undecided> {
        let mut branches: Vec<Branch> = Vec::new();
        let mut seen = HashSet::new();
        for steps in 0.. {
            if steps == STEPS_MAX {
                return Err(Undecided { steps });
            }
            self.take_what_changes_nothing();
            if self.first == self.required.len() {
                return Ok(Verdict::Linearizable);
            }
            let mut alternatives = self.alternatives();
            self.note_progress(&alternatives);
            if !self.optional.is_empty() && !seen.insert(self.configuration()) {
                alternatives.clear();
            }
            branches.push(Branch { trail_len: self.trail.len(), alternatives, tried: 0 });
            loop {
                let Some(branch) = branches.last_mut() else { return Ok(Verdict::Refused { reason: self.best.1 }) };
                while self.trail.len() > branch.trail_len {
                    self.take_back();
                }
                if let Some((place, state)) = branch.alternatives.get(branch.tried) {
                    branch.tried += 1;
                    self.take(*place, *state);
                    break;
                }
                branches.pop();
            }
        }
        unreachable!("the steps are bounded")
    }

    /// Required steps that could come next, and the moment by which one of them must have.
    fn window(&self) -> (Vec<usize>, Moment) {
        let (mut places, mut soonest) = (Vec::new(), Moment::MAX);
        for place in self.first..self.required.len() {
            let step = &self.required[place];
            if step.called > soonest {
                break;
            }
            if !self.is_taken[place] {
                soonest = soonest.min(step.answered);
                places.push(place);
            }
        }
        places.retain(|place| self.required[*place].called <= soonest);
        (places, soonest)
    }

    /// Optional steps that may still be taken.
    fn open_options(&self) -> impl Iterator<Item = usize> {
        let open = self.optional.partition_point(|step| step.answered < self.latest_call);
        (open..self.optional.len()).filter(|place| !self.is_used[*place])
    }

    fn take_what_changes_nothing(&mut self) {
        loop {
            let option_ends = self.open_options().map(|place| self.optional[place].answered).min();
            let harmless = |place: &usize| {
                let step = &self.required[*place];
                option_ends.is_none_or(|end| end >= step.called)
                    && self.facts.apply(self.state, &step.effect) == Some(self.state)
            };
            let Some(place) = self.window().0.into_iter().find(harmless) else { return };
            self.take(Place::Required(place), self.state);
        }
    }

    /// What could come next, with the state it leaves; the optional last.
    fn alternatives(&self) -> Vec<(Place, State)> {
        let (window, soonest) = self.window();
        let next_write = self.writes.get(self.writes_taken).copied();
        let may_be_next = |place: &usize| match self.required[*place].effect {
            Effect::Writes { .. } => Some(*place) == next_write,
            _ => true,
        };
        let required = window.into_iter().filter(may_be_next).map(Place::Required);
        let optional = self.open_options().filter(|place| self.optional[*place].called <= soonest);
        let places = required.chain(optional.map(Place::Optional));
        places.filter_map(|place| Some((place, self.facts.apply(self.state, &self.step(place).effect)?))).collect()
    }

    fn step(&self, place: Place) -> &Step {
        match place {
            Place::Required(place) => &self.required[place],
            Place::Optional(place) => &self.optional[place],
        }
    }

    fn take(&mut self, place: Place, state: State) {
        self.trail.push(Taken { place, state: self.state, first: self.first, latest_call: self.latest_call });
        self.latest_call = self.latest_call.max(self.step(place).called);
        self.state = state;
        match place {
            Place::Optional(place) => self.is_used[place] = true,
            Place::Required(place) => {
                self.is_taken[place] = true;
                self.writes_taken += usize::from(self.is_next_write(place));
                while self.is_taken.get(self.first) == Some(&true) {
                    self.first += 1;
                }
            }
        }
    }

    fn take_back(&mut self) {
        let Some(taken) = self.trail.pop() else { return };
        (self.state, self.first, self.latest_call) = (taken.state, taken.first, taken.latest_call);
        match taken.place {
            Place::Optional(place) => self.is_used[place] = false,
            Place::Required(place) => {
                self.is_taken[place] = false;
                self.writes_taken -= usize::from(self.writes_taken > 0 && self.writes[self.writes_taken - 1] == place);
            }
        }
    }

    fn is_next_write(&self, place: usize) -> bool {
        self.writes.get(self.writes_taken) == Some(&place)
    }

    /// All that decides what can still happen.
    fn configuration(&self) -> (usize, State, Vec<usize>, Vec<usize>) {
        let (window, _) = self.window();
        (self.first, self.state, window, self.open_options().collect())
    }

    /// Remembers the attempt that came furthest.
    fn note_progress(&mut self, alternatives: &[(Place, State)]) {
        let taken = self.trail.len();
        if !self.best.1.is_empty() && taken <= self.best.0 {
            return;
        }
        // The sentence is only made where the attempt may end.
        let is_end = !alternatives.iter().any(|(place, _)| matches!(place, Place::Required(_)));
        if is_end {
            let (window, _) = self.window();
            let lines = window.into_iter().map(|place| format!("\n  {:?}", self.required[place].operation));
            let total = self.required.len();
            let sentence = format!("after {taken} of {total} calls, in {:?}, none of these can come next:", self.state);
            self.best = (taken, sentence + &lines.collect::<String>());
        }
    }
}
