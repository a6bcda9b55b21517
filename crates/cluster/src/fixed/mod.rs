//! Objects that every cluster has, whoever uses it: the system namespaces, the
//! Services `kubernetes` and `kube-dns`, the Node of what runs outside, the range
//! of Services, and the roles of [`roles`]. (The kubelet announces its own Node.)
//!
//! Made when missing and set right when they differ (an API that listens on
//! another port than last time); what people add to them stays.

mod roles;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use futures_util::future::try_join_all;
use portolan_apiserver::{
    Caller, Kind, Registry, Status, kinds,
    registry::{Cidr, Subresource, WriteOptions, object::now},
};
use serde_json::{Value, json};

use crate::object::{self, same};

/// The Node of processes that run somewhere outside and register themselves.
pub const EXTERNAL_NODE: &str = "external";
/// Taint of [`EXTERNAL_NODE`]: nothing is scheduled there.
pub const EXTERNAL_TAINT: &str = "portolan.dev/external";

/// Where the DNS Service is within the range of Services (kubeadm's choice, which many copy).
pub const DNS_ADDRESS_OFFSET: u128 = 10;
/// Where the API's Service is (kube-apiserver's choice).
pub const API_ADDRESS_OFFSET: u128 = 1;
/// The port of the API's Service.
pub const API_PORT: u16 = 443;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// What the objects follow from.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where the API listens.
    pub api: SocketAddr,
    /// Ranges of Service addresses; the first is the default family.
    pub service_cidrs: Vec<Cidr>,
}

/// Makes what is missing.
pub async fn ensure(registry: &Registry, facts: &Facts) -> Result<(), Status> {
    let fixed = Fixed { registry, caller: Caller::system("apiserver").within("kube-apiserver") };
    let namespaces = NAMESPACES.map(|name| json!({"metadata": {"name": name}}));
    try_join_all(namespaces.map(|object| fixed.keep(&kinds::NAMESPACES, object))).await?;
    let mut objects: Vec<(&'static Kind, Value)> =
        vec![(&kinds::NODES, external_node()), (&kinds::SERVICE_CIDRS, service_cidr(facts))];
    objects.extend(roles::all());
    objects.extend(api_service(facts).map(|service| (&kinds::SERVICES as _, service)));
    objects.extend(dns_service(facts).map(|service| (&kinds::SERVICES as _, service)));
    let api =
        endpoints("default", "kubernetes", facts.api.ip(), &[("https", "TCP", facts.api.port())]);
    objects.extend(api);
    try_join_all(objects.into_iter().map(|(kind, object)| fixed.keep(kind, object))).await?;
    fixed.mark_service_cidr().await
}

/// Points Service kube-system/kube-dns at a DNS server that answers over UDP and TCP.
pub async fn publish_dns(registry: &Registry, address: SocketAddr) -> Result<(), Status> {
    let ports = [("dns", "UDP", address.port()), ("dns-tcp", "TCP", address.port())];
    let fixed = Fixed { registry, caller: Caller::system("apiserver").within("kube-apiserver") };
    let objects = endpoints("kube-system", "kube-dns", address.ip(), &ports);
    try_join_all(objects.into_iter().map(|(kind, object)| fixed.keep(kind, object))).await?;
    Ok(())
}

struct Fixed<'r> {
    registry: &'r Registry,
    caller: Caller,
}

impl Fixed<'_> {
    /// Makes an object, or sets right those of its parts that are given here.
    async fn keep(&self, kind: &'static Kind, wanted: Value) -> Result<(), Status> {
        let (namespace, name) = (object::namespace(&wanted), object::name(&wanted));
        let options = WriteOptions::default();
        let Ok(found) = self.registry.get(kind, namespace, name) else {
            let made =
                self.registry.create(&self.caller, kind, namespace, wanted.clone(), &options);
            return match made.await {
                Err(status) if !status.is_already_exists() => Err(status),
                _ => Ok(()),
            };
        };
        let mut right = found.clone();
        for part in
            ["spec", "subsets", "endpoints", "ports", "aggregationRule", "rules", "subjects"]
        {
            if let Some(wanted) = wanted.get(part) {
                overlay(&mut right[part], wanted);
            }
        }
        if same(&found, &right) {
            return Ok(());
        }
        self.registry
            .update(&self.caller, kind, namespace, name, None, right, &options)
            .await
            .map(drop)
    }

    async fn mark_service_cidr(&self) -> Result<(), Status> {
        let kind = &kinds::SERVICE_CIDRS;
        let mut range = self.registry.get(kind, "", "kubernetes")?;
        if object::is_condition_true(&range, "Ready") {
            return Ok(());
        }
        range["status"] = json!({"conditions": [{
            "type": "Ready",
            "status": "True",
            "lastTransitionTime": now(),
            "reason": "",
            "message": "Kubernetes Service CIDR is ready",
        }]});
        let (sub, options) = (Some(Subresource::Status), WriteOptions::default());
        self.registry.update(&self.caller, kind, "", "kubernetes", sub, range, &options).await?;
        Ok(())
    }
}

/// Sets in `value` what `wanted` holds; maps are merged, all else is replaced.
fn overlay(value: &mut Value, wanted: &Value) {
    match (value.as_object_mut(), wanted.as_object()) {
        (Some(map), Some(wanted)) => {
            for (key, wanted) in wanted {
                overlay(map.entry(key.as_str()).or_insert(Value::Null), wanted);
            }
        }
        _ => *value = wanted.clone(),
    }
}

fn texts<T: fmt::Display>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn external_node() -> Value {
    json!({
        "metadata": {
            "name": EXTERNAL_NODE,
            "labels": {"kubernetes.io/hostname": EXTERNAL_NODE},
            "annotations": {
                "kubernetes.io/description":
                    "Stands for processes outside the cluster that register themselves.",
            },
        },
        "spec": {"taints": [{"key": EXTERNAL_TAINT, "effect": "NoSchedule"}]},
        "status": {"conditions": [{
            "type": "Ready",
            "status": "True",
            "reason": "External",
            "message": "Whoever registers a Pod here keeps its status.",
            "lastHeartbeatTime": now(),
            "lastTransitionTime": now(),
        }]},
    })
}

fn service_cidr(facts: &Facts) -> Value {
    json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": texts(&facts.service_cidrs)}})
}

fn api_service(facts: &Facts) -> Option<Value> {
    let address = facts.service_cidrs.first()?.nth(API_ADDRESS_OFFSET)?;
    Some(json!({
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address.to_string(),
            "ipFamilyPolicy": "SingleStack",
            "ports": [{
                "name": "https", "port": API_PORT, "protocol": "TCP", "targetPort": facts.api.port(),
            }],
        },
    }))
}

fn dns_service(facts: &Facts) -> Option<Value> {
    let address = facts.service_cidrs.first()?.nth(DNS_ADDRESS_OFFSET)?;
    Some(json!({
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"},
        },
        // No selector: the server is no Pod. See `publish_dns`.
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address.to_string(),
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    }))
}

/// The Endpoints and the slice of a Service without a selector, both of its
/// name, as the real API server writes those of `kubernetes`.
fn endpoints(
    namespace: &str,
    service: &str,
    address: IpAddr,
    ports: &[(&str, &str, u16)],
) -> [(&'static Kind, Value); 2] {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, protocol, port)| json!({"name": name, "protocol": protocol, "port": port}))
        .collect();
    let endpoints = json!({
        "metadata": {
            "name": service,
            "namespace": namespace,
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": [{"ip": address.to_string()}], "ports": ports}],
    });
    let slice = json!({
        "metadata": {
            "name": service,
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family,
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": ports,
    });
    [(&kinds::ENDPOINTS, endpoints), (&kinds::ENDPOINT_SLICES, slice)]
}

#[cfg(test)]
mod tests {
    use portolan_apiserver::{
        registry::Options,
        store::{self, Backend, Store},
    };

    use super::*;

    #[tokio::test]
    async fn made_once_and_set_right() {
        let store = Store::open(Backend::Memory, store::Options::default()).unwrap();
        let service_cidrs: Vec<Cidr> = vec!["127.96.0.0/16".parse().unwrap()];
        let options = Options {
            service_cidrs: service_cidrs.clone(),
            // The API's own endpoint is a loopback address; `start` allows that too.
            pod_cidrs: vec!["127.0.0.0/8".parse().unwrap()],
            ..Options::default()
        };
        let registry = Registry::new(store.clone(), options);
        let mut facts = Facts { api: "127.0.0.1:7443".parse().unwrap(), service_cidrs };
        ensure(&registry, &facts).await.unwrap();
        let revision = store.revision();
        ensure(&registry, &facts).await.unwrap();
        assert_eq!(store.revision(), revision, "nothing to set right, nothing written");
        let service = registry.get(&kinds::SERVICES, "kube-system", "kube-dns").unwrap();
        assert_eq!(service["spec"]["clusterIP"], "127.96.0.10");
        let service = registry.get(&kinds::SERVICES, "default", "kubernetes").unwrap();
        assert_eq!(service["spec"]["clusterIP"], "127.96.0.1");
        // Another port, and a label that somebody added.
        let mut node = registry.get(&kinds::NODES, "", EXTERNAL_NODE).unwrap();
        node["metadata"]["labels"]["topology.kubernetes.io/zone"] = "a".into();
        let (caller, options) = (Caller::system("test"), WriteOptions::default());
        registry
            .update(&caller, &kinds::NODES, "", EXTERNAL_NODE, None, node, &options)
            .await
            .unwrap();
        facts.api.set_port(7444);
        ensure(&registry, &facts).await.unwrap();
        let slice = registry.get(&kinds::ENDPOINT_SLICES, "default", "kubernetes").unwrap();
        assert_eq!(slice["ports"][0]["port"], 7444);
        let node = registry.get(&kinds::NODES, "", EXTERNAL_NODE).unwrap();
        assert_eq!(object::label(&node, "topology.kubernetes.io/zone"), Some("a"));
        publish_dns(&registry, "127.0.0.1:1053".parse().unwrap()).await.unwrap();
        let slice = registry.get(&kinds::ENDPOINT_SLICES, "kube-system", "kube-dns").unwrap();
        assert_eq!(slice["endpoints"][0]["addresses"], json!(["127.0.0.1"]));
        assert_eq!(slice["ports"].as_array().map(Vec::len), Some(2));
    }
}
