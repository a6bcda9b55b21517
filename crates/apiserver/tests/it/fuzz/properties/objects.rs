//! Objects grown along the schemas that the API publishes.

use std::{collections::BTreeMap, sync::LazyLock};

use portolan_apiserver::{Kind, kinds, schema::openapi};
use portolan_testkit::fuzz::Choices;
use serde_json::{Map, Value, json};

/// Values in one object, and how deep it goes.
const VALUES_MAX: usize = 300;
const DEPTH_MAX: usize = 14;

/// Few names, so that lists and maps meet.
pub(super) const NAMES: [&str; 4] = ["a", "b", "main", "app.kubernetes.io/name"];

/// Texts that mean something to some rule, and some that break all of them.
const TEXTS: [&str; 40] = [
    "",
    "a",
    "b",
    "main",
    "TCP",
    "UDP",
    "http",
    "80",
    "100m",
    "1Gi",
    "-1",
    "1e400",
    "25%",
    "Always",
    "ClusterIP",
    "NodePort",
    "ExternalName",
    "LoadBalancer",
    "None",
    "10.0.0.1",
    "127.0.0.1",
    "::1",
    "fd00::/112",
    "10.0.0.0/24",
    "IPv4",
    "IPv6",
    "app=web",
    "YQ==",
    "%%",
    "metadata.name",
    "2030-01-01T00:00:00Z",
    "2030-13-01T00:00:00.123456Z",
    "$(VAR)",
    "/a/../b",
    "a.b-c/d",
    "é\u{0}",
    "99999999999999999999",
    "*",
    "..",
    "\u{feff}",
];

const NUMBERS: [i64; 10] = [0, 1, -1, 80, 443, 30_080, 65_535, 65_536, i64::MAX, i64::MIN];

struct Documents {
    /// Schemas by the name that references have.
    schemas: BTreeMap<String, Value>,
    /// Of a kind: the name of its schema.
    roots: BTreeMap<(String, String), String>,
}

static DOCUMENTS: LazyLock<Documents> = LazyLock::new(|| {
    let mut documents = Documents { schemas: BTreeMap::new(), roots: BTreeMap::new() };
    let index = openapi::index();
    for path in index["paths"].as_object().expect("paths").keys() {
        let text = openapi::document(path).expect("a document of the index");
        let document: Value = serde_json::from_slice(&text).expect("JSON");
        let schemas = document["components"]["schemas"].as_object().cloned().unwrap_or_default();
        for (name, schema) in schemas {
            for gvk in schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
                let text = |key: &str| gvk[key].as_str().unwrap_or_default();
                let version = match text("group") {
                    "" => text("version").to_owned(),
                    group => format!("{group}/{}", text("version")),
                };
                documents.roots.insert((version, text("kind").to_owned()), name.clone());
            }
            documents.schemas.insert(name, schema);
        }
    }
    documents
});

pub(super) fn kind(choices: &mut Choices<'_>) -> &'static Kind {
    choices.one(kinds::ALL)
}

/// How far an object keeps to its schema.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Manners {
    /// Types are right, elements of lists can be told apart.
    Good,
    /// Anything anywhere.
    Bad,
    /// A strategic patch: with directives and nulls.
    Patch,
}

/// An object of a kind.
pub(super) fn object(kind: &Kind, manners: Manners, choices: &mut Choices<'_>) -> Value {
    let root = (kind.api_version.to_owned(), kind.kind.to_owned());
    let name = DOCUMENTS.roots.get(&root).expect("a schema for every kind");
    let mut grower = Grower { manners, values: VALUES_MAX };
    let mut object = grower.schema(&DOCUMENTS.schemas[name], choices, DEPTH_MAX);
    if manners == Manners::Patch {
        return object;
    }
    // What is stored is an object of its kind, with a name.
    if !object.is_object() {
        object = json!({});
    }
    object["apiVersion"] = kind.api_version.into();
    object["kind"] = kind.kind.into();
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let metadata = &mut object["metadata"];
    metadata["name"] = "main".into();
    if let Value::Object(metadata) = metadata {
        metadata.shift_remove("managedFields");
        metadata.shift_remove("resourceVersion");
    }
    object
}

/// Any JSON.
pub(super) fn anything(choices: &mut Choices<'_>, depth: usize) -> Value {
    match choices.below(if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => choices.rarely(2).into(),
        2 => choices.one(&NUMBERS).into(),
        3 => json!(f64::from(choices.byte()) * 1.5e300),
        4 => choices.one(&TEXTS).into(),
        5 => choices.text(20).into(),
        6 => (0..choices.below(4)).map(|_| anything(choices, depth - 1)).collect(),
        _ => {
            let entry = |choices: &mut Choices<'_>| {
                let name = match choices.below(3) {
                    0 => choices.one(&DIRECTIVES).to_owned(),
                    _ => choices.one(&NAMES).to_owned(),
                };
                (name, anything(choices, depth - 1))
            };
            Value::Object((0..choices.below(4)).map(|_| entry(choices)).collect())
        }
    }
}

const DIRECTIVES: [&str; 8] = [
    "$patch",
    "$retainKeys",
    "$setElementOrder/a",
    "$setElementOrder/ports",
    "$deleteFromPrimitiveList/a",
    "$deleteFromPrimitiveList/finalizers",
    "metadata",
    "spec",
];

struct Grower {
    manners: Manners,
    values: usize,
}

impl Grower {
    fn schema(&mut self, schema: &Value, choices: &mut Choices<'_>, depth: usize) -> Value {
        self.values = self.values.saturating_sub(1);
        if self.manners == Manners::Bad && choices.rarely(24) {
            return anything(choices, 3);
        }
        if self.manners == Manners::Patch && choices.rarely(16) {
            return Value::Null;
        }
        let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
        if let Some(reference) = reference {
            let name = reference.rsplit('/').next().unwrap_or_default();
            let found = DOCUMENTS.schemas.get(name);
            return found.map_or(Value::Null, |found| self.schema(found, choices, depth));
        }
        match schema["type"].as_str() {
            Some("string") => text(schema, choices).into(),
            Some("integer") => {
                choices.one(&NUMBERS[..if self.manners == Manners::Bad { 10 } else { 8 }]).into()
            }
            Some("number") => json!(f64::from(choices.byte()) / 8.0),
            Some("boolean") => choices.rarely(2).into(),
            Some("array") => self.list(schema, choices, depth),
            _ if schema.get("properties").is_some() => self.members(schema, choices, depth),
            _ if schema.get("additionalProperties").is_some() => {
                let inner = &schema["additionalProperties"];
                let entries = (0..self.size(choices, depth)).map(|_| {
                    let name = choices.one(&NAMES).to_owned();
                    (name, self.schema(inner, choices, depth - 1))
                });
                Value::Object(entries.collect())
            }
            // Quantities, ints or strings, free JSON.
            _ => match choices.below(3) {
                0 => choices.one(&NUMBERS[..7]).into(),
                1 => choices.one(&TEXTS).into(),
                _ => json!({}),
            },
        }
    }

    fn size(&self, choices: &mut Choices<'_>, depth: usize) -> usize {
        if depth == 0 || self.values == 0 { 0 } else { choices.below(4) }
    }

    fn members(&mut self, schema: &Value, choices: &mut Choices<'_>, depth: usize) -> Value {
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        let mut map = Map::new();
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if depth > 0 && (self.manners == Manners::Good || !choices.rarely(6)) {
                map.insert(name.into(), self.schema(&properties[name], choices, depth - 1));
            }
        }
        for _ in 0..self.size(choices, depth) + usize::from(depth == DEPTH_MAX) {
            let Some((name, schema)) = properties.iter().nth(choices.below(properties.len()))
            else {
                break;
            };
            let value = self.schema(schema, choices, depth - 1);
            map.insert(name.clone(), value);
        }
        if self.manners == Manners::Patch && choices.rarely(8) {
            let lists = properties.iter().filter(|(_, schema)| schema["type"] == "array");
            let names: Vec<&String> = lists.map(|(name, _)| name).collect();
            let list = if names.is_empty() { "a" } else { choices.one(&names) };
            let (directive, value) = match choices.below(4) {
                0 => ("$patch".into(), json!(choices.one(&["delete", "replace", "merge", "frob"]))),
                1 => (
                    "$retainKeys".into(),
                    json!(properties.keys().take(choices.below(5)).collect::<Vec<_>>()),
                ),
                2 => {
                    let element = |name: &str| match choices.below(2) {
                        0 => json!({"name": name}),
                        _ => json!(name),
                    };
                    let order: Vec<Value> = NAMES.iter().copied().map(element).collect();
                    (format!("$setElementOrder/{list}"), json!(order))
                }
                _ => (format!("$deleteFromPrimitiveList/{list}"), json!(NAMES[..choices.below(4)])),
            };
            map.insert(directive, value);
        }
        Value::Object(map)
    }

    fn list(&mut self, schema: &Value, choices: &mut Choices<'_>, depth: usize) -> Value {
        let mut items: Vec<Value> = Vec::new();
        for _ in 0..self.size(choices, depth) {
            items.push(self.schema(&schema["items"], choices, depth - 1));
        }
        if self.manners == Manners::Good {
            tell_apart(&mut items, schema);
        }
        items.into()
    }
}

/// Gives the elements of a keyed list different keys, and sets one of each.
fn tell_apart(items: &mut Vec<Value>, schema: &Value) {
    let merge = schema["x-kubernetes-patch-merge-key"].as_str();
    let keys = schema["x-kubernetes-list-map-keys"].as_array();
    let keys: Vec<&str> =
        keys.into_iter().flatten().filter_map(Value::as_str).chain(merge).collect();
    for (index, item) in items.iter_mut().enumerate() {
        for key in &keys {
            if let Value::Object(map) = item {
                let value = match map.get(*key) {
                    Some(Value::Number(_)) => json!(index + 1),
                    None if key.ends_with("ort") => json!(index + 1),
                    _ => json!(format!("k{index}")),
                };
                map.insert((*key).into(), value);
            }
        }
    }
    if keys.is_empty() {
        let mut seen = Vec::new();
        items.retain(|item| {
            let new = !seen.contains(item);
            seen.push(item.clone());
            new
        });
    }
}

fn text(schema: &Value, choices: &mut Choices<'_>) -> String {
    let allowed = schema["enum"].as_array().filter(|_| !choices.rarely(8));
    if let Some(allowed) = allowed {
        return allowed[choices.below(allowed.len())].as_str().unwrap_or_default().to_owned();
    }
    match schema["format"].as_str() {
        Some("date-time") if !choices.rarely(8) => "2030-01-01T00:00:00Z".to_owned(),
        Some("byte") if !choices.rarely(8) => "YQ==".to_owned(),
        _ => choices.one(&TEXTS).to_owned(),
    }
}
