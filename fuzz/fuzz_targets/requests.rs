#![no_main]

#[path = "../../crates/apiserver/tests/it/fuzz/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::requests(bytes));
