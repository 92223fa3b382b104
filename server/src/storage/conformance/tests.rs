//! Proof that the suite accepts a right backend and sees what is wrong with others.

use super::model::{Bug, ModelUnderTest};
use super::*;

#[test]
fn the_model_conforms() {
    if let Err(violation) = check_on_sim(&ModelUnderTest(Bug::None), Effort::default()) {
        panic!("{violation}");
    }
}

#[test]
fn every_broken_model_is_caught() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        match check_on_sim(&ModelUnderTest(bug), Effort::default()) {
            Ok(()) => missed.push(bug),
            Err(violation) => println!("{bug:?}: {violation}"),
        }
    }
    assert!(missed.is_empty(), "the suite does not see {missed:?}");
}
