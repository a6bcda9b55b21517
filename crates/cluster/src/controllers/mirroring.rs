//! EndpointSlices for Endpoints that somebody wrote by hand: those of Services
//! without a selector (kubernetes `pkg/controller/endpointslicemirroring`).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use portolan_apiserver::{Kind, Status, kinds};
use serde_json::{Map, Value, json};

use super::{
    action::{Action, Hands},
    endpoints::LEADER_ANNOTATION,
    endpointslice::{
        MANAGED_BY_LABEL, SERVICE_NAME_LABEL, TRIGGER_TIME_ANNOTATION, generate_name,
        packing::{self, Packed},
        pods::Family,
    },
    runner::{Next, Worker},
};
use crate::{
    informer::{Informer, Informers, Object, ObjectKey},
    object::{self, same},
    queue::Queue,
};

/// Addresses mirrored of one subset (`--mirroring-max-endpoints-per-subset`).
const ADDRESSES_PER_SUBSET_MAX: usize = 1000;
const MANAGED_BY: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
const NOT_COPIED: [&str; 2] =
    [TRIGGER_TIME_ANNOTATION, "kubectl.kubernetes.io/last-applied-configuration"];

/// What to do, and what people should hear.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// Reason and text of Events about the Endpoints.
    pub(crate) warnings: Vec<(&'static str, String)>,
}

pub(crate) fn is_ours(slice: &Value, name: &str) -> bool {
    object::label(slice, SERVICE_NAME_LABEL) == Some(name)
        && object::label(slice, MANAGED_BY_LABEL) == Some(MANAGED_BY)
}

fn is_mirrored(service: &Value, endpoints: &Value) -> bool {
    object::texts(service, "/spec/selector").next().is_none()
        && object::label(endpoints, SKIP_LABEL) != Some("true")
        && object::annotation(endpoints, LEADER_ANNOTATION).is_none()
        && !object::is_deleting(endpoints)
}

type GroupKey = (Vec<String>, Family);

/// The slices that Endpoints should have, against `slices`, the mirrored ones that they have.
pub(crate) fn plan(service: Option<&Value>, endpoints: Option<&Value>, slices: &[Object]) -> Plan {
    let mut plan = Plan::default();
    let kind = &kinds::ENDPOINT_SLICES;
    let source = endpoints.filter(|e| service.is_some_and(|s| is_mirrored(s, e)));
    let Some(endpoints) = source else {
        let all = slices.iter().cloned();
        plan.actions = all.map(|slice| Action::Delete(kind, slice, None, None)).collect();
        return plan;
    };
    let groups = groups(endpoints, &mut plan.warnings);
    let mut by_group: BTreeMap<GroupKey, Vec<Object>> = BTreeMap::new();
    let mut gone = Vec::new();
    for slice in slices {
        let family = Family::parse(object::text(slice, "/addressType"));
        match family.filter(|_| object::controller_uid(slice) == object::uid(endpoints)) {
            Some(family) => {
                let key = (ports_key(object::list(slice, "/ports")), family);
                by_group.entry(key).or_default().push(slice.clone());
            }
            None => gone.push(slice.clone()),
        }
    }
    for (key, (ports, wanted)) in groups {
        let existing = by_group.remove(&key).unwrap_or_default();
        let packed = packing::pack(&existing, wanted, ADDRESSES_PER_SUBSET_MAX, |_| false);
        gone.extend(existing.into_iter().filter(|slice| {
            !packed.iter().any(|p| p.existing.as_ref().is_some_and(|e| Arc::ptr_eq(e, slice)))
        }));
        let write = packed.into_iter().filter_map(|p| write(kind, endpoints, key.1, &ports, p));
        plan.actions.extend(write);
    }
    gone.extend(by_group.into_values().flatten());
    plan.actions.extend(gone.into_iter().map(|slice| Action::Delete(kind, slice, None, None)));
    plan
}

fn ports_key(ports: &[Value]) -> Vec<String> {
    let mut key: Vec<String> = ports.iter().map(|port| port_of(port).to_string()).collect();
    key.sort_unstable();
    key
}

fn port_of(port: &Value) -> Value {
    let protocol = match object::text(port, "/protocol") {
        "" => "TCP",
        protocol => protocol,
    };
    let mut found =
        json!({"name": object::text(port, "/name"), "port": port["port"], "protocol": protocol});
    if let Some(app_protocol) = object::at(port, "/appProtocol") {
        found["appProtocol"] = app_protocol.clone();
    }
    found
}

fn groups(
    endpoints: &Value,
    warnings: &mut Vec<(&'static str, String)>,
) -> BTreeMap<GroupKey, (Vec<Value>, Vec<Value>)> {
    let mut groups: BTreeMap<GroupKey, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    for subset in object::list(endpoints, "/subsets") {
        let ports: Vec<Value> = object::list(subset, "/ports").iter().map(port_of).collect();
        let of = |field, ready| object::list(subset, field).iter().map(move |a| (a, ready));
        let mut mirrored = 0;
        for (address, ready) in of("/addresses", true).chain(of("/notReadyAddresses", false)) {
            let ip = object::text(address, "/ip");
            let Ok(parsed) = ip.parse::<IpAddr>() else {
                warnings.push(("InvalidIPAddress", format!("invalid IP address {ip:?}, skipped")));
                continue;
            };
            if mirrored == ADDRESSES_PER_SUBSET_MAX {
                let message = format!(
                    "A max of {ADDRESSES_PER_SUBSET_MAX} addresses can be mirrored to \
                     EndpointSlices per Endpoints subset; the rest is skipped"
                );
                warnings.push(("TooManyAddressesToMirror", message));
                break;
            }
            mirrored += 1;
            let key = (ports_key(&ports), Family::of(parsed));
            let (_, list) = groups.entry(key).or_insert_with(|| (ports.clone(), Vec::new()));
            list.push(endpoint(address, parsed, ready));
        }
    }
    groups
}

fn endpoint(address: &Value, ip: IpAddr, ready: bool) -> Value {
    let mut endpoint = json!({"addresses": [ip.to_string()], "conditions": {"ready": ready}});
    for field in ["targetRef", "hostname", "nodeName"] {
        if let Some(value) = address.get(field).filter(|value| !value.is_null()) {
            endpoint[field] = value.clone();
        }
    }
    endpoint
}

fn labels(endpoints: &Value) -> Value {
    let mut labels: Map<String, Value> = object::texts(endpoints, "/metadata/labels")
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    labels.insert(SERVICE_NAME_LABEL.into(), object::name(endpoints).into());
    labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
    Value::Object(labels)
}

fn annotations(endpoints: &Value) -> Value {
    object::texts(endpoints, "/metadata/annotations")
        .filter(|(key, _)| !NOT_COPIED.contains(key))
        .map(|(key, value)| (key.to_owned(), Value::from(value)))
        .collect::<Map<_, _>>()
        .into()
}

fn write(
    kind: &'static Kind,
    endpoints: &Value,
    family: Family,
    ports: &[Value],
    packed: Packed,
) -> Option<Action> {
    let (labels, annotations) = (labels(endpoints), annotations(endpoints));
    let Some(existing) = packed.existing else {
        let slice = json!({
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {
                "generateName": generate_name(object::name(endpoints)),
                "namespace": object::namespace(endpoints),
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [object::controller_reference(endpoints, "v1", "Endpoints")],
            },
            "addressType": family.text(),
            "endpoints": packed.endpoints,
            "ports": ports,
        });
        return Some(Action::Create(kind, slice, None));
    };
    let metadata = &existing["metadata"];
    let part = |key: &str| metadata.get(key).unwrap_or(&Value::Null);
    if !packed.changed && same(part("labels"), &labels) && same(part("annotations"), &annotations) {
        return None;
    }
    let mut slice = Value::clone(&existing);
    slice["endpoints"] = packed.endpoints.into();
    slice["metadata"]["labels"] = labels;
    slice["metadata"]["annotations"] = annotations;
    Some(Action::Update(kind, slice, None))
}

/// Mirrors hand-written Endpoints.
pub(crate) struct Mirroring {
    hands: Hands,
    services: Informer,
    endpoints: Informer,
    slices: Informer,
}

impl Mirroring {
    /// Sees to it that every change that matters puts its Endpoints into the queue.
    pub(crate) fn start(hands: Hands, informers: &Informers) -> (Self, Arc<Queue<ObjectKey>>) {
        let queue: Arc<Queue<ObjectKey>> = Arc::default();
        let services = informers.of(&kinds::SERVICES);
        let endpoints = informers.of(&kinds::ENDPOINTS);
        let slices = informers.of(&kinds::ENDPOINT_SLICES);
        for informer in [&services, &endpoints] {
            let queue = queue.clone();
            informer.on_change(move |change| queue.add(change.key.clone()));
        }
        {
            let queue = queue.clone();
            slices.on_change(move |change| {
                for slice in change.sides() {
                    if object::label(slice, MANAGED_BY_LABEL) == Some(MANAGED_BY)
                        && let Some(name) = object::label(slice, SERVICE_NAME_LABEL)
                    {
                        queue.add(ObjectKey::new(&change.key.namespace, name));
                    }
                }
            });
        }
        (Mirroring { hands, services, endpoints, slices }, queue)
    }
}

impl Worker for Mirroring {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Status> {
        let service = self.services.get(&key.namespace, &key.name);
        let endpoints = self.endpoints.get(&key.namespace, &key.name);
        let mut slices = self.slices.list(Some(&key.namespace));
        slices.retain(|slice| is_ours(slice, &key.name));
        let plan = plan(service.as_deref(), endpoints.as_deref(), &slices);
        if let Some(endpoints) = &endpoints {
            for (reason, message) in &plan.warnings {
                self.hands.report(endpoints, "Warning", reason, message);
            }
        }
        self.hands.apply(plan.actions).await?;
        Ok(Next::Done)
    }
}
