//! The shape of the repository: rooms import downwards only, and each thing lies where it belongs.

use delta_tests::binary::repository;
use delta_tests::readme;
use delta_tests::sources::{code_of, production_part, rust_files};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Imports within one rank; anything not listed here must go down.
const WITHIN_RANK: [(&str, &str); 6] = [
    ("main", "cli"),
    ("cache", "command"),
    ("schema", "command"),
    ("crypto", "runtime"),
    ("logging", "config"),
    ("config", "limits"),
];

#[test]
fn rooms_import_only_from_lower_ranks() {
    let ranks = ranks();
    let mut wrong = Vec::new();
    for path in rust_files("server/src") {
        let Some(room) = room_of(&path) else { continue };
        let text = std::fs::read_to_string(&path).unwrap();
        let code = code_of(production_part(&text));
        let rank = ranks.get(&room).unwrap_or_else(|| panic!("the room '{room}' has no rank in README.md"));
        for other in rooms_named(&code) {
            let other_rank = ranks.get(&other).unwrap_or_else(|| panic!("{}: unknown room '{other}'", path.display()));
            if other != room && other_rank >= rank && !WITHIN_RANK.contains(&(&*room, &*other)) {
                wrong.push(format!("{}: {room} ({rank}) imports {other} ({other_rank})", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_has_a_rank_and_every_ranked_room_exists() {
    let rooms: BTreeSet<String> = rust_files("server/src").iter().filter_map(|path| room_of(path)).collect();
    let ranked: BTreeSet<String> = ranks().into_keys().collect();
    assert_eq!(rooms, ranked);
}

/// A file that no module names is not compiled, and its tests are never run.
#[test]
fn every_file_is_a_module_of_its_parent() {
    let mut unnamed = Vec::new();
    for crate_source in ["server/src", "tests/src", "wire/src"] {
        for path in rust_files(crate_source) {
            let (folder, file) = (path.parent().unwrap(), path.file_stem().unwrap().to_str().unwrap());
            let root = ["lib", "main"].contains(&file) || folder.ends_with("bin");
            let (folder, name) = match file {
                "mod" => (folder.parent().unwrap(), folder.file_name().unwrap().to_str().unwrap()),
                _ => (folder, file),
            };
            let parents = ["lib.rs", "main.rs", "mod.rs"].map(|parent| folder.join(parent));
            let mut texts = parents.into_iter().chain([folder.with_extension("rs")]).map(std::fs::read_to_string);
            let declared = format!("mod {name};");
            if !root && !texts.any(|text| text.is_ok_and(|text| text.contains(&declared))) {
                unnamed.push(path);
            }
        }
    }
    assert!(unnamed.is_empty(), "{unnamed:#?}");
}

#[test]
fn the_top_level_holds_what_it_should_and_nothing_else() {
    let expected: BTreeSet<&str> =
        ["Cargo.toml", "Cargo.lock", "server", "wire", "bench", "tests", "deploy", "README.md", "LICENSE"].into();
    let found: BTreeSet<String> = std::fs::read_dir(repository())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && name != "target" && name != "delta-data")
        .collect();
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), expected);
    assert!(std::fs::read_dir(repository().join("deploy")).unwrap().count() > 0, "deploy/ is empty");
    assert!(repository().join(".cargo/deny.toml").is_file());
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let mut wrong = Vec::new();
    for path in all_files() {
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.starts_with("//! ") {
            wrong.push(path.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "no '//!' header: {}", wrong.join(", "));
}

#[test]
fn only_the_runtime_names_the_executor_and_the_ring() {
    let names = [["glommio", "::"].concat(), ["io_uring", "::"].concat()];
    let allowed = |path: &Path| room_of(path).is_some_and(|room| room == "runtime");
    refuse_words(rust_files("server/src"), &names.each_ref().map(String::as_str), allowed);
}

#[test]
fn only_the_runtime_is_unsafe() {
    let words = [["unsafe", " "].concat(), ["allow(", "unsafe_code)"].concat()];
    // The load generator has a ring of its own, for the same reasons as the runtime.
    let places = ["server/src/runtime", "bench/src/ring"].map(|place| repository().join(place));
    let allowed = |path: &Path| places.iter().any(|place| path.starts_with(place));
    refuse_words(all_files(), &words.each_ref().map(String::as_str), allowed);
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    let marks = [["TO", "DO"], ["FIX", "ME"], ["todo", "!("], ["dbg", "!("], ["unimple", "mented!("]];
    let marks = marks.map(|parts| parts.concat());
    let mut wrong = Vec::new();
    for path in all_files() {
        let text = std::fs::read_to_string(&path).unwrap();
        let found = marks.iter().filter(|mark| text.contains(mark.as_str()));
        wrong.extend(found.map(|mark| format!("{}: {mark}", path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_wire_crate_knows_nothing_of_the_server() {
    let manifest = std::fs::read_to_string(repository().join("wire/Cargo.toml")).unwrap();
    assert!(!manifest.lines().any(|line| line.starts_with("deltadb")), "wire/ must not depend on server/");
    refuse_words(rust_files("wire/src"), &["deltadb::"], |_| false);
}

fn all_files() -> Vec<std::path::PathBuf> {
    ["server/src", "wire/src", "bench/src", "bench/limits", "tests/src", "tests/tests"]
        .into_iter()
        .flat_map(rust_files)
        .collect()
}

fn refuse_words(files: Vec<std::path::PathBuf>, words: &[&str], allowed: impl Fn(&Path) -> bool) {
    let mut wrong = Vec::new();
    for path in files.into_iter().filter(|path| !allowed(path)) {
        let code = code_of(&std::fs::read_to_string(&path).unwrap());
        for (number, line) in code.lines().enumerate() {
            let found = words.iter().filter(|word| line.contains(**word) && !line.contains(&format!("\"{word}")));
            wrong.extend(found.map(|word| format!("{}:{}: {word}", path.display(), number + 1)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The rank of each room, from README.md.
fn ranks() -> BTreeMap<String, u32> {
    let mut ranks = BTreeMap::new();
    for row in readme::table(&readme::text(), "rank") {
        let rank: u32 = row[0].parse().unwrap_or_else(|_| panic!("a rank that is no number: {row:?}"));
        for name in readme::code_words(&row[1]) {
            let room = name.trim_end_matches('/').trim_end_matches(".rs").to_owned();
            assert!(ranks.insert(room, rank).is_none(), "'{name}' is ranked twice");
        }
    }
    assert!(ranks.len() > 10, "README.md ranks {} rooms only", ranks.len());
    ranks
}

/// The room a file belongs to: the first name below `server/src`. The crate's root is no room.
fn room_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(repository().join("server/src")).ok()?;
    let room = inside.iter().next()?.to_str()?.trim_end_matches(".rs").to_owned();
    (room != "lib").then_some(room)
}

/// Every room that code names by an absolute path.
fn rooms_named(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for rest in ["crate::", "deltadb::"].iter().flat_map(|start| code.split(start).skip(1)) {
        let names = match rest.strip_prefix('{') {
            Some(group) => top_level_names(group),
            None => vec![leading_name(rest)],
        };
        rooms.extend(names.into_iter().filter(|name| !name.is_empty()));
    }
    rooms
}

/// The first name of each item in `a::b, c::{d, e}, f}…`.
fn top_level_names(group: &str) -> Vec<String> {
    let (mut names, mut depth, mut fresh) = (Vec::new(), 0, true);
    for (position, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            _ if fresh && !character.is_whitespace() => {
                names.push(leading_name(&group[position..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

fn leading_name(text: &str) -> String {
    text.chars().take_while(|character| character.is_ascii_lowercase() || *character == '_').collect()
}

#[test]
fn imports_are_found_in_every_form() {
    let code = "use crate::a::B;\nuse crate::{c::{D, e}, f};\nlet x = crate::g::h();\nmain(deltadb::i::run())";
    let expected = ["a", "c", "f", "g", "i"].map(str::to_owned);
    assert_eq!(rooms_named(code), expected.into());
}
