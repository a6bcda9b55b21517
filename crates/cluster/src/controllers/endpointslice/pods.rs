//! From a Pod to the endpoint that it is for a Service.
//!
//! Shared by EndpointSlices and Endpoints, which differ in which Pods they take
//! (kubernetes/endpointslice `utils.go`, `util/controller_utils.go`).

use std::{net::IpAddr, sync::Arc};

use serde_json::{Value, json};

use crate::{
    informer::{Informer, Object, ObjectKey},
    object,
    queue::Queue,
};

/// Label of a Node that names its zone.
pub(crate) const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// The two address families, as `addressType` writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Family> {
        match text {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        }
    }

    pub(crate) fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

/// Whether a Service's endpoints are made from Pods.
pub(crate) fn is_selecting(service: &Value) -> bool {
    object::text(service, "/spec/type") != "ExternalName"
        && object::texts(service, "/spec/selector").next().is_some()
}

/// Whether a Service has no virtual IP.
pub(crate) fn is_headless(service: &Value) -> bool {
    matches!(object::text(service, "/spec/clusterIP"), "" | "None")
}

/// The families of a Service's endpoints.
pub(crate) fn families(service: &Value) -> Vec<Family> {
    let named: Vec<Family> = object::list(service, "/spec/ipFamilies")
        .iter()
        .filter_map(|family| Family::parse(family.as_str()?))
        .collect();
    if !named.is_empty() {
        return named;
    }
    match object::text(service, "/spec/clusterIP").parse::<IpAddr>() {
        Ok(address) => vec![Family::of(address)],
        // A headless Service that says nothing means both.
        Err(_) => vec![Family::V4, Family::V6],
    }
}

/// The Pods that a Service selects, of those in its namespace.
pub(crate) fn selected(service: &Value, pods: &[Object]) -> Vec<Object> {
    let namespace = object::namespace(service);
    pods.iter()
        .filter(|pod| object::namespace(pod) == namespace && selects(service, pod))
        .cloned()
        .collect()
}

/// Whether the labels of a Pod are those that a Service asks for. Without a
/// parsed selector, because this runs for every Service at every change of a Pod.
fn selects(service: &Value, pod: &Value) -> bool {
    object::texts(service, "/spec/selector")
        .all(|(key, value)| object::label(pod, key) == Some(value))
}

/// Whether a Pod has ended for good.
pub(crate) fn is_ended(pod: &Value) -> bool {
    matches!(object::text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Whether a Pod is an endpoint at all.
pub(crate) fn is_endpoint(pod: &Value, terminating_too: bool) -> bool {
    !is_ended(pod) && !addresses(pod).is_empty() && (terminating_too || !object::is_deleting(pod))
}

/// The addresses of a Pod, in canonical form.
pub(crate) fn addresses(pod: &Value) -> Vec<IpAddr> {
    let parse = |text: &str| text.parse::<IpAddr>().ok();
    let all: Vec<IpAddr> = object::list(pod, "/status/podIPs")
        .iter()
        .filter_map(|entry| parse(object::text(entry, "/ip")))
        .collect();
    if all.is_empty() {
        parse(object::text(pod, "/status/podIP")).into_iter().collect()
    } else {
        all
    }
}

/// Whether a Pod is ready.
pub(crate) fn is_ready(pod: &Value) -> bool {
    object::is_condition_true(pod, "Ready")
}

/// Whether a Service takes Pods that are not ready.
pub(crate) fn publishes_not_ready(service: &Value) -> bool {
    object::flag(service, "/spec/publishNotReadyAddresses")
}

/// The name under which a Pod answers inside the Service, if it has one.
pub(crate) fn hostname<'v>(service: &Value, pod: &'v Value) -> Option<&'v str> {
    let hostname = object::text(pod, "/spec/hostname");
    let fits = object::text(pod, "/spec/subdomain") == object::name(service)
        && object::namespace(pod) == object::namespace(service);
    (!hostname.is_empty() && fits).then_some(hostname)
}

/// What an endpoint says about the Pod behind it.
pub(crate) fn target(pod: &Value) -> Value {
    json!({
        "kind": "Pod",
        "namespace": object::namespace(pod),
        "name": object::name(pod),
        "uid": object::uid(pod),
    })
}

/// The number of a Service port on a Pod; `None` when the Pod has no port of that name.
pub(crate) fn target_port(port: &Value, pod: &Value) -> Option<u16> {
    let number = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok());
    match port.get("targetPort") {
        Some(Value::String(name)) if !name.is_empty() => {
            let protocol = protocol(port);
            let sidecars = object::list(pod, "/spec/initContainers")
                .iter()
                .filter(|container| object::text(container, "/restartPolicy") == "Always");
            object::list(pod, "/spec/containers")
                .iter()
                .chain(sidecars)
                .flat_map(|container| object::list(container, "/ports"))
                .find(|p| object::text(p, "/name") == name && self::protocol(p) == protocol)
                .and_then(|p| number(p.get("containerPort")?))
        }
        Some(value @ Value::Number(_)) if value.as_u64() != Some(0) => number(value),
        _ => number(port.get("port")?),
    }
}

fn protocol(port: &Value) -> &str {
    match object::text(port, "/protocol") {
        "" => "TCP",
        protocol => protocol,
    }
}

/// The ports of a Service as a Pod has them; one that the Pod lacks is left out.
pub(crate) fn ports(service: &Value, pod: &Value) -> Vec<Value> {
    object::list(service, "/spec/ports")
        .iter()
        .filter_map(|port| {
            let mut found = json!({
                "name": object::text(port, "/name"),
                "port": target_port(port, pod)?,
                "protocol": protocol(port),
            });
            if let Some(app_protocol) = object::at(port, "/appProtocol") {
                found["appProtocol"] = app_protocol.clone();
            }
            Some(found)
        })
        .collect()
}

/// Which clients an endpoint is for, by `spec.trafficDistribution`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    Anywhere,
    SameZone,
    SameNode,
}

/// The rule of a Service. The annotation of topology aware routing wins over the
/// field; its proportional hints need zones with capacities, and without them
/// upstream too gives no hints.
pub(crate) fn distribution(service: &Value) -> Distribution {
    let mode = object::annotation(service, "service.kubernetes.io/topology-mode")
        .or_else(|| object::annotation(service, "service.kubernetes.io/topology-aware-hints"));
    if matches!(mode, Some("Auto" | "auto")) {
        return Distribution::Anywhere;
    }
    match object::text(service, "/spec/trafficDistribution") {
        "PreferClose" | "PreferSameZone" => Distribution::SameZone,
        "PreferSameNode" => Distribution::SameNode,
        _ => Distribution::Anywhere,
    }
}

/// The endpoint of a slice; `None` when the Pod has no address of the family.
pub(crate) fn endpoint(
    service: &Value,
    pod: &Value,
    node: Option<&Value>,
    family: Family,
) -> Option<Value> {
    let address = addresses(pod).into_iter().find(|address| Family::of(*address) == family)?;
    let serving = is_ready(pod);
    let terminating = object::is_deleting(pod);
    let ready = publishes_not_ready(service) || (serving && !terminating);
    let mut endpoint = json!({
        "addresses": [address.to_string()],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": target(pod),
    });
    if let Some(hostname) = hostname(service, pod) {
        endpoint["hostname"] = hostname.into();
    }
    let node_name = object::text(pod, "/spec/nodeName");
    if !node_name.is_empty() {
        endpoint["nodeName"] = node_name.into();
    }
    let zone =
        node.and_then(|node| object::label(node, ZONE_LABEL)).filter(|zone| !zone.is_empty());
    if let Some(zone) = zone {
        endpoint["zone"] = zone.into();
    }
    if ready && let Some(hints) = hints(distribution(service), zone, node_name) {
        endpoint["hints"] = hints;
    }
    Some(endpoint)
}

fn hints(distribution: Distribution, zone: Option<&str>, node: &str) -> Option<Value> {
    let mut hints = json!({});
    if distribution != Distribution::Anywhere
        && let Some(zone) = zone
    {
        hints["forZones"] = json!([{"name": zone}]);
    }
    if distribution == Distribution::SameNode && !node.is_empty() {
        hints["forNodes"] = json!([{"name": node}]);
    }
    (hints != json!({})).then_some(hints)
}

/// Puts every Service into the queue that selects a Pod which comes, changes or goes.
pub(crate) fn queue_services_of_pods(
    pods: &Informer,
    services: &Informer,
    queue: &Arc<Queue<ObjectKey>>,
) {
    let (services, queue) = (services.clone(), queue.clone());
    pods.on_change(move |change| {
        for service in services.cached_list(Some(&change.key.namespace)) {
            if is_selecting(&service) && change.sides().any(|pod| selects(&service, pod)) {
                queue.add(ObjectKey::of(&service));
            }
        }
    });
}
