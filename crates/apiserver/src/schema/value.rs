//! Small ways of looking into JSON objects that may lack anything.
//!
//! Objects reach the schema modules after [`super::types::check`], but nothing
//! here relies on it: a missing or odd value reads as absent.

use serde_json::{Map, Value};

/// A JSON object.
pub(crate) type Object = Map<String, Value>;

/// The value at a path of keys; null reads as absent.
pub(crate) fn at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    let found = path.iter().try_fold(value, |v, key| v.get(*key))?;
    (!found.is_null()).then_some(found)
}

/// The text at a path; empty when absent.
pub(crate) fn text<'v>(value: &'v Value, path: &[&str]) -> &'v str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The whole number at a path.
pub(crate) fn int(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

/// The truth at a path; false when absent.
pub(crate) fn flag(value: &Value, path: &[&str]) -> bool {
    at(value, path).and_then(Value::as_bool).unwrap_or_default()
}

/// The list at a path; empty when absent.
pub(crate) fn list<'v>(value: &'v Value, path: &[&str]) -> &'v [Value] {
    at(value, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The entries of the object at a path; none when absent.
pub(crate) fn entries<'v>(
    value: &'v Value,
    path: &[&str],
) -> impl Iterator<Item = (&'v String, &'v Value)> {
    at(value, path).and_then(Value::as_object).into_iter().flatten()
}

/// The object at a key, made if absent; `None` when something else is there.
pub(crate) fn object<'v>(parent: &'v mut Object, key: &str) -> Option<&'v mut Object> {
    let slot = parent.entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Object(Object::new());
    }
    slot.as_object_mut()
}

/// The object at a key, if there is one.
pub(crate) fn existing<'v>(parent: &'v mut Object, key: &str) -> Option<&'v mut Object> {
    parent.get_mut(key).and_then(Value::as_object_mut)
}

/// The objects in the list at a key.
pub(crate) fn items<'v>(
    parent: &'v mut Object,
    key: &str,
) -> impl Iterator<Item = &'v mut Object> + use<'v> {
    parent
        .get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// Sets a key that is absent or null. Zero and empty values stay: upstream's field is a pointer.
pub(crate) fn fill(parent: &mut Object, key: &str, value: impl Into<Value>) {
    let slot = parent.entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = value.into();
    }
}

/// Sets a key that is absent, null, empty or zero: upstream's field is a plain value.
pub(crate) fn fill_zero(parent: &mut Object, key: &str, value: impl Into<Value>) {
    let slot = parent.entry(key).or_insert(Value::Null);
    if is_zero(slot) {
        *slot = value.into();
    }
}

/// Whether Go would call this the zero value of a plain string, number or bool.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(truth) => !truth,
        _ => false,
    }
}
