//! One step of a field path, and its two spellings: the one stored in `fieldsV1`
//! (`f:spec`, `k:{"name":"app"}`, `v:"x"`, `i:0`) and the one that people read
//! (`.spec`, `[name="app"]`, `[="x"]`, `[0]`).

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Number, Value};

/// One step of a path. The order is the one in which a Kubernetes API server writes field sets:
/// fields, keys, values, indices.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// A field of an object, or a key of a map.
    Field(String),
    /// An element of a keyed list: the names and values of its keys, sorted by name.
    Key(Vec<(String, Scalar)>),
    /// An element of a set.
    Value(Scalar),
    /// An element by position. Read for completeness; nothing here makes one.
    Index(i64),
}

/// A JSON value with the total order of structured-merge-diff: numbers (by value, so that `1` is
/// `1.0`), strings, booleans, then the rest.
#[derive(Clone, Debug)]
pub struct Scalar(pub Value);

impl Scalar {
    fn rank(&self) -> u8 {
        match self.0 {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (a, b) if self.rank() == other.rank() => a.to_string().cmp(&b.to_string()),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar {}

pub(super) fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => {
            let float = |number: &Number| number.as_f64().unwrap_or_default();
            float(a).total_cmp(&float(b))
        }
    }
}

impl PathElement {
    /// The `fieldsV1` spelling.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => {
                let object: Map<String, Value> =
                    keys.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
                format!("k:{}", Value::Object(object))
            }
            Self::Value(value) => format!("v:{}", value.0),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    /// Reads the `fieldsV1` spelling. `Ok(None)` is a kind of element that a later version may
    /// know; it is skipped, as upstream does.
    ///
    /// # Errors
    /// A text that is no element of a known kind.
    pub fn decode(text: &str) -> Result<Option<Self>, String> {
        let Some((kind, rest)) = text.split_once(':').filter(|(kind, _)| kind.len() == 1) else {
            return Err(format!("{text:?} is no field path element"));
        };
        let json = || -> Result<Value, String> {
            serde_json::from_str(rest).map_err(|error| format!("{text:?}: {error}"))
        };
        let element = match kind {
            "f" => Self::Field(rest.to_owned()),
            "v" => Self::Value(Scalar(json()?)),
            "k" => match json()? {
                Value::Object(members) => {
                    Self::key(members.into_iter().map(|(name, value)| (name, Scalar(value))))
                }
                _ => return Err(format!("{text:?}: the keys are no object")),
            },
            "i" => Self::Index(rest.parse().map_err(|error| format!("{text:?}: {error}"))?),
            _ => return Ok(None),
        };
        Ok(Some(element))
    }

    pub(super) fn key(keys: impl IntoIterator<Item = (String, Scalar)>) -> Self {
        let mut keys: Vec<_> = keys.into_iter().collect();
        keys.sort();
        Self::Key(keys)
    }
}

impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                f.write_str("[")?;
                for (i, (name, value)) in keys.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={}", value.0)?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={}]", value.0),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A path as people read it: `.spec.containers[name="app"].image`.
#[must_use]
pub fn display_path(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}
