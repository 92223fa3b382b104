//! Proof that the suite accepts a right backend and sees what is wrong with others.

use super::model::{Bug, ModelUnderTest};
use super::*;

type Check = fn(&ModelUnderTest, Effort) -> Result<(), Violation>;

const CONTRACT: Check = |model, effort| check_contract_on_sim(model, effort.first_seed);
const REPLAY: Check = |model, effort| check_replay(model, effort.first_seed);
const FAULTS: Check = faults::check;
const SYNC_POINTS: Check = crash::check_every_sync_point;
const KILLS: Check = crash::check_kills_and_random_cuts;

#[test]
fn the_model_conforms() {
    if let Err(violation) = check_on_sim(&ModelUnderTest(Bug::None), Effort::default()) {
        panic!("{violation}");
    }
}

#[test]
fn damage_to_files_without_authentication_is_seen() {
    let violation = check_damage(&ModelUnderTest(Bug::None), 1, 50).unwrap_err();
    assert_eq!(violation.check, "damage");
}

/// Each bug is caught by every kind of check that is there for it.
#[test]
fn every_broken_model_is_caught() {
    let broken: &[(Bug, &[Check])] = &[
        (Bug::RepliesBeforeSync, &[FAULTS, SYNC_POINTS, KILLS]),
        (Bug::SkipsDirectorySync, &[FAULTS, SYNC_POINTS, KILLS]),
        (Bug::IgnoresShortWrite, &[FAULTS]),
        (Bug::IgnoresShortRead, &[FAULTS]),
        (Bug::ForgetsTombstone, &[CONTRACT, SYNC_POINTS]),
        (Bug::ReusesVersions, &[SYNC_POINTS, KILLS]),
        (Bug::VisibleBeforeSync, &[FAULTS, SYNC_POINTS]),
        (Bug::RetriesFailedSync, &[FAULTS]),
        (Bug::StaysUsableAfterFailure, &[FAULTS]),
        (Bug::RemovesOldLogTooEarly, &[SYNC_POINTS, KILLS]),
        (Bug::WritesOnInOldLog, &[KILLS]),
        (Bug::ShowsUnsyncedRecovery, &[KILLS]),
        (Bug::TrustsTornFrames, &[SYNC_POINTS]),
        (Bug::OutOfSpaceForEver, &[FAULTS]),
        (Bug::ServesUncheckedReads, &[FAULTS]),
        (Bug::ListsCursorAgain, &[CONTRACT]),
        (Bug::DropsChangesOfFullBatch, &[CONTRACT]),
        (Bug::AsksTheRealWorld, &[REPLAY]),
    ];
    let mut missed = Vec::new();
    for (bug, checks) in broken {
        for (number, check) in checks.iter().enumerate() {
            if check(&ModelUnderTest(*bug), Effort::default()).is_ok() {
                missed.push((bug, number));
            }
        }
    }
    assert!(missed.is_empty(), "not seen, with the number of the check that should have: {missed:?}");
}
