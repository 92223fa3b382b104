//! See tests/src/fuzz/store_files.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| delta_tests::fuzz::run("store_files", data));
