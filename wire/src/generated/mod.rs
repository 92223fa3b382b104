//! What flatc made of `schema/delta.fbs`; a test proves it fresh. Its unsafe reads are sound only on verified frames,
//! so everything else in this crate enters through `read_frame`.
//!
//! Its `Debug` prints whole tables, credentials and documents included: never use it.

#[rustfmt::skip]
#[allow(unsafe_code, warnings, clippy::all)]
mod delta_generated;

pub use delta_generated::delta::*;
