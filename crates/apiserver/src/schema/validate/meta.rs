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
    let rule = name_rule(kind);
    let base = object::meta_str(object, "generateName");
    if !base.is_empty() {
        report.syntax("metadata.generateName", base, rule(&syntax::mask_trailing_dash(base)));
    }
    match object::name(object) {
        "" => report.required("metadata.name", "name or generateName is required"),
        name => report.syntax("metadata.name", name, rule(name)),
    }
    if kind.namespaced {
        let namespace = object::namespace(object);
        report.syntax("metadata.namespace", namespace, syntax::dns_label(namespace));
    }
    common(report, object);
}

/// Metadata of a changed object; the name cannot change, so it is not looked at again.
pub(super) fn update(report: &mut Report, _: &Kind, object: &Value) {
    common(report, object);
}

fn common(report: &mut Report, object: &Value) {
    labels::labels(report, object, &["metadata", "labels"], "metadata.labels");
    labels::annotations(report, object, &["metadata", "annotations"], "metadata.annotations");
    owners(report, object);
    let finalizers = object::finalizers(object);
    for (index, finalizer) in finalizers.iter().enumerate() {
        finalizer_name(report, finalizer, &format!("metadata.finalizers[{index}]"));
    }
    if finalizers.contains(&"orphan") && finalizers.contains(&"foregroundDeletion") {
        report.invalid(
            "metadata.finalizers",
            &json!(finalizers),
            "finalizer orphan and foregroundDeletion cannot be both set",
        );
    }
}

fn finalizer_name(report: &mut Report, name: &str, field: &str) {
    report.syntax(field, name, syntax::qualified_name(name));
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
        finalizer_name(report, finalizer.as_str().unwrap_or_default(), "spec.finalizers");
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
