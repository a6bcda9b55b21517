//! Starts ours and the reference, and ends them.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result};
use serde_json::Value;

/// Numbers in objects; nothing dials them.
const RANGES: [&str; 4] = [
    "--pod-cidr",
    "10.244.0.0/16,fd00:10:244::/64",
    "--service-cidr",
    "10.96.0.0/16,fd00:96::/112",
];

/// Changes that ours remembers. The scenario `expired` makes more than these; no other goes back
/// so far.
const HISTORY: usize = 1_000;

/// A server of ours or theirs. Ends when dropped.
pub(crate) struct Server {
    pub(crate) kubeconfig: PathBuf,
    binary: PathBuf,
    arguments: Vec<String>,
    is_ours: bool,
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Server {
    pub(crate) fn ours(binary: &Path, folder: &Path) -> Result<Server> {
        // A port of its own, so that a restart finds it again.
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let history = HISTORY.to_string();
        let flags = ["cluster", "--no-node", "-o", "json", "--api-listen", &address];
        let flags = [flags.as_slice(), &["--history", &history]].concat();
        start(binary, folder, true, &[flags.as_slice(), &RANGES].concat())
    }

    /// Ours, with Pods that have networks of their own.
    pub(crate) fn ours_with_pods(binary: &Path, folder: &Path) -> Result<Server> {
        let flags = ["cluster", "--pod-network", "netns", "--ephemeral", "-o", "json"];
        let flags = [flags.as_slice(), &["--api-listen", "127.0.0.1:0"]].concat();
        start(binary, folder, true, &flags)
    }

    pub(crate) fn reference(binary: &Path, folder: &Path) -> Result<Server> {
        start(binary, folder, false, &RANGES)
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// For people.
    pub(crate) fn name(&self) -> &'static str {
        if self.is_ours { "ours" } else { "reference" }
    }

    /// Ends the API without a farewell and starts it again, with its store, on
    /// the same port.
    pub(crate) fn restart(&mut self) -> Result<()> {
        if !self.is_ours {
            let pid = self.child.id().to_string();
            Command::new("kill").args(["-USR1", &pid]).status()?;
            next_line(&mut self.lines)?;
            return Ok(());
        }
        self.child.kill()?;
        self.child.wait()?;
        let (child, lines) = spawn(&self.binary, &self.arguments)?;
        (self.child, self.lines) = (child, lines);
        next_line(&mut self.lines)?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("{}: {error}", self.binary.display());
        }
    }
}

fn start(binary: &Path, folder: &Path, is_ours: bool, flags: &[&str]) -> Result<Server> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let data = folder.to_string_lossy().into_owned();
    let arguments = [flags, &["--data-dir", &data]].concat();
    let arguments: Vec<String> = arguments.into_iter().map(ToOwned::to_owned).collect();
    let (child, lines) = spawn(binary, &arguments)?;
    let mut server = Server {
        kubeconfig: PathBuf::new(),
        binary: binary.to_owned(),
        arguments,
        is_ours,
        child,
        lines,
    };
    let ready = next_line(&mut server.lines)
        .with_context(|| format!("{}: not ready; see {data}", binary.display()))?;
    let kubeconfig = ready.get("kubeconfig").and_then(Value::as_str);
    server.kubeconfig = kubeconfig.context("no kubeconfig in its line")?.into();
    Ok(server)
}

fn spawn(binary: &Path, arguments: &[String]) -> Result<(Child, BufReader<ChildStdout>)> {
    let mut child = Command::new(binary)
        .args(arguments)
        // The reference ends when this closes.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| binary.display().to_string())?;
    let lines = child.stdout.take().context("no standard output")?;
    Ok((child, BufReader::new(lines)))
}

fn next_line(lines: &mut BufReader<ChildStdout>) -> Result<Value> {
    let mut line = String::new();
    lines.read_line(&mut line)?;
    serde_json::from_str(&line).context("no line of JSON")
}
