//! What a typed server finds out while it reads JSON: wrong types, unknown fields, and what of an
//! object is left once Go's structs have held it.
//!
//! All walk an object along the table of types ([`super::data`]). Texts are those of the Go
//! decoder (`sigs.k8s.io/json`, a fork of `encoding/json`), for people search for them.

mod check;
mod complete;
mod text;

use serde_json::{Map, Value};

pub use check::{check, check_as};
pub use complete::complete;

use super::data::{Scalar, Shape, StructId, types};
use super::quantity::Quantity;
use super::value::is_zero;
use crate::kinds::Kind;

/// How many unknown fields are reported at most; upstream's decoder stops there too.
const MAX_UNKNOWN_FIELDS: usize = 100;

/// Fields that the kind does not have, in the order of the document, each as
/// `unknown field "spec.ports[0].prot"`. With `fieldValidation=Strict` the caller refuses them
/// (`strict decoding error: ` and all of them, joined by `, `), with `Warn` each is a warning.
pub fn unknown_fields(kind: &Kind, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(root) = types().root(kind.api_version, kind.kind) {
        let mut finder = Finder { path: String::new(), found: &mut found };
        finder.walk(&Shape::Struct(root), object);
    }
    found
}

/// Whether a text is a time, as `metav1.Time` reads one.
pub(crate) fn check_time(text: &str) -> Result<(), String> {
    text::time(text)
}

/// Whether this is the Go name of a struct, such as `v1.PodSpec`.
pub(crate) fn is_struct(name: &str) -> bool {
    types().is_struct(name)
}

struct Finder<'f> {
    path: String,
    found: &'f mut Vec<String>,
}

impl Finder<'_> {
    fn walk(&mut self, shape: &Shape, value: &Value) {
        match (shape, value) {
            (Shape::Struct(id), Value::Object(fields)) => {
                for (name, value) in fields {
                    match types().get(*id).member(name) {
                        Some(member) => self.enter(name, &member.shape, value),
                        None => self.report(name),
                    }
                }
            }
            (Shape::Map(shape, _), Value::Object(entries)) if holds_structs(shape) => {
                for (key, value) in entries {
                    self.enter(key, shape, value);
                }
            }
            (Shape::List(shape), Value::Array(items)) if holds_structs(shape) => {
                let length = self.path.len();
                for (index, item) in items.iter().enumerate() {
                    self.path.push_str(&format!("[{index}]"));
                    self.walk(shape, item);
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn enter(&mut self, name: &str, shape: &Shape, value: &Value) {
        if value.is_object() || value.is_array() {
            let length = self.path.len();
            self.path = join(&self.path, name);
            self.walk(shape, value);
            self.path.truncate(length);
        }
    }

    fn report(&mut self, name: &str) {
        if self.found.len() < MAX_UNKNOWN_FIELDS {
            self.found.push(format!("unknown field \"{}\"", join(&self.path, name)));
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Whether there may be struct fields inside; walks skip lists and maps of plain values.
fn holds_structs(shape: &Shape) -> bool {
    match shape {
        Shape::Struct(_) => true,
        Shape::List(inner) | Shape::Map(inner, _) => holds_structs(inner),
        _ => false,
    }
}

/// Drops what Go's structs would not have held or not have written again: unknown fields, nulls and
/// zero values of fields that it leaves out then; and spells quantities in their one canonical way.
pub fn prune(kind: &Kind, object: &mut Value) {
    if let (Some(root), Value::Object(fields)) = (types().root(kind.api_version, kind.kind), object)
    {
        prune_struct(root, fields);
    }
}

fn prune_struct(id: StructId, fields: &mut Map<String, Value>) {
    let known = types().get(id);
    fields.retain(|name, value| match known.member(name) {
        Some(member) if value.is_null() => member.always,
        Some(member) => !(member.omit_zero && is_empty(value)),
        None => false,
    });
    for (name, value) in fields.iter_mut() {
        if let Some(member) = known.member(name) {
            prune_value(&member.shape, value);
        }
    }
}

/// Whether Go's `omitempty` leaves it out; structs are not marked so in the table.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        plain => is_zero(plain),
    }
}

fn prune_value(shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Struct(id), Value::Object(fields)) => prune_struct(*id, fields),
        (Shape::List(shape), Value::Array(items)) => {
            items.iter_mut().for_each(|item| prune_value(shape, item));
        }
        (Shape::Map(shape, _), Value::Object(entries)) => {
            entries.values_mut().for_each(|entry| prune_value(shape, entry));
        }
        (Shape::Time, Value::String(text)) => text::to_utc(text, false),
        (Shape::MicroTime, Value::String(text)) => text::to_utc(text, true),
        // Go reads over line breaks.
        (Shape::Scalar(Scalar::Bytes, _), Value::String(text)) => {
            text.retain(|c| !matches!(c, '\r' | '\n'));
        }
        // Go decodes null into a string by leaving it empty.
        (Shape::Scalar(Scalar::String, _), value @ Value::Null) => *value = "".into(),
        (Shape::Quantity, value) => {
            if let Some(quantity) = Quantity::from_value(value) {
                *value = quantity.to_string().into();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds;

    #[track_caller]
    fn unknown(kind: &Kind, object: Value, expected: &[&str]) {
        let expected: Vec<_> = expected.iter().map(|f| format!("unknown field \"{f}\"")).collect();
        assert_eq!(unknown_fields(kind, &object), expected);
    }

    #[test]
    fn unknown_fields_are_named_by_path() {
        unknown(&kinds::SERVICES, json!({"spec": {"foo": 1}}), &["spec.foo"]);
        unknown(&kinds::SERVICES, json!({"foo": 1, "kind": "Service"}), &["foo"]);
        unknown(
            &kinds::SERVICES,
            json!({"spec": {"ports": [{"port": 1}, {"prot": 1, "targetPort": "x"}]}}),
            &["spec.ports[1].prot"],
        );
        unknown(
            &kinds::DEPLOYMENTS,
            json!({"spec": {"template": {"spec": {"containers": [
                {"resources": {"limits": {"cpu": 1, "a/b": "1Gi"}, "limit": {}}},
            ]}}}, "status": {"x": {}}}),
            &["spec.template.spec.containers[0].resources.limit", "status.x"],
        );
        // Case counts.
        unknown(&kinds::PODS, json!({"metadata": {"Name": "x"}}), &["metadata.Name"]);
    }

    #[test]
    fn free_maps_and_embedded_structs_are_known() {
        unknown(
            &kinds::PODS,
            json!({
                "metadata": {"labels": {"any": "x"}, "managedFields": [{"fieldsV1": {"f:x": {}}}]},
                "spec": {"volumes": [{"name": "v", "configMap": {"name": "c", "items": []}}]},
            }),
            &[],
        );
        unknown(&kinds::CONTROLLER_REVISIONS, json!({"data": {"any": {"thing": 1}}}), &[]);
    }

    #[test]
    fn wrong_types_are_not_walked_and_reports_are_bounded() {
        unknown(&kinds::PODS, json!({"spec": 1, "metadata": []}), &[]);
        unknown(&kinds::PODS, json!([]), &[]);
        let many: Map<_, _> = (0..1000).map(|i| (format!("f{i}"), Value::Null)).collect();
        assert_eq!(unknown_fields(&kinds::PODS, &Value::Object(many)).len(), MAX_UNKNOWN_FIELDS);
    }

    #[test]
    fn pruning_leaves_what_go_would_write() {
        let mut pod = json!({
            "kind": "Pod", "foo": 1,
            "metadata": {"name": "p", "namespace": "", "labels": {}, "creationTimestamp": null,
                "annotations": {"a": null}},
            "spec": {"hostNetwork": false, "terminationGracePeriodSeconds": 0, "containers": [
                {"name": "", "bar": 1, "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}}},
            ]},
            "status": {},
        });
        prune(&kinds::PODS, &mut pod);
        assert_eq!(
            pod,
            json!({
                "kind": "Pod",
                "metadata": {"name": "p", "creationTimestamp": null, "annotations": {"a": ""}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [
                    {"name": "", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
                ]},
                "status": {},
            })
        );
    }
}
