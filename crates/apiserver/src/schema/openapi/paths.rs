//! The paths of a kind, generated from its row.

use serde_json::{Map, Value, json};

use super::schemas;
use crate::kinds::{self, Kind};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// What a PATCH may be.
const PATCHES: [&str; 5] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/yaml",
];

/// Query parameters, with their JSON types.
type Parameter = (&'static str, &'static str);
const DRY_RUN: Parameter = ("dryRun", "string");
const FIELD_MANAGER: Parameter = ("fieldManager", "string");
const FIELD_VALIDATION: Parameter = ("fieldValidation", "string");
const FORCE: Parameter = ("force", "boolean");

const WRITE: [Parameter; 3] = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCH: [Parameter; 4] = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
const DELETE: [Parameter; 4] = [
    DRY_RUN,
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const LIST: [Parameter; 10] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];

/// A subresource: its path, and the type that its body is of where that is not the kind itself.
struct Subresource {
    name: &'static str,
    /// Group, version, kind and schema.
    body: Option<([&'static str; 3], &'static str)>,
    /// Whether it is only created (an act), not read and changed.
    act: bool,
}

/// Adds every path of a kind.
pub(super) fn add(kind: &Kind, paths: &mut Map<String, Value>) {
    let root = match kind.group {
        "" => format!("/api/{}", kind.version),
        group => format!("/apis/{group}/{}", kind.version),
    };
    let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    let own = Operations::of(kind);
    let collection = format!("{root}{scope}/{}", kind.plural);
    if kinds::VIRTUAL.contains(&kind) {
        let operations = [("post", own.write("create", "post", &WRITE))];
        paths.insert(collection, item(kind.namespaced, None, operations));
        return;
    }
    let object = format!("{collection}/{{name}}");
    if kind.namespaced {
        let everywhere = format!("{root}/{}", kind.plural);
        paths.insert(everywhere, item(false, None, [("get", own.list())]));
    }
    let operations = [
        ("get", own.list()),
        ("post", own.write("create", "post", &WRITE)),
        ("delete", own.delete("delete collection of", "deletecollection")),
    ];
    paths.insert(collection, item(kind.namespaced, None, operations));
    let operations = [
        ("get", own.read()),
        ("put", own.write("replace the specified", "put", &WRITE)),
        ("patch", own.patch()),
        ("delete", own.delete("delete a", "delete")),
    ];
    paths.insert(object.clone(), item(kind.namespaced, Some(kind), operations));
    for subresource in subresources(kind) {
        let Subresource { name, body, act } = subresource;
        let operations = body.map_or_else(
            || Operations::of(kind),
            |(gvk, schema)| Operations {
                name: gvk[2],
                list_schema: String::new(),
                schema: schema.into(),
                gvk,
            },
        );
        let path = format!("{object}/{name}");
        let item = if act {
            let create = ("post", operations.write("create", "post", &WRITE));
            item(kind.namespaced, Some(kind), [create])
        } else {
            let read_and_change = [
                ("get", operations.read()),
                ("put", operations.write("replace the specified", "put", &WRITE)),
                ("patch", operations.patch()),
            ];
            item(kind.namespaced, Some(kind), read_and_change)
        };
        paths.insert(path, item);
    }
}

fn subresources(kind: &Kind) -> Vec<Subresource> {
    let mut found = Vec::new();
    if kind.has_status {
        found.push(Subresource { name: "status", body: None, act: false });
    }
    if kind.has_scale {
        let body = (["autoscaling", "v1", "Scale"], schemas::SCALE);
        found.push(Subresource { name: "scale", body: Some(body), act: false });
    }
    let acts: &[(&'static str, [&'static str; 3], &'static str)] = match kind.resource {
        "pods" => &[
            ("binding", ["", "v1", "Binding"], schemas::BINDING),
            ("eviction", ["policy", "v1", "Eviction"], schemas::EVICTION),
        ],
        "serviceaccounts" => {
            &[("token", ["authentication.k8s.io", "v1", "TokenRequest"], schemas::TOKEN_REQUEST)]
        }
        _ => &[],
    };
    for (name, gvk, schema) in acts {
        found.push(Subresource { name, body: Some((*gvk, *schema)), act: true });
    }
    found
}

/// A path with what holds for all its operations.
fn item<const N: usize>(
    namespaced: bool,
    named: Option<&Kind>,
    operations: [(&str, Value); N],
) -> Value {
    let mut item = Map::from_iter(operations.map(|(verb, value)| (verb.to_owned(), value)));
    let in_path = |name: &str, description: String| {
        json!({
            "name": name, "in": "path", "description": description, "required": true,
            "schema": {"type": "string", "uniqueItems": true},
        })
    };
    let mut parameters = Vec::new();
    if let Some(kind) = named {
        parameters.push(in_path("name", format!("name of the {}", kind.kind)));
    }
    if namespaced {
        let description = "object name and auth scope, such as for teams and projects";
        parameters.push(in_path("namespace", description.to_owned()));
    }
    if !parameters.is_empty() {
        item.insert("parameters".to_owned(), parameters.into());
    }
    item.into()
}

/// The operations on one type of body.
struct Operations {
    name: &'static str,
    schema: String,
    list_schema: String,
    /// Group, version, kind.
    gvk: [&'static str; 3],
}

impl Operations {
    fn of(kind: &Kind) -> Operations {
        Operations {
            name: kind.kind,
            schema: schemas::name_of(kind, kind.kind),
            list_schema: schemas::name_of(kind, kind.list_kind),
            gvk: [kind.group, kind.version, kind.kind],
        }
    }

    fn operation(
        &self,
        action: &str,
        description: String,
        parameters: &[Parameter],
        body: Option<Value>,
        answer: &str,
    ) -> Value {
        let [group, version, kind] = self.gvk;
        let mut operation = json!({
            "description": description,
            "responses": {
                "200": {"description": "OK", "content": content(&[JSON], answer)},
                "401": {"description": "Unauthorized"},
            },
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind":
                {"group": group, "version": version, "kind": kind},
        });
        if !parameters.is_empty() {
            let listed: Vec<Value> = parameters
                .iter()
                .map(|(name, json_type)| {
                    let schema = json!({"type": json_type, "uniqueItems": true});
                    json!({"name": name, "in": "query", "schema": schema})
                })
                .collect();
            operation["parameters"] = listed.into();
        }
        if let Some(content) = body {
            operation["requestBody"] = json!({"content": content});
        }
        operation
    }

    fn list(&self) -> Value {
        let description = format!("list or watch objects of kind {}", self.name);
        self.operation("list", description, &LIST, None, &self.list_schema)
    }

    fn read(&self) -> Value {
        let description = format!("read the specified {}", self.name);
        self.operation("get", description, &[], None, &self.schema)
    }

    fn write(&self, what: &str, action: &str, parameters: &[Parameter]) -> Value {
        let body = content(&[JSON, PROTOBUF, "application/yaml"], &self.schema);
        let description = format!("{what} {}", self.name);
        self.operation(action, description, parameters, Some(body), &self.schema)
    }

    fn patch(&self) -> Value {
        let description = format!("partially update the specified {}", self.name);
        let body = content(&PATCHES, schemas::PATCH);
        self.operation("patch", description, &PATCH, Some(body), &self.schema)
    }

    fn delete(&self, what: &str, action: &str) -> Value {
        let body = content(&[JSON, PROTOBUF], schemas::DELETE_OPTIONS);
        let description = format!("{what} {}", self.name);
        self.operation(action, description, &DELETE, Some(body), schemas::STATUS)
    }
}

fn content(types: &[&str], schema: &str) -> Value {
    let of_schema = json!({"schema": {"$ref": schemas::reference(schema)}});
    types.iter().map(|name| ((*name).to_owned(), of_schema.clone())).collect::<Map<_, _>>().into()
}
