//! The identity of list elements, as the schema defines it.

use serde_json::Value;

use super::path::{PathElement, Scalar};
use crate::schema::ListType;

/// The path element of a list element; the text says why it has none.
pub(super) fn element_of(list: &ListType, item: &Value) -> Result<PathElement, String> {
    match list {
        ListType::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        ListType::Set => match item {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            Value::Array(_) => {
                Err("not supported: associative list with lists as elements".to_owned())
            }
            Value::Null => {
                Err("associative list without keys has an element that's an explicit null"
                    .to_owned())
            }
            scalar => Ok(PathElement::Value(Scalar(scalar.clone()))),
        },
        ListType::Map(keys) => {
            let Value::Object(members) = item else {
                let what = if item.is_null() { "a null element" } else { "non-map elements" };
                return Err(format!("associative list with keys may not have {what}"));
            };
            let found = keys.iter().filter_map(|key| {
                let value = members.get(&key.name).or(key.default.as_ref())?;
                Some((key.name.clone(), Scalar(value.clone())))
            });
            let found: Vec<_> = found.collect();
            if found.is_empty() {
                let names: Vec<_> = keys.iter().map(|key| format!("{:?}", key.name)).collect();
                return Err(format!(
                    "associative list with keys has an element that omits all key fields [{}] \
                     (and doesn't have default values for any key fields)",
                    names.join(" ")
                ));
            }
            if let Some((key, _)) = found.iter().find(|(_, Scalar(value))| is_compound(value)) {
                return Err(format!(
                    "associative list with keys has an element whose key field {key:?} is no scalar"
                ));
            }
            Ok(PathElement::key(found))
        }
    }
}

/// A list or a map, which identifies nothing: merged, it would not be what it was.
fn is_compound(value: &Value) -> bool {
    value.is_array() || value.is_object()
}

/// Whether two values mean the same: as JSON, with `1` equal to `1.0`.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => super::path::compare_numbers(a, b).is_eq(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}
