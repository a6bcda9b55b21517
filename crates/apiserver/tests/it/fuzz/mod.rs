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
    #![proptest_config(each_run_alike(300))]

    #[test]
    fn apply(bytes in bytes()) { properties::apply(&bytes); }

    #[test]
    fn json_patch(bytes in bytes()) { properties::json_patch(&bytes); }

    #[test]
    fn managed_fields(bytes in bytes()) { properties::managed_fields(&bytes); }

    #[test]
    fn merge_patch(bytes in bytes()) { properties::merge_patch(&bytes); }

    #[test]
    fn pipeline(bytes in bytes()) { properties::pipeline(&bytes); }

    #[test]
    fn protobuf(bytes in bytes()) { properties::protobuf(&bytes); }

    #[test]
    fn selectors(bytes in bytes()) { properties::selectors(&bytes); }

    #[test]
    fn strategic_merge(bytes in bytes()) { properties::strategic_merge(&bytes); }
}

proptest! {
    #![proptest_config(each_run_alike(60))]

    #[test]
    fn requests(bytes in bytes()) { properties::requests(&bytes); }
}
