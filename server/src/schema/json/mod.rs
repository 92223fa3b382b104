//! Is this document JSON? The hot path: simd-json fills a reused tape from a reused copy of the document.
//!
//! Accepted is exactly what RFC 8259 calls a JSON text, in valid UTF-8, without a byte order mark, nested no deeper
//! than [`JSON_DEPTH_MAX`]. simd-json is stricter than that (numbers beyond 64 bits, unpaired surrogate escapes), so
//! whatever it refuses is judged again by `exact`, which also knows the place and the reason. In steady state a
//! document costs no allocation. The document itself is never changed.

pub mod exact;

use crate::command::{ErrorCode, Failure};
use crate::limits::{BODY_BYTES_DEFAULT, JSON_DEPTH_MAX};
use simd_json::{Buffers, INPUT_PADDING, Tape};

/// The nodes of a parsed document: each container is followed by all it holds, an object's names before their values.
pub type Node<'a> = simd_json::Node<'a>;

/// Why a document is not JSON that may be stored. Names no part of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the document is not valid JSON: {reason} at byte {offset}")]
pub struct Malformed {
    /// Where the first problem lies, in bytes from the start.
    pub offset: usize,
    /// What is wrong there.
    pub reason: &'static str,
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Failure::new(ErrorCode::InvalidJson, malformed.to_string())
    }
}

/// Documents up to this size leave their buffers behind for the next one; those of a larger one are given back.
const KEPT_BYTES_MAX: usize = BODY_BYTES_DEFAULT;

/// A parser with its buffers, one a shard.
pub struct JsonParser {
    scratch: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Default for JsonParser {
    fn default() -> Self {
        Self::new()
    }
}

impl JsonParser {
    /// A parser whose buffers fit small documents; they grow with use.
    pub fn new() -> Self {
        Self { scratch: Vec::new(), buffers: Buffers::with_max_depth(0, JSON_DEPTH_MAX), tape: Tape(Vec::new()) }
    }

    /// Whether it is JSON.
    pub fn check(&mut self, document: &[u8]) -> Result<(), Malformed> {
        if document.len() > KEPT_BYTES_MAX {
            // A tape takes up to 24 times the document; nobody is going to look at it.
            return exact::check(document);
        }
        self.parse(document, |_| ())
    }

    /// Parses and hands the nodes to `view`, the root first.
    pub fn parse<T>(&mut self, document: &[u8], view: impl FnOnce(&[Node<'_>]) -> T) -> Result<T, Malformed> {
        let len = document.len();
        self.scratch.clear();
        self.scratch.reserve(len + INPUT_PADDING);
        self.scratch.extend_from_slice(document);
        self.scratch.resize(len + INPUT_PADDING, b' ');
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let filled = simd_json::fill_tape_padded(&mut self.scratch, len, &mut self.buffers, &mut tape);
        let result = match filled {
            Ok(()) => Ok(view(&tape.0)),
            Err(_) => exact::parse(document).map(|parsed| view(&parsed.nodes())),
        };
        self.tape = tape.reset();
        if len > KEPT_BYTES_MAX {
            *self = Self::new();
        }
        result
    }
}

#[cfg(test)]
mod tests;
