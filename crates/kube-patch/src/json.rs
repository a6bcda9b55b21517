//! JSON patch (RFC 6902) and JSON merge patch (RFC 7386) as a Kubernetes API server applies them.
//!
//! The mechanics are those of the `json-patch` crate. What is added here: the limits of
//! k8s.io/apiserver, and errors that say which operation failed and under which HTTP code. The
//! operations are applied one by one to a copy, so a failing patch leaves the document as it was.

use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;

use crate::error::{PatchError, type_name};

/// Most operations in one JSON patch: `maxJSONPatchOperations` of k8s.io/apiserver
/// `pkg/endpoints/handlers/patch.go`.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;

/// Most bytes that the `copy` operations of one JSON patch may copy together: the API server's
/// `JSONPatchMaxCopyBytes` (3 MiB, k8s.io/apiserver `pkg/server/config.go`). Without it a patch of
/// forty lines that copies a value into itself doubles the document forty times.
pub const MAX_JSON_PATCH_COPY_BYTES: usize = 3 * 1024 * 1024;

/// Applies a JSON patch (RFC 6902): a list of operations, all or nothing.
///
/// ```
/// use serde_json::json;
/// let doc = json!({"spec": {"replicas": 1}});
/// let patch = json!([
///     {"op": "test", "path": "/spec/replicas", "value": 1},
///     {"op": "replace", "path": "/spec/replicas", "value": 3},
/// ]);
/// let patched = portolan_kube_patch::json_patch(&doc, &patch)?;
/// assert_eq!(patched, json!({"spec": {"replicas": 3}}));
/// # Ok::<(), portolan_kube_patch::PatchError>(())
/// ```
///
/// # Errors
/// 400 when the patch is no list of objects, 413 when it is too long, 422 when an operation is
/// malformed, does not fit the document, or is a `test` that fails.
pub fn json_patch(doc: &Value, patch: &Value) -> Result<Value, PatchError> {
    const EXPECTED: &str = "a list of operations";
    let operations = match patch {
        Value::Array(operations) => operations,
        // No operations, in Go.
        Value::Null => return Ok(doc.clone()),
        other => {
            return Err(PatchError::WrongType { expected: EXPECTED, found: type_name(other) });
        }
    };
    if operations.len() > MAX_JSON_PATCH_OPERATIONS {
        return Err(PatchError::TooManyOperations {
            max: MAX_JSON_PATCH_OPERATIONS,
            got: operations.len(),
        });
    }
    let is_operation = |value: &Value| value.is_object() || value.is_null();
    if let Some(other) = operations.iter().find(|operation| !is_operation(operation)) {
        return Err(PatchError::WrongType { expected: EXPECTED, found: type_name(other) });
    }
    let mut patched = doc.clone();
    let mut copied_bytes = 0;
    for (index, operation) in operations.iter().enumerate() {
        apply_operation(&mut patched, index, operation, &mut copied_bytes)?;
    }
    Ok(patched)
}

fn apply_operation(
    doc: &mut Value,
    index: usize,
    operation: &Value,
    copied_bytes: &mut usize,
) -> Result<(), PatchError> {
    let word = |name: &str| operation.get(name).and_then(Value::as_str).unwrap_or_default();
    let path = word("path").to_owned();
    let refuse = |message: String| PatchError::Operation {
        path: path.clone(),
        operation: index,
        message: format!("{} operation does not apply: {message}", word("op")),
    };
    let mut parsed: PatchOperation = serde_json::from_value(as_written_here(doc, operation))
        .map_err(|error| refuse(format!("malformed operation: {error}")))?;
    if let PatchOperation::Replace(replace) = &parsed
        && replace
            .path
            .parent()
            .is_some_and(|p| doc.pointer(p.as_str()).is_some_and(Value::is_object))
    {
        // The API server's library (evanphx/json-patch v4) replaces members that are not there,
        // where RFC 6902 has it fail.
        let (path, value) = (replace.path.clone(), replace.value.clone());
        parsed = PatchOperation::Add(json_patch::AddOperation { path, value });
    }
    if let PatchOperation::Copy(copy) = &parsed {
        // Counted before the copy is made, so the refused one costs nothing.
        let bytes = doc.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len());
        *copied_bytes += bytes;
        if *copied_bytes > MAX_JSON_PATCH_COPY_BYTES {
            return Err(PatchError::CopyTooLarge {
                max: MAX_JSON_PATCH_COPY_BYTES,
                bytes: *copied_bytes,
            });
        }
    }
    json_patch::patch(doc, std::slice::from_ref(&parsed)).map_err(|error| match error.kind {
        PatchErrorKind::TestFailed => {
            PatchError::TestFailed { path: path.clone(), operation: index }
        }
        PatchErrorKind::InvalidFromPointer => {
            refuse(format!("doc is missing from path: {:?}", word("from")))
        }
        PatchErrorKind::InvalidPointer => refuse(format!("doc is missing path: {path:?}")),
        other => refuse(other.to_string()),
    })
}

/// An operation that the API server's library takes, as RFC 6902 would have it written: a value
/// that is not given is null, a tilde that escapes nothing is a tilde, and an index is any whole
/// number, counted from the end if negative.
fn as_written_here(doc: &Value, operation: &Value) -> Value {
    let mut operation = operation.clone();
    let Value::Object(members) = &mut operation else { return operation };
    let op = members.get("op").and_then(Value::as_str).unwrap_or_default();
    let adds = matches!(op, "add" | "move" | "copy");
    if matches!(op, "add" | "replace" | "test") {
        members.entry("value").or_insert(Value::Null);
    }
    for (key, adds) in [("path", adds), ("from", false)] {
        if let Some(Value::String(path)) = members.get_mut(key) {
            *path = canonical(doc, path, adds);
        }
    }
    operation
}

/// A pointer as RFC 6901 has it, with indices of digits without zeros in front. `adds`: one behind the end is one of
/// those that negative ones count.
fn canonical(doc: &Value, path: &str, adds: bool) -> String {
    let mut place = Some(doc);
    let mut tokens = path.split('/').peekable();
    let mut plain = tokens.next().unwrap_or_default().to_owned();
    while let Some(token) = tokens.next() {
        let list = place.and_then(Value::as_array);
        let index = list.and_then(|list| {
            let index: i64 = token.parse().ok()?;
            let ends = i64::try_from(list.len()).ok()? + i64::from(adds && tokens.peek().is_none());
            usize::try_from(if index < 0 { index + ends } else { index }).ok()
        });
        let name = token.replace("~1", "/").replace("~0", "~");
        plain.push('/');
        match index {
            Some(index) => plain.push_str(&index.to_string()),
            None => plain.push_str(&name.replace('~', "~0").replace('/', "~1")),
        }
        place = match (list, index) {
            (Some(list), Some(index)) => list.get(index),
            (Some(_), None) => None,
            (None, _) => place.and_then(|place| place.get(&name)),
        };
    }
    plain
}

/// Applies a JSON merge patch (RFC 7386): objects merge member by member, `null` removes a member,
/// everything else (lists too) replaces.
///
/// ```
/// use serde_json::json;
/// let doc = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
/// let patch = json!({"metadata": {"labels": {"a": null, "c": "3"}}});
/// assert_eq!(
///     portolan_kube_patch::merge_patch(&doc, &patch),
///     json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
/// );
/// ```
#[must_use]
pub fn merge_patch(doc: &Value, patch: &Value) -> Value {
    let mut patched = doc.clone();
    json_patch::merge(&mut patched, patch);
    patched
}
