//! What checking one document of 400 bytes costs: parsing alone, parsing and validating on the tape, and for
//! comparison `serde_json` alone, and validating on its tree.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use deltadb::schema::{Checker, JsonParser, Template};
use serde_json::{Value, json};
use std::hint::black_box;

/// A typical template: eight members, some of them bounded, one object and one list.
fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "id": {"type": "string", "minLength": 8, "maxLength": 64},
            "name": {"type": "string", "minLength": 1, "maxLength": 200},
            "email": {"type": "string", "pattern": "^[^@]+@[^@]+$"},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "active": {"type": "boolean"},
            "role": {"enum": ["reader", "writer", "admin"]},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 16},
            "address": {
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}, "zip": {"type": "string"}},
                "required": ["city"]
            }
        },
        "required": ["id", "name", "email"],
        "additionalProperties": false
    })
}

fn document() -> Vec<u8> {
    let mut document = json!({
        "id": "7f3b2a9c-51d4-4c1e-9a77-2d0b8e6f4c11", "name": "Ada Lovelace", "email": "ada@example.com", "age": 36,
        "active": true, "role": "admin", "tags": ["mathematics", "engines", "poetry"],
        "address": {"street": "12 St James's Square", "city": "London", "zip": "SW1Y"}
    });
    let missing = 400 - document.to_string().len();
    document["name"] = json!("Ada Lovelace".to_owned() + &"x".repeat(missing));
    document.to_string().into_bytes()
}

fn validate(criterion: &mut Criterion) {
    let (schema, document) = (schema(), document());
    assert_eq!(document.len(), 400);
    let template = Template::compile(schema.to_string().as_bytes()).expect("the schema compiles");
    let tree = jsonschema::draft7::options()
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .build(&schema)
        .expect("the schema compiles");
    let (mut parser, mut checker) = (JsonParser::new(), Checker::default());
    assert!(checker.check(Some(&template), &document).is_ok());

    let mut group = criterion.benchmark_group("document_400_bytes");
    group.throughput(Throughput::Bytes(400));
    group.bench_function("parse", |bencher| bencher.iter(|| parser.check(black_box(&document)).is_ok()));
    group.bench_function("parse_and_validate_on_tape", |bencher| {
        bencher.iter(|| checker.check(Some(&template), black_box(&document)).is_ok())
    });
    group.bench_function("serde_json_alone", |bencher| {
        bencher.iter(|| serde_json::from_slice::<Value>(black_box(&document)).is_ok())
    });
    group.bench_function("serde_json_alone_without_a_tree", |bencher| {
        bencher.iter(|| serde_json::from_slice::<serde::de::IgnoredAny>(black_box(&document)).is_ok())
    });
    group.bench_function("parse_and_validate_as_tree", |bencher| {
        bencher.iter(|| tree.is_valid(&serde_json::from_slice::<Value>(black_box(&document)).expect("JSON")))
    });
    let value: Value = serde_json::from_slice(&document).expect("JSON");
    group.bench_function("validate_tree_alone", |bencher| bencher.iter(|| tree.is_valid(black_box(&value))));
    group.finish();
}

criterion_group!(benches, validate);
criterion_main!(benches);
