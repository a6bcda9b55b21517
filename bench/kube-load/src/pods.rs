//! The Pods of the benchmark: what a Deployment of a small service makes, some
//! 3 KiB as stored, `managedFields` included.
//!
//! They are bound to a Node that nobody runs: the reference has neither a
//! scheduler nor a kubelet. Fields that the two servers would fill in
//! differently at creation (the volume of the ServiceAccount token) are stated.

use bytes::Bytes;
use serde_json::{Value, json};

pub(crate) const NAMESPACE: &str = "bench";
pub(crate) const COLLECTION: &str = "/api/v1/namespaces/bench/pods";

pub(crate) fn name(index: usize) -> String {
    format!("checkout-7d9c5b6f4-{index:05}")
}

pub(crate) fn path(index: usize) -> String {
    format!("{COLLECTION}/{}", name(index))
}

/// A Pod to be created.
pub(crate) fn body(index: usize) -> Bytes {
    Bytes::from(pod(index).to_string())
}

fn pod(index: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name(index),
            "namespace": NAMESPACE,
            "labels": {
                "app.kubernetes.io/name": "checkout",
                "app.kubernetes.io/version": "2.14.1",
                "pod-template-hash": "7d9c5b6f4",
            },
            "annotations": {
                "prometheus.io/scrape": "true",
                "prometheus.io/port": "9090",
                "example.com/revision": "0",
            },
        },
        "spec": {
            "nodeName": "nobody",
            "serviceAccountName": "default",
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "checkout",
                "image": "registry.example.com/shop/checkout:2.14.1",
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [
                    {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                ],
                "resources": {
                    "requests": {"cpu": "100m", "memory": "128Mi"},
                    "limits": {"memory": "256Mi"},
                },
                "readinessProbe": {
                    "httpGet": {"path": "/readyz", "port": "http"},
                    "periodSeconds": 5,
                },
                "volumeMounts": [{"name": "config", "mountPath": "/etc/checkout", "readOnly": true}],
            }],
            "volumes": [{"name": "config", "configMap": {"name": "checkout"}}],
        },
    })
}

/// A change of one annotation: what a registration in a Pod is.
pub(crate) fn change(number: usize) -> Bytes {
    let patch = json!({"metadata": {"annotations": {"example.com/revision": number.to_string()}}});
    Bytes::from(patch.to_string())
}

/// Makes the Namespace, and waits until Pods can be made in it.
pub(crate) fn namespace() -> Bytes {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    Bytes::from(object.to_string())
}

/// An answer with everything replaced that differs between any two runs.
pub(crate) fn normal(answer: &[u8]) -> anyhow::Result<Value> {
    let mut value: Value = serde_json::from_slice(answer)?;
    blank(&mut value);
    Ok(value)
}

fn blank(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // Members of JSON objects have no order.
            let mut sorted: Vec<_> = std::mem::take(fields).into_iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            for (key, mut inner) in sorted {
                match key.as_str() {
                    "uid" | "resourceVersion" | "creationTimestamp" | "time" => {
                        inner = Value::from("(differs)");
                    }
                    _ => blank(&mut inner),
                }
                fields.insert(key, inner);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(blank),
        _ => {}
    }
}
