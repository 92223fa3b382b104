//! Templates: compiling any text, and judging any document on the tape against the same judgement of
//! `serde_json::Value`.
//!
//! Holds: a template compiles exactly when the reference does, unless it goes beyond a bound of the product's own; the
//! verdicts on a document agree; a refusal names places and keywords within its bounds, and no value of the document.

use super::input::{join, parts};
use super::json_text::{name_positions, own};
use deltadb::command::{ErrorCode, Failure};
use deltadb::limits::VIOLATIONS_MAX;
use deltadb::schema::json::{Node, exact};
use deltadb::schema::template::TemplateError;
use deltadb::schema::{Checker, JsonParser, Template};
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

/// Values shorter than this may be in a message by chance.
const TELLING_BYTES: usize = 6;

/// Tries one input: a template, then documents.
pub fn run(data: &[u8]) {
    let mut parts = parts(data);
    let text = parts.next().unwrap_or_default();
    let template = match Template::compile(text) {
        Ok(template) => template,
        Err(error) => return refused(text, &error),
    };
    assert_eq!(template.text(), text, "a template is kept as it was sent");
    let schema: Value = serde_json::from_slice(text).expect("a compiled template is JSON");
    let reference = on_large_stack(|| compile_reference(&schema)).expect("the reference compiles it too");
    let mut checker = Checker::default();
    for document in parts.take(8) {
        let verdict = checker.check(Some(&template), document);
        if exact::check(document).is_err() {
            assert!(matches!(&verdict, Err(failure) if failure.code == ErrorCode::InvalidJson));
            continue;
        }
        if let Err(failure) = &verdict {
            judge_refusal(failure, text, document);
        }
        // The reference reads no number beyond a double and no unpaired surrogate.
        let Ok(value) = serde_json::from_slice::<Value>(document) else { continue };
        // It also reads the integer -0 as a fraction, which draft 4 does not take for an integer.
        if document.windows(2).any(|pair| pair == b"-0") && text.windows(8).any(|part| part == b"draft-04") {
            continue;
        }
        let too_deep = matches!(&verdict, Err(failure) if failure.code != ErrorCode::SchemaViolation);
        if !too_deep {
            let expected = on_large_stack(|| reference.is_valid(&value));
            assert_eq!(verdict.is_ok(), expected, "on {}", String::from_utf8_lossy(document));
        }
    }
}

/// Templates of every keyword with documents on both sides.
pub fn seeds() -> Vec<Vec<u8>> {
    let lines = |case: &str| join(&case.trim().lines().map(str::as_bytes).collect::<Vec<_>>());
    CASES.split("\n\n").map(lines).collect()
}

/// A template a block, documents below it.
const CASES: &str = r##"
{"type":"object","required":["a"],"properties":{"a":{"type":"string","minLength":2},"b":{"type":["integer","null"]}}}
{"a":"xy"}
{"a":"x","b":1.5,"c":2}
{"b":null}

{"additionalProperties":{"type":"boolean"},"properties":{"a":true}}
{"a":1,"b":true}
{"c":"telling value 1"}

{"type":"array","items":{"enum":[1,"two",null,[3],{"f":4}]},"uniqueItems":true,"maxItems":9,"minItems":1}
[1.0,"two"]
[1,1.0]
[]

{"const":{"a":[1,2.5,1e300],"b":"c"}}
{"b":"c","a":[1.0,2.50,1E+300]}
{}

{"allOf":[{"minimum":1},{"exclusiveMaximum":9}],"not":{"multipleOf":2.5}}
3
5.0
9
"x"

{"oneOf":[{"type":"integer"},{"minimum":2}],"anyOf":[true,false]}
1
2.5
3

{"definitions":{"n":{"properties":{"next":{"$ref":"#/definitions/n"},"v":{"type":"number"}}}},"$ref":"#/definitions/n"}
{"next":{"next":{"v":1}}}
{"next":{"v":"telling value 2"}}

{"pattern":"^[a-z]+\\d?$","maxLength":5,"format":"email"}
"abc1"
"ABC"
"toolongvalue7"

{"patternProperties":{"^x-":{"type":"string"}},"propertyNames":{"maxLength":4},"minProperties":1,"maxProperties":2}
{"x-a":"1"}
{"x-toolong":1}
{}

{"if":{"properties":{"k":{"const":1}}},"then":{"required":["a"]},"else":{"required":["b"]}}
{"k":1,"a":0}
{"k":2,"a":0}

{"dependencies":{"a":["b"],"c":{"required":["d"]}},"contains":{"const":1}}
{"a":1}
[2,1]
[2]

{"$schema":"https://json-schema.org/draft/2020-12/schema","prefixItems":[{"type":"integer"}],"items":false}
[1]
[1,2]

{"$schema":"https://json-schema.org/draft/2020-12/schema","unevaluatedProperties":false,"properties":{"a":true}}
{"a":1}
{"a":1,"b":2}

{"$schema":"https://json-schema.org/draft/2020-12/schema","$dynamicAnchor":"n","properties":{"c":{"$dynamicRef":"#n"}}}
{"c":{"c":{}}}
{"c":1}

{"$schema":"http://json-schema.org/draft-04/schema#","minimum":1,"exclusiveMinimum":true,"type":"number"}
1
1.5

false
1

{"$ref":"#"}
1

{"pattern":"(?=a)b"}
"b"
"##;

/// What the product refuses, the reference refuses too, or the bound is one of the product's own.
fn refused(text: &[u8], error: &TemplateError) {
    let message = Failure::from_template(error);
    assert!(message.len() < 4096, "a message of {} bytes", message.len());
    let TemplateError::Invalid { reason, .. } = error else { return };
    // The sizes of patterns are shared out between them, which the reference does not do.
    if reason.contains("pattern") || reason.contains("regular expression") {
        return;
    }
    let schema: Value = serde_json::from_slice(text).expect("an invalid schema is JSON");
    let compiled = on_large_stack(|| compile_reference(&schema).err());
    assert!(compiled.is_some(), "refused though the reference compiles it: {reason}");
}

/// The words of a template error.
trait FromTemplate {
    fn from_template(error: &TemplateError) -> String;
}

impl FromTemplate for Failure {
    fn from_template(error: &TemplateError) -> String {
        error.to_string()
    }
}

fn compile_reference(schema: &Value) -> Result<Validator, String> {
    let mut options = jsonschema::options().offline().with_pattern_options(PatternOptions::regex());
    if schema.get("$schema").is_none() {
        options = options.with_draft(Draft::Draft7);
    }
    options.build(schema).map_err(|error| error.to_string())
}

fn judge_refusal(failure: &Failure, template: &[u8], document: &[u8]) {
    assert!(failure.violations.len() <= VIOLATIONS_MAX);
    let known = [ErrorCode::SchemaViolation, ErrorCode::InvalidJson, ErrorCode::Overloaded];
    assert!(known.contains(&failure.code), "{:?}: {}", failure.code, failure.message);
    let mut words = failure.message.to_string();
    for violation in &failure.violations {
        assert!(violation.pointer.is_empty() || violation.pointer.starts_with('/'), "{}", violation.pointer);
        words.extend([" ", &violation.pointer, " ", &violation.keyword, " ", &violation.detail]);
    }
    let parsed = exact::parse(document).expect("only JSON is judged by a template");
    let nodes = parsed.nodes();
    let mut names = vec![false; nodes.len()];
    for (position, node) in nodes.iter().enumerate() {
        if let Node::Object { len, .. } = node {
            name_positions(&nodes, position, *len).iter().for_each(|(at, _)| names[*at] = true);
        }
    }
    let template = String::from_utf8_lossy(template);
    let all_names: Vec<&str> = nodes.iter().zip(&names).filter_map(|(node, is_name)| text_of(node, *is_name)).collect();
    for value in nodes.iter().zip(&names).filter_map(|(node, is_name)| text_of(node, !*is_name)) {
        let explained = template.contains(value) || all_names.iter().any(|name| name.contains(value));
        let by_chance = value.len() < TELLING_BYTES || !value.bytes().any(|byte| byte.is_ascii_digit());
        assert!(explained || by_chance || !words.contains(value), "the refusal tells a value: {words}");
    }
    // The nodes that were judged are those of the fast parser.
    assert_eq!(JsonParser::new().parse(document, own).ok(), Some(own(&nodes)));
}

fn text_of<'a>(node: &Node<'a>, wanted: bool) -> Option<&'a str> {
    match node {
        Node::String(text) if wanted => Some(text),
        _ => None,
    }
}

/// The reference recurses without a bound of its own.
fn on_large_stack<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(256 << 20).spawn_scoped(scope, run);
        thread.expect("a thread").join().expect("the reference does not panic")
    })
}
