//! Fuzzes a text: see `woolly_tests::fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| woolly_tests::fuzz::tokenizer(data));
