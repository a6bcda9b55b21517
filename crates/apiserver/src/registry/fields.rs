//! Who owns which field: `metadata.managedFields`, kept up on every write, and
//! server-side apply, which is built on it. The semantics are kube-patch's;
//! here is only when to ask it.

use portolan_kube_patch::{
    self as kube_patch,
    apply::{self as ownership, FieldSet},
    schema_for,
};
use serde_json::Value;

use super::{
    Caller, Registry, Subresource, WriteOptions, Written,
    create::check_place,
    key, object,
    patch::with_causes,
    rules,
    update::{Owners, Place},
};
use crate::{Kind, Status, kinds, schema::types};

/// Fields that a write through a door leaves alone, and so does not own.
fn reset_fields(kind: &Kind, part: &str) -> &'static FieldSet {
    match part {
        "" | "status" if kind.has_status => ownership::reset_fields(part),
        _ => ownership::reset_fields("scale"),
    }
}

fn manager<'a>(caller: &'a Caller, options: &'a WriteOptions) -> &'a str {
    let own = match &*caller.program {
        "" => caller.user.strip_prefix("system:").unwrap_or(&caller.user),
        program => program,
    };
    options.field_manager.as_deref().unwrap_or(own)
}

impl Registry {
    /// The new object with what this write changes noted under the name of its manager.
    pub(crate) fn own_fields(
        &self,
        caller: &Caller,
        kind: &Kind,
        part: Option<Subresource>,
        old: Option<&Value>,
        new: Value,
        options: &WriteOptions,
    ) -> Value {
        let now = self.now();
        let part = part.map_or("", Subresource::name);
        let write = ownership::Write {
            manager: manager(caller, options),
            api_version: kind.api_version,
            subresource: part,
            now: &now,
            reset: reset_fields(kind, part),
        };
        let schema = schema_for(kind.group, kind.version, kind.kind);
        ownership::update(old, new, schema, &write)
    }

    /// Server-side apply: creates the object, or brings the fields that the manager states to it.
    pub(crate) async fn apply(
        &self,
        place: Place<'_>,
        mut applied: Value,
    ) -> Result<Written, Status> {
        let Place { caller, kind, namespace, name, part, options } = place;
        let is_scale = part == Some(Subresource::Scale);
        let seen_as = if is_scale { &kinds::SCALES } else { kind };
        check_applied(seen_as, namespace, name, &mut applied)?;
        let now = self.now();
        let part_name = part.map_or("", Subresource::name);
        let write = ownership::Write {
            manager: manager(caller, options),
            api_version: kind.api_version,
            subresource: part_name,
            now: &now,
            reset: reset_fields(kind, part_name),
        };
        let schema = schema_for(kind.group, kind.version, kind.kind);
        let merge_onto = |live: Option<&Value>, applied: &Value| {
            ownership::apply(live, applied, options.force, schema, &write).map_err(|error| {
                let status = Status::new(error.code(), error.reason(), error.to_string());
                with_causes(status, error.causes())
            })
        };
        if is_scale {
            let merge = |old: &Value, stated: &Value| merge_onto(Some(old), stated);
            return self.apply_scale(place, &applied, &merge).await;
        }
        let merge = |live: Option<&Value>| merge_onto(live, &applied);
        if part.is_none() && self.inner.store.get(&key(kind, namespace, name)).is_none() {
            let uid = object::uid(&applied);
            if !uid.is_empty() {
                let why = format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object \
                     was found"
                );
                return Err(Status::conflict(kind, name, &why));
            }
            let object = merge(None)?;
            let made =
                self.create_owned(caller, kind, namespace, Owners::Done, object, options).await;
            match made {
                // Somebody created it in this moment: then it is a change.
                Err(status) if status.is_already_exists() => {}
                outcome => return outcome,
            }
        }
        self.modify(place, Owners::Done, &|old: &Value| merge(Some(old))).await
    }
}

/// `group/version` as Go prints it: with the slash also where there is no group.
fn schema_group_version(api_version: &str) -> String {
    if api_version.contains('/') { api_version.to_owned() } else { format!("/{api_version}") }
}

fn check_applied(
    kind: &Kind,
    namespace: &str,
    name: &str,
    applied: &mut Value,
) -> Result<(), Status> {
    let said = |field: &str| applied.get(field).and_then(Value::as_str).unwrap_or_default();
    if said("apiVersion") != kind.api_version || said("kind") != kind.kind {
        return Err(Status::bad_request(format!(
            "invalid object type: {}, Kind={}",
            schema_group_version(said("apiVersion")),
            said("kind")
        )));
    }
    check_place(kind, namespace, applied)?;
    let named = object::name(applied);
    if !named.is_empty() && named != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({named}) does not match the name on the URL ({name})"
        )));
    }
    check_typed(kind, applied)?;
    rules::read_as(kind, applied)?;
    object::metadata_mut(applied).insert("name".into(), name.into());
    Ok(())
}

/// What is applied is owned, so there is no dropping and warning here; upstream's library reads it
/// by the schema and says what does not fit, which upstream's server does not foresee.
fn check_typed(kind: &Kind, applied: &Value) -> Result<(), Status> {
    let schema = schema_for(kind.group, kind.version, kind.kind);
    let mut faults: Vec<String> = Vec::new();
    if let Err(mismatch) = types::check(kind, applied) {
        let fault = mismatch_of(kind, applied, &mismatch);
        faults.push(fault.ok_or_else(|| Status::bad_request(mismatch))?);
    }
    for unknown in types::unknown_fields(kind, applied) {
        let path = unknown.trim_start_matches("unknown field ").trim_matches('"');
        let place = ownership::place(applied, schema, path);
        faults.push(format!("{place}: field not declared in schema"));
    }
    let joined = match faults.as_slice() {
        [] => return Ok(()),
        [only] => only.clone(),
        several => several.iter().fold("errors:".to_owned(), |all, fault| all + "\n  " + fault),
    };
    Err(Status::unforeseen(format!(
        "failed to create typed patch object ({}/{}; {}, Kind={}): {joined}",
        object::namespace(applied),
        object::name(applied),
        kind.api_version,
        kind.kind,
    )))
}

/// A wrong JSON type in the words of that library, out of the words of Go's decoder; `None` for
/// texts that are no types.
fn mismatch_of(kind: &Kind, applied: &Value, mismatch: &str) -> Option<String> {
    let (found, rest) =
        mismatch.split_once("json: cannot unmarshal ")?.1.split_once(" into Go struct field ")?;
    let (path, expected) = rest.split_once(" of type ")?;
    let names: Vec<&str> = path.split('.').skip(1).collect();
    let (path, value) = find(applied, &names, String::new(), found)?;
    let schema = schema_for(kind.group, kind.version, kind.kind);
    let place = ownership::place(applied, schema, &path);
    let shown = kube_patch::go_print(value);
    let why = match expected {
        "int32" | "int64" => {
            format!("expected numeric (int or float), got {}", kube_patch::go_type(value))
        }
        "bool" => format!("expected boolean, got {shown}"),
        list if list.starts_with("[]") => format!("expected list, got {shown}"),
        map if map.starts_with("map[") => format!("expected map, got {shown}"),
        "string" => format!("expected string, got &value.valueUnstructured{{Value:{shown}}}"),
        _ if value.is_object() || value.is_array() => format!("expected string, got {shown}"),
        _ => format!("expected map, got &{{{shown}}}"),
    };
    Some(format!("{place}: {why}"))
}

/// The first value at a path of names, through lists, that has a JSON type.
fn find<'v>(
    value: &'v Value,
    names: &[&str],
    path: String,
    found: &str,
) -> Option<(String, &'v Value)> {
    let Some((name, rest)) = names.split_first() else {
        let is_it = match value {
            Value::String(_) => found == "string",
            Value::Bool(_) => found == "bool",
            Value::Number(_) => found.starts_with("number"),
            Value::Array(_) => found == "array",
            Value::Object(_) => found == "object",
            Value::Null => false,
        };
        return is_it.then_some((path, value));
    };
    let dot = if path.is_empty() { "" } else { "." };
    let path = format!("{path}{dot}{name}");
    let member = value.get(name)?;
    if let (Value::Array(items), false) = (member, rest.is_empty()) {
        let mut items = items.iter().enumerate();
        return items.find_map(|(i, item)| find(item, rest, format!("{path}[{i}]"), found));
    }
    find(member, rest, path, found)
}
