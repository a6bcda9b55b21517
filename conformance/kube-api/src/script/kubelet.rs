//! Plays the kubelet for a Namespace, on either server: binds Pods to a Node
//! that nobody has, sets their status, and ends those that are deleted.
//!
//! Addresses are numbers in a status; nothing dials them.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::sleep};

use crate::client::{Call, Client};

/// The Node of all Pods.
const NODE: &str = "kubectl-node";
/// Pods with this label stay as they are.
const LEFT_ALONE: &str = "nobody-runs-this";
/// Addresses of Pods: always three digits, so that none begins another.
pub(super) const ADDRESSES: &str = "10.244.9.";
const FIRST_ADDRESS: usize = 100;
const ADDRESS_COUNT: usize = 150;
const POLL: Duration = Duration::from_millis(100);

/// Plays until it is dropped.
pub(super) struct Kubelet(JoinHandle<()>);

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Kubelet {
    pub(super) async fn start(client: Client, namespace: &str) -> Result<Kubelet> {
        let node = json!({"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}});
        let made = write(&client, "POST", "/api/v1/nodes".into(), &node).await?;
        ensure!(made == 201 || made == 409, "Node: {made}");
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        Ok(Kubelet(tokio::spawn(async move {
            let mut count = 0;
            loop {
                if let Err(error) = round(&client, &pods, &mut count).await {
                    eprintln!("{pods}: {error:#}");
                }
                sleep(POLL).await;
            }
        })))
    }
}

async fn round(client: &Client, pods: &str, count: &mut usize) -> Result<()> {
    let call = Call { method: "GET".into(), path: pods.into(), ..Call::default() };
    let list: Value = serde_json::from_slice(&client.call(&call).await?.body)?;
    let items = list.get("items").and_then(Value::as_array);
    for pod in items.into_iter().flatten() {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
        let Some(name) = text("/metadata/name") else { continue };
        let path = format!("{pods}/{name}");
        if pod.pointer(&format!("/metadata/labels/{LEFT_ALONE}")).is_some() {
            continue;
        }
        // Somebody else may have been faster: what fails is seen again.
        if text("/metadata/deletionTimestamp").is_some() {
            write(client, "DELETE", path, &json!({"gracePeriodSeconds": 0})).await?;
            continue;
        }
        if text("/spec/nodeName").is_none() {
            let binding = json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
            });
            write(client, "POST", format!("{path}/binding"), &binding).await?;
        }
        if text("/status/phase") == Some("Pending") {
            let address = format!("{ADDRESSES}{}", FIRST_ADDRESS + *count % ADDRESS_COUNT);
            *count += 1;
            write(client, "PATCH", format!("{path}/status"), &running(pod, &address)).await?;
        }
    }
    Ok(())
}

/// The status of a Pod whose containers all run.
fn running(pod: &Value, address: &str) -> Value {
    let since = "2001-01-01T00:00:00Z";
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    let containers: Vec<Value> = containers
        .into_iter()
        .flatten()
        .map(|container| {
            json!({
                "name": container.get("name"), "image": container.get("image"),
                "imageID": "sha256:0", "containerID": "none://0", "ready": true, "started": true,
                "restartCount": 0, "lastState": {}, "state": {"running": {"startedAt": since}},
            })
        })
        .collect();
    let conditions: Vec<Value> =
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
            .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": since}))
            .to_vec();
    json!({"status": {
        "phase": "Running", "hostIP": "10.0.0.9", "hostIPs": [{"ip": "10.0.0.9"}],
        "podIP": address, "podIPs": [{"ip": address}], "startTime": since,
        "conditions": conditions, "containerStatuses": containers,
    }})
}

async fn write(client: &Client, method: &str, path: String, body: &Value) -> Result<u16> {
    let kind = if method == "PATCH" { "strategic-merge-patch+json" } else { "json" };
    let call = Call {
        method: method.into(),
        path,
        content_type: Some(format!("application/{kind}")),
        body: body.to_string().into(),
        ..Call::default()
    };
    Ok(client.call(&call).await?.code)
}
