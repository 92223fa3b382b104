//! What a document breaks, in words: the place, the keyword and what the schema wants there.
//!
//! Words come from the schema and from the pointer, never from the document's values; the instance that an error
//! carries is null to begin with (see `tape`). Lists and texts are bounded.

use super::shape::Shape;
use super::tape::{Parsed, Tape};
use crate::command::{ErrorCode, Failure, Violation};
use crate::limits::VIOLATIONS_MAX;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

/// Errors that may have to be held at once for a listing, at the most.
const LISTING_WORK_MAX: u64 = 1 << 20;
/// A pointer or a schema's text is cut after this.
const TEXT_BYTES_MAX: usize = 512;

/// The refusal of a document that is not valid; `depth` is how deeply it is nested.
pub fn refusal(validator: &Validator<Tape>, shape: Shape, document: &Parsed<'_>, depth: usize) -> Failure {
    let mut violations = Vec::new();
    if listing_work(shape, document.nodes.len(), depth) <= LISTING_WORK_MAX {
        for error in validator.iter_errors(document.root()) {
            describe(&error, &mut violations);
            if violations.len() >= VIOLATIONS_MAX {
                break;
            }
        }
    }
    violations.truncate(VIOLATIONS_MAX);
    let message = match violations.as_slice() {
        [] => "the document breaks its schema; it is too large for the places to be listed".to_owned(),
        [only] => format!("the document breaks its schema: at '{}': {}", only.pointer, only.detail),
        [first, ..] => format!(
            "the document breaks its schema in {} places, first at '{}': {}",
            violations.len(),
            first.pointer,
            first.detail
        ),
    };
    let mut failure = Failure::new(ErrorCode::SchemaViolation, message);
    failure.violations = violations;
    failure
}

/// How many errors a listing might collect, since it looks at a value once for each way that leads to it.
fn listing_work(shape: Shape, nodes: usize, depth: usize) -> u64 {
    let ways = shape.spread.max(1).saturating_pow(depth as u32);
    ways.saturating_mul(shape.work).saturating_mul(nodes as u64)
}

/// Cuts a text on a character boundary.
pub fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

fn describe(error: &ValidationError<'_>, violations: &mut Vec<Violation>) {
    let place = error.instance_path().as_str();
    let keyword = error.kind().keyword();
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let members = unexpected.iter().take(VIOLATIONS_MAX).map(|name| Violation {
                pointer: cut(format!("{place}/{}", name.replace('~', "~0").replace('/', "~1"))),
                keyword: keyword.to_owned(),
                detail: "the schema allows no such member".to_owned(),
            });
            violations.extend(members);
        }
        kind => violations.push(Violation {
            pointer: cut(place.to_owned()),
            keyword: keyword.to_owned(),
            detail: cut(detail(kind)),
        }),
    }
}

fn detail(kind: &Kind) -> String {
    match kind {
        Kind::AdditionalItems { limit } => format!("at most {limit} elements are allowed"),
        Kind::AnyOf { .. } => "none of the schemas in 'anyOf' is met".to_owned(),
        Kind::OneOfNotValid { .. } => "none of the schemas in 'oneOf' is met".to_owned(),
        Kind::OneOfMultipleValid { .. } => "more than one of the schemas in 'oneOf' is met".to_owned(),
        Kind::Constant { expected_value } => format!("only {} is allowed", schema_text(expected_value)),
        Kind::Enum { options } => format!("only one of {} is allowed", schema_text(options)),
        Kind::Contains => "no element, or not the right number of them, meets 'contains'".to_owned(),
        Kind::ContentEncoding { content_encoding } => format!("the string is not encoded as '{content_encoding}'"),
        Kind::ContentMediaType { content_media_type } => format!("the string is not of type '{content_media_type}'"),
        Kind::FromUtf8 { .. } => "the encoded string is not UTF-8".to_owned(),
        Kind::ExclusiveMaximum { limit } => format!("the number must be less than {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("the number must be greater than {limit}"),
        Kind::Maximum { limit } => format!("the number must be {limit} at the most"),
        Kind::Minimum { limit } => format!("the number must be {limit} at the least"),
        Kind::MultipleOf { multiple_of } => format!("the number must be a multiple of {multiple_of}"),
        Kind::FalseSchema => "the schema allows no value here".to_owned(),
        Kind::Format { format } => format!("the string is not in the format '{format}'"),
        Kind::MaxItems { limit } => format!("at most {limit} elements are allowed"),
        Kind::MinItems { limit } => format!("at least {limit} elements are needed"),
        Kind::MaxLength { limit } => format!("at most {limit} characters are allowed"),
        Kind::MinLength { limit } => format!("at least {limit} characters are needed"),
        Kind::MaxProperties { limit } => format!("at most {limit} members are allowed"),
        Kind::MinProperties { limit } => format!("at least {limit} members are needed"),
        Kind::Not { .. } => "the schema in 'not' is met".to_owned(),
        Kind::Pattern { pattern } => format!("the string does not match the pattern '{pattern}'"),
        Kind::PropertyNames { error } => format!("a member name is not allowed: {}", detail(error.kind())),
        Kind::Required { property } => format!("the member {} is missing", schema_text(property)),
        Kind::Type { kind } => format!("the value is not of type {}", type_text(kind)),
        Kind::UnevaluatedItems { .. } => "the schema allows no such elements".to_owned(),
        Kind::UniqueItems => "two elements are equal".to_owned(),
        Kind::AdditionalProperties { .. } | Kind::UnevaluatedProperties { .. } => {
            "the schema allows no such member".to_owned()
        }
        Kind::BacktrackLimitExceeded { .. }
        | Kind::RegexEngineFailure { .. }
        | Kind::Referencing(_)
        | Kind::Custom { .. } => "the schema could not be applied here".to_owned(),
    }
}

fn type_text(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(only) => only.to_string(),
        TypeKind::Multiple(several) => several.iter().map(|each| each.to_string()).collect::<Vec<_>>().join(" or "),
    }
}

fn schema_text(value: &Value) -> String {
    cut(value.to_string())
}
