//! The entities of a crowd and the documents it writes, each made from its number alone.

use crate::filler;

/// A few entities in two schemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entities {
    keys_each: usize,
}

const SCHEMAS: [&str; 2] = ["crowd-a", "crowd-b"];

impl Entities {
    /// So many keys in each schema.
    pub fn new(keys_each: usize) -> Self {
        Self { keys_each }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        SCHEMAS.len() * self.keys_each
    }

    /// The schemas.
    pub fn schemas(&self) -> usize {
        SCHEMAS.len()
    }

    /// The entities of one schema.
    pub fn of_schema(&self, schema: usize) -> std::ops::Range<usize> {
        schema * self.keys_each..(schema + 1) * self.keys_each
    }

    /// The schema of an entity.
    pub fn schema(&self, entity: usize) -> &'static str {
        SCHEMAS[entity / self.keys_each]
    }

    /// The key of an entity.
    pub fn key(&self, entity: usize) -> String {
        format!("key-{:03}", entity % self.keys_each)
    }

    /// The entity of a key in a schema.
    pub fn entity(&self, schema: usize, key: &str) -> usize {
        let number = key.strip_prefix("key-").and_then(|number| number.parse::<usize>().ok());
        let number = number.filter(|number| *number < self.keys_each).unwrap_or_else(|| panic!("a foreign key {key}"));
        schema * self.keys_each + number
    }
}

/// The document of a value: mostly small, now and then several blocks long, rarely larger than a commit's usual size.
pub fn document(entity: usize, value: u64) -> String {
    let length = match value % 64 {
        0 => 40_000,
        1..=4 => 5_000,
        _ => 20 + (value % 7) as usize * 40,
    };
    format!("{{\"value\":{value},\"entity\":{entity},\"fill\":\"{}\"}}", filler(length, value))
}

/// The value of a document that was read; it must be whole and of this entity.
pub(super) fn value_of(entity: usize, read: &[u8]) -> u64 {
    let digits = read.strip_prefix(b"{\"value\":").and_then(|rest| rest.split(|byte| *byte == b',').next());
    let value = digits.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok());
    let is_whole = value.is_some_and(|value| document(entity, value).as_bytes() == read);
    assert!(is_whole, "entity {entity} reads as no document it was given: {}", String::from_utf8_lossy(read));
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_say_which_they_are() {
        for value in [0, 1, 77, 64, u64::from(u32::MAX) + 5] {
            assert_eq!(value_of(3, document(3, value).as_bytes()), value);
        }
        let entities = Entities::new(5);
        assert_eq!((entities.entity(1, &entities.key(7)), entities.schema(7)), (7, "crowd-b"));
    }

    #[test]
    #[should_panic(expected = "no document it was given")]
    fn another_entitys_document_is_noticed() {
        value_of(2, document(3, 9).as_bytes());
    }

    #[test]
    #[should_panic(expected = "no document it was given")]
    fn a_torn_document_is_noticed() {
        let (old, new) = (document(3, 1), document(3, 2 + 64));
        let torn = [&new.as_bytes()[..100], &old.as_bytes()[100..]].concat();
        value_of(3, &torn);
    }
}
