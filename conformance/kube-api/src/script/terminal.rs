//! Replaces, in what a command printed, whatever may differ between two runs:
//! beside what [`Normal`] knows, the ages, the dates for people, and the widths
//! of columns that follow from them.

use serde_json::Value;

use crate::normal::{NODE_PORT_DYNAMIC, Normal};

/// The deepest indentation that means something.
const INDENT_MAX: usize = 8;

/// What a command printed, as it is compared: an object where it is JSON (or
/// YAML, when that was asked for), else lines.
pub(crate) fn printed(text: &str, is_yaml: bool, normal: &Normal) -> Value {
    match structured(text, is_yaml) {
        Some(value) => normal.value(&value),
        None => text.lines().map(|l| Value::String(line(l, normal))).collect(),
    }
}

/// Printed JSON or YAML.
pub(crate) fn structured(text: &str, is_yaml: bool) -> Option<Value> {
    let is_container = |value: &Value| value.is_object() || value.is_array();
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        return Some(value).filter(is_container);
    }
    if !is_yaml {
        return None;
    }
    let documents: Vec<Value> = text
        .split("\n---\n")
        .map(serde_norway::from_str)
        .collect::<Result<_, _>>()
        .ok()
        .filter(|documents: &Vec<Value>| documents.iter().all(is_container))?;
    match <[Value; 1]>::try_from(documents) {
        Ok([one]) => Some(one),
        Err(many) => Some(Value::Array(many)),
    }
}

fn line(text: &str, normal: &Normal) -> String {
    let text = normal.text(&log_header(&revision(text)));
    let text = text.trim_end();
    let mut rest = text.trim_start();
    // A cell that goes on is indented by the columns before it.
    let mut out = " ".repeat((text.len() - rest.len()).min(INDENT_MAX));
    let mut before = "";
    while !rest.is_empty() {
        let after = if let Some(after) = after_date(rest) {
            out.push_str("<time>");
            after
        } else {
            let (word, after) = rest.split_at(rest.find([' ', '\t']).unwrap_or(rest.len()));
            out.push_str(&token(word, before));
            before = word;
            after
        };
        rest = after.trim_start();
        // The width of a column follows from its widest value.
        out.push_str(match &after[..after.len() - rest.len()] {
            "" => "",
            " " => " ",
            _ => "  ",
        });
    }
    out
}

/// `Resource Version:  12` of a description, `resourceVersion: "12"` of YAML.
fn revision(text: &str) -> String {
    for field in ["Resource Version:", "resourceVersion:"] {
        if let Some((head, number)) = text.split_once(field)
            && head.trim().is_empty()
            && number.trim().trim_matches('"').parse::<u64>().is_ok()
        {
            return format!("{head}{field} <rv>");
        }
    }
    text.to_owned()
}

/// `E1125 22:20:15.123456    4711 file.go:1] text`: time and process go.
fn log_header(text: &str) -> String {
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default();
    let is_log = first.len() == 5
        && first.starts_with(['E', 'W', 'I'])
        && first[1..].bytes().all(|b| b.is_ascii_digit());
    match text.split_once("] ") {
        Some((_, said)) if is_log => format!("{} {said}", &first[..1]),
        _ => text.to_owned(),
    }
}

/// One word between blanks.
fn token(word: &str, before: &str) -> String {
    let bare = word.trim_matches(['(', ')', ',']);
    // What a toleration says is no age.
    if is_age(bare) && before != "for" {
        return word.replace(bare, "<age>");
    }
    if let Some(side) = ["LIVE-", "MERGED-"].iter().find(|side| word.contains(*side)) {
        return temporary(word, side);
    }
    if is_clock(word) {
        return "<clock>".into();
    }
    if is_date(word) {
        return "<date>".into();
    }
    word.split('/').map(port).collect::<Vec<_>>().join("/")
}

/// `80:31234` of a table, `31234` of a description; and lists of them.
fn port(text: &str) -> String {
    let is_dynamic = |t: &str| t.parse().is_ok_and(|n| NODE_PORT_DYNAMIC.contains(&n));
    match text.rsplit_once([':', ',']) {
        Some((head, port)) if is_dynamic(port) => {
            format!("{}{}<nodePort>", head, &text[head.len()..=head.len()])
        }
        None if is_dynamic(text) => "<nodePort>".into(),
        _ => text.to_owned(),
    }
}

/// `/somewhere/LIVE-12345/name`: where kubectl diff keeps what it compares.
fn temporary(word: &str, side: &str) -> String {
    let at = word.find(side).unwrap_or_default() + side.len();
    let rest = word[at..].trim_start_matches(|c: char| c.is_ascii_digit());
    format!("<temporary>/{side}{rest}")
}

/// `5s`, `3m20s`, `2d`, `<unknown>`.
fn is_age(text: &str) -> bool {
    let mut digits = 0;
    for c in text.chars() {
        match c {
            '0'..='9' => digits += 1,
            'y' | 'd' | 'h' | 'm' | 's' if digits > 0 => digits = 0,
            _ => return false,
        }
    }
    !text.is_empty() && digits == 0
}

/// `22:20:15.123456789`.
fn is_clock(text: &str) -> bool {
    text.len() > 8
        && text.bytes().enumerate().all(|(at, b)| match at {
            2 | 5 => b == b':',
            8 => b == b'.',
            _ => b.is_ascii_digit(),
        })
}

/// `2026-11-25`.
fn is_date(text: &str) -> bool {
    text.len() == 10
        && text.bytes().enumerate().all(|(at, b)| match at {
            4 | 7 => b == b'-',
            _ => b.is_ascii_digit(),
        })
        && text > "2020"
}

/// What follows a date like `Wed, 25 Nov 2026 22:20:15 +0000`; the year tells
/// those of now from those that a script writes.
fn after_date(text: &str) -> Option<&str> {
    const LENGTH: usize = "Wed, 25 Nov 2026 22:20:15 +0000".len();
    let date = text.get(..LENGTH)?;
    let year: u16 = date.get(12..16)?.parse().ok()?;
    (date.get(3..5) == Some(", ") && year > 2020 && date.ends_with(" +0000"))
        .then_some(&text[LENGTH..])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_alike() {
        let mut normal = Normal::new("127.0.0.1:4000");
        normal.study(&json!({"generateName": "web-", "name": "web-abcde"}));
        for (text, expected) in [
            ("web   1/1     Running   0      3m20s", "web  1/1  Running  0  <age>"),
            ("web   1/1     Running   0      12s   ", "web  1/1  Running  0  <age>"),
            ("web-abcde   x", "web-<gen>  x"),
            ("  Start Time:   Wed, 25 Nov 2026 22:20:15 +0000", "  Start Time:  <time>"),
            (
                "Started: Mon, 01 Jan 2001 00:00:00 +0000",
                "Started: Mon, 01 Jan 2001 00:00:00 +0000",
            ),
            ("op=Exists for 300s", "op=Exists for 300s"),
            ("at 3s (x2 over 10s)", "at <age> (x2 over <age>)"),
            ("NodePort 10.96.7.1 80:31234/TCP 5d", "NodePort <address> 80:<nodePort>/TCP <age>"),
            ("NodePort:  http  31234/TCP", "NodePort:  http  <nodePort>/TCP"),
            ("80:30001/TCP", "80:30001/TCP"),
            (
                "--- /a/LIVE-123/v1.x\t2026-11-25 22:20:15.1234 +0000",
                "--- <temporary>/LIVE-/v1.x  <date> <clock> +0000",
            ),
            ("E1125 22:20:15.123456    4711 memcache.go:265] \"no\"", "E \"no\""),
            ("  resourceVersion: \"12\"", "  resourceVersion: <rv>"),
            ("             deep", "        deep"),
            ("a  b", "a  b"),
            ("a\tb", "a  b"),
            ("", ""),
        ] {
            assert_eq!(line(text, &normal), expected);
        }
    }

    #[test]
    fn objects_are_seen() {
        let normal = Normal::new("x");
        for (text, is_yaml, expected) in [
            ("{\"a\": 1}", false, json!({"a": 1})),
            ("a: 1\n", true, json!({"a": 1})),
            ("a: 1\n---\nb: 2\n", true, json!([{"a": 1}, {"b": 2}])),
            ("a: 1\n", false, json!(["a: 1"])),
            ("3", false, json!(["3"])),
            ("configmap/a created\n", true, json!(["configmap/a created"])),
        ] {
            assert_eq!(printed(text, is_yaml, &normal), expected, "{text}");
        }
    }
}
