//! Templates against their text, and validation on the tape against validation of `serde_json::Value`.

use super::*;
use crate::command::Violation;
use crate::limits::VIOLATIONS_MAX;
use crate::schema::JsonParser;
use proptest::prelude::*;
use serde_json::json;

fn compile(schema: &Value) -> Template {
    Template::compile(schema.to_string().as_bytes()).expect("the schema can be used")
}

fn reason(schema: &str) -> String {
    Template::compile(schema.as_bytes()).expect_err("the schema must be refused").to_string()
}

fn check(template: &Template, document: &str) -> Result<(), Failure> {
    let mut members = Members::default();
    JsonParser::new().parse(document.as_bytes(), |nodes| template.check(nodes, &mut members)).expect("it is JSON")
}

fn violations(schema: &Value, document: &str) -> Vec<Violation> {
    let failure = check(&compile(schema), document).expect_err("the document must be refused");
    assert_eq!(failure.code, ErrorCode::SchemaViolation);
    failure.violations
}

#[test]
fn what_is_no_schema_is_refused_with_place_and_reason() {
    for (schema, expected) in [
        ("", "unexpected end"),
        ("{", "no member name"),
        ("5", "not of types"),
        (r#"{"type":"strin"}"#, "at '/type'"),
        (r#"{"minLength":-1}"#, "at '/minLength': -1 is less than the minimum of 0"),
        (r#"{"properties":{"a/b":{"type":5}}}"#, "at '/properties/a~1b/type'"),
        (r#"{"pattern":"(?=a)b"}"#, "look-around is not supported"),
        (r#"{"patternProperties":{"(?<!a)":{}}}"#, "look-around is not supported"),
        (r#"{"pattern":"(a)\\1"}"#, "backreferences are not supported"),
        (r#"{"pattern":"("}"#, "not a regular expression"),
        (r#"{"pattern":"((a{1000}){1000}){1000}"}"#, "too large when compiled"),
        (r#"{"$ref":"http://example.com/x"}"#, "Retrieval is disabled"),
        (r#"{"$ref":"file:///etc/passwd"}"#, "Retrieval is disabled"),
        (r#"{"$ref":"other.json"}"#, "other.json"),
        (r##"{"$ref":"#/definitions/x"}"##, "does not exist"),
        (r#"{"$schema":"http://example.com/s"}"#, "Unknown meta-schema"),
        (r#"{"$schema":5}"#, "at '/$schema'"),
        (r##"{"$ref":"#"}"##, "form a loop"),
        (&chain(5000, |next| next, json!(true)).to_string(), "a chain of over 4096"),
    ] {
        let reason = reason(schema);
        assert!(reason.contains(expected), "{schema}: {reason}");
    }
    let failure = Failure::from(Template::compile(br#"{"type":5}"#).expect_err("it is no schema"));
    assert_eq!(failure.code, ErrorCode::InvalidSchema);
    assert_eq!(Failure::from(TemplateError::TooLarge(9)).code, ErrorCode::TooLarge);
}

#[test]
fn size_depth_and_number_of_patterns_are_bounded() {
    let large = format!("{{\"title\":\"{}\"}}", "x".repeat(TEMPLATE_BYTES_MAX));
    assert!(reason(&large).contains("1048576 are allowed"));
    let deep = format!("{}true{}", r#"{"not":"#.repeat(200), "}".repeat(200));
    assert!(reason(&deep).contains("nesting deeper"));
    let patterns: Vec<Value> =
        (0..patterns::PATTERNS_MAX + 1).map(|number| json!({"pattern": format!("{number}")})).collect();
    assert!(reason(&json!({"items": patterns}).to_string()).contains("patterns"));
}

#[test]
fn the_draft_is_7_unless_declared() {
    // `$ref` beside other keywords hides them in draft 7, and does not from 2019-09 on.
    let schema = json!({"$ref": "#/definitions/any", "type": "string", "definitions": {"any": {}}});
    assert!(check(&compile(&schema), "1").is_ok());
    let mut later = schema.clone();
    later["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    assert!(check(&compile(&later), "1").is_err());
    assert!(check(&compile(&json!({"prefixItems": [{"type": "string"}]})), "[1]").is_ok());
}

#[test]
fn formats_are_asserted_in_draft_7_only() {
    let schema = json!({"format": "date-time"});
    assert_eq!(violations(&schema, "\"no date\"")[0].keyword, "format");
    assert!(check(&compile(&schema), "\"2024-02-29T12:00:00Z\"").is_ok());
    let later = json!({"format": "date-time", "$schema": "https://json-schema.org/draft/2020-12/schema"});
    assert!(check(&compile(&later), "\"no date\"").is_ok());
    assert!(check(&compile(&json!({"format": "unheard-of"})), "\"x\"").is_ok());
}

#[test]
fn references_to_metaschemas_and_within_the_template_work() {
    let metaschema = compile(&json!({"$ref": "http://json-schema.org/draft-07/schema#"}));
    assert!(check(&metaschema, r#"{"type":"string"}"#).is_ok());
    assert!(check(&metaschema, r#"{"type":7}"#).is_err());
    let tree = compile(&json!({"properties": {"children": {"items": {"$ref": "#"}}}, "required": ["name"]}));
    assert!(check(&tree, r#"{"name":1,"children":[{"name":2,"children":[]}]}"#).is_ok());
    assert!(check(&tree, r#"{"name":1,"children":[{"children":[]}]}"#).is_err());
}

#[test]
fn violations_name_place_and_keyword_but_no_value() {
    let schema = json!({
        "properties": {
            "s": {"type": "string", "minLength": 20, "pattern": "^z"},
            "n": {"maximum": 3, "multipleOf": 2},
            "e": {"enum": ["red", "green"]},
            "c": {"const": {"k": 1}},
            "u": {"uniqueItems": true, "items": {"type": "integer"}},
            "o": {"oneOf": [{"minLength": 40}, {"minLength": 50}]},
            "f": {"format": "email"},
            "d/e~": {"type": ["null", "boolean"]}
        },
        "required": ["missing"],
        "propertyNames": {"maxLength": 6},
        "additionalProperties": false
    });
    let document = json!({"s": "hunter2", "n": 77777, "e": "hunter2", "c": "hunter2", "u": ["hunter2", "hunter2"],
        "o": "hunter2", "f": "hunter2", "d/e~": "hunter2", "extra~/x": "hunter2"});
    let found = violations(&schema, &document.to_string());
    let pairs: Vec<(&str, &str)> = found.iter().map(|each| (each.pointer.as_str(), each.keyword.as_str())).collect();
    for expected in [
        ("/s", "minLength"),
        ("/s", "pattern"),
        ("/n", "maximum"),
        ("/n", "multipleOf"),
        ("/e", "enum"),
        ("/c", "const"),
        ("/u", "uniqueItems"),
        ("/u/0", "type"),
        ("/u/1", "type"),
        ("/o", "oneOf"),
        ("/f", "format"),
        ("/d~1e~0", "type"),
        ("", "required"),
        ("", "propertyNames"),
        ("/extra~0~1x", "additionalProperties"),
    ] {
        assert!(pairs.contains(&expected), "{expected:?} is missing in {pairs:?}");
    }
    for violation in &found {
        assert!(!violation.detail.contains("hunter2") && !violation.detail.contains("77777"), "{violation:?}");
    }
}

#[test]
fn violations_are_bounded_in_number_size_and_cost() {
    let schema = json!({"items": {"type": "string"}, "properties": {"a": {}}, "additionalProperties": false});
    assert_eq!(violations(&schema, &format!("[{}1]", "1,".repeat(1000))).len(), VIOLATIONS_MAX);
    let members: Vec<String> = (0..1000).map(|number| format!("\"k{number}\":1")).collect();
    assert_eq!(violations(&schema, &format!("{{{}}}", members.join(","))).len(), VIOLATIONS_MAX);
    let long = violations(&schema, &format!("{{\"{}\":1}}", "ü".repeat(5000)));
    assert!(long[0].pointer.len() < 600, "a long name is cut");
    let failure = check(&compile(&schema), &format!("[{}1]", "1,".repeat(2 << 20))).expect_err("no strings");
    assert!(failure.violations.is_empty() && failure.message.contains("too large"));
    // Each level of the document doubles the ways to its leaf.
    let doubling = json!({"allOf": [{"properties": {"x": {"$ref": "#"}}}, {"properties": {"x": {"$ref": "#"}}}],
        "type": ["object", "integer"]});
    let deep = format!("{}null{}", r#"{"x":"#.repeat(100), "}".repeat(100));
    assert!(check(&compile(&doubling), &deep).expect_err("a leaf is null").violations.is_empty());
}

#[test]
fn the_last_of_repeated_names_is_the_one_that_is_validated() {
    let template = compile(&json!({"properties": {"a": {"type": "integer"}}, "maxProperties": 1}));
    assert!(check(&template, r#"{"a":"x","a":1}"#).is_ok());
    assert!(check(&template, r#"{"a":1,"a":"x"}"#).is_err());
}

#[test]
fn numbers_beyond_a_double_are_very_large_ones() {
    let template = compile(&json!({"type": "integer", "minimum": 10}));
    for (document, is_valid) in [("1e999", true), ("123456789012345678901234567890", true), ("-1e999", false)] {
        assert_eq!(check(&template, document).is_ok(), is_valid, "{document}");
    }
}

fn chain(length: usize, hop: impl Fn(Value) -> Value, end: Value) -> Value {
    let mut definitions = serde_json::Map::new();
    for number in 0..length {
        definitions.insert(format!("c{number}"), hop(json!({"$ref": format!("#/definitions/c{}", number + 1)})));
    }
    definitions.insert(format!("c{length}"), end);
    json!({"definitions": definitions, "$ref": "#/definitions/c0"})
}

/// Everything below must do with what a shard's thread has at the least.
fn on_small_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run).expect("a thread starts");
    thread.join().expect("no overflow, no failure");
}

#[test]
fn long_chains_of_schemas_do_not_overflow_the_stack() {
    on_small_stack(|| {
        let end = || json!({"type": "string"});
        for schema in [
            chain(4000, |next| next, end()),
            chain(2000, |next| json!({"allOf": [next]}), end()),
            chain(1000, |next| json!({"anyOf": [{"const": "never"}, {"not": {"not": next}}]}), end()),
        ] {
            let template = compile(&schema);
            assert!(check(&template, "\"x\"").is_ok());
            assert!(check(&template, "1").is_err());
        }
    });
}

#[test]
fn deep_documents_meet_deep_schemas_without_overflowing_the_stack() {
    on_small_stack(|| {
        for length in [1, 5, 30, 400] {
            let into = json!({"properties": {"a": {"$ref": "#"}}, "items": {"$ref": "#"}, "type": ["object", "array"]});
            let template = compile(&chain(length, |next| json!({"allOf": [next]}), into));
            for depth in [1, 20, 126] {
                let document = format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
                assert!(check(&template, &document).is_err(), "length {length}, depth {depth}");
            }
        }
        let deepest = format!("{}true{}", r#"{"not":"#.repeat(100), "}".repeat(100));
        assert!(Template::compile(deepest.as_bytes()).is_ok());
    });
}

#[test]
fn expansion_without_bound_is_refused() {
    let doubled = chain(40, |next| json!({"allOf": [next.clone(), next]}), json!({"type": "string"}));
    assert!(reason(&doubled.to_string()).contains("schemas to one value"));
}

#[test]
fn lookups_in_wide_objects_are_not_quadratic() {
    let names: Vec<String> = (0..20_000).map(|number| format!("member{number}")).collect();
    let template = compile(&json!({"required": names}));
    let members: Vec<String> = names.iter().rev().map(|name| format!("\"{name}\":1")).collect();
    assert!(check(&template, &format!("{{{}}}", members.join(","))).is_ok());
    assert!(check(&template, &format!("{{{}}}", members[1..].join(","))).is_err());
}

fn small_value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        proptest::sample::select(vec![
            "0",
            "1",
            "2",
            "-1",
            "1.0",
            "0.5",
            "-0.0",
            "1e2",
            "100",
            "9007199254740993",
            "9007199254740992.0",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775808",
            "1e300"
        ])
        .prop_map(|text| serde_json::from_str(text).expect("a number")),
        proptest::sample::select(vec!["", "a", "b", "ab", "héllo", "🦀🦀", "2024-01-01", "a@b.c"])
            .prop_map(Value::from),
    ];
    scalar.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec(inner.clone(), 14..22).prop_map(Value::from),
            proptest::collection::btree_map("[a-d]{1,2}", inner.clone(), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
            proptest::collection::btree_map("[a-e]{1,3}", inner, 15..25)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn schema() -> impl Strategy<Value = Value> {
    let names = || proptest::collection::vec("[a-d]{1,2}", 1..5);
    let count = || 0u64..5;
    let leaf = prop_oneof![
        proptest::sample::subsequence(vec!["null", "boolean", "integer", "number", "string", "array", "object"], 1..4)
            .prop_map(|types| json!({"type": types})),
        small_value().prop_map(|value| json!({"const": value})),
        proptest::collection::vec(small_value(), 1..5).prop_map(|values| json!({"enum": values})),
        Just(json!({"uniqueItems": true})),
        proptest::sample::select(vec![
            json!({"minimum": 1}),
            json!({"exclusiveMaximum": 100}),
            json!({"multipleOf": 0.5}),
            json!({"maximum": 9007199254740992u64}),
            json!({"multipleOf": 2}),
            json!({"pattern": "^[a-h]+$"}),
            json!({"format": "date"}),
            json!({"minLength": 2}),
            json!({"maxLength": 1}),
            json!(true),
            json!(false)
        ]),
        (count(), count()).prop_map(|(least, more)| json!({"minProperties": least, "maxProperties": least + more})),
        (count(), count()).prop_map(|(least, more)| json!({"minItems": least, "maxItems": least + more})),
        names().prop_map(|mut names| {
            names.sort();
            names.dedup();
            json!({"required": names})
        }),
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        let named = || proptest::collection::btree_map("[a-d]{1,2}", inner.clone(), 0..4);
        prop_oneof![
            (named(), inner.clone())
                .prop_map(|(named, rest)| json!({"properties": named, "additionalProperties": rest})),
            (named(), proptest::sample::select(vec!["a", "b"]))
                .prop_map(|(named, required)| json!({"properties": named, "required": [required]})),
            inner.clone().prop_map(|names| json!({"propertyNames": names})),
            inner.clone().prop_map(|held| json!({"patternProperties": {"^a": held}})),
            inner.clone().prop_map(|items| json!({"items": items})),
            (inner.clone(), inner.clone()).prop_map(|(first, rest)| json!({"items": [first], "additionalItems": rest})),
            inner.clone().prop_map(|item| json!({"contains": item})),
            inner.clone().prop_map(|schema| json!({"not": schema})),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(test, then, other)| json!({"if": test, "then": then, "else": other})),
            inner.clone().prop_map(|schema| json!({"dependencies": {"a": schema, "b": ["c"]}})),
            (proptest::sample::select(vec!["allOf", "anyOf", "oneOf"]), proptest::collection::vec(inner.clone(), 1..4))
                .prop_map(|(keyword, schemas)| json!({keyword: schemas})),
            (inner.clone(), named()).prop_map(|(unevaluated, named)| json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "properties": named, "unevaluatedProperties": unevaluated, "unevaluatedItems": unevaluated})),
        ]
    })
}

/// A schema nested in another must not declare a draft of its own here: the two builds would agree to refuse it.
fn without_nested_drafts(schema: &mut Value, is_root: bool) {
    match schema {
        Value::Object(members) => {
            if !is_root {
                members.remove("$schema");
            }
            members.values_mut().for_each(|member| without_nested_drafts(member, false));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| without_nested_drafts(item, false)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_tape_and_the_tree_are_judged_alike(
        mut schema in schema(),
        documents in proptest::collection::vec(small_value(), 1..8),
    ) {
        without_nested_drafts(&mut schema, true);
        // Some combinations mean nothing in the later draft.
        prop_assume!(Template::compile(schema.to_string().as_bytes()).is_ok());
        let template = compile(&schema);
        let mut options = jsonschema::options().with_pattern_options(jsonschema::PatternOptions::regex());
        if schema.get("$schema").is_none() {
            options = options.with_draft(Draft::Draft7);
        }
        let tree = options.build(&schema).expect("it was compiled before");
        for document in documents {
            // Through text, as documents come; so both sides read the same numbers.
            let text = document.to_string();
            let value: Value = serde_json::from_str(&text).expect("a value");
            let found = check(&template, &text);
            prop_assert_eq!(found.is_ok(), tree.is_valid(&value), "{} with {}", schema, text);
            let mut expected: Vec<String> =
                tree.iter_errors(&value).map(|error| error.instance_path().as_str().to_owned()).collect();
            let mut places: Vec<String> = found.err().map(|failure| failure.violations).unwrap_or_default()
                .into_iter().map(|violation| violation.pointer).collect();
            if !schema.to_string().contains("Properties\"") && expected.len() < VIOLATIONS_MAX {
                expected.sort();
                places.sort();
                prop_assert_eq!(places, expected, "{} with {}", schema, text);
            }
        }
    }
}
