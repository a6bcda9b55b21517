//! Real clients at work: Envoy, and gRPC without a proxy.
//!
//! ```text
//!   portolan cluster ── Pods: python backends
//!   portolan serve ──xDS──▶ Envoy  ◀── http_load.py      ──▶ Pods
//!                  └─xDS──▶ grpcio: grpc_load.py          ──▶ Pods
//! ```
//!
//! Calls are counted at the caller, without retries. Each thing that loses no call is
//! done a second time with the mechanism off, and must lose some then: else it would
//! prove nothing.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use portolan_conformance_common::{Process, text_of};
use serde_json::Value;

use crate::{
    cluster::{Cluster, until},
    load::{Load, Outcome},
};

/// What one thing came to.
pub(crate) struct Verdict {
    pub(crate) what: String,
    pub(crate) is_fine: bool,
    pub(crate) detail: String,
}

fn verdict(what: &str, is_fine: bool, detail: impl ToString) -> Verdict {
    Verdict { what: what.to_owned(), is_fine, detail: detail.to_string() }
}

/// How long load runs before and after something happens.
const BESIDE: Duration = Duration::from_secs(2);

/// Everything, one after the other.
pub(crate) fn all(portolan: &Path, envoy: &Path, python: &Path) -> Result<Vec<Verdict>> {
    let mut cluster = Cluster::start(portolan, python)?;
    cluster.deploy("web", "http_backend.py", "http", 3)?;
    cluster.deploy("abrupt", "http_backend.py", "http", 0)?;
    cluster.deploy("greeter", "grpc_backend.py", "grpc", 3)?;
    cluster.deploy("hasty", "grpc_backend.py", "grpc", 0)?;
    let mut verdicts = Vec::new();
    let proxy = Envoy::start(envoy, &cluster)?;
    verdicts.extend(dump(&proxy, &cluster)?);
    ensure!(proxy.rejected()?.is_empty(), "Envoy refused something at the start");
    verdicts.extend(calls(&cluster, "Envoy", http, ["web", "abrupt"])?);
    verdicts.extend(calls(&cluster, "gRPC", grpc, ["greeter", "hasty"])?);
    verdicts.extend(without_the_server(&proxy, &mut cluster)?);
    let rejected = proxy.rejected()?;
    verdicts.push(verdict("Envoy refused nothing", rejected.is_empty(), rejected.join(" ")));
    Ok(verdicts)
}

/// Envoy as a sidecar on 127.0.0.1.
struct Envoy {
    _process: Process,
    admin: String,
}

impl Envoy {
    fn start(envoy: &Path, cluster: &Cluster) -> Result<Self> {
        let bootstrap = cluster.portolan(&["get", "bootstrap", "envoy", "-n", "default"])?;
        let mut bootstrap: Value = serde_json::from_str(&bootstrap)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let admin = bootstrap
            .pointer_mut("/admin/address/socket_address/port_value")
            .context("the bootstrap has no admin")?;
        *admin = port.into();
        let file = cluster.folder.path().join("envoy.json");
        std::fs::write(&file, bootstrap.to_string())?;
        let process = Process::start(
            Command::new(envoy)
                .args(["--concurrency", "1", "--log-level", "warn", "--disable-hot-restart", "-c"])
                .arg(&file)
                .stdin(Stdio::null()),
        )?;
        let own = Self { _process: process, admin: format!("http://127.0.0.1:{port}") };
        until("Envoy is ready", || Ok(own.get("/ready").is_ok_and(|text| text == "LIVE\n")))?;
        Ok(own)
    }

    fn get(&self, path: &str) -> Result<String> {
        text_of(Command::new("curl").args(["-sf", &format!("{}{path}", self.admin)]))
    }

    /// Counters of refused updates that are not 0.
    fn rejected(&self) -> Result<Vec<String>> {
        let stats = self.get("/stats?filter=update_rejected")?;
        ensure!(stats.contains("update_rejected: 0"), "Envoy has no such counters: {stats}");
        Ok(stats.lines().filter(|line| !line.ends_with(": 0")).map(str::to_owned).collect())
    }

    /// A counter.
    fn stat(&self, name: &str) -> Result<u64> {
        let stats = self.get(&format!("/stats?filter=^{}$", name.replace('.', "\\.")))?;
        let value = stats.lines().find_map(|line| line.rsplit(": ").next()?.parse().ok());
        value.with_context(|| format!("Envoy has no {name}: {stats:?}"))
    }
}

/// What Envoy holds beside what it was sent: names and versions of clusters, listeners
/// and routes, and addresses of endpoints.
fn dump(proxy: &Envoy, cluster: &Cluster) -> Result<Vec<Verdict>> {
    until("Envoy has accepted everything", || {
        Ok(cluster.portolan(&["get", "clients"])?.matches("SYNCED").count() == 4)
    })?;
    let dump: Value = serde_json::from_str(&proxy.get("/config_dump?include_eds")?)?;
    let held = held(&dump)?;
    let sent = crate::csds::sent(&cluster.xds)?;
    let mut verdicts = Vec::new();
    for (kind, sent) in &sent {
        let held = held.get(kind).cloned().unwrap_or_default();
        let detail = match held == *sent {
            true => format!("{} of them", sent.len()),
            false => format!("Envoy: {held:?}; sent: {sent:?}"),
        };
        let what = format!("Envoy holds what it was sent: {kind}");
        verdicts.push(verdict(&what, held == *sent && !sent.is_empty(), detail));
    }
    Ok(verdicts)
}

type Held = std::collections::BTreeMap<String, std::collections::BTreeMap<String, String>>;

/// From Envoy's own dump: version by name, by type; of endpoints, their addresses.
fn held(dump: &Value) -> Result<Held> {
    let mut all = Held::new();
    let configs = dump["configs"].as_array().context("no configs")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for config in configs {
        let items = |key: &str| config[key].as_array().cloned().unwrap_or_default();
        let mut add = |kind: &str, name: String, what: String| {
            all.entry(kind.to_owned()).or_default().insert(name, what);
        };
        for item in items("dynamic_active_clusters") {
            add("CDS", text(&item["cluster"]["name"]), text(&item["version_info"]));
        }
        for item in items("dynamic_listeners") {
            add("LDS", text(&item["name"]), text(&item["active_state"]["version_info"]));
        }
        for item in items("dynamic_route_configs") {
            add("RDS", text(&item["route_config"]["name"]), text(&item["version_info"]));
        }
        for item in items("dynamic_endpoint_configs") {
            let config = &item["endpoint_config"];
            let mut addresses: Vec<String> = Vec::new();
            for locality in config["endpoints"].as_array().into_iter().flatten() {
                for endpoint in locality["lb_endpoints"].as_array().into_iter().flatten() {
                    let socket = &endpoint["endpoint"]["address"]["socket_address"];
                    addresses.push(format!(
                        "{}:{}",
                        text(&socket["address"]),
                        socket["port_value"]
                    ));
                }
            }
            addresses.sort();
            add("EDS", text(&config["cluster_name"]), addresses.join(" "));
        }
    }
    Ok(all)
}

fn http(cluster: &Cluster, service: &str) -> Result<Load> {
    let mut python = Command::new(&cluster.python);
    Load::start(&mut python, "http_load.py", &["127.0.0.1:80", service])
}

fn grpc(cluster: &Cluster, service: &str) -> Result<Load> {
    let bootstrap = cluster.portolan(&["get", "bootstrap", "grpc", "-n", "default"])?;
    let mut python = Command::new(&cluster.python);
    python.env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap);
    Load::start(&mut python, "grpc_load.py", &[&format!("{service}:80")])
}

/// Load on a service while every Pod of it is replaced.
fn restarted(cluster: &Cluster, service: &str, load: Load) -> Result<Outcome> {
    std::thread::sleep(BESIDE);
    cluster.restart(service)?;
    std::thread::sleep(BESIDE);
    load.end()
}

fn calm(load: Load) -> Result<Outcome> {
    std::thread::sleep(BESIDE);
    load.end()
}

/// Calls of one kind of client to Pods that take their leave, and to Pods that fall over.
fn calls(
    cluster: &Cluster,
    who: &str,
    load: fn(&Cluster, &str) -> Result<Load>,
    [polite, abrupt]: [&str; 2],
) -> Result<Vec<Verdict>> {
    let spread = calm(load(cluster, polite)?)?;
    let fine = spread.failed() == 0 && spread.is_spread_over(3);
    let mut verdicts = vec![verdict(&format!("{who} spreads calls over all Pods"), fine, &spread)];
    let kept = restarted(cluster, polite, load(cluster, polite)?)?;
    let fine = kept.failed() == 0 && kept.answers.len() >= 6;
    verdicts.push(verdict(&format!("a rollout through {who} loses no call"), fine, &kept));
    let lost = restarted(cluster, abrupt, load(cluster, abrupt)?)?;
    verdicts.push(verdict("  control: Pods that fall over lose some", lost.failed() > 0, &lost));
    Ok(verdicts)
}

/// The server is killed under load and comes back.
fn without_the_server(proxy: &Envoy, cluster: &mut Cluster) -> Result<Vec<Verdict>> {
    let loads = [http(cluster, "web")?, grpc(cluster, "greeter")?];
    std::thread::sleep(BESIDE);
    let connected = || proxy.stat("control_plane.connected_state");
    cluster.kill_faces()?;
    until("Envoy notices", || Ok(connected()? == 0))?;
    std::thread::sleep(BESIDE);
    cluster.serve()?;
    until("Envoy is back", || Ok(connected()? == 1))?;
    until("all clients have accepted all", || {
        let clients = cluster.portolan(&["get", "clients"])?;
        Ok(clients.contains("SYNCED")
            && !clients.contains("STALE")
            && !clients.contains("NOT SENT"))
    })?;
    std::thread::sleep(BESIDE);
    let mut verdicts = Vec::new();
    for (load, who) in loads.into_iter().zip(["Envoy", "gRPC"]) {
        let outcome = load.end()?;
        let what = format!("calls of {who} go on while the server is away");
        verdicts.push(verdict(&what, outcome.failed() == 0 && outcome.answered() > 0, outcome));
    }
    // The clients of gRPC are gone by now: the server starts anew, and only Envoy comes.
    cluster.kill_faces()?;
    until("Envoy notices", || Ok(connected()? == 0))?;
    cluster.serve()?;
    until("Envoy has accepted everything", || {
        Ok(cluster.portolan(&["get", "clients"])?.matches("SYNCED").count() == 4)
    })?;
    let sent = ["CDS", "EDS", "LDS", "RDS"].map(|kind| cluster.sent(kind));
    let sent = sent.into_iter().collect::<Result<Vec<_>>>()?;
    let what = "Envoy is not sent again what it holds when the server comes back";
    let detail = format!("resources sent: {sent:?}");
    verdicts.push(verdict(what, sent.iter().all(|count| *count == 0), detail));
    // It follows from then on, too.
    let kept = restarted(cluster, "web", http(cluster, "web")?)?;
    verdicts.push(verdict("and it follows as before", kept.failed() == 0, &kept));
    Ok(verdicts)
}
