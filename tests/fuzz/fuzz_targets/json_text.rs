//! See tests/src/fuzz/json_text.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| delta_tests::fuzz::run("json_text", data));
