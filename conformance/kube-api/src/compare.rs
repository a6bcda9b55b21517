//! Puts the rows of two servers side by side.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

/// Longest value that is printed whole.
const SHOWN: usize = 160;
/// Differences printed of one row.
const LEAVES: usize = 8;

/// What came of one request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) outcome: Value,
}

pub(crate) fn write(path: &Path, rows: &[Row]) -> Result<()> {
    let list: Vec<Value> =
        rows.iter().map(|row| json!({"id": row.id, "outcome": row.outcome})).collect();
    fs::write(path, serde_json::to_string_pretty(&list)?)
        .with_context(|| path.display().to_string())
}

pub(crate) fn read(path: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let list: Vec<Value> = serde_json::from_str(&text)?;
    let row = |value: &Value| {
        let id = value.get("id").and_then(Value::as_str)?.to_owned();
        Some(Row { id, outcome: value.get("outcome").cloned().unwrap_or_default() })
    };
    list.iter().map(row).collect::<Option<_>>().context("a row without id")
}

/// Differences that are meant, each with its reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    #[serde(default, rename = "difference")]
    list: Vec<Difference>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    /// Rows, `*` for any text.
    rows: String,
    /// Where in the outcome, `*` for any text.
    path: String,
    reason: String,
}

impl Known {
    pub(crate) fn parse(text: &str) -> Result<Known> {
        let known: Known = toml::from_str(text)?;
        for entry in &known.list {
            anyhow::ensure!(!entry.reason.trim().is_empty(), "{}: no reason", entry.rows);
        }
        Ok(known)
    }

    fn find(&self, row: &str, path: &str) -> Option<usize> {
        self.list.iter().position(|d| is_like(&d.rows, row) && is_like(&d.path, path))
    }
}

/// Whether text is like a pattern in which `*` is any text.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(head) else { return false };
    (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| is_like(rest, &text[at..]))
}

struct Leaf {
    path: String,
    ours: Option<Value>,
    theirs: Option<Value>,
}

/// What the comparison found.
pub(crate) struct Verdict {
    stale: Vec<String>,
    unexplained: Vec<(String, Vec<Leaf>)>,
    /// Rows by the first word of their name: all, equal, known, unexplained.
    groups: BTreeMap<String, [usize; 4]>,
}

pub(crate) fn compare(ours: &[Row], theirs: &[Row], known: &Known) -> Verdict {
    let by_id = |rows: &[Row]| -> BTreeMap<String, Value> {
        rows.iter().map(|row| (row.id.clone(), row.outcome.clone())).collect()
    };
    let (our_rows, their_rows) = (by_id(ours), by_id(theirs));
    let mut ids: Vec<&String> = theirs.iter().map(|row| &row.id).collect();
    ids.extend(ours.iter().map(|row| &row.id).filter(|id| !their_rows.contains_key(*id)));
    let mut verdict =
        Verdict { stale: Vec::new(), unexplained: Vec::new(), groups: BTreeMap::new() };
    let mut used = vec![false; known.list.len()];
    for id in ids {
        let mut leaves = Vec::new();
        differ("", our_rows.get(id), their_rows.get(id), &mut leaves);
        let count = leaves.len();
        leaves.retain(|leaf| match known.find(id, &leaf.path) {
            Some(at) => {
                used[at] = true;
                false
            }
            None => true,
        });
        let group = id.split('/').next().unwrap_or_default().to_owned();
        let counts = verdict.groups.entry(group).or_default();
        counts[0] += 1;
        if count == 0 {
            counts[1] += 1;
        } else if leaves.is_empty() {
            counts[2] += 1;
        } else {
            verdict.unexplained.push((id.clone(), leaves));
            counts[3] += 1;
        }
    }
    for (entry, used) in known.list.iter().zip(used) {
        if !used {
            verdict.stale.push(format!("{} {}", entry.rows, entry.path));
        }
    }
    verdict
}

fn differ(path: &str, ours: Option<&Value>, theirs: Option<&Value>, leaves: &mut Vec<Leaf>) {
    if ours == theirs {
        return;
    }
    match (ours, theirs) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let escaped = key.replace('~', "~0").replace('/', "~1");
                differ(&format!("{path}/{escaped}"), a.get(key), b.get(key), leaves);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) if is_text(path, a) && is_text(path, b) => {
            lines(path, a, b, leaves);
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                differ(&format!("{path}/{index}"), a.get(index), b.get(index), leaves);
            }
        }
        _ => leaves.push(Leaf {
            path: path.to_owned(),
            ours: ours.cloned(),
            theirs: theirs.cloned(),
        }),
    }
}

/// Whether a list is what a command printed.
fn is_text(path: &str, list: &[Value]) -> bool {
    matches!(path, "/out" | "/err") && list.iter().all(Value::is_string)
}

/// Lines that one side has and the other has not, along the longest text that
/// they share; the path of a line is the line.
fn lines(path: &str, ours: &[Value], theirs: &[Value], leaves: &mut Vec<Leaf>) {
    let width = theirs.len() + 1;
    // The length of what the rests of both have in common.
    let mut common = vec![0_usize; (ours.len() + 1) * width];
    for (a, our) in ours.iter().enumerate().rev() {
        for (b, their) in theirs.iter().enumerate().rev() {
            common[a * width + b] = if our == their {
                common[(a + 1) * width + b + 1] + 1
            } else {
                common[(a + 1) * width + b].max(common[a * width + b + 1])
            };
        }
    }
    let path = |line: &Value| format!("{path}/{}", line.as_str().unwrap_or_default());
    let (mut a, mut b) = (0, 0);
    while a < ours.len() || b < theirs.len() {
        if a < ours.len() && b < theirs.len() && ours[a] == theirs[b] {
            (a, b) = (a + 1, b + 1);
        } else if b == theirs.len()
            || (a < ours.len() && common[(a + 1) * width + b] >= common[a * width + b + 1])
        {
            leaves.push(Leaf { path: path(&ours[a]), ours: Some(ours[a].clone()), theirs: None });
            a += 1;
        } else {
            let theirs = theirs[b].clone();
            leaves.push(Leaf { path: path(&theirs), ours: None, theirs: Some(theirs) });
            b += 1;
        }
    }
}

impl Verdict {
    pub(crate) fn passes(&self) -> bool {
        self.unexplained.is_empty()
    }

    /// For people.
    pub(crate) fn table(&self, is_whole: bool) -> String {
        let mut lines = Vec::new();
        for (id, leaves) in &self.unexplained {
            lines.push(id.clone());
            for leaf in leaves.iter().take(LEAVES) {
                lines.push(format!("    {}", leaf.path));
                lines.push(format!("        ours:   {}", shown(leaf.ours.as_ref())));
                lines.push(format!("        theirs: {}", shown(leaf.theirs.as_ref())));
            }
            if leaves.len() > LEAVES {
                lines.push(format!("    and {} more", leaves.len() - LEAVES));
            }
        }
        let titles = ("rows", "equal", "known", "unexplained");
        let line = |name: &str, all: &str, equal: &str, known: &str, rest: &str| {
            format!("{name:<28}{all:>6}{equal:>7}{known:>7}{rest:>13}")
        };
        lines.push(String::new());
        lines.push(line("scenario", titles.0, titles.1, titles.2, titles.3));
        let mut sums = [0; 4];
        for (group, counts) in &self.groups {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
            let [all, equal, known, rest] = counts.map(|count| count.to_string());
            lines.push(line(group, &all, &equal, &known, &rest));
        }
        let [all, equal, known, rest] = sums.map(|count| count.to_string());
        lines.push(line("all", &all, &equal, &known, &rest));
        for entry in self.stale.iter().filter(|_| is_whole) {
            lines.push(format!("known difference that did not occur: {entry}"));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else { return "(nothing)".into() };
    let text = value.to_string();
    match text.char_indices().nth(SHOWN * 3) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, outcome: Value) -> Row {
        Row { id: id.into(), outcome }
    }

    #[test]
    fn differences_are_equal_known_or_unexplained() {
        let ours = [
            row("a/1", json!({"x": 1})),
            row("a/2", json!({"x": [1, 2]})),
            row("a/3", json!({"x": {"y": 1}})),
            row("b/1", json!(1)),
        ];
        let theirs = [
            row("a/1", json!({"x": 1})),
            row("a/2", json!({"x": [1, 3]})),
            row("a/3", json!({"x": {"y": 1, "z": 2}})),
        ];
        let known = Known::parse(
            "[[difference]]\nrows = 'a/*'\npath = '/x/1'\nreason = 'meant'\n\
             [[difference]]\nrows = 'c'\npath = '*'\nreason = 'never'",
        )
        .expect("known");
        let verdict = compare(&ours, &theirs, &known);
        assert!(!verdict.passes());
        assert_eq!(verdict.groups.get("a"), Some(&[3, 1, 1, 1]));
        let ids: Vec<_> = verdict.unexplained.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["a/3", "b/1"]);
        assert_eq!(verdict.stale, ["c *"]);
    }

    #[test]
    fn printed_lines_are_found_in_each_other() {
        let ours = [row("a", json!({"out": ["x", "y", "z"]}))];
        let theirs = [row("a", json!({"out": ["x", "new", "y", "w"]}))];
        let known = "[[difference]]\nrows = '*'\npath = '/out/new'\nreason = 'meant'";
        let verdict = compare(&ours, &theirs, &Known::parse(known).expect("known"));
        let paths: Vec<_> =
            verdict.unexplained.iter().flat_map(|(_, l)| l).map(|l| l.path.as_str()).collect();
        assert_eq!(paths, ["/out/z", "/out/w"]);
    }

    #[test]
    fn the_list_of_known_differences_reads() {
        let text = fs::read_to_string(crate::here().join("known-differences.toml"));
        Known::parse(&text.expect("file")).expect("list");
        assert!(Known::parse("[[difference]]\nrows=''\npath=''\nreason=' '").is_err());
    }

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "aab", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("*", "", true),
        ] {
            assert_eq!(is_like(pattern, text), expected, "{pattern} {text}");
        }
    }
}
