//! The end oracle: what a store that was opened again may hold.
//!
//! Acknowledged writes are there, and whatever a reader has seen. Each open write is there whole or not at all; which of
//! the two is settled by what is found, and holds from then on.

use super::model::{Body, Broken, Known, Logged, Model, Name, Pending, WriteId, broken, live};
use deltadb::command::{Condition, Version};
use std::collections::{BTreeMap, BTreeSet};

impl Model {
    /// Takes what a freshly opened store holds for the truth, if it may hold that. Returns how many open writes turned
    /// out to be there, and how many not.
    pub fn adopt(&mut self, found: &BTreeMap<Name, (Version, Body)>) -> Result<(u64, u64), Broken> {
        self.tick();
        let mut there = BTreeSet::new();
        for (name, (version, body)) in found {
            there.extend(self.judge_recovered(name, *version, body)?);
        }
        let gone = self.entities.iter().filter(|(name, _)| !found.contains_key(*name));
        for (name, entity) in gone {
            let deleted = self.pending.values().any(|one| one.write.name == *name && one.write.body.is_none());
            if let Some((version, _)) = live(&entity.newest).filter(|_| !deleted) {
                return broken(
                    "acknowledged is durable",
                    format!("{name:?} is lost; it was known at version {version}"),
                );
            }
        }
        self.judge_atomicity(found, &there)?;
        let counts = (there.len() as u64, (self.pending.len() - there.len()) as u64);
        self.settle(found);
        Ok(counts)
    }

    fn judge_recovered(&self, name: &Name, version: Version, body: &Body) -> Result<Option<WriteId>, Broken> {
        const RULE: &str = "acknowledged is durable";
        let known = self.entities.get(name).and_then(|entity| entity.newest.as_ref());
        if let Some(known) = known {
            if known.version == version && known.body.as_ref() == Some(body) {
                return Ok(None);
            }
            if version <= known.version {
                let was = known.version;
                return broken(RULE, format!("{name:?} came back at version {version}; version {was} was known"));
            }
        }
        let same = |(_, pending): &(&WriteId, &Pending)| {
            pending.write.name == *name && pending.write.body.as_ref() == Some(body) && version > pending.floor
        };
        match self.pending.iter().find(same) {
            Some((id, pending)) if pending.seen.is_none_or(|seen| seen == version) => Ok(Some(*id)),
            _ => {
                let known = known.map(|known| known.version);
                broken(
                    RULE,
                    format!("{name:?} came back at version {version}, which nobody wrote; {known:?} was known"),
                )
            }
        }
    }

    /// The items of one command on one shard are there together or not at all.
    fn judge_atomicity(
        &self,
        found: &BTreeMap<Name, (Version, Body)>,
        there: &BTreeSet<WriteId>,
    ) -> Result<(), Broken> {
        for id in there.iter().filter(|id| self.pending[id].write.atomic) {
            let write = &self.pending[id].write;
            let (shard, there_at) = (write.shard, found.get(&write.name).map_or(0, |(version, _)| *version));
            let siblings =
                self.pending.range(WriteId { step: id.step, item: 0 }..=WriteId { step: id.step, item: u32::MAX });
            for (sibling, pending) in siblings.filter(|(_, pending)| pending.write.shard == shard) {
                let name = &pending.write.name;
                // Another open write may have covered it.
                let others = self.pending.iter().any(|(other, one)| other != sibling && one.write.name == *name);
                let newest = match found.get(name) {
                    Some((_, body)) if Some(body) == pending.write.body.as_ref() => continue,
                    Some((version, _)) => Some(*version),
                    None => {
                        self.entities.get(name).and_then(|entity| entity.newest.as_ref()).map(|known| known.version)
                    }
                };
                // Or a newer one, acknowledged.
                let covered = newest.is_some_and(|newest| newest > there_at);
                if !covered && !others {
                    let step = id.step;
                    return broken("a write is whole", format!("of step {step}, {name:?} is not there and others are"));
                }
            }
        }
        Ok(())
    }

    fn settle(&mut self, found: &BTreeMap<Name, (Version, Body)>) {
        self.pending.clear();
        self.acknowledged.clear();
        self.failed.clear();
        for (name, entity) in &mut self.entities {
            entity.log.clear();
            entity.named.clear();
            entity.found_deleted = match found.get(name) {
                Some(_) => false,
                None => entity.found_deleted || live(&entity.newest).is_some(),
            };
            entity.newest = match found.get(name) {
                Some((version, body)) => {
                    let logged = Logged { condition: Condition::None, body: Some(body.clone()), created: None };
                    entity.log.insert(*version, logged);
                    Some(Known { version: *version, body: Some(body.clone()) })
                }
                None => entity.newest.take().map(|known| Known { body: None, ..known }),
            };
        }
    }

    /// A damaged store may have lost things, if it says so, but shows nothing that was never written.
    pub fn judge_salvaged(&self, name: &Name, version: Version, body: &[u8]) -> Result<(), Broken> {
        const RULE: &str = "damage is never served";
        let entity = self.entities.get(name);
        let newest = entity.and_then(|entity| entity.newest.as_ref());
        // A salvage that lost a deletion shows what it deleted.
        let undeleted = entity.is_some_and(|entity| entity.found_deleted);
        if let Some(known) = newest.filter(|known| known.version == version && !undeleted) {
            return match known.body.as_deref() == Some(body) {
                true => Ok(()),
                false => broken(RULE, format!("{name:?} at version {version} is another document")),
            };
        }
        // Nor does anybody know the version of a write that it deleted before an answer came.
        if newest.is_some_and(|known| version > known.version) && !undeleted && !self.is_open(name) {
            return broken(RULE, format!("{name:?} is served at version {version}, which was never given out"));
        }
        let written = self.written.get(name).is_some_and(|bodies| bodies.iter().any(|one| **one == *body));
        if written { Ok(()) } else { broken(RULE, format!("{name:?} is served with a document nobody wrote")) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{ReadTicket, Write};
    use super::*;

    fn written(model: &mut Model, step: u32, body: Option<&[u8]>) -> (Name, WriteId) {
        let (name, id): (Name, _) = (("s".into(), "k".into()), WriteId { step, item: 0 });
        let write = Write {
            name: name.clone(),
            body: body.map(Body::from),
            condition: Condition::None,
            shard: 0,
            atomic: false,
        };
        let _: ReadTicket = model.begin_read(&name);
        model.begin_write(id, write);
        (name, id)
    }

    #[test]
    fn a_salvage_may_show_what_a_lost_deletion_deleted_and_nothing_at_the_version_of_a_known_one() {
        let mut model = Model::default();
        let (name, put) = written(&mut model, 1, Some(b"1"));
        model.acknowledge(put, 3, Some(true)).unwrap();
        let mut known = model.clone();

        written(&mut model, 2, None);
        model.lose_server();
        model.adopt(&BTreeMap::new()).unwrap();
        model.judge_salvaged(&name, 3, b"1").unwrap();
        model.judge_salvaged(&name, 4, b"2").unwrap_err();
        model.judge_salvaged(&name, 4, b"1").unwrap();

        let (_, deletion) = written(&mut known, 2, None);
        known.acknowledge(deletion, 4, None).unwrap();
        known.judge_salvaged(&name, 3, b"1").unwrap();
        known.judge_salvaged(&name, 4, b"1").unwrap_err();
    }

    #[test]
    fn a_late_write_may_be_seen_and_one_whose_commit_failed_may_not() {
        let mut late = Model::default();
        let (name, put) = written(&mut late, 1, Some(b"1"));
        let mut failed = late.clone();
        late.leave_late(put);
        failed.leave_open(put);
        assert!(late.has_late_writes() && !failed.has_late_writes());
        let judge = |model: &mut Model| {
            let ticket = model.begin_read(&name);
            model.judge_found(&ticket, 3, b"1")
        };
        judge(&mut late).unwrap();
        judge(&mut failed).unwrap_err();
        late.adopt(&BTreeMap::new()).expect_err("it was seen and is lost");
        failed.adopt(&BTreeMap::new()).unwrap();
    }
}
