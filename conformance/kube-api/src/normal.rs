//! Replaces what two runs of the same server would not have in common.
//!
//! Names that a server makes up are learned where they are made (generateName,
//! hashes of templates, uids) and replaced wherever they occur afterwards, so
//! that a reference from one object to another stays comparable.

use serde_json::{Map, Value};

/// Lowest address of the ranges that the allocators choose from at random
/// (ServiceCIDR /16 and /112: the lower 256 addresses are for those who ask).
const SERVICE_V4: &str = "10.96.";
const SERVICE_V6: &str = "fd00:96::";
const STATIC_V6_MAX: u32 = 0x100;
/// The same of node ports: 30000 + 86.
pub(crate) const NODE_PORT_DYNAMIC: std::ops::RangeInclusive<u64> = 30086..=32767;
/// Letters of the hash of a template (apimachinery `rand.SafeEncodeString`).
const HASH_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Characters of a name that generateName adds.
const SUFFIX: usize = 5;

/// Replacements of one scenario.
#[derive(Default)]
pub(crate) struct Normal {
    learned: Vec<(String, String)>,
}

impl Normal {
    pub(crate) fn new(authority: &str) -> Normal {
        let mut normal = Normal::default();
        normal.learn(authority, "<server>");
        normal
    }

    /// Shows a text as another from now on.
    pub(crate) fn learn(&mut self, text: &str, shown: &str) {
        if !text.is_empty() && !self.learned.iter().any(|(known, _)| known == text) {
            self.learned.push((text.to_owned(), shown.to_owned()));
            // Longer ones first: one may contain another.
            self.learned.sort_by_key(|(known, _)| std::cmp::Reverse(known.len()));
        }
    }

    /// Takes the names that were made up for this object.
    pub(crate) fn study(&mut self, value: &Value) {
        match value {
            Value::Array(list) => list.iter().for_each(|v| self.study(v)),
            Value::Object(map) => {
                self.study_metadata(map);
                self.study_causes(map);
                map.values().for_each(|v| self.study(v));
            }
            _ => {}
        }
    }

    fn study_metadata(&mut self, map: &Map<String, Value>) {
        let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
        for label in ["pod-template-hash", "controller-revision-hash"] {
            let hash = text(label);
            let hash = hash.rsplit('-').next().unwrap_or_default();
            self.learn(hash, "<hash>");
        }
        let (prefix, name) = (text("generateName"), text("name"));
        if !prefix.is_empty()
            && let Some(made_up) = name.strip_prefix(prefix)
            && made_up.len() == SUFFIX
        {
            // With its prefix: five letters alone may be part of anything.
            let prefix = self.text(prefix);
            self.learn(name, &format!("{prefix}<gen>"));
        }
    }

    /// Takes the name that was made up and refused.
    fn study_causes(&mut self, map: &Map<String, Value>) {
        let causes = map.get("causes").and_then(Value::as_array);
        let refused = |field: &str| {
            let cause = causes.into_iter().flatten().find(|cause| cause["field"] == field)?;
            cause["message"].as_str()?.strip_prefix("Invalid value: \"")?.split('"').next()
        };
        if let (Some(prefix), Some(name)) =
            (refused("metadata.generateName"), refused("metadata.name"))
            && name.strip_prefix(prefix).is_some_and(|made_up| made_up.len() == SUFFIX)
        {
            self.learn(name, &format!("{prefix}<gen>"));
        }
    }

    /// The value as it is compared.
    pub(crate) fn value(&self, value: &Value) -> Value {
        let mut value = self.under("", value);
        sort_by_chance(&mut value);
        value
    }

    fn under(&self, key: &str, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.field(key, text)),
            Value::Number(number)
                if matches!(key, "nodePort" | "healthCheckNodePort")
                    && number.as_u64().is_some_and(|n| NODE_PORT_DYNAMIC.contains(&n)) =>
            {
                "<nodePort>".into()
            }
            Value::Array(list) => list.iter().map(|v| self.under(key, v)).collect(),
            Value::Object(map) => {
                let one = |(k, v): (&String, &Value)| {
                    // Ports and addresses are part of keys in managedFields.
                    (self.text(k), self.under(k, v))
                };
                Value::Object(map.iter().map(one).collect())
            }
            other => other.clone(),
        }
    }

    fn field(&self, key: &str, text: &str) -> String {
        // `keep` names parts by their whole pointer.
        match key.rsplit('/').next().unwrap_or_default() {
            "resourceVersion"
                if text.bytes().all(|b| b.is_ascii_digit()) && text != "0" && !text.is_empty() =>
            {
                "<rv>".into()
            }
            "uid" | "selfLink" if is_uuid(text) => "<uid>".into(),
            "continue" if !text.is_empty() => "<continue>".into(),
            "token" if text.len() > 100 => "<token>".into(),
            "currentRevision" | "updateRevision" => self.text(&without_hash(text)),
            "cells" => cell(&self.text(text)),
            _ => self.text(text),
        }
    }

    /// Text as it is compared.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (known, shown) in &self.learned {
            if text.contains(known.as_str()) {
                text = text.replace(known.as_str(), shown);
            }
        }
        words(&composites(before_difference(&text)))
    }
}

/// The end of what a refused update of a Pod says before it shows what changed:
/// theirs prints the difference of two Go structures, ours names the fields. The
/// causes of the refusal are listed apart and compared each.
const DIFFERENCE: &str = "(allow it to be set to 1 if it was previously negative)\n";

fn before_difference(text: &str) -> &str {
    match text.find(DIFFERENCE) {
        Some(at) => &text[..at + DIFFERENCE.len()],
        None => text,
    }
}

/// Lists whose order is chance: owners are sorted by the second of their last
/// write, subsets by a hash over the uids in them, and the endpoints of a mirrored
/// slice come out of a Go map. All are put into the order of what is left once
/// that is replaced.
fn sort_by_chance(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(sort_by_chance),
        Value::Object(map) => {
            for (key, member) in map.iter_mut() {
                sort_by_chance(member);
                // `keep` names parts by their whole pointer.
                let name = key.rsplit('/').next().unwrap_or_default();
                if let ("managedFields" | "subsets" | "endpoints", Value::Array(list)) =
                    (name, member)
                {
                    list.sort_by_cached_key(ToString::to_string);
                }
            }
        }
        _ => {}
    }
}

/// The cell of a table: ages in seconds, and node ports that were chosen at random.
fn cell(text: &str) -> String {
    let is_age = |t: &str| {
        t.strip_suffix('s').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    if is_age(text) {
        return "<age>".into();
    }
    let port = |part: &str| {
        let number = part.split_once(':')?.1.split_once('/')?.0;
        let is_random = number.parse().is_ok_and(|n| NODE_PORT_DYNAMIC.contains(&n));
        is_random.then(|| part.replacen(&format!(":{number}/"), ":<nodePort>/", 1))
    };
    let parts = text.split(',').map(|part| port(part).unwrap_or_else(|| part.to_owned()));
    parts.collect::<Vec<_>>().join(",")
}

/// A name that ends in the hash of a template. Theirs is over a Go struct as Go
/// prints it, with all its fields.
fn without_hash(name: &str) -> String {
    match name.rsplit_once('-') {
        Some((name, hash)) if is_hash(hash) => format!("{name}-<hash>"),
        _ => name.to_owned(),
    }
}

fn is_hash(text: &str) -> bool {
    (6..=10).contains(&text.len()) && text.bytes().all(|b| HASH_LETTERS.contains(&b))
}

/// What a refusal prints of the value that it refuses.
const PRINTS: [&str; 3] = ["Invalid value: ", "Duplicate value: ", "Unsupported value: "];

/// Replaces printed objects and lists: theirs are in Go's syntax, with pointers
/// and with fields of internal types; ours are JSON. No client reads them.
fn composites(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let next = PRINTS.iter().filter_map(|p| rest.find(p).map(|at| at + p.len())).min();
        let Some(at) = next else { break };
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(length) = composite(rest) {
            out.push_str("<object>");
            rest = &rest[length..];
        }
    }
    out.push_str(rest);
    out
}

/// The length of an object or list at the start of the text. In Go's syntax its
/// type goes before the brace.
fn composite(text: &str) -> Option<usize> {
    // A document as text, which each side writes in an order of its own.
    if text.starts_with("\"{\\\"") {
        let mut escaped = false;
        return text.char_indices().skip(1).find_map(|(at, c)| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends.then_some(at + 1)
        });
    }
    let is_type = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '[' | ']' | '*' | '&');
    let open = text.find(['{', '"', ' '])?;
    let is_list = text.starts_with('[') && !text.starts_with("[]");
    if !is_list && (text.as_bytes()[open] != b'{' || !text[..open].chars().all(is_type)) {
        return None;
    }
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let start = if is_list { 0 } else { open };
    for (at, c) in text.char_indices().skip_while(|(at, _)| *at < start) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Replaces uids, times, random addresses and revisions within text.
fn words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.' | '_') {
            word.push(c);
        } else {
            out.push_str(&one_word(&word, &out));
            word.clear();
            out.push(c);
        }
    }
    let last = one_word(&word, &out);
    out.push_str(&last);
    out
}

fn one_word(word: &str, before: &str) -> String {
    // A sentence may end in it.
    let bare = word.trim_end_matches([':', '.']);
    let rest = &word[bare.len()..];
    let shown = if is_uuid(bare) {
        "<uid>"
    } else if is_time(bare) {
        "<time>"
    } else if is_random_address(bare) {
        "<address>"
    } else if !bare.is_empty()
        && bare.bytes().all(|b| b.is_ascii_digit())
        && is_revision_place(before)
    {
        "<rv>"
    } else if before.ends_with("ReplicaSet \"") {
        return format!("{}{rest}", without_hash(bare));
    } else if let Some(volume) = bare.strip_prefix("kube-api-access-")
        && volume.len() == SUFFIX
    {
        "kube-api-access-<gen>"
    } else {
        return word.to_owned();
    };
    format!("{shown}{rest}")
}

/// Whether a number after this text is a revision.
fn is_revision_place(before: &str) -> bool {
    [
        "resource version: ",
        "current: ",
        "in record (",
        "resource version: <rv> (",
        "UID in object meta: ",
        "ResourceVersion in object meta: ",
    ]
    .iter()
    .any(|place| before.ends_with(place))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.char_indices().all(|(i, c)| match i {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit(),
        })
        // Those of a scenario's own stay as they are.
        && !text.starts_with("00000000-")
}

/// `2006-01-02T15:04:05Z`, perhaps with a fraction; the year tells those of now
/// from those that a scenario writes.
fn is_time(text: &str) -> bool {
    let digits = |range: std::ops::Range<usize>| {
        text.get(range).is_some_and(|t| t.bytes().all(|b| b.is_ascii_digit()))
    };
    text.len() >= 20
        && text.ends_with('Z')
        && digits(0..4)
        && text.as_bytes()[4] == b'-'
        && text.as_bytes()[10] == b'T'
        && digits(17..19)
        && text.get(0..4).and_then(|y| y.parse::<u16>().ok()).is_some_and(|y| y > 2020)
}

fn is_random_address(text: &str) -> bool {
    if let Some(rest) = text.strip_prefix(SERVICE_V4) {
        let mut parts = rest.split('.');
        let third = parts.next().and_then(|p| p.parse::<u8>().ok());
        let fourth = parts.next().and_then(|p| p.parse::<u8>().ok());
        return third.is_some_and(|t| t > 0) && fourth.is_some() && parts.next().is_none();
    }
    // Names of IPAddress objects write all groups.
    let short = text.strip_prefix(SERVICE_V6).filter(|rest| !rest.contains(':'));
    short.is_some_and(|rest| u32::from_str_radix(rest, 16).is_ok_and(|n| n > STATIC_V6_MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_are_replaced() {
        for (text, expected) in [
            ("at 2026-11-21T10:00:00Z.", "at <time>."),
            ("2026-11-21T10:00:00.123456Z", "<time>"),
            ("2001-01-01T00:00:00Z", "2001-01-01T00:00:00Z"),
            ("uid 8f14e45f-ceea-467f-9575-9f1d7ac0a3a4!", "uid <uid>!"),
            ("10.96.3.4", "<address>"),
            ("10.96.0.10", "10.96.0.10"),
            ("fd00:96::1a2b", "<address>"),
            ("fd00:96::a", "fd00:96::a"),
            ("too old resource version: 1 (234)", "too old resource version: <rv> (<rv>)"),
            (
                "Too large resource version: 99, current: 7",
                "Too large resource version: <rv>, current: <rv>",
            ),
            ("port 80 and 90", "port 80 and 90"),
            ("ReplicaSet \"one-9c957b867\" has", "ReplicaSet \"one-<hash>\" has"),
            ("ReplicaSet \"one-more\" has", "ReplicaSet \"one-more\" has"),
            ("kube-api-access-x2x4z", "kube-api-access-<gen>"),
        ] {
            assert_eq!(words(text), expected);
        }
    }

    #[test]
    fn printed_objects_are_alike() {
        for (text, expected) in [
            ("Invalid value: {\"a\":\"}\"}: no", "Invalid value: <object>: no"),
            ("Invalid value: [\"a\"]: no", "Invalid value: <object>: no"),
            (
                "Invalid value: []v1.A{v1.A{B:(*bool)(0xc0), C:\"x\"}}: no",
                "Invalid value: <object>: no",
            ),
            ("Duplicate value: core.Taint{Key:\"a\", T:<nil>}", "Duplicate value: <object>"),
            ("Invalid value: map[string]string{\"a\":\"b\"}: x", "Invalid value: <object>: x"),
            ("Invalid value: \"{\\\"a\\\":1}\": no", "Invalid value: <object>: no"),
            ("Invalid value: \"plain\": {x}", "Invalid value: \"plain\": {x}"),
            ("Invalid value: 5: {x}", "Invalid value: 5: {x}"),
        ] {
            assert_eq!(composites(text), expected);
        }
    }

    #[test]
    fn lists_in_an_order_of_chance_are_sorted() {
        let normal = Normal::new("127.0.0.1:1234");
        let owners = |first: &str, second: &str| json!({"metadata": {"managedFields": [{"manager": first}, {"manager": second}]}});
        assert_eq!(normal.value(&owners("a", "b")), normal.value(&owners("b", "a")));
        let slice =
            |one: &str, other: &str| json!({"endpoints": [{"hostname": one}, {"hostname": other}]});
        assert_eq!(normal.value(&slice("a", "b")), normal.value(&slice("b", "a")));
        let table = normal.value(&json!({"cells": ["x", "12s", "80:30001/TCP,81:32000/TCP", 3]}));
        assert_eq!(table, json!({"cells": ["x", "<age>", "80:30001/TCP,81:<nodePort>/TCP", 3]}));
        let revision = normal.value(&json!({"updateRevision": "one-7d6dcdc77"}));
        assert_eq!(revision, json!({"updateRevision": "one-<hash>"}));
    }

    #[test]
    fn made_up_names_are_learned() {
        let mut normal = Normal::new("127.0.0.1:1234");
        normal.study(&json!({
            "metadata": {"generateName": "web-", "name": "web-abcde", "resourceVersion": "7"},
        }));
        let seen = normal.value(&json!({
            "metadata": {"resourceVersion": "7", "name": "web-abcde"},
            "message": "pods \"web-abcde\" at 127.0.0.1:1234",
            "nodePort": 31000,
        }));
        assert_eq!(
            seen,
            json!({
                "metadata": {"resourceVersion": "<rv>", "name": "web-<gen>"},
                "message": "pods \"web-<gen>\" at <server>",
                "nodePort": "<nodePort>",
            })
        );
    }
}
