//! The simulation in the everyday suite: a few hundred seeds, every sync point of short histories, and the proof that a
//! seed replays to the byte. The long form is the `simulate` binary.

use delta_tests::binary::deltadb;
use delta_tests::sim::{Coverage, Failure, Keep, MET_AT_SYNC_POINTS, Plan, disks_a_sync_point, exhaust, run, shrink};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const SEEDS: u64 = 300;
const STEPS: u32 = 300;
/// One crash amid a change of the shard count in so many seeds at least.
const SEEDS_A_CRASH_IN_A_RESIZE: u64 = 15;

#[test]
fn a_batch_of_seeds_breaks_no_rule_and_meets_everything() {
    let (coverage, failed) = (Mutex::new(Coverage::default()), Mutex::new(None));
    let next = AtomicU64::new(1);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |count| count.get().min(4)) {
            scope.spawn(|| {
                while failed.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > SEEDS {
                        return;
                    }
                    let report = run(&Plan::new(seed, STEPS), Keep::Verdict);
                    coverage.lock().unwrap().merge(&report.coverage);
                    if let Some(failure) = report.failure {
                        *failed.lock().unwrap() = Some((seed, failure));
                    }
                }
            });
        }
    });
    if let Some((seed, failure)) = failed.into_inner().unwrap() {
        panic!("{}", explained(&Plan::new(seed, STEPS), &failure));
    }
    let coverage = coverage.into_inner().unwrap();
    println!("{coverage}");
    assert_eq!(coverage.missing(), [""; 0], "a batch of {SEEDS} seeds must meet all of these");
    let crashes = coverage.of("crash in a resize");
    assert!(crashes >= SEEDS / SEEDS_A_CRASH_IN_A_RESIZE, "{crashes} crashes in a resize");
}

/// The short history of a failure, and the command that runs it again.
fn explained(plan: &Plan, failure: &Failure) -> String {
    let (short, report) = shrink(plan, failure.broken.rule);
    let failure = report.failure.as_ref().unwrap_or(failure);
    format!(
        "seed {}, step {}: {}: {}\n{}\nagain: cargo run -p delta-tests --release --bin simulate -- --seed {} --steps {} \
         --keep {} --history",
        plan.setup.seed,
        failure.step,
        failure.broken.rule,
        failure.broken.detail,
        report.lines.join("\n"),
        plan.setup.seed,
        plan.steps_total,
        short.kept()
    )
}

/// Histories that found a bug when they were new, and which.
const ONCE_BROKEN: [(u64, &str); 4] = [
    (6770, "the scrub judged a segment that was retired under it by the index of the one that got its slot"),
    (7805, "the same, late in a history"),
    (4090, "one segment of a compaction had to stay, and what tombstones in the others hid in it came back"),
    (2337, "a manifest was taken for durable though a directory sync that failed beside its own had lost its name"),
];

#[test]
fn histories_that_found_a_bug_stay_good() {
    for (seed, bug) in ONCE_BROKEN {
        let plan = Plan::new(seed, STEPS);
        if let Some(failure) = run(&plan, Keep::Verdict).failure {
            panic!("{bug}: {}", explained(&plan, &failure));
        }
    }
}

#[test]
fn a_seed_replays_to_the_byte() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in [3, 13, 24] {
        let plan = Plan::new(seed, 150);
        let (first, second) = (run(&plan, Keep::Trace), run(&plan, Keep::Trace));
        let differing = first.lines.iter().zip(&second.lines).position(|(left, right)| left != right);
        if let Some(line) = differing {
            panic!("seed {seed}, line {line}: first {}, then {}", first.lines[line], second.lines[line]);
        }
        assert_eq!((first.lines.len(), first.trace_hash), (second.lines.len(), second.trace_hash));
        assert!(first.lines.len() > 1000, "{} lines", first.lines.len());
        hashes.insert(first.trace_hash);
    }
    assert_eq!(hashes.len(), 3, "seeds differ");
}

#[test]
fn any_sync_point_of_a_history_may_be_the_last() {
    // Nothing, everything, and a part of what was not synced.
    const OUTCOMES: u64 = 3;
    let (mut sync_points, mut coverage) = (0, Coverage::default());
    for seed in [2, 5] {
        let plan = Plan::for_every_sync_point(seed, 28);
        let exhausted = exhaust(&plan, OUTCOMES);
        if let Some((failure, cut)) = exhausted.failure {
            panic!("seed {seed}, cut {cut:?}: {}: {}", failure.broken.rule, failure.broken.detail);
        }
        assert_eq!(exhausted.disks, exhausted.sync_points * disks_a_sync_point(OUTCOMES), "seed {seed}");
        sync_points += exhausted.sync_points;
        coverage.merge(&exhausted.coverage);
    }
    println!("{sync_points} sync points\n{coverage}");
    assert!(sync_points > 200, "{sync_points} sync points");
    let missing: Vec<_> = MET_AT_SYNC_POINTS.iter().filter(|name| coverage.of(name) == 0).collect();
    assert!(missing.is_empty(), "the histories never meet {missing:?}\n{coverage}");
}

/// Deliberate faults are for the test that proves this one; a build that holds them says so.
#[test]
fn the_binary_under_test_holds_no_deliberate_fault() {
    let mark = ["built with", " deliberate faults"].concat();
    let binary = std::fs::read(deltadb()).unwrap();
    assert!(binary.len() > 1 << 20);
    assert!(!binary.windows(mark.len()).any(|window| window == mark.as_bytes()));
}
