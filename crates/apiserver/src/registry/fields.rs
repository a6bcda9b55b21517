//! Who owns which field: `metadata.managedFields`, kept up on every write, and
//! server-side apply, which is built on it. The semantics are kube-patch's;
//! here is only when to ask it.

use portolan_kube_patch::{
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
use crate::{Kind, Status, schema::types};

/// Fields that a write through a door leaves alone, and so does not own.
fn reset_fields(kind: &Kind, part: &str) -> &'static FieldSet {
    match part {
        "" | "status" if kind.has_status => ownership::reset_fields(part),
        _ => ownership::reset_fields("scale"),
    }
}

fn manager<'a>(caller: &'a Caller, options: &'a WriteOptions) -> &'a str {
    let own = caller.user.strip_prefix("system:").unwrap_or(&caller.user);
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
        if part == Some(Subresource::Scale) {
            return Err(Status::unsupported_media_type("apply to scale is not held; patch it"));
        }
        check_applied(kind, namespace, name, &mut applied)?;
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
        let merge = |live: Option<&Value>| {
            ownership::apply(live, &applied, options.force, schema, &write).map_err(|error| {
                let status = Status::new(error.code(), error.reason(), error.to_string());
                with_causes(status, error.causes())
            })
        };
        if part.is_none() && self.inner.store.get(&key(kind, namespace, name)).is_none() {
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
    if said("apiVersion").is_empty() || said("kind").is_empty() {
        return Err(Status::bad_request(format!(
            "invalid object type: {}, Kind={}",
            schema_group_version(said("apiVersion")),
            said("kind")
        )));
    }
    rules::check_type(kind, applied)?;
    check_place(kind, namespace, applied)?;
    let named = object::name(applied);
    if !named.is_empty() && named != name {
        return Err(Status::bad_request(format!(
            "metadata.name: Invalid value: {named:?}: must be {name:?}, the name in the URL"
        )));
    }
    object::metadata_mut(applied).insert("name".into(), name.into());
    types::check(kind, applied).map_err(Status::bad_request)?;
    // What is applied is owned, so there is no dropping and warning here (as upstream).
    let unknown = types::unknown_fields(kind, applied);
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "failed to create typed patch object ({namespace}/{name}; {}, Kind={}): {}",
        kind.api_version,
        kind.kind,
        unknown.join(", ")
    )))
}
