//! Deployments, ReplicaSets, StatefulSets, DaemonSets and ControllerRevisions.

use serde_json::{Value, json};

use super::{
    go, labels,
    pods::{self, first_difference},
    report::{IMMUTABLE, Report},
    syntax,
};
use crate::{
    Cause, Kind,
    schema::value::{at, int, text},
};

fn spec_of(object: &Value) -> &Value {
    object.get("spec").unwrap_or(&Value::Null)
}

fn template_of(spec: &Value) -> &Value {
    spec.get("template").unwrap_or(&Value::Null)
}

/// What every template of a workload keeps to.
fn lasting_pods(report: &mut Report, spec: &Value, kind: &str) {
    let pod = template_of(spec).get("spec").unwrap_or(&Value::Null);
    let policy = text(pod, &["restartPolicy"]);
    if policy != "Always" {
        let field = "spec.template.spec.restartPolicy";
        report.push(Cause::not_supported(field, &json!(policy), &["Always"]));
    }
    if at(pod, &["activeDeadlineSeconds"]).is_some() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        report.forbidden("spec.template.spec.activeDeadlineSeconds", &detail);
    }
}

fn replicated(report: &mut Report, spec: &Value) {
    report.not_negative(spec, "spec", "replicas");
    // Upstream says "deployment" for ReplicaSets too.
    labels::workload_selector(report, spec, "deployment");
    pods::template(report, template_of(spec));
    lasting_pods(report, spec, "ReplicaSet");
}

pub(super) fn deployment(report: &mut Report, deployment: &Value) {
    let spec = spec_of(deployment);
    replicated(report, spec);
    strategy(report, spec);
    for key in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        report.not_negative(spec, "spec", key);
    }
    let ready = int(spec, &["minReadySeconds"]).unwrap_or(0);
    if let Some(deadline) = int(spec, &["progressDeadlineSeconds"]).filter(|d| *d <= ready) {
        let detail = "must be greater than minReadySeconds";
        report.invalid("spec.progressDeadlineSeconds", &json!(deadline), detail);
    }
}

fn strategy(report: &mut Report, spec: &Value) {
    const FIELD: &str = "spec.strategy.rollingUpdate";
    let rolling = at(spec, &["strategy", "rollingUpdate"]);
    match (text(spec, &["strategy", "type"]), rolling) {
        ("Recreate", Some(_)) => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            report.forbidden(FIELD, detail);
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            report.required(FIELD, "this should be defaulted and never be nil");
        }
        ("RollingUpdate", Some(rolling)) => rolling_update(report, FIELD, rolling),
        (other, _) => {
            let supported = ["Recreate", "RollingUpdate"];
            report.push(Cause::not_supported("spec.strategy", &json!(other), &supported));
        }
    }
}

fn rolling_update(report: &mut Report, field: &str, rolling: &Value) {
    let mut zero = true;
    for key in ["maxUnavailable", "maxSurge"] {
        zero &= share(report, &format!("{field}.{key}"), at(rolling, &[key])) == 0;
    }
    let unavailable = at(rolling, &["maxUnavailable"]).unwrap_or(&Value::Null);
    let field = format!("{field}.maxUnavailable");
    if zero {
        report.invalid(&field, unavailable, "may not be 0 when `maxSurge` is 0");
    }
    let percent = unavailable.as_str().and_then(|t| t.strip_suffix('%')).map(str::parse::<u64>);
    if percent.is_some_and(|p| p.is_ok_and(|p| p > 100)) {
        report.invalid(&field, unavailable, "must not be greater than 100%");
    }
}

/// A count or a percentage, and its number.
fn share(report: &mut Report, field: &str, value: Option<&Value>) -> i64 {
    match value {
        Some(Value::String(text)) => {
            report.syntax(field, text, syntax::percent(text));
            text.strip_suffix('%').and_then(|digits| digits.parse().ok()).unwrap_or(0)
        }
        Some(number) => {
            let count = number.as_i64().unwrap_or(0);
            if count < 0 {
                report.invalid(field, number, "must be greater than or equal to 0");
            }
            count
        }
        None => 0,
    }
}

pub(super) fn replica_set(report: &mut Report, set: &Value) {
    let spec = spec_of(set);
    replicated(report, spec);
    report.not_negative(spec, "spec", "minReadySeconds");
}

pub(super) fn stateful_set(report: &mut Report, set: &Value) {
    let spec = spec_of(set);
    for (key, supported) in [
        ("podManagementPolicy", ["OrderedReady", "Parallel"]),
        ("updateStrategy", ["RollingUpdate", "OnDelete"]),
    ] {
        let field = format!("spec.{key}");
        let value = match key {
            "updateStrategy" => text(spec, &[key, "type"]),
            _ => text(spec, &[key]),
        };
        if value.is_empty() {
            report.required(field, "");
        } else if !supported.contains(&value) {
            let detail = format!("must be '{}' or '{}'", supported[0], supported[1]);
            report.invalid(field, &json!(value), &detail);
        }
    }
    for key in ["whenDeleted", "whenScaled"] {
        let policy = text(spec, &["persistentVolumeClaimRetentionPolicy", key]);
        if !policy.is_empty() {
            let field = format!("spec.persistentVolumeClaimRetentionPolicy.{key}");
            report.one_of(&field, policy, &["Retain", "Delete"]);
        }
    }
    for key in ["replicas", "minReadySeconds"] {
        report.not_negative(spec, "spec", key);
    }
    labels::workload_selector(report, spec, "statefulset");
    // As upstream, which cannot check the spec: its mounts may name claims.
    let template = template_of(spec);
    labels::labels(report, template, &["metadata", "labels"], "spec.template.labels");
    let field = "spec.template.annotations";
    labels::annotations(report, template, &["metadata", "annotations"], field);
    lasting_pods(report, spec, "StatefulSet");
}

/// A new StatefulSet names a Service that can exist.
pub(super) fn stateful_set_names(report: &mut Report, set: &Value) {
    report.optional(spec_of(set), "spec", "serviceName", syntax::dns_label);
}

pub(super) fn daemon_set(report: &mut Report, set: &Value) {
    let spec = spec_of(set);
    labels::workload_selector(report, spec, "daemonset");
    pods::template(report, template_of(spec));
    lasting_pods(report, spec, "DaemonSet");
    for key in ["minReadySeconds", "revisionHistoryLimit"] {
        report.not_negative(spec, "spec", key);
    }
    match text(spec, &["updateStrategy", "type"]) {
        "OnDelete" => {}
        "RollingUpdate" => {
            const FIELD: &str = "spec.updateStrategy.rollingUpdate";
            match at(spec, &["updateStrategy", "rollingUpdate"]) {
                None => report.required(FIELD, ""),
                Some(rolling) => {
                    for key in ["maxUnavailable", "maxSurge"] {
                        share(report, &format!("{FIELD}.{key}"), at(rolling, &[key]));
                    }
                }
            }
        }
        other => {
            let supported = ["RollingUpdate", "OnDelete"];
            report.push(Cause::not_supported("spec.updateStrategy", &json!(other), &supported));
        }
    }
}

/// A new ControllerRevision holds something.
pub(super) fn controller_revision(report: &mut Report, revision: &Value) {
    report.not_negative(revision, "", "revision");
    match at(revision, &["data"]) {
        None => report.required("data", "data is mandatory"),
        Some(Value::Object(_)) => {}
        Some(_) => report.required("data", "data must be a valid JSON object"),
    }
}

/// What may not change.
pub(super) fn change(report: &mut Report, kind: &Kind, old: &Value, new: &Value) {
    match kind.plural {
        "controllerrevisions" => {
            if old.get("data") != new.get("data") {
                let value = new.get("data").unwrap_or(&Value::Null);
                report.invalid("data", value, IMMUTABLE);
            }
        }
        "statefulsets" => {
            const OPEN: [&str; 7] = [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
            ];
            let fixed = |object: &Value| {
                let mut spec = spec_of(object).clone();
                if let Some(map) = spec.as_object_mut() {
                    map.retain(|key, _| !OPEN.contains(&key.as_str()));
                }
                spec
            };
            if first_difference("spec", &fixed(old), &fixed(new)).is_some() {
                report.forbidden(
                    "spec",
                    "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
                     'template', 'updateStrategy', 'revisionHistoryLimit', \
                     'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
                );
            }
        }
        _ => {
            let selector = |object: &Value| spec_of(object).get("selector").cloned();
            let (before, after) =
                (selector(old).unwrap_or_default(), selector(new).unwrap_or_default());
            if !after.is_null() && first_difference("", &before, &after).is_some() {
                report.invalid_shown("spec.selector", &go::selector(&after), IMMUTABLE);
            }
        }
    }
}
