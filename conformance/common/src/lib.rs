//! What the judges share: processes that end with them, and what commands print.

#![forbid(unsafe_code)]
// Judges speak to a terminal.
#![allow(clippy::print_stderr)]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A process that ends with this value.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts a command.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        Ok(Self(child))
    }

    /// Starts one that prints a line of JSON when it is ready.
    pub fn start_ready(command: &mut Command) -> Result<(Self, Value)> {
        let mut process = Self::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let stdout = process.0.stdout.take().context("no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready = serde_json::from_str(&line)
            .with_context(|| format!("{command:?} ended, or said {line:?}"))?;
        Ok((process, ready))
    }

    /// The process itself.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Without a word (SIGKILL); that it has ended already is no error.
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            eprintln!("process {}: {error}", self.0.id());
        }
    }
}

/// What a command prints; it must succeed.
pub fn text_of(command: &mut Command) -> Result<String> {
    text_with(command, None)
}

/// The same for one that reads this first.
pub fn text_with(command: &mut Command, input: Option<&str>) -> Result<String> {
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
