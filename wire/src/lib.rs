//! The wire protocol of DeltaDatabase and its clients. Knows nothing of the server.

mod error_code;
mod slot;

pub use error_code::ErrorCode;
pub use slot::{SLOTS, slot_of};
