//! Patches: what a second one of the same changes (nothing), and what a refused
//! or an empty one does (nothing).

use portolan_apiserver::Kind;
use portolan_kube_patch::{
    self as kube_patch, MAX_JSON_PATCH_COPY_BYTES, PatchError,
    apply::{Managers, Write, apply as server_side_apply, reset_fields},
    schema_for,
};
use portolan_testkit::fuzz::Choices;
use serde_json::{Value, json};

use super::objects::{self, Manners, anything, object};

fn schema(kind: &Kind) -> &'static kube_patch::Schema {
    schema_for(kind.group, kind.version, kind.kind)
}

fn bytes_of(value: &Value) -> usize {
    value.to_string().len()
}

/// Pointers to values of a document.
fn pointers(value: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, v)| pointers(v, &format!("{here}/{}", escaped(key)), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, v)| pointers(v, &format!("{here}/{i}"), found));
        }
        _ => {}
    }
}

pub(crate) fn json_patch(bytes: &[u8]) {
    let choices = &mut Choices::new(bytes);
    let document = object(objects::kind(choices), Manners::Bad, choices);
    let mut places = Vec::new();
    pointers(&document, "", &mut places);
    let place = |choices: &mut Choices<'_>| -> String {
        let known = places[choices.below(places.len())].clone();
        match choices.below(6) {
            0 => known + "/-",
            1 => known + "/0",
            2 => known + "/new",
            3 => choices.text(12),
            _ => known,
        }
    };
    let mut operations = Vec::new();
    while operations.len() < 1 + choices.below(1) || (!choices.is_empty() && operations.len() < 12)
    {
        let op = choices.one(&["add", "remove", "replace", "move", "copy", "test", "frob"]);
        let (path, from) = (place(choices), place(choices));
        let mut operation =
            json!({"op": op, "path": path, "from": from, "value": anything(choices, 2)});
        if choices.rarely(12) {
            operation = anything(choices, 3);
        }
        operations.push(operation);
    }
    let patch = Value::Array(operations);
    if let Ok(patched) = kube_patch::json_patch(&document, &patch) {
        let bound = bytes_of(&document) + bytes_of(&patch) + 2 * MAX_JSON_PATCH_COPY_BYTES;
        assert!(bytes_of(&patched) <= bound, "{} bytes of {bound}", bytes_of(&patched));
        if patch.as_array().is_some_and(|all| all.iter().all(|o| o["op"] == "test")) {
            assert_eq!(patched, document, "a test changed something");
        }
    }
    let replace = json!([{"op": "replace", "path": "", "value": document}]);
    assert_eq!(kube_patch::json_patch(&json!({"x": 1}), &replace).ok().as_ref(), Some(&document));
    let whole = json!([{"op": "test", "path": "", "value": document}]);
    assert_eq!(kube_patch::json_patch(&document, &whole).ok().as_ref(), Some(&document));
}

pub(crate) fn merge_patch(bytes: &[u8]) {
    let choices = &mut Choices::new(bytes);
    let kind = objects::kind(choices);
    let document = object(kind, Manners::Bad, choices);
    let patch = if choices.rarely(8) {
        anything(choices, 4)
    } else {
        object(kind, Manners::Patch, choices)
    };
    let once = kube_patch::merge_patch(&document, &patch);
    assert_eq!(kube_patch::merge_patch(&once, &patch), once, "a second merge changed something");
    assert!(bytes_of(&once) <= bytes_of(&document) + bytes_of(&patch));
    assert_eq!(kube_patch::merge_patch(&document, &json!({})), document);
}

pub(crate) fn strategic_merge(bytes: &[u8]) {
    let choices = &mut Choices::new(bytes);
    let kind = objects::kind(choices);
    if choices.rarely(3) {
        // Good manners: no directives, and the elements of lists can be told apart.
        let document = object(kind, Manners::Good, choices);
        let patch = object(kind, Manners::Good, choices);
        let merged = kube_patch::strategic_merge(&document, &patch, schema(kind));
        let merged = merged.unwrap_or_else(|error| panic!("{error}: {patch} on {document}"));
        let again = kube_patch::strategic_merge(&merged, &patch, schema(kind));
        assert_eq!(again.as_ref().ok(), Some(&merged), "a second merge changed something");
        let same = kube_patch::strategic_merge(&document, &document, schema(kind));
        assert_eq!(same.as_ref().ok(), Some(&document), "merged with itself");
        return;
    }
    let document = object(kind, Manners::Bad, choices);
    let patch = match choices.rarely(6) {
        true => anything(choices, 5),
        false => object(kind, Manners::Patch, choices),
    };
    match kube_patch::strategic_merge(&document, &patch, schema(kind)) {
        Ok(merged) => {
            let bound = bytes_of(&document) + bytes_of(&patch) + 16;
            assert!(bytes_of(&merged) <= bound, "{patch} on {document} is {merged}");
        }
        Err(error) => assert_told(&error),
    }
    let nothing = kube_patch::strategic_merge(&document, &json!({}), schema(kind));
    assert_eq!(nothing.as_ref().ok(), Some(&document), "an empty patch");
}

fn assert_told(error: &PatchError) {
    // 500 without a reason is what upstream says of patches that it did not foresee.
    let unforeseen = error.code() == 500 && error.reason().is_empty();
    assert!(unforeseen || (400..=422).contains(&error.code()), "{}: {error}", error.code());
    assert!(unforeseen || !error.reason().is_empty());
    assert!(!error.to_string().is_empty());
}

/// An object without maps and lists that hold nothing: whether one is left when its last
/// field is given up is for the types to say, not for the patch.
fn settled(value: &Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(map) => {
            let kept = map.iter().map(|(key, value)| (key.clone(), settled(value)));
            Value::Object(kept.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(items) => items.iter().map(settled).collect(),
        other => other.clone(),
    }
}

/// The object, settled, and who owns what of it.
fn parts(object: &Value) -> (Value, Value) {
    (settled(object), object["metadata"]["managedFields"].clone())
}

/// Whether an element of a list is known by a key that is null. It is a key to whoever
/// applies, and none in the object, where null is as good as nothing: to the next apply the
/// element is another one. kube-apiserver v1.33.4 doubles such a port of a Service too, and
/// its validation refuses the two.
fn has_null_key(object: &Value) -> bool {
    object["metadata"]["managedFields"].to_string().contains(":null")
}

/// What one manager wants, twice, changes the object once; a forced apply owns
/// what it names, and whoever stops naming something gives it up.
pub(crate) fn apply(bytes: &[u8]) {
    let choices = &mut Choices::new(bytes);
    let kind = objects::kind(choices);
    let schema = schema(kind);
    let write = |manager: &'static str| Write {
        manager,
        api_version: kind.api_version,
        subresource: "",
        now: "2030-01-01T00:00:00Z",
        reset: reset_fields(""),
    };
    let mut live: Option<Value> = None;
    if choices.rarely(4) {
        // What was stored went through its type, which writes no list that holds nothing.
        let mut strange = settled(&object(kind, Manners::Bad, choices));
        if let Some(metadata) = strange.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("managedFields".into(), super::texts::entries(choices));
        }
        live = Some(strange);
    }
    for _ in 0..1 + choices.below(4) {
        let manner = if choices.rarely(4) { Manners::Bad } else { Manners::Good };
        let mut wanted = object(kind, manner, choices);
        let manager = choices.one(&["one", "two", "three"]);
        // Something of its own: who owns nothing is forgotten, and the object with it.
        if !wanted["metadata"]["labels"].is_object() {
            wanted["metadata"]["labels"] = json!({});
        }
        wanted["metadata"]["labels"][manager] = "mine".into();
        let write = write(manager);
        if choices.rarely(4) {
            let updated = kube_patch::apply::update(live.as_ref(), wanted, schema, &write);
            let again = kube_patch::apply::update(Some(&updated), updated.clone(), schema, &write);
            assert_eq!(again, updated, "an update that changes nothing changed something");
            live = Some(updated);
            continue;
        }
        let force = choices.rarely(2);
        let outcome = server_side_apply(live.as_ref(), &wanted, force, schema, &write);
        let object = match outcome {
            Ok(object) => object,
            Err(error) => {
                assert!(matches!(error.code(), 400 | 409 | 422 | 500), "{error}");
                assert!(!(force && error.code() == 409), "a conflict in spite of force: {error}");
                continue;
            }
        };
        Managers::of(&object).unwrap_or_else(|error| panic!("{error}: {object}"));
        if has_null_key(&object) {
            live = Some(object);
            continue;
        }
        let again = server_side_apply(Some(&object), &wanted, false, schema, &write);
        match again {
            Ok(again) => {
                assert_eq!(parts(&again), parts(&object), "a second apply changed something");
            }
            // An empty object goes with the last field that was in it, and stays owned all the
            // same: the next apply sets it anew, and another may own it. kube-apiserver
            // v1.33.4 has it so too.
            Err(error) if error.code() == 409 && settled(&wanted) != wanted => {}
            Err(error) => panic!("a second apply is refused: {error}"),
        }
        live = Some(object);
    }
}
