//! What users type, as data: `scripts/*.yaml`.
//!
//! A file holds scripts; a script has a Namespace and a folder of its own, and
//! steps that run in order. A step is one command line, given to a shell as a user
//! would type it; [`session`] runs it on one server and writes down its exit
//! code and what it printed, in which [`terminal`] has replaced whatever may
//! differ between two runs. Nobody runs Pods: [`kubelet`] sets their status.
//! The format is described in `README.md`.

mod kubelet;
pub(crate) mod session;
mod terminal;

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Commands in one Namespace.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    pub(crate) script: String,
    pub(crate) steps: Vec<Step>,
}

/// One command, or a look at one that runs on.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, from = "Entry")]
pub(crate) struct Step {
    /// Name of the row; by default the command itself.
    pub(crate) id: String,
    pub(crate) run: String,
    /// No row; the command must succeed.
    pub(crate) quiet: bool,
    /// Run it again until it prints this.
    pub(crate) until: Option<String>,
    /// Run it again until it ends with this code.
    pub(crate) until_code: Option<i32>,
    /// Parts of printed JSON or YAML that are not written down.
    pub(crate) drop: Vec<String>,
    /// Lines with one of these are not written down.
    pub(crate) without: Vec<String>,
    /// The order of lines is open.
    pub(crate) sorted: bool,
    /// The command runs on; this is its name.
    pub(crate) follow: Option<String>,
    /// Lines of a command that runs on.
    pub(crate) take: Option<Take>,
}

/// How many lines of which command to write down.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Take {
    pub(crate) of: String,
    pub(crate) count: usize,
}

/// A step as it is written: a command line alone, or with more.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Line(String),
    Full(Full),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    id: Option<String>,
    #[serde(default)]
    run: String,
    #[serde(default)]
    quiet: bool,
    until: Option<String>,
    until_code: Option<i32>,
    #[serde(default)]
    drop: Vec<String>,
    #[serde(default)]
    without: Vec<String>,
    #[serde(default)]
    sorted: bool,
    follow: Option<String>,
    take: Option<Take>,
}

impl From<Entry> for Step {
    fn from(entry: Entry) -> Step {
        match entry {
            Entry::Line(run) => Step { id: run.trim().to_owned(), run, ..Step::default() },
            Entry::Full(full) => Step {
                id: full.id.unwrap_or_else(|| full.run.trim().to_owned()),
                run: full.run,
                quiet: full.quiet,
                until: full.until,
                until_code: full.until_code,
                drop: full.drop,
                without: full.without,
                sorted: full.sorted,
                follow: full.follow,
                take: full.take,
            },
        }
    }
}

/// Where the scripts are; those in `files` lie where the commands run.
fn folder() -> PathBuf {
    crate::here().join("scripts")
}

pub(crate) fn load() -> Result<Vec<Script>> {
    let folder = folder();
    let mut scripts: Vec<Script> = Vec::new();
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<_> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    paths.sort();
    for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "yaml")) {
        let text = fs::read_to_string(path)?;
        let read: Vec<Script> =
            serde_norway::from_str(&text).with_context(|| path.display().to_string())?;
        scripts.extend(read);
    }
    name_rows(&mut scripts)?;
    Ok(scripts)
}

/// Rows are told apart by their names: a command that is given again says so.
fn name_rows(scripts: &mut [Script]) -> Result<()> {
    let mut names = BTreeSet::new();
    for script in scripts {
        let name = &script.script;
        ensure!(names.insert(name.clone()), "script {name:?} twice");
        let mut ids = BTreeSet::new();
        for step in &mut script.steps {
            ensure!(
                !step.run.is_empty() || step.take.is_some(),
                "{name}: a step without a command"
            );
            while !ids.insert(step.id.clone()) {
                step.id.push_str(" (again)");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_reads() {
        let scripts = load().expect("scripts");
        assert!(!scripts.is_empty());
    }

    #[test]
    fn a_step_may_be_a_line() {
        let text = "[{script: a, steps: [kubectl version, {run: x, until: y, id: z}]}]";
        let scripts: Vec<Script> = serde_norway::from_str(text).expect("script");
        let ids: Vec<_> = scripts[0].steps.iter().map(|step| step.id.as_str()).collect();
        assert_eq!(ids, ["kubectl version", "z"]);
        let text = "[{script: a, steps: [{run: x, nothing: y}]}]";
        assert!(serde_norway::from_str::<Vec<Script>>(text).is_err());
    }
}
