//! The cases of `testdata/endpoints.json`, run through the plans of
//! EndpointSlices and Endpoints.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::{
    action::Action,
    endpoints,
    endpointslice::plan::{self, View},
    mirroring,
};
use crate::{
    informer::{Object, ObjectKey},
    object,
};

/// Texts that the file must still hold, so that a lost case does not pass.
const CASES: usize = 40;

pub(super) fn file() -> Value {
    serde_json::from_str(include_str!("../../testdata/endpoints.json")).unwrap()
}

/// Objects of one kind, to which actions are applied as the API would.
#[derive(Default)]
pub(super) struct World {
    pub(super) objects: Vec<Object>,
    made: usize,
}

impl World {
    pub(super) fn apply(&mut self, actions: Vec<Action>) -> usize {
        let writes = actions.len();
        for action in actions {
            match action {
                Action::Create(_, mut new, _) => {
                    self.made += 1;
                    if object::name(&new).is_empty() {
                        let base = object::text(&new, "/metadata/generateName").to_owned();
                        new["metadata"]["name"] = format!("{base}{}", self.made).into();
                    }
                    new["metadata"]["uid"] = format!("made-{}", self.made).into();
                    self.objects.push(Arc::new(new));
                }
                Action::Update(_, new, _) | Action::UpdateStatus(_, new) => {
                    let name = object::name(&new);
                    let slot = self.objects.iter_mut().find(|old| object::name(old) == name);
                    *slot.expect("an update of something that is there") = Arc::new(new);
                }
                Action::Patch(..) | Action::PatchStatus(..) => panic!("no plan patches"),
                Action::Delete(_, old, _, _) => {
                    let before = self.objects.len();
                    self.objects.retain(|o| object::name(o) != object::name(&old));
                    assert_eq!(self.objects.len() + 1, before, "a delete of something there");
                }
            }
        }
        writes
    }
}

pub(super) fn service(case: &Value) -> Option<Value> {
    let from = case.get("service").filter(|s| !s.is_null())?;
    let mut spec = from.clone();
    for key in ["name", "namespace", "labels", "annotations"] {
        spec.as_object_mut().unwrap().remove(key);
    }
    Some(json!({
        "metadata": {
            "name": from["name"], "namespace": "default", "uid": "service-uid",
            "labels": from["labels"], "annotations": from["annotations"],
        },
        "spec": spec,
    }))
}

fn pod(from: &Value) -> Value {
    let name = from["name"].as_str().unwrap();
    let containers: Vec<Value> = object::list(from, "/containers")
        .iter()
        .map(|ports| json!({"name": "c", "ports": ports}))
        .collect();
    let ips: Vec<Value> =
        object::list(from, "/podIPs").iter().map(|ip| json!({"ip": ip})).collect();
    let ready = if from["ready"] == json!(true) { "True" } else { "False" };
    json!({
        "metadata": {
            "name": name, "uid": format!("uid-{name}"), "labels": from["labels"],
            "namespace": from.get("namespace").cloned().unwrap_or("default".into()),
            "deletionTimestamp": from["deletionTimestamp"],
        },
        "spec": {
            "nodeName": from["nodeName"], "hostname": from["hostname"],
            "subdomain": from["subdomain"], "containers": containers,
            "initContainers": from["initContainers"],
        },
        "status": {
            "phase": from["phase"], "podIPs": ips,
            "conditions": [{"type": "Ready", "status": ready}],
        },
    })
}

fn pods(case: &Value) -> Vec<Object> {
    let list = object::list(case, "/pods");
    if let Some(count) = list.first().and_then(|first| object::int(first, "/repeat")) {
        return (0..count)
            .map(|i| {
                pod(&json!({
                    "name": format!("p{i}"), "labels": {"foo": "bar"}, "phase": "Running",
                    "ready": true, "nodeName": "node-1",
                    "podIPs": [format!("10.0.{}.{}", i / 250, i % 250 + 1)],
                }))
            })
            .map(Arc::new)
            .collect();
    }
    list.iter().map(pod).map(Arc::new).collect()
}

fn nodes(case: &Value) -> Vec<Object> {
    let node = |node: &Value| match node.get("zone") {
        Some(zone) => json!({"metadata": {"name": node["name"],
            "labels": {"topology.kubernetes.io/zone": zone}}}),
        None => json!({"metadata": {"name": node["name"]}}),
    };
    object::list(case, "/nodes").iter().map(node).map(Arc::new).collect()
}

/// One plan for slices, applied; tells how many writes it took and which Nodes were missing.
fn plan_slices(
    case: &Value,
    world: &mut World,
    pods: &[Object],
    endpoints_max: usize,
) -> (usize, BTreeSet<String>) {
    let Some(service) = service(case) else { return (0, BTreeSet::new()) };
    let nodes = nodes(case);
    let ours: Vec<Object> =
        world.objects.iter().filter(|s| plan::is_ours(s, "svc")).cloned().collect();
    let plan = plan::plan(&View {
        service: &service,
        pods,
        slices: &ours,
        node: &|name| nodes.iter().find(|n| object::name(n) == name).cloned(),
        endpoints_max,
        trigger_time: "",
    });
    (world.apply(plan.actions), plan.missing_nodes)
}

/// A value without what the case leaves open, with lists as sets.
fn set(list: &[Value]) -> BTreeSet<String> {
    list.iter()
        .map(|value| {
            let mut value = value.clone();
            if let Some(map) = value.as_object_mut() {
                map.remove("targetRef");
                map.sort_keys();
            }
            value.to_string()
        })
        .collect()
}

type Shape = (String, BTreeSet<String>, BTreeSet<String>, usize);

fn shape(slice: &Value) -> Shape {
    let endpoints = object::list(slice, "/endpoints");
    (
        object::text(slice, "/addressType").to_owned(),
        set(object::list(slice, "/ports")),
        set(endpoints),
        endpoints.len(),
    )
}

fn shapes(slices: &[Value]) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = slices.iter().map(shape).collect();
    shapes.sort();
    shapes
}

fn existing(case: &Value, world: &mut World, pods: &[Object]) {
    match object::text(case, "/existing") {
        "slice managed-by=other" => world.objects.push(Arc::new(json!({
            "metadata": {"name": "other", "labels": {
                "kubernetes.io/service-name": "svc",
                "endpointslice.kubernetes.io/managed-by": "other",
            }},
            "addressType": "IPv4", "ports": [], "endpoints": [],
        }))),
        "" => {}
        other => panic!("an unknown precondition: {other}"),
    }
    if !object::list(case, "/existing").is_empty() {
        let mut before = case.clone();
        before["service"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
        plan_slices(&before, world, pods, 100);
        assert_eq!(world.objects.len(), 2);
    }
    let sizes: i64 = object::list(case, "/existing_sizes").iter().filter_map(Value::as_i64).sum();
    if sizes > 0 {
        let all = self::pods(&json!({"pods": [{"repeat": sizes}]}));
        plan_slices(case, world, &all, 100);
        assert_eq!(world.objects.len(), 2);
    }
}

#[test]
fn slices() {
    let file = file();
    let cases = object::list(&file, "/cases");
    assert_eq!(cases.len(), CASES);
    for case in cases {
        let id = object::text(case, "/id");
        let pods = pods(case);
        for row in object::list(case, "/table") {
            let mut world = World::default();
            let endpoints_max = usize::try_from(object::int(row, "/max").unwrap()).unwrap();
            plan_slices(case, &mut world, &pods, endpoints_max);
            let sizes: Vec<Value> =
                world.objects.iter().map(|s| object::list(s, "/endpoints").len().into()).collect();
            assert_eq!(Value::from(sizes), row["sizes"], "{id}");
        }
        let mut world = World::default();
        existing(case, &mut world, &pods);
        let (_, missing) = plan_slices(case, &mut world, &pods, 100);
        assert_eq!(!missing.is_empty(), object::flag(case, "/expect_error"), "{id}");
        if let Some(expected) = case.get("expect_slices") {
            let found: Vec<Value> = world
                .objects
                .iter()
                .filter(|s| object::name(s) != "other")
                .map(|s| Value::clone(s))
                .collect();
            assert_eq!(shapes(&found), shapes(expected.as_array().unwrap()), "{id}");
        }
        for slice in world.objects.iter().filter(|s| object::name(s) != "other") {
            assert_eq!(object::text(slice, "/metadata/generateName"), "svc-", "{id}");
            assert_eq!(object::controller_uid(slice), "service-uid", "{id}");
            if let Some(labels) = case.get("expect_labels") {
                assert_eq!(&slice["metadata"]["labels"], labels, "{id}");
            }
            for endpoint in object::list(slice, "/endpoints") {
                let target = &endpoint["targetRef"];
                assert_eq!(target["kind"], "Pod", "{id}");
                assert_eq!(
                    target["uid"],
                    format!("uid-{}", target["name"].as_str().unwrap()),
                    "{id}"
                );
            }
        }
        if !object::list(case, "/existing_sizes").is_empty() {
            // The second slice is emptied and goes, the first one shrinks.
            assert_eq!(world.objects.len(), 1, "{id}");
            assert_eq!(object::list(&world.objects[0], "/endpoints").len(), 30, "{id}");
        }
        // Nothing changed: nothing to write.
        assert_eq!(plan_slices(case, &mut world, &pods, 100).0, 0, "{id}");
    }
}

fn plan_endpoints(case: &Value, world: &mut World, pods: &[Object]) -> usize {
    let key = ObjectKey::new("default", "svc");
    let existing = world.objects.first().cloned();
    let service = service(case);
    world.apply(endpoints::plan(&key, service.as_ref(), pods, existing.as_ref()))
}

/// Subsets as the cases write them: an address is its ip, or a map with what else is known.
fn subsets(list: &[Value]) -> Vec<[BTreeSet<String>; 3]> {
    let addresses = |subset: &Value, field: &str| -> BTreeSet<String> {
        object::list(subset, field)
            .iter()
            .map(|address| match address {
                Value::String(ip) => ip.clone(),
                _ => {
                    let ip = object::text(address, "/ip").to_owned();
                    ip + object::text(address, "/hostname")
                }
            })
            .collect()
    };
    let mut subsets: Vec<_> = list
        .iter()
        .map(|subset| {
            [
                set(object::list(subset, "/ports")),
                addresses(subset, "/addresses"),
                addresses(subset, "/notReadyAddresses"),
            ]
        })
        .collect();
    subsets.sort();
    subsets
}

#[test]
fn endpoints() {
    for case in object::list(&file(), "/cases") {
        let id = object::text(case, "/id");
        let pods = pods(case);
        let mut world = World::default();
        plan_endpoints(case, &mut world, &pods);
        if let Some(expected) = case.get("expect_endpoints") {
            let found = world.objects.first().unwrap_or_else(|| panic!("{id}: no Endpoints"));
            assert_eq!(
                subsets(object::list(found, "/subsets")),
                subsets(object::list(expected, "/subsets")),
                "{id}"
            );
            if let Some(labels) = expected.get("labels") {
                assert_eq!(&found["metadata"]["labels"], labels, "{id}");
            }
        }
        let skipped = id.starts_with("skip/") || id.starts_with("delete/");
        assert_eq!(world.objects.is_empty(), skipped, "{id}");
        assert_eq!(plan_endpoints(case, &mut world, &pods), 0, "{id}");
    }
}

#[test]
fn endpoints_go_with_their_service_and_leave_locks_alone() {
    let case = json!({"service": {"name": "svc", "selector": {"foo": "bar"}}});
    let mut world = World::default();
    plan_endpoints(&case, &mut world, &[]);
    assert_eq!(world.objects.len(), 1);
    plan_endpoints(&json!({}), &mut world, &[]);
    assert!(world.objects.is_empty());
    let lock = json!({"metadata": {"name": "svc", "annotations":
        {"control-plane.alpha.kubernetes.io/leader": "{}"}}});
    world.objects.push(Arc::new(lock));
    assert_eq!(plan_endpoints(&json!({}), &mut world, &[]), 0);
    assert_eq!(plan_endpoints(&case, &mut world, &[]), 0);
}

#[test]
fn endpoints_over_capacity_keep_ready_ones_first() {
    let case = json!({
        "service": {"name": "svc", "selector": {"foo": "bar"}, "clusterIP": "10.96.0.10",
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        "pods": [{"repeat": 1200}],
    });
    for (ready, expected) in [(1200, (1000, 0)), (700, (700, 300)), (0, (0, 1000))] {
        let mut pods = pods(&case);
        for pod in pods.iter_mut().skip(ready) {
            Arc::make_mut(pod)["status"]["conditions"] = json!([]);
        }
        let mut world = World::default();
        plan_endpoints(&case, &mut world, &pods);
        let subset = &object::list(&world.objects[0], "/subsets")[0];
        let count = |field: &str| object::list(subset, field).len();
        assert_eq!((count("/addresses"), count("/notReadyAddresses")), expected);
        assert_eq!(
            object::annotation(&world.objects[0], "endpoints.kubernetes.io/over-capacity"),
            Some("truncated")
        );
        // Below the capacity again: the mark goes.
        let few = self::pods(&json!({"pods": [{"repeat": 2}]}));
        plan_endpoints(&case, &mut world, &few);
        assert_eq!(
            object::annotation(&world.objects[0], "endpoints.kubernetes.io/over-capacity"),
            None
        );
    }
}

fn mirrored(case: &Value, world: &mut World) -> Vec<&'static str> {
    let endpoints = case.get("endpoints").filter(|e| !e.is_null()).map(|from| {
        let mut subsets = from["subsets"].clone();
        for subset in subsets.as_array_mut().unwrap() {
            if let Some(count) = object::int(subset, "/addresses_count") {
                let ip = |i| format!("10.1.{}.{}", i / 250, i % 250 + 1);
                subset["addresses"] = (0..count).map(|i| json!(ip(i))).collect();
            }
            for field in ["addresses", "notReadyAddresses"] {
                let list = object::list(subset, &format!("/{field}"));
                subset[field] = list.iter().map(|ip| json!({"ip": ip})).collect();
            }
        }
        json!({"metadata": {"name": "svc", "namespace": "default", "uid": "endpoints-uid",
            "annotations": from["annotations"]}, "subsets": subsets})
    });
    let slices = world.objects.clone();
    let plan = mirroring::plan(service(case).as_ref(), endpoints.as_ref(), &slices);
    world.apply(plan.actions);
    plan.warnings.into_iter().map(|(reason, _)| reason).collect()
}

#[test]
fn mirroring() {
    let file = file();
    let cases = object::list(&file, "/mirror_cases");
    assert_eq!(cases.len(), 7);
    let normal = cases.iter().find(|c| c["id"] == "mirror/one subset").unwrap();
    for case in cases {
        let id = object::text(case, "/id");
        let mut world = World::default();
        if matches!(id, "mirror/Endpoints deleted" | "mirror/service has a selector") {
            mirrored(normal, &mut world);
            assert_eq!(world.objects.len(), 1);
        }
        let warnings = mirrored(case, &mut world);
        let found: Vec<Value> = world.objects.iter().map(|s| Value::clone(s)).collect();
        match (id, &case["expect_slices"]) {
            (_, Value::Array(expected)) => assert_eq!(shapes(&found), shapes(expected), "{id}"),
            ("mirror/more than 1000 addresses in a subset", _) => {
                assert_eq!(object::list(&found[0], "/endpoints").len(), 1000);
                assert_eq!(warnings, ["TooManyAddressesToMirror"]);
            }
            ("mirror/annotations copied", _) => {
                assert_eq!(found[0]["metadata"]["annotations"], json!({"a": "b"}));
            }
            ("mirror/Endpoints deleted", _) => assert_eq!(found.len(), 0),
            (other, _) => panic!("an unknown case: {other}"),
        }
        if let Some(labels) = case.get("expect_labels") {
            assert_eq!(&found[0]["metadata"]["labels"], labels, "{id}");
            assert_eq!(object::controller_uid(&found[0]), "endpoints-uid");
        }
        let before = world.objects.clone();
        mirrored(case, &mut world);
        assert_eq!(world.objects, before, "{id}: nothing changed, nothing written");
    }
}
