//! The engine over a storage whose commits the test lets through one by one.

use super::*;
use crate::command::{Condition, Document, PutItem};
use crate::limits::{DISK_TIMEOUT_MS, DISK_WATCH_INTERVAL_MS};
use crate::runtime::sim::{Sim, SimPlatform};
use crate::storage::{Change, CommitError, ListEntry, Mutation, ReadError, Refusal, StorageStatus};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

type Stored = (Version, Option<Document>);

/// Keeps everything in memory; a commit ends when the test says how.
#[derive(Default)]
struct GatedStorage {
    durable: RefCell<BTreeMap<(String, String), Stored>>,
    open: RefCell<Vec<(Version, Document, bool)>>,
    verdicts: RefCell<VecDeque<Result<(), CommitError>>>,
    gate: Signal,
    last_version: Cell<Version>,
    batch_records_max: Cell<usize>,
    commits: Cell<usize>,
    warmed: RefCell<Vec<u64>>,
    reads_hang: Cell<bool>,
    read_gate: Signal,
}

fn names(entity: EntityRef<'_>) -> (String, String) {
    (entity.schema.to_owned(), entity.key.to_owned())
}

impl Storage for GatedStorage {
    fn durable_version(&self, entity: EntityRef<'_>) -> Option<Version> {
        self.durable
            .borrow()
            .get(&names(entity))
            .filter(|(_, document)| document.is_some())
            .map(|(version, _)| *version)
    }

    fn hash(&self, entity: EntityRef<'_>) -> u64 {
        entity.key.len() as u64
    }

    fn warm(&self, hashes: &[u64]) {
        self.warmed.borrow_mut().extend(hashes);
    }

    fn append(&self, changes: &[Change<'_>], versions: &mut Vec<Version>) -> Result<(), Refusal> {
        let mut open = self.open.borrow_mut();
        if open.len() + changes.len() > self.batch_records_max.get() {
            return Err(Refusal::BatchFull);
        }
        for change in changes {
            let version = self.last_version.get() + 1;
            self.last_version.set(version);
            let (body, deleted) = match change.mutation {
                Mutation::Put(body) => (body, false),
                Mutation::Delete => (&[][..], true),
            };
            open.push((version, Document::new(change.entity, body), deleted));
            versions.push(version);
        }
        Ok(())
    }

    fn has_open_batch(&self) -> bool {
        !self.open.borrow().is_empty()
    }

    async fn commit(&self) -> Result<(), CommitError> {
        let batch = self.open.take();
        self.commits.set(self.commits.get() + 1);
        let verdict = loop {
            let verdict = self.verdicts.borrow_mut().pop_front();
            match verdict {
                Some(verdict) => break verdict,
                None => self.gate.wait().await,
            }
        };
        if verdict.is_err() {
            self.open.borrow_mut().clear();
        } else {
            for (version, document, deleted) in batch {
                let name = names(document.entity());
                self.durable.borrow_mut().insert(name, (version, (!deleted).then_some(document)));
            }
        }
        verdict
    }

    async fn read(&self, entity: EntityRef<'_>) -> Result<Option<(Version, Document)>, ReadError> {
        while self.reads_hang.get() {
            self.read_gate.wait().await;
        }
        let found = self.durable.borrow().get(&names(entity)).cloned();
        Ok(found.and_then(|(version, document)| Some((version, document?))))
    }

    fn list(&self, schema: &str, prefix: &str, after: Option<&str>, limit: usize) -> Vec<ListEntry> {
        let durable = self.durable.borrow();
        let wanted = durable.iter().filter(|((of, key), (_, document))| {
            of == schema
                && key.starts_with(prefix)
                && document.is_some()
                && after.is_none_or(|after| key.as_str() > after)
        });
        wanted.map(|((_, key), (version, _))| (key.as_str().into(), *version)).take(limit).collect()
    }

    fn schemas(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    fn status(&self) -> StorageStatus {
        StorageStatus::default()
    }

    async fn adopt_keyring(&self, _: Arc<crate::crypto::keyring::Keyring>) -> Result<(), CommitError> {
        Ok(())
    }

    fn key_ids_in_use(&self) -> Vec<crate::crypto::keyring::DataKeyId> {
        Vec::new()
    }

    async fn shutdown(&self) -> Result<(), CommitError> {
        Ok(())
    }
}

/// An engine, and every delayed outcome in the order it was delivered.
struct Bench {
    sim: Sim,
    engine: Rc<Engine<SimPlatform, GatedStorage>>,
    delivered: Rc<RefCell<Vec<(u32, Outcome)>>>,
}

impl Bench {
    fn new(batch_records_max: usize) -> Self {
        let sim = Sim::new(11);
        let storage = Rc::new(GatedStorage::default());
        storage.batch_records_max.set(batch_records_max);
        let delivered: Rc<RefCell<Vec<(u32, Outcome)>>> = Rc::default();
        let seen = delivered.clone();
        let sink: Sink = Rc::new(move |ticket, outcome| {
            let Ticket::Task { slot } = ticket else { panic!("tests use task tickets") };
            seen.borrow_mut().push((slot, outcome));
        });
        let cache = CacheOptions { bytes_max: 1 << 20, entries_max: 1 << 10, ttl_ms: 0 };
        let engine = Engine::start(sim.platform(), storage, cache, Metrics::new(1), 0, sink);
        Self { sim, engine, delivered }
    }

    fn execute(&self, slot: u32, command: Command<'_>) -> Option<Outcome> {
        let outcome = self.engine.execute(command, Ticket::Task { slot });
        self.settle();
        outcome
    }

    fn put(&self, slot: u32, key: &'static str, body: &'static str, condition: Condition) -> Option<Outcome> {
        let document = Cow::Borrowed(body.as_bytes());
        self.execute(slot, Command::Put { schema: "s".into(), key: key.into(), document, condition })
    }

    fn delete(&self, slot: u32, key: &'static str) -> Option<Outcome> {
        self.execute(slot, Command::Delete { schema: "s".into(), key: key.into(), condition: Condition::None })
    }

    fn get(&self, slot: u32, key: &'static str) -> Option<Outcome> {
        self.execute(slot, Command::Get { schema: "s".into(), key: key.into() })
    }

    /// Ends the commit in flight.
    fn let_through(&self, verdict: Result<(), CommitError>) {
        self.engine.storage.verdicts.borrow_mut().push_back(verdict);
        self.engine.storage.gate.raise();
        self.settle();
    }

    fn settle(&self) {
        // The commit task waits for ever when nothing is open; running until it does is what "settled" means here.
        let _ = self.sim.run_for(Duration::from_millis(1));
    }

    /// Longer than anybody waits for the disk.
    fn out_wait(&self) {
        self.sim.run_for(Duration::from_millis(DISK_TIMEOUT_MS + 2 * DISK_WATCH_INTERVAL_MS)).unwrap();
    }

    fn answers(&self) -> Vec<(u32, String)> {
        self.delivered.take().into_iter().map(|(slot, outcome)| (slot, brief(&outcome))).collect()
    }
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Written { version, created } => format!("written {version} {created}"),
        Outcome::Deleted { version } => format!("deleted {version}"),
        Outcome::Document { version, document } => {
            format!("document {version} {}", String::from_utf8_lossy(document.body()))
        }
        Outcome::Failed(failure) => failure.code.name().to_owned(),
        Outcome::WrittenMany(results) => {
            let one = |result: &Result<(Version, bool), Failure>| match result {
                Ok((version, created)) => format!("{version}:{created}"),
                Err(failure) => failure.code.name().to_owned(),
            };
            results.iter().map(one).collect::<Vec<_>>().join(",")
        }
        other => format!("{other:?}"),
    }
}

fn known(outcome: Option<Outcome>) -> String {
    outcome.as_ref().map_or("later".into(), brief)
}

fn answers(expected: &[(u32, &str)]) -> Vec<(u32, String)> {
    expected.iter().map(|(slot, text)| (*slot, (*text).to_owned())).collect()
}

#[test]
fn a_write_is_answered_and_shown_only_after_its_commit() {
    let bench = Bench::new(100);
    assert_eq!(known(bench.put(1, "k", "{}", Condition::None)), "later");
    assert_eq!(known(bench.get(2, "k")), "not_found");
    assert_eq!(bench.answers(), []);
    bench.let_through(Ok(()));
    assert_eq!(bench.answers(), answers(&[(1, "written 1 true")]));
    assert_eq!(known(bench.get(3, "k")), "document 1 {}");
}

#[test]
fn conditions_are_judged_against_pending_versions_and_answered_with_their_commit() {
    let bench = Bench::new(100);
    bench.put(1, "k", "1", Condition::IfAbsent);
    assert_eq!(known(bench.put(2, "k", "2", Condition::IfAbsent)), "later", "decided by an undurable version");
    assert_eq!(known(bench.put(3, "k", "3", Condition::IfVersion(1))), "later");
    assert_eq!(known(bench.delete(4, "k")), "later");
    assert_eq!(known(bench.delete(5, "k")), "later", "the 404 is decided by an undurable deletion");
    bench.let_through(Ok(()));
    assert_eq!(bench.answers(), answers(&[(1, "written 1 true"), (2, "precondition_failed")]));
    bench.let_through(Ok(()));
    assert_eq!(bench.answers(), answers(&[(3, "written 2 false"), (4, "deleted 3"), (5, "not_found")]));
    assert_eq!(known(bench.put(6, "k", "6", Condition::IfPresent)), "precondition_failed", "decided by a durable one");
}

#[test]
fn writes_during_a_commit_share_the_next_one() {
    let bench = Bench::new(100);
    for slot in 0..10 {
        bench.put(slot, "k", "1", Condition::None);
    }
    bench.let_through(Ok(()));
    bench.let_through(Ok(()));
    assert_eq!(bench.engine.storage.commits.get(), 2);
    assert_eq!(bench.answers().len(), 10);
    assert_eq!(bench.engine.outstanding(), 0);
}

#[test]
fn a_failed_commit_leaves_the_outcome_unknown_and_drops_what_was_judged_on_it() {
    let bench = Bench::new(100);
    bench.put(1, "k", "1", Condition::None);
    bench.put(2, "k", "2", Condition::IfAbsent);
    bench.put(3, "k", "3", Condition::IfVersion(1));
    bench.let_through(Err(CommitError::OutcomeUnknown { reason: "EIO".into() }));
    assert_eq!(bench.answers(), answers(&[(1, "outcome_unknown"), (2, "unavailable"), (3, "unavailable")]));
    assert_eq!(known(bench.get(4, "k")), "not_found");
    assert_eq!(bench.engine.outstanding(), 0);
}

#[test]
fn a_write_whose_commit_takes_too_long_has_an_unknown_outcome_and_is_settled_in_silence() {
    let bench = Bench::new(3);
    let item = |key: &'static str| PutItem { key: key.into(), document: Cow::Borrowed(&b"1"[..]) };
    bench.put(1, "k", "1", Condition::None);
    bench.put(2, "k", "2", Condition::IfAbsent);
    bench.execute(3, Command::MultiPut { schema: "s".into(), items: vec![item("a"), item("b")] });
    bench.delete(4, "k");
    bench.put(5, "later", "1", Condition::None);
    assert_eq!((bench.answers(), bench.engine.outstanding()), (vec![], 5));
    bench.sim.run_for(Duration::from_millis(DISK_TIMEOUT_MS - 2 * DISK_WATCH_INTERVAL_MS)).unwrap();
    assert_eq!(bench.answers(), [], "nobody is given up before the time");
    bench.out_wait();
    let given_up =
        [(1, "outcome_unknown"), (2, "unavailable"), (3, "outcome_unknown,outcome_unknown"), (4, "outcome_unknown")];
    assert_eq!(bench.answers(), answers(&[&given_up[..], &[(5, "unavailable")]].concat()));
    assert!(bench.engine.is_stalled() && bench.engine.outstanding() == 0);
    assert_eq!(known(bench.put(6, "k", "6", Condition::None)), "unavailable", "nothing is begun on such a disk");
    assert_eq!(known(bench.get(7, "k")), "not_found");

    bench.let_through(Ok(()));
    assert_eq!(known(bench.get(8, "k")), "document 1 1", "what landed late is shown");
    assert!(!bench.engine.is_stalled());
    assert_eq!(known(bench.put(9, "other", "9", Condition::None)), "later");
    bench.let_through(Ok(()));
    assert_eq!((known(bench.get(10, "a")), known(bench.get(11, "k"))), ("document 2 1".into(), "not_found".into()));
    bench.let_through(Ok(()));
    assert_eq!(bench.answers(), answers(&[(9, "written 5 true")]), "nobody is answered twice");
    assert_eq!(known(bench.get(12, "later")), "not_found", "what was refused was never done");
    assert_eq!(bench.engine.outstanding(), 0);
}

#[test]
fn each_write_waits_its_own_time_and_a_failure_after_it_is_not_told_again() {
    let bench = Bench::new(100);
    bench.put(1, "k", "1", Condition::None);
    bench.sim.run_for(Duration::from_millis(DISK_TIMEOUT_MS / 2)).unwrap();
    bench.put(2, "k", "2", Condition::None);
    bench.sim.run_for(Duration::from_millis(DISK_TIMEOUT_MS / 2 + 2 * DISK_WATCH_INTERVAL_MS)).unwrap();
    assert_eq!((bench.answers(), bench.engine.outstanding()), (answers(&[(1, "outcome_unknown")]), 1));
    bench.let_through(Err(CommitError::OutcomeUnknown { reason: "EIO".into() }));
    assert_eq!(bench.answers(), answers(&[(2, "unavailable")]));
    assert_eq!(bench.engine.outstanding(), 0);
}

#[test]
fn a_read_that_takes_too_long_is_answered_and_dropped_when_it_comes() {
    let bench = Bench::new(100);
    bench.put(1, "k", "1", Condition::None);
    bench.let_through(Ok(()));
    bench.answers();
    bench.engine.clear_cache();
    bench.engine.storage.reads_hang.set(true);
    assert_eq!(known(bench.get(2, "k")), "later");
    let keys = vec!["k".into(), "none".into()];
    assert!(bench.execute(3, Command::MultiGet { schema: "s".into(), keys }).is_none());
    bench.out_wait();
    assert_eq!(bench.answers(), answers(&[(2, "unavailable"), (3, "unavailable")]));
    assert_eq!(bench.engine.outstanding(), 0);
    bench.engine.storage.reads_hang.set(false);
    for _ in 0..2 {
        bench.engine.storage.read_gate.raise();
        bench.settle();
    }
    assert_eq!(bench.answers(), []);
    assert_eq!(known(bench.get(4, "k")), "document 1 1");
}

#[test]
fn at_the_end_everybody_is_answered_and_nothing_more_begun() {
    let bench = Bench::new(1);
    bench.put(1, "a", "1", Condition::None);
    bench.let_through(Ok(()));
    bench.engine.clear_cache();
    bench.engine.storage.reads_hang.set(true);
    bench.put(2, "b", "1", Condition::None);
    bench.put(3, "c", "1", Condition::None);
    bench.put(4, "d", "1", Condition::None);
    bench.get(5, "a");
    bench.answers();
    bench.engine.give_up();
    bench.settle();
    let told = [(2, "outcome_unknown"), (3, "outcome_unknown"), (4, "unavailable"), (5, "unavailable")];
    assert_eq!(bench.answers(), answers(&told));
    assert_eq!(bench.engine.outstanding(), 0);
    for outcome in [bench.put(6, "e", "1", Condition::None), bench.get(7, "a")] {
        let Some(Outcome::Failed(failure)) = outcome else { panic!("refused at once") };
        assert_eq!(failure.code, ErrorCode::Unavailable);
        assert!(failure.message.contains("shutting down"), "{}", failure.message);
    }
    bench.let_through(Ok(()));
    bench.let_through(Ok(()));
    assert_eq!(bench.answers(), [], "what lands after the end is not told again");
}

#[test]
fn writes_that_find_no_room_wait_in_order() {
    let bench = Bench::new(2);
    for slot in 0..7 {
        assert_eq!(known(bench.put(slot, "k", "1", Condition::None)), "later");
    }
    for _ in 0..4 {
        bench.let_through(Ok(()));
    }
    let order: Vec<u32> = bench.answers().into_iter().map(|(slot, _)| slot).collect();
    assert_eq!(order, (0..7).collect::<Vec<_>>());
    assert_eq!(known(bench.get(9, "k")), "document 7 1");
}

#[test]
fn several_keys_are_one_batch_or_each_for_itself_when_they_never_fit() {
    let item = |key: &'static str| PutItem { key: key.into(), document: Cow::Borrowed(&b"1"[..]) };
    let bench = Bench::new(2);
    bench.execute(1, Command::MultiPut { schema: "s".into(), items: vec![item("a"), item("b")] });
    bench.let_through(Ok(()));
    assert_eq!(bench.answers(), answers(&[(1, "1:true,2:true")]));
    bench.execute(2, Command::MultiPut { schema: "s".into(), items: vec![item("a"), item("b"), item("c")] });
    bench.let_through(Ok(()));
    assert_eq!(bench.answers(), answers(&[(2, "3:false,4:false,overloaded")]));
}

#[test]
fn a_miss_reads_once_and_fills_the_cache() {
    let bench = Bench::new(100);
    bench.put(1, "k", "1", Condition::None);
    bench.let_through(Ok(()));
    bench.answers();
    bench.engine.clear_cache();
    assert_eq!(known(bench.get(2, "k")), "later");
    assert_eq!(bench.answers(), answers(&[(2, "document 1 1")]));
    assert_eq!(known(bench.get(3, "k")), "document 1 1");
    bench.engine.clear_cache();
    let keys = vec!["k".into(), "none".into(), "k".into()];
    assert!(bench.execute(4, Command::MultiGet { schema: "s".into(), keys }).is_none());
    let Some((4, Outcome::Documents(results))) = bench.delivered.take().pop() else { panic!("one gathered answer") };
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn a_page_names_where_the_next_begins() {
    let bench = Bench::new(100);
    for key in ["a1", "a2", "a3", "b1"] {
        bench.put(0, key, "1", Condition::None);
        bench.let_through(Ok(()));
    }
    let page = |after: Option<&'static str>| {
        let after = after.map(Cow::Borrowed);
        let command = Command::List { schema: "s".into(), prefix: "a".into(), after, limit: 2, documents: false };
        let Some(Outcome::Page(page)) = bench.execute(9, command) else { panic!("a page at once") };
        (page.entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>().join(" "), page.next)
    };
    assert_eq!(page(None), ("a1 a2".into(), Some("a2".into())));
    assert_eq!(page(Some("a2")), ("a3".into(), None));
}

#[test]
fn looking_ahead_changes_nothing_and_begins_with_a_large_store() {
    let bench = Bench::new(100);
    bench.put(1, "k", "1", Condition::None);
    bench.let_through(Ok(()));
    bench.answers();
    let entity = |key| EntityRef { schema: "s", key };
    let requests = [
        (entity("k"), Access::Read),
        (entity("no"), Access::Read),
        (entity("k"), Access::Write),
        (entity("new"), Access::Write),
    ];
    bench.engine.look_ahead(&mut requests.into_iter());
    assert_eq!(bench.engine.storage.warmed.take(), [0u64; 0], "a small store is looked up as it is");
    bench.engine.looks_ahead.set(true);
    for _ in 0..2 {
        bench.engine.look_ahead(&mut requests.into_iter());
        assert_eq!(bench.engine.storage.warmed.take(), [1, 3]);
    }
    assert_eq!(known(bench.get(2, "k")), "document 1 1");
    assert_eq!(known(bench.get(3, "new")), "not_found");
    assert_eq!(bench.answers(), []);
}
