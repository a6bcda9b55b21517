//! Small texts that several kinds print: joined lists, labels, selectors.

use serde_json::Value;

use super::NONE;
use crate::schema::value::{entries, list, text};

/// A text, or another when it is empty.
pub(super) fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// The strings of a list, joined.
pub(super) fn join(values: &[Value], separator: &str) -> String {
    let texts: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
    texts.join(separator)
}

/// The first three, and how many there are beyond: `a,b,c + 2 more...`.
pub(super) fn first_few(all: &[String]) -> String {
    /// What upstream shows of a longer list.
    const SHOWN: usize = 3;
    let shown = all[..all.len().min(SHOWN)].join(",");
    match all.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

/// A map as `a=b,c=d`, by key; `<none>` when empty.
pub(super) fn labels(value: &Value, path: &[&str]) -> String {
    let mut pairs: Vec<String> = entries(value, path)
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort_unstable();
    or(&pairs.join(","), NONE).to_owned()
}

/// A `LabelSelector` as its text form, by key; empty for an empty one.
pub(super) fn selector(selector: &Value) -> String {
    let mut terms: Vec<(&str, String)> = entries(selector, &["matchLabels"])
        .map(|(key, value)| (key.as_str(), format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    for expression in list(selector, &["matchExpressions"]) {
        let key = text(expression, &["key"]);
        let mut values: Vec<&str> =
            list(expression, &["values"]).iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        values.dedup();
        let values = values.join(",");
        terms.push((
            key,
            match text(expression, &["operator"]) {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "DoesNotExist" => format!("!{key}"),
                _ => key.to_owned(),
            },
        ));
    }
    terms.sort_by(|a, b| a.0.cmp(b.0));
    let texts: Vec<String> = terms.into_iter().map(|(_, term)| term).collect();
    texts.join(",")
}
