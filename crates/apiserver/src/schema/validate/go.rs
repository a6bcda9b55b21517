//! Values as Go prints them (`%#v`), which is how upstream shows rejected maps and structs.

use serde_json::Value;

use crate::schema::value::{entries, list, text};

/// `[]string{"a", "b"}`.
pub(super) fn strings(values: &[Value]) -> String {
    let texts: Vec<String> =
        values.iter().map(|v| format!("{:?}", v.as_str().unwrap_or_default())).collect();
    format!("[]string{{{}}}", texts.join(", "))
}

/// `map[string]string{"a":"b"}`, by key.
pub(super) fn string_map(value: &Value, path: &[&str]) -> String {
    let mut pairs: Vec<String> = entries(value, path)
        .map(|(key, value)| format!("{key:?}:{:?}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() {
        return "map[string]string(nil)".to_owned();
    }
    pairs.sort_unstable();
    format!("map[string]string{{{}}}", pairs.join(", "))
}

/// A `metav1.LabelSelector`.
pub(super) fn selector(selector: &Value) -> String {
    let expressions: Vec<String> = list(selector, &["matchExpressions"])
        .iter()
        .map(|e| {
            let values = list(e, &["values"]);
            let values =
                if values.is_empty() { "[]string(nil)".to_owned() } else { strings(values) };
            format!(
                "v1.LabelSelectorRequirement{{Key:{:?}, Operator:{:?}, Values:{values}}}",
                text(e, &["key"]),
                text(e, &["operator"])
            )
        })
        .collect();
    let expressions = match expressions.is_empty() {
        true => "(nil)".to_owned(),
        false => format!("{{{}}}", expressions.join(", ")),
    };
    format!(
        "v1.LabelSelector{{MatchLabels:{}, MatchExpressions:[]v1.LabelSelectorRequirement{expressions}}}",
        string_map(selector, &["matchLabels"])
    )
}

/// An `intstr.IntOrString`: a count, or a text such as a percentage.
pub(super) fn int_or_string(value: &Value) -> String {
    let (kind, number, text) = match value {
        Value::String(text) => (1, 0, text.as_str()),
        other => (0, other.as_i64().unwrap_or(0), ""),
    };
    format!("intstr.IntOrString{{Type:{kind}, IntVal:{number}, StrVal:{text:?}}}")
}
