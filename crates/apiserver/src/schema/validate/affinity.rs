//! Where a Pod may and should run: affinity, topology spread, node selectors.

use serde_json::{Value, json};

use super::{go, labels, report::Report, syntax};
use crate::{
    Cause,
    schema::value::{at, entries, int, list, text},
};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const WEIGHTS: std::ops::RangeInclusive<i64> = 1..=100;
const NOT_AN_OPERATOR: &str = "not a valid selector operator";
const WITHOUT_SELECTOR: &str = "must not be specified when labelSelector is not set";
const IN_BOTH: &str = "exists in both matchLabelKeys and labelSelector";

pub(super) fn affinity(report: &mut Report, base: &str, spec: &Value) {
    let Some(affinity) = at(spec, &["affinity"]) else { return };
    if let Some(node) = at(affinity, &["nodeAffinity"]) {
        node_affinity(report, &format!("{base}.affinity.nodeAffinity"), node);
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        let base = format!("{base}.affinity.{key}");
        for (index, term) in list(affinity, &[key, REQUIRED]).iter().enumerate() {
            pod_term(report, &format!("{base}.{REQUIRED}[{index}]"), term);
        }
        for (index, term) in list(affinity, &[key, PREFERRED]).iter().enumerate() {
            let field = format!("{base}.{PREFERRED}[{index}]");
            weight(report, &field, term);
            let inner = term.get("podAffinityTerm").unwrap_or(&Value::Null);
            pod_term(report, &format!("{field}.podAffinityTerm"), inner);
        }
    }
}

fn node_affinity(report: &mut Report, base: &str, node: &Value) {
    if let Some(required) = at(node, &[REQUIRED]) {
        let field = format!("{base}.{REQUIRED}.nodeSelectorTerms");
        let terms = list(required, &["nodeSelectorTerms"]);
        if terms.is_empty() {
            report.required(&field, "must have at least one node selector term");
        }
        for (index, term) in terms.iter().enumerate() {
            node_term(report, &format!("{field}[{index}]"), term, true);
        }
    }
    for (index, term) in list(node, &[PREFERRED]).iter().enumerate() {
        let field = format!("{base}.{PREFERRED}[{index}]");
        weight(report, &field, term);
        let inner = term.get("preference").unwrap_or(&Value::Null);
        // A preference that no Node can meet is a preference all the same.
        node_term(report, &format!("{field}.preference"), inner, false);
    }
}

fn weight(report: &mut Report, field: &str, term: &Value) {
    let weight = int(term, &["weight"]).unwrap_or(0);
    if !WEIGHTS.contains(&weight) {
        report.invalid(format!("{field}.weight"), &json!(weight), "must be in the range 1-100");
    }
}

fn node_term(report: &mut Report, base: &str, term: &Value, check_values: bool) {
    for (index, rule) in list(term, &["matchExpressions"]).iter().enumerate() {
        node_expression(report, &format!("{base}.matchExpressions[{index}]"), rule, check_values);
    }
    for (index, rule) in list(term, &["matchFields"]).iter().enumerate() {
        node_field(report, &format!("{base}.matchFields[{index}]"), rule);
    }
}

fn node_expression(report: &mut Report, field: &str, rule: &Value, check_values: bool) {
    let values = list(rule, &["values"]);
    match text(rule, &["operator"]) {
        "Gt" | "Lt" => {
            if values.len() != 1 {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                report.required(format!("{field}.values"), detail);
            }
        }
        operator => labels::operator(report, field, operator, values),
    }
    let key = text(rule, &["key"]);
    report.syntax(&format!("{field}.key"), key, syntax::qualified_name(key));
    if check_values {
        labels::values(report, field, values);
    }
}

/// Nodes have one field to select by: their name.
fn node_field(report: &mut Report, field: &str, rule: &Value) {
    let values = list(rule, &["values"]);
    match text(rule, &["operator"]) {
        "In" | "NotIn" if values.len() != 1 => report.required(
            format!("{field}.values"),
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        ),
        "In" | "NotIn" => {}
        other => report.invalid(format!("{field}.operator"), &json!(other), NOT_AN_OPERATOR),
    }
    let key = text(rule, &["key"]);
    if key != "metadata.name" {
        let detail = "not a valid field selector key";
        return report.invalid(format!("{field}.key"), &json!(key), detail);
    }
    for (index, name) in values.iter().enumerate() {
        let name = name.as_str().unwrap_or_default();
        report.syntax(&format!("{field}.values[{index}]"), name, syntax::dns_subdomain(name));
    }
}

fn pod_term(report: &mut Report, base: &str, term: &Value) {
    for key in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = at(term, &[key]) {
            labels::selector(report, selector, &format!("{base}.{key}"));
        }
    }
    for name in list(term, &["namespaces"]) {
        let name = name.as_str().unwrap_or_default();
        report.syntax(&format!("{base}.namespace"), name, syntax::dns_label(name));
    }
    term_keys(report, base, term);
    let topology = text(term, &["topologyKey"]);
    let field = format!("{base}.topologyKey");
    if topology.is_empty() {
        report.required(&field, "can not be empty");
    }
    report.syntax(&field, topology, syntax::qualified_name(topology));
}

/// `matchLabelKeys` and `mismatchLabelKeys` of a term.
fn term_keys(report: &mut Report, base: &str, term: &Value) {
    let selector = at(term, &["labelSelector"]);
    let (same, other) = (list(term, &["matchLabelKeys"]), list(term, &["mismatchLabelKeys"]));
    for (key, keys) in [("matchLabelKeys", same), ("mismatchLabelKeys", other)] {
        let field = format!("{base}.{key}");
        if !keys.is_empty() && selector.is_none() {
            report.forbidden(&field, WITHOUT_SELECTOR);
            continue;
        }
        label_keys(report, &field, keys, |_| false);
    }
    if let Some(selector) = selector {
        // As upstream, which adds each such key to the selector itself: only one that is asked
        // for twice there was written by the client.
        let mut seen: Vec<&str> =
            entries(selector, &["matchLabels"]).map(|(key, _)| key.as_str()).collect();
        for expression in list(selector, &["matchExpressions"]) {
            let key = text(expression, &["key"]);
            if let Some(index) = same.iter().position(|k| k == key)
                && seen.contains(&key)
            {
                report.invalid(format!("{base}[{index}]"), &json!(key), IN_BOTH);
            }
            seen.push(key);
        }
    }
    for (index, key) in same.iter().enumerate().filter(|(_, key)| other.contains(key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        report.invalid(format!("{base}.matchLabelKeys[{index}]"), key, detail);
    }
}

fn label_keys(report: &mut Report, field: &str, keys: &[Value], selected: impl Fn(&str) -> bool) {
    for (index, key) in keys.iter().enumerate() {
        let (field, key) = (format!("{field}[{index}]"), key.as_str().unwrap_or_default());
        report.syntax(&field, key, syntax::qualified_name(key));
        if selected(key) {
            report.invalid(&field, &json!(key), IN_BOTH);
        }
    }
}

/// `topologySpreadConstraints`.
pub(super) fn spread(report: &mut Report, base: &str, spec: &Value) {
    let constraints = list(spec, &["topologySpreadConstraints"]);
    for (index, constraint) in constraints.iter().enumerate() {
        let field = format!("{base}.topologySpreadConstraints[{index}]");
        let skew = int(constraint, &["maxSkew"]).unwrap_or(0);
        report.positive(&format!("{field}.maxSkew"), skew);
        let (key, action) =
            (text(constraint, &["topologyKey"]), text(constraint, &["whenUnsatisfiable"]));
        if key.is_empty() {
            report.required(format!("{field}.topologyKey"), "can not be empty");
        }
        report.only(
            &format!("{field}.whenUnsatisfiable"),
            action,
            &["DoNotSchedule", "ScheduleAnyway"],
        );
        let again = constraints[index + 1..].iter().any(|other| {
            text(other, &["topologyKey"]) == key && text(other, &["whenUnsatisfiable"]) == action
        });
        if again {
            let shown = json!(format!("{{{key}, {action}}}"));
            report.duplicate(format!("{field}.{{topologyKey, whenUnsatisfiable}}"), &shown);
        }
        if let Some(domains) = int(constraint, &["minDomains"]) {
            let field = format!("{field}.minDomains");
            report.positive(&field, domains);
            if action != "DoNotSchedule" {
                let detail = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                );
                report.invalid(&field, &json!(domains), &detail);
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = at(constraint, &[key]).and_then(Value::as_str) {
                report.only(&format!("{field}.{key}"), policy, &["Honor", "Ignore"]);
            }
        }
        spread_selector(report, &field, constraint);
    }
}

fn spread_selector(report: &mut Report, field: &str, constraint: &Value) {
    let selector = at(constraint, &["labelSelector"]);
    let keys = list(constraint, &["matchLabelKeys"]);
    let keys_field = format!("{field}.matchLabelKeys");
    if !keys.is_empty() && selector.is_none() {
        report.forbidden(&keys_field, WITHOUT_SELECTOR);
    }
    label_keys(report, &keys_field, keys, |key| {
        at(constraint, &["labelSelector", "matchLabels", key]).is_some()
            || list(constraint, &["labelSelector", "matchExpressions"])
                .iter()
                .any(|expression| text(expression, &["key"]) == key)
    });
    if let Some(selector) = selector {
        labels::selector(report, selector, &format!("{field}.labelSelector"));
    }
}

/// A Pod that waits behind a gate may be narrowed to fewer Nodes, and only narrowed.
pub(super) fn narrowing(report: &mut Report, before: &Value, after: &Value) {
    let old = at(before, &["nodeSelector"]);
    let kept = entries(before, &["nodeSelector"])
        .all(|(key, value)| at(after, &["nodeSelector", key]) == Some(value));
    if old != at(after, &["nodeSelector"]) && !kept {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        let shown = go::string_map(after, &["nodeSelector"]);
        report.invalid_shown("spec.nodeSelector", &shown, detail);
    }
    let path = ["affinity", "nodeAffinity", REQUIRED, "nodeSelectorTerms"];
    if at(before, &path[..3]).is_none() {
        return;
    }
    let field = format!("spec.{}", path.join("."));
    let (old, new) = (list(before, &path), list(after, &path));
    if !old.is_empty() && old.len() != new.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return match new {
            [] => report.invalid_shown(field, "[]core.NodeSelectorTerm(nil)", detail),
            new => report.invalid(field, &json!(new), detail),
        };
    }
    for (index, (one, other)) in old.iter().zip(new).enumerate() {
        if !has_only_additions(one, other) {
            let detail = "only additions are allowed (no mutations or deletions)";
            report.invalid(format!("{field}[{index}]"), other, detail);
        }
    }
}

fn has_only_additions(old: &Value, new: &Value) -> bool {
    let keys = ["matchExpressions", "matchFields"];
    let is_empty = |term: &Value| keys.iter().all(|key| list(term, &[key]).is_empty());
    // An empty term matches nothing; anything more would widen it.
    if is_empty(old) {
        return is_empty(new);
    }
    keys.iter().all(|key| list(new, &[key]).starts_with(list(old, &[key])))
}

/// An operating system that somebody may run.
pub(super) fn os(report: &mut Report, field: &str, spec: &Value) -> bool {
    let Some(os) = at(spec, &["os"]) else { return true };
    let name = text(os, &["name"]);
    if name.is_empty() {
        report.required(format!("{field}.name"), "cannot be empty");
        return false;
    }
    let known = ["linux", "windows"].contains(&name);
    if !known {
        report.push(Cause::not_supported(field, &json!(name), &["linux", "windows"]));
    }
    known
}
