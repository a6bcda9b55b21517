//! Schemas: what the built-in tables say, and what is read from OpenAPI.

use portolan_kube_patch::schema::declare::{ANY, Type, keyed, member};
use portolan_kube_patch::schema::{At, ListType, PatchStrategy, known_kinds};
use portolan_kube_patch::{Schema, schema_for};
use serde_json::{Value, json};

/// Walks a path of field names; `*` is a list's element.
fn at<'a>(schema: &'a Schema, path: &str) -> At<'a> {
    path.split('.').fold(schema.root(), |at, step| match step {
        "*" => at.item(),
        name => at.field(name),
    })
}

fn describe(at: At<'_>) -> String {
    let strategy = match &at.rule().strategy {
        PatchStrategy::ByType => "by type".to_owned(),
        PatchStrategy::Replace => "replace".to_owned(),
        PatchStrategy::MergeScalars => "merge".to_owned(),
        PatchStrategy::MergeBy(key) => format!("merge by {key}"),
    };
    let list = match at.list() {
        ListType::Atomic if at.is_atomic() => "atomic map".to_owned(),
        ListType::Atomic => "-".to_owned(),
        ListType::Set => "set".to_owned(),
        ListType::Map(keys) => {
            let keys: Vec<String> = keys
                .iter()
                .map(|key| match &key.default {
                    None => key.name.clone(),
                    Some(default) => format!("{}={default}", key.name),
                })
                .collect();
            format!("map {}", keys.join(","))
        }
    };
    let retain = if at.rule().retain_keys { ", retainKeys" } else { "" };
    format!("{list}; {strategy}{retain}")
}

#[test]
fn built_in_tables() {
    let check = |kind: (&str, &str, &str), path: &str, expected: &str| {
        let schema = schema_for(kind.0, kind.1, kind.2);
        assert_eq!(describe(at(schema, path)), expected, "{kind:?} {path}");
    };
    let pod = ("", "v1", "Pod");
    let deployment = ("apps", "v1", "Deployment");
    check(pod, "spec.containers", "map name=\"\"; merge by name");
    check(pod, "spec.initContainers.*.env", "map name=\"\"; merge by name");
    check(
        pod,
        "spec.containers.*.ports",
        "map containerPort=0,protocol=\"TCP\"; merge by containerPort",
    );
    check(pod, "spec.containers.*.volumeMounts", "map mountPath=\"\"; merge by mountPath");
    check(pod, "spec.containers.*.args", "-; by type");
    check(pod, "spec.containers.*.env.*.valueFrom.fieldRef", "atomic map; by type");
    check(pod, "spec.volumes", "map name=\"\"; merge by name, retainKeys");
    check(pod, "spec.imagePullSecrets", "map name=\"\"; merge by name");
    check(pod, "spec.hostAliases", "map ip=\"\"; merge by ip");
    check(pod, "spec.tolerations", "-; by type");
    check(
        pod,
        "spec.topologySpreadConstraints",
        "map topologyKey=\"\",whenUnsatisfiable=\"\"; merge by topologyKey",
    );
    check(pod, "spec.nodeSelector", "atomic map; by type");
    check(pod, "metadata.ownerReferences", "map uid=\"\"; merge by uid");
    check(pod, "metadata.ownerReferences.*", "atomic map; by type");
    check(pod, "metadata.finalizers", "set; merge");
    check(pod, "status.conditions", "map type=\"\"; merge by type");
    check(pod, "status.podIPs", "map ip=\"\"; merge by ip");
    check(pod, "status.hostIPs", "-; merge by ip");
    check(deployment, "spec.template.spec.containers.*.env", "map name=\"\"; merge by name");
    check(deployment, "spec.template.metadata.finalizers", "set; merge");
    check(deployment, "spec.strategy", "-; by type, retainKeys");
    check(deployment, "spec.selector", "atomic map; by type");
    check(("apps", "v1", "StatefulSet"), "spec.updateStrategy", "-; by type");
    check(
        ("batch", "v1", "CronJob"),
        "spec.jobTemplate.spec.template.spec.volumes",
        "map name=\"\"; merge by name, retainKeys",
    );
    check(("", "v1", "Service"), "spec.ports", "map port=0,protocol=\"TCP\"; merge by port");
    check(("", "v1", "Service"), "status.loadBalancer.ingress", "-; by type");
    check(("", "v1", "ServiceAccount"), "secrets", "map name; merge by name");
    check(("", "v1", "ServiceAccount"), "imagePullSecrets", "-; by type");
    check(("", "v1", "Node"), "status.addresses", "map type=\"\"; merge by type");
    check(("", "v1", "Endpoints"), "subsets", "-; by type");
    check(("discovery.k8s.io", "v1", "EndpointSlice"), "endpoints", "-; by type");
    check(("policy", "v1", "PodDisruptionBudget"), "spec.selector", "atomic map; replace");
    check(("example.org", "v1", "Widget"), "metadata.finalizers", "set; merge");
    check(("example.org", "v1", "Widget"), "spec.containers", "-; by type");
}

#[test]
fn every_kind_knows_metadata() {
    let mut count = 0;
    for (group, version, kind) in known_kinds() {
        let schema = schema_for(group, version, kind);
        assert_eq!(describe(at(schema, "metadata.finalizers")), "set; merge", "{group} {kind}");
        count += 1;
    }
    assert!(count > 30);
}

#[test]
fn an_unknown_place_is_atomic_lists_and_merging_maps() {
    let schema = Schema::empty();
    assert_eq!(describe(at(schema, "a.b.*.c")), "-; by type");
    assert!(!at(schema, "a").is_atomic());
}

static TREE: Type = Type::of(&[keyed("children", &["id"], &TREE), member("value", &ANY)]);

#[test]
fn a_type_may_contain_itself() {
    let schema = Schema::declared(&TREE);
    let deep = "children.*.children.*.children.*.children";
    assert_eq!(describe(at(&schema, deep)), "map id=\"\"; merge by id");
}

#[test]
fn openapi_marks_are_read() {
    let components: Value = json!({
        "Port": {"type": "object", "properties": {
            "number": {"type": "integer"},
            "protocol": {"type": "string", "default": "TCP"}}},
        "Reference": {"type": "object", "x-kubernetes-map-type": "atomic",
            "properties": {"name": {"type": "string"}}},
        "Tree": {"type": "object", "properties": {
            "leaves": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "trees": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"},
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}}}
    });
    let schema = Schema::from_openapi(
        &json!({"type": "object", "properties": {
            "ports": {
                "type": "array",
                "items": {"allOf": [{"$ref": "#/components/schemas/Port"}], "default": {}},
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["number", "protocol"],
                "x-kubernetes-patch-merge-key": "number",
                "x-kubernetes-patch-strategy": "merge,retainKeys"},
            "ref": {"$ref": "#/components/schemas/Reference"},
            "looseRef": {"allOf": [{"$ref": "#/components/schemas/Reference"}],
                "x-kubernetes-map-type": "granular"},
            "tree": {"$ref": "#/components/schemas/Tree"},
            "byName": {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Reference"}},
            "dangling": {"$ref": "#/components/schemas/Nowhere"}
        }}),
        &components,
    );
    let check = |path: &str, expected: &str| {
        assert_eq!(describe(at(&schema, path)), expected, "{path}");
    };
    check("ports", "map number,protocol=\"TCP\"; merge by number, retainKeys");
    check("ref", "atomic map; by type");
    check("looseRef", "-; by type");
    check("tree.trees.*.trees.*.leaves", "set; by type");
    check("byName.anything", "atomic map; by type");
    check("dangling.x", "-; by type");
}
