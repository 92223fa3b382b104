//! See tests/src/fuzz/entity_map.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| delta_tests::fuzz::run("entity_map", data));
