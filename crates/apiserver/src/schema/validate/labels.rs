//! Labels, annotations and the selectors over them.

use serde_json::{Value, json};

use super::{go, report::Report, syntax};
use crate::{
    Cause,
    registry::LabelSelector,
    schema::value::{entries, list, text},
};

/// Bytes of all annotations of an object together (apimachinery `TotalAnnotationSizeLimitB`).
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// A map of labels at a path of `object`.
pub(super) fn labels(report: &mut Report, object: &Value, path: &[&str], field: &str) {
    for (key, value) in entries(object, path) {
        report.syntax(field, key, syntax::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        report.syntax(field, value, syntax::label_value(value));
    }
}

/// A map of annotations at a path of `object`.
pub(super) fn annotations(report: &mut Report, object: &Value, path: &[&str], field: &str) {
    let mut bytes = 0;
    for (key, value) in entries(object, path) {
        report.syntax(field, key, syntax::qualified_name(&key.to_lowercase()));
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_MAX {
        report.push(Cause::too_long(field, ANNOTATIONS_MAX));
    }
}

/// The terms of a `LabelSelector`.
pub(super) fn selector(report: &mut Report, selector: &Value, field: &str) {
    labels(report, selector, &["matchLabels"], &format!("{field}.matchLabels"));
    for (index, term) in list(selector, &["matchExpressions"]).iter().enumerate() {
        let field = format!("{field}.matchExpressions[{index}]");
        let values = list(term, &["values"]);
        match text(term, &["operator"]) {
            "In" | "NotIn" if values.is_empty() => report.required(
                format!("{field}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => report.forbidden(
                format!("{field}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => report.invalid(
                format!("{field}.operator"),
                &json!(other),
                "not a valid selector operator",
            ),
        }
        let key = text(term, &["key"]);
        report.syntax(&format!("{field}.key"), key, syntax::qualified_name(key));
        for (index, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            report.syntax(&format!("{field}.values[{index}]"), value, syntax::label_value(value));
        }
    }
}

/// The selector of a workload: there, not empty, and matching its own template.
pub(super) fn workload_selector(report: &mut Report, spec: &Value, what: &str) {
    let Some(terms) = spec.get("selector").filter(|s| !s.is_null()) else {
        report.required("spec.selector", "");
        return;
    };
    let before = report.len();
    selector(report, terms, "spec.selector");
    let empty = entries(terms, &["matchLabels"]).next().is_none()
        && list(terms, &["matchExpressions"]).is_empty();
    if empty {
        let detail = format!("empty selector is invalid for {what}");
        report.invalid_shown("spec.selector", &go::selector(terms), &detail);
        return;
    }
    let Ok(parsed) = LabelSelector::from_object(terms) else {
        report.invalid_shown("spec.selector", &go::selector(terms), "invalid label selector");
        return;
    };
    let template = spec.get("template").unwrap_or(&Value::Null);
    if report.len() == before && !parsed.matches_object(template) {
        report.invalid_shown(
            "spec.template.metadata.labels",
            &go::string_map(template, &["metadata", "labels"]),
            "`selector` does not match template `labels`",
        );
    }
}
