//! The Endpoints of a Service: the older, single list of its addresses.
//!
//! Follows from the same Pods as the slices, with three differences: only the
//! primary family, no terminating Pods (unless not-ready ones are published),
//! and at most [`ADDRESSES_MAX`] addresses
//! (kubernetes `pkg/controller/endpoint`, `pkg/api/v1/endpoints/util.go`).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use portolan_apiserver::kinds;
use serde_json::{Map, Value, json};

use super::{
    action::{Action, Hands},
    endpointslice::{HEADLESS_LABEL, pods},
    runner::{Next, Worker},
};
use crate::{
    informer::{Informer, Informers, Object, ObjectKey},
    object::{self, same},
    queue::Queue,
};

/// Addresses in one Endpoints object (`maxCapacity`).
pub(crate) const ADDRESSES_MAX: usize = 1000;

const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const MANAGED_BY: &str = "endpoint-controller";
const OVER_CAPACITY_ANNOTATION: &str = "endpoints.kubernetes.io/over-capacity";
const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Endpoints that old leader elections use as a lock.
pub(crate) const LEADER_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";

/// One address of the Service with one of its ports.
struct Entry {
    port: Option<Value>,
    address: Value,
    ready: bool,
}

/// What must be done about the Endpoints of a Service.
pub(crate) fn plan(
    key: &ObjectKey,
    service: Option<&Value>,
    pods_there: &[Object],
    existing: Option<&Object>,
) -> Vec<Action> {
    let kind = &kinds::ENDPOINTS;
    if existing.is_some_and(|e| object::annotation(e, LEADER_ANNOTATION).is_some()) {
        return Vec::new();
    }
    let Some(service) = service else {
        return existing.map(|e| Action::Delete(kind, e.clone(), None, None)).into_iter().collect();
    };
    if !pods::is_selecting(service) || object::is_deleting(service) {
        return Vec::new();
    }
    let mut subsets = repack(entries(service, &pods::selected(service, pods_there)));
    let truncated = truncate(&mut subsets);
    let mut wanted = match existing {
        Some(existing) => Value::clone(existing),
        None => json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": &*key.name, "namespace": &*key.namespace},
        }),
    };
    wanted["metadata"]["labels"] = labels(service);
    match existing {
        // The time of what made it necessary: of new Endpoints, the Service's own.
        None => {
            let time = object::text(service, "/metadata/creationTimestamp").to_owned();
            object::set_annotation(&mut wanted, TRIGGER_ANNOTATION, &time);
        }
        Some(_) => {
            let annotations = wanted.pointer_mut("/metadata/annotations");
            if let Some(map) = annotations.and_then(Value::as_object_mut) {
                map.shift_remove(TRIGGER_ANNOTATION);
            }
        }
    }
    if truncated {
        object::set_annotation(&mut wanted, OVER_CAPACITY_ANNOTATION, "truncated");
    } else if let Some(annotations) =
        wanted.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
    {
        annotations.shift_remove(OVER_CAPACITY_ANNOTATION);
    }
    wanted["subsets"] = subsets.into();
    match existing {
        None => vec![Action::Create(kind, wanted, None)],
        Some(existing) if same_but_for_trigger(existing, &wanted) => Vec::new(),
        Some(_) => vec![Action::Update(kind, wanted, None)],
    }
}

/// Whether nothing is left to write: the time of the last change is no change.
fn same_but_for_trigger(existing: &Value, wanted: &Value) -> bool {
    let mut existing = existing.clone();
    let annotations = existing.pointer_mut("/metadata/annotations");
    if let Some(map) = annotations.and_then(Value::as_object_mut) {
        map.shift_remove(TRIGGER_ANNOTATION);
    }
    same(&existing, wanted)
}

fn labels(service: &Value) -> Value {
    let mut labels: Map<String, Value> = object::texts(service, "/metadata/labels")
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    labels.shift_remove(HEADLESS_LABEL);
    if pods::is_headless(service) {
        labels.insert(HEADLESS_LABEL.into(), "".into());
    }
    labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
    Value::Object(labels)
}

fn entries(service: &Value, selected: &[Object]) -> Vec<Entry> {
    let publish = pods::publishes_not_ready(service);
    let mut entries = Vec::new();
    for pod in selected.iter().filter(|pod| pods::is_endpoint(pod, publish)) {
        let Some(address) = address(service, pod) else { continue };
        let ready = publish || pods::is_ready(pod);
        let of = |port| Entry { port, address: address.clone(), ready };
        if object::list(service, "/spec/ports").is_empty() {
            if object::text(service, "/spec/clusterIP") == "None" {
                entries.push(of(None));
            }
        } else {
            entries.extend(pods::ports(service, pod).into_iter().map(|port| of(Some(port))));
        }
    }
    entries
}

fn address(service: &Value, pod: &Value) -> Option<Value> {
    let all = pods::addresses(pod);
    let families = object::list(service, "/spec/ipFamilies");
    let cluster_ip = object::text(service, "/spec/clusterIP").parse::<IpAddr>();
    let address = if families.is_empty() && cluster_ip.is_err() {
        // A headless Service that says nothing takes what the Pod has first.
        *all.first()?
    } else {
        let family = *pods::families(service).first()?;
        all.into_iter().find(|a| pods::Family::of(*a) == family)?
    };
    let mut found = json!({"ip": address.to_string(), "targetRef": pods::target(pod)});
    let node = object::text(pod, "/spec/nodeName");
    if !node.is_empty() {
        found["nodeName"] = node.into();
    }
    if let Some(hostname) = pods::hostname(service, pod) {
        found["hostname"] = hostname.into();
    }
    Some(found)
}

type AddressKey = (String, String);

/// Addresses that have the same ports share a subset.
fn repack(entries: Vec<Entry>) -> Vec<Value> {
    let mut by_port: BTreeMap<String, (Option<Value>, BTreeMap<AddressKey, bool>)> =
        BTreeMap::new();
    let mut addresses: BTreeMap<AddressKey, Value> = BTreeMap::new();
    for Entry { port, address, ready } in entries {
        let key = (
            object::text(&address, "/ip").to_owned(),
            object::text(&address, "/targetRef/uid").to_owned(),
        );
        addresses.insert(key.clone(), address);
        let text = port.as_ref().map(port_order).unwrap_or_default();
        let (_, of_port) = by_port.entry(text).or_insert_with(|| (port, BTreeMap::new()));
        *of_port.entry(key).or_default() |= ready;
    }
    let mut subsets: Vec<(BTreeMap<AddressKey, bool>, Vec<Value>)> = Vec::new();
    for (port, of_port) in by_port.into_values() {
        match subsets.iter_mut().find(|(known, _)| *known == of_port) {
            Some((_, ports)) => ports.extend(port),
            None => subsets.push((of_port, port.into_iter().collect())),
        }
    }
    let pick = |of_port: &BTreeMap<AddressKey, bool>, ready: bool| -> Vec<Value> {
        of_port
            .iter()
            .filter(|(_, is_ready)| **is_ready == ready)
            .filter_map(|(key, _)| addresses.get(key).cloned())
            .collect()
    };
    subsets
        .into_iter()
        .map(|(of_port, ports)| {
            let mut subset = json!({});
            for (field, list) in [
                ("addresses", pick(&of_port, true)),
                ("notReadyAddresses", pick(&of_port, false)),
                ("ports", ports),
            ] {
                if !list.is_empty() {
                    subset[field] = list.into();
                }
            }
            subset
        })
        .collect()
}

fn port_order(port: &Value) -> String {
    let text = |field: &str| object::text(port, field).to_owned();
    let number = object::int(port, "/port").unwrap_or_default();
    format!("{} {number:05} {} {}", text("/name"), text("/protocol"), text("/appProtocol"))
}

/// Cuts to [`ADDRESSES_MAX`], ready ones first, each subset by its share; tells whether it had to.
fn truncate(subsets: &mut [Value]) -> bool {
    let total = |subsets: &[Value], field: &str| -> usize {
        subsets.iter().map(|subset| object::list(subset, field).len()).sum()
    };
    let ready = total(subsets, "/addresses");
    let not_ready = total(subsets, "/notReadyAddresses");
    if ready + not_ready <= ADDRESSES_MAX {
        return false;
    }
    let (field, all, room) = if ready > ADDRESSES_MAX {
        ("addresses", ready, ADDRESSES_MAX)
    } else {
        ("notReadyAddresses", not_ready, ADDRESSES_MAX - ready)
    };
    let mut left = room;
    for subset in subsets {
        let Some(map) = subset.as_object_mut() else { continue };
        if field == "addresses" {
            map.shift_remove("notReadyAddresses");
        }
        if let Some(list) = map.get_mut(field).and_then(Value::as_array_mut) {
            let share = (list.len() * room).div_ceil(all).min(left);
            list.truncate(share);
            left -= list.len();
        }
    }
    true
}

/// Keeps the Endpoints of Services.
pub(crate) struct Endpoints {
    hands: Hands,
    services: Informer,
    pods: Informer,
    endpoints: Informer,
}

impl Endpoints {
    /// Sees to it that every change that matters puts its Service into the queue.
    pub(crate) fn start(hands: Hands, informers: &Informers) -> (Self, Arc<Queue<ObjectKey>>) {
        let queue: Arc<Queue<ObjectKey>> = Arc::default();
        let services = informers.of(&kinds::SERVICES);
        let pods = informers.of(&kinds::PODS);
        let endpoints = informers.of(&kinds::ENDPOINTS);
        {
            let queue = queue.clone();
            services.on_change(move |change| queue.add(change.key.clone()));
        }
        {
            // Not those that somebody made by hand: they may come before their Service.
            let queue = queue.clone();
            let ours = |e: &Object| object::label(e, MANAGED_BY_LABEL) == Some(MANAGED_BY);
            endpoints.on_change(move |change| {
                if change.new.is_none_or(ours) {
                    queue.add(change.key.clone());
                }
            });
        }
        pods::queue_services_of_pods(&pods, &services, &queue);
        (Endpoints { hands, services, pods, endpoints }, queue)
    }
}

impl Worker for Endpoints {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, portolan_apiserver::Status> {
        let service = self.services.get(&key.namespace, &key.name);
        let existing = self.endpoints.get(&key.namespace, &key.name);
        let pods = self.pods.list(Some(&key.namespace));
        let actions = plan(key, service.as_deref(), &pods, existing.as_ref());
        self.hands.apply(actions).await?;
        Ok(Next::Done)
    }
}
