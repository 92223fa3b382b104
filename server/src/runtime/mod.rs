//! What a shard runs on: one executor and one ring a thread, sockets, files, time and randomness.
//!
//! `platform` is the seam (traits); the production side names glommio and io_uring, and nothing outside this room
//! does; `sim` implements the same traits from one seed. All `unsafe` of the product lives in this room.

pub mod buffer;
pub mod net;
pub mod platform;
pub mod signal;
pub mod sim;
pub mod publish;
