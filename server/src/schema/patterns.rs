//! The regular expressions of a template: how many, and how much memory each may take.
//!
//! All run on an engine whose time is linear in the text, so only their compiled size needs a bound. What they may
//! take together is shared out evenly, so that a template with thousands of patterns cannot take more than one with few.

use jsonschema::{PatternOptions, Regex};
use serde_json::Value;

/// What the patterns of one template may take together, compiled, and again for their lazy automata.
const PATTERNS_BYTES_MAX: usize = 16 << 20;
/// The most that one pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// The least that one pattern is allowed; so a template has at most a thousand of them.
const PATTERN_BYTES_MIN: usize = 16 << 10;
/// Patterns of one template.
pub const PATTERNS_MAX: usize = PATTERNS_BYTES_MAX / PATTERN_BYTES_MIN;

/// How many patterns a template may hold at the most: anything that looks like one counts.
pub fn count(template: &Value) -> usize {
    match template {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| {
                let here = match (name.as_str(), value) {
                    ("pattern", Value::String(_)) => 1,
                    ("patternProperties", Value::Object(patterns)) => patterns.len(),
                    _ => 0,
                };
                here + count(value)
            })
            .sum(),
        _ => 0,
    }
}

/// The engine and its bounds for a template with so many patterns.
pub fn options(count: usize) -> PatternOptions<Regex> {
    let bytes = (PATTERNS_BYTES_MAX / count.max(1)).clamp(PATTERN_BYTES_MIN, PATTERN_BYTES_MAX);
    PatternOptions::regex().size_limit(bytes).dfa_size_limit(bytes)
}

/// Why a pattern was refused, as far as it can be told from its text.
pub fn why_refused(pattern: &Value) -> String {
    let text = pattern.as_str().unwrap_or_default();
    let reason = if ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|look_around| text.contains(look_around)) {
        "look-around is not supported, since its matching time has no bound"
    } else if text.as_bytes().windows(2).any(|pair| pair[0] == b'\\' && matches!(pair[1], b'1'..=b'9' | b'k')) {
        "backreferences are not supported, since their matching time has no bound"
    } else {
        "it is not a regular expression, or too large when compiled"
    };
    format!("the pattern {pattern} cannot be used: {reason}")
}
