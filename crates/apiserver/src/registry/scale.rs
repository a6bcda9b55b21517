//! The scale subresource: `spec.replicas` of any workload, as an `autoscaling/v1` Scale.

use serde_json::{Value, json};

use super::{
    LabelSelector, Patch, Registry, Written,
    create::NAMESPACE_MISMATCH,
    object, patch, rules,
    update::{Change, Owners, Place, check_uid},
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
fn onto(kind: &Kind, workload: &Value, scale: &Value) -> Result<Value, Status> {
    let name = object::name(workload);
    let (named, placed) = (object::name(scale), object::namespace(scale));
    if !placed.is_empty() && placed != object::namespace(workload) {
        return Err(Status::bad_request(NAMESPACE_MISMATCH));
    }
    if !named.is_empty() && named != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({named}) does not match the name on the URL ({name})"
        )));
    }
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let detail = "must be greater than or equal to 0";
        let cause = Cause::invalid("spec.replicas", &json!(replicas), detail);
        return Err(Status::invalid(&kinds::SCALES, name, vec![cause]));
    }
    let (asked, found) = (object::uid(scale), object::uid(workload));
    if !asked.is_empty() && asked != found {
        let why = format!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {found}"
        );
        return Err(Status::conflict_of_part(kind, name, "scale", &why));
    }
    let mut new = workload.clone();
    object::map_at(object::map_of(&mut new), "spec").insert("replicas".into(), json!(replicas));
    if let Some(version) = object::metadata(scale).get("resourceVersion") {
        object::metadata_mut(&mut new).insert("resourceVersion".into(), version.clone());
    }
    Ok(new)
}

/// The part of a workload that whoever applies a Scale states.
fn stated(kind: &Kind, scale: &Value) -> Value {
    let mut stated = json!({
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": object::name(scale)},
        "spec": {},
    });
    if let Some(entries) = object::metadata(scale).get("managedFields") {
        stated["metadata"]["managedFields"] = entries.clone();
    }
    if let Some(replicas) = scale.pointer("/spec/replicas").filter(|r| !r.is_null()) {
        stated["spec"]["replicas"] = replicas.clone();
    }
    stated
}

/// Gives who writes through this door the time that its entry had before, or none: upstream's
/// handler of scales knows only the times of the workload's entries.
pub(crate) fn keep_times(old: &Value, new: &mut Value) {
    const TELLING: [&str; 4] = ["manager", "operation", "apiVersion", "subresource"];
    let before = object::metadata(old).get("managedFields").and_then(Value::as_array);
    let Some(Value::Array(entries)) = object::metadata_mut(new).get_mut("managedFields") else {
        return;
    };
    for entry in entries.iter_mut().filter(|entry| entry["subresource"] == "scale") {
        let is_same = |other: &&Value| TELLING.iter().all(|key| other.get(key) == entry.get(key));
        let time = before.into_iter().flatten().find(is_same).and_then(|e| e.get("time").cloned());
        rules::set_or_remove(object::map_of(entry), "time", time);
    }
}

impl Registry {
    /// The Scale of a workload.
    pub fn get_scale(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Value, Status> {
        Ok(of(&self.get(kind, namespace, name)?))
    }

    pub(crate) async fn update_scale(
        &self,
        place: Place<'_>,
        mut scale: Value,
    ) -> Result<Written, Status> {
        let warnings = rules::read(&kinds::SCALES, &mut scale, place.options)?;
        let change = |old: &Value| {
            check_uid(place.kind, old, &scale)?;
            onto(place.kind, old, &scale)
        };
        match self.modify_scale(place, Owners::Compare, &change).await {
            Ok(written) => Ok(written.after(warnings)),
            Err(status) => Err(status.with_warnings(warnings)),
        }
    }

    pub(crate) async fn patch_scale(
        &self,
        place: Place<'_>,
        by: &Patch,
    ) -> Result<Written, Status> {
        let change = |old: &Value| {
            let scale = patch::patched(&kinds::SCALES, &of(old), by, place.options)?;
            onto(place.kind, old, &scale)
        };
        self.modify_scale(place, Owners::Compare, &change).await
    }

    /// Server-side apply of a Scale: of what it states of its workload, through this door.
    /// `merge` brings that to a workload.
    pub(crate) async fn apply_scale(
        &self,
        place: Place<'_>,
        scale: &Value,
        merge: &(dyn Fn(&Value, &Value) -> Result<Value, Status> + Send + Sync),
    ) -> Result<Written, Status> {
        let stated = stated(place.kind, scale);
        let change = |old: &Value| {
            let merged = merge(old, &stated)?;
            let mut seen = of(&merged);
            for key in ["uid", "resourceVersion", "namespace"] {
                let said = object::metadata(scale).get(key).cloned();
                rules::set_or_remove(object::metadata_mut(&mut seen), key, said);
            }
            // Of a Scale without replicas it is none.
            let mut new = onto(place.kind, old, &seen)?;
            let owners = object::metadata(&merged).get("managedFields").cloned();
            rules::set_or_remove(object::metadata_mut(&mut new), "managedFields", owners);
            Ok(new)
        };
        self.modify_scale(place, Owners::Done, &change).await
    }

    async fn modify_scale(
        &self,
        place: Place<'_>,
        owners: Owners,
        change: Change<'_>,
    ) -> Result<Written, Status> {
        let mut written = self.modify(place, owners, change).await?;
        written.object = of(&written.object);
        // The stored bytes are the workload's, not the Scale's.
        written.record = None;
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_put_onto_its_workload_only() {
        let kind = &kinds::DEPLOYMENTS;
        let workload = json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u"}, "spec": {"replicas": 1},
        });
        let new = onto(kind, &workload, &json!({"spec": {"replicas": 3}})).unwrap();
        assert_eq!(new["spec"], json!({"replicas": 3}));
        assert_eq!(onto(kind, &workload, &json!({})).unwrap()["spec"], json!({"replicas": 0}));
        for (scale, code, message) in [
            (json!({"metadata": {"namespace": "other"}}), 400, NAMESPACE_MISMATCH),
            (json!({"metadata": {"name": "b"}}), 400, {
                "the name of the object (b) does not match the name on the URL (a)"
            }),
            (json!({"metadata": {"uid": "other"}}), 409, {
                "Operation cannot be fulfilled on deployments/scale.apps \"a\": Precondition \
                 failed: UID in precondition: other, UID in object meta: u"
            }),
            (json!({"spec": {"replicas": -1}}), 422, {
                "Scale.autoscaling \"a\" is invalid: spec.replicas: Invalid value: -1: must be \
                 greater than or equal to 0"
            }),
        ] {
            let refused = onto(kind, &workload, &scale).unwrap_err();
            assert_eq!((refused.code, refused.message.as_str()), (code, message));
        }
    }

    #[test]
    fn entries_of_scales_keep_the_time_that_they_had() {
        let entry = |manager: &str, part: &str, time: Option<&str>| {
            let mut entry = json!({"manager": manager, "subresource": part});
            rules::set_or_remove(object::map_of(&mut entry), "time", time.map(Value::from));
            entry
        };
        let with = |entries: Value| json!({"metadata": {"managedFields": entries}});
        let old = with(json!([entry("a", "scale", Some("1")), entry("b", "", Some("1"))]));
        let mut new = with(json!([
            entry("a", "scale", Some("2")),
            entry("b", "scale", Some("2")),
            entry("b", "", Some("2")),
        ]));
        keep_times(&old, &mut new);
        let expected =
            [entry("a", "scale", Some("1")), entry("b", "scale", None), entry("b", "", Some("2"))];
        assert_eq!(new, with(json!(expected)));
    }

    #[test]
    fn who_applies_a_scale_states_no_more_than_it_says() {
        let scale = json!({"metadata": {"name": "a", "uid": "u"}, "spec": {"replicas": 2}});
        assert_eq!(
            stated(&kinds::DEPLOYMENTS, &scale),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
                "spec": {"replicas": 2}})
        );
        let nothing = stated(&kinds::DEPLOYMENTS, &json!({"metadata": {"name": "a"}}));
        assert_eq!(nothing["spec"], json!({}));
    }
}
