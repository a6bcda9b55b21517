//! What the OpenAPI documents must hold, kind by kind.

use std::collections::HashSet;

use serde_json::Value;

use super::*;
use crate::schema::data::{Shape, StructId, types};

fn parsed(path: &str) -> Value {
    serde_json::from_slice(&document(path).expect("held")).expect("JSON")
}

fn path_of(kind: &Kind) -> String {
    let prefix = if kind.group.is_empty() { "api" } else { "apis" };
    format!("{prefix}/{}", kind.api_version)
}

/// kubectl's look-up: the PATCH operation of a kind and its query parameters.
fn patch_parameters(document: &Value, kind: &Kind) -> Vec<String> {
    let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let paths = document["paths"].as_object().expect("paths");
    let operation = paths
        .values()
        .map(|item| &item["patch"])
        .find(|operation| operation["x-kubernetes-group-version-kind"] == gvk)
        .unwrap_or_else(|| panic!("no PATCH of {kind:?}"));
    let listed = operation["parameters"].as_array().expect("parameters").iter();
    listed.map(|p| p["name"].as_str().expect("name").to_owned()).collect()
}

#[test]
fn every_kind_is_documented() {
    for kind in kinds::ALL {
        let document = parsed(&path_of(kind));
        let parameters = patch_parameters(&document, kind);
        for wanted in ["fieldValidation", "dryRun", "fieldManager", "force"] {
            assert!(parameters.iter().any(|p| p == wanted), "{kind:?}: {wanted}");
        }
    }
    for kind in kinds::ALL.iter().chain(kinds::VIRTUAL) {
        let document = parsed(&path_of(kind));
        let schema = &document["components"]["schemas"][schemas::name_of(kind, kind.kind)];
        let gvk = &schema["x-kubernetes-group-version-kind"][0];
        assert_eq!(gvk["kind"], kind.kind, "{kind:?}");
        assert_eq!(gvk["group"], kind.group, "{kind:?}");
        assert!(schema["description"].is_string(), "{kind:?}");
    }
}

#[test]
fn every_reference_is_held() {
    for held in DOCUMENTS.iter() {
        let document = parsed(&held.path);
        let schemas = &document["components"]["schemas"];
        let text = std::str::from_utf8(&held.text).expect("UTF-8");
        for rest in text.split("#/components/schemas/").skip(1) {
            let name = rest.split('"').next().unwrap_or_default();
            assert!(schemas[name].is_object(), "{}: {name}", held.path);
        }
    }
}

#[test]
fn extensions_of_lists_are_carried() {
    let document = parsed("api/v1");
    let service = &document["components"]["schemas"]["io.k8s.api.core.v1.ServiceSpec"];
    let ports = &service["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-list-type"], "map");
    assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["port", "protocol"]));
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "port");
    assert_eq!(ports["x-kubernetes-patch-strategy"], "merge");
}

#[test]
fn index_names_each_document_with_its_hash() {
    let index = index();
    let paths = index["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), DOCUMENTS.len());
    for (path, entry) in paths {
        let hash = hash(path).expect("held");
        let url = format!("/openapi/v3/{path}?hash={hash}");
        assert_eq!(entry["serverRelativeURL"], url);
        assert!(document(path).is_some());
    }
    assert!(paths.contains_key("api/v1") && paths.contains_key("apis/apps/v1"));
    for unknown in ["", "api", "apis/apps", "apis/nope/v1", "/api/v1", "api/v1/", "apis/v1"] {
        assert!(document(unknown).is_none(), "{unknown}");
    }
}

#[test]
fn paths_follow_the_rows() {
    let apps = parsed("apis/apps/v1");
    let paths = apps["paths"].as_object().expect("paths");
    for (path, verbs) in [
        ("/apis/apps/v1/deployments", &["get"][..]),
        ("/apis/apps/v1/namespaces/{namespace}/deployments", &["get", "post", "delete"]),
        (
            "/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
            &["get", "put", "patch", "delete"],
        ),
        ("/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale", &["get", "put", "patch"]),
    ] {
        let item = paths[path].as_object().unwrap_or_else(|| panic!("no {path}"));
        let found: Vec<_> = item.keys().filter(|k| *k != "parameters").collect();
        assert_eq!(found, verbs, "{path}");
    }
    assert!(!paths.contains_key("/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}/scale"));
    let reviews = parsed("apis/authorization.k8s.io/v1");
    let reviews = reviews["paths"].as_object().expect("paths");
    assert!(reviews.contains_key("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"));
    assert!(reviews.values().all(|item| item.get("get").is_none()));
}

/// Holds a struct of the table against its schema, and everything beneath.
fn agree(name: &str, id: StructId, schemas: &Value, seen: &mut HashSet<String>) {
    if !seen.insert(name.to_owned()) {
        return;
    }
    let properties = schemas[name]["properties"].as_object();
    let properties = properties.unwrap_or_else(|| panic!("{name} has no properties"));
    let mut fields: Vec<&str> = types().get(id).names().collect();
    let mut described: Vec<&str> = properties.keys().map(String::as_str).collect();
    fields.sort_unstable();
    described.sort_unstable();
    assert_eq!(fields, described, "{name}");
    for (field, property) in properties {
        let member = types().get(id).member(field).expect("compared above");
        let (mut shape, mut schema) = (&member.shape, property);
        loop {
            (shape, schema) = match shape {
                Shape::List(item) => (item, &schema["items"]),
                Shape::Map(value, _) => (value, &schema["additionalProperties"]),
                _ => break,
            };
        }
        let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
        if let (Shape::Struct(id), Some(reference)) = (shape, reference) {
            let name = reference.rsplit('/').next().unwrap_or_default();
            agree(name, *id, schemas, seen);
        }
    }
}

#[test]
fn both_tables_have_the_same_fields() {
    let mut seen = HashSet::new();
    for kind in kinds::ALL.iter().chain(kinds::VIRTUAL) {
        let document = parsed(&path_of(kind));
        let schemas = &document["components"]["schemas"];
        let id = types().root(kind.api_version, kind.kind).expect("root");
        agree(&schemas::name_of(kind, kind.kind), id, schemas, &mut seen);
    }
    assert!(seen.contains("io.k8s.api.core.v1.EphemeralContainer"));
}
