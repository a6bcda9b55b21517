//! Label selectors, as kubectl's `-l` takes them.
//!
//! ```text
//!   "app=web,tier in (front,back),!canary" --parse--> Selector --accepts(labels)--> yes or no
//! ```
//!
//! The grammar and the meaning are those of Kubernetes (apimachinery's
//! `labels.Parse`): `!=` and `notin` hold for objects without the label, too.

use std::collections::BTreeMap;

use crate::Name;

/// What a requirement looks like, for people who wrote another one.
const GRAMMAR: &str =
    "write key=value, key!=value, key in (a,b), key notin (a,b), key or !key, comma separated";

/// Requirements on labels; all must hold. The default accepts everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Selector {
    /// Reads a selector. `Err` says what is wrong and how to write it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let requirements = split(text)
            .into_iter()
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(requirement)
            .collect::<Result<_, _>>()?;
        Ok(Self { requirements })
    }

    /// Whether labels meet every requirement.
    pub fn accepts(&self, labels: &BTreeMap<Name, Name>) -> bool {
        self.requirements.iter().all(|Requirement { key, operator }| {
            let value = labels.get(&**key).map(|value| &**value);
            match (operator, value) {
                (Operator::In(values), Some(value)) => values.iter().any(|one| one == value),
                (Operator::In(_), None) => false,
                (Operator::NotIn(values), Some(value)) => values.iter().all(|one| one != value),
                (Operator::NotIn(_), None) => true,
                (Operator::Exists, value) => value.is_some(),
                (Operator::Absent, value) => value.is_none(),
            }
        })
    }
}

/// Cuts at commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0usize, 0);
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let wrong = || format!("{text:?} is no label requirement: {GRAMMAR}");
    let made = |key: &str, operator| match is_key(key) {
        true => Ok(Requirement { key: key.to_owned(), operator }),
        false => Err(wrong()),
    };
    if let Some(key) = text.strip_prefix('!') {
        return made(key.trim(), Operator::Absent);
    }
    if let Some((key, value)) = text.split_once("!=") {
        return made(key.trim(), Operator::NotIn(vec![value_of(value).ok_or_else(wrong)?]));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return made(key.trim(), Operator::In(vec![value_of(value).ok_or_else(wrong)?]));
    }
    let Some((key, rest)) = text.split_once(char::is_whitespace) else {
        return made(text, Operator::Exists);
    };
    let rest = rest.trim_start();
    let (list, negated) = match rest.strip_prefix("notin") {
        Some(list) => (list, true),
        None => (rest.strip_prefix("in").ok_or_else(wrong)?, false),
    };
    let list = list.trim().strip_prefix('(').and_then(|list| list.strip_suffix(')'));
    let values: Vec<String> = list
        .ok_or_else(wrong)?
        .split(',')
        .map(value_of)
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    made(key, if negated { Operator::NotIn(values) } else { Operator::In(values) })
}

/// A label's key: `[prefix/]name`.
fn is_key(text: &str) -> bool {
    let word = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    match text.split_once('/') {
        Some((prefix, name)) => word(prefix) && word(name),
        None => word(text),
    }
}

/// A label's value; may be empty.
fn value_of(text: &str) -> Option<String> {
    let text = text.trim();
    let fine = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    fine.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::name;

    use super::*;

    #[test]
    fn accepts_what_kubectl_would() {
        let labels = BTreeMap::from([
            (name("app"), name("web")),
            (name("example.com/tier"), name("front")),
            (name("empty"), name("")),
        ]);
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web", true),
            ("app=api", false),
            ("app!=api", true),
            ("app!=web", false),
            ("missing!=x", true),
            ("app in (api, web)", true),
            ("app in(web)", true),
            ("app in (api)", false),
            ("app notin (api,cron)", true),
            ("app notin (web)", false),
            ("missing notin (x)", true),
            ("missing in (x)", false),
            ("app", true),
            ("missing", false),
            ("!missing", true),
            ("!app", false),
            ("empty=", true),
            ("app=", false),
            ("app=web,example.com/tier in (front,back),!canary", true),
            ("app=web,canary", false),
        ] {
            assert_eq!(Selector::parse(text).map(|s| s.accepts(&labels)), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_selector_is_told_with_the_grammar() {
        for text in [
            "=x",
            "a b",
            "a in b",
            "a in (b",
            "a in b)",
            "a>1",
            "a=b=c",
            "a=(b)",
            "!",
            "a/b/c",
            "é=1",
            "a like (b)",
            "a in ((b))",
            "/a=b",
        ] {
            let refusal = Selector::parse(text);
            assert!(refusal.as_ref().is_err_and(|e| e.contains("notin")), "{text:?}: {refusal:?}");
        }
    }
}
