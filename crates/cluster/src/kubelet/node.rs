//! The kubelet's own Node object and its Lease: made at start, kept fresh.

use std::{collections::BTreeMap, time::Duration};

use portolan_apiserver::{
    Status, kinds,
    registry::{Caller, Patch, Registry, Subresource, WriteOptions, object::timestamp},
};
use serde_json::{Value, json};

use super::{Config, unix_ms};
use crate::object;

/// Time between two renewals of the Lease (a quarter of `nodeLeaseDurationSeconds`).
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// `nodeLeaseDurationSeconds` of the kubelet's configuration.
const LEASE_S: u64 = 40;
/// Renewals between two writes of an unchanged status (`nodeStatusReportFrequency`, 5 minutes).
const RENEWALS_PER_STATUS: u64 = 30;
/// Where the Leases of Nodes live.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Pods that the node takes. Upstream's 110 has to do with the cost of real
/// containers; here addresses are the limit, and a thousand hollow Pods are usual.
const PODS_MAX: u64 = 10_000;

/// The marks of a Node that this process runs.
fn labels(config: &Config) -> BTreeMap<String, String> {
    let (os, arch) = (std::env::consts::OS, go_arch());
    let mut labels = config.labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", os),
        ("kubernetes.io/arch", arch),
        ("portolan.dev/runner", "true"),
    ] {
        labels.insert(key.into(), value.into());
    }
    if let Some(zone) = &config.zone {
        labels.insert("topology.kubernetes.io/zone".into(), zone.clone());
    }
    labels
}

/// The machine as Go programs name it.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn memory_kib() -> u64 {
    let table = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = table.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|t| t.trim().split(' ').next()?.parse().ok()).unwrap_or(1 << 20)
}

fn read_line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn status(config: &Config, before: &Value, now: &str) -> Value {
    let condition = |kind: &str, good: &str, reason: &str, message: &str| {
        let old = object::condition(before, kind).filter(|c| object::text(c, "/status") == good);
        let since = old.map(|c| object::text(c, "/lastTransitionTime")).filter(|t| !t.is_empty());
        json!({"type": kind, "status": good, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": since.unwrap_or(now)})
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let resources = json!({
        "cpu": cpus.to_string(),
        "memory": format!("{}Ki", memory_kib()),
        "ephemeral-storage": "0",
        "pods": PODS_MAX.to_string(),
    });
    let version = concat!("v", env!("CARGO_PKG_VERSION"), "-portolan");
    json!({
        "capacity": resources,
        "allocatable": resources,
        "addresses": [
            {"type": "InternalIP", "address": config.network.host_ip()},
            {"type": "Hostname", "address": config.node_name},
        ],
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure",
                "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID",
                "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "the runner of Pods is ready"),
        ],
        "nodeInfo": {
            "machineID": "", "systemUUID": "", "bootID": read_line("/proc/sys/kernel/random/boot_id"),
            "kernelVersion": read_line("/proc/sys/kernel/osrelease"),
            "osImage": "the machine itself",
            "containerRuntimeVersion": concat!("portolan://", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": version,
            "kubeProxyVersion": version,
            "operatingSystem": std::env::consts::OS,
            "architecture": go_arch(),
        },
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
    })
}

/// Makes the Node, or takes over the one that an earlier run left.
pub(crate) async fn announce(
    config: &Config,
    registry: &Registry,
    caller: &Caller,
) -> Result<(), Status> {
    let (kind, name, options) = (&kinds::NODES, config.node_name.as_str(), WriteOptions::default());
    let ranges: Vec<String> =
        config.network.usable(&config.pod_cidrs).iter().map(ToString::to_string).collect();
    let mut spec = json!({"providerID": format!("portolan://{name}")});
    if let Some(first) = ranges.first() {
        spec["podCIDR"] = first.as_str().into();
        spec["podCIDRs"] = ranges.clone().into();
    }
    let node = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels(config)}, "spec": spec});
    if registry.get(kind, "", name).is_ok() {
        // The ranges of a Node cannot change (upstream's validation); labels can.
        let patch = Patch::Merge(json!({"metadata": {"labels": labels(config)}}));
        registry.patch(caller, kind, "", name, None, patch, &options).await?;
    } else {
        registry.create(caller, kind, "", node, &options).await?;
    }
    report(config, registry, caller).await
}

async fn report(config: &Config, registry: &Registry, caller: &Caller) -> Result<(), Status> {
    let (kind, name) = (&kinds::NODES, config.node_name.as_str());
    let before = registry.get(kind, "", name)?;
    let status = status(config, &before, &timestamp(unix_ms() / 1000));
    let patch = Patch::Merge(json!({"status": status}));
    let part = Some(Subresource::Status);
    registry.patch(caller, kind, "", name, part, patch, &WriteOptions::default()).await.map(drop)
}

/// Renews the Lease, making it if need be.
async fn renew(config: &Config, registry: &Registry, caller: &Caller) -> Result<(), Status> {
    let (kind, name, options) =
        (&kinds::LEASES, config.node_name.as_str(), WriteOptions::default());
    let now = micro_time(unix_ms());
    if registry.get(kind, LEASE_NAMESPACE, name).is_ok() {
        let patch = Patch::Merge(json!({"spec": {"renewTime": now, "holderIdentity": name}}));
        return registry
            .patch(caller, kind, LEASE_NAMESPACE, name, None, patch, &options)
            .await
            .map(drop);
    }
    let mut lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": LEASE_NAMESPACE},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_S, "renewTime": now},
    });
    if let Ok(node) = registry.get(&kinds::NODES, "", name) {
        lease["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": object::uid(&node)}]);
    }
    registry.create(caller, kind, LEASE_NAMESPACE, lease, &options).await.map(drop)
}

/// As metav1.MicroTime writes it.
fn micro_time(unix_ms: u64) -> String {
    let seconds = timestamp(unix_ms / 1000);
    format!("{}.{:06}Z", seconds.trim_end_matches('Z'), unix_ms % 1000 * 1000)
}

/// Keeps Node and Lease fresh for ever; drop the future to end it.
pub(crate) async fn keep(config: &Config, registry: &Registry, caller: &Caller) {
    let mut renewals: u64 = 0;
    loop {
        if let Err(status) = renew(config, registry, caller).await {
            tracing::warn!(%status, "the node's lease could not be renewed");
        }
        tokio::time::sleep(RENEW_EVERY).await;
        renewals += 1;
        let gone = registry.get(&kinds::NODES, "", &config.node_name).is_err();
        let outcome = if gone {
            announce(config, registry, caller).await
        } else if renewals.is_multiple_of(RENEWALS_PER_STATUS) {
            report(config, registry, caller).await
        } else {
            Ok(())
        };
        if let Err(status) = outcome {
            tracing::warn!(%status, "the node's status could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_microseconds() {
        assert_eq!(micro_time(1_500), "1970-01-01T00:00:01.500000Z");
    }
}
