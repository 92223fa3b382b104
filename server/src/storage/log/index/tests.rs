//! The index against a model.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn place(number: u64) -> Place {
    Place { slot: (number % 7) as u32, offset: number as u32 * 8, length: number as u32 % 100 + 1 }
}

#[derive(Clone, Debug)]
enum Operation {
    Put(u8, u16),
    Remove(u8, u16),
    List(u8, u16, u16, usize),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        6 => (0..3u8, 0..900u16).prop_map(|(schema, key)| Operation::Put(schema, key)),
        4 => (0..3u8, 0..900u16).prop_map(|(schema, key)| Operation::Remove(schema, key)),
        1 => (0..3u8, 0..100u16, 0..900u16, 0..40usize)
            .prop_map(|(schema, prefix, after, limit)| Operation::List(schema, prefix, after, limit)),
    ];
    prop::collection::vec(operation, 0..3000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn behaves_as_a_sorted_map(operations in operations(), seed: u64) {
        let mut index = Index::new(seed);
        let mut model: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (version, operation) in (1..).zip(operations) {
            match operation {
                Operation::Put(schema, key) => {
                    let (schema, key) = (format!("s{schema}"), key.to_string());
                    let entity = EntityRef { schema: &schema, key: &key };
                    let previous = index.put(entity, version, place(version));
                    let expected = model.insert((schema, key), version);
                    prop_assert_eq!(previous.map(|previous| previous.version), expected);
                }
                Operation::Remove(schema, key) => {
                    let (schema, key) = (format!("s{schema}"), key.to_string());
                    let previous = index.remove(EntityRef { schema: &schema, key: &key });
                    let expected = model.remove(&(schema, key));
                    prop_assert_eq!(previous.map(|previous| (previous.version, previous.place)),
                        expected.map(|version| (version, place(version))));
                }
                Operation::List(schema, prefix, after, limit) => {
                    let (schema, prefix, after) = (format!("s{schema}"), prefix.to_string(), after.to_string());
                    let found = index.list(&schema, &prefix, Some(&after), limit);
                    let expected: Vec<(Box<str>, u64)> = model
                        .iter()
                        .filter(|((of, key), _)| *of == schema && key.starts_with(&prefix) && *key > after)
                        .take(limit)
                        .map(|((_, key), version)| (key.as_str().into(), *version))
                        .collect();
                    prop_assert_eq!(found, expected);
                }
            }
        }
        prop_assert_eq!(index.len(), model.len() as u64);
        let mut walked = Vec::new();
        let mut cursor = WalkCursor::default();
        let mut left = 0;
        while !index.walk(&mut cursor, |schema, entry| {
            walked.push(((schema.to_owned(), entry.key.to_string()), entry.version));
            left += 1;
            if left % 10 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }) {}
        walked.sort();
        prop_assert_eq!(walked, model.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(index.schemas().iter().map(|(_, count)| *count).sum::<u64>(), index.len());
    }

    #[test]
    fn replay_in_any_order_ends_in_the_newest(
        records in prop::collection::vec((0..20u16, any::<bool>()), 1..200),
        order in any::<u64>(),
        later: bool,
    ) {
        let mut shuffled: Vec<(u64, (u16, bool))> = (1..).zip(records.iter().copied()).collect();
        shuffled.sort_by_key(|(version, _)| xxhash_rust::xxh3::xxh3_64_with_seed(&version.to_le_bytes(), order));
        let mut index = Index::new(order);
        if later {
            index.order_later();
        }
        let mut live = 0i64;
        for (version, (key, put)) in shuffled {
            let key = key.to_string();
            let entity = EntityRef { schema: "s", key: &key };
            let replayed = if put {
                let replayed = index.replay_put(entity, version, place(version), true);
                live += i64::from(replayed != Replayed::Ignored);
                replayed
            } else {
                index.replay_delete(entity, version)
            };
            live -= i64::from(matches!(replayed, Replayed::Applied(Some(_))));
        }
        index.finish_replay();
        let mut model = BTreeMap::new();
        for (version, (key, put)) in (1u64..).zip(records) {
            if put { model.insert(key.to_string(), version) } else { model.remove(&key.to_string()) };
        }
        let expected: Vec<ListEntry> =
            model.iter().map(|(key, version)| (key.as_str().into(), *version)).collect();
        prop_assert_eq!(index.list("s", "", None, 1000), expected);
        prop_assert_eq!(live, model.len() as i64);
        prop_assert_eq!(index.len(), model.len() as u64);
    }
}

#[test]
fn a_moved_record_points_back_only_to_its_own_version() {
    let mut index = Index::new(1);
    let entity = EntityRef { schema: "s", key: "k" };
    assert_eq!(index.replay_put(entity, 5, place(1), false), Replayed::Ignored, "it never creates an entry");
    index.replay_put(entity, 6, place(2), true);
    assert_eq!(index.replay_put(entity, 5, place(3), false), Replayed::Ignored);
    assert_eq!(index.replay_put(entity, 6, place(4), false), Replayed::Applied(Some(place(2))));
    index.replay_delete(entity, 7);
    assert_eq!(index.replay_put(entity, 6, place(5), false), Replayed::Ignored);
    index.finish_replay();
    assert!(index.is_empty() && index.schemas().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn keys_of_all_lengths_and_shared_prefixes_stay_in_order(
        keys in prop::collection::vec("(user:|user:0000|u|)[a-c]{0,9}(é|~)?", 1..1500),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..1000),
        bound in "(user:|u|v)[a-c]{0,4}",
    ) {
        let mut index = Index::new(1);
        let mut model = std::collections::BTreeSet::new();
        for key in keys.iter().filter(|key| !key.is_empty()) {
            index.put(EntityRef { schema: "s", key }, 1, place(1));
            model.insert(key.clone());
        }
        for position in gone {
            let key = position.get(&keys);
            index.remove(EntityRef { schema: "s", key });
            model.remove(key);
        }
        let listed = |after: Option<&str>| {
            let entries = index.list("s", "", after, usize::MAX);
            entries.into_iter().map(|(key, _)| key.into_string()).collect::<Vec<_>>()
        };
        prop_assert_eq!(listed(None), model.iter().cloned().collect::<Vec<_>>());
        let above: Vec<String> = model.into_iter().filter(|key| *key > bound).collect();
        prop_assert_eq!(listed(Some(&bound)), above);
    }
}

#[test]
fn walking_visits_what_stays_once_while_others_come_and_go() {
    let mut index = Index::new(3);
    let name = |number: u64| format!("{number:05}");
    for number in 0..2000 {
        index.put(EntityRef { schema: "s", key: &name(number) }, number + 1, place(number));
    }
    let mut seen = BTreeMap::new();
    let mut cursor = WalkCursor::default();
    let mut round = 0;
    while !index.walk(&mut cursor, |_, entry| {
        *seen.entry(entry.key.to_string()).or_insert(0) += 1;
        if seen.len() % 100 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }) {
        for number in (0..2000).filter(|number| number % 2 == 1 && number % 7 == round % 7) {
            index.remove(EntityRef { schema: "s", key: &name(number) });
        }
        index.put(EntityRef { schema: "s", key: &format!("{round:05}x") }, 9000 + round, place(round));
        round += 1;
    }
    assert!(seen.values().all(|times| *times == 1));
    assert!((0..2000).filter(|number| number % 2 == 0).all(|number| seen.contains_key(&name(number))));
}

/// A number that lies ahead of the walk may be taken by a schema that it has visited.
#[test]
fn a_walk_during_which_schemas_end_and_begin_again_makes_an_index_with_what_stayed() {
    let entity = |schema, key| EntityRef { schema, key };
    let mut index = Index::new(5);
    index.put(entity("a", "k"), 1, place(1));
    for (version, key) in (2..).zip(["b", "d", "f", "h"]) {
        index.put(entity("big", key), version, place(version));
    }
    index.put(entity("b", "y"), 6, place(6));
    index.put(entity("c", "z"), 7, place(7));
    let (mut cursor, mut other_cursor) = (WalkCursor::default(), WalkCursor::default());
    let mut seen = Vec::new();
    let mut step = |index: &Index| {
        index.walk(&mut cursor, |schema, entry| {
            seen.push((schema.to_owned(), entry.key.to_string(), entry.version, entry.place));
            ControlFlow::Break(())
        })
    };
    assert!(!step(&index) && !step(&index));
    // Others that began at another moment, or were given up, change nothing.
    assert!(!index.walk(&mut other_cursor, |_, _| ControlFlow::Break(())));
    assert!(!index.walk(&mut WalkCursor::default(), |_, _| ControlFlow::Break(())));
    // The number that lies ahead is free last, and so the first to be taken again.
    index.remove(entity("a", "k"));
    index.remove(entity("b", "y"));
    index.put(entity("a", "k"), 8, place(8));
    // Behind and ahead of where it is.
    index.put(entity("big", "a"), 9, place(9));
    index.put(entity("big", "e"), 10, place(10));
    index.remove(entity("big", "f"));
    assert!(!step(&index));
    index.put(entity("b", "y"), 11, place(11));
    // The schema it is in ends, and another takes its number.
    for key in ["a", "b", "d", "e", "h"] {
        index.remove(entity("big", key));
    }
    index.put(entity("new", "z"), 12, place(12));
    index.put(entity("big", "z"), 13, place(13));
    while !step(&index) {}
    let names: Vec<_> = seen.iter().map(|(schema, key, ..)| (&**schema, &**key)).collect();
    assert_eq!(names, [("a", "k"), ("big", "b"), ("big", "d"), ("c", "z")]);
    let mut loaded = Index::new(6);
    for (schema, key, version, place) in &seen {
        let number = loaded.schema_number(schema);
        assert!(loaded.load(loaded.hash(entity(schema, key)), number, key, *version, *place), "{schema}/{key}");
    }
    // A walk that begins now sees what came meanwhile.
    let mut later = Vec::new();
    index.walk(&mut WalkCursor::default(), |schema, entry| {
        later.push(format!("{schema}/{}", entry.key));
        ControlFlow::Continue(())
    });
    later.sort();
    assert_eq!(later, ["a/k", "b/y", "big/z", "c/z", "new/z"]);
}

#[test]
fn takes_at_most_a_hundred_bytes_an_entity_beyond_its_key() {
    let mut index = Index::new(1);
    // Just above a doubling of the tables, where the slack is largest, and in an order that splits leaves.
    let entities = 256 * 470;
    for number in 0..entities as u64 {
        let key = format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        index.put(EntityRef { schema: "s", key: &key }, number + 1, place(number));
    }
    let each = index.overhead_bytes() / entities;
    println!("{each} bytes an entity beyond its key");
    assert!(each <= 100, "{each} bytes an entity");
}
