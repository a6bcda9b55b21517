//! Fields that selectors may ask for, kind by kind.
//!
//! Counterpart of upstream's `AddFieldLabelConversionFunc` calls and of each
//! strategy's `SelectableFields`: values are texts, and a field that is not
//! set is an empty one.

use serde_json::Value;

use super::value::{flag, list, text};
use crate::{Kind, registry::object};

/// The value of a field; `None` when the kind does not offer it, which is a 400
/// `field label not supported`.
pub fn selectable(kind: &Kind, object: &Value, field: &str) -> Option<String> {
    let path = |keys: &[&str]| Some(text(object, keys).to_owned());
    match (kind.group, kind.plural, field) {
        (_, _, "metadata.name") => Some(object::name(object).to_owned()),
        (_, _, "metadata.namespace") if kind.namespaced => {
            Some(object::namespace(object).to_owned())
        }
        // Old clients say spec.host.
        ("", "pods", "spec.nodeName" | "spec.host") => path(&["spec", "nodeName"]),
        ("", "pods", "spec.hostNetwork") => {
            Some(flag(object, &["spec", "hostNetwork"]).to_string())
        }
        ("", "pods", "status.podIP") => {
            let first = list(object, &["status", "podIPs"]).first().map(|ip| text(ip, &["ip"]));
            Some(first.unwrap_or_default().to_owned())
        }
        // Upstream takes this one and never fills it.
        ("", "pods", "status.podIPs") => Some(String::new()),
        ("", "nodes", "spec.unschedulable") => {
            Some(flag(object, &["spec", "unschedulable"]).to_string())
        }
        ("", "namespaces", "name") => Some(object::name(object).to_owned()),
        ("", "events", "source") => {
            let component = text(object, &["source", "component"]);
            let reporting = text(object, &["reportingComponent"]);
            Some(if component.is_empty() { reporting } else { component }.to_owned())
        }
        ("", "pods", "spec.restartPolicy" | "spec.schedulerName" | "spec.serviceAccountName")
        | ("", "pods", "status.phase" | "status.nominatedNodeName")
        | ("", "services", "spec.clusterIP" | "spec.type")
        | ("", "namespaces", "status.phase")
        | ("", "secrets", "type")
        | ("", "events", "reason" | "reportingComponent" | "type")
        | (
            "",
            "events",
            "involvedObject.kind"
            | "involvedObject.namespace"
            | "involvedObject.name"
            | "involvedObject.uid"
            | "involvedObject.apiVersion"
            | "involvedObject.resourceVersion"
            | "involvedObject.fieldPath",
        ) => path(&field.split('.').collect::<Vec<_>>()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::selectable;
    use crate::{Kind, kinds};

    fn check(kind: &Kind, object: &Value, expected: &[(&str, Option<&str>)]) {
        for (field, value) in expected {
            assert_eq!(selectable(kind, object, field).as_deref(), *value, "{kind:?} {field}");
        }
    }

    #[test]
    fn pods() {
        let pod = json!({"metadata": {"name": "a", "namespace": "n"},
            "spec": {"nodeName": "here", "restartPolicy": "Always", "hostNetwork": true},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}});
        check(
            &kinds::PODS,
            &pod,
            &[
                ("metadata.name", Some("a")),
                ("metadata.namespace", Some("n")),
                ("spec.nodeName", Some("here")),
                ("spec.host", Some("here")),
                ("spec.restartPolicy", Some("Always")),
                ("spec.schedulerName", Some("")),
                ("spec.serviceAccountName", Some("")),
                ("spec.hostNetwork", Some("true")),
                ("status.phase", Some("Running")),
                ("status.podIP", Some("10.0.0.1")),
                ("status.podIPs", Some("")),
                ("status.nominatedNodeName", Some("")),
                ("status.qosClass", None),
                ("spec", None),
                ("", None),
            ],
        );
        check(&kinds::PODS, &json!({}), &[("spec.hostNetwork", Some("false"))]);
    }

    #[test]
    fn others() {
        let service = json!({"spec": {"clusterIP": "None", "type": "ClusterIP"}});
        let row = [("spec.clusterIP", Some("None")), ("spec.type", Some("ClusterIP"))];
        check(&kinds::SERVICES, &service, &row);
        let event = json!({"involvedObject": {"kind": "Pod", "fieldPath": "spec"},
            "reason": "Killing", "reportingComponent": "kubelet", "type": "Normal"});
        check(
            &kinds::EVENTS,
            &event,
            &[
                ("involvedObject.kind", Some("Pod")),
                ("involvedObject.fieldPath", Some("spec")),
                ("involvedObject.uid", Some("")),
                ("reason", Some("Killing")),
                ("source", Some("kubelet")),
                ("reportingComponent", Some("kubelet")),
                ("type", Some("Normal")),
                ("count", None),
            ],
        );
        let namespace = json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}});
        check(
            &kinds::NAMESPACES,
            &namespace,
            &[("status.phase", Some("Active")), ("name", Some("a")), ("metadata.namespace", None)],
        );
        check(&kinds::SECRETS, &json!({"type": "Opaque"}), &[("type", Some("Opaque"))]);
        check(&kinds::NODES, &json!({}), &[("spec.unschedulable", Some("false"))]);
        let set = json!({"status": {"replicas": 3}});
        // apps/v1 has not taken this one over from the beta versions.
        check(&kinds::REPLICA_SETS, &set, &[("status.replicas", None)]);
    }
}
