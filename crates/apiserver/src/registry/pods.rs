//! Subresources that only Pods have: binding, eviction, logs.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use serde_json::{Value, json};

use super::{Caller, DeleteOptions, Deleted, Registry, WriteOptions, object};
use crate::{Cause, Kind, Status, kinds};

/// What `kubectl logs` asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogOptions {
    /// Which container; `None` when the Pod has one.
    pub container: Option<String>,
    /// Go on until the container ends or the client leaves.
    pub follow: bool,
    /// The container before the last restart.
    pub previous: bool,
    /// Put the time in front of every line.
    pub timestamps: bool,
    /// Only lines that are younger.
    pub since: Option<Duration>,
    /// Only lines after this time (seconds since 1970).
    pub since_unix_seconds: Option<u64>,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Lines of a log, in pieces of any size.
pub type LogStream = BoxStream<'static, std::io::Result<Bytes>>;

/// Whoever runs Pods and keeps what they print.
pub trait PodLogs: Send + Sync + 'static {
    /// Opens the log of a container of a Pod.
    fn open(
        &self,
        pod: Value,
        options: LogOptions,
    ) -> BoxFuture<'static, Result<LogStream, Status>>;
}

impl Registry {
    /// Binds a Pod to a Node, once.
    pub async fn bind(
        &self,
        caller: &Caller,
        namespace: &str,
        pod: &str,
        node: &str,
    ) -> Result<(), Status> {
        let binding = json!({"metadata": {"name": pod}, "target": {"kind": "Node", "name": node}});
        self.bind_object(caller, namespace, pod, &binding, &WriteOptions::default()).await
    }

    /// Binds a Pod as a `v1.Binding` says.
    pub(crate) async fn bind_object(
        &self,
        caller: &Caller,
        namespace: &str,
        pod: &str,
        binding: &Value,
        options: &WriteOptions,
    ) -> Result<(), Status> {
        let kind: &'static Kind = &kinds::PODS;
        let node = binding.pointer("/target/name").and_then(Value::as_str).unwrap_or_default();
        if object::name(binding) != pod {
            let why = "name in URL does not match name in Binding object";
            return Err(Status::bad_request(why));
        }
        check_target(binding)?;
        let now = self.now();
        let refused = |why: &str| {
            let mut status = Status::conflict(kind, pod, why);
            status.message = status.message.replacen(" on pods ", " on pods/binding ", 1);
            if let Some(details) = &mut status.details {
                details.kind = "pods/binding".into();
            }
            status
        };
        let change = |old: &Value| {
            if object::is_deleting(old) {
                let why = format!("pod {pod} is being deleted, cannot be assigned to a host");
                return Err(refused(&why));
            }
            let bound = old.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
            if !bound.is_empty() {
                return Err(refused(&format!("pod {pod} is already assigned to node {bound:?}")));
            }
            let gates = old.pointer("/spec/schedulingGates").and_then(Value::as_array);
            if gates.is_some_and(|g| !g.is_empty()) {
                return Err(refused(&format!("pod {pod} has non-empty .spec.schedulingGates")));
            }
            let asked = object::uid(binding);
            if !asked.is_empty() && asked != object::uid(old) {
                let why = format!(
                    "Precondition failed: UID in precondition: {asked}, UID in object meta: {}",
                    object::uid(old)
                );
                return Err(Status::conflict(kind, pod, &why));
            }
            Ok(bound_pod(old, binding, node, &now))
        };
        tracing::trace!(user = %caller.user, namespace, pod, node, "bind");
        self.modify_whole(kind, namespace, pod, &change, options).await
    }

    /// Deletes a Pod as a `policy/v1` Eviction asks. There are no disruption budgets here.
    pub(crate) async fn evict(
        &self,
        caller: &Caller,
        namespace: &str,
        pod: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        self.delete(caller, &kinds::PODS, namespace, pod, options).await
    }
}

/// Binds only to Nodes. Upstream answers with the bare list of faults, as an error that it did
/// not foresee.
fn check_target(binding: &Value) -> Result<(), Status> {
    let text = |path| binding.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let mut causes = Vec::new();
    if !matches!(text("/target/kind"), "" | "Node") {
        let known = ["<empty>", "Node"];
        causes.push(Cause::not_supported("target.kind", &text("/target/kind").into(), &known));
    }
    if text("/target/name").is_empty() {
        causes.push(Cause::required("target.name", ""));
    }
    let texts: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
    match texts.as_slice() {
        [] => Ok(()),
        [only] => Err(Status::unforeseen(only.as_str())),
        several => Err(Status::unforeseen(format!("[{}]", several.join(", ")))),
    }
}

fn bound_pod(old: &Value, binding: &Value, node: &str, now: &str) -> Value {
    let mut pod = old.clone();
    if let Some(extra) = object::metadata(binding).get("annotations").and_then(Value::as_object) {
        let annotations = object::map_at(object::metadata_mut(&mut pod), "annotations");
        annotations.extend(extra.iter().map(|(k, v)| (k.clone(), v.clone())));
    }
    let map = object::map_of(&mut pod);
    object::map_at(map, "spec").insert("nodeName".into(), node.into());
    let status = object::map_at(map, "status");
    let conditions = status.entry("conditions").or_insert(json!([]));
    if let Some(list) = conditions.as_array_mut() {
        list.retain(|c| c.get("type") != Some(&json!("PodScheduled")));
        list.push(json!({
            "type": "PodScheduled",
            "status": "True",
            "lastTransitionTime": now,
        }));
    }
    pod
}
