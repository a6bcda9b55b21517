//! The slices that a Service should have, against those that it has.
//!
//! Pods become endpoints, endpoints are grouped by family and port list, each
//! group is packed into its slices, and what differs becomes actions
//! (kubernetes/endpointslice `reconciler.go`).

use std::collections::{BTreeMap, BTreeSet};

use portolan_apiserver::kinds;
use serde_json::{Map, Value, json};

use super::{
    packing::{self, Packed},
    pods::{self, Family},
};
use crate::{
    controllers::action::Action,
    informer::Object,
    object::{self, same},
};

/// Label that names the Service of a slice.
pub(crate) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Label that names who writes a slice.
pub(crate) const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// What this controller writes there.
pub(crate) const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
/// Label of slices and Endpoints of Services without a virtual IP.
pub(crate) const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Annotation with the time of the change that a write follows from.
pub(crate) const TRIGGER_TIME_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// All that the slices of a Service follow from.
pub(crate) struct View<'a> {
    pub(crate) service: &'a Value,
    /// The Pods of the namespace.
    pub(crate) pods: &'a [Object],
    /// The slices of the namespace that name the Service and this controller.
    pub(crate) slices: &'a [Object],
    pub(crate) node: &'a dyn Fn(&str) -> Option<Object>,
    pub(crate) endpoints_max: usize,
    /// For [`TRIGGER_TIME_ANNOTATION`]; empty when unknown.
    pub(crate) trigger_time: &'a str,
}

/// What to do, and what is missing.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// Nodes that Pods name and that are not there: their Pods are left out until they are.
    pub(crate) missing_nodes: BTreeSet<String>,
}

/// The name and labels of slices come from here.
pub(crate) fn is_ours(slice: &Value, service_name: &str) -> bool {
    object::label(slice, SERVICE_NAME_LABEL) == Some(service_name)
        && object::label(slice, MANAGED_BY_LABEL) == Some(MANAGED_BY)
}

pub(crate) fn plan(view: &View<'_>) -> Plan {
    let mut plan = Plan::default();
    if !pods::is_selecting(view.service) || object::is_deleting(view.service) {
        return plan;
    }
    let selected = pods::selected(view.service, view.pods);
    let families = pods::families(view.service);
    let mut delete = Vec::new();
    let (mut create, mut update) = (Vec::new(), Vec::new());
    for family in &families {
        let of_family = |slice: &&Object| object::text(slice, "/addressType") == family.text();
        let existing: Vec<Object> = view.slices.iter().filter(of_family).cloned().collect();
        let groups = groups(view, &selected, *family, &mut plan.missing_nodes);
        let mut change = reconcile_family(view, *family, groups, &existing);
        recycle(view.service, &mut change);
        create.append(&mut change.create);
        update.append(&mut change.update);
        delete.append(&mut change.delete);
    }
    let foreign = view.slices.iter().filter(|slice| {
        Family::parse(object::text(slice, "/addressType")).is_none_or(|f| !families.contains(&f))
    });
    delete.extend(foreign.cloned());
    let slices = &kinds::ENDPOINT_SLICES;
    plan.actions.extend(update.into_iter().map(|slice| Action::Update(slices, slice, None)));
    plan.actions.extend(create.into_iter().map(|slice| Action::Create(slices, slice, None)));
    plan.actions.extend(delete.into_iter().map(|slice| Action::Delete(slices, slice, None, None)));
    plan
}

/// Endpoints that share a slice: those with the same ports.
struct Group {
    ports: Vec<Value>,
    endpoints: Vec<Value>,
}

/// Port lists are compared as sets: the order of a Service's ports means nothing.
fn ports_key(ports: &[Value]) -> Vec<String> {
    let mut key: Vec<String> = ports
        .iter()
        .map(|p| {
            let text = |field: &str| object::text(p, field).to_owned();
            let number = object::int(p, "/port").unwrap_or(-1);
            format!("{} {number} {} {}", text("/name"), text("/protocol"), text("/appProtocol"))
        })
        .collect();
    key.sort_unstable();
    key
}

fn groups(
    view: &View<'_>,
    selected: &[Object],
    family: Family,
    missing_nodes: &mut BTreeSet<String>,
) -> BTreeMap<Vec<String>, Group> {
    let mut groups = BTreeMap::new();
    for pod in selected.iter().filter(|pod| pods::is_endpoint(pod, true)) {
        let ports = pods::ports(view.service, pod);
        let group = groups
            .entry(ports_key(&ports))
            .or_insert_with(|| Group { ports, endpoints: Vec::new() });
        let node_name = object::text(pod, "/spec/nodeName");
        let node = (view.node)(node_name);
        if node.is_none() && !pods::publishes_not_ready(view.service) {
            missing_nodes.insert(node_name.to_owned());
            continue;
        }
        group.endpoints.extend(pods::endpoint(view.service, pod, node.as_deref(), family));
    }
    groups
}

#[derive(Default)]
struct Change {
    create: Vec<Value>,
    update: Vec<Value>,
    delete: Vec<Object>,
}

fn reconcile_family(
    view: &View<'_>,
    family: Family,
    groups: BTreeMap<Vec<String>, Group>,
    existing: &[Object],
) -> Change {
    let mut change = Change::default();
    let mut by_ports: BTreeMap<Vec<String>, Vec<Object>> = BTreeMap::new();
    for slice in existing {
        // Of an older Service of the same name, perhaps.
        if object::controller_uid(slice) == object::uid(view.service) {
            let key = ports_key(object::list(slice, "/ports"));
            by_ports.entry(key).or_default().push(slice.clone());
        } else {
            change.delete.push(slice.clone());
        }
    }
    for (key, group) in groups {
        let slices = by_ports.remove(&key).unwrap_or_default();
        let stale_labels = |slice: &Value| !same(&labels(view.service), labels_of(slice));
        let packed = packing::pack(&slices, group.endpoints, view.endpoints_max, stale_labels);
        let kept: BTreeSet<&str> =
            packed.iter().filter_map(|p| p.existing.as_deref()).map(object::name).collect();
        change.delete.extend(slices.iter().filter(|s| !kept.contains(object::name(s))).cloned());
        for slice in packed {
            sort_out(view, family, &group.ports, slice, &mut change);
        }
    }
    change.delete.extend(by_ports.into_values().flatten());
    if existing.len() == change.delete.len() && change.create.is_empty() {
        placeholder(view, family, &mut change);
    }
    change
}

fn labels_of(slice: &Value) -> &Value {
    object::at(slice, "/metadata/labels").unwrap_or(&Value::Null)
}

fn sort_out(view: &View<'_>, family: Family, ports: &[Value], packed: Packed, change: &mut Change) {
    match packed.existing {
        None => change.create.push(new_slice(view, family, ports, packed.endpoints)),
        Some(existing) => {
            let labels = labels(view.service);
            if !packed.changed && same(&labels, labels_of(&existing)) {
                return;
            }
            let mut slice = Value::clone(&existing);
            slice["endpoints"] = packed.endpoints.into();
            slice["metadata"]["labels"] = labels;
            stamp(&mut slice, view.trigger_time);
            change.update.push(slice);
        }
    }
}

/// A Service without endpoints has one slice that says so.
fn placeholder(view: &View<'_>, family: Family, change: &mut Change) {
    let is_placeholder = |slice: &Value| {
        object::list(slice, "/endpoints").is_empty()
            && object::list(slice, "/ports").is_empty()
            && same(&labels(view.service), labels_of(slice))
            && object::controller_uid(slice) == object::uid(view.service)
    };
    if let [only] = change.delete.as_slice()
        && is_placeholder(only)
    {
        change.delete.clear();
    } else {
        change.create.push(new_slice(view, family, &[], Vec::new()));
    }
}

/// A slice to be made takes the place of one to be removed: one write instead of two.
fn recycle(service: &Value, change: &mut Change) {
    let mut kept = Vec::new();
    for old in change.delete.drain(..) {
        if object::controller_uid(&old) == object::uid(service)
            && let Some(mut new) = change.create.pop()
        {
            let mut metadata = old["metadata"].clone();
            metadata["labels"] = new["metadata"]["labels"].take();
            metadata["annotations"] = new["metadata"]["annotations"].take();
            new["metadata"] = metadata;
            change.update.push(new);
        } else {
            kept.push(old);
        }
    }
    change.delete = kept;
}

fn new_slice(view: &View<'_>, family: Family, ports: &[Value], endpoints: Vec<Value>) -> Value {
    let service = view.service;
    let mut slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": generate_name(object::name(service)),
            "namespace": object::namespace(service),
            "labels": labels(service),
            "ownerReferences": [object::controller_reference(service, "v1", "Service")],
        },
        "addressType": family.text(),
        "endpoints": endpoints,
        "ports": ports,
    });
    stamp(&mut slice, view.trigger_time);
    slice
}

/// `NAME-`, or `NAME` when the dash would not fit (`getEndpointSlicePrefix`).
pub(crate) fn generate_name(service: &str) -> String {
    if service.len() < 63 { format!("{service}-") } else { service.to_owned() }
}

fn stamp(slice: &mut Value, trigger_time: &str) {
    if !trigger_time.is_empty() {
        object::set_annotation(slice, TRIGGER_TIME_ANNOTATION, trigger_time);
    } else if let Some(annotations) =
        slice.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
    {
        annotations.shift_remove(TRIGGER_TIME_ANNOTATION);
    }
}

/// The labels of a Service's slices: its own, and those that are reserved.
fn labels(service: &Value) -> Value {
    let mut labels: Map<String, Value> = object::texts(service, "/metadata/labels")
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    labels.shift_remove(HEADLESS_LABEL);
    if pods::is_headless(service) {
        labels.insert(HEADLESS_LABEL.into(), "".into());
    }
    labels.insert(SERVICE_NAME_LABEL.into(), object::name(service).into());
    labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
    Value::Object(labels)
}
