//! Deployments, ReplicaSets, StatefulSets, DaemonSets and ControllerRevisions.

use serde_json::{Value, json};

use super::{
    go,
    labels::{self, Wording},
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

const DEPLOYMENT_WORDING: Wording = Wording {
    required: true,
    // Upstream says so of ReplicaSets too.
    empty_for: "deployment",
    unreadable: Some("invalid label selector"),
};
const STATEFUL_SET_WORDING: Wording =
    Wording { required: true, empty_for: "statefulset", unreadable: Some("") };
const DAEMON_SET_WORDING: Wording =
    Wording { required: false, empty_for: "daemonset", unreadable: None };

/// The selector and the template; a template without a readable selector is not looked at.
fn selected_pods(report: &mut Report, spec: &Value) {
    if labels::workload_selector(report, spec, &DEPLOYMENT_WORDING) {
        pods::template(report, template_of(spec));
        lasting_pods(report, spec, "ReplicaSet");
    }
}

pub(super) fn deployment(report: &mut Report, deployment: &Value) {
    let spec = spec_of(deployment);
    report.not_negative(spec, "spec", "replicas");
    selected_pods(report, spec);
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
        _ => {
            let value = spec.get("strategy").unwrap_or(&Value::Null);
            let supported = ["Recreate", "RollingUpdate"];
            report.push(Cause::not_supported("spec.strategy", value, &supported));
        }
    }
}

fn rolling_update(report: &mut Report, base: &str, rolling: &Value) {
    let (unavailable, surge) = (at(rolling, &["maxUnavailable"]), at(rolling, &["maxSurge"]));
    let field = format!("{base}.maxUnavailable");
    share(report, &field, unavailable);
    share(report, &format!("{base}.maxSurge"), surge);
    if amount(unavailable) == 0 && amount(surge) == 0 {
        let detail = "may not be 0 when `maxSurge` is 0";
        report.invalid_shown(&field, &shown(unavailable), detail);
    }
    at_most_all(report, &field, unavailable);
}

/// A count or a percentage.
fn share(report: &mut Report, field: &str, value: Option<&Value>) {
    match value {
        Some(Value::String(text)) => {
            for message in syntax::percent(text) {
                report.invalid_shown(field, &shown(value), &message);
            }
        }
        Some(number) if number.as_i64().unwrap_or(0) < 0 => {
            report.invalid(field, number, "must be greater than or equal to 0");
        }
        _ => {}
    }
}

/// The number of a count or of a percentage.
fn amount(value: Option<&Value>) -> i64 {
    match value {
        Some(Value::String(text)) => percentage(text).unwrap_or_else(|| text.parse().unwrap_or(0)),
        other => other.and_then(Value::as_i64).unwrap_or(0),
    }
}

fn percentage(text: &str) -> Option<i64> {
    text.strip_suffix('%')?.parse().ok()
}

fn at_most_all(report: &mut Report, field: &str, value: Option<&Value>) {
    if value.and_then(Value::as_str).and_then(percentage).is_some_and(|p| p > 100) {
        report.invalid_shown(field, &shown(value), "must not be greater than 100%");
    }
}

fn shown(value: Option<&Value>) -> String {
    go::int_or_string(value.unwrap_or(&Value::Null))
}

pub(super) fn replica_set(report: &mut Report, set: &Value) {
    let spec = spec_of(set);
    report.not_negative(spec, "spec", "replicas");
    report.not_negative(spec, "spec", "minReadySeconds");
    selected_pods(report, spec);
}

/// `is_new`: what is there already keeps its names.
pub(super) fn stateful_set(report: &mut Report, set: &Value, is_new: bool) {
    let spec = spec_of(set);
    match text(spec, &["podManagementPolicy"]) {
        "" => report.required("spec.podManagementPolicy", ""),
        "OrderedReady" | "Parallel" => {}
        other => {
            let detail = "must be 'OrderedReady' or 'Parallel'";
            report.invalid("spec.podManagementPolicy", &json!(other), detail);
        }
    }
    stateful_strategy(report, spec);
    if let Some(policy) = at(spec, &["persistentVolumeClaimRetentionPolicy"]) {
        for key in ["whenDeleted", "whenScaled"] {
            let field = format!("spec.persistentVolumeClaimRetentionPolicy.{key}");
            report.only(&field, text(policy, &[key]), &["Retain", "Delete"]);
        }
    }
    for key in ["replicas", "minReadySeconds"] {
        report.not_negative(spec, "spec", key);
    }
    if let Some(ordinals) = at(spec, &["ordinals"]) {
        report.not_negative(ordinals, "spec.ordinals", "start");
    }
    if is_new {
        report.optional(spec, "spec", "serviceName", syntax::dns_label);
    }
    if labels::workload_selector(report, spec, &STATEFUL_SET_WORDING) {
        // As upstream, which cannot check the spec: its mounts may name claims.
        pods::template_metadata(report, template_of(spec));
    }
    lasting_pods(report, spec, "StatefulSet");
}

fn stateful_strategy(report: &mut Report, spec: &Value) {
    const FIELD: &str = "spec.updateStrategy";
    let rolling = at(spec, &["updateStrategy", "rollingUpdate"]);
    match (text(spec, &["updateStrategy", "type"]), rolling) {
        ("", _) => report.required(FIELD, ""),
        ("OnDelete", Some(rolling)) => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            report.invalid(format!("{FIELD}.rollingUpdate"), rolling, detail);
        }
        ("RollingUpdate", Some(rolling)) => {
            report.not_negative(rolling, "spec.updateStrategy.rollingUpdate", "partition");
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => {
            let value = spec.get("updateStrategy").unwrap_or(&Value::Null);
            report.invalid(FIELD, value, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}

pub(super) fn daemon_set(report: &mut Report, set: &Value) {
    let spec = spec_of(set);
    labels::workload_selector(report, spec, &DAEMON_SET_WORDING);
    pods::template(report, template_of(spec));
    lasting_pods(report, spec, "DaemonSet");
    report.not_negative(spec, "spec", "minReadySeconds");
    daemon_strategy(report, spec);
    report.not_negative(spec, "spec", "revisionHistoryLimit");
}

fn daemon_strategy(report: &mut Report, spec: &Value) {
    const FIELD: &str = "spec.updateStrategy.rollingUpdate";
    match text(spec, &["updateStrategy", "type"]) {
        "OnDelete" => {}
        "RollingUpdate" => match at(spec, &["updateStrategy", "rollingUpdate"]) {
            None => report.required(FIELD, ""),
            Some(rolling) => daemon_rolling(report, FIELD, rolling),
        },
        _ => {
            let value = spec.get("updateStrategy").unwrap_or(&Value::Null);
            let supported = ["RollingUpdate", "OnDelete"];
            report.push(Cause::not_supported("spec.updateStrategy", value, &supported));
        }
    }
}

/// Pods go first, or come first, not both.
fn daemon_rolling(report: &mut Report, base: &str, rolling: &Value) {
    let keys = ["maxUnavailable", "maxSurge"];
    let [unavailable, surge] = keys.map(|key| at(rolling, &[key]));
    for (key, value) in keys.into_iter().zip([unavailable, surge]) {
        share(report, &format!("{base}.{key}"), value);
    }
    for (key, value) in keys.into_iter().zip([unavailable, surge]) {
        at_most_all(report, &format!("{base}.{key}"), value);
    }
    match (amount(unavailable) != 0, amount(surge) != 0) {
        (true, true) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            report.invalid_shown(format!("{base}.maxSurge"), &shown(surge), detail);
        }
        (false, false) => {
            let detail = "cannot be 0 when maxSurge is 0";
            report.required(format!("{base}.maxUnavailable"), detail);
        }
        _ => {}
    }
}

/// A new ControllerRevision holds something.
pub(super) fn controller_revision(report: &mut Report, revision: &Value) {
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
            if first_difference("", &before, &after).is_some() {
                let shown = match after.is_null() {
                    true => "\"null\"".to_owned(),
                    false => go::selector(&after),
                };
                report.invalid_shown("spec.selector", &shown, IMMUTABLE);
            }
        }
    }
}
