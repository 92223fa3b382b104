//! Whether a text is JSON: the product's fast parser, its exact one and serde_json.
//!
//! Holds: one verdict, which is RFC 8259 with valid UTF-8 and nesting of at most 128; the nodes of both parsers are
//! the same; they say what serde_json reads; a parser that met one document judges the next as a fresh one does.

use deltadb::limits::JSON_DEPTH_MAX;
use deltadb::schema::JsonParser;
use deltadb::schema::json::{Node, exact};
use serde_json::Value;

/// Tries one text.
pub fn run(data: &[u8]) {
    let mut parser = JsonParser::new();
    let fast = parser.check(data);
    let exact = exact::check(data);
    assert_eq!(fast.is_ok(), exact.is_ok(), "the parsers disagree: {fast:?} and {exact:?}");
    assert_eq!(fast.is_ok(), is_json(data), "serde_json disagrees with {fast:?}");
    if let Err(malformed) = &fast {
        assert!(malformed.offset <= data.len(), "an error behind the end");
    }
    let again = parser.parse(data, own);
    let reused = parser.parse(b"{\"a\":[1,null,\"b\"]}", own).expect("JSON is JSON after any other document");
    let Ok(nodes) = again else { return assert!(fast.is_err()) };
    let parsed = exact::parse(data).expect("it was judged to be JSON");
    assert_eq!(nodes, own(&parsed.nodes()), "both parsers make the same nodes");
    let fresh = JsonParser::new().parse(b"{\"a\":[1,null,\"b\"]}", own);
    assert_eq!(Ok(reused), fresh, "an earlier document changed the nodes of a later one");
    if let Ok(value) = serde_json::from_slice::<Value>(data) {
        let mut position = 0;
        compare(&parsed.nodes(), &mut position, Some(&value));
        assert_eq!(position, nodes.len(), "the root spans all nodes");
    }
}

/// What is JSON and what is nearly.
pub fn seeds() -> Vec<Vec<u8>> {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let wide: String = (0..40).map(|number| format!("\"k{number}\":{number},")).collect();
    let texts = [
        "{}".to_owned(),
        " [1 , -0.5e-3,\t1E+9, null,true,false ]\r\n".to_owned(),
        "{\"a\":{\"b\":[{\"c\":\"\\u00e9\\ud83d\\ude00\\n\\/\"}]},\"a\":2}".to_owned(),
        "123456789012345678901234567890".to_owned(),
        "[18446744073709551615,-9223372036854775808,18446744073709551616,1e999,-1e-999,0.1]".to_owned(),
        "\"\\ud800\\udc00\\ud800\"".to_owned(),
        "\"\u{7f}\u{85}\u{2028}\u{10ffff}\"".to_owned(),
        "\u{feff}{}".to_owned(),
        "[1,]".to_owned(),
        "-0".to_owned(),
        "[1.]".to_owned(),
        "[1e]".to_owned(),
        "-".to_owned(),
        "[.5,+1]".to_owned(),
        "\"\\u12g4\"".to_owned(),
        "nulL".to_owned(),
        "{\"a\":01}".to_owned(),
        "\"a\u{1}b\"".to_owned(),
        format!("{{{wide}\"z\":\"{}\"}}", "long ".repeat(30)),
        deep(JSON_DEPTH_MAX),
        deep(JSON_DEPTH_MAX + 1),
    ];
    let invalid = [&b"\"\xc3\x28\""[..], b"\"\xed\xa0\x80\"", b"[\"\xf4\x90\x80\x80\"]"];
    texts.into_iter().map(String::into_bytes).chain(invalid.map(<[u8]>::to_vec)).collect()
}

/// The standard by another implementation, which skips values without a limit on numbers and nesting.
fn is_json(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    serde_json::from_str::<SkippedValue>(text).is_ok() && depth(data) <= JSON_DEPTH_MAX
}

/// Deserialized by skipping.
struct SkippedValue;

impl<'de> serde::Deserialize<'de> for SkippedValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// How deeply well-formed JSON is nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut bytes) = (0usize, 0, json.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                while let Some(byte) = bytes.next().filter(|byte| **byte != b'"') {
                    if *byte == b'\\' {
                        bytes.next();
                    }
                }
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// A node that owns its text, in words: for comparing tapes.
pub fn own(nodes: &[Node<'_>]) -> Vec<String> {
    nodes.iter().map(|node| format!("{node:?}")).collect()
}

/// Compares the value at a position with serde_json's and moves on behind it. Of a repeated name the last value
/// counts there, so earlier ones are only walked over (`None`).
fn compare(nodes: &[Node<'_>], position: &mut usize, expected: Option<&Value>) {
    let node = nodes[*position];
    *position += 1;
    match node {
        Node::String(text) => assert!(expected.is_none_or(|value| value == text)),
        Node::Static(value) => {
            let same = |expected: &Value| match value {
                simd_json::StaticNode::Null => expected.is_null(),
                simd_json::StaticNode::Bool(value) => *expected == Value::Bool(value),
                simd_json::StaticNode::U64(value) => expected.as_u64() == Some(value),
                // serde_json reads the integer -0 as a fraction, to keep its sign.
                simd_json::StaticNode::I64(0) => expected.as_f64() == Some(0.0),
                simd_json::StaticNode::I64(value) => expected.as_i64() == Some(value),
                simd_json::StaticNode::F64(value) => expected.as_f64().is_some_and(|other| nearly(value, other)),
            };
            assert!(expected.is_none_or(same), "{value:?} instead of {expected:?}");
        }
        Node::Array { len, .. } => {
            let elements = expected.map(|value| value.as_array().expect("an array"));
            assert!(elements.is_none_or(|elements| elements.len() == len));
            for number in 0..len {
                compare(nodes, position, elements.map(|elements| &elements[number]));
            }
        }
        Node::Object { len, .. } => {
            let members = expected.map(|value| value.as_object().expect("an object"));
            let names: Vec<(usize, &str)> = name_positions(nodes, *position - 1, len);
            for (number, (_, name)) in names.iter().enumerate() {
                *position += 1;
                let is_last = names[number + 1..].iter().all(|(_, later)| later != name);
                compare(nodes, position, members.filter(|_| is_last).map(|members| &members[*name]));
            }
        }
    }
}

/// Where the names of an object stand, and what they are.
pub fn name_positions<'a>(nodes: &[Node<'a>], object: usize, len: usize) -> Vec<(usize, &'a str)> {
    let mut position = object + 1;
    (0..len)
        .map(|_| {
            let Node::String(name) = nodes[position] else { panic!("a name is a string") };
            let at = position;
            position = behind(nodes, position + 1);
            (at, name)
        })
        .collect()
}

/// The position behind a value.
pub fn behind(nodes: &[Node<'_>], position: usize) -> usize {
    match nodes[position] {
        Node::Array { count, .. } | Node::Object { count, .. } => position + 1 + count,
        Node::String(_) | Node::Static(_) => position + 1,
    }
}

/// serde_json's quick reading of a fraction may be a unit in the last place off.
fn nearly(left: f64, right: f64) -> bool {
    left == right
        || (left - right).abs() <= left.abs() * 4.0 * f64::EPSILON
        || left.to_bits().abs_diff(right.to_bits()) < 2
}
