//! Patch: four ways to say what should change, one way to carry it out.

use portolan_kube_patch as kube_patch;
use serde_json::Value;

use super::{
    Caller, FieldValidation, Registry, SCHEME, Subresource, WriteOptions, Written, object,
    update::{Owners, Place},
};
use crate::{Cause, Kind, Status, go, schema::types, status::Details};

/// Most operations of a JSON patch (apiserver `maxJSONPatchOperations`).
const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// A change, in the form that the client chose by its content type.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' strategic merge patch.
    Strategic(Value),
    /// Server-side apply: the fields that the manager wants, and no others.
    Apply(Value),
}

impl Registry {
    /// Changes an object, or one part of it.
    #[expect(clippy::too_many_arguments, reason = "the address of an object is three of them")]
    pub async fn patch(
        &self,
        caller: &Caller,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        subresource: Option<Subresource>,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        self.patch_written(caller, kind, namespace, name, subresource, patch, options)
            .await
            .map(|w| w.object)
    }

    /// Changes an object, or one part of it; tells what there is to tell about it.
    #[expect(clippy::too_many_arguments, reason = "the address of an object is three of them")]
    pub async fn patch_written(
        &self,
        caller: &Caller,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        subresource: Option<Subresource>,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        if let Patch::Json(Value::Array(operations)) = &patch
            && operations.len() > JSON_PATCH_OPERATIONS_MAX
        {
            return Err(Status::too_large(format!(
                "The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {}",
                operations.len()
            )));
        }
        let place = Place { caller, kind, namespace, name, part: subresource, options };
        if let Patch::Apply(applied) = patch {
            return self.apply(place, applied).await;
        }
        if subresource == Some(Subresource::Scale) {
            return self.patch_scale(place, &patch).await;
        }
        let change = |old: &Value| patched(kind, old, &patch, options);
        self.modify(place, Owners::Compare, &change).await
    }
}

/// What a patch makes of an object, of which it must still be one.
pub(crate) fn patched(
    kind: &Kind,
    old: &Value,
    patch: &Patch,
    options: &WriteOptions,
) -> Result<Value, Status> {
    let patched = apply(kind, old, patch)?;
    if object::name(&patched).is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            object::name(old)
        )));
    }
    check_strict(kind, patch, &patched, options)?;
    Ok(patched)
}

/// The causes that kube-patch names, as a Status has them.
pub(crate) fn with_causes(mut status: Status, causes: Vec<kube_patch::Cause>) -> Status {
    if !causes.is_empty() {
        let causes = causes
            .into_iter()
            .map(|c| Cause { reason: c.reason, message: c.message, field: c.field })
            .collect();
        status.details = Some(Box::new(Details { causes, ..Details::default() }));
    }
    status
}

/// The patched document.
fn apply(kind: &Kind, old: &Value, patch: &Patch) -> Result<Value, Status> {
    let refused = |error: kube_patch::PatchError| {
        with_causes(Status::new(error.code(), error.reason(), error.to_string()), error.causes())
    };
    match patch {
        Patch::Json(patch) => {
            let patched = kube_patch::json_patch(old, patch).map_err(refused)?;
            read_patched(kind, &patched)
                .map_err(|why| not_an_object(&patched.to_string(), &why))?;
            Ok(patched)
        }
        Patch::Merge(patch) => {
            let patched = kube_patch::merge_patch(old, patch);
            read_patched(kind, &patched)
                .map_err(|why| not_an_object(&patched.to_string(), &why))?;
            Ok(patched)
        }
        Patch::Strategic(patch) => {
            let schema = kube_patch::schema_for(kind.group, kind.version, kind.kind);
            let patched = kube_patch::strategic_merge(old, patch, schema).map_err(refused)?;
            match types::check(kind, &patched) {
                Ok(()) => Ok(patched),
                // Upstream goes from the map to the object without the decoder.
                Err(why) => Err(not_an_object(&shown(patch), &unconverted(&why))),
            }
        }
        Patch::Apply(_) => Err(Status::internal("an apply is no patch of a document")),
    }
}

/// A strategic merge patch in a refusal.
fn shown(patch: &Value) -> String {
    kube_patch::go_print(&kube_patch::spent_patch(patch))
}

/// Unknown fields of a patch, where they are refused: as a fault of the patch.
fn check_strict(
    kind: &Kind,
    patch: &Patch,
    patched: &Value,
    options: &WriteOptions,
) -> Result<(), Status> {
    if options.field_validation != FieldValidation::Strict {
        return Ok(());
    }
    let mut faults = options.duplicate_fields.clone();
    faults.extend(types::unknown_fields(kind, patched));
    if faults.is_empty() {
        return Ok(());
    }
    let value = match patch {
        Patch::Strategic(patch) => shown(patch),
        _ => patched.to_string(),
    };
    Err(not_an_object(&value, &format!("strict decoding error: {}", faults.join(", "))))
}

/// Whether the outcome still reads as an object of its kind.
fn read_patched(kind: &Kind, patched: &Value) -> Result<(), String> {
    let text = |key: &str| patched.get(key).and_then(Value::as_str).unwrap_or_default();
    let (version, name) = (text("apiVersion"), text("kind"));
    let is_other = |said: &str, own: &str| !said.is_empty() && said != own;
    if is_other(version, kind.api_version) || is_other(name, kind.kind) {
        return Err(format!(
            "no kind {} is registered for version {} in scheme {SCHEME:?}",
            go::quote(name),
            go::quote(version)
        ));
    }
    types::check(kind, patched)
}

/// The refusal of a patch whose outcome is no object of the kind; upstream names no kind in it.
fn not_an_object(value: &str, why: &str) -> Status {
    let cause = Cause::invalid("patch", &value.into(), why);
    Status::invalid_as("", "", Details::default(), vec![cause])
}

/// The words of apimachinery's converter for a value of a wrong type, out of the decoder's.
fn unconverted(reason: &str) -> String {
    let parts = reason
        .strip_prefix("json: cannot unmarshal ")
        .and_then(|rest| Some((rest.split_once(" into Go ")?.0, rest.rsplit_once(" of type ")?.1)));
    let Some((found, expected)) = parts else { return reason.to_owned() };
    let found = match found {
        "array" => "slice",
        "object" => "map",
        number if number.contains('.') => "float64",
        number if number.starts_with("number") => "int64",
        other => other,
    };
    let kind = match expected {
        list if list.starts_with("[]") => return format!("cannot restore slice from {found}"),
        map if map.starts_with("map[") => return format!("cannot restore map from {found}"),
        name if types::is_struct(name) => return format!("cannot restore struct from: {found}"),
        plain @ ("bool" | "int32" | "int64") => plain,
        // What has a name of its own and is no struct is a text.
        _ => "string",
    };
    // Go could make either of the other, which makes this another refusal.
    let are_convertible =
        matches!((found, kind), ("int64", "string") | ("float64", "int32" | "int64"));
    if are_convertible {
        return format!("cannot convert {found} to {expected}");
    }
    format!("unrecognized type: {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_converter_has_words_of_its_own() {
        for (found, expected, words) in [
            ("number", "string", "cannot convert int64 to string"),
            ("number", "v1.PullPolicy", "cannot convert int64 to v1.PullPolicy"),
            ("number 80.5", "int32", "cannot convert float64 to int32"),
            ("bool", "v1.PullPolicy", "unrecognized type: string"),
            ("object", "v1.PullPolicy", "unrecognized type: string"),
            ("string", "bool", "unrecognized type: bool"),
            ("string", "int32", "unrecognized type: int32"),
            ("string", "v1.PodSpec", "cannot restore struct from: string"),
            ("array", "map[string]string", "cannot restore map from slice"),
            ("object", "[]v1.Container", "cannot restore slice from map"),
        ] {
            let decoder = format!(
                "json: cannot unmarshal {found} into Go struct field PodSpec.x of type {expected}"
            );
            assert_eq!(unconverted(&decoder), words, "{decoder}");
        }
        assert_eq!(unconverted("illegal base64 data"), "illegal base64 data");
    }
}
