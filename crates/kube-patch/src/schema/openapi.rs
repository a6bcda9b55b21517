//! A [`Schema`] from an OpenAPI v3 schema: of a custom resource definition, or of the document
//! that an API server publishes under `/openapi/v3`.
//!
//! Read: `properties`, `additionalProperties`, `items`, `$ref`, `allOf` with one entry (how
//! Kubernetes attaches a default to a reference), `default`, and the marks
//! `x-kubernetes-list-type`, `-list-map-keys`, `-map-type`, `-patch-strategy`, `-patch-merge-key`.
//! Anything malformed is read as absent: the server validates definitions before they come here.

use std::collections::HashMap;

use serde_json::Value;

use super::{Builder, ListType, MapKey, Member, Node, PatchRule, PatchStrategy, Schema};

const MAP_TYPE: &str = "x-kubernetes-map-type";
const REFERENCE_PREFIX: &str = "#/components/schemas/";

pub(super) fn build(schema: &Value, components: &Value) -> Schema {
    let mut reader = Reader { builder: Builder::default(), components, by_name: HashMap::new() };
    let root = reader.node(schema);
    Schema { nodes: reader.builder.nodes, root, unlisted_are_fields: false }
}

struct Reader<'a> {
    builder: Builder,
    components: &'a Value,
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Reader<'a> {
    fn node(&mut self, schema: &'a Value) -> usize {
        let Some(name) = reference(schema) else {
            return self.build(schema);
        };
        let target = match self.by_name.get(name) {
            Some(&known) => known,
            None => self.component(name),
        };
        // A field may overrule its type: claimRef of a PersistentVolume is granular, though an
        // ObjectReference elsewhere is atomic.
        match text(schema, MAP_TYPE) {
            None => target,
            Some(map_type) => {
                let node =
                    Node { atomic: map_type == "atomic", ..self.builder.nodes[target].clone() };
                self.builder.add(node)
            }
        }
    }

    fn component(&mut self, name: &'a str) -> usize {
        let id = self.builder.add(Node::default());
        // Registered before it is filled: a schema may contain itself.
        self.by_name.insert(name, id);
        if let Some(schema) = self.components.get(name) {
            let filled = self.read(schema);
            self.builder.nodes[id] = filled;
        }
        id
    }

    fn build(&mut self, schema: &'a Value) -> usize {
        let node = self.read(schema);
        self.builder.add(node)
    }

    fn read(&mut self, schema: &'a Value) -> Node {
        let mut node = Node {
            list: self.list_type(schema),
            atomic: text(schema, MAP_TYPE) == Some("atomic"),
            ..Node::default()
        };
        if let Some(Value::Object(properties)) = schema.get("properties") {
            for (name, property) in properties {
                let member = Member { node: self.node(property), rule: patch_rule(property) };
                node.fields.insert(name.as_str().into(), member);
            }
        }
        if let Some(values) = schema.get("additionalProperties").filter(|v| v.is_object()) {
            node.values = Some(self.node(values));
        }
        if let Some(items) = schema.get("items").filter(|v| v.is_object()) {
            node.item = Some(self.node(items));
        }
        node
    }

    fn list_type(&self, schema: &Value) -> ListType {
        match text(schema, "x-kubernetes-list-type") {
            Some("set") => ListType::Set,
            Some("map") => {
                let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                let properties = schema.get("items").and_then(|items| {
                    let named = reference(items).and_then(|name| self.components.get(name));
                    named.unwrap_or(items).get("properties")
                });
                let default = |name: &str| properties?.get(name)?.get("default").cloned();
                let names = keys.into_iter().flatten().filter_map(Value::as_str);
                ListType::Map(
                    names
                        .map(|name| MapKey { name: name.to_owned(), default: default(name) })
                        .collect(),
                )
            }
            _ => ListType::Atomic,
        }
    }
}

fn reference(schema: &Value) -> Option<&str> {
    let direct = schema.get("$ref");
    let single = || match schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([only]) => only.get("$ref"),
        _ => None,
    };
    direct.or_else(single)?.as_str()?.strip_prefix(REFERENCE_PREFIX)
}

fn text<'a>(schema: &'a Value, key: &str) -> Option<&'a str> {
    schema.get(key).and_then(Value::as_str)
}

fn patch_rule(schema: &Value) -> PatchRule {
    let words = text(schema, "x-kubernetes-patch-strategy").unwrap_or_default();
    let has = |word: &str| words.split(',').any(|w| w == word);
    let strategy = match text(schema, "x-kubernetes-patch-merge-key") {
        _ if has("replace") => PatchStrategy::Replace,
        Some(key) if has("merge") => PatchStrategy::MergeBy(key.to_owned()),
        None if has("merge") => PatchStrategy::MergeScalars,
        _ => PatchStrategy::ByType,
    };
    PatchRule { strategy, retain_keys: has("retainKeys") }
}
