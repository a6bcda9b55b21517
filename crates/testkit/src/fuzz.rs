//! Properties that must hold whatever the bytes: what fuzzers and usual tests share.
//!
//! ```text
//!   bytes (a fuzzer's, random ones, a file that broke it once) --Choices--> an input
//!        --property--> nothing, or a panic
//! ```
//!
//! A property is a function of bytes. The targets of `fuzz/` call it with what libFuzzer
//! thinks of; a crate's own tests call it with a few hundred random inputs, with every
//! input that was ever found ([`keep_mended`]) and, by hand, for minutes ([`at_length`]).

#![allow(clippy::print_stdout, reason = "what a test says of itself")]

use std::{
    panic::catch_unwind,
    path::Path,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

/// A property, by the name of its fuzzer.
pub type Property = (&'static str, fn(&[u8]));

/// Inputs that broke a property once, in folders by the property's name: from the folder
/// of the crate.
const FOUND: &str = "testdata/fuzz";

/// How a file's name ends that holds bytes as text.
const HEX: &str = "hex";

/// Seconds that each property gets when there is time, and none are given.
const SECONDS: u64 = 60;

/// Bytes of the longest random input.
const BYTES_MAX: usize = 800;

/// Inputs that break one property after which it is left alone.
const BREAKS_MAX: usize = 3;

/// Asks each property of what fuzzers have found. `folder` is that of the crate.
#[allow(clippy::unwrap_used, reason = "a helper of tests")]
pub fn keep_mended(folder: &str, properties: &[Property]) {
    let mut inputs = 0;
    for (name, property) in properties {
        let Ok(files) = std::fs::read_dir(Path::new(folder).join(FOUND).join(name)) else {
            continue;
        };
        for file in files {
            let path = file.unwrap().path();
            println!("{}", path.display());
            let bytes = std::fs::read(&path).unwrap();
            let is_hex = path.extension().is_some_and(|extension| extension == HEX);
            property(&if is_hex { unhex(&bytes) } else { bytes });
            inputs += 1;
        }
    }
    println!("{inputs} inputs");
}

/// Bytes of a text of two digits each, with white space wherever it likes to be.
#[allow(clippy::unwrap_used, reason = "a helper of tests")]
fn unhex(text: &[u8]) -> Vec<u8> {
    let digits: Vec<u32> = text
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| char::from(*byte).to_digit(16).unwrap())
        .collect();
    digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// Asks each property of random inputs for as long as the environment says
/// (`PORTOLAN_FUZZ_SECONDS` per property): what there is where the fuzzers cannot be built.
/// What breaks one is kept in a file whose name is printed.
#[allow(clippy::unwrap_used, reason = "a helper of tests")]
pub fn at_length(properties: &[Property]) {
    let seconds = std::env::var("PORTOLAN_FUZZ_SECONDS");
    let seconds = seconds.map_or(SECONDS, |seconds| seconds.parse().unwrap());
    let mut broken = 0;
    for (name, property) in properties {
        let until = Instant::now() + Duration::from_secs(seconds);
        let (mut inputs, mut found) = (0u64, 0);
        while Instant::now() < until && found < BREAKS_MAX {
            let mut dice = StdRng::seed_from_u64(inputs);
            let mut bytes = vec![0; dice.random_range(0..BYTES_MAX)];
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
        broken += found;
    }
    assert_eq!(broken, 0, "inputs break properties");
}

/// Bytes as a sequence of choices; when they run out, the first choice.
#[derive(Clone, Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Choices by these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Choices(bytes)
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Whether the bytes have run out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number below another one.
    pub fn below(&mut self, end: usize) -> usize {
        match end {
            0 | 1 => 0,
            2..=256 => usize::from(self.byte()) % end,
            _ => (usize::from(self.byte()) << 8 | usize::from(self.byte())) % end,
        }
    }

    /// One time in so many; never when the bytes have run out.
    pub fn rarely(&mut self, in_so_many: usize) -> bool {
        self.below(in_so_many) == in_so_many - 1
    }

    /// One of these.
    pub fn one<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// Up to so many bytes.
    pub fn bytes(&mut self, longest: usize) -> &'a [u8] {
        let length = self.below(longest + 1).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    /// A text of any bytes that are UTF-8, of up to so many.
    pub fn text(&mut self, longest: usize) -> String {
        String::from_utf8_lossy(self.bytes(longest)).into_owned()
    }

    /// What is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
