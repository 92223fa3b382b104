//! Verifies one frame, once, with limits on depth, tables and apparent size, and gives its root.
//!
//! After this no offset in the frame is hostile any more. Union numbers and enum values it does not judge: a reader
//! meets unknown ones.

use crate::generated::Frame;
use flatbuffers::VerifierOptions;

/// The protocol number of Hello and Welcome.
pub const PROTOCOL: u16 = 1;

/// Tables in one frame: a reply to a multi-key write may hold results with errors with violations.
pub const TABLES_MAX: usize = 40_000;

/// Frame, body, result, error, violation; and some to spare for later.
const DEPTH_MAX: usize = 8;

/// The frame is not a valid message. Says no more: the details would describe the sender's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame is not a valid FlatBuffers message of this protocol")]
pub struct Malformed;

/// The root of a frame (without its length prefix), verified.
#[inline]
pub fn read_frame(frame: &[u8]) -> Result<Frame<'_>, Malformed> {
    // An honest message visits each of its bytes about once, vtables more often, so the factor leaves room; a graph
    // of shared offsets that unfolds into more is refused.
    let options = VerifierOptions {
        max_depth: DEPTH_MAX,
        max_tables: TABLES_MAX,
        max_apparent_size: frame.len().saturating_mul(4).saturating_add(1024),
        ignore_missing_null_terminator: false,
    };
    flatbuffers::root_with_opts::<Frame>(&options, frame).map_err(|_| Malformed)
}
