//! Fuzzes the header of a model file: see `woolly_tests::fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| woolly_tests::fuzz::gguf(data));
