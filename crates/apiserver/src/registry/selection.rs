//! Label and field selectors: which objects a list or a watch shows.
//!
//! Text from the query string is parsed once into requirements; matching then
//! reads only what it needs. Labels are read out of the stored bytes with a
//! partial parse ([`Labels`]), so a selective list does not build the objects
//! it throws away. Grammar and messages: apimachinery `pkg/labels`, `pkg/fields`.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::Value;

use super::label_syntax::{self, Operator, Term};

/// What a label must be.
#[derive(Clone, Debug, PartialEq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Above(i64),
    Below(i64),
}

/// One term of a label selector.
#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

impl From<Term> for Requirement {
    fn from(Term { key, operator, values }: Term) -> Requirement {
        // The grammar admits nothing else behind these signs.
        let number = || values.first().and_then(|v| v.parse().ok()).unwrap_or_default();
        let test = match operator {
            Operator::Above => Test::Above(number()),
            Operator::Below => Test::Below(number()),
            Operator::In => Test::In(values),
            Operator::NotIn => Test::NotIn(values),
            Operator::Exists => Test::Exists,
            Operator::Absent => Test::Absent,
        };
        Requirement { key, test }
    }
}

/// A set-based label selector; all terms must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

impl LabelSelector {
    /// Parses `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    pub fn parse(text: &str) -> Result<LabelSelector, String> {
        let terms = label_syntax::parse(text)?;
        Ok(LabelSelector { requirements: terms.into_iter().map(Requirement::from).collect() })
    }

    /// From the API's object form: `matchLabels` and `matchExpressions`.
    pub fn from_object(selector: &Value) -> Result<LabelSelector, String> {
        let mut requirements = Vec::new();
        if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
            requirements.extend(equal_terms(labels));
        }
        let expressions = selector.get("matchExpressions").and_then(Value::as_array);
        for expression in expressions.into_iter().flatten() {
            let key = expression.get("key").and_then(Value::as_str).unwrap_or_default().to_owned();
            let values = || -> Vec<String> {
                let list = expression.get("values").and_then(Value::as_array);
                list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
            };
            let test = match expression.get("operator").and_then(Value::as_str) {
                Some("In") => Test::In(values()),
                Some("NotIn") => Test::NotIn(values()),
                Some("Exists") => Test::Exists,
                Some("DoesNotExist") => Test::Absent,
                other => {
                    return Err(format!(
                        "{:?} is not a valid label selector operator",
                        other.unwrap_or("")
                    ));
                }
            };
            requirements.push(Requirement { key, test });
        }
        Ok(LabelSelector { requirements })
    }

    /// From a plain map, as in a Service's `spec.selector`.
    pub fn from_map(labels: &Value) -> LabelSelector {
        let requirements = labels.as_object().map(|m| equal_terms(m).collect()).unwrap_or_default();
        LabelSelector { requirements }
    }

    /// Whether every object matches.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object with these labels matches.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| {
            let value = label(&r.key);
            match &r.test {
                Test::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
                Test::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| w != v)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
                Test::Above(limit) => {
                    value.and_then(|v| v.parse().ok()).is_some_and(|n: i64| n > *limit)
                }
                Test::Below(limit) => {
                    value.and_then(|v| v.parse().ok()).is_some_and(|n: i64| n < *limit)
                }
            }
        })
    }

    /// Whether a parsed object matches.
    pub fn matches_object(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
        self.matches(|key| labels?.get(key)?.as_str())
    }

    /// Whether a stored object matches, without parsing the rest of it.
    pub fn matches_bytes(&self, bytes: &[u8]) -> bool {
        if self.is_empty() {
            return true;
        }
        let labels = Labels::read(bytes);
        self.matches(|key| labels.get(key))
    }
}

fn equal_terms(labels: &serde_json::Map<String, Value>) -> impl Iterator<Item = Requirement> + '_ {
    labels.iter().map(|(key, value)| Requirement {
        key: key.clone(),
        test: Test::In(vec![value.as_str().unwrap_or_default().to_owned()]),
    })
}

/// `kubectl` prints selectors of Services and scales in this form.
impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, Requirement { key, test }) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match test {
                Test::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Test::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Test::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values[0])?,
                Test::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Test::Exists => write!(f, "{key}")?,
                Test::Absent => write!(f, "!{key}")?,
                Test::Above(limit) => write!(f, "{key}>{limit}")?,
                Test::Below(limit) => write!(f, "{key}<{limit}")?,
            }
        }
        Ok(())
    }
}

/// The labels of a stored object, borrowed from its bytes where JSON escapes allow.
#[derive(Default)]
pub struct Labels<'a>(BTreeMap<Cow<'a, str>, Cow<'a, str>>);

#[derive(Deserialize)]
struct LabelsOnly<'a> {
    #[serde(borrow, default)]
    metadata: MetadataLabels<'a>,
}

#[derive(Default, Deserialize)]
struct MetadataLabels<'a> {
    #[serde(borrow, default)]
    labels: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

impl<'a> Labels<'a> {
    /// Reads `metadata.labels` and skips the rest.
    pub fn read(bytes: &'a [u8]) -> Labels<'a> {
        serde_json::from_slice::<LabelsOnly<'_>>(bytes)
            .ok()
            .and_then(|object| object.metadata.labels)
            .map(Labels)
            .unwrap_or_default()
    }

    /// One label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(Cow::as_ref)
    }
}

/// A field selector; all terms must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldTerm {
    /// Path such as `spec.nodeName`.
    pub field: String,
    /// Value to compare with.
    pub value: String,
    /// `=` or `!=`.
    pub equal: bool,
}

impl FieldSelector {
    /// Parses `a.b=c,d!=e`, with `\` escaping `,`, `=` and itself.
    pub fn parse(text: &str) -> Result<FieldSelector, String> {
        let mut terms = Vec::new();
        let mut parts = split_unescaped(text);
        // As upstream, which is seen by what is told of two faults.
        parts.sort_unstable();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let (field, value, equal) = split_term(part)
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
            terms.push(FieldTerm { field: field.to_owned(), value: unescape(value)?, equal });
        }
        Ok(FieldSelector { terms })
    }

    /// The one object of a name.
    pub fn of_name(name: &str) -> FieldSelector {
        let field = "metadata.name".to_owned();
        FieldSelector { terms: vec![FieldTerm { field, value: name.to_owned(), equal: true }] }
    }

    /// Its terms.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// The one name it admits, if it asks for a name.
    pub fn name(&self) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == "metadata.name").map(|t| t.value.as_str())
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(part: &str) -> Option<(&str, &str, bool)> {
    for (index, _) in part.char_indices() {
        let rest = &part[index..];
        for (sign, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(sign) {
                return Some((&part[..index], value, equal));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    let sequence =
        |found: &str| Err(format!("invalid field selector: invalid escape sequence: \\{found}"));
    let mut out = String::with_capacity(value.len());
    let mut letters = value.chars();
    while let Some(c) = letters.next() {
        match c {
            '\\' => match letters.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(other) => return sequence(&other.to_string()),
                None => return sequence(""),
            },
            ',' | '=' => {
                let number = u32::from(c);
                let what = "invalid field selector: unescaped character in value";
                return Err(format!("{what}: {number}"));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors() {
        let labels =
            json!({"metadata": {"labels": {"app": "web", "tier": "a", "n": "5", "e": ""}}});
        let bytes = labels.to_string();
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , tier=a", true),
            ("app!=web", false),
            ("missing!=web", true),
            ("app in (web, db)", true),
            ("app notin (web)", false),
            ("missing notin (web)", true),
            ("app,!missing", true),
            ("!app", false),
            ("n>4,n<6", true),
            ("n>5", false),
            ("e=", true),
            ("app=", false),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches_bytes(bytes.as_bytes()), expected, "{text}");
            assert_eq!(selector.matches_object(&labels), expected, "{text}");
        }
        for bad in
            ["=", "a=b,", "a in b", "a in (b", "a b", "a=b c", "-a=b", "a>x", "a=-", ",a", "/=é"]
        {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn object_selectors() {
        let selector = LabelSelector::from_object(&json!({
            "matchLabels": {"a": "b"},
            "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["d"]}]
        }))
        .unwrap();
        assert_eq!(selector.to_string(), "a=b,c!=d");
        assert!(selector.matches_object(&json!({"metadata": {"labels": {"a": "b"}}})));
        assert!(LabelSelector::from_object(&json!({"matchExpressions": [{"key": "c"}]})).is_err());
    }

    #[test]
    fn field_selectors() {
        let selector = FieldSelector::parse(r"metadata.name=a\,b,spec.x!=y").unwrap();
        assert_eq!(selector.name(), Some("a,b"));
        assert_eq!(
            selector.terms()[1],
            FieldTerm { field: "spec.x".into(), value: "y".into(), equal: false }
        );
        assert_eq!(FieldSelector::of_name("a,b").name(), Some("a,b"));
        for (bad, why) in [
            ("nonsense", "invalid selector: 'nonsense'; can't understand 'nonsense'"),
            (r"a=b\", r"invalid field selector: invalid escape sequence: \"),
            (r"a=\b", r"invalid field selector: invalid escape sequence: \b"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            (r"b,a=\", r"invalid field selector: invalid escape sequence: \"),
        ] {
            assert_eq!(FieldSelector::parse(bad), Err(why.to_owned()), "{bad}");
        }
        assert!(FieldSelector::parse("").unwrap().terms().is_empty());
    }

    proptest::proptest! {
        /// Whatever a client sends is read or refused; what is read writes and reads the same.
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z!=,() ./<>0-9\\\\-]{0,24}", wild in ".{0,24}") {
            for text in [text, wild] {
                if let Ok(selector) = LabelSelector::parse(&text) {
                    let again = LabelSelector::parse(&selector.to_string()).unwrap();
                    proptest::prop_assert_eq!(again, selector);
                }
                drop(FieldSelector::parse(&text));
            }
        }
    }
}
