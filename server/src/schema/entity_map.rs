//! The body of a multi-key write, `{key: document, …}`, split into names and documents.
//!
//! A document is the very bytes that were sent between its colon and the next comma. It is only cut out here: whoever
//! takes it must check it, nesting included. Names are unescaped. A name that comes twice is an error, since which of
//! the two documents was meant cannot be known.

use crate::command::{ErrorCode, Failure, PutItem, check_entity_key};
use crate::limits::{ENTITY_KEY_BYTES_MAX, MULTI_KEYS_MAX};
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashSet;

/// The parts of a body, borrowing from it.
pub type EntityMap<'a> = Vec<PutItem<'a>>;

/// Splits a body.
pub fn parse_entity_map(body: &[u8]) -> Result<EntityMap<'_>, Failure> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let message = format!("the body is not valid UTF-8 at byte {}", error.valid_up_to());
        Failure::new(ErrorCode::InvalidJson, message)
    })?;
    let mut refusal = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let entries = deserializer
        .deserialize_map(Entries { refusal: &mut refusal })
        .and_then(|entries| deserializer.end().map(|()| entries));
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    entries.map_err(|error| {
        let message = format!(
            "the body must be a JSON object of entity keys and documents; it stops being one at line {} column {}",
            error.line(),
            error.column()
        );
        Failure::new(ErrorCode::InvalidJson, message)
    })
}

struct Entries<'r> {
    /// Says more than the parser's error, when something other than the grammar is wrong.
    refusal: &'r mut Option<Failure>,
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = EntityMap<'de>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object of entity keys and documents")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EntityMap<'de>, A::Error> {
        let mut items: EntityMap<'de> = Vec::new();
        let mut seen: HashSet<Cow<'de, str>> = HashSet::new();
        while let Some(Name(key)) = map.next_key::<Name<'de>>()? {
            if let Err(refusal) = admit(&key, items.len(), &seen) {
                *self.refusal = Some(refusal);
                return Err(A::Error::custom("refused"));
            }
            let document: &'de RawValue = map.next_value()?;
            seen.insert(key.clone());
            items.push(PutItem { key, document: Cow::Borrowed(document.get().as_bytes()) });
        }
        Ok(items)
    }
}

fn admit(key: &str, count: usize, seen: &HashSet<Cow<'_, str>>) -> Result<(), Failure> {
    if count >= MULTI_KEYS_MAX {
        let message = format!("the body names more than {MULTI_KEYS_MAX} entities; send them in several requests");
        return Err(Failure::new(ErrorCode::TooLarge, message));
    }
    let refused = match check_entity_key(key) {
        Err(refusal) => refusal,
        Ok(()) if !seen.contains(key) => return Ok(()),
        Ok(()) => Failure::new(ErrorCode::InvalidJson, "the body names an entity key twice; send each once"),
    };
    // What is no key may be as long as the body: no more of it is repeated than a key could have.
    Err(Failure { key: Some(key.chars().take(ENTITY_KEY_BYTES_MAX).collect()), ..refused })
}

/// A member name: borrowed where it holds no escape.
struct Name<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an entity key")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }
            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(body: &str) -> Vec<(String, String)> {
        let items = parse_entity_map(body.as_bytes()).expect("the body is fine");
        let text = |document: &[u8]| String::from_utf8(document.to_vec()).expect("it was cut from text");
        items.iter().map(|item| (item.key.to_string(), text(&item.document))).collect()
    }

    fn code(body: &[u8]) -> ErrorCode {
        parse_entity_map(body).expect_err("it must be refused").code
    }

    #[test]
    fn documents_are_cut_out_untouched_and_names_unescaped() {
        let body = "{ \"a\" :  {\"x\" : [1, 2.50,\t1e999] } ,\n\"\\u0062\\\"\": null,\"ü\":\"\\ud800\" }";
        let expected = [("a", "{\"x\" : [1, 2.50,\t1e999] }"), ("b\"", "null"), ("ü", "\"\\ud800\"")];
        assert_eq!(parts(body), expected.map(|(key, document)| (key.to_owned(), document.to_owned())));
        assert_eq!(parts("{}"), []);
    }

    #[test]
    fn documents_borrow_from_the_body() {
        let body = br#"{"a":[1]}"#;
        let items = parse_entity_map(body).expect("the body is fine");
        assert!(matches!(&items[0].document, Cow::Borrowed(document) if std::ptr::eq(document.as_ptr(), &body[5])));
        assert!(matches!(&items[0].key, Cow::Borrowed("a")));
    }

    #[test]
    fn a_repeated_name_is_named_however_it_is_written() {
        for body in [r#"{"a":1,"b":2,"a":3}"#, r#"{"a":1,"\u0061":3}"#] {
            let refusal = parse_entity_map(body.as_bytes()).expect_err("it repeats a name");
            assert_eq!((refusal.code, refusal.key.as_deref()), (ErrorCode::InvalidJson, Some("a")));
            assert!(refusal.message.contains("twice"));
        }
        assert_eq!(parts(r#"{"a":{"a":1,"a":2}}"#).len(), 1, "inside a document names may repeat");
    }

    #[test]
    fn what_is_not_an_object_of_documents_is_refused() {
        for body in [
            "",
            "[]",
            "1",
            "null",
            "\"a\"",
            "{",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":1}x"#,
            "{}{}",
            r#"{"a":tru}"#,
            r#"{"a":"\x"}"#,
            r#"{1:2}"#,
            "\u{feff}{}",
            r#"{"\ud800":1}"#,
        ] {
            assert_eq!(code(body.as_bytes()), ErrorCode::InvalidJson, "{body}");
        }
        assert_eq!(code(b"{\"a\":\"\xff\"}"), ErrorCode::InvalidJson);
    }

    #[test]
    fn names_follow_the_rules_of_entity_keys() {
        for name in ["", "a/b", "a\\\\b", "..", "\\n", "\\u0000", &"k".repeat(5000)] {
            let body = format!("{{\"ok\":1,\"{name}\":1}}");
            let refusal = parse_entity_map(body.as_bytes()).expect_err("it must be refused");
            assert_eq!(refusal.code, ErrorCode::InvalidName, "{name}");
            assert!(refusal.key.is_some_and(|key| key.len() <= ENTITY_KEY_BYTES_MAX), "{name}");
        }
    }

    #[test]
    fn the_number_of_entities_is_bounded() {
        let body = |count: usize| {
            let members: Vec<String> = (0..count).map(|number| format!("\"k{number}\":{number}")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert_eq!(parts(&body(MULTI_KEYS_MAX)).len(), MULTI_KEYS_MAX);
        assert_eq!(code(body(MULTI_KEYS_MAX + 1).as_bytes()), ErrorCode::TooLarge);
    }

    #[test]
    fn depth_bombs_do_not_reach_the_stack() {
        let body = format!("{{\"a\":{}", "[".repeat(1 << 20));
        assert_eq!(code(body.as_bytes()), ErrorCode::InvalidJson);
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let items = parts(&format!("{{\"a\":{deep}}}"));
        assert_eq!(items[0].1, deep);
        assert!(crate::schema::JsonParser::new().check(items[0].1.as_bytes()).is_err(), "its own check refuses it");
    }
}
