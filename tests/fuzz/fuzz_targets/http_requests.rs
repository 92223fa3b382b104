//! See tests/src/fuzz/http_requests.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| delta_tests::fuzz::run("http_requests", data));
