//! Strategic merge patch: a patch that looks like the object, merged by what the schema says of
//! each field.
//!
//! ```text
//! patch ─▶ directives of this object ($patch, $retainKeys)
//!       ─▶ lists with $setElementOrder ─┐
//!       ─▶ members: null removes, object ├─▶ list: merge elements ─▶ order
//!          merges, list merges, else set ┘
//!       ─▶ $deleteFromPrimitiveList
//! ```
//!
//! The semantics are those of `StrategicMergeMapPatch` in k8s.io/apimachinery
//! `pkg/util/strategicpatch`, as an API server uses it (nulls that match nothing are dropped,
//! parallel lists are merged in). Where upstream relies on decoding into a Go struct afterwards to
//! lose leftovers (nulls and directives inside values that were taken over whole), this module
//! removes them itself. Differences, all where upstream is at odds with itself:
//!
//! - Within one object the deletions of `$deleteFromPrimitiveList` come last; upstream takes them in
//!   Go's random map order.
//! - An element that is new to the live list is cleaned like any new value. Upstream takes it over
//!   raw, so that `{"name": "A", "$patch": "delete"}` inside a new container adds A.
//! - `$setElementOrder` for a list that the schema does not know shows the merge key, and the list
//!   merges by it. Upstream fails.
//! - `$patch: merge` is refused, as upstream: its documentation names the word, its code has none.

mod directive;
mod list;
mod order;

use serde_json::{Map, Value};

use crate::error::{PatchError, type_name};
use crate::schema::{At, PatchStrategy, Schema};

pub use directive::spent_patch;
use directive::{Kept, clean, clean_members};

/// A JSON object.
type Object = Map<String, Value>;

/// Applies a strategic merge patch to `doc`, whose shape `schema` tells.
///
/// ```
/// use portolan_kube_patch::{schema_for, strategic_merge};
/// use serde_json::json;
///
/// let pod = json!({"spec": {"containers": [{"name": "app", "image": "app:1"}, {"name": "log"}]}});
/// let patch = json!({"spec": {"containers": [{"name": "app", "image": "app:2"}]}});
/// let patched = strategic_merge(&pod, &patch, schema_for("", "v1", "Pod"))?;
/// assert_eq!(patched["spec"]["containers"], json!([{"name": "app", "image": "app:2"}, {"name": "log"}]));
/// # Ok::<(), portolan_kube_patch::PatchError>(())
/// ```
///
/// # Errors
/// See [`PatchError`]. The document is not touched; a failed patch changes nothing.
pub fn strategic_merge(doc: &Value, patch: &Value, schema: &Schema) -> Result<Value, PatchError> {
    const EXPECTED: &str = "a map";
    let doc = match doc {
        Value::Object(doc) => doc.clone(),
        Value::Null => Object::new(),
        other => {
            return Err(PatchError::WrongType { expected: EXPECTED, found: type_name(other) });
        }
    };
    match patch {
        Value::Object(patch) => merge_object(doc, patch.clone(), schema.root()).map(Value::Object),
        // A `null` body decodes to no members in Go, which changes nothing.
        Value::Null => Ok(Value::Object(doc)),
        other => Err(PatchError::WrongType { expected: EXPECTED, found: type_name(other) }),
    }
}

/// Merges the members of `patch` into `live`.
fn merge_object(mut live: Object, mut patch: Object, at: At<'_>) -> Result<Object, PatchError> {
    match directive::take_patch_word(&mut patch) {
        None => {}
        Some(word) if word == directive::REPLACE => return Ok(clean_members(patch)),
        Some(word) if word == directive::DELETE => return Ok(Object::new()),
        Some(word) => {
            let mut map = Value::Object(patch);
            map[directive::PATCH] = word;
            return Err(PatchError::UnknownDirective { map });
        }
    }
    directive::retain_keys(&mut live, &mut patch)?;
    list::merge_ordered(&mut live, &mut patch, at)?;
    let mut deletions = Vec::new();
    for (key, value) in patch {
        match directive::list_to_delete_from(&key)? {
            Some(field) => deletions.push((field.to_owned(), value)),
            None => merge_member(&mut live, key, value, at)?,
        }
    }
    for (field, scalars) in deletions {
        list::delete_scalars(&mut live, &field, &scalars)?;
    }
    Ok(live)
}

fn merge_member(
    live: &mut Object,
    key: String,
    value: Value,
    at: At<'_>,
) -> Result<(), PatchError> {
    if value.is_null() {
        live.shift_remove(&key);
        return Ok(());
    }
    let here = at.field(&key);
    let merged = match (live.get_mut(&key), value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            let merged = match here.rule().strategy {
                PatchStrategy::Replace => clean_members(new),
                _ => merge_object(std::mem::take(old), new, here)?,
            };
            Kept::Yes(Value::Object(merged))
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            let rule = list::Rule::of(here);
            let old = std::mem::take(old);
            Kept::Yes(Value::Array(list::merge(old, new, &key, rule, here.item())?))
        }
        (_, value) => clean(value),
    };
    match merged {
        Kept::Yes(value) => {
            live.insert(key, value);
        }
        Kept::No => {
            live.shift_remove(&key);
        }
    }
    Ok(())
}
