//! Histories known to be good are accepted, histories known to be bad refused, and on small random ones the search
//! agrees with trying every order.

use super::super::{Answer, Call, NEVER};
use super::*;
use delta_wire::Condition;

/// A history written down call by call: `(called, answered, call, answer)`.
fn history(rows: &[(Moment, Moment, Call, Answer)]) -> Vec<Operation> {
    let operation = |(client, row): (usize, &(Moment, Moment, Call, Answer))| {
        let (called, answered, call, answer) = *row;
        Operation { entity: 0, client, called, answered, call, answer }
    };
    rows.iter().enumerate().map(operation).collect()
}

#[track_caller]
fn accepted(rows: &[(Moment, Moment, Call, Answer)]) {
    assert_eq!(judge_entity(&history(rows)), Ok(Verdict::Linearizable));
}

#[track_caller]
fn refused(rows: &[(Moment, Moment, Call, Answer)]) {
    let verdict = judge_entity(&history(rows));
    assert!(matches!(&verdict, Ok(Verdict::Refused { reason }) if !reason.is_empty()), "{verdict:?}");
}

const fn put(value: u64) -> Call {
    Call::Put { value, condition: Condition::None }
}

const fn put_if(value: u64, condition: Condition) -> Call {
    Call::Put { value, condition }
}

const fn found(value: u64, version: u64) -> Answer {
    Answer::Found { value, version }
}

const fn written(version: u64) -> Answer {
    Answer::Written { version, created: None }
}

const GET: Call = Call::Get;
const DELETE: Call = Call::Delete { condition: Condition::None };
const CREATE: Condition = Condition::IfAbsent;

#[test]
fn one_after_the_other() {
    accepted(&[]);
    accepted(&[
        (0, 1, GET, Answer::Absent),
        (2, 3, put(7), written(10)),
        (4, 5, GET, found(7, 10)),
        (6, 7, put_if(8, Condition::IfVersion(10)), written(11)),
        (8, 9, put_if(9, Condition::IfVersion(10)), Answer::ConditionFailed { found: Some(11) }),
        (10, 11, DELETE, Answer::Deleted { version: 12 }),
        (12, 13, DELETE, Answer::Absent),
        (14, 15, put_if(10, CREATE), Answer::Written { version: 13, created: Some(true) }),
        (16, 17, put(11), Answer::Written { version: 14, created: Some(false) }),
    ]);
}

#[test]
fn calls_that_overlap_may_be_in_either_order() {
    accepted(&[(0, 10, put(1), written(2)), (1, 9, put(2), written(1)), (11, 12, GET, found(1, 2))]);
    accepted(&[(0, 10, put(1), written(1)), (1, 2, GET, found(1, 1)), (3, 4, GET, found(1, 1))]);
    accepted(&[(0, 10, put(1), written(1)), (1, 2, GET, Answer::Absent), (3, 4, GET, found(1, 1))]);
}

#[test]
fn a_stale_read_is_refused() {
    refused(&[(0, 1, put(1), written(1)), (2, 3, put(2), written(2)), (4, 5, GET, found(1, 1))]);
    refused(&[(0, 1, put(1), written(1)), (2, 3, DELETE, Answer::Deleted { version: 2 }), (4, 5, GET, found(1, 1))]);
}

#[test]
fn a_lost_write_is_refused() {
    refused(&[(0, 1, put(1), written(1)), (2, 3, GET, Answer::Absent)]);
    refused(&[(0, 1, put(1), written(1)), (2, 3, put(2), written(2)), (4, 5, DELETE, Answer::Absent)]);
}

#[test]
fn reads_that_go_back_are_refused() {
    // Both writes overlap everything, yet what was seen once may not be unseen.
    refused(&[
        (0, 20, put(1), written(1)),
        (1, 19, put(2), written(2)),
        (2, 3, GET, found(2, 2)),
        (4, 5, GET, found(1, 1)),
    ]);
    refused(&[(0, 20, put(1), written(1)), (2, 3, GET, found(1, 1)), (4, 5, GET, Answer::Absent)]);
}

#[test]
fn a_read_from_the_future_or_from_nowhere_is_refused() {
    refused(&[(0, 1, GET, found(1, 1)), (2, 3, put(1), written(1))]);
    refused(&[(0, 1, GET, found(1, 1))]);
    refused(&[(0, 1, put(1), written(2)), (2, 3, GET, found(1, 1))]);
}

#[test]
fn versions_that_fall_are_refused() {
    refused(&[(0, 1, put(1), written(2)), (2, 3, put(2), written(1))]);
    refused(&[(0, 1, put(1), written(2)), (2, 3, put(2), written(2))]);
    refused(&[(0, 1, put(1), written(2)), (2, 3, DELETE, Answer::Deleted { version: 3 }), (4, 5, put(2), written(3))]);
}

#[test]
fn conditions_that_were_misjudged_are_refused() {
    refused(&[(0, 1, put_if(1, CREATE), written(1)), (2, 3, put_if(2, CREATE), written(2))]);
    refused(&[
        (0, 1, put(1), written(1)),
        (2, 3, put(2), written(2)),
        (4, 5, put_if(3, Condition::IfVersion(1)), written(3)),
    ]);
    refused(&[(0, 1, put_if(1, CREATE), Answer::ConditionFailed { found: Some(1) })]);
    refused(&[
        (0, 1, put(1), written(1)),
        (2, 3, put_if(2, Condition::IfVersion(1)), Answer::ConditionFailed { found: Some(1) }),
    ]);
    refused(&[(0, 1, put(1), written(1)), (2, 3, put_if(2, CREATE), Answer::ConditionFailed { found: Some(9) })]);
    refused(&[(0, 1, put(1), Answer::Written { version: 1, created: Some(false) })]);
    refused(&[(0, 1, DELETE, Answer::Deleted { version: 1 })]);
    refused(&[(0, 1, put_if(1, Condition::IfPresent), written(1))]);
}

#[test]
fn two_writers_that_both_win_the_same_version_are_refused() {
    let won = |value, version| (2, 9, put_if(value, Condition::IfVersion(1)), written(version));
    accepted(&[(0, 1, put(1), written(1)), won(2, 2)]);
    refused(&[(0, 1, put(1), written(1)), won(2, 2), won(3, 3)]);
}

#[test]
fn a_write_of_unknown_outcome_may_have_happened_or_not() {
    accepted(&[(0, NEVER, put(1), Answer::Unknown), (2, 3, GET, Answer::Absent), (4, 5, GET, Answer::Absent)]);
    accepted(&[(0, NEVER, put(1), Answer::Unknown), (2, 3, GET, Answer::Absent), (4, 5, GET, found(1, 7))]);
    accepted(&[(0, 1, put(1), written(1)), (2, NEVER, DELETE, Answer::Unknown), (4, 5, GET, Answer::Absent)]);
    // Nobody read it, but a condition met it.
    accepted(&[
        (0, NEVER, put(1), Answer::Unknown),
        (2, 3, put_if(2, CREATE), Answer::ConditionFailed { found: Some(7) }),
        (4, 5, put_if(3, Condition::IfVersion(7)), written(8)),
    ]);
}

#[test]
fn a_write_of_unknown_outcome_happens_once_and_whole() {
    // Seen, it stays.
    refused(&[(0, NEVER, put(1), Answer::Unknown), (2, 3, GET, found(1, 7)), (4, 5, GET, Answer::Absent)]);
    // Overwritten, it does not come back.
    refused(&[
        (0, NEVER, put(1), Answer::Unknown),
        (2, 3, GET, found(1, 7)),
        (4, 5, put(2), written(8)),
        (6, 7, GET, found(1, 7)),
    ]);
    // It has one version.
    refused(&[(0, NEVER, put(1), Answer::Unknown), (2, 3, GET, found(1, 7)), (4, 5, GET, found(1, 8))]);
    // Not even an unknown write takes effect against its condition.
    refused(&[(0, 1, put(1), written(1)), (2, NEVER, put_if(2, CREATE), Answer::Unknown), (4, 5, GET, found(2, 2))]);
    // One deletion removes one thing.
    refused(&[
        (0, 1, put(1), written(1)),
        (2, 9, DELETE, Answer::Unknown),
        (4, 5, GET, Answer::Absent),
        (6, 7, put(2), written(3)),
        (8, 10, GET, found(2, 3)),
        (11, 12, GET, Answer::Absent),
    ]);
}

#[test]
fn after_a_restart_a_write_of_unknown_outcome_takes_effect_no_more() {
    accepted(&[(0, 3, put(1), Answer::Unknown), (2, 5, GET, Answer::Absent), (6, 7, GET, Answer::Absent)]);
    refused(&[(0, 3, put(1), Answer::Unknown), (4, 5, GET, Answer::Absent), (6, 7, GET, found(1, 1))]);
    refused(&[
        (0, 1, put(1), written(1)),
        (2, 3, DELETE, Answer::Unknown),
        (4, 5, GET, found(1, 1)),
        (6, 7, GET, Answer::Absent),
    ]);
}

#[test]
fn a_step_that_changes_nothing_does_not_rule_out_an_unknown_write_that_is_needed() {
    // The read of nothing fits before the write and after the deletion; only the latter explains the failed condition.
    accepted(&[
        (0, 3, put(1), Answer::Unknown),
        (1, 20, DELETE, Answer::Unknown),
        (2, 19, put_if(2, CREATE), Answer::ConditionFailed { found: Some(7) }),
        (4, 18, GET, Answer::Absent),
    ]);
}

/// Random numbers that a seed decides.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

fn random_operation(dice: &mut Dice, value: u64) -> Operation {
    let condition = match dice.below(8) {
        0 => Condition::IfAbsent,
        1 => Condition::IfPresent,
        2 | 3 => Condition::IfVersion(1 + dice.below(3)),
        _ => Condition::None,
    };
    let call = match dice.below(5) {
        0 | 1 => Call::Get,
        2 => Call::Delete { condition },
        _ => Call::Put { value, condition },
    };
    let version = 1 + dice.below(3);
    let answer = match (call, dice.below(4)) {
        (Call::Get, 0) => Answer::Absent,
        (Call::Get, _) => Answer::Found { value: dice.below(4), version },
        (_, 0) => Answer::Unknown,
        (_, 1) if condition != Condition::None => {
            Answer::ConditionFailed { found: (dice.below(2) == 0).then_some(version) }
        }
        (Call::Delete { .. }, 2) if condition == Condition::None => Answer::Absent,
        (Call::Delete { .. }, _) => Answer::Deleted { version },
        (Call::Put { .. }, 2) => Answer::Written { version, created: Some(dice.below(2) == 0) },
        (Call::Put { .. }, _) => Answer::Written { version, created: None },
    };
    let called = dice.below(12);
    let answered = called + 1 + dice.below(12);
    let answered = if answer == Answer::Unknown && dice.below(2) == 0 { NEVER } else { answered };
    Operation { entity: 0, client: 0, called, answered, call, answer }
}

/// Tries every order of every choice of what happened.
fn by_every_order(facts: &Facts, steps: &[(Operation, Effect, bool)], taken: &mut Vec<usize>, state: State) -> bool {
    if (0..steps.len()).all(|place| taken.contains(&place) || !steps[place].2) {
        return true;
    }
    for place in 0..steps.len() {
        if taken.contains(&place) {
            continue;
        }
        // Nothing may come after what it preceded, and nothing required may be left behind.
        let own = &steps[place].0;
        let late = taken.iter().any(|earlier| own.answered < steps[*earlier].0.called);
        let early = (0..steps.len())
            .any(|other| steps[other].2 && !taken.contains(&other) && steps[other].0.answered < own.called);
        if late || early {
            continue;
        }
        if let Some(next) = facts.apply(state, &steps[place].1) {
            taken.push(place);
            if by_every_order(facts, steps, taken, next) {
                return true;
            }
            taken.pop();
        }
    }
    false
}

#[test]
fn the_search_agrees_with_trying_every_order() {
    let mut dice = Dice(0x5eed);
    let mut counts = [0, 0];
    for round in 0..60_000 {
        let count = 2 + dice.below(4);
        let mut operations: Vec<Operation> = (0..count).map(|value| random_operation(&mut dice, value)).collect();
        // Moments are unique, as they are when clients draw them.
        let mut moments: Vec<&mut Moment> = operations
            .iter_mut()
            .flat_map(|own| [&mut own.called, &mut own.answered])
            .filter(|moment| **moment != NEVER)
            .collect();
        moments.sort();
        moments.into_iter().enumerate().for_each(|(rank, moment)| *moment = rank as Moment);
        let facts = Facts::of(&operations);
        let steps: Vec<_> =
            operations.iter().filter_map(|own| facts.effect(own).map(|(effect, must)| (*own, effect, must))).collect();
        let expected = by_every_order(&facts, &steps, &mut Vec::new(), State::default());
        let found = judge_entity(&operations).unwrap() == Verdict::Linearizable;
        assert_eq!(found, expected, "round {round}: {operations:#?}");
        counts[usize::from(found)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 3_000), "one verdict is hardly tried: {counts:?}");
}

#[test]
fn a_long_history_of_a_true_register_is_accepted_and_one_stale_read_in_it_refused() {
    let mut dice = Dice(0xbeef);
    let (mut operations, mut state, mut version) = (Vec::new(), None, 0);
    for step in 1..=20_000u64 {
        // The effect is at 10 × step; the call began up to 40 before and ended up to 40 after.
        let (called, answered) = ((1000 + 10 * step) - dice.below(40), 1000 + 10 * step + 1 + dice.below(40));
        let is_lost = dice.below(50) == 0;
        let (call, answer) = match dice.below(4) {
            0 => {
                version += 1;
                state = Some((step, version));
                (put(step), written(version))
            }
            1 if state.is_some() => {
                version += 1;
                state = None;
                (DELETE, Answer::Deleted { version })
            }
            _ => (GET, state.map_or(Answer::Absent, |(value, version)| found(value, version))),
        };
        let (answer, answered) = if is_lost { (Answer::Unknown, answered + 2_000) } else { (answer, answered) };
        operations.push(Operation { entity: 0, client: 0, called, answered, call, answer });
    }
    assert_eq!(judge_entity(&operations), Ok(Verdict::Linearizable));
    let old = operations[2_000..].iter().find(|own| matches!(own.answer, Answer::Found { .. })).unwrap().answer;
    let late = operations.iter_mut().rev().find(|own| matches!(own.answer, Answer::Found { .. })).unwrap();
    late.answer = old;
    assert!(matches!(judge_entity(&operations), Ok(Verdict::Refused { .. })));
}
