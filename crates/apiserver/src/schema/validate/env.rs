//! What containers find in their environment, and references to fields of the Pod.

use serde_json::{Value, json};

use super::{report::Report, syntax};
use crate::schema::{
    quantity::Quantity,
    value::{at, list, text},
};

/// Fields of the Pod that environment variables may take.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields that upstream's conversion knows beside those.
const OTHER_FIELDS: [&str; 6] = [
    "metadata.annotations",
    "metadata.labels",
    "spec.host",
    "spec.restartPolicy",
    "spec.schedulerName",
    "status.phase",
];
const RESOURCE_FIELDS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const HUGE_PAGES: [&str; 2] = ["limits.hugepages-", "requests.hugepages-"];
/// Units that amounts of bytes may be shown in.
const BYTE_UNITS: [&str; 13] =
    ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// `env` and `envFrom` of a container.
pub(super) fn variables(report: &mut Report, base: &str, container: &Value) {
    for (index, variable) in list(container, &["env"]).iter().enumerate() {
        let field = format!("{base}.env[{index}]");
        report.name(variable, &field, "name", syntax::env_name);
        value_from(report, &format!("{field}.valueFrom"), variable);
    }
    env_from(report, &format!("{base}.envFrom"), container);
}

fn value_from(report: &mut Report, field: &str, variable: &Value) {
    let Some(source) = at(variable, &["valueFrom"]) else { return };
    let mut sources = 0;
    if let Some(reference) = at(source, &["fieldRef"]) {
        sources += 1;
        field_ref(report, &format!("{field}.fieldRef"), reference, &ENV_FIELDS);
    }
    if let Some(reference) = at(source, &["resourceFieldRef"]) {
        sources += 1;
        resource_ref(report, &format!("{field}.resourceFieldRef"), reference, false);
    }
    for key in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = at(source, &[key]) {
            sources += 1;
            let field = format!("{field}.{key}");
            let name = text(reference, &["name"]);
            report.syntax(&format!("{field}.name"), name, syntax::dns_subdomain(name));
            report.name(reference, &field, "key", syntax::config_key);
        }
    }
    let detail = match sources {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or \
             `secretKeyRef`"
        }
        _ if !text(variable, &["value"]).is_empty() => {
            "may not be specified when `value` is not empty"
        }
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    report.invalid(field, &json!(""), detail);
}

/// A reference to a field of the Pod itself.
pub(super) fn field_ref(report: &mut Report, field: &str, reference: &Value, known: &[&str]) {
    let path = text(reference, &["fieldPath"]);
    let version = text(reference, &["apiVersion"]);
    if version.is_empty() {
        return report.required(format!("{field}.apiVersion"), "");
    }
    if path.is_empty() {
        return report.required(format!("{field}.fieldPath"), "");
    }
    let subscripted = path.strip_suffix("']").and_then(|inner| inner.split_once("['"));
    if let Some(fault) = unknown_label(version, path, subscripted.map(|(head, _)| head)) {
        let detail = format!("error converting fieldPath: {fault}");
        return report.invalid(format!("{field}.fieldPath"), &json!(path), &detail);
    }
    match subscripted {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            report.syntax(field, &key, syntax::qualified_name(&key));
        }
        Some((_, key)) => report.syntax(field, key, syntax::qualified_name(key)),
        // Old clients say spec.host.
        None => {
            let path = if path == "spec.host" { "spec.nodeName" } else { path };
            report.only(&format!("{field}.fieldPath"), path, known);
        }
    }
}

/// What upstream's conversion to its internal version says of a path that it does not know.
fn unknown_label(version: &str, path: &str, subscripted: Option<&str>) -> Option<String> {
    if version != "v1" {
        return Some(format!("unsupported pod version: {version}"));
    }
    match subscripted {
        Some("metadata.annotations" | "metadata.labels") => None,
        Some(_) => Some(format!("field label does not support subscript: {path}")),
        None if ENV_FIELDS.contains(&path) || OTHER_FIELDS.contains(&path) => None,
        None => Some(format!("field label not supported: {path}")),
    }
}

/// A reference to what a container asks for.
pub(super) fn resource_ref(report: &mut Report, field: &str, reference: &Value, in_volume: bool) {
    let resource = text(reference, &["resource"]);
    let is_huge = HUGE_PAGES.iter().any(|prefix| resource.starts_with(prefix));
    if in_volume && text(reference, &["containerName"]).is_empty() {
        report.required(format!("{field}.containerName"), "");
    } else if resource.is_empty() {
        report.required(format!("{field}.resource"), "");
    } else if !is_huge {
        report.only(&format!("{field}.resource"), resource, &RESOURCE_FIELDS);
    }
    let Some(divisor) = at(reference, &["divisor"]).and_then(Quantity::from_value) else { return };
    if divisor.is_zero() {
        return;
    }
    let shown = divisor.to_string();
    let (fits, units, what) = match resource.split_once('.') {
        Some((_, "cpu")) => (["1", "1m"].contains(&shown.as_str()), "1m and 1", "cpu"),
        Some((_, name @ ("memory" | "ephemeral-storage"))) => {
            let what = if name == "memory" { name } else { "local ephemeral storage" };
            (BYTE_UNITS.contains(&shown.as_str()), "", what)
        }
        _ if is_huge => (BYTE_UNITS.contains(&shown.as_str()), "", "hugepages"),
        _ => return,
    };
    if !fits {
        let all = BYTE_UNITS.join(", ");
        let units = if units.is_empty() { &all } else { units };
        let detail =
            format!("only divisor's values {units} are supported with the {what} resource");
        report.invalid(format!("{field}.divisor"), &json!(resource), &detail);
    }
}

fn env_from(report: &mut Report, base: &str, container: &Value) {
    for (index, source) in list(container, &["envFrom"]).iter().enumerate() {
        let field = format!("{base}[{index}]");
        report.optional(source, &field, "prefix", syntax::env_name);
        let mut sources = 0;
        for key in ["configMapRef", "secretRef"] {
            if let Some(reference) = at(source, &[key]) {
                sources += 1;
                report.name(reference, &format!("{field}.{key}"), "name", syntax::dns_subdomain);
            }
        }
        match sources {
            0 => {
                let detail = "must specify one of: `configMapRef` or `secretRef`";
                report.invalid(base, &json!(""), detail);
            }
            1 => {}
            _ => {
                let detail = "may not have more than one field specified at a time";
                report.invalid(base, &json!(""), detail);
            }
        }
    }
}
