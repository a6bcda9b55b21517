//! Fields that v1.33 knows and does not hold, because what they belong to is behind a gate that is
//! off by default. A write that sets one goes through without it, as upstream's strategies do
//! (`dropDisabledFields`).

use serde_json::Value;

use crate::kinds::Kind;

/// Of the specs of Pods. `[]` stands for each entry of a list.
const OF_PODS: [&str; 9] = [
    // PodLevelResources
    "resources",
    // DynamicResourceAllocation
    "resourceClaims",
    "containers[].resources.claims",
    "initContainers[].resources.claims",
    "ephemeralContainers[].resources.claims",
    // ContainerStopSignals
    "containers[].lifecycle.stopSignal",
    "initContainers[].lifecycle.stopSignal",
    "ephemeralContainers[].lifecycle.stopSignal",
    // ClusterTrustBundleProjection
    "volumes[].projected.sources[].clusterTrustBundle",
];

/// Of other kinds.
fn of_kind(kind: &Kind) -> &'static [&'static str] {
    match (kind.group, kind.kind) {
        // MaxUnavailableStatefulSet
        ("apps", "StatefulSet") => &["spec.updateStrategy.rollingUpdate.maxUnavailable"],
        // PreferSameTrafficDistribution; the topology is what v1 calls nodeName and zone
        ("discovery.k8s.io", "EndpointSlice") => {
            &["endpoints[].hints.forNodes", "endpoints[].deprecatedTopology"]
        }
        // DeploymentReplicaSetTerminatingReplicas
        ("apps", "Deployment" | "ReplicaSet") => &["status.terminatingReplicas"],
        _ => &[],
    }
}

/// Drops what is behind a gate.
pub fn drop(kind: &Kind, object: &mut Value) {
    for path in of_kind(kind) {
        remove(object, path);
    }
    let spec = match (kind.group, kind.kind) {
        ("", "Pod") => object.get_mut("spec"),
        ("apps", _) => object.pointer_mut("/spec/template/spec"),
        _ => None,
    };
    let Some(spec) = spec else { return };
    for path in OF_PODS {
        remove(spec, path);
    }
    // ImageVolume: the volume goes with its source.
    if let Some(volumes) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
        volumes.retain(|volume| volume.get("image").is_none_or(Value::is_null));
        if volumes.is_empty() {
            remove(spec, "volumes");
        }
    }
}

/// Removes what is at a path, and a parent that it leaves empty.
fn remove(value: &mut Value, path: &str) {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    if let Some(list) = first.strip_suffix("[]") {
        let items = value.get_mut(list).and_then(Value::as_array_mut);
        items.into_iter().flatten().for_each(|item| remove(item, rest));
        return;
    }
    let Some(map) = value.as_object_mut() else { return };
    if rest.is_empty() {
        map.shift_remove(first);
        return;
    }
    let Some(inner) = map.get_mut(first) else { return };
    let was_empty = inner.as_object().is_some_and(serde_json::Map::is_empty);
    remove(inner, rest);
    // A hook that only names a signal is no hook; a projection stays, though without a source.
    if first == "lifecycle" && !was_empty && inner.as_object().is_some_and(|m| m.is_empty()) {
        map.shift_remove(first);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::drop;
    use crate::kinds;

    #[test]
    fn gated_fields_go() {
        let mut pod = json!({"spec": {
            "resources": {"limits": {"cpu": "1"}},
            "containers": [
                {"name": "a", "lifecycle": {"stopSignal": "SIGTERM"}},
                {"name": "b", "lifecycle": {"stopSignal": "SIGTERM", "preStop": {}},
                    "resources": {"claims": [{"name": "c"}]}}],
            "volumes": [{"name": "i", "image": {"reference": "x"}}, {"name": "e"}]}});
        drop(&kinds::PODS, &mut pod);
        let expected = json!({"spec": {
            "containers": [{"name": "a"},
                {"name": "b", "lifecycle": {"preStop": {}}, "resources": {}}],
            "volumes": [{"name": "e"}]}});
        assert_eq!(pod, expected);
        let mut set = json!({"status": {"terminatingReplicas": 1, "replicas": 2}});
        drop(&kinds::REPLICA_SETS, &mut set);
        assert_eq!(set, json!({"status": {"replicas": 2}}));
    }
}
