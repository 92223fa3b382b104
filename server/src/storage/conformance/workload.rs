//! Work for a store under test, drawn from a seed.

use super::oracle::{History, Session, Write, delete, entity, put};
use super::{Checked, StorageUnderTest};
use crate::runtime::platform::{Clock, Platform};
use crate::runtime::sim::Random;
use crate::storage::Storage;
use futures_lite::future::zip;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::Duration;

/// Decides the work of checks that take no seed.
pub(super) const MODEL_SEED: u64 = 0xDE17A;

/// One to five changes among few entities, so that they meet again and again.
pub(super) fn random_writes(random: &mut Random) -> Vec<Write> {
    (0..random.between(1, 5))
        .map(|_| {
            let schema = ["s", "t", "schema with a longer name"][random.below(3) as usize];
            let key = format!("key {}", random.below(12));
            if random.below(4) == 0 {
                return delete(schema, &key);
            }
            let body_bytes = match random.below(8) {
                0 => random.between(4_000, 20_000),
                1 => 0,
                _ => random.between(1, 600),
            };
            let mut body = vec![0; body_bytes as usize];
            random.fill(&mut body);
            put(schema, &key, body)
        })
        .collect()
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
    batches: usize,
) -> Checked<Ending> {
    for _ in 0..batches {
        if session.append(&random_writes(random))?.is_err() {
            return Ok(Ending::Refused);
        }
        let during = random_writes(random);
        let overlaps = random.below(2) == 0;
        let done = Cell::new(false);
        let commit = async {
            let committed = session.commit().await;
            done.set(true);
            committed
        };
        let meanwhile = async {
            let appended = if overlaps { session.append(&during).map(|answer| answer.is_ok()) } else { Ok(true) };
            watch(session, platform, &done).await;
            appended
        };
        let (committed, appended) = zip(commit, meanwhile).await;
        if committed.is_err() || !appended? {
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

/// A life of a store, for comparing two runs of it.
pub(super) async fn replayable<T: StorageUnderTest>(under_test: &T, platform: &T::Platform, seed: u64) -> Checked {
    let history = RefCell::new(History::default());
    for life in 0..2 {
        let storage = under_test.open(platform, Path::new("/data")).await?;
        let session = Session::begin(storage, &history).await?;
        work(&session, platform, &mut Random::new(seed + life), 8).await?;
        session.verify().await?;
        session.storage.shutdown().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}
