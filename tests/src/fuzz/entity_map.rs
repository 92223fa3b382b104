//! The body of a multi-key write, cut into names and documents, against the parser's nodes of the whole body.
//!
//! Holds: names are those of the whole, unescaped, and obey their rules; each document is the very bytes between its
//! colon and the next comma, and parses to the whole's nodes; what the rules allow is taken, and nothing else.

use super::json_text::{behind, name_positions, own};
use deltadb::command::{ErrorCode, check_entity_key};
use deltadb::limits::MULTI_KEYS_MAX;
use deltadb::schema::json::{Node, exact};
use deltadb::schema::{JsonParser, parse_entity_map};
use std::collections::BTreeSet;

/// Tries one body.
pub fn run(data: &[u8]) {
    let taken = parse_entity_map(data);
    let Ok(parsed) = exact::parse(data) else {
        // Nested too deeply as a whole, or no JSON at all: then its documents are not JSON either.
        if let Ok(items) = &taken {
            let all_good = items.iter().all(|item| exact::check(&item.document).is_ok());
            let shallow = !all_good || data.iter().filter(|byte| b"[{".contains(byte)).count() <= 128;
            assert!(!all_good || !shallow, "a body that is not JSON was cut into documents that are");
        }
        return;
    };
    let nodes = parsed.nodes();
    let Some(Node::Object { len, .. }) = nodes.first().copied() else {
        return assert!(taken.is_err(), "what is no object was taken");
    };
    let names = name_positions(&nodes, 0, len);
    let good_names = names.iter().all(|(_, name)| check_entity_key(name).is_ok());
    let distinct: BTreeSet<&str> = names.iter().map(|(_, name)| *name).collect();
    let allowed = good_names && distinct.len() == len && len <= MULTI_KEYS_MAX;
    let items = match taken {
        Ok(items) => items,
        Err(failure) => {
            // An unpaired surrogate escape cannot be in a name, though the parser reads it as U+FFFD.
            let unpaired = names.iter().any(|(_, name)| name.contains(char::REPLACEMENT_CHARACTER));
            assert!(!allowed || unpaired, "refused: {}", failure.message);
            let known = [ErrorCode::InvalidJson, ErrorCode::InvalidName, ErrorCode::TooLarge];
            return assert!(known.contains(&failure.code), "{:?}", failure.code);
        }
    };
    assert!(allowed, "names that break the rules were taken");
    assert_eq!(items.len(), len);
    let mut parser = JsonParser::new();
    for (item, (position, name)) in items.iter().zip(names) {
        assert_eq!(item.key, name);
        let start = item.document.as_ptr() as usize - data.as_ptr() as usize;
        assert!(data.get(start..start + item.document.len()) == Some(&*item.document), "it does not lie in the body");
        let found = parser.parse(&item.document, own).expect("a document of a body that is JSON");
        assert_eq!(found, own(&nodes[position + 1..behind(&nodes, position + 1)]));
    }
}

/// Bodies good and bad.
pub fn seeds() -> Vec<Vec<u8>> {
    let wide: Vec<String> = (0..40).map(|number| format!("\"k{number}\":[{number}]")).collect();
    let texts = [
        "{}".to_owned(),
        "{ \"a\" :  {\"x\" : [1, 2.50,\t1e999] } ,\n\"\\u0062\\\"\": null,\"\u{fc}\":\"\\ud800\" }".to_owned(),
        "{\"a\":1,\"b\":{\"a\":1,\"a\":2},\"c\":\"}\"}".to_owned(),
        "{\"a\":1,\"\\u0061\":2}".to_owned(),
        "{\"a/b\":1}".to_owned(),
        "{\"\\ud800\":1}".to_owned(),
        "{\"a\":1,}".to_owned(),
        "[{\"a\":1}]".to_owned(),
        format!("{{{}}}", wide.join(",")),
        format!("{{\"deep\":{}{}}}", "[".repeat(127), "]".repeat(127)),
        format!("{{\"deeper\":{}{}}}", "[".repeat(129), "]".repeat(129)),
    ];
    texts.into_iter().map(String::into_bytes).collect()
}
