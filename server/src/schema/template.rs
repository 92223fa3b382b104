//! One compiled JSON Schema, shared by all shards.
//!
//! Compiling checks the text against its metaschema and refuses what could reach outside of it or blow up: references
//! to other documents, patterns with look-around or backreferences, patterns too large or too many.

use super::json::{Node, exact};
use super::members::{Members, without_repeats};
use super::tape::{Parsed, Tape};
use super::violations::{cut, refusal};
use super::patterns;
use crate::command::{ErrorCode, Failure};
use crate::limits::TEMPLATE_BYTES_MAX;
use jsonschema::{Draft, ValidationError, Validator};
use serde_json::Value;

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is larger than a template may be.
    #[error("it has {0} bytes, at most {TEMPLATE_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// It is not JSON, or nested too deeply.
    #[error("{0}")]
    Malformed(String),
    /// It holds more patterns than a template may.
    #[error("it holds {0} patterns, at most {max} are allowed", max = patterns::PATTERNS_MAX)]
    TooManyPatterns(usize),
    /// It is JSON, but no schema that can be compiled.
    #[error("at '{pointer}': {reason}")]
    Invalid {
        /// JSON Pointer into the template.
        pointer: String,
        /// What is wrong there.
        reason: String,
    },
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        let code = match error {
            TemplateError::TooLarge(_) => ErrorCode::TooLarge,
            _ => ErrorCode::InvalidSchema,
        };
        Failure::new(code, format!("the template is not a JSON Schema that can be used here: {error}"))
    }
}

/// A template: its text as stored, and what it compiled to.
pub struct Template {
    text: Vec<u8>,
    validator: Validator<Tape>,
    /// How many JSON values the text has.
    weight: usize,
}

impl Template {
    /// Compiles a text.
    pub fn compile(text: &[u8]) -> Result<Self, TemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLarge(text.len()));
        }
        exact::check(text).map_err(|malformed| TemplateError::Malformed(malformed.to_string()))?;
        let schema: Value =
            serde_json::from_slice(text).map_err(|error| TemplateError::Malformed(error.to_string()))?;
        let patterns = patterns::count(&schema);
        if patterns > patterns::PATTERNS_MAX {
            return Err(TemplateError::TooManyPatterns(patterns));
        }
        let mut options =
            jsonschema::options_for::<Tape>().offline().with_pattern_options(patterns::options(patterns));
        if schema.get("$schema").is_none() {
            options = options.with_draft(Draft::Draft7);
        }
        let validator = options.build(&schema).map_err(|error| invalid(&error))?;
        Ok(Self { text: text.to_vec(), validator, weight: weight(&schema) })
    }

    /// The text as stored.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether a parsed document is valid. `members` is scratch.
    pub fn check(&self, nodes: &[Node<'_>], members: &mut Members) -> Result<(), Failure> {
        if members.index(nodes) {
            let nodes = without_repeats(nodes);
            members.index(&nodes);
            return self.check_indexed(&Parsed { nodes: &nodes, members });
        }
        self.check_indexed(&Parsed { nodes, members })
    }

    fn check_indexed(&self, document: &Parsed<'_>) -> Result<(), Failure> {
        if self.validator.is_valid(document.root()) {
            return Ok(());
        }
        Err(refusal(&self.validator, self.weight, document))
    }
}

impl std::fmt::Debug for Template {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Template({} bytes)", self.text.len())
    }
}

fn invalid(error: &ValidationError<'_>) -> TemplateError {
    TemplateError::Invalid {
        pointer: cut(error.instance_path().as_str().to_owned()),
        reason: cut(error.to_string()),
    }
}

fn weight(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(weight).sum::<usize>(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests;
