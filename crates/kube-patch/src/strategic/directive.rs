//! The directives of strategic merge patch, read from the members of a patch object.

use std::collections::HashSet;

use serde_json::Value;

use super::Object;
use crate::error::PatchError;

pub(super) const PATCH: &str = "$patch";
pub(super) const REPLACE: &str = "replace";
pub(super) const DELETE: &str = "delete";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";

/// Whether a value survives [`clean`].
pub(super) enum Kept {
    Yes(Value),
    No,
}

/// Removes and returns the word of `$patch`.
pub(super) fn take_patch_word(patch: &mut Object) -> Option<Value> {
    patch.shift_remove(PATCH)
}

/// The word of `$patch` of a list element.
pub(super) fn patch_word(element: &Value) -> Option<&Value> {
    element.get(PATCH)
}

/// `$retainKeys` names the members that may stay; the others leave `live`. Every member that the
/// patch sets must be among them.
pub(super) fn retain_keys(live: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(names) = patch.shift_remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let names = names.as_array().ok_or(PatchError::RetainKeys)?;
    let names: HashSet<&str> = names.iter().filter_map(Value::as_str).collect();
    let exempt = |key: &str, value: &Value| {
        value.is_null()
            || key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
            || key.starts_with(SET_ELEMENT_ORDER)
    };
    if patch.iter().any(|(key, value)| !exempt(key, value) && !names.contains(key.as_str())) {
        return Err(PatchError::RetainKeys);
    }
    live.retain(|key, _| names.contains(key.as_str()));
    Ok(())
}

/// `$deleteFromPrimitiveList/FIELD` -> FIELD.
pub(super) fn list_to_delete_from(key: &str) -> Result<Option<&str>, PatchError> {
    field_of(key, DELETE_FROM_PRIMITIVE_LIST).ok_or(PatchError::PrimitiveList)
}

/// `$setElementOrder/FIELD` -> FIELD.
pub(super) fn list_to_order(key: &str) -> Result<Option<&str>, PatchError> {
    field_of(key, SET_ELEMENT_ORDER).ok_or(PatchError::SetElementOrder)
}

/// `None`: the key begins as the directive and names no field. `Some(None)`: another key.
fn field_of<'a>(key: &'a str, directive: &str) -> Option<Option<&'a str>> {
    match key.strip_prefix(directive) {
        None => Some(None),
        Some(rest) => rest.strip_prefix('/').map(Some),
    }
}

fn is_directive(key: &str) -> bool {
    key == RETAIN_KEYS
        || key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
        || key.starts_with(SET_ELEMENT_ORDER)
}

/// What upstream's merge, which takes away what it has done, leaves of a patch: directives go, and
/// with the order of a list the list. Its refusals print that.
pub fn spent_patch(patch: &Value) -> Value {
    let Some(members) = patch.as_object() else { return patch.clone() };
    let ordered: HashSet<&str> =
        members.keys().filter_map(|key| list_to_order(key).ok().flatten()).collect();
    let left = members.iter().filter(|(key, _)| !is_directive(key) && !ordered.contains(&***key));
    Value::Object(left.map(|(key, value)| (key.clone(), spent_patch(value))).collect())
}

/// What a value of the patch becomes where there is nothing to merge it with: objects that carry
/// `$patch` vanish, the other directives and the nulls in objects are dropped.
pub(super) fn clean(value: Value) -> Kept {
    match value {
        Value::Object(members) if members.contains_key(PATCH) => Kept::No,
        Value::Object(members) => Kept::Yes(Value::Object(clean_members(members))),
        Value::Array(elements) => Kept::Yes(Value::Array(clean_elements(elements))),
        scalar => Kept::Yes(scalar),
    }
}

pub(super) fn clean_members(members: Object) -> Object {
    let kept = members
        .into_iter()
        .filter(|(key, value)| !value.is_null() && key != PATCH && !is_directive(key));
    kept.filter_map(|(key, value)| match clean(value) {
        Kept::Yes(value) => Some((key, value)),
        Kept::No => None,
    })
    .collect()
}

pub(super) fn clean_elements(elements: Vec<Value>) -> Vec<Value> {
    let kept = elements.into_iter().filter_map(|element| match clean(element) {
        Kept::Yes(element) => Some(element),
        Kept::No => None,
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_is_spent_where_it_was_carried_out() {
        for (patch, left) in [
            (json!({"a": 1, "b": null}), json!({"a": 1, "b": null})),
            (json!({"$setElementOrder/a": [], "a": [{"name": "x"}], "b": []}), json!({"b": []})),
            (json!({"a": {"$retainKeys": ["b"], "b": 1}}), json!({"a": {"b": 1}})),
            (json!({"a": {"$deleteFromPrimitiveList/b": ["c"]}}), json!({"a": {}})),
            (json!([1]), json!([1])),
        ] {
            assert_eq!(spent_patch(&patch), left, "{patch}");
        }
    }
}
