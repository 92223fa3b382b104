//! Writes whole frames, length included, to the end of a byte vector.
//!
//! The hottest four (`get`, `put`, `document`, `written`) are laid out by hand, without a builder or a second copy;
//! everything else goes through [`Scratch`], whose builder is kept from frame to frame.

mod scratch;

pub use crate::layout::{document, document_prefix, get, put, written};
pub use scratch::{Builder, Scratch};
