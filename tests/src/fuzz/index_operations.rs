//! The index against two sorted maps: writes, removals, moves, listings and walks, or a replay in any order.
//!
//! Holds: every answer is the map's; counts and sizes agree with what is there; a walk in slices sees each entry once;
//! what a walk amid changes saw can be loaded, and with those changes replayed is the map.

use super::input::Input;
use deltadb::command::EntityRef;
use deltadb::storage::log::index::{Index, Place, Replayed, WalkCursor};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Schema and key to version and place; no place for a deletion.
type Model = BTreeMap<(String, String), (u64, Option<Place>)>;

/// What is written while the index changes, as a checkpoint is: what the walk saw, and the changes since it began.
#[derive(Default)]
struct Checkpoint {
    cursor: WalkCursor,
    seen: Vec<(String, String, u64, Place)>,
    changes: Vec<Change>,
}

/// An entity, its version, where that lies unless it is a deletion, and whether the record only moved.
type Change = ((String, String), u64, Option<Place>, bool);

/// Tries one input: how it begins, then operations.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.byte();
    let mut index = Index::new(u64::from(mode));
    let mut model = Model::new();
    if mode % 2 == 1 {
        replay(&mut index, &mut model, &mut input, mode % 4 == 1);
    }
    let mut version = 1 << 20;
    let mut checkpoint = Checkpoint::default();
    while !input.is_empty() {
        version += 1;
        operate(&mut index, &mut model, &mut checkpoint, &mut input, version);
    }
    advance(&mut checkpoint, &index, &model, usize::MAX);
    compare(&index, &model);
}

/// Many keys in order, in reverse and in a scramble; removals; replays; schemas that come back during a walk.
pub fn seeds() -> Vec<Vec<u8>> {
    let put = |number: usize| [0, 0, (number % 256) as u8, (number / 256) as u8];
    let remove = |number: usize| [1, 0, (number % 256) as u8, (number / 256) as u8];
    let rising: Vec<u8> = (0..700).flat_map(put).collect();
    let falling: Vec<u8> = (0..700).rev().flat_map(put).collect();
    let scrambled: Vec<u8> = (0..700).map(|number| number * 389 % 701).flat_map(put).collect();
    let removals: Vec<u8> = (0..650).map(|number| number * 211 % 701).flat_map(remove).collect();
    let listing = [2, 0, 3, 0, 1, 9, 5, 1, 0, 20, 6];
    let replayed: Vec<u8> = (0..60).flat_map(|number| [1, (number * 7 % 11) as u8, 0, (number % 3) as u8, 9]).collect();
    let schemas = [[0, 0, 7, 0], [0, 1, 7, 0], [0, 1, 8, 0], [0, 2, 7, 0]].concat();
    let come_back = [&[5, 3][..], &[1, 0, 7, 0], &[1, 2, 7, 0], &[0, 0, 7, 0]].concat();
    vec![
        [&[0][..], &schemas, &come_back, &listing].concat(),
        [&[0][..], &rising, &listing].concat(),
        [&[2][..], &falling, &removals, &listing].concat(),
        [&[4][..], &scrambled[..800], &listing, &removals[..600]].concat(),
        [&[1][..], &replayed, &[0], &rising[..200], &listing].concat(),
        [&[3][..], &replayed, &[0], &removals[..200], &listing].concat(),
    ]
}

fn operate(index: &mut Index, model: &mut Model, checkpoint: &mut Checkpoint, input: &mut Input<'_>, version: u64) {
    match input.byte() % 7 {
        0 => {
            let (schema, key) = names(input);
            let place = place_of(version);
            let previous = index.put(EntityRef { schema: &schema, key: &key }, version, place);
            checkpoint.changes.push(((schema.clone(), key.clone()), version, Some(place), false));
            let expected = model.insert((schema, key), (version, Some(place)));
            assert_eq!(previous.map(|one| (one.version, Some(one.place))), expected);
        }
        1 => {
            let (schema, key) = names(input);
            let previous = index.remove(EntityRef { schema: &schema, key: &key });
            checkpoint.changes.push(((schema.clone(), key.clone()), version, None, false));
            let expected = model.remove(&(schema, key));
            assert_eq!(previous.map(|one| (one.version, Some(one.place))), expected);
        }
        2 => {
            let (schema, prefix) = names(input);
            let after = (input.byte() % 2 == 1).then(|| key_of(input));
            let limit = usize::from(input.byte());
            list(index, model, &schema, &prefix, after.as_deref(), limit);
            list(index, model, &schema, "", after.as_deref(), limit);
        }
        3 => {
            let (schema, key) = names(input);
            let found = index.find(EntityRef { schema: &schema, key: &key });
            let expected = model.get(&(schema, key)).copied();
            assert_eq!(found.map(|one| (one.version, Some(one.place))), expected);
        }
        4 => {
            let (schema, key) = names(input);
            let right = !input.byte().is_multiple_of(4);
            let Some((id, found)) = index.find_with_id(EntityRef { schema: &schema, key: &key }) else { return };
            let to = place_of(version);
            let from = if right { found.place } else { to };
            assert_eq!(index.repoint(id, found.version, from, to), right);
            if right {
                checkpoint.changes.push(((schema.clone(), key.clone()), found.version, Some(to), true));
                model.insert((schema, key), (found.version, Some(to)));
            }
        }
        5 => match usize::from(input.byte()) {
            entries if entries % 2 == 0 => walk(index, model, entries + 1),
            entries => advance(checkpoint, index, model, entries / 2 + 1),
        },
        _ => compare(index, model),
    }
}

/// Records in any order end as the newest of each entity; deletions leave nothing.
fn replay(index: &mut Index, model: &mut Model, input: &mut Input<'_>, order_later: bool) {
    if order_later {
        index.order_later();
    }
    while !input.byte().is_multiple_of(8) {
        let (schema, key) = names(input);
        let version = u64::from(input.byte() % 16) + 1;
        // A record is put or deleted by its version, as in a log, where a version is given out once.
        let (entity, name) = (EntityRef { schema: &schema, key: &key }, (schema.clone(), key.clone()));
        let known = model.get(&name).copied();
        if version.is_multiple_of(3) {
            let replayed = index.replay_delete(entity, version);
            let applies = known.is_none_or(|(newest, _)| version > newest);
            assert_eq!(replayed != Replayed::Ignored, applies);
            if applies {
                model.insert(name, (version, None));
            }
            continue;
        }
        let (place, creates) = (place_of(version + u64::from(input.byte()) * 16), !input.byte().is_multiple_of(4));
        let replayed = index.replay_put(entity, version, place, creates);
        let applies = match known {
            None => creates,
            Some((newest, None)) => creates && version > newest,
            Some((newest, Some(_))) => version == newest || (creates && version > newest),
        };
        assert_eq!(replayed, if applies { Replayed::Applied(known.and_then(|one| one.1)) } else { Replayed::Ignored });
        if applies {
            model.insert(name, (version, Some(place)));
        }
    }
    index.finish_replay();
    model.retain(|_, (_, place)| place.is_some());
    compare(index, model);
}

fn list(index: &Index, model: &Model, schema: &str, prefix: &str, after: Option<&str>, limit: usize) {
    let found = index.list(schema, prefix, after, limit);
    let expected: Vec<(Box<str>, u64)> = model
        .iter()
        .filter(|((of, key), _)| of == schema && key.starts_with(prefix) && after.is_none_or(|after| &**key > after))
        .take(limit)
        .map(|((_, key), (version, _))| (key.as_str().into(), *version))
        .collect();
    assert_eq!(found, expected, "prefix {prefix:?} after {after:?} limit {limit}");
}

fn walk(index: &Index, model: &Model, slice: usize) {
    let (mut cursor, mut seen, mut count) = (WalkCursor::default(), BTreeMap::new(), 0);
    while !index.walk(&mut cursor, |schema, entry| {
        let name = (schema.to_owned(), entry.key.to_string());
        assert!(seen.insert(name, (entry.version, Some(entry.place))).is_none(), "an entry was walked twice");
        count += 1;
        if count % slice == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }) {}
    assert_eq!(&seen, model);
}

/// Goes on with a checkpoint by so many entries. After the last it is loaded, and the changes replayed; the next begins.
fn advance(checkpoint: &mut Checkpoint, index: &Index, model: &Model, entries: usize) {
    let end = checkpoint.seen.len().saturating_add(entries);
    let seen = &mut checkpoint.seen;
    let done = index.walk(&mut checkpoint.cursor, |schema, entry| {
        seen.push((schema.to_owned(), entry.key.to_string(), entry.version, entry.place));
        if seen.len() == end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if !done {
        return;
    }
    let Checkpoint { seen, changes, .. } = std::mem::take(checkpoint);
    let mut loaded = Index::new(seen.len() as u64);
    for (schema, key, version, place) in &seen {
        let number = loaded.schema_number(schema);
        let hash = loaded.hash(EntityRef { schema, key });
        assert!(loaded.load(hash, number, key, *version, *place), "{schema}/{key} makes no sense");
    }
    for ((schema, key), version, place, moved) in &changes {
        let entity = EntityRef { schema, key };
        match place {
            Some(place) => loaded.replay_put(entity, *version, *place, !moved),
            None => loaded.replay_delete(entity, *version),
        };
    }
    loaded.finish_replay();
    compare(&loaded, model);
}

fn compare(index: &Index, model: &Model) {
    assert_eq!((index.len(), index.is_empty()), (model.len() as u64, model.is_empty()));
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    model.keys().for_each(|(schema, _)| *counts.entry(schema.clone()).or_default() += 1);
    assert_eq!(index.schemas().into_iter().collect::<BTreeMap<_, _>>(), counts);
    for schema in counts.keys() {
        list(index, model, schema, "", None, usize::MAX);
    }
    walk(index, model, 64);
    let key_bytes: usize = model.keys().map(|(_, key)| key.len()).sum();
    assert_eq!(index.bytes() - index.overhead_bytes(), key_bytes, "the keys' bytes are counted");
}

fn names(input: &mut Input<'_>) -> (String, String) {
    (key_of_kind(input.byte() % 4, 3, 0), key_of(input))
}

fn key_of(input: &mut Input<'_>) -> String {
    let (low, high) = (input.byte(), input.byte());
    key_of_kind(low, high % 8, high)
}

/// Keys that share prefixes of many lengths, hold zeros and high bytes, and are prefixes of each other. None is empty.
fn key_of_kind(low: u8, kind: u8, high: u8) -> String {
    let key = match kind {
        0..=2 => format!("{:05}", u32::from(low) + 256 * u32::from(high)),
        3 => "\u{e4}b".repeat(usize::from(low % 4)),
        4 => format!("shared/and/long/prefix/{}", char::from(low)),
        5 => format!("{}\0{low}", "a".repeat(usize::from(high / 8))),
        6 => char::from(low).to_string().repeat(usize::from(high / 8)),
        _ => format!("{low:b}"),
    };
    if key.is_empty() { "-".to_owned() } else { key }
}

fn place_of(number: u64) -> Place {
    Place { slot: (number % 5) as u32, offset: number as u32, length: number as u32 % 1000 + 1 }
}
