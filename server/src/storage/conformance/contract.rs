//! The contract where nothing fails: visibility, versions, reads, listings, counts, bounds, shutdown and reopening.

use super::oracle::{History, Session, Write, delete, entity, put, read};
use super::workload::{self, random_writes};
use super::{Checked, StorageUnderTest, Violation};
use crate::command::Version;
use crate::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, ENTITY_KEY_BYTES_MAX, SCHEMA_ID_BYTES_MAX};
use crate::runtime::sim::Random;
use crate::storage::{Refusal, Storage};
use futures_lite::future::zip;
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// Checks the contract; every check gets a directory of its own below this one.
pub async fn check_contract<T: StorageUnderTest>(
    under_test: &T,
    platform: &T::Platform,
    directory: &Path,
) -> Result<(), Violation> {
    macro_rules! run {
        ($($check:ident),+ $(,)?) => {$(
            let bench = Bench {
                under_test,
                platform,
                directory: directory.join(stringify!($check)),
                history: RefCell::default(),
            };
            if let Err(detail) = $check(&bench).await {
                return Err(Violation { check: stringify!($check), seed: 0, detail });
            }
        )+};
    }
    run!(
        an_empty_store_holds_nothing,
        nothing_is_visible_before_its_commit,
        documents_come_back_to_the_byte,
        the_last_change_of_an_entity_wins,
        deletions_delete_and_schemas_count,
        names_are_not_confused,
        keys_are_listed_in_byte_order_by_pages,
        a_batch_takes_many_changes,
        the_next_batch_fills_while_a_commit_is_in_flight,
        a_full_batch_is_refused_and_leaves_nothing,
        large_documents_are_kept,
        a_shut_down_store_opens_as_it_was,
        random_work_matches_the_model,
    );
    Ok(())
}

struct Bench<'a, T: StorageUnderTest> {
    under_test: &'a T,
    platform: &'a T::Platform,
    directory: PathBuf,
    history: RefCell<History>,
}

impl<T: StorageUnderTest> Bench<'_, T> {
    /// Opens the store and compares what it holds with what it must.
    async fn open(&self) -> Checked<Session<'_, T::Storage>> {
        let opened = self.under_test.open(self.platform, &self.directory).await;
        Session::begin(opened.map_err(|error| format!("the store does not open: {error}"))?, &self.history).await
    }

    /// Shuts the store down and opens it again.
    async fn reopen(&self, session: Session<'_, T::Storage>) -> Checked<Session<'_, T::Storage>> {
        session.storage.shutdown().await.map_err(|error| format!("shutdown failed: {error}"))?;
        drop(session);
        self.open().await
    }
}

async fn an_empty_store_holds_nothing<T: StorageUnderTest>(bench: &Bench<'_, T>) -> Checked {
    let session = bench.open().await?;
    must(!session.storage.has_open_batch(), "an open batch in a fresh store")?;
    must(session.storage.schemas().is_empty(), "schemas in a fresh store")?;
    must(session.storage.list("s", "", None, 10).is_empty(), "a listing of a schema that never was")?;
    session.must_commit().await?;
    bench.reopen(session).await?.verify().await
}

async fn nothing_is_visible_before_its_commit<T: StorageUnderTest>(bench: &Bench<'_, T>) -> Checked {
    let session = bench.open().await?;
    session.must_append(&[put("s", "k", "1"), put("s", "l", "1")])?;
    must(session.storage.has_open_batch(), "no open batch after an append")?;
    session.verify().await.map_err(|error| format!("before the first commit, {error}"))?;
    session.must_commit().await?;
    must(!session.storage.has_open_batch(), "an open batch right after its commit")?;
    session.verify().await?;
    session.must_append(&[put("s", "k", "2"), delete("s", "l"), put("t", "m", "1")])?;
    session.verify().await.map_err(|error| format!("before the second commit, {error}"))?;
    session.must_commit().await?;
    session.verify().await
}

async fn documents_come_back_to_the_byte<T: StorageUnderTest>(bench: &Bench<'_, T>) -> Checked {
    let session = bench.open().await?;
    let every_byte: Vec<u8> = (0..=255).collect();
    let longest_key = "k".repeat(ENTITY_KEY_BYTES_MAX);
    let longest_schema = "s".repeat(SCHEMA_ID_BYTES_MAX);
    let mut writes = vec![
        put("s", "empty", ""),
        put("s", "every byte", every_byte),
        put("s", "\u{10FFFF} \u{1F41F}é\"\n", "{}"),
        put(&longest_schema, &longest_key, "[]"),
    ];
    // Around the sizes of sectors and pages, where padding could be mistaken for content.
    for len in [1, 511, 512, 513, 4095, 4096, 4097, 65_536] {
        writes.push(put("sizes", &len.to_string(), vec![0; len]));
    }
    session.must_write(&writes).await?;
    session.verify().await?;
    bench.reopen(session).await?.verify().await
}

async fn the_last_change_of_an_entity_wins<T: StorageUnderTest>(bench: &Bench<'_, T>) -> Checked {
    let session = bench.open().await?;
    session.must_write(&[put("s", "a", "1"), put("s", "a", "2"), put("s", "a", "3")]).await?;
    session.verify().await?;
    session.must_append(&[put("s", "b", "1"), delete("s", "b"), delete("s", "a")])?;
    session.must_append(&[put("s", "a", "4"), delete("s", "never there")])?;
    session.must_commit().await?;
    session.verify().await?;
    bench.reopen(session).await?.verify().await
}

async fn deletions_delete_and_schemas_count<T: StorageUnderTest>(bench: &Bench<'_, T>) -> Checked {
    let mut session = bench.open().await?;
    session.must_write(&[put("s", "a", "1"), put("s", "b", "1"), put("t", "a", "1")]).await?;
    let mut counts = session.storage.schemas();
    counts.sort();
    must(counts == [("s".to_owned(), 2), ("t".to_owned(), 1)], "schemas() does not count what was put")?;
    session.must_write(&[delete("s", "a"), delete("t", "a")]).await?;
    session.verify().await?;
    must(session.storage.schemas() == [("s".to_owned(), 1)], "schemas() does not count what was deleted")?;
    for round in 0..3 {
        session = bench.reopen(session).await?;
        session.must_write(&[put("t", "a", "again"), delete("s", "b")]).await?;
        session.must_write(&[delete("t", "a"), put("s", "c", [b'0' + round])]).await?;
        session.verify().await?;
    }
    Ok(())
}

async fn names_are_not_confused<T: StorageUnderTest>(bench: &Bench<'_, T>) -> Checked {
    let session = bench.open().await?;
    session.must_write(&[put("ab", "c", "1"), put("a", "bc", "2"), put("abc", "d", "3")]).await?;
    session.must_write(&[delete("a", "bc"), put("A", "bc", "4"), put("ab", "C", "5")]).await?;
    session.verify().await?;
    bench.reopen(session).await?.verify().await
}

async fn keys_are_listed_in_byte_order_by_pages<T: StorageUnderTest>(bench: &Bench<'_, T>) -> Checked {
    let mut session = bench.open().await?;
    let keys = ["a", "a ", "a/b", "aa", "ab", "ab\u{7F}", "abé", "abc", "b", "B", "é", "\u{10FFFF}", "~", "0", "00"];
    let writes: Vec<_> = keys.iter().map(|key| put("s", key, "1")).collect();
    session.must_write(&writes).await?;
    session.must_write(&[put("r", "a", "1"), put("t", "a", "1"), delete("s", "aa")]).await?;
    let mut sorted: Vec<_> = keys.into_iter().filter(|key| *key != "aa").collect();
    sorted.sort_unstable_by_key(|key| key.as_bytes());
    for _ in 0..2 {
        for prefix in ["", "a", "ab", "b", "zz", "é"] {
            for after in [None, Some(""), Some("a"), Some("aa"), Some("ab"), Some("abb"), Some("\u{10FFFF}")] {
                for limit in [0, 1, 2, 5, 100] {
                    let matching = sorted.iter().filter(|key| key.starts_with(prefix));
                    let expected: Vec<_> =
                        matching.filter(|key| after.is_none_or(|after| **key > after)).take(limit).copied().collect();
                    let listed = session.storage.list("s", prefix, after, limit);
                    let found: Vec<_> = listed.iter().map(|entry| &*entry.0).collect();
                    if found != expected {
                        let asked = format!("prefix {prefix:?} after {after:?} limit {limit}");
                        return Err(format!("list with {asked} gave {found:?} and not {expected:?}"));
                    }
                }
            }
        }
        session = bench.reopen(session).await?;
    }
    Ok(())
}

async fn a_batch_takes_many_changes<T: StorageUnderTest>(bench: &Bench<'_, T>) -> Checked {
    let session = bench.open().await?;
    let write = |number: usize, body: &str| put(&format!("s{}", number % 3), &number.to_string(), body);
    let writes: Vec<_> = (0..1000).map(|number| write(number, "first")).collect();
    session.must_write(&writes).await?;
    let writes: Vec<_> = (0..1000).step_by(7).map(|number| write(number, "second")).collect();
    for pair in writes.chunks(2) {
        session.must_append(pair)?;
    }
    session.must_commit().await?;
    session.verify().await?;
    bench.reopen(session).await?.verify().await
}

async fn the_next_batch_fills_while_a_commit_is_in_flight<T: StorageUnderTest>(bench: &Bench<'_, T>) -> Checked {
    let session = bench.open().await?;
    for round in 0..20_u8 {
        let name = ("s".to_owned(), "k".to_owned());
        if !session.storage.has_open_batch() {
            session.must_append(&[put("s", "k", [round])])?;
        }
        let next = async {
            let versions = session.must_append(&[put("s", "k", [round, round]), put("s", &round.to_string(), "x")])?;
            Checked::Ok(versions[0])
        };
        let (committed, appended): (Checked, Checked<Version>) = zip(session.must_commit(), next).await;
        committed?;
        let version = appended?;
        must(session.storage.has_open_batch(), "what was appended during a commit is not in an open batch")?;
        session.verify().await.map_err(|error| format!("after the first of two commits, {error}"))?;
        if round % 2 == 0 {
            session.must_commit().await?;
            let durable = session.storage.durable_version(entity(&name));
            must(durable == Some(version), "the batch that filled during a commit was not committed by the next")?;
            must(read(&*session.storage, &name).await?.is_some(), "it cannot be read")?;
        }
    }
    session.must_commit().await?;
    bench.reopen(session).await?.verify().await
}

async fn a_full_batch_is_refused_and_leaves_nothing<T: StorageUnderTest>(bench: &Bench<'_, T>) -> Checked {
    let session = bench.open().await?;
    for (body_bytes, changes_each) in [(1, 512), (64 << 10, 4)] {
        let appends_max = (BATCH_RECORDS_MAX / changes_each).min(BATCH_BYTES_MAX / (body_bytes * changes_each)) + 2;
        let writes = |round: usize| -> Vec<Write> {
            (0..changes_each).map(|number| put("s", &format!("{round}-{number}"), vec![7; body_bytes])).collect()
        };
        let mut refused = None;
        for round in 0..appends_max {
            if let Err(refusal) = session.append(&writes(round))? {
                refused = Some((round, refusal));
                break;
            }
        }
        let Some((round, refusal)) = refused else {
            return Err(format!("{appends_max} appends of {changes_each} times {body_bytes} bytes fit one batch"));
        };
        must(refusal == Refusal::BatchFull, &format!("a full batch is refused as: {refusal}"))?;
        must(round > 0, "an empty batch is full")?;
        session.must_commit().await?;
        session.verify().await?;
        session.must_write(&writes(round)).await?;
        session.verify().await?;
    }
    bench.reopen(session).await?.verify().await
}

async fn large_documents_are_kept<T: StorageUnderTest>(bench: &Bench<'_, T>) -> Checked {
    let session = bench.open().await?;
    let largest = bench.under_test.document_bytes_max();
    for (number, body_bytes) in [1 << 20, largest, (1 << 20) + 1].into_iter().enumerate() {
        let mut body = vec![0; body_bytes];
        Random::new(number as u64).fill(&mut body);
        session.must_write(&[put("s", &number.to_string(), body), put("s", "small", "x")]).await?;
    }
    session.verify().await?;
    bench.reopen(session).await?.verify().await
}

async fn a_shut_down_store_opens_as_it_was<T: StorageUnderTest>(bench: &Bench<'_, T>) -> Checked {
    let mut session = bench.open().await?;
    for round in 0..4 {
        session.must_write(&[put("s", "k", [round]), put("s", &round.to_string(), "x")]).await?;
        session = bench.reopen(session).await?;
        session.verify().await?;
        // Once more with nothing written in between.
        session = bench.reopen(session).await?;
    }
    Ok(())
}

async fn random_work_matches_the_model<T: StorageUnderTest>(bench: &Bench<'_, T>) -> Checked {
    let mut random = Random::new(workload::MODEL_SEED);
    let mut session = bench.open().await?;
    for _ in 0..6 {
        for _ in 0..30 {
            session.must_append(&random_writes(&mut random))?;
            if random.below(2) == 0 {
                session.must_commit().await?;
            }
        }
        session.must_commit().await?;
        session.verify().await?;
        session = bench.reopen(session).await?;
    }
    Ok(())
}

pub(super) fn must(holds: bool, otherwise: &str) -> Checked {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}
