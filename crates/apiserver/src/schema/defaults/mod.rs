//! Defaulting: what the API fills in when a writer leaves it out.
//!
//! [`apply`] is idempotent and runs on every write, as upstream's versioned
//! defaulting does; [`admit_pod`] is what upstream's default admission plugins
//! (ServiceAccount, Priority, DefaultTolerationSeconds) and the Pod strategy add
//! once, at creation. Values and their conditions are those of Kubernetes 1.33
//! (`pkg/apis/*/v1/defaults.go`); what an allocator decides (addresses, node
//! ports, IP families) is not here.

mod pods;
mod services;
mod workloads;

use serde_json::{Value, json};

use super::value::{Object, fill, fill_zero, is_zero, items, object};
use crate::kinds::Kind;

pub use pods::admit_pod;

/// The label that every namespace carries, with its own name.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The group that role references default to.
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// `create token` without `--duration`: one hour (authentication/v1 defaults).
const TOKEN_EXPIRATION_SECONDS: i64 = 3600;

/// Fills in the defaults of a kind. Leaves alone what is set, and what has an unexpected type.
pub fn apply(kind: &Kind, object: &mut Value) {
    let Some(root) = object.as_object_mut() else { return };
    match (kind.group, kind.kind) {
        ("", "Pod") => pods::pod(root),
        ("", "Service") => services::service(root),
        ("", "Endpoints") => services::endpoints(root),
        ("discovery.k8s.io", "EndpointSlice") => services::endpoint_slice(root),
        ("", "Namespace") => namespace(root),
        ("", "Node") => node(root),
        ("", "Secret") => fill_zero(root, "type", "Opaque"),
        ("apps", "Deployment") => workloads::deployment(root),
        ("apps", "ReplicaSet") => workloads::replica_set(root),
        ("apps", "StatefulSet") => workloads::stateful_set(root),
        ("apps", "DaemonSet") => workloads::daemon_set(root),
        (RBAC_GROUP, "RoleBinding" | "ClusterRoleBinding") => role_binding(root),
        ("authentication.k8s.io", "TokenRequest") => {
            if let Some(spec) = object_at(root, "spec") {
                fill(spec, "expirationSeconds", TOKEN_EXPIRATION_SECONDS);
            }
        }
        _ => {}
    }
}

/// What a changed object keeps or gets again, whatever its writer left out: what upstream's
/// admission does on each update.
pub fn carry(kind: &Kind, old: &Value, new: &mut Value) {
    if (kind.group, kind.kind) == ("", "Pod") {
        pods::carry(old, new);
    }
}

fn object_at<'v>(root: &'v mut Object, key: &str) -> Option<&'v mut Object> {
    object(root, key)
}

fn namespace(root: &mut Object) {
    let name = root
        .get("metadata")
        .and_then(|m| m.get("name"))
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    // A generated name is not known yet; the registry applies defaults again once it is.
    if !name.is_empty()
        && let Some(labels) = object(root, "metadata").and_then(|m| object(m, "labels"))
    {
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.into());
    }
    if let Some(status) = object(root, "status") {
        fill_zero(status, "phase", "Active");
    }
}

fn node(root: &mut Object) {
    if let Some(spec) = object(root, "spec") {
        pod_cidrs(spec);
    }
    if let Some(status) = object(root, "status")
        && let Some(capacity) = status.get("capacity").cloned()
    {
        fill(status, "allocatable", capacity);
    }
}

/// One range and the list of them say the same; where they differ, the one is right.
fn pod_cidrs(spec: &mut Object) {
    let one = spec.get("podCIDR").filter(|cidr| !is_zero(cidr)).cloned();
    let first = spec.get("podCIDRs").and_then(Value::as_array).and_then(|all| all.first()).cloned();
    match (one, first) {
        (Some(one), first) if first.as_ref() != Some(&one) => {
            spec.insert("podCIDRs".into(), json!([one]));
        }
        (None, Some(first)) => {
            spec.insert("podCIDR".into(), first);
        }
        _ => {}
    }
}

fn role_binding(root: &mut Object) {
    if let Some(role) = object(root, "roleRef") {
        fill_zero(role, "apiGroup", RBAC_GROUP);
    }
    for subject in items(root, "subjects") {
        if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
            fill_zero(subject, "apiGroup", RBAC_GROUP);
        }
    }
}

#[cfg(test)]
mod tests;
