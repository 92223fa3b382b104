//! A failing history made short: steps are left out, in ever smaller pieces, as long as the same rule is broken.
//!
//! After Zeller and Hildebrandt's delta debugging (2002), bounded in runs.

use super::plan::Plan;
use super::run::{Keep, Report, run};

/// Runs spent on one failure at most.
const RUNS_MAX: usize = 600;

/// A shorter plan that breaks the same rule, with its report.
pub fn shrink(plan: &Plan, rule: &str) -> (Plan, Report) {
    let fails = |candidate: &Plan| {
        let report = run(candidate, Keep::History);
        let same = report.failure.as_ref().is_some_and(|failure| failure.broken.rule == rule);
        same.then_some(report)
    };
    let (mut best, mut report) = (plan.clone(), run(plan, Keep::History));
    let mut runs = 0;
    let mut piece = (best.steps.len() / 2).max(1);
    loop {
        let mut at = 0;
        let mut shorter = false;
        while at < best.steps.len() && runs < RUNS_MAX {
            // From the end: what comes after the failure goes first.
            let end = best.steps.len() - at;
            let start = end.saturating_sub(piece);
            let mut candidate = best.clone();
            candidate.steps.drain(start..end);
            runs += 1;
            match fails(&candidate) {
                Some(found) => {
                    (best, report) = (candidate, found);
                    shorter = true;
                }
                None => at += piece,
            }
        }
        if runs >= RUNS_MAX || (piece == 1 && !shorter) {
            return (best, report);
        }
        piece = (piece / 2).max(1);
    }
}
