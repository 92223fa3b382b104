//! One compiled JSON Schema, shared by all shards.
//!
//! Compiling checks the text against its metaschema and refuses what could reach outside of it or blow up: references
//! to other documents, patterns with look-around or backreferences, patterns too large or too many.

use super::json::{Node, exact};
use super::members::{Members, depth, without_repeats};
use super::patterns;
use super::shape::{self, Shape};
use super::tape::{Parsed, Tape};
use super::violations::{cut, refusal};
use crate::command::{ErrorCode, Failure};
use crate::limits::TEMPLATE_BYTES_MAX;
use jsonschema::error::ValidationErrorKind;
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
    /// Its references come back to where they began without looking into the value, or go on for too long.
    #[error("its references form a loop, or a chain of over {max} schemas, that never looks into the value", max = shape::CHAIN_MAX)]
    Endless,
    /// There was no memory to compile it; the text may be fine.
    #[error("there is no memory to compile it now; try again later")]
    NoMemory,
    /// The compiler gave up on it.
    #[error("it cannot be compiled; simplify it")]
    Uncompilable,
    /// One value would be looked at too often.
    #[error("its references and combinations apply {0} schemas to one value, at most {WORK_MAX} are allowed")]
    TooMuchWork(u64),
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
            TemplateError::NoMemory => ErrorCode::Overloaded,
            _ => ErrorCode::InvalidSchema,
        };
        Failure::new(code, format!("the template is not a JSON Schema that can be used here: {error}"))
    }
}

/// A template: its text as stored, and what it compiled to.
pub struct Template {
    text: Vec<u8>,
    validator: Validator<Tape>,
    shape: Shape,
}

impl Template {
    /// Compiles a text. Takes milliseconds for a large one, on a thread with a stack to match.
    pub fn compile(text: &[u8]) -> Result<Self, TemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLarge(text.len()));
        }
        exact::check(text).map_err(|malformed| TemplateError::Malformed(malformed.to_string()))?;
        let failed = |failure| match failure {
            StackFailure::NoThread => TemplateError::NoMemory,
            StackFailure::Panicked => TemplateError::Uncompilable,
        };
        on_stack(COMPILE_STACK_BYTES, || compile_checked(text)).map_err(failed)?
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
        // The number of containers is a quick upper bound of the depth.
        if (document.members.containers() + 1).saturating_mul(self.shape.chain) <= INLINE_HOPS_MAX {
            return self.judge(document);
        }
        let hops = (depth(document.nodes) + 1).saturating_mul(self.shape.chain);
        if hops <= INLINE_HOPS_MAX {
            return self.judge(document);
        }
        if hops > HOPS_MAX {
            return Err(Failure::new(ErrorCode::InvalidJson, "the document is nested too deeply for its schema"));
        }
        let failed = |failure| match failure {
            StackFailure::NoThread => {
                Failure::new(ErrorCode::Overloaded, "no memory to validate so deep a document; try again later")
            }
            StackFailure::Panicked => {
                Failure::new(ErrorCode::Internal, "validation failed; the document was not stored")
            }
        };
        on_stack(hops * HOP_STACK_BYTES + BASE_STACK_BYTES, || self.judge(document)).map_err(failed)?
    }

    fn judge(&self, document: &Parsed<'_>) -> Result<(), Failure> {
        if self.validator.is_valid(document.root()) {
            return Ok(());
        }
        Err(refusal(&self.validator, self.shape, document, depth(document.nodes)))
    }
}

/// Stack that one schema on the way into a document may take, also without optimisation.
const HOP_STACK_BYTES: usize = 4 << 10;
/// What a validation needs beside.
const BASE_STACK_BYTES: usize = 256 << 10;
/// So many schemas deep, a validation runs on the caller's stack.
const INLINE_HOPS_MAX: usize = 128;
/// Deeper than this, a document is refused.
const HOPS_MAX: usize = 1 << 14;
/// Stack for surveying and compiling the largest template.
const COMPILE_STACK_BYTES: usize = 64 << 20;
/// Schemas that a template may apply to one value.
const WORK_MAX: u64 = 1 << 14;

/// Why a recursion on its own stack has no result.
enum StackFailure {
    NoThread,
    Panicked,
}

/// Runs a recursion that is deep but bounded on a stack of its own, and waits for it; only the pages it touches become
/// memory.
fn on_stack<T: Send>(stack_bytes: usize, run: impl FnOnce() -> T + Send) -> Result<T, StackFailure> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(stack_bytes).spawn_scoped(scope, run);
        thread.map_err(|_| StackFailure::NoThread)?.join().map_err(|_| StackFailure::Panicked)
    })
}

fn compile_checked(text: &[u8]) -> Result<Template, TemplateError> {
    let malformed = |error: serde_json::Error| TemplateError::Malformed(error.to_string());
    let schema: Value = serde_json::from_slice(text).map_err(malformed)?;
    let patterns = patterns::count(&schema);
    if patterns > patterns::PATTERNS_MAX {
        return Err(TemplateError::TooManyPatterns(patterns));
    }
    let shape = shape::of(&schema).map_err(|shape::Endless| TemplateError::Endless)?;
    if shape.work > WORK_MAX {
        return Err(TemplateError::TooMuchWork(shape.work));
    }
    let mut options = jsonschema::options_for::<Tape>().offline().with_pattern_options(patterns::options(patterns));
    if schema.get("$schema").is_none() {
        options = options.with_draft(Draft::Draft7);
    }
    let validator = options.build(&schema).map_err(|error| invalid(&error))?;
    Ok(Template { text: text.to_vec(), validator, shape })
}

impl std::fmt::Debug for Template {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Template({} bytes)", self.text.len())
    }
}

fn invalid(error: &ValidationError<'_>) -> TemplateError {
    let reason = match error.kind() {
        ValidationErrorKind::Format { format } if format == "regex" => patterns::why_refused(error.instance()),
        _ => error.to_string(),
    };
    TemplateError::Invalid { pointer: cut(error.instance_path().as_str().to_owned()), reason: cut(reason) }
}

#[cfg(test)]
mod tests;
