//! Defaults of the kinds that make Pods.

use serde_json::{Value, json};

use super::pods;
use crate::schema::value::{Object, existing, fill, fill_zero, items, object};

/// Old ReplicaSets (or ControllerRevisions) kept for a rollback.
const REVISION_HISTORY_LIMIT: i64 = 10;
/// Seconds without progress after which a Deployment says so.
const PROGRESS_DEADLINE_SECONDS: i64 = 600;

pub(super) fn deployment(root: &mut Object) {
    let Some(spec) = object(root, "spec") else { return };
    pods::template(spec);
    fill(spec, "replicas", 1);
    if let Some(strategy) = object(spec, "strategy") {
        fill_zero(strategy, "type", "RollingUpdate");
        if is_rolling(strategy)
            && let Some(rolling) = object(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", "25%");
            fill(rolling, "maxSurge", "25%");
        }
    }
    fill(spec, "revisionHistoryLimit", REVISION_HISTORY_LIMIT);
    fill(spec, "progressDeadlineSeconds", PROGRESS_DEADLINE_SECONDS);
    object(root, "status");
}

pub(super) fn replica_set(root: &mut Object) {
    let Some(spec) = object(root, "spec") else { return };
    pods::template(spec);
    fill(spec, "replicas", 1);
    if let Some(status) = object(root, "status") {
        // Not omitempty upstream, so readers see it from the first moment on.
        fill(status, "replicas", 0);
    }
}

pub(super) fn stateful_set(root: &mut Object) {
    let Some(spec) = object(root, "spec") else { return };
    pods::template(spec);
    fill_zero(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = object(spec, "updateStrategy") {
        let unset = strategy.get("type").is_none_or(|t| t.is_null() || t == "");
        fill_zero(strategy, "type", "RollingUpdate");
        if unset {
            object(strategy, "rollingUpdate");
        }
        if is_rolling(strategy)
            && let Some(rolling) = existing(strategy, "rollingUpdate")
        {
            fill(rolling, "partition", 0);
        }
    }
    if let Some(policy) = object(spec, "persistentVolumeClaimRetentionPolicy") {
        fill_zero(policy, "whenDeleted", "Retain");
        fill_zero(policy, "whenScaled", "Retain");
    }
    for claim in items(spec, "volumeClaimTemplates") {
        fill_zero(claim, "apiVersion", "v1");
        fill_zero(claim, "kind", "PersistentVolumeClaim");
        if let Some(claim_spec) = object(claim, "spec") {
            fill(claim_spec, "volumeMode", "Filesystem");
        }
        fill(claim, "status", json!({"phase": "Pending"}));
    }
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", REVISION_HISTORY_LIMIT);
    if let Some(status) = object(root, "status") {
        fill(status, "replicas", 0);
        fill(status, "availableReplicas", 0);
    }
}

pub(super) fn daemon_set(root: &mut Object) {
    let Some(spec) = object(root, "spec") else { return };
    pods::template(spec);
    if let Some(strategy) = object(spec, "updateStrategy") {
        fill_zero(strategy, "type", "RollingUpdate");
        if is_rolling(strategy)
            && let Some(rolling) = object(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", 1);
            fill(rolling, "maxSurge", 0);
        }
    }
    fill(spec, "revisionHistoryLimit", REVISION_HISTORY_LIMIT);
    if let Some(status) = object(root, "status") {
        for count in [
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
        ] {
            fill(status, count, 0);
        }
    }
}

fn is_rolling(strategy: &Object) -> bool {
    strategy.get("type").and_then(Value::as_str) == Some("RollingUpdate")
}
