//! Work for a store under test, drawn from a seed.

use super::oracle::{History, Session, Write, delete, entity, put, read};
use super::{Checked, StorageUnderTest};
use crate::runtime::platform::{Clock, Platform};
use crate::runtime::sim::Random;
use crate::storage::{Refusal, Storage};
use futures_lite::future::zip;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::Duration;

/// Decides the work of checks that take no seed.
pub(super) const MODEL_SEED: u64 = 0xDE17A;

/// What the changes of a stretch of work look like.
#[derive(Clone, Copy)]
pub(super) struct Load {
    keys: u64,
    changes_max: u64,
    body_bytes_max: u64,
}

impl Load {
    /// Few small entities, so that they meet again and again.
    pub(super) const SMALL: Self = Self { keys: 12, changes_max: 5, body_bytes_max: 600 };
    /// Much written and little kept, so that whatever a backend does to reclaim space happens.
    pub(super) const CHURN: Self = Self { keys: 16, changes_max: 12, body_bytes_max: 48 << 10 };

    /// The changes of one append; a quarter are deletions, some documents are empty and some larger than the rest.
    pub(super) fn draw(self, random: &mut Random) -> Vec<Write> {
        (0..random.between(1, self.changes_max))
            .map(|_| {
                let schema = ["s", "t", "schema with a longer name"][random.below(3) as usize];
                let key = format!("key {}", random.below(self.keys));
                if random.below(4) == 0 {
                    return delete(schema, &key);
                }
                let body_bytes = match random.below(8) {
                    0 => random.between(4_000, 20_000),
                    1 => 0,
                    _ => random.between(1, self.body_bytes_max),
                };
                let mut body = vec![0; body_bytes as usize];
                random.fill(&mut body);
                put(schema, &key, body)
            })
            .collect()
    }
}

/// The changes of one append among few small entities.
pub(super) fn random_writes(random: &mut Random) -> Vec<Write> {
    Load::SMALL.draw(random)
}

/// How a stretch of work ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Everything was accepted and committed.
    Done,
    /// The store refused or failed, and said so.
    Refused,
}

/// Appends and commits; some appends come while a commit is in flight. Ends at the first refusal or failed commit.
pub(super) async fn work<S: Storage>(
    session: &Session<'_, S>,
    platform: &impl Platform,
    random: &mut Random,
    load: Load,
    batches: usize,
) -> Checked<Ending> {
    for _ in 0..batches {
        for _ in 0..random.between(1, 3) {
            match session.append(&load.draw(random))? {
                Ok(_) => {}
                // The commit that follows makes room.
                Err(Refusal::BatchFull) if session.storage.has_open_batch() => break,
                Err(_) => return Ok(Ending::Refused),
            }
        }
        let during = load.draw(random);
        let overlaps = random.below(2) == 0;
        let done = Cell::new(false);
        let mut reader = Random::new(random.next_u64());
        let commit = async {
            let committed = session.commit().await;
            done.set(true);
            committed
        };
        let meanwhile = async {
            let appended = if overlaps { session.append(&during) } else { Ok(Ok(Vec::new())) };
            let ((), read) =
                zip(watch(session, platform, &done), read_along(session, platform, &mut reader, &done)).await;
            read.and(appended)
        };
        let (committed, appended) = zip(commit, meanwhile).await;
        let refused = matches!(appended?, Err(refusal) if refusal != Refusal::BatchFull);
        if committed.is_err() || refused {
            return Ok(Ending::Refused);
        }
        if random.below(4) == 0 {
            // Time for whatever a backend does when nobody writes.
            platform.clock().sleep(Duration::from_millis(random.between(1, 400))).await;
        }
    }
    if session.commit().await.is_err() { Ok(Ending::Refused) } else { Ok(Ending::Done) }
}

/// Looks, while a commit is in flight, whether any of it shows already: then it must be durable.
async fn watch<S: Storage>(session: &Session<'_, S>, platform: &impl Platform, done: &Cell<bool>) {
    let undecided = session.history.borrow().undecided();
    while !done.get() {
        for (name, version) in &undecided {
            if session.storage.durable_version(entity(name)) == Some(*version) {
                session.history.borrow_mut().was_shown(*version);
            }
        }
        platform.clock().sleep(Duration::from_micros(20)).await;
    }
}

/// Reads while a commit is in flight: every answer must be a document as it was written, and no older than what was
/// durable when the read began.
async fn read_along<S: Storage>(
    session: &Session<'_, S>,
    platform: &impl Platform,
    random: &mut Random,
    done: &Cell<bool>,
) -> Checked {
    let names = session.history.borrow().names();
    while !done.get() && !names.is_empty() {
        let name = &names[random.below(names.len() as u64) as usize];
        let before = session.storage.durable_version(entity(name));
        let answer = read(&*session.storage, name).await?;
        let after = session.storage.durable_version(entity(name));
        match &answer {
            Some((version, body)) => {
                session.history.borrow().must_have_written(name, *version, body)?;
                if before.is_some_and(|before| *version < before) {
                    return Err(format!("a read of {name:?} gave version {version} when {before:?} was durable"));
                }
            }
            None if before.is_some() && before == after => {
                return Err(format!("a read of {name:?} gave nothing while {before:?} was durable"));
            }
            None => {}
        }
        // A read answered from memory never waits, and others want to run.
        platform.clock().sleep(Duration::from_micros(random.between(1, 50))).await;
    }
    Ok(())
}

/// A life of a store, for comparing two runs of it.
pub(super) async fn replayable<T: StorageUnderTest>(under_test: &T, platform: &T::Platform, seed: u64) -> Checked {
    let history = RefCell::new(History::default());
    for life in 0..2 {
        let storage = under_test.open(platform, Path::new("/data")).await?;
        let session = Session::begin(storage, &history).await?;
        work(&session, platform, &mut Random::new(seed + life), Load::SMALL, 8).await?;
        session.verify().await?;
        session.storage.shutdown().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}
