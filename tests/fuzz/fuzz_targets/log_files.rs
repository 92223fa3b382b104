//! See tests/src/fuzz/log_files.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| delta_tests::fuzz::run("log_files", data));
