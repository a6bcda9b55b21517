//! A cluster with a world in it, and the two servers that answer from it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use domain::base::Rtype;
use portolan_conformance_common::{Process, text_with};
use serde_json::Value;

use crate::{
    ask::{self, MANNERS, Question},
    upstream,
    world::World,
};

/// How long a server may take to know everything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that runs for one world.
pub(crate) struct Servers {
    pub(crate) ours: SocketAddr,
    pub(crate) theirs: SocketAddr,
    kubeconfig: String,
    children: Vec<Process>,
    folder: tempfile::TempDir,
}

impl Drop for Servers {
    fn drop(&mut self) {
        // Who was started last ends first.
        while self.children.pop().is_some() {}
    }
}

impl Servers {
    /// Starts a cluster, makes the world, and waits until both know it.
    pub(crate) fn start(portolan: &Path, coredns: &Path, world: &World) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut cluster = Command::new(portolan);
        cluster.args([
            "cluster",
            "--no-node",
            "--ephemeral",
            "-o=json",
            "--api-listen=127.0.0.1:0",
        ]);
        cluster.args(["--service-cidr=10.96.0.0/16,fd00:96::/112"]);
        cluster.args(["--pod-cidr=10.244.0.0/16,fd00:10:244::/64", "--data-dir"]);
        let (child, line) = Process::start_ready(cluster.arg(folder.path().join("cluster")))?;
        let kubeconfig = line.get("kubeconfig").and_then(Value::as_str);
        let kubeconfig = kubeconfig.context("no kubeconfig")?.to_owned();
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut servers =
            Self { ours: nobody, theirs: nobody, kubeconfig, children: vec![child], folder };
        servers.make(world)?;
        let upstream = upstream::start()?;
        servers.theirs = servers.coredns(coredns, world, upstream)?;
        servers.ours = servers.portolan(portolan, world, upstream)?;
        for server in [servers.theirs, servers.ours] {
            knows_all(server)?;
        }
        Ok(servers)
    }

    /// All Services as the API has them, with the addresses that it gave them.
    pub(crate) fn services(&self) -> Result<Vec<Value>> {
        let text = self.kubectl(&["get", "services", "-A", "-o", "json"], None)?;
        let list: Value = serde_json::from_str(&text)?;
        Ok(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    fn make(&self, world: &World) -> Result<()> {
        let list = |items: &[Value]| {
            serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
        };
        let create = ["create", "--validate=false", "-f", "-"];
        self.kubectl(&create, Some(&list(&world.objects)))?;
        for (namespace, name, status) in &world.pod_statuses {
            let patch = status.to_string();
            let args = ["-n", namespace, "patch", "pod", name, "--subresource=status"];
            self.kubectl(&[&args[..], &["--type=merge", "-p", &patch]].concat(), None)?;
        }
        self.kubectl(&create, Some(&list(&World::last())))?;
        Ok(())
    }

    fn kubectl(&self, args: &[&str], input: Option<&str>) -> Result<String> {
        let mut kubectl = Command::new("kubectl");
        kubectl.args(args).env("KUBECONFIG", &self.kubeconfig).env("HOME", self.folder.path());
        text_with(&mut kubectl, input)
    }

    fn coredns(
        &mut self,
        binary: &Path,
        world: &World,
        upstream: SocketAddr,
    ) -> Result<SocketAddr> {
        let address = free()?;
        let more = format!("kubeconfig {}", self.kubeconfig);
        let corefile = world.corefile(address.port(), upstream, &more);
        let path = self.folder.path().join("Corefile.coredns");
        fs::write(&path, corefile)?;
        let log = fs::File::create(self.folder.path().join("coredns.log"))?;
        let mut command = Command::new(binary);
        command.arg("-conf").arg(path).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.children.push(Process::start(&mut command)?);
        Ok(address)
    }

    fn portolan(
        &mut self,
        binary: &Path,
        world: &World,
        upstream: SocketAddr,
    ) -> Result<SocketAddr> {
        let address = free()?;
        let path = self.folder.path().join("Corefile.portolan");
        fs::write(&path, world.corefile(address.port(), upstream, ""))?;
        let mut command = Command::new(binary);
        command.args(["serve", "--roles=dns", "-o=json"]);
        command.arg(format!("--kubeconfig={}", self.kubeconfig));
        command.arg(format!("--corefile={}", path.display()));
        command.arg(format!("--dns-listen={address}"));
        // That aliases fail is what some worlds are about.
        let (child, _) = Process::start_ready(command.env("RUST_LOG", "error"))?;
        self.children.push(child);
        Ok(address)
    }
}

/// A port that is free for both transports.
fn free() -> Result<SocketAddr> {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        if UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
}

/// Waits until a server knows the Service that was made last.
fn knows_all(server: SocketAddr) -> Result<()> {
    let question = Question { name: World::last_name(), kind: Rtype::A };
    let [manner, ..] = MANNERS;
    let deadline = Instant::now() + PATIENCE;
    while !ask::ask(server, &question, manner).is_ok_and(|reply| !reply.answer.is_empty()) {
        if Instant::now() > deadline {
            bail!("{server} does not know {question:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
