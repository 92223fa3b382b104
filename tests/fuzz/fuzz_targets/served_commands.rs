//! See tests/src/fuzz/served_commands/mod.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| delta_tests::fuzz::run("served_commands", data));
