//! The simulator sees: every deliberate fault is caught by the seed in the table, and by nothing but the fault.

use delta_tests::sim::faults::{CATCHES, Catch, RARE, STEPS, STEPS_EXHAUSTIVE};
use delta_tests::sim::plan::parse_ranges;
use delta_tests::sim::{Failure, Keep, Plan, exhaust, run, shrink};
use deltadb::sabotage::{Sabotage, Switched};

fn tried(catch: &Catch) -> Option<Failure> {
    if catch.exhaustive {
        let plan = Plan::new(catch.seed, STEPS_EXHAUSTIVE).without_misfortune();
        return exhaust(&plan, 3).failure.map(|(failure, _)| failure);
    }
    run(&Plan::new(catch.seed, STEPS), Keep::Verdict).failure
}

#[test]
fn every_fault_has_a_seed_that_catches_it() {
    assert!(CATCHES.len() >= 19);
    let mut missed = Vec::new();
    for fault in Sabotage::ALL.iter().filter(|fault| !RARE.contains(fault)) {
        let Some(catch) = CATCHES.iter().find(|catch| catch.fault == *fault) else {
            missed.push(format!("{}: no row in the table", fault.name()));
            continue;
        };
        let switched = Switched::on(*fault);
        match tried(catch) {
            Some(failure) => println!(
                "{:<26} seed {:>5}  {}: {}",
                fault.name(),
                catch.seed,
                failure.broken.rule,
                failure.broken.detail
            ),
            None => missed.push(format!("{}: not caught by seed {}", fault.name(), catch.seed)),
        }
        drop(switched);
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn without_the_fault_the_same_seeds_break_no_rule() {
    for catch in CATCHES {
        if let Some(failure) = tried(catch) {
            panic!("seed {}: {}: {}", catch.seed, failure.broken.rule, failure.broken.detail);
        }
    }
}

#[test]
fn a_failing_history_is_made_short_and_fails_again() {
    let catch = CATCHES.iter().find(|catch| catch.fault == Sabotage::ReplyBeforeSync).unwrap();
    let _switched = Switched::on(catch.fault);
    let plan = Plan::new(catch.seed, STEPS);
    let rule = run(&plan, Keep::Verdict).failure.unwrap().broken.rule;
    let (short, report) = shrink(&plan, rule);
    assert!(short.steps.len() <= 12, "{} steps are left", short.steps.len());
    assert_eq!(report.failure.map(|failure| failure.broken.rule), Some(rule));
    assert!(!report.lines.is_empty());
    let ranges = parse_ranges(&short.kept()).unwrap();
    let again = plan.keeping(|number| ranges.iter().any(|(first, last)| (*first..=*last).contains(&number)));
    assert_eq!(run(&again, Keep::Verdict).failure.map(|failure| failure.broken.rule), Some(rule));
}
