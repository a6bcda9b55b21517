//! Small ways of looking into objects that may lack anything.
//!
//! Controllers and the kubelet read objects as JSON: they need a dozen fields
//! of each, and must hand back what they do not know untouched. A field that is
//! missing, null or of another type reads as absent.

use serde_json::{Map, Value, json};

/// The value behind a JSON pointer; null reads as absent.
pub fn at<'v>(object: &'v Value, pointer: &str) -> Option<&'v Value> {
    object.pointer(pointer).filter(|value| !value.is_null())
}

/// The text behind a JSON pointer; empty when absent.
pub fn text<'v>(object: &'v Value, pointer: &str) -> &'v str {
    at(object, pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The whole number behind a JSON pointer.
pub fn int(object: &Value, pointer: &str) -> Option<i64> {
    at(object, pointer).and_then(Value::as_i64)
}

/// The truth behind a JSON pointer; false when absent.
pub fn flag(object: &Value, pointer: &str) -> bool {
    at(object, pointer).and_then(Value::as_bool).unwrap_or_default()
}

/// The list behind a JSON pointer; empty when absent.
pub fn list<'v>(object: &'v Value, pointer: &str) -> &'v [Value] {
    at(object, pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The text entries of the map behind a JSON pointer.
pub fn texts<'v>(object: &'v Value, pointer: &str) -> impl Iterator<Item = (&'v str, &'v str)> {
    at(object, pointer)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

/// `metadata.name`.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// `metadata.namespace`; empty for cluster-scoped objects.
pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// `metadata.resourceVersion` as a number; 0 when absent.
pub fn revision(object: &Value) -> u64 {
    text(object, "/metadata/resourceVersion").parse().unwrap_or(0)
}

/// Whether the object is on its way out.
pub fn is_deleting(object: &Value) -> bool {
    at(object, "/metadata/deletionTimestamp").is_some()
}

/// A label.
pub fn label<'v>(object: &'v Value, key: &str) -> Option<&'v str> {
    at(object, "/metadata/labels")?.get(key)?.as_str()
}

/// An annotation.
pub fn annotation<'v>(object: &'v Value, key: &str) -> Option<&'v str> {
    at(object, "/metadata/annotations")?.get(key)?.as_str()
}

/// Whether the object has a finalizer.
pub fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    list(object, "/metadata/finalizers").iter().any(|f| f.as_str() == Some(finalizer))
}

/// The owner that manages the object, if there is one.
pub fn controller(object: &Value) -> Option<&Value> {
    list(object, "/metadata/ownerReferences").iter().find(|owner| flag(owner, "/controller"))
}

/// The uid of the owner that manages the object; empty when there is none.
pub fn controller_uid(object: &Value) -> &str {
    controller(object).map_or("", |owner| text(owner, "/uid"))
}

/// An owner reference that says: `owner` manages this.
pub fn controller_reference(owner: &Value, api_version: &str, kind: &str) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "name": name(owner),
        "uid": uid(owner),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// A condition of `status.conditions`, by type.
pub fn condition<'v>(object: &'v Value, kind: &str) -> Option<&'v Value> {
    list(object, "/status/conditions").iter().find(|c| text(c, "/type") == kind)
}

/// Whether a condition is there and True.
pub fn is_condition_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| text(c, "/status") == "True")
}

/// The map at a key, made if absent or of another type.
pub fn map_mut<'v>(parent: &'v mut Value, key: &str) -> &'v mut Map<String, Value> {
    if !parent.is_object() {
        *parent = json!({});
    }
    let slot = &mut parent[key];
    if !slot.is_object() {
        *slot = json!({});
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("made a map above"),
    }
}

/// Sets an annotation; tells whether that changed anything.
pub fn set_annotation(object: &mut Value, key: &str, value: &str) -> bool {
    if annotation(object, key) == Some(value) {
        return false;
    }
    let metadata = map_mut(object, "metadata");
    let annotations = metadata.entry("annotations").or_insert(Value::Null);
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations[key] = value.into();
    true
}

/// Whether two values mean the same to the API: absent, null and empty are one
/// (apimachinery `equality.Semantic`).
pub fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            left.iter().all(|(k, l)| same(l, right.get(k).unwrap_or(&Value::Null)))
                && right.iter().all(|(k, r)| left.contains_key(k) || is_empty(r))
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| same(l, r))
        }
        _ => left == right || (is_empty(left) && is_empty(right)),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sameness() {
        for (left, right, expected) in [
            (json!({"a": 1}), json!({"a": 1, "b": null}), true),
            (json!({"a": {}}), json!({"b": []}), true),
            (json!({"a": [1, {"x": null}]}), json!({"a": [1, {}]}), true),
            (json!({"a": 1}), json!({"a": 2}), false),
            (json!({"a": 1}), json!({}), false),
            (json!({}), json!({"a": ""}), false),
            (json!([1]), json!([1, null]), false),
        ] {
            assert_eq!(same(&left, &right), expected, "{left} {right}");
            assert_eq!(same(&right, &left), expected, "{right} {left}");
        }
    }

    #[test]
    fn odd_objects_read_as_absent() {
        let odd = json!({"metadata": {"name": 3, "annotations": [], "deletionTimestamp": null}});
        assert_eq!(name(&odd), "");
        assert_eq!(annotation(&odd, "a"), None);
        assert!(!is_deleting(&odd));
        let mut odd = odd;
        assert!(set_annotation(&mut odd, "a", "b"));
        assert!(!set_annotation(&mut odd, "a", "b"));
        assert_eq!(annotation(&odd, "a"), Some("b"));
    }
}
