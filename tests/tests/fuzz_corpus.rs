//! The fuzz targets without a fuzzer: their seeds, the corpora kept here, and a fixed number of random changes to both.

use delta_tests::binary::repository;
use delta_tests::fuzz::{TARGETS, Target};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Changed inputs tried for each target; a hundred times as many with `DELTA_TESTS_LONG`.
const CHANGED_INPUTS: u64 = 2000;
/// What all corpora may weigh together.
const CORPORA_BYTES_MAX: u64 = 600 << 10;

#[test]
fn every_seed_and_every_input_of_the_corpora_holds() {
    let mut broken = Vec::new();
    for target in &TARGETS {
        let mut try_one = |input: &[u8], what: String| {
            if std::panic::catch_unwind(|| (target.run)(input)).is_err() {
                broken.push(format!("{}: {what}", target.name));
            }
        };
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seed", target.name);
        seeds.iter().enumerate().for_each(|(number, seed)| try_one(seed, format!("seed {number}")));
        let corpus = corpus(target);
        assert!(!corpus.is_empty(), "{} has no corpus", target.name);
        for (path, input) in &corpus {
            try_one(input, path.display().to_string());
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn inputs_changed_at_random_hold() {
    let long = std::env::var_os("DELTA_TESTS_LONG").is_some_and(|value| value == "1");
    let count = CHANGED_INPUTS * if long { 100 } else { 1 };
    std::thread::scope(|scope| {
        for target in &TARGETS {
            scope.spawn(move || {
                let started = Instant::now();
                // Opening a store takes milliseconds, and living with it more.
                let count = match target.name {
                    "log_files" => count / 5,
                    "served_commands" => count / 10,
                    _ => count,
                };
                let mut inputs = (target.seeds)();
                inputs.extend(corpus(target).into_iter().map(|(_, input)| input));
                for number in 0..count {
                    let input = change(&inputs, number);
                    let outcome = std::panic::catch_unwind(|| (target.run)(&input));
                    assert!(outcome.is_ok(), "{} breaks on number {number}: {}", target.name, input.escape_ascii());
                }
                println!("{}: {count} changed inputs in {:?}", target.name, started.elapsed());
            });
        }
    });
}

#[test]
fn every_target_has_a_binary_and_a_corpus_and_no_other_has() {
    let fuzz = repository().join("tests/fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert!(names.is_sorted());
    for name in &names {
        let source = std::fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(source.contains(&format!("run(\"{name}\", data)")), "{name}.rs runs another target");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not in Cargo.toml");
    }
    for directory in ["corpus", "fuzz_targets"] {
        let found = names_in(&fuzz.join(directory));
        let found: Vec<&str> = found.iter().map(|name| name.trim_end_matches(".rs")).collect();
        assert_eq!(found, names, "in {directory}");
    }
    let bytes: u64 = TARGETS.iter().flat_map(corpus).map(|(_, input)| input.len() as u64).sum();
    assert!(bytes <= CORPORA_BYTES_MAX, "the corpora have {bytes} bytes: minimise them");
}

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = repository().join("tests/fuzz/corpus").join(target.name);
    let paths = names_in(&directory).into_iter().map(|name| directory.join(name));
    paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// One of the inputs with a few bytes changed, cut, repeated or brought in from another, as the number decides.
fn change(inputs: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % bound.max(1)
    };
    let mut input = inputs[below(inputs.len())].clone();
    for _ in 0..=below(4) {
        let at = below(input.len() + 1);
        match below(5) {
            0 => input.insert(at, below(256) as u8),
            1 => input.truncate(at),
            2 => {
                let other = &inputs[below(inputs.len())];
                let from = below(other.len() + 1);
                let piece = other[from..].iter().copied().take(below(64)).collect::<Vec<u8>>();
                input.splice(at..at, piece);
            }
            3 => {
                let end = (at + below(16)).min(input.len());
                input.drain(at..end);
            }
            _ if at < input.len() => input[at] = [below(256) as u8, b'0', 0, 0xff, input[at] ^ 1][below(5)],
            _ => {}
        }
    }
    input
}
