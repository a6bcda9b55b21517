//! Rows of Services and of what stands behind them.

use serde_json::{Value, json};

use super::{
    NONE, UNKNOWN, UNSET,
    text::{first_few, join, labels, or},
};
use crate::{
    registry::object,
    schema::value::{at, int, list, text},
};

pub(super) fn service(service: &Value, age: &str) -> Vec<Value> {
    let one = text(service, &["spec", "clusterIP"]);
    let first = list(service, &["spec", "clusterIPs"]).first().and_then(Value::as_str);
    let ports: Vec<String> = list(service, &["spec", "ports"])
        .iter()
        .map(|port| {
            let number = int(port, &["port"]).unwrap_or(0);
            let protocol = or(text(port, &["protocol"]), "TCP");
            match int(port, &["nodePort"]) {
                Some(node_port @ 1..) => format!("{number}:{node_port}/{protocol}"),
                _ => format!("{number}/{protocol}"),
            }
        })
        .collect();
    vec![
        json!(object::name(service)),
        json!(text(service, &["spec", "type"])),
        json!(first.unwrap_or_else(|| or(one, NONE))),
        json!(external_address(service)),
        json!(or(&ports.join(","), NONE)),
        json!(age),
        json!(labels(service, &["spec", "selector"])),
    ]
}

fn external_address(service: &Value) -> String {
    let external = list(service, &["spec", "externalIPs"]);
    match text(service, &["spec", "type"]) {
        "ClusterIP" | "NodePort" => or(&join(external, ","), NONE).to_owned(),
        "LoadBalancer" => {
            let mut ingress: Vec<&str> = list(service, &["status", "loadBalancer", "ingress"])
                .iter()
                .map(|i| or(text(i, &["ip"]), text(i, &["hostname"])))
                .filter(|address| !address.is_empty())
                .collect();
            ingress.sort_unstable();
            ingress.dedup();
            ingress.extend(external.iter().filter_map(Value::as_str));
            or(&ingress.join(","), "<pending>").to_owned()
        }
        "ExternalName" => text(service, &["spec", "externalName"]).to_owned(),
        _ => UNKNOWN.to_owned(),
    }
}

/// `address:port` of every ready address; addresses alone where a subset has no ports.
pub(super) fn endpoints(endpoints: &Value) -> String {
    let subsets = list(endpoints, &["subsets"]);
    if subsets.is_empty() {
        return NONE.to_owned();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = || list(subset, &["addresses"]).iter().map(|a| text(a, &["ip"]));
        let ports = list(subset, &["ports"]);
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            let port = int(port, &["port"]).unwrap_or(0);
            all.extend(addresses().map(|ip| match ip.contains(':') {
                true => format!("[{ip}]:{port}"),
                false => format!("{ip}:{port}"),
            }));
        }
    }
    first_few(&all)
}

pub(super) fn endpoint_slice(slice: &Value, age: &str) -> Vec<Value> {
    let ports: Vec<String> = list(slice, &["ports"])
        .iter()
        .map(|port| match (int(port, &["port"]), at(port, &["name"]).and_then(Value::as_str)) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => "*".to_owned(),
        })
        .collect();
    let addresses: Vec<String> = list(slice, &["endpoints"])
        .iter()
        .flat_map(|endpoint| list(endpoint, &["addresses"]))
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    vec![
        json!(object::name(slice)),
        json!(text(slice, &["addressType"])),
        json!(or(&first_few(&ports), UNSET)),
        json!(or(&first_few(&addresses), UNSET)),
        json!(age),
    ]
}

/// What an IPAddress belongs to: `services/default/web`.
pub(super) fn parent(address: &Value) -> String {
    let Some(parent) = at(address, &["spec", "parentRef"]) else { return NONE.to_owned() };
    let mut path = text(parent, &["resource"]).to_lowercase();
    match text(parent, &["group"]) {
        "" => {}
        group => path = format!("{path}.{}", group.to_lowercase()),
    }
    for part in [text(parent, &["namespace"]), text(parent, &["name"])] {
        if !part.is_empty() {
            path = format!("{path}/{part}");
        }
    }
    path
}
