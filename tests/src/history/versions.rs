//! The rules for versions that no single entity shows: in a shard they rise with every write, and none is used twice.

use super::{Answer, Call, Moment, Operation};
use std::collections::HashMap;

/// A sight of a version: a write that was given it, or a read that found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequenced {
    shard: usize,
    version: u64,
    /// The entity, and the value written; none for a deletion.
    content: (usize, Option<u64>),
    called: Moment,
    answered: Moment,
    is_write: bool,
}

impl Sequenced {
    /// The version that an operation shows, if it shows one with its content.
    pub fn of(operation: &Operation, shard: usize) -> Option<Self> {
        let (version, value, is_write) = match (operation.answer, operation.call) {
            (Answer::Found { value, version }, _) => (version, Some(value), false),
            (Answer::Written { version, .. }, Call::Put { value, .. }) => (version, Some(value), true),
            (Answer::Deleted { version }, _) => (version, None, true),
            _ => return None,
        };
        let (called, answered) = (operation.called, operation.answered);
        Some(Self { shard, version, content: (operation.entity, value), called, answered, is_write })
    }
}

/// Judges all versions of a store; gives how many different ones there are.
pub fn judge_versions(mut seen: Vec<Sequenced>) -> Result<usize, String> {
    let mut contents: HashMap<(usize, u64), &Sequenced> = HashMap::new();
    for sight in &seen {
        let first = contents.entry((sight.shard, sight.version)).or_insert(sight);
        if first.content != sight.content || (sight.is_write && first.is_write && *first != sight) {
            return Err(format!("a version was given to two writes: {first:?} and {sight:?}"));
        }
    }
    let count = contents.len();
    seen.retain(|sight| sight.is_write);
    // Sweep over calls in order, knowing the highest version that had been answered before each.
    let mut answers = seen.clone();
    answers.sort_unstable_by_key(|write| write.answered);
    seen.sort_unstable_by_key(|write| write.called);
    let mut answers = answers.into_iter().peekable();
    let mut highest: HashMap<usize, Sequenced> = HashMap::new();
    for write in seen {
        while let Some(earlier) = answers.next_if(|earlier| earlier.answered < write.called) {
            let known = highest.entry(earlier.shard).or_insert(earlier);
            if earlier.version > known.version {
                *known = earlier;
            }
        }
        match highest.get(&write.shard) {
            Some(earlier) if earlier.version >= write.version => {
                return Err(format!("versions do not rise: {earlier:?} was answered before {write:?} was called"));
            }
            _ => {}
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(shard: usize, version: u64, entity: usize, called: Moment, answered: Moment) -> Sequenced {
        Sequenced { shard, version, content: (entity, Some(called)), called, answered, is_write: true }
    }

    #[test]
    fn versions_that_rise_are_accepted_whatever_overlaps() {
        let seen = vec![write(0, 5, 0, 0, 10), write(0, 4, 1, 1, 9), write(0, 6, 0, 11, 12), write(1, 1, 2, 13, 14)];
        assert_eq!(judge_versions(seen), Ok(4));
        assert_eq!(judge_versions(Vec::new()), Ok(0));
    }

    #[test]
    fn a_version_below_one_answered_before_is_refused() {
        let seen = vec![write(0, 5, 0, 0, 1), write(0, 4, 1, 2, 3)];
        assert!(judge_versions(seen).unwrap_err().contains("do not rise"));
    }

    #[test]
    fn a_version_used_twice_is_refused_also_when_one_use_was_only_read() {
        let seen = vec![write(0, 5, 0, 0, 10), write(0, 5, 1, 1, 9)];
        assert!(judge_versions(seen).unwrap_err().contains("two writes"));
        let read = Sequenced { is_write: false, ..write(0, 5, 1, 20, 21) };
        assert!(judge_versions(vec![write(0, 5, 0, 0, 10), read]).unwrap_err().contains("two writes"));
        let own = Sequenced { is_write: false, called: 20, answered: 21, ..write(0, 5, 0, 0, 10) };
        assert_eq!(judge_versions(vec![write(0, 5, 0, 0, 10), own]), Ok(1));
    }
}
