//! The log backend.
