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
        let found = list(term, &["values"]);
        operator(report, &field, text(term, &["operator"]), found);
        let key = text(term, &["key"]);
        report.syntax(&format!("{field}.key"), key, syntax::qualified_name(key));
        values(report, &field, found);
    }
}

/// The operator of a term and whether it has the values that it needs.
pub(super) fn operator(report: &mut Report, field: &str, operator: &str, values: &[Value]) {
    match operator {
        "In" | "NotIn" if values.is_empty() => report.required(
            format!("{field}.values"),
            "must be specified when `operator` is 'In' or 'NotIn'",
        ),
        "Exists" | "DoesNotExist" if !values.is_empty() => report.forbidden(
            format!("{field}.values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            let detail = "not a valid selector operator";
            report.invalid(format!("{field}.operator"), &json!(other), detail);
        }
    }
}

/// Values that a label could have.
pub(super) fn values(report: &mut Report, field: &str, values: &[Value]) {
    for (index, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        report.syntax(&format!("{field}.values[{index}]"), value, syntax::label_value(value));
    }
}

/// How a kind of workload speaks of a selector that is none.
pub(super) struct Wording {
    /// Whether it says that there is none.
    pub(super) required: bool,
    /// What an empty one is invalid for.
    pub(super) empty_for: &'static str,
    /// What it says of one that cannot be read, if anything.
    pub(super) unreadable: Option<&'static str>,
}

/// The selector of a workload: there, not empty, and matching its own template. Says whether it
/// could be read.
pub(super) fn workload_selector(report: &mut Report, spec: &Value, wording: &Wording) -> bool {
    const FIELD: &str = "spec.selector";
    let terms = spec.get("selector").filter(|s| !s.is_null());
    let before = report.len();
    let mut is_empty = false;
    match terms {
        None if wording.required => report.required(FIELD, ""),
        None => {}
        Some(terms) => {
            selector(report, terms, FIELD);
            is_empty = entries(terms, &["matchLabels"]).next().is_none()
                && list(terms, &["matchExpressions"]).is_empty();
        }
    }
    let unreadable = terms.is_some() && report.len() > before;
    if is_empty {
        let detail = format!("empty selector is invalid for {}", wording.empty_for);
        report.invalid_shown(FIELD, &shown(terms), &detail);
    }
    let template = spec.get("template").unwrap_or(&Value::Null);
    if unreadable {
        if let Some(detail) = wording.unreadable {
            report.invalid_shown(FIELD, &shown(terms), detail);
        }
        return false;
    }
    // No selector at all selects nothing.
    let parsed = terms.map(LabelSelector::from_object);
    let matches = matches!(parsed, Some(Ok(parsed)) if parsed.matches_object(template));
    if !matches {
        report.invalid_shown(
            "spec.template.metadata.labels",
            &go::string_map(template, &["metadata", "labels"]),
            "`selector` does not match template `labels`",
        );
    }
    true
}

fn shown(selector: Option<&Value>) -> String {
    selector.map_or_else(|| "null".to_owned(), go::selector)
}
