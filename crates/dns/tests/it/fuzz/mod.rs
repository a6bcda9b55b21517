//! The fuzzers' properties, briefly, in the usual test run: on everything that a
//! fuzzer has ever found, and on random bytes.

mod properties;

use portolan_testkit::fuzz;
use proptest::prelude::*;

#[test]
fn what_fuzzers_found_stays_mended() {
    fuzz::keep_mended(env!("CARGO_MANIFEST_DIR"), &properties::ALL);
}

/// What there is where the fuzzers of `fuzz/` cannot be built.
#[test]
#[ignore = "minutes, by hand"]
fn at_length() {
    fuzz::at_length(&properties::ALL);
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn corefile(bytes in bytes()) { properties::corefile(&bytes); }

    #[test]
    fn native(bytes in bytes()) { properties::native(&bytes); }

    #[test]
    fn packets(bytes in bytes()) { properties::packets(&bytes); }

    #[test]
    fn upstream_replies(bytes in bytes()) { properties::upstream_replies(&bytes); }
}
