//! What upstream checks of a status.

use serde_json::{Value, json};

use super::{
    address,
    report::{IMMUTABLE, Report},
    syntax,
};
use crate::{
    Kind,
    registry::object,
    schema::value::{at, int, list, text},
};

const SYSTEM_CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];

pub(super) fn pod(report: &mut Report, old: &Value, new: &Value) {
    for (index, condition) in list(new, &["status", "conditions"]).iter().enumerate() {
        let kind = text(condition, &["type"]);
        if !SYSTEM_CONDITIONS.contains(&kind) {
            let field = format!("status.conditions[{index}].Type");
            report.syntax(&field, kind, syntax::qualified_name(kind));
        }
    }
    // The node of a Pod is set by binding, nowhere else.
    let node = |pod: &Value| text(pod, &["spec", "nodeName"]).to_owned();
    if node(old) != node(new) {
        report.forbidden("status.nodeName", "may not be changed directly");
    }
    let nominated = text(new, &["status", "nominatedNodeName"]);
    if nominated != text(old, &["status", "nominatedNodeName"]) && !nominated.is_empty() {
        let messages = syntax::dns_subdomain(nominated);
        report.syntax("status.nominatedNodeName", nominated, messages);
    }
    let class = |pod: &Value| text(pod, &["status", "qosClass"]).to_owned();
    if class(old) != class(new) {
        report.invalid("status.qosClass", &json!(class(new)), IMMUTABLE);
    }
    restarts(report, old, new);
    addresses(report, old, new, "podIPs");
    let host = text(new, &["status", "hostIP"]);
    if let Some(first) = address::texts_of(list(new, &["status", "hostIPs"]), "ip").first()
        && *first != host
    {
        let field = "status.hostIPs[0].ip";
        report.invalid(field, &json!(first), "must be equal to `hostIP`");
    }
    addresses(report, old, new, "hostIPs");
}

/// A container that ended for good does not run again.
fn restarts(report: &mut Report, old: &Value, new: &Value) {
    let policy = text(old, &["spec", "restartPolicy"]);
    for (key, policy) in [
        ("containerStatuses", policy),
        ("initContainerStatuses", policy),
        ("ephemeralContainerStatuses", "Never"),
    ] {
        if policy == "Always" {
            continue;
        }
        let after = list(new, &["status", key]);
        for before in list(old, &["status", key]) {
            let code = int(before, &["state", "terminated", "exitCode"]);
            if at(before, &["state", "terminated"]).is_none()
                || policy == "OnFailure" && code.unwrap_or(0) != 0
            {
                continue;
            }
            let name = text(before, &["name"]);
            let is_sidecar = list(old, &["spec", "initContainers"]).iter().any(|container| {
                text(container, &["name"]) == name
                    && text(container, &["restartPolicy"]) == "Always"
            });
            if is_sidecar {
                continue;
            }
            let found = after.iter().enumerate().find(|(_, a)| text(a, &["name"]) == name);
            if let Some((index, status)) = found
                && at(status, &["state", "terminated"]).is_none()
            {
                let detail = "may not be transitioned to non-terminated state";
                report.forbidden(format!("status.{key}[{index}].state"), detail);
            }
        }
    }
}

fn addresses(report: &mut Report, old: &Value, new: &Value, key: &str) {
    let field = format!("status.{key}");
    let all = address::texts_of(list(new, &["status", key]), "ip");
    let known = address::texts_of(list(old, &["status", key]), "ip");
    for (index, ip) in all.iter().enumerate().filter(|(_, ip)| !known.contains(ip)) {
        address::legacy(report, &format!("{field}[{index}]"), ip);
    }
    if all.len() > 2 || all.len() == 2 && !address::is_dual_stack(&all) {
        let detail = "may specify no more than one IP for each IP family";
        report.invalid(&field, &json!(all), detail);
    }
}

pub(super) fn namespace(report: &mut Report, namespace: &Value) {
    let phase = text(namespace, &["status", "phase"]);
    let (expected, when) = match object::is_deleting(namespace) {
        true => ("Terminating", "not empty"),
        false => ("Active", "empty"),
    };
    if phase != expected {
        let detail = format!("may only be '{expected}' if `deletionTimestamp` is {when}");
        report.invalid("status.Phase", &json!(phase), &detail);
    }
}

pub(super) fn service(report: &mut Report, service: &Value) {
    const FIELD: &str = "status.loadBalancer.ingress";
    let ingress = list(service, &["status", "loadBalancer", "ingress"]);
    if !ingress.is_empty() && text(service, &["spec", "type"]) != "LoadBalancer" {
        let detail = "may only be used when `spec.type` is 'LoadBalancer'";
        return report.forbidden(FIELD, detail);
    }
    for (index, entry) in ingress.iter().enumerate() {
        let field = format!("{FIELD}[{index}]");
        let (ip, name) = (text(entry, &["ip"]), text(entry, &["hostname"]));
        if !ip.is_empty() {
            address::legacy(report, &format!("{field}.ip"), ip);
        }
        match at(entry, &["ipMode"]).and_then(Value::as_str) {
            Some(_) if ip.is_empty() => {
                let detail = "may not be specified when `ip` is not set";
                report.forbidden(format!("{field}.ipMode"), detail);
            }
            Some(mode) => report.one_of(&format!("{field}.ipMode"), mode, &["Proxy", "VIP"]),
            None => {}
        }
        if !name.is_empty() {
            let field = format!("{field}.hostname");
            report.syntax(&field, name, syntax::dns_subdomain(name));
            if address::parse(name).is_some() {
                let detail = "must be a DNS name, not an IP address";
                report.invalid(field, &json!(name), detail);
            }
        }
    }
}

/// Counts are not negative, and no part is more than the whole.
pub(super) fn workload(report: &mut Report, kind: &Kind, old: &Value, object: &Value) {
    counts(report, kind, object);
    let collisions = |object: &Value| int(object, &["status", "collisionCount"]);
    if let Some(before) = collisions(old)
        && collisions(object).is_none_or(|after| after < before)
    {
        let value = json!(collisions(object).unwrap_or(0));
        report.invalid("status.collisionCount", &value, "cannot be decremented");
    }
}

fn counts(report: &mut Report, kind: &Kind, object: &Value) {
    let status = object.get("status").unwrap_or(&Value::Null);
    let counts: &[&str] = match kind.plural {
        "deployments" => &["updatedReplicas", "readyReplicas", "availableReplicas"],
        "replicasets" => &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        "statefulsets" => {
            &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"]
        }
        _ => {
            for key in [
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
                "collisionCount",
            ] {
                report.not_negative(status, "status", key);
            }
            return;
        }
    };
    for key in ["observedGeneration", "replicas", "unavailableReplicas", "collisionCount"] {
        report.not_negative(status, "status", key);
    }
    let count = |key: &str| int(status, &[key]).unwrap_or(0);
    for key in counts {
        report.not_negative(status, "status", key);
        if count(key) > count("replicas") {
            let detail = "cannot be greater than status.replicas";
            report.invalid(format!("status.{key}"), &json!(count(key)), detail);
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        let detail = match kind.plural {
            "statefulsets" => "cannot be greater than status.readyReplicas",
            _ => "cannot be greater than readyReplicas",
        };
        report.invalid("status.availableReplicas", &json!(count("availableReplicas")), detail);
    }
}
