//! The fuzzers' properties, briefly, in the usual test run: on everything that a
//! fuzzer has ever found, and on bytes that look random and are the same in each run: what
//! lands is judged alike whenever it is judged. New inputs are for the fuzzers and `at_length`.

mod properties;

use portolan_testkit::fuzz;
use proptest::{prelude::*, test_runner::RngSeed};

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

fn each_run_alike(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..400)
}

proptest! {
    #![proptest_config(each_run_alike(500))]

    #[test]
    fn corefile(bytes in bytes()) { properties::corefile(&bytes); }

    #[test]
    fn native(bytes in bytes()) { properties::native(&bytes); }

    #[test]
    fn packets(bytes in bytes()) { properties::packets(&bytes); }

    #[test]
    fn upstream_replies(bytes in bytes()) { properties::upstream_replies(&bytes); }
}
