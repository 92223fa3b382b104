//! See tests/src/fuzz/schema_verdicts.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| delta_tests::fuzz::run("schema_verdicts", data));
