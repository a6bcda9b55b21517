#![no_main]

#[path = "../../crates/dns/tests/it/fuzz/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::corefile(bytes));
