//! What a writer is warned of although the write goes through: `Warning` headers, which kubectl
//! prints.
//!
//! Counterpart of each upstream strategy's `WarningsOnCreate` and `WarningsOnUpdate`; looked at
//! after validation, so values have their form. Deprecated versions of the API are warned of
//! elsewhere, for they concern reads too.

mod addresses;
mod paths;
mod pods;
mod tls;

use serde_json::Value;

use super::{
    validate,
    value::{at, int, list, text},
};
use crate::{Kind, registry::object};

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
const OLD_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const HINTS: &str = "service.kubernetes.io/topology-mode";

/// Of a new object.
pub fn on_create(kind: &Kind, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    match (kind.group, kind.kind) {
        ("", "Pod") => {
            host_name(&mut found, object, "the Pod's hostname");
            pods::pod(&mut found, "", object);
        }
        ("apps", "Deployment" | "ReplicaSet") => {
            host_name(&mut found, object, "Pod names and hostnames");
            template(&mut found, object);
        }
        ("apps", "StatefulSet") => {
            template(&mut found, object);
            revisions(&mut found, object);
        }
        ("apps", "DaemonSet") => template(&mut found, object),
        _ => always(&mut found, kind, object),
    }
    found
}

/// Of a changed object.
pub fn on_update(kind: &Kind, old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let generation = |object: &Value| int(object, &["metadata", "generation"]);
    let changed = generation(old) != generation(new);
    match (kind.group, kind.kind) {
        // People do not change Pods, and controllers change them often.
        ("", "Pod") => {}
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") if changed => {
            template(&mut found, new);
        }
        ("apps", "StatefulSet") => {
            if changed {
                template(&mut found, new);
            }
            revisions(&mut found, new);
        }
        ("apps", _) => {}
        ("", "ServiceAccount")
            if at(old, &["metadata", "annotations", ENFORCE_MOUNTABLE]).is_some() => {}
        _ => always(&mut found, kind, new),
    }
    found
}

/// Of a status, which only Services have something to say about.
pub fn on_status(kind: &Kind, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if kind.is_core("services") {
        let path = ["status", "loadBalancer", "ingress"];
        for (index, ingress) in list(new, &path).iter().enumerate() {
            let field = format!("status.loadBalancer.ingress[{index}]");
            addresses::address(&mut found, &field, text(ingress, &["ip"]));
        }
    }
    if kind.is_core("pods") {
        for (index, ip) in list(new, &["status", "podIPs"]).iter().enumerate() {
            addresses::address(
                &mut found,
                &format!("status.podIPs[{index}].ip"),
                text(ip, &["ip"]),
            );
        }
        for (index, ip) in list(new, &["status", "hostIPs"]).iter().enumerate() {
            let field = format!("status.hostIPs[{index}].ip");
            addresses::address(&mut found, &field, text(ip, &["ip"]));
        }
    }
    found
}

/// Of kinds that say the same of new and of changed objects.
fn always(found: &mut Vec<String>, kind: &Kind, object: &Value) {
    match (kind.group, kind.kind) {
        ("", "Service") => service(found, object),
        ("", "Endpoints") => endpoints(found, object),
        ("discovery.k8s.io", "EndpointSlice") => slice(found, object),
        ("", "Secret") if text(object, &["type"]) == "kubernetes.io/tls" => {
            found.extend(tls::fault(object));
        }
        ("", "ServiceAccount")
            if at(object, &["metadata", "annotations", ENFORCE_MOUNTABLE]).is_some() =>
        {
            found.push(format!(
                "metadata.annotations[{ENFORCE_MOUNTABLE}]: deprecated in v1.32+; prefer separate \
                 namespaces to isolate access to mounted secrets"
            ));
        }
        ("", "Node") => node(found, object),
        _ => {}
    }
}

/// A name that does not fit where it will be used.
fn host_name(found: &mut Vec<String>, object: &Value, used_in: &str) {
    let faults = validate::label_faults(object::name(object));
    if !faults.is_empty() {
        found.push(format!(
            "metadata.name: this is used in {used_in}, which can result in surprising behavior; a \
             DNS label is recommended: [{}]",
            faults.join(" ")
        ));
    }
}

fn template(found: &mut Vec<String>, object: &Value) {
    if let Some(template) = at(object, &["spec", "template"]) {
        pods::pod(found, "spec.template.", template);
    }
}

fn revisions(found: &mut Vec<String>, set: &Value) {
    if int(set, &["spec", "revisionHistoryLimit"]).is_some_and(|limit| limit < 0) {
        found.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value \
             >= 0 is recommended"
                .to_owned(),
        );
    }
}

fn service(found: &mut Vec<String>, service: &Value) {
    if at(service, &["metadata", "annotations", OLD_HINTS]).is_some() {
        found.push(format!("annotation {OLD_HINTS} is deprecated, please use {HINTS} instead"));
    }
    let spec = service.get("spec").unwrap_or(&Value::Null);
    if !matches!(text(spec, &["clusterIP"]), "" | "None") {
        addresses::list_of(found, "spec.clusterIPs", list(spec, &["clusterIPs"]));
    }
    addresses::list_of(found, "spec.externalIPs", list(spec, &["externalIPs"]));
    addresses::address(found, "spec.loadBalancerIP", text(spec, &["loadBalancerIP"]));
    for (index, range) in list(spec, &["loadBalancerSourceRanges"]).iter().enumerate() {
        let field = format!("spec.loadBalancerSourceRanges[{index}]");
        addresses::range(found, &field, range.as_str().unwrap_or_default());
    }
    let is_external = text(spec, &["type"]) == "ExternalName";
    if is_external && !list(spec, &["externalIPs"]).is_empty() {
        found.push(r#"spec.externalIPs is ignored when spec.type is "ExternalName""#.to_owned());
    }
    if !is_external && !text(spec, &["externalName"]).is_empty() {
        found.push(
            r#"spec.externalName is ignored when spec.type is not "ExternalName""#.to_owned(),
        );
    }
}

fn endpoints(found: &mut Vec<String>, endpoints: &Value) {
    let managed = ["metadata", "labels", "endpoints.kubernetes.io/managed-by"];
    if text(endpoints, &managed) == "endpoint-controller" {
        return;
    }
    for (index, subset) in list(endpoints, &["subsets"]).iter().enumerate() {
        for key in ["addresses", "notReadyAddresses"] {
            for (at, entry) in list(subset, &[key]).iter().enumerate() {
                let field = format!("subsets[{index}].{key}[{at}].ip");
                addresses::address(found, &field, text(entry, &["ip"]));
            }
        }
    }
}

fn slice(found: &mut Vec<String>, slice: &Value) {
    if text(slice, &["addressType"]) == "FQDN" {
        found.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    let ours = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];
    if ours.contains(&text(slice, &["metadata", "labels", MANAGED_BY])) {
        return;
    }
    for (index, endpoint) in list(slice, &["endpoints"]).iter().enumerate() {
        let field = format!("endpoints[{index}].addresses");
        addresses::list_of(found, &field, list(endpoint, &["addresses"]));
    }
}

fn node(found: &mut Vec<String>, node: &Value) {
    if at(node, &["spec", "configSource"]).is_some() {
        found.push("spec.configSource: the feature is removed".to_owned());
    }
    if !text(node, &["spec", "externalID"]).is_empty() {
        found.push(
            "spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned(),
        );
    }
    for (index, range) in list(node, &["spec", "podCIDRs"]).iter().enumerate() {
        let field = format!("spec.podCIDRs[{index}]");
        addresses::range(found, &field, range.as_str().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds;

    #[test]
    fn warnings_are_those_of_upstream() {
        let pod = json!({"metadata": {"name": "a.b"}, "spec": {"containers": [
            {"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "X", "value": "2"},
                {"name": "X", "value": "$(X)3"}],
            "ports": [{"containerPort": 80, "protocol": "TCP", "name": "p"},
                {"containerPort": 80, "protocol": "TCP", "name": "p"}],
            "resources": {"limits": {"memory": "100m"}}}]}});
        assert_eq!(
            on_create(&kinds::PODS, &pod),
            [
                "metadata.name: this is used in the Pod's hostname, which can result in surprising \
                 behavior; a DNS label is recommended: [must not contain dots]",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is \
                 invalid, must be an integer",
                "spec.containers[0].env[1]: hides previous definition of \"X\", which may be \
                 dropped when using apply",
                "spec.containers[0].ports[1]: duplicate port definition with \
                 spec.containers[0].ports[0]",
                "spec.containers[0].ports[1]: duplicate port name \"p\" with \
                 spec.containers[0].ports[0], services and probes that select ports by name will \
                 use spec.containers[0].ports[0]",
            ]
        );
        assert!(on_update(&kinds::PODS, &pod, &pod).is_empty());
        let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["010.1.2.3"]}]});
        assert_eq!(
            on_create(&kinds::ENDPOINT_SLICES, &slice),
            [
                "endpoints[0].addresses[0]: non-standard IP address \"010.1.2.3\" will be considered \
              invalid in a future Kubernetes release: use \"10.1.2.3\""
            ]
        );
        let service = json!({"spec": {"type": "LoadBalancer", "externalName": "x",
            "loadBalancerSourceRanges": ["10.0.0.1/8"], "clusterIP": "fd00:0::1",
            "clusterIPs": ["fd00:0::1"]}});
        assert_eq!(
            on_create(&kinds::SERVICES, &service),
            [
                "spec.clusterIPs[0]: IPv6 address \"fd00:0::1\" should be in RFC 5952 canonical \
                 format (\"fd00::1\")",
                "spec.loadBalancerSourceRanges[0]: CIDR value \"10.0.0.1/8\" is ambiguous in this \
                 context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            ]
        );
    }
}
