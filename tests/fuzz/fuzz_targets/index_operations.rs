//! See tests/src/fuzz/index_operations.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| delta_tests::fuzz::run("index_operations", data));
