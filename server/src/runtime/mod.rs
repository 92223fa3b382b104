//! What a shard runs on: one executor and one ring a thread, sockets, files, time and randomness.
//!
//! `platform` is the seam (traits); the production side names glommio and io_uring, and nothing outside this room
//! does; `sim` implements the same traits from one seed. All `unsafe` of the product lives in this room.

mod alarm;
pub mod buffer;
mod buffers;
mod disk_operations;
pub mod doorbell;
mod driver;
mod durable_way;
mod idle;
pub mod inbox;
pub mod net;
mod offload;
pub mod placement;
pub mod platform;
pub mod preflight;
pub mod production;
pub mod publish;
mod ring;
pub mod ring_disk;
pub mod roster;
pub mod shard;
pub mod signal;
pub mod sim;
pub mod std_disk;
pub mod stop;
mod timers;

#[cfg(test)]
mod tests;
