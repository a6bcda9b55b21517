//! Rows of what makes Pods.

use serde_json::{Value, json};

use super::{
    NONE,
    text::{labels, or, selector},
};
use crate::{
    registry::object,
    schema::value::{flag, int, list, text},
};

fn status(object: &Value, key: &str) -> i64 {
    int(object, &["status", key]).unwrap_or(0)
}

/// Replicas wanted; a spec that does not say means one (the default of every such kind).
fn wanted(object: &Value) -> i64 {
    int(object, &["spec", "replicas"]).unwrap_or(1)
}

/// One field of each container of the template, joined.
fn containers(object: &Value, key: &str) -> String {
    let containers = list(object, &["spec", "template", "spec", "containers"]);
    let texts: Vec<&str> = containers.iter().map(|c| text(c, &[key])).collect();
    texts.join(",")
}

fn selector_of(object: &Value) -> String {
    object.pointer("/spec/selector").map(selector).unwrap_or_default()
}

pub(super) fn deployment(deployment: &Value, age: &str) -> Vec<Value> {
    vec![
        json!(object::name(deployment)),
        json!(format!("{}/{}", status(deployment, "readyReplicas"), wanted(deployment))),
        json!(status(deployment, "updatedReplicas")),
        json!(status(deployment, "availableReplicas")),
        json!(age),
        json!(containers(deployment, "name")),
        json!(containers(deployment, "image")),
        json!(selector_of(deployment)),
    ]
}

pub(super) fn replica_set(set: &Value, age: &str) -> Vec<Value> {
    vec![
        json!(object::name(set)),
        json!(wanted(set)),
        json!(status(set, "replicas")),
        json!(status(set, "readyReplicas")),
        json!(age),
        json!(containers(set, "name")),
        json!(containers(set, "image")),
        json!(or(&selector_of(set), NONE)),
    ]
}

pub(super) fn stateful_set(set: &Value, age: &str) -> Vec<Value> {
    vec![
        json!(object::name(set)),
        json!(format!("{}/{}", status(set, "readyReplicas"), wanted(set))),
        json!(age),
        json!(containers(set, "name")),
        json!(containers(set, "image")),
    ]
}

pub(super) fn daemon_set(set: &Value, age: &str) -> Vec<Value> {
    vec![
        json!(object::name(set)),
        json!(status(set, "desiredNumberScheduled")),
        json!(status(set, "currentNumberScheduled")),
        json!(status(set, "numberReady")),
        json!(status(set, "updatedNumberScheduled")),
        json!(status(set, "numberAvailable")),
        json!(labels(set, &["spec", "template", "spec", "nodeSelector"])),
        json!(age),
        json!(containers(set, "name")),
        json!(containers(set, "image")),
        json!(or(&selector_of(set), NONE)),
    ]
}

pub(super) fn controller_revision(revision: &Value, age: &str) -> Vec<Value> {
    let owner = list(revision, &["metadata", "ownerReferences"])
        .iter()
        .find(|owner| flag(owner, &["controller"]));
    let controller = owner.map_or(NONE.to_owned(), |owner| {
        let group = text(owner, &["apiVersion"]).split_once('/').map(|(group, _)| group);
        let kind = match group {
            Some(group) => format!("{}.{group}", text(owner, &["kind"])),
            None => text(owner, &["kind"]).to_owned(),
        };
        format!("{}/{}", kind.to_lowercase(), text(owner, &["name"]))
    });
    vec![
        json!(object::name(revision)),
        json!(controller),
        json!(int(revision, &["revision"]).unwrap_or(0)),
        json!(age),
    ]
}
