//! What holds of the embedded API whatever it is given, as functions of bytes.
//!
//! The fuzzers of `fuzz/` and the smoke tests of the usual run call the same
//! functions. Bytes are choices ([`Choices`]): which kind, which fields, which
//! values ([`objects`] grows objects along the published schemas), so that most
//! inputs get past the parser and into the rules behind it.

// Each fuzzer uses one of them.
#![allow(dead_code)]

mod objects;
mod patches;
mod requests;
mod texts;

pub(crate) use patches::{apply, json_patch, merge_patch, strategic_merge};
pub(crate) use requests::requests;
pub(crate) use texts::{managed_fields, pipeline, protobuf, selectors};

use portolan_testkit::fuzz::Property;

pub(crate) const ALL: [Property; 9] = [
    ("apply", apply),
    ("json_patch", json_patch),
    ("managed_fields", managed_fields),
    ("merge_patch", merge_patch),
    ("pipeline", pipeline),
    ("protobuf", protobuf),
    ("requests", requests),
    ("selectors", selectors),
    ("strategic_merge", strategic_merge),
];
