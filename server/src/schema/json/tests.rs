//! The fast parser, the exact one and serde_json must agree on every document.

use super::*;
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

/// What RFC 8259 says, by another implementation: grammar and UTF-8 only, no limit on numbers or nesting.
fn is_json(document: &[u8]) -> bool {
    std::str::from_utf8(document).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// Both parsers' verdict, which must be one.
fn accepts(document: &[u8]) -> bool {
    let mut parser = JsonParser::new();
    let before = document.to_vec();
    let fast = parser.check(document).is_ok();
    assert_eq!(document, before, "the input is not changed");
    assert_eq!(fast, exact::check(document).is_ok(), "{:?}", String::from_utf8_lossy(document));
    assert_eq!(fast, parser.parse(document, |nodes| nodes.len()).is_ok(), "the same when asked again");
    fast
}

fn value_of(nodes: &[Node<'_>]) -> Value {
    fn take(nodes: &[Node<'_>], position: &mut usize) -> Value {
        let node = nodes[*position];
        *position += 1;
        match node {
            Node::String(text) => Value::from(text),
            Node::Static(StaticNode::Null) => Value::Null,
            Node::Static(StaticNode::Bool(value)) => Value::from(value),
            Node::Static(StaticNode::U64(value)) => Value::from(value),
            Node::Static(StaticNode::I64(value)) => Value::from(value),
            Node::Static(StaticNode::F64(value)) => Value::from(value),
            Node::Array { len, .. } => (0..len).map(|_| take(nodes, position)).collect(),
            Node::Object { len, .. } => {
                let mut members = serde_json::Map::new();
                for _ in 0..len {
                    let Node::String(name) = nodes[*position] else { panic!("a name is a string") };
                    *position += 1;
                    members.insert(name.to_owned(), take(nodes, position));
                }
                Value::Object(members)
            }
        }
    }
    let mut position = 0;
    let value = take(nodes, &mut position);
    assert_eq!(position, nodes.len(), "the root spans all nodes");
    value
}

use simd_json::StaticNode;

#[test]
fn accepts_what_the_standard_accepts() {
    for document in [
        "{}",
        "[]",
        "0",
        "-0",
        "-0.0",
        "1e1",
        "1E+2",
        "0.5e-3",
        "\"\"",
        "null",
        "true",
        "false",
        " [1 , 2 ]\r\n\t ",
        "123456789012345678901234567890",
        "-123456789012345678901234567890",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        "1e999",
        "-1e999",
        "1e-999",
        "1e99999999999999999999",
        r#""\ud83d\ude00""#,
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#""\ud800x""#,
        r#""\ud800\n""#,
        r#""\uD800\uD800\uDC00""#,
        r#"{"a":1,"a":2}"#,
        r#""\u0000""#,
        "\"\u{7f}\u{85}\u{2028}\"",
        r#""\/\b\f\n\r\t\"\\""#,
        r#"{"":0}"#,
        "[[],{},[{}]]",
    ] {
        assert!(is_json(document.as_bytes()), "the reference refuses {document}");
        assert!(accepts(document.as_bytes()), "{document}");
    }
}

#[test]
fn refuses_what_the_standard_refuses() {
    for document in [
        "",
        " ",
        "\n",
        "{",
        "}",
        "[",
        "]",
        "[1,]",
        "[,1]",
        "{,}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        "{1:2}",
        "01",
        "-",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "NaN",
        "Infinity",
        "-Infinity",
        "nul",
        "nulll",
        "True",
        "tru",
        "[1 2]",
        "[1}",
        "{]",
        "1 2",
        "{} x",
        "\"",
        "\"\\\"",
        "\"a\nb\"",
        "\"\t\"",
        r#""\x""#,
        r#""\u12""#,
        r#""\u12g4""#,
        r#""\uD800\u""#,
        "'a'",
        "[1]//",
        "/**/1",
        "\u{feff}1",
        "\u{feff}",
        "1\u{a0}",
        "\u{b}1",
        "1\u{c}",
        "1\0",
        "\0",
        "[\"a\",\n4\n,1,",
        "{\"a\":\"b\"}#",
        "--1",
        "-01",
        "1e1.5",
        "[-]",
        "\u{2028}1",
    ] {
        assert!(!is_json(document.as_bytes()), "the reference accepts {document}");
        assert!(!accepts(document.as_bytes()), "{document}");
    }
    let broken: [&[u8]; 7] = [
        b"\"\xff\"",
        b"\"\xc0\x80\"",
        b"\"\xed\xa0\x80\"",
        b"\xff\xfe1\0",
        b"\"\xe2\x82\"",
        b"\"\xf4\x90\x80\x80\"",
        b"[1]\x80",
    ];
    for document in broken {
        assert!(!accepts(document), "{document:?}");
    }
}

#[test]
fn every_byte_between_and_beside_tokens_is_judged_alike() {
    for byte in 0..=255u8 {
        for frame in [
            "@1",
            "1@",
            "[1@]",
            "[@1]",
            "[true@,1]",
            "{@}",
            "{\"a\"@:1}",
            "\"@\"",
            "\"\\@\"",
            "[1,@2]",
            "@",
            "-@",
            "1@1",
            "null@",
            "\"\\u00@0\"",
        ] {
            let document: Vec<u8> =
                frame.bytes().flat_map(|held| if held == b'@' { vec![byte] } else { vec![held] }).collect();
            assert_eq!(accepts(&document), is_json(&document), "{:?}", String::from_utf8_lossy(&document));
        }
    }
}

#[test]
fn nesting_ends_at_the_limit_for_any_mixture() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"[{"a":"#, "}]")] {
        let levels = open.matches(['[', '{']).count();
        for depth in [JSON_DEPTH_MAX - 2, JSON_DEPTH_MAX, JSON_DEPTH_MAX + 2] {
            let count = depth / levels;
            let document = format!("{}0{}", open.repeat(count), close.repeat(count));
            assert_eq!(accepts(document.as_bytes()), depth <= JSON_DEPTH_MAX, "depth {depth} of {open}");
        }
    }
    let deepest_empty = format!("{}{}", "[".repeat(JSON_DEPTH_MAX), "]".repeat(JSON_DEPTH_MAX));
    assert!(accepts(deepest_empty.as_bytes()));
    assert!(!accepts(format!("[{deepest_empty}]").as_bytes()));
}

#[test]
fn depth_bombs_are_refused_without_using_the_stack() {
    for bomb in ["[".repeat(1 << 20), r#"{"a":"#.repeat(1 << 18), "[{\"\":".repeat(1 << 18)] {
        let refused = std::thread::Builder::new().stack_size(128 << 10).spawn(move || {
            let fast = JsonParser::new().check(bomb.as_bytes());
            (fast, exact::check(bomb.as_bytes()))
        });
        let (fast, exact) = refused.expect("a thread starts").join().expect("no overflow");
        assert_eq!(fast.expect_err("it is too deep").reason, "nesting deeper than 128 levels");
        assert!(exact.is_err());
    }
}

#[test]
fn errors_name_the_place_and_the_remedy_but_no_content() {
    let failure = Failure::from(JsonParser::new().check(br#"{"secret": "value" x}"#).expect_err("it is broken"));
    assert_eq!(failure.code, ErrorCode::InvalidJson);
    assert!(failure.message.contains("byte 19"), "{}", failure.message);
    assert!(!failure.message.contains("secret") && !failure.message.contains("value"));
}

#[test]
fn a_large_document_gives_its_buffers_back() {
    let mut parser = JsonParser::new();
    let document = format!("[{}1]", "1,".repeat(KEPT_BYTES_MAX / 2 + 1));
    assert!(parser.check(document.as_bytes()).is_ok());
    assert!(parser.parse(document.as_bytes(), |nodes| nodes.len()).is_ok());
    assert_eq!((parser.scratch.capacity(), parser.tape.0.capacity()), (0, 0));
}

#[test]
fn buffers_are_reused_whatever_was_parsed_before() {
    let mut parser = JsonParser::new();
    let document = format!("[{}1]", "\"abc\",".repeat(100));
    for other in ["{\"a\":1}", "[1,", "1e999", &document, "x"] {
        let _ = parser.check(other.as_bytes());
        assert!(parser.check(document.as_bytes()).is_ok());
    }
    let (scratch, tape) = (parser.scratch.as_ptr(), parser.tape.0.as_ptr());
    for _ in 0..10 {
        assert!(parser.check(document.as_bytes()).is_ok());
        assert!(parser.check(b"{\"a\":[1,2,3]}").is_ok());
    }
    assert_eq!((scratch, tape), (parser.scratch.as_ptr(), parser.tape.0.as_ptr()));
}

fn any_json() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    scalar.prop_recursive(6, 60, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::btree_map("\\PC{0,6}", inner, 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Pieces that documents are made of, whole and broken, to be strung together at random.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = proptest::sample::select(vec![
        &b"{"[..],
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\"a\"",
        b"\"a\":",
        b"1",
        b"-",
        b"0",
        b"1.5",
        b"e9",
        b"E-",
        b" ",
        b"\n",
        b"true",
        b"null",
        b"false",
        b"\\",
        b"\\u",
        b"\\ud800",
        b"\\udc00",
        b"\\n",
        b"\\\"",
        b"\xff",
        b"\xc3\xa9",
        b"\xf0\x9f\x98\x80",
        b"\0",
        b"\x1f",
        b"99999999999999999999",
        b"\xef\xbb\xbf",
        b"/",
        b"aaaaaaaaa",
    ]);
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn generated_documents_parse_to_the_same_value(value in any_json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.expect("a value can be written");
        let expected: Value = serde_json::from_str(&text).expect("what was written can be read");
        let fast = JsonParser::new().parse(text.as_bytes(), value_of).expect("it is JSON");
        let parsed = exact::parse(text.as_bytes()).expect("it is JSON");
        prop_assert_eq!(&fast, &expected);
        prop_assert_eq!(&value_of(&parsed.nodes()), &expected);
    }

    #[test]
    fn mutated_documents_are_judged_alike(
        value in any_json(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..4), 1..4),
    ) {
        let mut document = serde_json::to_vec(&value).expect("a value can be written");
        for (place, byte, kind) in changes {
            let place = place.index(document.len().max(1));
            match kind {
                0 if place < document.len() => document[place] = byte,
                1 => document.insert(place.min(document.len()), byte),
                2 if place < document.len() => { document.remove(place); }
                _ => document.truncate(place),
            }
        }
        prop_assert_eq!(accepts(&document), is_json(&document));
    }

    #[test]
    fn heaps_of_pieces_are_judged_alike(document in pieces()) {
        prop_assert_eq!(accepts(&document), is_json(&document));
    }

    #[test]
    fn numbers_have_the_same_value(text in "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?") {
        prop_assert!(accepts(text.as_bytes()));
        let fast = JsonParser::new().parse(text.as_bytes(), value_of).expect("it is a number");
        let exact = exact::parse(text.as_bytes()).expect("it is a number");
        prop_assert_eq!(fast.as_f64(), value_of(&exact.nodes()).as_f64());
        if let Ok(expected) = serde_json::from_str::<Value>(&text) {
            prop_assert_eq!(fast.as_f64(), expected.as_f64());
        }
    }
}
