//! Metadata: the name by the kind's rule, labels, annotations, owners, finalizers.

use serde_json::{Value, json};

use super::{address, labels, report::Report, syntax};
use crate::{
    Kind,
    registry::object,
    schema::value::{at, flag, list, text},
};

/// Finalizers that need no prefix.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// The rule for the names of a kind.
fn name_rule(kind: &Kind) -> fn(&str) -> Vec<String> {
    match (kind.group, kind.plural) {
        ("", "namespaces") | ("apps", "statefulsets") => syntax::dns_label,
        ("", "services") => syntax::dns_1035_label,
        ("", "events") | ("rbac.authorization.k8s.io", _) => syntax::path_segment,
        ("networking.k8s.io", "ipaddresses") => address::canonical,
        ("coordination.k8s.io", "leasecandidates") => syntax::config_key,
        _ => syntax::dns_subdomain,
    }
}

/// Metadata of a new object.
pub(super) fn create(report: &mut Report, kind: &Kind, object: &Value) {
    whole(report, kind, object, name_rule(kind));
    kube_finalizers(report, kind, object);
}

/// What every kind's changed metadata is looked at for, before the kind itself does so again:
/// upstream's `BeforeUpdate`, whose causes are all reported.
pub(super) fn update(report: &mut Report, kind: &Kind, old: &Value, new: &Value) {
    whole(report, kind, new, syntax::path_segment);
    change(report, old, new);
}

/// Metadata of a changed object, by the rules for new ones (`ValidateObjectMeta`).
pub(super) fn again(report: &mut Report, kind: &Kind, object: &Value) {
    create(report, kind, object);
}

/// A change of metadata, by the rules for changes (`ValidateObjectMetaUpdate`).
pub(super) fn change_again(report: &mut Report, kind: &Kind, old: &Value, new: &Value) {
    change(report, old, new);
    kube_finalizers(report, kind, new);
}

fn whole(report: &mut Report, kind: &Kind, object: &Value, rule: fn(&str) -> Vec<String>) {
    let base = object::meta_str(object, "generateName");
    if !base.is_empty() {
        for message in rule(&syntax::mask_trailing_dash(base)) {
            report.invalid("metadata.generateName", &json!(base), &message);
        }
    }
    match object::name(object) {
        "" => report.required("metadata.name", "name or generateName is required"),
        name => report.syntax("metadata.name", name, rule(name)),
    }
    if kind.namespaced {
        let namespace = object::namespace(object);
        report.syntax("metadata.namespace", namespace, syntax::dns_label(namespace));
    }
    maps_and_owners(report, object);
    finalizers(report, object);
}

fn change(report: &mut Report, old: &Value, new: &Value) {
    new_finalizers(report, old, new);
    maps_and_owners(report, new);
}

fn maps_and_owners(report: &mut Report, object: &Value) {
    labels::labels(report, object, &["metadata", "labels"], "metadata.labels");
    labels::annotations(report, object, &["metadata", "annotations"], "metadata.annotations");
    owners(report, object);
}

fn finalizers(report: &mut Report, object: &Value) {
    const FIELD: &str = "metadata.finalizers";
    let finalizers = object::finalizers(object);
    for finalizer in &finalizers {
        report.syntax(FIELD, finalizer, syntax::qualified_name(finalizer));
    }
    if finalizers.contains(&"orphan") && finalizers.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        report.invalid(FIELD, &json!(finalizers), detail);
    }
}

/// An object on its way out takes no new finalizers.
fn new_finalizers(report: &mut Report, old: &Value, new: &Value) {
    if !object::is_deleting(old) {
        return;
    }
    let before = object::finalizers(old);
    let mut added: Vec<_> =
        object::finalizers(new).into_iter().filter(|f| !before.contains(f)).collect();
    if added.is_empty() {
        return;
    }
    added.sort_unstable();
    added.dedup();
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers \
         []string{{{}}}",
        added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ")
    );
    report.forbidden("metadata.finalizers", &detail);
}

/// Names without a domain are those that Kubernetes itself knows. The kinds of coordination and
/// Events do not ask for that.
fn kube_finalizers(report: &mut Report, kind: &Kind, object: &Value) {
    if kind.group == "coordination.k8s.io" || kind.is_core("events") {
        return;
    }
    for (index, finalizer) in object::finalizers(object).iter().enumerate() {
        standard_finalizer(report, finalizer, &format!("metadata.finalizers[{index}]"));
    }
}

fn standard_finalizer(report: &mut Report, name: &str, field: &str) {
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        report.invalid(
            field,
            &json!(name),
            "name is neither a standard finalizer name nor is it fully qualified",
        );
    }
}

/// `spec.finalizers` of a Namespace.
pub(super) fn namespace_finalizers(report: &mut Report, namespace: &Value) {
    for finalizer in list(namespace, &["spec", "finalizers"]) {
        let (field, name) = ("spec.finalizers", finalizer.as_str().unwrap_or_default());
        report.syntax(field, name, syntax::qualified_name(name));
        standard_finalizer(report, name, field);
    }
}

fn owners(report: &mut Report, object: &Value) {
    const FIELD: &str = "metadata.ownerReferences";
    let owners = list(object, &["metadata", "ownerReferences"]);
    let mut controller = None;
    for owner in owners {
        for (key, what) in
            [("apiVersion", "version"), ("kind", "kind"), ("name", "name"), ("uid", "uid")]
        {
            if text(owner, &[key]).is_empty() {
                let detail = format!("{what} must not be empty");
                report.invalid(format!("{FIELD}.{key}"), &json!(""), &detail);
            }
        }
        if text(owner, &["apiVersion"]) == "v1" && text(owner, &["kind"]) == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            report.invalid(FIELD, owner, detail);
        }
        if !flag(owner, &["controller"]) {
            continue;
        }
        let name = format!("{}/{}", text(owner, &["kind"]), text(owner, &["name"]));
        match &controller {
            None => controller = Some(name),
            Some(first) => report.invalid(
                FIELD,
                at(object, &["metadata", "ownerReferences"]).unwrap_or(&Value::Null),
                &format!(
                    "Only one reference can have Controller set to true. Found \"true\" in \
                     references for {first} and {name}"
                ),
            ),
        }
    }
}
