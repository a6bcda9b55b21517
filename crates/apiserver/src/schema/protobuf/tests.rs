//! Bodies that real clients sent, and what they mean.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::kinds;
use crate::schema::types;

/// What kubectl 1.32.4 sent to a listener on loopback: command line, body, and what Go's own
/// decoder and `encoding/json` make of the body (nulls left out).
static CAPTURED: &str = include_str!("testdata/captured.txt");
/// One object of every kind with fields at random, encoded by Go; the same three columns.
static FILLED: &str = include_str!("testdata/filled.txt");

fn rows(text: &str) -> impl Iterator<Item = (&str, Vec<u8>, Value)> {
    text.lines().map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let bytes = BASE64_STANDARD.decode(columns[1]).expect("base64");
        (columns[0], bytes, serde_json::from_str(columns[2]).expect("JSON"))
    })
}

fn decodes_as_go_does(text: &str) -> usize {
    let mut count = 0;
    for (label, bytes, expected) in rows(text) {
        let (api_version, kind, object) = decode(&bytes).unwrap_or_else(|e| panic!("{label}: {e}"));
        assert_eq!(object, expected, "{label}");
        assert_eq!(api_version, expected["apiVersion"], "{label}");
        assert_eq!(kind, expected["kind"], "{label}");
        count += 1;
    }
    count
}

#[test]
fn kubectl_is_understood() {
    assert_eq!(decodes_as_go_does(CAPTURED), 19);
}

#[test]
fn every_kind_decodes_as_in_go() {
    assert_eq!(decodes_as_go_does(FILLED), 34);
    for kind in kinds::ALL.iter().chain(kinds::VIRTUAL) {
        assert!(rows(FILLED).any(|(label, ..)| label == kind.kind), "{kind:?}");
    }
}

#[test]
fn what_is_decoded_is_well_typed() {
    for (label, bytes, _) in rows(FILLED).chain(rows(CAPTURED)) {
        let (api_version, kind, object) = decode(&bytes).expect("decoded above");
        let mut held = kinds::ALL.iter().chain(kinds::VIRTUAL);
        let Some(kind) = held.find(|k| k.kind == kind && k.api_version == api_version) else {
            continue;
        };
        assert_eq!(types::check(kind, &object), Ok(()), "{label}");
        assert!(types::unknown_fields(kind, &object).is_empty(), "{label}");
        let mut pruned = object.clone();
        types::prune(kind, &mut pruned);
        assert_eq!(pruned, object, "{label}");
    }
}

/// A message of one field, for hand-made bodies. Lengths stay below 128.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("short");
    [&[number << 3 | 2, length], bytes].concat()
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
}

#[test]
fn every_group_version_has_delete_options() {
    for (api_version, raw, expected) in [
        (
            "v1",
            &b"\x08\x00\x22\x0aBackground"[..],
            json!({"gracePeriodSeconds": 0,
            "propagationPolicy": "Background"}),
        ),
        (
            "apps/v1",
            b"\x12\x03\x0a\x01u\x2a\x03All",
            json!({"preconditions": {"uid": "u"},
            "dryRun": ["All"]}),
        ),
    ] {
        let (_, kind, mut object) = decode(&body(api_version, "DeleteOptions", raw)).expect("body");
        let fields = object.as_object_mut().expect("object");
        assert_eq!(fields.remove("apiVersion"), Some(api_version.into()));
        assert_eq!(fields.remove("kind"), Some(kind.into()));
        assert_eq!(object, expected);
    }
}

#[test]
fn parts_of_a_message_are_merged_and_unknown_fields_skipped() {
    let name = field(1, &field(1, b"n"));
    let namespace = field(1, &field(3, b"ns"));
    // Field 15 as a fixed32 is none of a ConfigMap's.
    let raw = [name, b"\x7dabcd".to_vec(), namespace].concat();
    let (_, _, object) = decode(&body("v1", "ConfigMap", &raw)).expect("body");
    assert_eq!(object["metadata"], json!({"name": "n", "namespace": "ns"}));
    assert_eq!(object.as_object().expect("object").len(), 3);
}

#[test]
fn faults_are_told() {
    let unknown_kind = DecodeError::UnknownKind { api_version: "v1".into(), kind: "Nope".into() };
    for (bytes, expected) in [
        (b"".to_vec(), DecodeError::NotProtobuf),
        (b"{}".to_vec(), DecodeError::NotProtobuf),
        (MAGIC.to_vec(), DecodeError::UnknownKind { api_version: "".into(), kind: "".into() }),
        (body("v1", "Nope", b""), unknown_kind),
        (body("v1", "Pod", b"\x0a\x05"), DecodeError::Truncated),
        (body("v1", "Pod", b"\x0b"), DecodeError::Malformed),
        (body("v1", "Pod", b"\x08\x01"), DecodeError::WrongWireType { wire: 0, field: "metadata" }),
        (
            body("v1", "Pod", &field(1, &field(1, b"\xff"))),
            DecodeError::Text { field: "name", expected: "UTF-8 string" },
        ),
        ([body("v1", "Pod", b""), field(3, b"gzip")].concat(), DecodeError::Content("gzip".into())),
        (
            [body("v1", "Pod", b""), field(4, b"application/json")].concat(),
            DecodeError::Content("application/json".into()),
        ),
        (
            body("apps/v1", "ControllerRevision", &field(2, &field(1, b"{"))),
            DecodeError::Text { field: "data", expected: "JSON value" },
        ),
        ([MAGIC, &vec![0; MAX_BYTES]].concat(), DecodeError::TooLarge(MAX_BYTES + MAGIC.len())),
    ] {
        assert_eq!(decode(&bytes), Err(expected));
    }
}

#[test]
fn many_small_values_are_refused() {
    // An empty container each: two bytes of body, a map of memory.
    let empty = b"\x12\x00".repeat(600_000);
    let length = |n: usize| {
        let n = u32::try_from(n).expect("short");
        [n as u8 | 0x80, (n >> 7) as u8 | 0x80, (n >> 14) as u8].to_vec()
    };
    let spec = [&b"\x12"[..], &length(empty.len()), &empty].concat();
    let meta = [field(1, b"v1"), field(2, b"Pod")].concat();
    let bytes = [MAGIC, &field(1, &meta), b"\x12", &length(spec.len()), &spec].concat();
    assert_eq!(decode(&bytes), Err(DecodeError::TooComplex));
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&bytes).is_err());
        for kind in kinds::ALL {
            if let Ok((.., object)) = decode(&body(kind.api_version, kind.kind, &bytes[..bytes.len().min(60)])) {
                prop_assert!(object.is_object());
            }
        }
    }

    /// One byte changed in what kubectl sends: an error or an object, never a panic.
    #[test]
    fn damaged_bodies_do_no_harm(row in 0..33_usize, at in any::<prop::sample::Index>(), byte: u8) {
        let (_, mut bytes, _) = rows(FILLED).nth(row).expect("row");
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok((api_version, _, object)) = decode(&bytes) {
            prop_assert_eq!(&object["apiVersion"], &Value::from(api_version));
        }
    }
}

#[test]
fn kinds_known() {
    for kind in kinds::ALL.iter().chain(kinds::VIRTUAL) {
        assert!(knows(kind.api_version, kind.kind), "{kind:?}");
    }
    assert!(knows("v1", "DeleteOptions") && knows("authentication.k8s.io/v1", "TokenRequest"));
    assert!(!knows("v1", "Deployment") && !knows("", ""));
}
