//! See tests/src/fuzz/config_layers.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| delta_tests::fuzz::run("config_layers", data));
