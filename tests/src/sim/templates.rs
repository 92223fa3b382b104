//! What the server may answer about templates: which of them may be in force at a moment.
//!
//! Looser than for entities, since a template has no version: of those that may have been in force while a write was
//! judged, any may have decided.

use std::collections::BTreeMap;
use std::rc::Rc;

/// A template, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// There is none.
    Absent,
    /// Every document of the simulation conforms.
    Accepts,
    /// None does.
    Refuses,
}

impl Rule {
    /// The text of such a template.
    pub fn text(self) -> &'static [u8] {
        match self {
            Rule::Refuses => br#"{"type":"object","required":["never"]}"#,
            _ => br#"{"type":"object","required":["step"]}"#,
        }
    }
}

#[derive(Clone, Copy)]
struct Change {
    step: u32,
    rule: Rule,
    began: u64,
    /// Never, while its outcome is not known.
    ended: Option<u64>,
}

/// The record.
#[derive(Clone, Default)]
pub struct TemplateModel {
    changes: BTreeMap<Rc<str>, Vec<Change>>,
}

impl TemplateModel {
    /// A change is asked for.
    pub fn begin(&mut self, schema: &Rc<str>, step: u32, rule: Rule, now: u64) {
        self.changes.entry(schema.clone()).or_default().push(Change { step, rule, began: now, ended: None });
    }

    /// It is acknowledged. One whose outcome is unknown stays possible.
    pub fn acknowledge(&mut self, schema: &str, step: u32, now: u64) {
        let Some(changes) = self.changes.get_mut(schema) else { return };
        if let Some(change) = changes.iter_mut().find(|change| change.step == step) {
            change.ended = Some(now);
        }
    }

    /// It was refused: it never was.
    pub fn refuse(&mut self, schema: &str, step: u32) {
        if let Some(changes) = self.changes.get_mut(schema) {
            changes.retain(|change| change.step != step);
        }
    }

    /// A server that has just started shows this one: from now on it is the one, if it may be.
    pub fn settle(&mut self, schema: &Rc<str>, found: Rule, now: u64) -> bool {
        if !self.possible(schema, now).contains(&found) {
            return false;
        }
        let change = Change { step: u32::MAX, rule: found, began: now, ended: Some(now) };
        self.changes.insert(schema.clone(), vec![change]);
        true
    }

    /// Which may have been in force at some moment since `since`.
    pub fn possible(&self, schema: &str, since: u64) -> Vec<Rule> {
        let Some(changes) = self.changes.get(schema) else { return vec![Rule::Absent] };
        let mut possible: Vec<Rule> = changes
            .iter()
            .filter(|change| change.ended.is_none_or(|ended| ended >= since))
            .map(|one| one.rule)
            .collect();
        // The last to end before `since`, and whatever overlapped it, may still have been in force then.
        let ended = |change: &Change| change.ended.filter(|ended| *ended < since);
        match changes.iter().filter_map(|change| Some((ended(change)?, change.began))).max() {
            Some((_, began)) => {
                let may_last = |change: &&Change| ended(change).is_some_and(|ended| ended >= began);
                possible.extend(changes.iter().filter(may_last).map(|change| change.rule));
            }
            None => possible.push(Rule::Absent),
        }
        possible.sort();
        possible.dedup();
        possible
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_overlaps_is_possible_and_what_was_replaced_is_not() {
        let schema: Rc<str> = "s".into();
        let mut model = TemplateModel::default();
        assert_eq!(model.possible("s", 0), [Rule::Absent]);
        model.begin(&schema, 1, Rule::Refuses, 10);
        assert_eq!(model.possible("s", 11), [Rule::Absent, Rule::Refuses]);
        model.acknowledge("s", 1, 20);
        assert_eq!(model.possible("s", 21), [Rule::Refuses]);
        assert_eq!(model.possible("s", 15), [Rule::Absent, Rule::Refuses]);
        model.begin(&schema, 2, Rule::Accepts, 30);
        assert_eq!(model.possible("s", 31), [Rule::Accepts, Rule::Refuses]);
        model.refuse("s", 2);
        assert_eq!(model.possible("s", 31), [Rule::Refuses]);
    }
}
