//! See tests/src/fuzz/checkpoint_bodies.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| delta_tests::fuzz::run("checkpoint_bodies", data));
