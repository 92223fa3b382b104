//! The body of a multi-document PUT: `{key: document, …}` cut into keys and the documents' own bytes.
//!
//! Documents are not parsed here beyond finding their end; the engine validates each. A name given twice is refused,
//! since one of its documents would be lost without a word.

use crate::command::{ErrorCode, Failure, PutItem, check_entity_key};
use crate::limits::MULTI_KEYS_MAX;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

/// Cuts the map; every key is checked.
pub fn parse(body: &[u8]) -> Result<Vec<PutItem<'_>>, Failure> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let entries = reader.deserialize_map(Entries).and_then(|entries| reader.end().map(|()| entries));
    let items = entries.map_err(|error| malformed(&error))?;
    if items.len() > MULTI_KEYS_MAX {
        return Err(Failure::new(
            ErrorCode::TooLarge,
            format!("the body holds {} documents, at most {MULTI_KEYS_MAX} are taken at once", items.len()),
        ));
    }
    let mut seen = HashSet::with_capacity(items.len());
    for item in &items {
        let refused = match check_entity_key(&item.key) {
            Err(failure) => failure,
            Ok(()) if seen.insert(item.key.as_ref()) => continue,
            Ok(()) => Failure::new(ErrorCode::InvalidJson, "the body names an entity key twice"),
        };
        return Err(Failure { key: Some(item.key.chars().take(64).collect()), ..refused });
    }
    Ok(items)
}

fn malformed(error: &serde_json::Error) -> Failure {
    // serde_json's own words may repeat what it read; place and kind do not.
    let what = if error.is_eof() {
        "the body ends in the middle of its JSON object".to_owned()
    } else {
        format!("the body is not a JSON object of documents by key: line {}, column {}", error.line(), error.column())
    };
    Failure::new(ErrorCode::InvalidJson, what)
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<PutItem<'de>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of documents by key")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut items = Vec::new();
        while let Some(Name(key)) = map.next_key::<Name<'de>>()? {
            let document: &'de RawValue = map.next_value()?;
            items.push(PutItem { key, document: Cow::Borrowed(document.get().as_bytes()) });
        }
        Ok(items)
    }
}

/// A member name, borrowed from the body unless it holds escapes.
struct Name<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an entity key")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_documents_as_they_were_sent() {
        let body = br#" { "a" : {"x": [1, 2 ]} , "b\u0041" : "t" ,"c":null } "#;
        let items = parse(body).unwrap();
        let found: Vec<_> = items.iter().map(|item| (item.key.as_ref(), item.document.as_ref())).collect();
        assert_eq!(found, [("a", &br#"{"x": [1, 2 ]}"#[..]), ("bA", br#""t""#), ("c", b"null")]);
        assert!(matches!(items[0].key, Cow::Borrowed(_)));
        assert!(parse(b"{}").unwrap().is_empty());
    }

    #[test]
    fn refuses_what_would_lose_or_confuse() {
        let many = format!("{{{}}}", (0..=MULTI_KEYS_MAX).map(|n| format!("\"{n}\":1")).collect::<Vec<_>>().join(","));
        let cases: [(&[u8], ErrorCode); 12] = [
            (br#"{"a":1,"a":2}"#, ErrorCode::InvalidJson),
            (br#"{"a":1,"\u0061":2}"#, ErrorCode::InvalidJson),
            (br#"{"a":1}x"#, ErrorCode::InvalidJson),
            (br#"{"a":1"#, ErrorCode::InvalidJson),
            (br#"{"a":}"#, ErrorCode::InvalidJson),
            (b"{\"a\":\"\xff\"}", ErrorCode::InvalidJson),
            (br#"["a"]"#, ErrorCode::InvalidJson),
            (b"", ErrorCode::InvalidJson),
            (br#"{"":1}"#, ErrorCode::InvalidName),
            (br#"{"a/b":1}"#, ErrorCode::InvalidName),
            (br#"{"..":1}"#, ErrorCode::InvalidName),
            (many.as_bytes(), ErrorCode::TooLarge),
        ];
        for (body, code) in cases {
            let failure = parse(body).unwrap_err();
            assert_eq!(failure.code, code, "{}", String::from_utf8_lossy(body));
        }
        // A depth bomb is cut without recursion; the engine refuses it by its depth.
        let bomb = format!("{{\"a\":{}}}", "[".repeat(200_000) + &"]".repeat(200_000));
        assert_eq!(parse(bomb.as_bytes()).unwrap().len(), 1);
    }
}
