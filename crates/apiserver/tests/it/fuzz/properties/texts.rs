//! Bodies, selectors and field sets: whatever they are, they are read or refused,
//! and what was read goes through all the rules.

use portolan_apiserver::{
    Kind, kinds,
    registry::{FieldSelector, LabelSelector},
    schema::{defaults, protobuf as codec, types, validate},
};
use portolan_kube_patch::apply::{FieldSet, Managers, PathElement};
use portolan_testkit::fuzz::Choices;
use serde_json::{Value, json};

use super::objects::{self, Manners, NAMES, anything, object};

/// Bytes of JSON that a byte of protobuf may become: an empty element of a list is two
/// bytes, and names its fields that Go always writes.
const JSON_PER_PROTOBUF: usize = 512;

/// An object through everything that a write goes through before it is stored.
fn all_the_rules(kind: &Kind, mut value: Value) {
    let context = validate::Context::default();
    let fields = types::unknown_fields(kind, &value);
    assert!(fields.len() <= 101, "{} unknown fields are told", fields.len());
    if types::check(kind, &value).is_err() {
        return;
    }
    types::prune(kind, &mut value);
    assert!(types::unknown_fields(kind, &value).is_empty(), "left after pruning: {value}");
    let pruned = value.clone();
    types::prune(kind, &mut value);
    assert_eq!(value, pruned, "pruning twice");
    defaults::apply(kind, &mut value);
    let defaulted = value.clone();
    defaults::apply(kind, &mut value);
    assert_eq!(value, defaulted, "defaulting twice");
    assert_eq!(types::check(kind, &value), Ok(()), "a default of the wrong type: {value}");
    for cause in validate::create(kind, &value, &context) {
        assert!(!cause.reason.is_empty() && !cause.message.is_empty());
    }
    drop(validate::update(kind, &pruned, &value, &context));
    drop(validate::update_status(kind, &pruned, &value, &context));
}

/// A JSON body of a random kind through types, defaults and validation.
pub(crate) fn pipeline(bytes: &[u8]) {
    let choices = &mut Choices::new(bytes);
    let kind = objects::kind(choices);
    let value = match choices.below(8) {
        0 => anything(choices, 6),
        1 => match serde_json::from_slice(choices.rest()) {
            Ok(value) => value,
            Err(_) => return,
        },
        2 => object(kind, Manners::Patch, choices),
        3..=4 => object(kind, Manners::Bad, choices),
        _ => object(kind, Manners::Good, choices),
    };
    all_the_rules(kind, value);
}

/// A protobuf body: decoded, it is JSON of the kind that it says.
pub(crate) fn protobuf(bytes: &[u8]) {
    // With and without the envelope, so that mutations reach the object itself.
    drop(codec::decode(bytes));
    let choices = &mut Choices::new(bytes);
    let kind = objects::kind(choices);
    let raw = choices.rest();
    let mut whole = b"k8s\0".to_vec();
    let field = |number: u8, bytes: &[u8], out: &mut Vec<u8>| {
        out.push(number << 3 | 2);
        let mut length = bytes.len();
        while length >= 128 {
            out.push((length % 128) as u8 | 128);
            length /= 128;
        }
        out.push(length as u8);
        out.extend(bytes);
    };
    let mut meta = Vec::new();
    field(1, kind.api_version.as_bytes(), &mut meta);
    field(2, kind.kind.as_bytes(), &mut meta);
    field(1, &meta, &mut whole);
    field(2, raw, &mut whole);
    let Ok((api_version, name, value)) = codec::decode(&whole) else { return };
    assert_eq!((api_version.as_str(), name.as_str()), (kind.api_version, kind.kind));
    let text = value.to_string();
    assert!(text.len() <= 512 + JSON_PER_PROTOBUF * raw.len(), "{} of {}", text.len(), raw.len());
    // What goes into the store is read again.
    let again: Value = serde_json::from_str(&text).expect("decoded JSON is JSON");
    all_the_rules(kind, again);
}

pub(crate) fn selectors(bytes: &[u8]) {
    let choices = &mut Choices::new(bytes);
    let words = [
        "a",
        "b",
        "in",
        "notin",
        "(",
        ")",
        ",",
        "=",
        "==",
        "!=",
        "!",
        " ",
        ">",
        "<",
        "1",
        "a.b/c",
        "metadata.name",
        "\\",
        "-",
        "é",
    ];
    let mut text = String::new();
    for _ in 0..choices.below(14) {
        match choices.rarely(8) {
            true => text.push_str(&choices.text(6)),
            false => text.push_str(choices.one(&words)),
        }
    }
    let labels: Vec<(String, Value)> = NAMES
        .iter()
        .take(choices.below(5))
        .map(|n| ((*n).to_owned(), json!(choices.one(&NAMES))))
        .collect();
    let labels: Value = Value::Object(labels.into_iter().collect());
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "labels": labels}});
    if let Ok(selector) = LabelSelector::parse(&text) {
        let by_object = selector.matches_object(&object);
        let by_bytes = selector.matches_bytes(object.to_string().as_bytes());
        assert_eq!(by_object, by_bytes, "{text:?} on {object}");
        if selector.is_empty() {
            assert!(by_object, "{text:?} selects everything");
        }
    }
    if let Ok(selector) = FieldSelector::parse(&text) {
        assert!(selector.terms().len() <= text.len());
    }
    let given = anything(choices, 4);
    if let Ok(selector) = LabelSelector::from_object(&given) {
        selector.matches_object(&object);
    }
    // Stored bytes that are no object of ours.
    if let Ok(selector) = LabelSelector::parse("a,!b,main in (a,b)") {
        selector.matches_bytes(choices.rest());
    }
}

/// Entries of managedFields, some of them sound.
pub(super) fn entries(choices: &mut Choices<'_>) -> Value {
    let entry = |choices: &mut Choices<'_>| match choices.rarely(6) {
        true => anything(choices, 3),
        false => json!({
            "manager": choices.one(&NAMES),
            "operation": choices.one(&["Apply", "Update", "Frob"]),
            "apiVersion": choices.one(&["v1", "apps/v1", ""]),
            "time": choices.one(&["2030-01-01T00:00:00Z", "x"]),
            "fieldsType": choices.one(&["FieldsV1", "FieldsV2"]),
            "fieldsV1": fields(choices, 5),
        }),
    };
    (0..choices.below(4)).map(|_| entry(choices)).collect()
}

fn fields(choices: &mut Choices<'_>, depth: usize) -> Value {
    let elements = [
        "f:metadata",
        "f:labels",
        "f:spec",
        "f:data",
        "f:a",
        "f:containers",
        "f:ports",
        "k:{\"name\":\"a\"}",
        "k:{\"name\":\"main\"}",
        "k:{\"port\":80,\"protocol\":\"TCP\"}",
        "v:\"a\"",
        "v:1",
        "i:0",
        "i:-1",
        ".",
        "k:{}",
        "k:[",
        "v:",
        "f:",
        "x:y",
        "",
    ];
    if depth == 0 {
        return json!({});
    }
    if choices.rarely(24) {
        return anything(choices, 2);
    }
    let entry = |choices: &mut Choices<'_>| {
        let element = match choices.rarely(12) {
            true => choices.text(12),
            false => choices.one(&elements).to_owned(),
        };
        (element, fields(choices, depth - 1))
    };
    Value::Object((0..choices.below(4)).map(|_| entry(choices)).collect())
}

/// Field sets and path elements: what can be read is written as it was meant.
pub(crate) fn managed_fields(bytes: &[u8]) {
    let choices = &mut Choices::new(bytes);
    let tree = fields(choices, 6);
    if let Ok(set) = FieldSet::decode(&tree) {
        let again = FieldSet::decode(&set.encode());
        assert_eq!(again.as_ref(), Ok(&set), "{tree}");
        assert_eq!(set.union(&set), set);
        assert_eq!(set.intersection(&set), set);
        assert!(set.difference(&set).is_empty());
        for path in set.paths() {
            assert!(set.contains(&path), "{path:?} of {tree}");
        }
    }
    let text = choices.text(40);
    if let Ok(Some(element)) = PathElement::decode(&text) {
        assert_eq!(PathElement::decode(&element.encode()), Ok(Some(element)), "{text:?}");
    }
    let object = json!({"metadata": {"managedFields": entries(choices)}});
    if let Ok(managers) = Managers::of(&object) {
        let mut stored = json!({"metadata": {}});
        managers.store(&mut stored);
        let again = Managers::of(&stored).expect("what was stored is read");
        assert_eq!(again.encode(), managers.encode());
    }
}

/// Kinds that fuzzers choose from are those that are held.
const _: () = assert!(!kinds::ALL.is_empty());
