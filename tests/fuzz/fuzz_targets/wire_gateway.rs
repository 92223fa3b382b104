//! See tests/src/fuzz/wire_gateway.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| delta_tests::fuzz::run("wire_gateway", data));
