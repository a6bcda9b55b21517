//! Defaults of Services, Endpoints and EndpointSlices.

use serde_json::{Value, json};

use crate::schema::value::{Object, fill, fill_zero, is_zero, items, object};

/// `corev1.DefaultClientIPServiceAffinitySeconds`: three hours.
const CLIENT_IP_AFFINITY_SECONDS: i64 = 10_800;

pub(super) fn service(root: &mut Object) {
    let Some(spec) = object(root, "spec") else { return };
    session_affinity(spec);
    fill_zero(spec, "type", "ClusterIP");
    let service_type = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    for port in items(spec, "ports") {
        fill_zero(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            fill_zero(port, "targetPort", number);
        }
    }
    let balanced = matches!(service_type.as_str(), "NodePort" | "LoadBalancer");
    let has_external_addresses = service_type == "ClusterIP"
        && spec.get("externalIPs").and_then(Value::as_array).is_some_and(|a| !a.is_empty());
    if balanced || has_external_addresses {
        fill_zero(spec, "externalTrafficPolicy", "Cluster");
    }
    if balanced || service_type == "ClusterIP" {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if service_type == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
    if let Some(status) = object(root, "status")
        && let Some(balancer) = object(status, "loadBalancer")
        && service_type == "LoadBalancer"
    {
        for ingress in items(balancer, "ingress") {
            if ingress.get("ip").is_some_and(|ip| !is_zero(ip)) {
                fill(ingress, "ipMode", "VIP");
            }
        }
    }
}

fn session_affinity(spec: &mut Object) {
    fill_zero(spec, "sessionAffinity", "None");
    match spec.get("sessionAffinity").and_then(Value::as_str) {
        Some("None") => {
            spec.shift_remove("sessionAffinityConfig");
        }
        Some("ClientIP") => {
            let set = spec
                .get("sessionAffinityConfig")
                .and_then(|config| config.get("clientIP"))
                .and_then(|client| client.get("timeoutSeconds"))
                .is_some_and(|seconds| !seconds.is_null());
            if !set {
                spec.insert(
                    "sessionAffinityConfig".into(),
                    json!({"clientIP": {"timeoutSeconds": CLIENT_IP_AFFINITY_SECONDS}}),
                );
            }
        }
        _ => {}
    }
}

pub(super) fn endpoints(root: &mut Object) {
    for subset in items(root, "subsets") {
        for port in items(subset, "ports") {
            fill_zero(port, "protocol", "TCP");
        }
    }
}

pub(super) fn endpoint_slice(root: &mut Object) {
    for port in items(root, "ports") {
        fill(port, "name", "");
        fill(port, "protocol", "TCP");
    }
}
