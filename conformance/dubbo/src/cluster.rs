//! A cluster of our own whose Pods have namespaces.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};
use portolan_conformance_common::{Process, text_of, text_with};
use serde_json::Value;
use tempfile::TempDir;

/// `portolan up`, which ends with this value.
pub(crate) struct Cluster {
    process: Process,
    folder: TempDir,
    addresses: Value,
    portolan: std::path::PathBuf,
}

impl Cluster {
    pub(crate) fn start(portolan: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder for the cluster")?;
        let mut command = Command::new(portolan);
        command
            .args(["up", "--ephemeral", "--pod-network=netns", "-o=json"])
            .args(["--api-listen=127.0.0.1:0", "--dns-listen=127.0.0.1:0"])
            .args(["--http-listen=127.0.0.1:0", "--xds-listen=127.0.0.1:0"])
            .arg("--data-dir")
            .arg(folder.path());
        let (process, addresses) = Process::start_ready(&mut command)?;
        Ok(Self { process, folder, addresses, portolan: portolan.to_owned() })
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
        text_with(&mut self.kubectl(&["apply", "-f", "-"]), Some(text)).map(drop)
    }

    /// The Pods of a namespace that offer an interface, as the catalog has them, sorted.
    pub(crate) fn instances(&self, namespace: &str, interface: &str) -> Result<Vec<String>> {
        let text = text_of(
            Command::new(&self.portolan)
                .args(["get", "instances", "--origin=registry", "-o=json", "-n", namespace])
                .args(["--server", self.address("http")])
                .current_dir(self.folder.path()),
        )?;
        let list: Value = serde_json::from_str(&text)?;
        let mut names: Vec<String> = list["items"]
            .as_array()
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
        let child = self.process.child();
        // SIGTERM takes down what was made for the Pods.
        drop(Command::new("kill").arg(child.id().to_string()).status());
        drop(child.wait());
    }
}
