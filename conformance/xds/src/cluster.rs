//! A cluster of our own, with its faces in a process apart: so that they can be killed
//! while Pods go on.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use portolan_conformance_common::{Process, text_of, text_with};
use tempfile::TempDir;

/// How long anything may take before the judge gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// `portolan cluster` with `portolan serve` beside it.
pub(crate) struct Cluster {
    // Faces end first.
    faces: Option<Process>,
    _cluster: Process,
    kubeconfig: String,
    portolan: PathBuf,
    pub(crate) python: PathBuf,
    pub(crate) xds: String,
    pub(crate) http: String,
    pub(crate) folder: TempDir,
}

impl Cluster {
    pub(crate) fn start(portolan: &Path, python: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder for the cluster")?;
        let mut command = Command::new(portolan);
        command
            .args(["cluster", "--ephemeral", "--api-listen=127.0.0.1:0", "-o=json"])
            .args(["--pod-cidr=127.150.0.0/16", "--service-cidr=127.151.0.0/16"])
            .arg("--data-dir")
            .arg(folder.path().join("cluster"));
        let (cluster, ready) = Process::start_ready(&mut command)?;
        let kubeconfig = ready["kubeconfig"].as_str().context("no kubeconfig")?.to_owned();
        let mut own = Self {
            faces: None,
            _cluster: cluster,
            kubeconfig,
            portolan: portolan.to_owned(),
            python: python.to_owned(),
            xds: "127.0.0.1:0".to_owned(),
            http: "127.0.0.1:0".to_owned(),
            folder,
        };
        own.serve()?;
        Ok(own)
    }

    /// Starts the faces, at the addresses that they had before.
    pub(crate) fn serve(&mut self) -> Result<()> {
        let mut command = Command::new(&self.portolan);
        command
            .args(["serve", "--roles=xds,api", "-o=json"])
            .arg(format!("--xds-listen={}", self.xds))
            .arg(format!("--http-listen={}", self.http))
            .arg(format!("--kubeconfig={}", self.kubeconfig));
        let (faces, ready) = Process::start_ready(&mut command)?;
        self.faces = Some(faces);
        self.xds = ready["xds"].as_str().context("no xds")?.to_owned();
        let http = ready["http"].as_str().context("no http")?;
        self.http = http.trim_start_matches("http://").to_owned();
        Ok(())
    }

    /// Kills the faces without a word (SIGKILL); the cluster goes on.
    pub(crate) fn kill_faces(&mut self) -> Result<()> {
        self.faces.take().map(drop).context("the faces do not run")
    }

    /// The CLI, asking the faces.
    pub(crate) fn portolan(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.portolan);
        // Processes on this machine are no Pods, whatever started the judge.
        for variable in ["POD_NAME", "POD_NAMESPACE", "POD_IP"] {
            command.env_remove(variable);
        }
        command.args(arguments).env("PORTOLAN_SERVER", format!("http://{}", self.http));
        text_of(&mut command)
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        text_of(&mut self.kubectl_command(arguments))
    }

    fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command
    }

    /// Three Pods that run a script of ours behind a Service of port 80.
    pub(crate) fn deploy(&self, name: &str, script: &str, port: &str, linger: u32) -> Result<()> {
        let python = self.python.display();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
        let script = script.display();
        let text = format!(
            r#"apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: main
        image: portolan.dev/process
        command: ["{python}", "-uB", "{script}", "8080"]
        env:
        - {{name: LINGER, value: "{linger}"}}
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: {port}, port: 80, targetPort: 8080}}]
"#
        );
        text_with(&mut self.kubectl_command(&["apply", "-f", "-"]), Some(&text))?;
        self.rolled_out(name)
    }

    /// Replaces every Pod of a Deployment, and waits until that is done.
    pub(crate) fn restart(&self, name: &str) -> Result<()> {
        self.kubectl(&["rollout", "restart", &format!("deployment/{name}")])?;
        self.rolled_out(name)
    }

    fn rolled_out(&self, name: &str) -> Result<()> {
        let deployment = format!("deployment/{name}");
        self.kubectl(&["rollout", "status", &deployment, "--timeout=90s"])?;
        Ok(())
    }

    /// How many resources of a type the faces have sent since they started.
    pub(crate) fn sent(&self, kind: &str) -> Result<u64> {
        let mut curl = Command::new("curl");
        let metrics = text_of(curl.args(["-sf", &format!("http://{}/metrics", self.http)]))?;
        let begin = format!("portolan_xds_resources_sent_total{{type=\"{kind}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&begin));
        line.and_then(|text| text.parse().ok()).with_context(|| format!("no metric {begin}"))
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !is_so()? {
        if begun.elapsed() > PATIENCE {
            bail!("never came true: {what}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
