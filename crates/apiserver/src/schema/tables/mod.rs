//! What `kubectl get` prints: the server makes the rows, kubectl only aligns them.
//!
//! [`columns`] is data and [`row`] a function of one object and the time, so
//! that lists and watches make the same rows. A row has a cell for every
//! column, wide ones too: kubectl leaves out those of priority 1 by itself.
//! Counterpart of upstream's `pkg/printers/internalversion`.

mod age;
mod columns;
mod network;
mod pods;
mod text;
mod workloads;

#[cfg(test)]
mod tests;

use serde_json::{Value, json};

pub use self::age::human_duration;
use self::text::or;
use super::value::{at, entries, int, list, text};
use crate::{Kind, registry::object};

const NONE: &str = "<none>";
const UNKNOWN: &str = "<unknown>";
const UNSET: &str = "<unset>";

/// A column of a `metav1.Table`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading, which kubectl turns into capitals.
    pub name: &'static str,
    /// OpenAPI type of its cells (`type` in JSON).
    pub value_type: &'static str,
    /// OpenAPI format: `name` for the column that identifies the object.
    pub format: &'static str,
    /// What it shows.
    pub description: &'static str,
    /// 0 always shown, 1 only with `-o wide`.
    pub priority: i32,
}

/// The columns of a kind.
pub fn columns(kind: &Kind) -> &'static [Column] {
    columns::of(kind)
}

/// The cells of an object, one for each of [`columns`].
pub fn row(kind: &Kind, object: &Value, now_unix_secs: u64) -> Vec<Value> {
    let name = object::name(object);
    let age = age::since(at(object, &["metadata", "creationTimestamp"]), now_unix_secs);
    match (kind.group, kind.plural) {
        ("", "pods") => pods::row(object, &age, now_unix_secs),
        ("", "services") => network::service(object, &age),
        ("", "endpoints") => vec![json!(name), json!(network::endpoints(object)), json!(age)],
        ("discovery.k8s.io", "endpointslices") => network::endpoint_slice(object, &age),
        ("networking.k8s.io", "servicecidrs") => {
            let cidrs = text::join(list(object, &["spec", "cidrs"]), ",");
            vec![json!(name), json!(cidrs), json!(age)]
        }
        // As upstream, which writes an age for a column that it forgot to declare.
        ("networking.k8s.io", "ipaddresses") => {
            vec![json!(name), json!(network::parent(object)), json!(age)]
        }
        ("", "nodes") => node(object, &age),
        ("", "namespaces") => {
            vec![json!(name), json!(text(object, &["status", "phase"])), json!(age)]
        }
        ("apps", "deployments") => workloads::deployment(object, &age),
        ("apps", "replicasets") => workloads::replica_set(object, &age),
        ("apps", "statefulsets") => workloads::stateful_set(object, &age),
        ("apps", "daemonsets") => workloads::daemon_set(object, &age),
        ("autoscaling", "scales") => {
            let count = |part| json!(int(object, &[part, "replicas"]).unwrap_or(0));
            vec![json!(name), count("spec"), count("status"), json!(age)]
        }
        ("apps", "controllerrevisions") => workloads::controller_revision(object, &age),
        ("", "configmaps") => {
            let count =
                entries(object, &["data"]).count() + entries(object, &["binaryData"]).count();
            vec![json!(name), json!(count), json!(age)]
        }
        ("", "secrets") => {
            let count = entries(object, &["data"]).count();
            vec![json!(name), json!(text(object, &["type"])), json!(count), json!(age)]
        }
        ("", "serviceaccounts") => {
            vec![json!(name), json!(list(object, &["secrets"]).len()), json!(age)]
        }
        ("", "events") => event(object, now_unix_secs),
        ("coordination.k8s.io", "leases") => {
            vec![json!(name), json!(text(object, &["spec", "holderIdentity"])), json!(age)]
        }
        ("coordination.k8s.io", "leasecandidates") => {
            let spec = |key| json!(text(object, &["spec", key]));
            let (lease, binary) = (spec("leaseName"), spec("binaryVersion"));
            vec![json!(name), lease, binary, spec("emulationVersion"), json!(age)]
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            binding(object, &age)
        }
        _ => vec![json!(name), json!(text(object, &["metadata", "creationTimestamp"]))],
    }
}

fn node(node: &Value, age: &str) -> Vec<Value> {
    let ready = list(node, &["status", "conditions"])
        .iter()
        .rev()
        .find(|c| text(c, &["type"]) == "Ready")
        .map(|c| text(c, &["status"]) == "True");
    let mut status = match ready {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if super::value::flag(node, &["spec", "unschedulable"]) {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = entries(node, &["metadata", "labels"])
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let address = |kind: &str| {
        let found =
            list(node, &["status", "addresses"]).iter().find(|a| text(a, &["type"]) == kind);
        found.map_or(NONE, |a| text(a, &["address"]))
    };
    let info = |key: &str| text(node, &["status", "nodeInfo", key]);
    vec![
        json!(object::name(node)),
        json!(status),
        json!(or(&roles.join(","), NONE)),
        json!(age),
        json!(info("kubeletVersion")),
        json!(address("InternalIP")),
        json!(address("ExternalIP")),
        json!(or(info("osImage"), UNKNOWN)),
        json!(or(info("kernelVersion"), UNKNOWN)),
        json!(or(info("containerRuntimeVersion"), UNKNOWN)),
    ]
}

fn event(event: &Value, now: u64) -> Vec<Value> {
    let time = |path: &[&str]| at(event, path).filter(|t| *t != "");
    let since = |found: Option<&Value>| age::since(found, now);
    let first = since(time(&["firstTimestamp"]).or_else(|| time(&["eventTime"])));
    let (last, count) = match at(event, &["series"]) {
        Some(series) => (since(at(series, &["lastObservedTime"])), int(series, &["count"])),
        None => {
            let last = time(&["lastTimestamp"]).map(|t| since(Some(t)));
            // An event that came once does not say so.
            let count = int(event, &["count"]).filter(|count| *count != 0).or(Some(1));
            (last.unwrap_or_else(|| first.clone()), count)
        }
    };
    let mut target = text(event, &["involvedObject", "kind"]).to_lowercase();
    match text(event, &["involvedObject", "name"]) {
        "" => {}
        name => target = format!("{target}/{name}"),
    }
    let component = or(text(event, &["source", "component"]), text(event, &["reportingComponent"]));
    let instance = or(text(event, &["source", "host"]), text(event, &["reportingInstance"]));
    let source = match instance {
        "" => component.to_owned(),
        instance => format!("{component}, {instance}"),
    };
    vec![
        json!(last),
        json!(text(event, &["type"])),
        json!(text(event, &["reason"])),
        json!(target),
        json!(text(event, &["involvedObject", "fieldPath"])),
        json!(source),
        json!(text(event, &["message"]).trim()),
        json!(first),
        json!(count.unwrap_or(0)),
        json!(object::name(event)),
    ]
}

fn binding(binding: &Value, age: &str) -> Vec<Value> {
    let role =
        format!("{}/{}", text(binding, &["roleRef", "kind"]), text(binding, &["roleRef", "name"]));
    let subjects = |kind: &str| -> String {
        let found = list(binding, &["subjects"]).iter().filter(|s| text(s, &["kind"]) == kind);
        let names: Vec<String> = found
            .map(|s| match (kind, text(s, &["name"])) {
                ("ServiceAccount", name) => format!("{}/{name}", text(s, &["namespace"])),
                (_, name) => name.to_owned(),
            })
            .collect();
        names.join(", ")
    };
    vec![
        json!(object::name(binding)),
        json!(role),
        json!(age),
        json!(subjects("User")),
        json!(subjects("Group")),
        json!(subjects("ServiceAccount")),
    ]
}
