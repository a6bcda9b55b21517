//! Validation, table-driven: a good object, a change to it, and the causes in upstream's words.

mod network;
mod pods;
mod rest;

use serde_json::{Value, json};

use super::{Context, create, update, update_status};
use crate::{
    Cause, Kind,
    kinds::{DEPLOYMENTS, PODS},
    schema::defaults,
};

fn told(causes: &[Cause]) -> Vec<String> {
    causes
        .iter()
        .map(|c| {
            if c.field.is_empty() {
                c.message.clone()
            } else {
                format!("{}: {}", c.field, c.message)
            }
        })
        .collect()
}

/// RFC 7386: what the tables write is only what differs.
fn merge(base: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *base = patch.clone();
        return;
    };
    if !base.is_object() {
        *base = json!({});
    }
    let map = base.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn with(base: &Value, patch: &Value) -> Value {
    let mut object = base.clone();
    merge(&mut object, patch);
    object
}

/// An object as it comes to validation: named and with defaults.
fn named(kind: &Kind, body: Value) -> Value {
    let mut object = json!({"metadata": {"name": "x"}});
    if kind.namespaced {
        object["metadata"]["namespace"] = json!("default");
    }
    merge(&mut object, &body);
    defaults::apply(kind, &mut object);
    object
}

fn good_pod() -> Value {
    named(&PODS, json!({"spec": {"containers": [{"name": "a", "image": "a:1"}]}}))
}

fn good_deployment() -> Value {
    named(
        &DEPLOYMENTS,
        json!({"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {
            "metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [{"name": "a", "image": "a:1"}]}}}}),
    )
}

fn created(kind: &Kind, object: &Value, expected: &[&str]) {
    assert_eq!(told(&create(kind, object, &Context::default())), expected, "{kind:?} {object}");
}

/// A good object with a change, which is refused for these causes; without it, it is taken.
fn refused(kind: &Kind, base: &Value, table: &[(Value, &[&str])]) {
    created(kind, base, &[]);
    assert_eq!(told(&update(kind, base, base, &Context::default())), [""; 0], "{kind:?} {base}");
    for (patch, expected) in table {
        created(kind, &with(base, patch), expected);
    }
}

/// A change of a stored object.
fn changed(kind: &Kind, old: &Value, patch: &Value, expected: &[&str]) {
    let causes = update(kind, old, &with(old, patch), &Context::default());
    assert_eq!(told(&causes), expected, "{kind:?} {patch}");
}

/// A change through `/status`.
fn status_changed(kind: &Kind, old: &Value, patch: &Value, expected: &[&str]) {
    let causes = update_status(kind, old, &with(old, patch), &Context::default());
    assert_eq!(told(&causes), expected, "{kind:?} {patch}");
}
