//! What differs between kinds when objects are written, and is no schema:
//! which part a request may change, what the server sets, who may not be removed.
//!
//! Counterpart of upstream's `pkg/registry/*/strategy.go`. Everything else
//! (defaults, validation) is in [`crate::schema`].

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{FieldValidation, Registry, Subresource, WriteOptions, object};
use crate::{
    Cause, Kind, Status, go, kinds,
    schema::{self, validate},
    store::Record,
};

/// Namespaces that cannot be deleted (apiserver `admission/plugin/namespace/lifecycle`).
const IMMORTAL_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];
/// How upstream's messages name its table of kinds.
pub(crate) const SCHEME: &str = "pkg/runtime/scheme.go:110";
/// Annotation of DaemonSets (`apps.DeprecatedTemplateGeneration`).
pub(crate) const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
/// What keeps a Namespace until its content is gone.
pub(crate) const NAMESPACE_FINALIZER: &str = "kubernetes";

/// Reads an object as one of a kind, and looks for fields that the kind does not have, or that
/// were given twice. Returns what the client should be warned of.
pub(crate) fn read(
    kind: &Kind,
    object: &mut Value,
    options: &WriteOptions,
) -> Result<Vec<String>, Status> {
    read_as(kind, object)?;
    let validation = options.field_validation;
    let unknown = match validation {
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn | FieldValidation::Strict => {
            let mut found = options.duplicate_fields.clone();
            found.extend(schema::types::unknown_fields(kind, object));
            found
        }
    };
    if validation == FieldValidation::Strict && !unknown.is_empty() {
        let why = format!("strict decoding error: {}", unknown.join(", "));
        return Err(unreadable(kind, kind.kind, kind.version, &why));
    }
    Ok(unknown)
}

/// Reads an object as one of a kind: it says that it is one, or nothing, and every field is of
/// its type. What is left out of its type is filled in.
pub(crate) fn read_as(kind: &Kind, object: &mut Value) -> Result<(), Status> {
    if object.is_null() {
        // As Go reads it: into an empty struct.
        *object = json!({});
    }
    let text = |key: &str| object.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
    let said = (
        text("apiVersion").unwrap_or(kind.api_version).to_owned(),
        text("kind").unwrap_or(kind.kind).to_owned(),
    );
    if said != (kind.api_version.to_owned(), kind.kind.to_owned()) {
        return Err(unlike(kind, &said.0, &said.1, object));
    }
    schema::types::check(kind, object)
        .map_err(|why| unreadable(kind, kind.kind, kind.version, &why))?;
    // Of a type that the table does not know, a list would get here.
    let map = object::map_of(object);
    map.insert("apiVersion".into(), said.0.into());
    map.insert("kind".into(), said.1.into());
    if map.get("metadata").is_none_or(Value::is_null) {
        map.insert("metadata".into(), Value::Object(Map::new()));
    }
    Ok(())
}

/// Drops owners that are named twice; returns the warning of it. Upstream says in it `when` it
/// found them.
pub(crate) fn unite_owners(object: &mut Value, when: &str) -> Option<String> {
    let metadata = object.get_mut("metadata")?;
    let owners = metadata.get_mut("ownerReferences")?.as_array_mut()?;
    let (mut kept, mut twice): (Vec<Value>, Vec<&str>) = (Vec::new(), Vec::new());
    for owner in owners.iter() {
        match kept.contains(owner) {
            true => twice.push(owner.get("uid").and_then(Value::as_str).unwrap_or_default()),
            false => kept.push(owner.clone()),
        }
    }
    if twice.is_empty() {
        return None;
    }
    let warning = format!(
        ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner \
         references in 1.20+, and may reject such requests as early as 1.24; please fix your \
         requests; duplicate UID(s) observed: {}",
        twice.join(", ")
    );
    *owners = kept;
    Some(warning)
}

/// The refusal of an object that is of another kind. Upstream reads it as one of that kind, if
/// there is such a kind, and then finds no way from there.
fn unlike(kind: &Kind, api_version: &str, name: &str, object: &Value) -> Status {
    let version = api_version.rsplit_once('/').map_or(api_version, |(_, version)| version);
    let why = match kinds::find_any(api_version, name) {
        None => format!(
            "no kind {} is registered for version {} in scheme {SCHEME:?}",
            go::quote(name),
            go::quote(api_version)
        ),
        Some(other) => schema::types::check(other, object).err().unwrap_or_else(|| {
            let (group, expected) = (kind.internal_group(), kind.kind);
            format!("converting ({version}.{name}) to ({group}.{expected}): unknown conversion")
        }),
    };
    unreadable(kind, name, version, &why)
}

/// The refusal of a body that says it is of a kind and version.
fn unreadable(expected: &Kind, name: &str, version: &str, why: &str) -> Status {
    let (version, expected) = (go::quote(version), expected.kind);
    Status::bad_request(format!(
        "{name} in version {version} cannot be handled as a {expected}: {why}"
    ))
}

/// Drops unknown fields and fills in defaults.
pub(crate) fn shape(kind: &Kind, object: &mut Value) {
    schema::types::prune(kind, object);
    schema::gates::drop(kind, object);
    if kind.is_core("secrets") {
        fold_string_data(object);
    }
    if *kind == kinds::SERVICE_CIDRS {
        let conditions = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
        for condition in conditions.into_iter().flatten() {
            // Go writes it always, and so nobody has to have said it.
            object::map_of(condition).entry("reason").or_insert("".into());
        }
    }
    if *kind == kinds::DAEMON_SETS {
        // Written by upstream's conversion, and so by whoever writes the object.
        let annotations = object::map_at(object::metadata_mut(object), "annotations");
        annotations.entry(TEMPLATE_GENERATION).or_insert("0".into());
    }
    schema::defaults::apply(kind, object);
}

/// Counts the changes of a DaemonSet's template, in the annotation that upstream keeps for clients
/// of `extensions/v1beta1`.
pub(crate) fn count_template(kind: &Kind, old: Option<&Value>, new: &mut Value) {
    if *kind != kinds::DAEMON_SETS {
        return;
    }
    let count = |object: &Value| {
        let annotations = object::metadata(object).get("annotations");
        let text = annotations.and_then(|a| a.get(TEMPLATE_GENERATION)).and_then(Value::as_str);
        text.and_then(|t| t.parse::<i64>().ok()).unwrap_or(0)
    };
    let count = match old {
        None => count(new).max(1),
        Some(old) => {
            let template = |object: &Value| object.pointer("/spec/template").cloned();
            count(old) + i64::from(template(old) != template(new))
        }
    };
    let annotations = object::map_at(object::metadata_mut(new), "annotations");
    annotations.insert(TEMPLATE_GENERATION.into(), count.to_string().into());
}

/// What the server sets on a new object, before defaults.
pub(crate) fn prepare_create(kind: &Kind, object: &mut Value) {
    if kind.has_status && !keeps_status_on_create(kind) {
        object::map_of(object).shift_remove("status");
    }
    match (kind.group, kind.plural) {
        ("", "namespaces") => {
            let name = object::name(object).to_owned();
            let map = object::map_of(object);
            map.insert("status".into(), json!({"phase": "Active"}));
            let metadata = object::map_at(map, "metadata");
            object::map_at(metadata, "labels")
                .insert(schema::defaults::NAMESPACE_NAME_LABEL.into(), name.into());
        }
        ("apps" | "networking.k8s.io", _) if kind.has_status => {
            object::map_of(object).insert("status".into(), json!({}));
        }
        _ => {}
    }
}

/// What the server adds to a new object that has its defaults, as upstream's admission does.
pub(crate) fn admit(kind: &Kind, object: &mut Value) {
    count_template(kind, None, object);
    match (kind.group, kind.plural) {
        ("", "namespaces") => {
            let spec = object::map_at(object::map_of(object), "spec");
            let finalizers = spec.entry("finalizers").or_insert(json!([]));
            if let Some(list) = finalizers.as_array_mut()
                && !list.iter().any(|f| f == NAMESPACE_FINALIZER)
            {
                list.push(NAMESPACE_FINALIZER.into());
            }
        }
        ("", "pods") => {
            schema::defaults::admit_pod(object);
            note_gates(object);
        }
        ("", "services") => {
            object::map_of(object).insert("status".into(), json!({"loadBalancer": {}}));
            super::service::normalise(object);
        }
        _ => {}
    }
    schema::types::complete(kind, object);
}

/// A Pod with gates says from the start that it is not to be scheduled yet (Pod strategy).
fn note_gates(pod: &mut Value) {
    let gates = pod.pointer("/spec/schedulingGates").and_then(Value::as_array);
    if gates.is_none_or(Vec::is_empty) {
        return;
    }
    let now = object::meta_str(pod, "creationTimestamp").to_owned();
    let status = object::map_at(object::map_of(pod), "status");
    status.insert(
        "conditions".into(),
        json!([{
            "type": "PodScheduled",
            "status": "False",
            "lastProbeTime": null,
            "lastTransitionTime": now,
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]),
    );
}

/// Text of a Secret goes into its data, and is never stored or shown as such.
fn fold_string_data(object: &mut Value) {
    let map = object::map_of(object);
    let Some(Value::Object(texts)) = map.shift_remove("stringData") else { return };
    let data = object::map_at(map, "data");
    for (key, text) in texts {
        let text = text.as_str().unwrap_or_default();
        data.insert(key, STANDARD.encode(text).into());
    }
}

/// Kubelets register with their status; ServiceCIDRs and the rest may not.
fn keeps_status_on_create(kind: &Kind) -> bool {
    kind.is_core("nodes")
}

/// Restores from `old` what a request through this door may not change.
pub(crate) fn isolate(kind: &Kind, sub: Option<Subresource>, old: &Value, new: &mut Value) {
    match sub {
        None => {
            // Upstream's rules forget it for ServiceCIDRs, whose writers must hand it back.
            if kind.has_status && *kind != kinds::SERVICE_CIDRS {
                restore(old, new, &["status"]);
            }
            if kind.is_core("namespaces") {
                let finalizers = old.pointer("/spec/finalizers").cloned();
                let spec = object::map_at(object::map_of(new), "spec");
                set_or_remove(spec, "finalizers", finalizers);
            }
        }
        Some(Subresource::Status) => {
            let status = new.get("status").cloned();
            let mut metadata = object::metadata(new).clone();
            let old_metadata = object::metadata(old);
            if kind.group == "apps" {
                set_or_remove(&mut metadata, "labels", old_metadata.get("labels").cloned());
            }
            for key in ["ownerReferences", "finalizers"] {
                set_or_remove(&mut metadata, key, old_metadata.get(key).cloned());
            }
            *new = old.clone();
            let map = object::map_of(new);
            set_or_remove(map, "status", status);
            map.insert("metadata".into(), Value::Object(metadata));
            if kind.is_core("pods")
                && let Some(class) = old.pointer("/status/qosClass").cloned()
            {
                // Given at creation and never again, whoever forgets it.
                object::map_at(map, "status").entry("qosClass").or_insert(class);
            }
        }
        Some(Subresource::Finalize) => {
            let finalizers = new.pointer("/spec/finalizers").cloned();
            let version = object::metadata(new).get("resourceVersion").cloned();
            *new = old.clone();
            let map = object::map_of(new);
            set_or_remove(object::map_at(map, "spec"), "finalizers", finalizers);
            set_or_remove(object::map_at(map, "metadata"), "resourceVersion", version);
        }
        // Scale is translated to the whole object before it comes here.
        Some(Subresource::Scale) => restore(old, new, &["status"]),
        Some(Subresource::EphemeralContainers) => {
            let containers = new.pointer("/spec/ephemeralContainers").cloned();
            *new = old.clone();
            let spec = object::map_at(object::map_of(new), "spec");
            set_or_remove(spec, "ephemeralContainers", containers);
        }
        Some(Subresource::Resize) => {
            let containers = new.pointer("/spec/containers").cloned();
            *new = old.clone();
            set_or_remove(object::map_at(object::map_of(new), "spec"), "containers", containers);
        }
    }
}

fn restore(old: &Value, new: &mut Value, keys: &[&str]) {
    for key in keys {
        set_or_remove(object::map_of(new), key, old.get(key).cloned());
    }
}

pub(crate) fn set_or_remove(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    match value {
        Some(value) => {
            map.insert(key.to_owned(), value);
        }
        None => {
            map.shift_remove(key);
        }
    }
}

/// Whether the change counts as a new generation.
pub(crate) fn is_new_generation(kind: &Kind, old: &Value, new: &Value) -> bool {
    let differs = |key: &str| old.get(key) != new.get(key);
    let keys = |object: &Value| -> Vec<String> {
        let map = object.as_object();
        map.into_iter().flat_map(|m| m.keys().cloned()).collect()
    };
    let bookkeeping = |key: &str| matches!(key, "metadata" | "status" | "kind" | "apiVersion");
    let body = keys(old).iter().chain(&keys(new)).any(|k| !bookkeeping(k) && differs(k));
    let metadata = |key: &str| object::metadata(old).get(key) != object::metadata(new).get(key);
    body || match (kind.group, kind.plural) {
        ("apps", "deployments") => metadata("annotations"),
        ("discovery.k8s.io", "endpointslices") => metadata("labels"),
        _ => false,
    }
}

impl Registry {
    /// New objects go only into Namespaces that exist and stay.
    pub(crate) fn check_namespace(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<(), Status> {
        if !kind.namespaced {
            return Ok(());
        }
        if is_leaving(&*self.get_record(&kinds::NAMESPACES, "", namespace)?) {
            let mut status = Status::forbidden(
                kind,
                name,
                &format!(
                    "unable to create new content in namespace {namespace} because it is being terminated"
                ),
            );
            if let Some(details) = status.details.as_mut() {
                details.causes.push(Cause {
                    reason: "NamespaceTerminating",
                    message: format!("namespace {namespace} is being terminated"),
                    field: "metadata.namespace".into(),
                });
            }
            return Err(status);
        }
        Ok(())
    }
}

/// Whether a stored object is on its way out. Asked of the Namespace of every new object, so that
/// the rest of it is not parsed.
fn is_leaving(record: &Record) -> bool {
    #[derive(serde::Deserialize)]
    struct Part {
        metadata: Metadata,
    }
    #[derive(serde::Deserialize)]
    struct Metadata {
        #[serde(rename = "deletionTimestamp")]
        deletion_timestamp: Option<serde::de::IgnoredAny>,
    }
    let part: serde_json::Result<Part> = serde_json::from_slice(&record.bytes);
    part.is_ok_and(|part| part.metadata.deletion_timestamp.is_some())
}

/// Refuses to delete what the cluster cannot do without.
pub(crate) fn check_deletable(kind: &Kind, name: &str) -> Result<(), Status> {
    if kind.is_core("namespaces") && IMMORTAL_NAMESPACES.contains(&name) {
        return Err(Status::forbidden(kind, name, "this namespace may not be deleted"));
    }
    Ok(())
}

/// Whether something still keeps an object that is on its way out.
pub(crate) fn is_kept(kind: &Kind, object: &Value) -> bool {
    let spec_finalizers = || {
        let list = object.pointer("/spec/finalizers").and_then(Value::as_array);
        list.is_some_and(|l| !l.is_empty())
    };
    !object::finalizers(object).is_empty() || (kind.is_core("namespaces") && spec_finalizers())
}

impl Registry {
    fn validation(&self) -> validate::Context<'_> {
        validate::Context { pod_cidrs: &self.options().pod_cidrs }
    }

    /// What is wrong with a new object.
    pub(crate) fn validate_create(&self, kind: &Kind, new: &Value) -> Vec<Cause> {
        validate::create(kind, new, &self.validation())
    }

    /// What is wrong with a change through a door.
    pub(crate) fn validate_update(
        &self,
        kind: &Kind,
        part: Option<Subresource>,
        old: &Value,
        new: &Value,
    ) -> Vec<Cause> {
        match part {
            Some(Subresource::Status) => {
                validate::update_status(kind, old, new, &self.validation())
            }
            // Only the Namespace's finalizers change here.
            Some(Subresource::Finalize) => Vec::new(),
            Some(Subresource::EphemeralContainers) => {
                validate::update_ephemeral_containers(kind, old, new, &self.validation())
            }
            Some(Subresource::Resize) => {
                validate::update_resize(kind, old, new, &self.validation())
            }
            _ => validate::update(kind, old, new, &self.validation()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_that_are_named_twice_are_dropped() {
        let owner = |uid: &str, controls: bool| json!({"uid": uid, "controller": controls});
        let named = [("u", false), ("u", false), ("v", false), ("v", true), ("v", true)];
        let owners: Vec<Value> =
            named.iter().map(|(uid, controls)| owner(uid, *controls)).collect();
        let mut object = json!({"metadata": {"ownerReferences": owners}});
        let warning = unite_owners(&mut object, "").unwrap();
        assert!(warning.ends_with("duplicate UID(s) observed: u, v"), "{warning}");
        assert_eq!(
            object["metadata"]["ownerReferences"],
            json!([owner("u", false), owner("v", false), owner("v", true)])
        );
        assert_eq!(unite_owners(&mut object, ""), None);
        assert_eq!(unite_owners(&mut json!({}), ""), None);
    }

    #[test]
    fn an_object_of_another_kind_is_refused_as_upstream_refuses_it() {
        for (object, expected) in [
            (json!({"kind": "Pod", "apiVersion": "v1"}), {
                "Pod in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Pod) to \
                 (core.ConfigMap): unknown conversion"
            }),
            (json!({"kind": "Pod", "spec": 1}), {
                "Pod in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal \
                 number into Go struct field Pod.spec of type v1.PodSpec"
            }),
            (json!({"apiVersion": "v2"}), {
                "ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \
                 \"ConfigMap\" is registered for version \"v2\" in scheme \
                 \"pkg/runtime/scheme.go:110\""
            }),
            (json!({"metadata": []}), {
                "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot \
                 unmarshal array into Go struct field ConfigMap.metadata of type v1.ObjectMeta"
            }),
        ] {
            let refused = read_as(&kinds::CONFIG_MAPS, &mut object.clone()).unwrap_err();
            assert_eq!((refused.code, refused.message.as_str()), (400, expected), "{object}");
        }
        let mut nothing = Value::Null;
        read_as(&kinds::CONFIG_MAPS, &mut nothing).unwrap();
        assert_eq!(nothing, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}));
    }
}
