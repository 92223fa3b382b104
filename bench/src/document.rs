//! The documents of the load: JSON of an exact size whose every byte follows from its key and revision.
//!
//! So a document read back is checked whole, whichever of the writes of its key it comes from, and one that belongs
//! to another key is recognised as such.

use crate::random::{Random, scramble};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;
const REVISION_DIGITS: usize = 12;

const HEAD: &str = r#"{"id":""#;
const REVISION: &str = r#"","revision":""#;
const RANK: &str = r#"","rank":"#;
const TEXT: &str = r#","active":true,"labels":["load","sealed"],"text":""#;
const TAIL: &str = r#""}"#;

const KEY_AT: usize = HEAD.len();
const REVISION_AT: usize = KEY_AT + KEY_BYTES + REVISION.len();
const RANK_AT: usize = REVISION_AT + REVISION_DIGITS + RANK.len();
const TEXT_AT: usize = RANK_AT + 1 + TEXT.len();

/// Smallest document there is.
pub const DOCUMENT_BYTES_MIN: usize = TEXT_AT + TAIL.len();

/// Different texts there are.
const TEXTS: usize = 4096;

/// The JSON Schema that all documents fit and that looks at every member.
pub const TEMPLATE: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "id": {"type": "string", "minLength": 16, "maxLength": 16},
    "revision": {"type": "string", "minLength": 12, "maxLength": 12},
    "rank": {"type": "integer", "minimum": 0, "maximum": 9},
    "active": {"type": "boolean"},
    "labels": {"type": "array", "items": {"type": "string"}, "maxItems": 8},
    "text": {"type": "string"}
  },
  "required": ["id", "revision", "rank", "active", "text"],
  "additionalProperties": false
}"#;

/// The key of a number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; KEY_BYTES]);

impl Key {
    /// `key-` and twelve digits.
    pub fn new(number: u64) -> Self {
        let mut key = *b"key-000000000000";
        digits(&mut key[4..], number);
        Self(key)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// What is wrong with a document that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// It is whole, but of another key: replies were mixed up.
    OtherKey,
    /// It is no document that was ever written.
    Damaged,
}

/// Makes and checks documents of one size.
pub struct Documents {
    /// A document with empty places.
    form: Vec<u8>,
    filler: Vec<u8>,
}

impl Documents {
    /// Documents of exactly so many bytes.
    pub fn new(value_bytes: usize) -> Result<Self> {
        ensure!(
            value_bytes >= DOCUMENT_BYTES_MIN,
            "documents of {value_bytes} bytes are too small for their members; take at least {DOCUMENT_BYTES_MIN}"
        );
        let mut form = Vec::with_capacity(value_bytes);
        form.extend_from_slice(HEAD.as_bytes());
        form.extend_from_slice(&[b'0'; KEY_BYTES]);
        form.extend_from_slice(REVISION.as_bytes());
        form.extend_from_slice(&[b'0'; REVISION_DIGITS]);
        form.extend_from_slice(RANK.as_bytes());
        form.push(b'0');
        form.extend_from_slice(TEXT.as_bytes());
        form.resize(value_bytes - TAIL.len(), b' ');
        form.extend_from_slice(TAIL.as_bytes());
        let mut random = Random::new(0x0d0c);
        let letters = b"abcdefghijklmnopqrstuvwxyz ABCDEF";
        let mut letter = || letters[random.below(letters.len() as u64) as usize];
        let filler = (0..value_bytes + TEXTS).map(|_| letter()).collect();
        Ok(Self { form, filler })
    }

    /// Writes the document of a key and revision over `out`.
    pub fn write(&self, key: u64, revision: u64, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.form);
        out[KEY_AT..KEY_AT + KEY_BYTES].copy_from_slice(&Key::new(key).0);
        digits(&mut out[REVISION_AT..REVISION_AT + REVISION_DIGITS], revision);
        out[RANK_AT] = rank(key, revision);
        let text = self.text(key, revision);
        out[TEXT_AT..TEXT_AT + text.len()].copy_from_slice(text);
    }

    /// The revision of a document that must be one of this key.
    pub fn check(&self, key: u64, document: &[u8]) -> Result<u64, Mismatch> {
        if document.len() != self.form.len() {
            return Err(Mismatch::Damaged);
        }
        let found = number_of(&document[KEY_AT + 4..KEY_AT + KEY_BYTES]).ok_or(Mismatch::Damaged)?;
        let revision_digits = &document[REVISION_AT..REVISION_AT + REVISION_DIGITS];
        let revision = number_of(revision_digits).ok_or(Mismatch::Damaged)?;
        let text = self.text(found, revision);
        let is_whole = document[..KEY_AT] == self.form[..KEY_AT]
            && document[KEY_AT..KEY_AT + KEY_BYTES] == Key::new(found).0
            && document[KEY_AT + KEY_BYTES..REVISION_AT] == self.form[KEY_AT + KEY_BYTES..REVISION_AT]
            && document[REVISION_AT + REVISION_DIGITS..RANK_AT] == self.form[REVISION_AT + REVISION_DIGITS..RANK_AT]
            && document[RANK_AT] == rank(found, revision)
            && document[RANK_AT + 1..TEXT_AT] == self.form[RANK_AT + 1..TEXT_AT]
            && document[TEXT_AT..TEXT_AT + text.len()] == *text
            && document[TEXT_AT + text.len()..] == *TAIL.as_bytes();
        match (is_whole, found == key) {
            (true, true) => Ok(revision),
            (true, false) => Err(Mismatch::OtherKey),
            (false, _) => Err(Mismatch::Damaged),
        }
    }

    fn text(&self, key: u64, revision: u64) -> &[u8] {
        let start = mixed(key, revision) as usize % TEXTS;
        &self.filler[start..start + self.form.len() - DOCUMENT_BYTES_MIN]
    }
}

/// The text of a document as it was written, from one whose spaces and order of members were changed.
pub fn canonical(document: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize, Serialize)]
    #[serde(deny_unknown_fields)]
    struct Members<'a> {
        id: &'a str,
        revision: &'a str,
        rank: u8,
        active: bool,
        labels: Vec<&'a str>,
        text: &'a str,
    }
    let members: Members<'_> = serde_json::from_slice(document).ok()?;
    serde_json::to_vec(&members).ok()
}

fn mixed(key: u64, revision: u64) -> u64 {
    scramble(key ^ revision.rotate_left(32))
}

fn rank(key: u64, revision: u64) -> u8 {
    b'0' + (mixed(key, revision) >> 32) as u8 % 10
}

fn digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn number_of(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_the_size_asked_for_and_fit_the_template() {
        let template = serde_json::from_str(TEMPLATE).unwrap();
        let validator = jsonschema::validator_for(&template).unwrap();
        for value_bytes in [DOCUMENT_BYTES_MIN, 400, 5_000] {
            let documents = Documents::new(value_bytes).unwrap();
            let mut document = Vec::new();
            documents.write(999_999_999_999, 17, &mut document);
            assert_eq!(document.len(), value_bytes);
            let value: serde_json::Value = serde_json::from_slice(&document).unwrap();
            assert!(validator.is_valid(&value), "{value}");
            assert_eq!(value["id"], "key-999999999999");
        }
        assert!(Documents::new(DOCUMENT_BYTES_MIN - 1).is_err());
    }

    #[test]
    fn rearranged_documents_are_put_back_as_they_were() {
        let documents = Documents::new(200).unwrap();
        let mut document = Vec::new();
        documents.write(42, 7, &mut document);
        let rearranged: serde_json::Value = serde_json::from_slice(&document).unwrap();
        let rearranged = serde_json::to_string_pretty(&rearranged).unwrap();
        assert_eq!(canonical(rearranged.as_bytes()), Some(document));
        assert_eq!(canonical(b"{}"), None);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let documents = Documents::new(200).unwrap();
        let mut document = Vec::new();
        documents.write(42, 7, &mut document);
        assert_eq!(documents.check(42, &document), Ok(7));
        assert_eq!(documents.check(43, &document), Err(Mismatch::OtherKey));
        assert_eq!(documents.check(42, &document[..199]), Err(Mismatch::Damaged));
        for position in 0..document.len() {
            document[position] ^= 1;
            assert_eq!(documents.check(42, &document), Err(Mismatch::Damaged), "byte {position}");
            document[position] ^= 1;
        }
    }
}
