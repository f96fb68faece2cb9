//! Fuzzes whatever a peer sends: see `woolly_tests::fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| woolly_tests::fuzz::frames(data));
