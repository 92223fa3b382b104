//! The wire protocol of DeltaDatabase and its clients. Knows nothing of the server.
//!
//! `schema/delta.fbs` says what a frame holds. From the socket up: `framing` cuts a stream into frames and trusts no
//! length, `frame` verifies one frame and gives its root, `encode` writes frames, `layout` has the hottest by hand, `request` and `reply` are the
//! vocabulary in plain Rust, and `client` is a blocking client over all of them.

pub mod client;
pub mod encode;
mod error_code;
mod frame;
mod framing;
pub mod generated;
mod layout;
mod reply;
mod request;
mod slot;

pub use error_code::ErrorCode;
pub use frame::{Malformed, PROTOCOL, TABLES_MAX, read_frame};
pub use framing::{FrameDecoder, FramingError, LENGTH_PREFIX_BYTES, whole_frames};
pub use layout::{HotRequest, read_hot_request};
pub use reply::{Limits, PageEntry, Reply, ServerError, ShardRange, Stored, Violation, Welcome, Written, decode_reply};
pub use request::{Condition, Request};
pub use slot::{SLOTS, slot_of};
