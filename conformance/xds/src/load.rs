//! Constant load, and what came of it.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result};
use portolan_conformance_common::Process;
use serde::Deserialize;

/// Calls that are under way until they are asked for.
pub(crate) struct Load {
    process: Process,
    output: BufReader<ChildStdout>,
}

/// How calls ended.
#[derive(Debug, Deserialize)]
pub(crate) struct Outcome {
    /// By the name of the Pod that answered.
    pub(crate) answers: BTreeMap<String, u64>,
    /// By what went wrong.
    pub(crate) failures: BTreeMap<String, u64>,
}

impl Load {
    /// Starts a script of ours.
    pub(crate) fn start(command: &mut Command, script: &str, arguments: &[&str]) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
        command.arg("-uB").arg(script).args(arguments);
        let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let output = process.child().stdout.take().context("no output")?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        anyhow::ensure!(line == "started\n", "the load did not start: {line:?}");
        Ok(Self { process, output })
    }

    /// Ends the load.
    pub(crate) fn end(mut self) -> Result<Outcome> {
        drop(self.process.child().stdin.take());
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        serde_json::from_str(&text).with_context(|| format!("the load said {text:?}"))
    }
}

impl Outcome {
    pub(crate) fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Whether each of so many Pods had at least half of its share.
    pub(crate) fn is_spread_over(&self, pods: u64) -> bool {
        let least = self.answered() / pods / 2;
        self.answers.len() as u64 == pods && self.answers.values().all(|count| *count >= least)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts: Vec<String> = self.answers.values().map(u64::to_string).collect();
        write!(f, "{} answered ({}), {} failed", self.answered(), counts.join("+"), self.failed())?;
        match self.failures.is_empty() {
            true => Ok(()),
            false => write!(f, ": {:?}", self.failures),
        }
    }
}
