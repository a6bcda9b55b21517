//! The fuzzers' properties, briefly, in the usual test run: on everything that a
//! fuzzer has ever found, and on random bytes.

mod properties;

use std::path::Path;

use proptest::prelude::*;

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
