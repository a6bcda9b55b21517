//! The scale subresource: `spec.replicas` of any workload, as an `autoscaling/v1` Scale.

use serde_json::{Value, json};

use super::{
    Caller, LabelSelector, Patch, Registry, Subresource, WriteOptions, Written, object, patch,
    update::{Change, Owners, Place},
};
use crate::{Cause, Kind, Status, kinds};

/// A workload seen as a Scale.
pub(crate) fn of(workload: &Value) -> Value {
    let metadata = object::metadata(workload);
    let mut shown = serde_json::Map::new();
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata.get(key) {
            shown.insert(key.into(), value.clone());
        }
    }
    let count = |path| workload.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let replicas = Some(count("/spec/replicas")).filter(|count| *count != 0);
    let spec = replicas.map_or_else(|| json!({}), |count| json!({"replicas": count}));
    let selector = workload.pointer("/spec/selector").map(LabelSelector::from_object);
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": shown,
        "spec": spec,
        "status": {
            "replicas": count("/status/replicas"),
            "selector": selector.and_then(Result::ok).unwrap_or_default().to_string(),
        },
    })
}

/// The workload with the replicas of a Scale.
fn onto(workload: &Value, scale: &Value) -> Result<Value, Status> {
    let name = object::name(workload);
    let named = object::name(scale);
    if !named.is_empty() && named != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({named}) does not match the name on the URL ({name})"
        )));
    }
    let replicas = match scale.pointer("/spec/replicas") {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_i64().ok_or_else(|| {
            Status::bad_request(format!("spec.replicas: expected a number, found {value}"))
        })?,
    };
    if i32::try_from(replicas).is_err() || replicas < 0 {
        let detail = "must be greater than or equal to 0";
        let cause = Cause::invalid("spec.replicas", &json!(replicas), detail);
        return Err(Status::invalid(&kinds::SCALES, name, vec![cause]));
    }
    let mut new = workload.clone();
    object::map_at(object::map_of(&mut new), "spec").insert("replicas".into(), json!(replicas));
    if let Some(version) = object::metadata(scale).get("resourceVersion") {
        object::metadata_mut(&mut new).insert("resourceVersion".into(), version.clone());
    }
    Ok(new)
}

impl Registry {
    /// The Scale of a workload.
    pub fn get_scale(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Value, Status> {
        Ok(of(&self.get(kind, namespace, name)?))
    }

    pub(crate) async fn update_scale(
        &self,
        caller: &Caller,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        scale: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let change = |old: &Value| onto(old, &scale);
        self.modify_scale(caller, kind, namespace, name, &change, options).await
    }

    pub(crate) async fn patch_scale(
        &self,
        caller: &Caller,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        by: Patch,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let change = |old: &Value| onto(old, &patch::apply(kind, &of(old), &by)?);
        self.modify_scale(caller, kind, namespace, name, &change, options).await
    }

    async fn modify_scale(
        &self,
        caller: &Caller,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        change: Change<'_>,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let part = Some(Subresource::Scale);
        let place = Place { caller, kind, namespace, name, part, options };
        let mut written = self.modify(place, Owners::Compare, change).await?;
        written.object = of(&written.object);
        // The stored bytes are the workload's, not the Scale's.
        written.record = None;
        Ok(written)
    }
}
