//! The simulator sees: every deliberate fault is caught by a history, and by nothing but the fault.

use delta_tests::fuzz::TARGETS;
use delta_tests::sim::faults::{CATCHES, Catch, SEEDS_MAX, STEPS};
use delta_tests::sim::plan::parse_ranges;
use delta_tests::sim::{Keep, Plan, run, shrink};
use deltadb::sabotage::{Sabotage, Switched};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Judges one row: what is wrong with it.
fn judged(catch: &Catch) -> Result<String, String> {
    let name = catch.fault.name();
    let seen = catch.seen_by(catch.seed);
    let Some(seen) = seen.filter(|failure| failure.broken.rule == catch.rule) else {
        return Err(match catch.found_anew() {
            Some(other) => {
                format!("{name}: seed {} does not break '{}' any more; write down\n{other}", catch.seed, catch.rule)
            }
            None => format!("{name}: none of {SEEDS_MAX} seeds catches it"),
        });
    };
    if let Some(failure) = run(&catch.plan(catch.seed), Keep::Verdict).failure {
        let broken = failure.broken;
        return Err(format!("{name}: seed {} fails without it too: {}: {}", catch.seed, broken.rule, broken.detail));
    }
    Ok(format!("{name:<26} seed {:>5}  {}: {}", catch.seed, seen.broken.rule, seen.broken.detail))
}

#[test]
fn every_fault_is_caught_by_a_history_that_is_good_without_it() {
    for fault in Sabotage::ALL {
        assert!(CATCHES.iter().any(|catch| catch.fault == *fault), "{}: no row in the table", fault.name());
    }
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |count| count.get().min(4)) {
            scope.spawn(|| {
                while let Some(catch) = CATCHES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match judged(catch) {
                        Ok(words) => println!("{words}"),
                        Err(words) => wrong.lock().unwrap().push(words),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_readme_lists_every_fault_with_the_seed_and_the_rule_that_catch_it() {
    let readme = include_str!("../README.md");
    let (_, section) = readme.split_once("## Deliberate faults").expect("the section");
    let section = section.split("\n## ").next().unwrap_or(section);
    let listed: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let rows: Vec<String> = CATCHES.iter().map(Catch::row).collect();
    assert_eq!(listed, rows, "the table should be\n{}", rows.join("\n"));
}

#[test]
fn a_failing_history_is_made_short_and_fails_again() {
    let catch = CATCHES.iter().find(|catch| catch.fault == Sabotage::ReplyBeforeSync).unwrap();
    let _switched = Switched::on(catch.fault);
    let (plan, rule) = (Plan::new(catch.seed, STEPS), catch.rule);
    let (short, report) = shrink(&plan, rule);
    assert!(short.steps.len() <= 12, "{} steps are left", short.steps.len());
    assert_eq!(report.failure.map(|failure| failure.broken.rule), Some(rule));
    assert!(!report.lines.is_empty());
    let ranges = parse_ranges(&short.kept()).unwrap();
    let again = plan.keeping(|number| ranges.iter().any(|(first, last)| (*first..=*last).contains(&number)));
    assert_eq!(run(&again, Keep::Verdict).failure.map(|failure| failure.broken.rule), Some(rule));
}

#[test]
fn the_fuzz_target_over_all_commands_sees_faults_of_every_room() {
    let target = TARGETS.iter().find(|target| target.name == "served_commands").unwrap();
    let seeds = (target.seeds)();
    let rooms = [
        Sabotage::ReplyBeforeSync,
        Sabotage::SkipDirectorySync,
        Sabotage::CheckpointBeforeData,
        Sabotage::WriteWhereReceived,
    ];
    for fault in rooms {
        let _switched = Switched::on(fault);
        let seen = seeds.iter().any(|seed| std::panic::catch_unwind(|| (target.run)(seed)).is_err());
        assert!(seen, "{}: no seed of the target sees it", fault.name());
    }
}
