//! The fuzzers' properties, briefly, in the usual test run: on everything that a
//! fuzzer has ever found, and on random bytes.

mod properties;

use std::{
    panic::catch_unwind,
    path::Path,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Inputs that broke a property once, in folders by the property's name.
const FOUND: &str = "testdata/fuzz";

#[test]
fn what_fuzzers_found_stays_mended() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOUND);
    let mut inputs = 0;
    for (name, property) in properties::ALL {
        let Ok(files) = std::fs::read_dir(folder.join(name)) else { continue };
        for file in files {
            let path = file.unwrap().path();
            println!("{}", path.display());
            property(&std::fs::read(&path).unwrap());
            inputs += 1;
        }
    }
    println!("{inputs} inputs");
}

/// Seconds that each property gets when there is time.
const SECONDS: u64 = 60;

/// Random inputs for as long as is asked for (`PORTOLAN_FUZZ_SECONDS` per property): what
/// there is where the fuzzers of `fuzz/` cannot be built.
#[test]
#[ignore = "minutes, by hand"]
fn at_length() {
    let seconds = std::env::var("PORTOLAN_FUZZ_SECONDS");
    let seconds = seconds.map_or(SECONDS, |seconds| seconds.parse().unwrap());
    for (name, property) in properties::ALL {
        let until = Instant::now() + Duration::from_secs(seconds);
        let (mut inputs, mut found) = (0u64, 0);
        while Instant::now() < until && found < 3 {
            let mut dice = StdRng::seed_from_u64(inputs);
            let mut bytes = vec![0; dice.random_range(0..800)];
            dice.fill(&mut bytes[..]);
            inputs += 1;
            if catch_unwind(|| property(&bytes)).is_err() {
                found += 1;
                let kept = std::env::temp_dir().join(format!("{name}-{inputs}"));
                std::fs::write(&kept, &bytes).unwrap();
                println!("{name}: {} breaks it", kept.display());
            }
        }
        println!("{name}: {inputs} inputs, {found} found");
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

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
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn requests(bytes in bytes()) { properties::requests(&bytes); }
}
