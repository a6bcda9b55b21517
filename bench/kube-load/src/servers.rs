//! The two servers: started, looked at through /proc, ended.
//!
//! Theirs is one process with etcd and a child with kube-apiserver; both count.
//! Its kube-controller-manager does not, although the same controllers are part
//! of our process and do count.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use portolan_conformance_kube_api::kubeconfig;
use serde_json::Value;

use crate::{client::Dialer, pods};

/// Numbers in objects; nothing dials them.
const POD_CIDR: &str = "10.244.0.0/16";
const SERVICE_CIDR: &str = "10.96.0.0/16";
/// `USER_HZ`, the unit of times in /proc, on every Linux.
const TICKS_PER_SECOND: u64 = 100;
/// A server on a machine that is busy gets this long for small things.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Ours,
    Theirs,
}

/// Where the two programs are, and where their state goes.
pub(crate) struct Programs {
    pub(crate) ours: PathBuf,
    pub(crate) theirs: PathBuf,
    pub(crate) out: PathBuf,
}

/// A server that runs. Ends when dropped.
pub(crate) struct Server {
    pub(crate) dialer: Dialer,
    /// From exec until a Pod could be created.
    pub(crate) ready: Duration,
    pub(crate) processes: Processes,
    child: Child,
}

impl Server {
    /// Starts one with an empty store, and makes the Namespace.
    pub(crate) async fn start(programs: &Programs, which: Which, fsync: bool) -> Result<Server> {
        let (name, binary) = match which {
            Which::Ours => ("ours", &programs.ours),
            Which::Theirs => ("theirs", &programs.theirs),
        };
        let folder = programs.out.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let started = Instant::now();
        let mut child = command(binary, &folder, which, fsync)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let line = first_line(&mut child);
        let mut server = match line.and_then(|line| announced(&line, &child)) {
            Ok((dialer, processes)) => {
                Server { dialer, ready: started.elapsed(), processes, child }
            }
            Err(error) => {
                end(&mut child);
                return Err(error.context(format!("{name} is not ready; see {}", folder.display())));
            }
        };
        server.account("default").await?;
        server.ready = started.elapsed();
        let mut connection = server.dialer.dial().await?;
        connection.post("/api/v1/namespaces", pods::namespace()).await?;
        server.account(pods::NAMESPACE).await?;
        Ok(server)
    }

    /// Waits for the ServiceAccount without which no Pod can be created.
    async fn account(&self, namespace: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
        let deadline = Instant::now() + PATIENCE;
        let mut connection = self.dialer.dial().await?;
        while let Err(error) = connection.get(&path).await {
            if Instant::now() > deadline {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    drop(child.kill());
    drop(child.wait());
}

fn command(binary: &Path, folder: &Path, which: Which, fsync: bool) -> Command {
    let mut command = Command::new(binary);
    match (which, fsync) {
        (Which::Ours, _) => {
            command.args(["cluster", "-o", "json", "--api-listen", "127.0.0.1:0"]);
            if !fsync {
                command.arg("--unsafe-no-fsync");
            }
        }
        (Which::Theirs, true) => {
            command.arg("--fsync");
        }
        (Which::Theirs, false) => {}
    }
    command
        .arg("--data-dir")
        .arg(folder)
        .args(["--pod-cidr", POD_CIDR, "--service-cidr", SERVICE_CIDR])
        // The reference ends when this closes.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

fn first_line(child: &mut Child) -> Result<Value> {
    let output = child.stdout.take().context("no standard output")?;
    let (send, line) = mpsc::channel();
    // Ends with the server at the latest.
    thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        drop(send.send(read.map(|_| line)));
    });
    let line = line.recv_timeout(PATIENCE).context("it says nothing")??;
    serde_json::from_str(&line).context("no line of JSON")
}

fn announced(line: &Value, child: &Child) -> Result<(Dialer, Processes)> {
    let path = line.get("kubeconfig").and_then(Value::as_str).context("no kubeconfig")?;
    let dialer = Dialer::new(&kubeconfig::read(Path::new(path))?)?;
    let pid = |name: &str| line.get(name).and_then(Value::as_u64);
    let mut pids = vec![u64::from(child.id())];
    pids.extend(pid("apiserver"));
    Ok((dialer, Processes(pids)))
}

/// The processes that make up a server.
#[derive(Clone)]
pub(crate) struct Processes(Vec<u64>);

impl Processes {
    /// This one.
    pub(crate) fn own() -> Processes {
        Processes(vec![u64::from(std::process::id())])
    }

    /// Of a server that somebody else has started.
    pub(crate) fn of(pids: &[u64]) -> Processes {
        Processes(pids.to_vec())
    }

    /// Time on processors so far, in user and kernel mode.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut ticks = 0;
        for pid in &self.0 {
            let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            // Behind the name, which is in parentheses and may hold anything (proc_pid_stat(5)).
            let (_, fields) = text.rsplit_once(')').context("/proc/PID/stat")?;
            let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
            for _ in 0..2 {
                ticks += times.next().context("/proc/PID/stat is short")??;
            }
        }
        Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
    }

    /// Resident memory, MiB.
    pub(crate) fn resident_mib(&self) -> Result<f64> {
        let mut kib = 0.0;
        for pid in &self.0 {
            let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let number = line.and_then(|line| line.split_whitespace().next());
            kib += number.context("no VmRSS")?.parse::<f64>()?;
        }
        Ok(kib / 1024.0)
    }
}
