//! Roles and their bindings.

use serde_json::{Value, json};

use super::{go, labels, report::Report, syntax};
use crate::schema::value::{at, list, text};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn role(report: &mut Report, role: &Value, namespaced: bool) {
    for (index, rule) in list(role, &["rules"]).iter().enumerate() {
        policy_rule(report, &format!("rules[{index}]"), rule, namespaced);
    }
    if at(role, &["aggregationRule"]).is_some() && !namespaced {
        const FIELD: &str = "aggregationRule.clusterRoleSelectors";
        let selectors = list(role, &["aggregationRule", "clusterRoleSelectors"]);
        if selectors.is_empty() {
            let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            report.required(FIELD, detail);
        }
        for (index, selector) in selectors.iter().enumerate() {
            let (field, before) = (format!("{FIELD}[{index}]"), report.len());
            labels::selector(report, selector, &field);
            if report.len() > before {
                report.invalid(field, &json!("null"), "invalid label selector.");
            }
        }
    }
}

fn policy_rule(report: &mut Report, field: &str, rule: &Value, namespaced: bool) {
    let empty = |key: &str| list(rule, &[key]).is_empty();
    if empty("verbs") {
        report.required(format!("{field}.verbs"), "verbs must contain at least one value");
    }
    if !empty("nonResourceURLs") {
        let shown = go::strings(list(rule, &["nonResourceURLs"]));
        let field = format!("{field}.nonResourceURLs");
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            report.invalid_shown(&field, &shown, detail);
        }
        if !(empty("apiGroups") && empty("resources") && empty("resourceNames")) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            report.invalid_shown(&field, &shown, detail);
        }
        return;
    }
    if empty("apiGroups") {
        let detail = "resource rules must supply at least one api group";
        report.required(format!("{field}.apiGroups"), detail);
    }
    if empty("resources") {
        let detail = "resource rules must supply at least one resource";
        report.required(format!("{field}.resources"), detail);
    }
}

pub(super) fn binding(report: &mut Report, binding: &Value, namespaced: bool) {
    let role = binding.get("roleRef").unwrap_or(&Value::Null);
    report.only("roleRef.apiGroup", text(role, &["apiGroup"]), &[GROUP]);
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    report.only("roleRef.kind", text(role, &["kind"]), kinds);
    report.name(role, "roleRef", "name", syntax::path_segment);
    for (index, subject) in list(binding, &["subjects"]).iter().enumerate() {
        let field = format!("subjects[{index}]");
        if text(subject, &["name"]).is_empty() {
            report.required(format!("{field}.name"), "");
        }
        let group = text(subject, &["apiGroup"]);
        match text(subject, &["kind"]) {
            "ServiceAccount" => {
                report.optional(subject, &field, "name", syntax::dns_subdomain);
                report.only(&format!("{field}.apiGroup"), group, &[""]);
                if !namespaced && text(subject, &["namespace"]).is_empty() {
                    report.required(format!("{field}.namespace"), "");
                }
            }
            "User" | "Group" => report.only(&format!("{field}.apiGroup"), group, &[GROUP]),
            other => {
                let supported = ["ServiceAccount", "User", "Group"];
                report.only(&format!("{field}.kind"), other, &supported);
            }
        }
    }
}

/// A binding stays with its role.
pub(super) fn binding_change(report: &mut Report, old: &Value, new: &Value) {
    if old.get("roleRef") != new.get("roleRef") {
        let role = new.get("roleRef").unwrap_or(&Value::Null);
        let shown = format!(
            "rbac.RoleRef{{APIGroup:{:?}, Kind:{:?}, Name:{:?}}}",
            text(role, &["apiGroup"]),
            text(role, &["kind"]),
            text(role, &["name"])
        );
        report.invalid_shown("roleRef", &shown, "cannot change roleRef");
    }
}
