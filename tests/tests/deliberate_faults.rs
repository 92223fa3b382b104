//! The simulator sees: every deliberate fault is caught by a history, and by nothing but the fault.

use delta_tests::fuzz::TARGETS;
use delta_tests::sim::faults::{CATCHES, Catch, SEEDS_MAX, STEPS};
use delta_tests::sim::plan::parse_ranges;
use delta_tests::sim::{Failure, Keep, Plan, run, shrink};
use deltadb::sabotage::{Sabotage, Switched};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The first seed that catches a row's fault, and how.
fn caught(catch: &Catch) -> Option<(u64, Failure)> {
    let _switched = Switched::on(catch.fault);
    (1..=SEEDS_MAX).find_map(|seed| run(&catch.plan(seed), Keep::Verdict).failure.map(|failure| (seed, failure)))
}

/// Judges one row: what is wrong with it.
fn judged(catch: &Catch) -> Result<String, String> {
    let name = catch.fault.name();
    let Some((seed, seen)) = caught(catch) else { return Err(format!("{name}: none of {SEEDS_MAX} seeds catches it")) };
    if let Some(failure) = run(&catch.plan(seed), Keep::Verdict).failure {
        let broken = failure.broken;
        return Err(format!("{name}: seed {seed} fails without it too: {}: {}", broken.rule, broken.detail));
    }
    Ok(format!("{name:<26} seed {seed:>5}  {}: {}", seen.broken.rule, seen.broken.detail))
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
fn a_failing_history_is_made_short_and_fails_again() {
    let catch = CATCHES.iter().find(|catch| catch.fault == Sabotage::ReplyBeforeSync).unwrap();
    let (seed, failure) = caught(catch).unwrap();
    let _switched = Switched::on(catch.fault);
    let plan = Plan::new(seed, STEPS);
    let rule = failure.broken.rule;
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
