//! Pods, the specs in templates, and what of a Pod may change.

use serde_json::{Map, Value, json};

use super::{
    address, affinity, containers, go, labels, report::Report, resources, security, syntax, volumes,
};
use crate::{
    Cause,
    schema::value::{self, at, flag, int, list, text},
};

const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const PREEMPTION_POLICIES: [&str; 2] = ["PreemptLowerPriority", "Never"];
const TAINT_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
// Limits of the resolver in Linux's libc, as upstream takes them.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCHES_LETTERS_MAX: usize = 2048;
const SECONDS_MAX: i64 = i32::MAX as i64;

/// What only a new Pod may not have.
pub(super) fn new_pod(report: &mut Report, pod: &Value) {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    if !list(spec, &["ephemeralContainers"]).is_empty() {
        report.forbidden("spec.ephemeralContainers", "cannot be set on create");
    }
    if !text(spec, &["nodeName"]).is_empty() && !list(spec, &["schedulingGates"]).is_empty() {
        report.forbidden(
            "spec.nodeName",
            "cannot be set until all schedulingGates have been cleared",
        );
    }
}

pub(super) fn pod(report: &mut Report, pod: &Value) {
    annotations(report, pod, "metadata.annotations");
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    pod_spec(report, "spec", spec, true);
    containers::of_pod(report, "spec", spec);
}

/// Annotations that mean something to Kubernetes itself.
fn annotations(report: &mut Report, owner: &Value, base: &str) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    let annotation = |key: &str| at(owner, &["metadata", "annotations", key]);
    if let Some(value) = annotation(MIRROR)
        && text(owner, &["spec", "nodeName"]).is_empty()
    {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        report.invalid(format!("{base}[{MIRROR}]"), value, detail);
    }
    if let Some(value) = annotation(COST) {
        let cost = value.as_str().unwrap_or_default();
        // As upstream, which takes no plus and no zeros before a number.
        let canonical = cost.parse::<i32>().is_ok_and(|number| number.to_string() == cost);
        if !canonical {
            report.invalid(format!("{base}[{COST}]"), value, "must be a 32bit integer");
        }
    }
}

/// The template of a workload.
pub(super) fn template(report: &mut Report, template: &Value) {
    template_metadata(report, template);
    let spec = template.get("spec").unwrap_or(&Value::Null);
    pod_spec(report, "spec.template.spec", spec, false);
    if !list(spec, &["ephemeralContainers"]).is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        report.forbidden("spec.template.spec.ephemeralContainers", detail);
    }
}

/// Labels and annotations of a template.
pub(super) fn template_metadata(report: &mut Report, template: &Value) {
    labels::labels(report, template, &["metadata", "labels"], "spec.template.labels");
    let field = "spec.template.annotations";
    labels::annotations(report, template, &["metadata", "annotations"], field);
    annotations(report, template, field);
}

fn pod_spec(report: &mut Report, base: &str, spec: &Value, is_pod: bool) {
    if int(spec, &["terminationGracePeriodSeconds"]).is_none() {
        report.required(format!("{base}.terminationGracePeriodSeconds"), "");
    }
    let volumes = volumes::volumes(report, &format!("{base}.volumes"), spec, is_pod);
    resources::of_pod(report, base, spec);
    containers::all(report, base, spec, &volumes);
    host_network(report, base, spec, is_pod);
    let restart = text(spec, &["restartPolicy"]);
    report.one_of(&format!("{base}.restartPolicy"), restart, &RESTART_POLICIES);
    report.one_of(&format!("{base}.dnsPolicy"), text(spec, &["dnsPolicy"]), &DNS_POLICIES);
    labels::labels(report, spec, &["nodeSelector"], &format!("{base}.nodeSelector"));
    security::pod(report, base, spec);
    affinity::affinity(report, base, spec);
    dns(report, base, spec);
    for (index, gate) in list(spec, &["readinessGates"]).iter().enumerate() {
        let kind = text(gate, &["conditionType"]);
        let field = format!("{base}.readinessGates[{index}].conditionType");
        report.syntax(&field, kind, syntax::qualified_name(kind));
    }
    scheduling_gates(report, &format!("{base}.schedulingGates"), spec);
    affinity::spread(report, base, spec);
    security::own_users(report, base, spec);
    report.optional(spec, base, "serviceAccountName", syntax::dns_subdomain);
    report.optional(spec, base, "nodeName", syntax::dns_subdomain);
    if let Some(seconds) = int(spec, &["activeDeadlineSeconds"])
        && !(1..=SECONDS_MAX).contains(&seconds)
    {
        let field = format!("{base}.activeDeadlineSeconds");
        report.invalid(field, &json!(seconds), &syntax::between(1, SECONDS_MAX));
    }
    report.optional(spec, base, "hostname", syntax::dns_label);
    report.optional(spec, base, "subdomain", syntax::dns_label);
    tolerations(report, &format!("{base}.tolerations"), spec);
    for (index, alias) in list(spec, &["hostAliases"]).iter().enumerate() {
        let field = format!("{base}.hostAliases[{index}]");
        address::legacy(report, &format!("{field}.ip"), text(alias, &["ip"]));
        for (index, name) in list(alias, &["hostnames"]).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let field = format!("{field}.hostnames[{index}]");
            report.syntax(&field, name, syntax::dns_subdomain(name));
        }
    }
    report.optional(spec, base, "priorityClassName", syntax::dns_subdomain);
    if let Some(name) = at(spec, &["runtimeClassName"]).and_then(Value::as_str) {
        report.syntax(&format!("{base}.runtimeClassName"), name, syntax::dns_subdomain(name));
    }
    if let Some(policy) = at(spec, &["preemptionPolicy"]).and_then(Value::as_str) {
        report.one_of(&format!("{base}.preemptionPolicy"), policy, &PREEMPTION_POLICIES);
    }
    if affinity::os(report, &format!("{base}.os"), spec) {
        security::foreign(report, base, spec);
    }
}

/// On the host's network a port of the container is a port of the host.
fn host_network(report: &mut Report, base: &str, spec: &Value, is_pod: bool) {
    if !flag(spec, &["hostNetwork"]) {
        return;
    }
    for (index, container) in list(spec, &["containers"]).iter().enumerate() {
        for (port_index, port) in list(container, &["ports"]).iter().enumerate() {
            let host = int(port, &["hostPort"]).unwrap_or(0);
            let differs = int(port, &["containerPort"]).unwrap_or(0) != host;
            if differs && (is_pod || host != 0) {
                report.invalid(
                    format!("{base}.containers[{index}].ports[{port_index}].hostPort"),
                    &json!(host),
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
    }
}

fn dns(report: &mut Report, base: &str, spec: &Value) {
    let field = format!("{base}.dnsConfig");
    let servers = list(spec, &["dnsConfig", "nameservers"]);
    if text(spec, &["dnsPolicy"]) == "None" && servers.is_empty() {
        return match at(spec, &["dnsConfig"]) {
            None => report.required(field, "must provide `dnsConfig` when `dnsPolicy` is None"),
            Some(_) => report.required(
                format!("{field}.nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            ),
        };
    }
    if servers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        report.invalid_shown(format!("{field}.nameservers"), &go::strings(servers), &detail);
    }
    for (index, server) in servers.iter().enumerate() {
        let server = server.as_str().unwrap_or_default();
        address::legacy(report, &format!("{field}.nameservers[{index}]"), server);
    }
    let searches = list(spec, &["dnsConfig", "searches"]);
    if searches.len() > SEARCHES_MAX {
        let detail = format!("must not have more than {SEARCHES_MAX} search paths");
        report.invalid_shown(format!("{field}.searches"), &go::strings(searches), &detail);
    }
    let joined: usize = searches.iter().map(|s| s.as_str().map_or(0, str::len) + 1).sum();
    if joined > SEARCHES_LETTERS_MAX + 1 {
        let detail = format!(
            "must not have more than {SEARCHES_LETTERS_MAX} characters (including spaces) in the \
             search list"
        );
        report.invalid_shown(format!("{field}.searches"), &go::strings(searches), &detail);
    }
    for (index, search) in searches.iter().enumerate() {
        let search = search.as_str().unwrap_or_default();
        let name = search.strip_suffix('.').unwrap_or(search);
        if search != "." {
            let field = format!("{field}.searches[{index}]");
            report.syntax(&field, name, syntax::search_domain(name));
        }
    }
    for (index, option) in list(spec, &["dnsConfig", "options"]).iter().enumerate() {
        if text(option, &["name"]).is_empty() {
            report.required(format!("{field}.options[{index}]"), "must not be empty");
        }
    }
}

fn scheduling_gates(report: &mut Report, base: &str, spec: &Value) {
    let gates = list(spec, &["schedulingGates"]);
    for (index, gate) in gates.iter().enumerate() {
        let (field, name) = (format!("{base}[{index}]"), text(gate, &["name"]));
        report.syntax(&field, name, syntax::qualified_name(name));
        if gates[..index].iter().any(|other| text(other, &["name"]) == name) {
            report.duplicate(field, &json!(name));
        }
    }
}

fn tolerations(report: &mut Report, base: &str, spec: &Value) {
    for (index, toleration) in list(spec, &["tolerations"]).iter().enumerate() {
        let field = format!("{base}[{index}]");
        report.optional(toleration, &field, "key", syntax::qualified_name);
        let operator = text(toleration, &["operator"]);
        let (value, effect) = (text(toleration, &["value"]), text(toleration, &["effect"]));
        let operator_field = format!("{field}.operator");
        if text(toleration, &["key"]).is_empty() && operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all \
                values and all keys\"";
            report.invalid(&operator_field, &json!(operator), detail);
        }
        if int(toleration, &["tolerationSeconds"]).is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            report.invalid(format!("{field}.effect"), &json!(effect), detail);
        }
        match operator {
            "" | "Equal" => {
                let messages = syntax::label_value(value);
                if !messages.is_empty() {
                    report.invalid(&operator_field, &json!(value), &messages.join(";"));
                }
            }
            "Exists" if value.is_empty() => {}
            "Exists" => {
                let detail = "value must be empty when `operator` is 'Exists'";
                report.invalid(&operator_field, &json!(value), detail);
            }
            other => {
                let supported = ["Equal", "Exists"];
                report.push(Cause::not_supported(&operator_field, &json!(other), &supported));
            }
        }
        if !effect.is_empty() {
            report.one_of(&format!("{field}.effect"), effect, &TAINT_EFFECTS);
        }
    }
}

/// What of a Pod may change: images, a shorter deadline, more tolerations, fewer gates.
pub(super) fn change(report: &mut Report, old: &Value, new: &Value) {
    annotations_change(report, old, new);
    let (Some(before), Some(after)) = (old.get("spec"), new.get("spec")) else { return };
    for key in ["containers", "initContainers"] {
        if list(before, &[key]).len() != list(after, &[key]).len() {
            let detail = "pod updates may not add or remove containers";
            return report.forbidden(format!("spec.{key}"), detail);
        }
        for (index, container) in list(after, &[key]).iter().enumerate() {
            let field = format!("spec.{key}[{index}]");
            if text(container, &["image"]).is_empty() {
                report.required(format!("{field}.image"), "");
            }
            containers::image_spaces(report, &field, container);
        }
    }
    if !deadline(report, before, after) {
        return;
    }
    tolerations_change(report, before, after);
    for (index, gate) in list(after, &["schedulingGates"]).iter().enumerate() {
        let name = text(gate, &["name"]);
        if !list(before, &["schedulingGates"]).iter().any(|g| text(g, &["name"]) == name) {
            let detail =
                format!("only deletion is allowed, but found new scheduling gate '{name}'");
            report.forbidden(format!("spec.schedulingGates[{index}].name"), &detail);
        }
    }
    if !list(before, &["schedulingGates"]).is_empty() {
        affinity::narrowing(report, before, after);
    }
    if before == after {
        return; // As most often; the copies below are not small.
    }
    let changed =
        first_difference("spec", &frozen(before), &frozen(&without_relaxed(before, after)));
    if let Some(path) = changed {
        report.forbidden(
            "spec",
            &format!(
                "pod updates may not change fields other than \
                 `spec.containers[*].image`,`spec.initContainers[*].image`,\
                 `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
                 tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
                 was previously negative)\n  changed: {path}"
            ),
        );
    }
}

/// What stands for another Pod stays so.
fn annotations_change(report: &mut Report, old: &Value, new: &Value) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    let field = format!("metadata.annotations[{MIRROR}]");
    let annotation = |pod: &Value| at(pod, &["metadata", "annotations", MIRROR]).cloned();
    match (annotation(old), annotation(new)) {
        (None, Some(_)) => report.forbidden(&field, "may not add mirror pod annotation"),
        (Some(before), after) if after.as_ref() != Some(&before) => {
            report.forbidden(&field, "may not remove or update mirror pod annotation");
        }
        _ => {}
    }
    annotations(report, new, "metadata.annotations");
}

/// Debug containers come and stay as they came.
pub(super) fn ephemeral_change(report: &mut Report, old: &Value, new: &Value) {
    let path = ["spec", "ephemeralContainers"];
    for before in list(old, &path) {
        let name = text(before, &["name"]);
        let what = match list(new, &path).iter().find(|after| text(after, &["name"]) == name) {
            None => "removed",
            Some(after) if first_difference("", before, after).is_some() => "changed",
            Some(_) => continue,
        };
        let detail = format!("existing ephemeral containers {name:?} may not be {what}");
        report.forbidden("spec.ephemeralContainers", &detail);
    }
}

/// Of the containers only what they ask for may change here.
pub(super) fn resize(report: &mut Report, old: &Value, new: &Value) {
    let rest = |pod: &Value| {
        let mut spec = pod.get("spec").cloned().unwrap_or_default();
        if let Some(map) = spec.as_object_mut() {
            for key in ["containers", "initContainers"] {
                for container in value::items(map, key) {
                    container.shift_remove("resources");
                }
            }
        }
        spec
    };
    if first_difference("spec", &rest(old), &rest(new)).is_some() {
        report.forbidden("spec", "only cpu and memory resources are mutable");
    }
}

/// Whether anything more is to be said.
fn deadline(report: &mut Report, before: &Value, after: &Value) -> bool {
    const FIELD: &str = "spec.activeDeadlineSeconds";
    match (int(before, &["activeDeadlineSeconds"]), int(after, &["activeDeadlineSeconds"])) {
        (_, Some(new)) if !(0..=SECONDS_MAX).contains(&new) => {
            report.invalid(FIELD, &json!(new), &syntax::between(0, SECONDS_MAX));
            return false;
        }
        (Some(old), Some(new)) if old < new => {
            report.invalid(FIELD, &json!(new), "must be less than or equal to previous value");
            return false;
        }
        (Some(_), None) => {
            let detail = "must not update from a positive integer to nil value";
            report.invalid(FIELD, &json!("null"), detail);
        }
        _ => {}
    }
    true
}

fn tolerations_change(report: &mut Report, before: &Value, after: &Value) {
    let key = |toleration: &Value| -> Map<String, Value> {
        let mut map = toleration.as_object().cloned().unwrap_or_default();
        map.shift_remove("tolerationSeconds");
        map
    };
    let kept: Vec<_> = list(after, &["tolerations"]).iter().map(key).collect();
    if list(before, &["tolerations"]).iter().any(|old| !kept.contains(&key(old))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        return report.forbidden("spec.tolerations", detail);
    }
    tolerations(report, "spec.tolerations", after);
}

/// The new spec, with a negative grace period put back that was set to 1.
fn without_relaxed(before: &Value, after: &Value) -> Value {
    let mut after = after.clone();
    let grace = |spec: &Value| int(spec, &["terminationGracePeriodSeconds"]);
    if grace(before).is_some_and(|seconds| seconds < 0) && grace(&after) == Some(1) {
        after["terminationGracePeriodSeconds"] = before["terminationGracePeriodSeconds"].clone();
    }
    // What may be narrowed is looked at elsewhere.
    if !list(before, &["schedulingGates"]).is_empty() {
        let keep = |after: &mut Value, path: &[&str]| {
            let (last, outer) = path.split_last().unwrap_or((&"", &[]));
            let before = at(before, path).cloned();
            let Some(map) = outer
                .iter()
                .try_fold(after, |v, key| v.get_mut(*key))
                .and_then(Value::as_object_mut)
            else {
                return;
            };
            match before {
                Some(value) => map.insert((*last).to_owned(), value),
                None => map.shift_remove(*last),
            };
        };
        if at(&after, &["affinity"]).is_none() && at(before, &["affinity"]).is_some() {
            after["affinity"] = json!({});
        }
        keep(&mut after, &["nodeSelector"]);
        keep(&mut after, &["affinity", "nodeAffinity"]);
    }
    after
}

/// A spec without what may change.
fn frozen(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(map) = spec.as_object_mut() {
        for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
            map.shift_remove(key);
        }
        for key in ["containers", "initContainers"] {
            for container in value::items(map, key) {
                container.shift_remove("image");
            }
        }
    }
    spec
}

/// The path of the first difference; empty, null and absent are the same.
pub(super) fn first_difference(path: &str, one: &Value, other: &Value) -> Option<String> {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))).find_map(|key| {
                let (x, y) = (a.get(key), b.get(key));
                let (x, y) = (x.unwrap_or(&Value::Null), y.unwrap_or(&Value::Null));
                first_difference(&format!("{path}.{key}"), x, y)
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs
                .into_iter()
                .find_map(|(i, (x, y))| first_difference(&format!("{path}[{i}]"), x, y))
        }
        _ if one == other || is_nothing(one) && is_nothing(other) => None,
        _ => Some(path.to_owned()),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => value::is_zero(value),
    }
}
