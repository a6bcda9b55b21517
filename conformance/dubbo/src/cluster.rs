//! A cluster of our own whose Pods have namespaces.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

/// `portolan up`, which ends with this value.
pub(crate) struct Cluster {
    child: Child,
    folder: TempDir,
    addresses: Value,
    portolan: std::path::PathBuf,
}

impl Cluster {
    pub(crate) fn start(portolan: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder for the cluster")?;
        let mut child = Command::new(portolan)
            .args(["up", "--ephemeral", "--pod-network=netns", "-o=json"])
            .args(["--api-listen=127.0.0.1:0", "--dns-listen=127.0.0.1:0"])
            .arg("--http-listen=127.0.0.1:0")
            .arg("--data-dir")
            .arg(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", portolan.display()))?;
        let mut line = String::new();
        let out = child.stdout.take().context("no output")?;
        BufReader::new(out).read_line(&mut line)?;
        let addresses = serde_json::from_str(&line)
            .with_context(|| format!("portolan up ended, or said {line:?}"))?;
        Ok(Self { child, folder, addresses, portolan: portolan.to_owned() })
    }

    fn address(&self, name: &str) -> &str {
        self.addresses[name].as_str().unwrap_or_default()
    }

    fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.address("kubeconfig")).args(arguments);
        command
    }

    pub(crate) fn apply(&self, text: &str) -> Result<()> {
        let mut child = self
            .kubectl(&["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run kubectl")?;
        child.stdin.take().context("no input")?.write_all(text.as_bytes())?;
        if !child.wait()?.success() {
            bail!("kubectl apply failed");
        }
        Ok(())
    }

    /// The Pods of a namespace that offer an interface, as the catalog has them, sorted.
    pub(crate) fn instances(&self, namespace: &str, interface: &str) -> Result<Vec<String>> {
        let output = Command::new(&self.portolan)
            .args(["get", "instances", "--origin=registry", "-o=json", "-n", namespace, "--server"])
            .arg(self.address("http"))
            .current_dir(self.folder.path())
            .output()?;
        if !output.status.success() {
            bail!("get instances: {}", String::from_utf8_lossy(&output.stderr));
        }
        let list: Value = serde_json::from_slice(&output.stdout)?;
        let items = list["items"].as_array().or_else(|| list.as_array()).cloned();
        let mut names: Vec<String> = items
            .with_context(|| format!("get instances said {list}"))?
            .iter()
            .filter(|item| item["service"] == interface)
            .filter_map(|item| item["name"].as_str().map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    }

    pub(crate) fn has_logged(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        line: &str,
    ) -> Result<bool> {
        let output = self.kubectl(&["logs", "-n", namespace, pod, "-c", container]).output()?;
        let log = String::from_utf8_lossy(&output.stdout);
        Ok(log.lines().any(|printed| printed == line))
    }

    /// What happened, for whoever has to find out why.
    pub(crate) fn tell(&self) {
        for arguments in [
            &["get", "pods", "-A", "-o", "wide"][..],
            &["logs", "-n", "both", "theirs", "--tail=20"],
            &["logs", "-n", "both", "ours", "-c", "sdk", "--tail=20"],
            &["logs", "-n", "theirs", "caller", "--tail=20"],
            &["logs", "-n", "ours", "caller", "--tail=20"],
        ] {
            if let Ok(output) = self.kubectl(arguments).output() {
                eprintln!("kubectl {}", arguments.join(" "));
                eprint!("{}", String::from_utf8_lossy(&output.stdout));
                eprint!("{}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        // SIGTERM takes down what was made for the Pods.
        drop(Command::new("kill").arg(pid).status());
        drop(self.child.wait());
    }
}
