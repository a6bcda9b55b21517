//! What to ask, as data: `scenarios/*.yaml`.
//!
//! A file holds scenarios; a scenario has a Namespace of its own (named after
//! it) and steps that run in order. A step is one request; `cases` is a table
//! of requests that differ from the step in a few fields of the body. The
//! format is described in `README.md`.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Requests in one Namespace.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) scenario: String,
    /// No Namespace is made.
    #[serde(default)]
    pub(crate) bare: bool,
    /// The steps are repeated for each of these, with its values as variables;
    /// `as` names the row.
    #[serde(default)]
    pub(crate) each: Vec<BTreeMap<String, Value>>,
    pub(crate) steps: Vec<Step>,
}

/// One request, or a table of them.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    #[serde(default)]
    pub(crate) id: String,
    /// `METHOD /path`.
    #[serde(default)]
    pub(crate) call: String,
    /// Name of an object of `bases.yaml` that is the body.
    #[serde(default)]
    pub(crate) base: Option<String>,
    /// The body.
    #[serde(default)]
    pub(crate) body: Option<Value>,
    /// The body, not JSON.
    #[serde(default)]
    pub(crate) raw: Option<String>,
    /// The body, base64.
    #[serde(default)]
    pub(crate) bytes: Option<String>,
    /// The body: this letter, so many times.
    #[serde(default)]
    pub(crate) fill: Option<usize>,
    /// Fields of the body to change, by JSON pointer; null removes.
    #[serde(default)]
    pub(crate) set: Map<String, Value>,
    #[serde(default, rename = "type")]
    pub(crate) content_type: Option<String>,
    #[serde(default)]
    pub(crate) accept: Option<String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) token: Option<String>,
    /// Variables to take from the answer.
    #[serde(default)]
    pub(crate) save: BTreeMap<String, String>,
    /// Only these parts of the answer are written down.
    #[serde(default)]
    pub(crate) keep: Vec<String>,
    /// These are not.
    #[serde(default)]
    pub(crate) drop: Vec<String>,
    /// Of these lists only the members that have one of these values of a field: `/items` to
    /// `{name: [a, b]}`. For what one server has more of than the other.
    #[serde(default)]
    pub(crate) pick: BTreeMap<String, BTreeMap<String, Vec<Value>>>,
    /// The text there is a JWT; its claims are written down instead of the answer.
    #[serde(default)]
    pub(crate) claims: Option<String>,
    /// Ask again until the answer has these.
    #[serde(default)]
    pub(crate) until: Map<String, Value>,
    /// Ask again until the status code is this.
    #[serde(default)]
    pub(crate) until_code: Option<u16>,
    /// Ask so many times; the last answer counts. `{turn}` is the number of the turn.
    #[serde(default)]
    pub(crate) times: Option<usize>,
    /// Afterwards wait until the Deployment there has been dealt with.
    #[serde(default)]
    pub(crate) settle: Option<String>,
    /// No row.
    #[serde(default)]
    pub(crate) quiet: bool,
    /// The answer is a stream; this is its name.
    #[serde(default)]
    pub(crate) watch: Option<String>,
    /// Events of a stream.
    #[serde(default)]
    pub(crate) events: Option<Events>,
    #[serde(default)]
    pub(crate) cases: Vec<Case>,
}

/// How many events of which stream to write down.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Events {
    pub(crate) of: String,
    pub(crate) count: usize,
    #[serde(default)]
    pub(crate) skip: Vec<String>,
    /// The stream is to end after them.
    #[serde(default)]
    pub(crate) end: bool,
}

/// A row of a table of requests.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) set: Map<String, Value>,
    #[serde(default)]
    pub(crate) call: Option<String>,
    #[serde(default)]
    pub(crate) body: Option<Value>,
    #[serde(default)]
    pub(crate) raw: Option<String>,
    #[serde(default)]
    pub(crate) base: Option<String>,
    #[serde(default)]
    pub(crate) keep: Vec<String>,
}

/// Everything that is asked.
pub(crate) struct Suite {
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) bases: BTreeMap<String, Value>,
}

pub(crate) fn load(folder: &Path) -> Result<Suite> {
    let mut scenarios = Vec::new();
    let mut bases = BTreeMap::new();
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<_> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    paths.sort();
    for path in paths {
        let text = fs::read_to_string(&path)?;
        let context = || path.display().to_string();
        if path.file_name().is_some_and(|name| name == "bases.yaml") {
            bases = parse(&text).with_context(context)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            scenarios.extend(parse::<Vec<Scenario>>(&text).with_context(context)?);
        }
    }
    check_unique(&scenarios)?;
    Ok(Suite { scenarios, bases })
}

/// YAML with merge keys (`<<`).
fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    let mut value: serde_norway::Value = serde_norway::from_str(text)?;
    value.apply_merge()?;
    Ok(serde_norway::from_value(value)?)
}

fn check_unique(scenarios: &[Scenario]) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for scenario in scenarios {
        if !seen.insert(&scenario.scenario) {
            bail!("scenario {:?} twice", scenario.scenario);
        }
    }
    Ok(())
}

/// The requests of a step: itself, or its table.
pub(crate) fn expand(step: &Step) -> Vec<Step> {
    if step.cases.is_empty() {
        return vec![step.clone()];
    }
    let one = |case: &Case| {
        let mut whole = step.clone();
        whole.cases = Vec::new();
        whole.id =
            if step.id.is_empty() { case.id.clone() } else { format!("{}/{}", step.id, case.id) };
        whole.set.extend(case.set.clone());
        if let Some(call) = &case.call {
            whole.call.clone_from(call);
        }
        if let Some(base) = &case.base {
            whole.base = Some(base.clone());
        }
        if case.body.is_some() {
            whole.body.clone_from(&case.body);
            whole.base = None;
        }
        if case.raw.is_some() {
            whole.raw.clone_from(&case.raw);
            whole.base = None;
            whole.body = None;
        }
        if !case.keep.is_empty() {
            whole.keep.clone_from(&case.keep);
        }
        whole
    };
    step.cases.iter().map(one).collect()
}

/// Sets or removes one field; missing maps on the way are made.
pub(crate) fn set(target: &mut Value, pointer: &str, value: &Value) -> Result<()> {
    let Some((parent, last)) = pointer.rsplit_once('/') else {
        *target = value.clone();
        return Ok(());
    };
    let last = last.replace("~1", "/").replace("~0", "~");
    let mut at = target;
    for key in parent.split('/').skip(1) {
        let key = key.replace("~1", "/").replace("~0", "~");
        at = match at {
            Value::Array(list) => {
                let index: usize = key.parse().context(pointer.to_owned())?;
                list.get_mut(index).with_context(|| pointer.to_owned())?
            }
            Value::Object(map) => map.entry(key).or_insert_with(|| Value::Object(Map::new())),
            _ => bail!("{pointer}: nothing to go into"),
        };
    }
    match at {
        Value::Array(list) if last == "-" => list.push(value.clone()),
        Value::Array(list) => {
            let index: usize = last.parse().context(pointer.to_owned())?;
            if value.is_null() {
                if index < list.len() {
                    list.remove(index);
                }
            } else {
                *list.get_mut(index).with_context(|| pointer.to_owned())? = value.clone();
            }
        }
        Value::Object(map) if value.is_null() => {
            map.shift_remove(&last);
        }
        Value::Object(map) => {
            map.insert(last, value.clone());
        }
        _ => bail!("{pointer}: nothing to set it in"),
    }
    Ok(())
}

/// Puts variables into every string; a string that is one variable takes its type.
pub(crate) fn fill(value: &Value, variables: &BTreeMap<String, Value>) -> Value {
    match value {
        Value::String(text) => {
            let whole = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
            match whole.and_then(|name| variables.get(name)) {
                Some(found) => found.clone(),
                None => Value::String(fill_text(text, variables)),
            }
        }
        Value::Array(list) => list.iter().map(|v| fill(v, variables)).collect(),
        Value::Object(map) => {
            let one = |(key, value): (&String, &Value)| {
                (fill_text(key, variables), fill(value, variables))
            };
            Value::Object(map.iter().map(one).collect())
        }
        other => other.clone(),
    }
}

pub(crate) fn fill_text(text: &str, variables: &BTreeMap<String, Value>) -> String {
    if !text.contains('{') {
        return text.to_owned();
    }
    let mut text = text.to_owned();
    for (name, value) in variables {
        let shown = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        text = text.replace(&format!("{{{name}}}"), &shown);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_scenario_reads() {
        let suite = load(&crate::here().join("scenarios")).expect("scenarios");
        assert!(!suite.scenarios.is_empty());
        for scenario in &suite.scenarios {
            let each = if scenario.each.is_empty() {
                vec![BTreeMap::new()]
            } else {
                scenario.each.clone()
            };
            let mut seen = std::collections::BTreeSet::new();
            for variables in &each {
                for step in scenario.steps.iter().flat_map(expand) {
                    let base = step.base.as_ref().map(|b| fill_text(b, variables));
                    if let Some(base) = &base {
                        assert!(suite.bases.contains_key(base), "{}: {base}", scenario.scenario);
                    }
                    let id = format!("{:?}/{}", variables.get("as"), step.id);
                    let fine = step.quiet || seen.insert(id.clone());
                    assert!(fine, "{}: {id} twice", scenario.scenario);
                }
            }
        }
    }

    #[test]
    fn fields_are_set_and_removed() {
        for (pointer, value, expected) in [
            ("/a/b", json!(1), json!({"a": {"b": 1, "l": [1, 2]}})),
            ("/a/b", json!(null), json!({"a": {"l": [1, 2]}})),
            ("/a/l/0", json!(null), json!({"a": {"b": 0, "l": [2]}})),
            ("/a/l/-", json!(3), json!({"a": {"b": 0, "l": [1, 2, 3]}})),
            ("/x/y", json!("z"), json!({"a": {"b": 0, "l": [1, 2]}, "x": {"y": "z"}})),
            ("/a~1b", json!(1), json!({"a": {"b": 0, "l": [1, 2]}, "a/b": 1})),
            ("", json!([]), json!([])),
        ] {
            let mut object = json!({"a": {"b": 0, "l": [1, 2]}});
            set(&mut object, pointer, &value).expect(pointer);
            assert_eq!(object, expected, "{pointer}");
        }
        assert!(set(&mut json!({"a": 1}), "/a/b", &json!(1)).is_err());
    }

    #[test]
    fn variables_keep_their_type() {
        let variables = BTreeMap::from([("n".to_owned(), json!(3)), ("s".to_owned(), json!("x"))]);
        let filled = fill(&json!({"{s}": ["{n}", "a{n}", "{other}"]}), &variables);
        assert_eq!(filled, json!({"x": [3, "a3", "{other}"]}));
    }
}
