//! Judges the registry on Pods by processes of dubbo-go, as people run them.
//!
//! ```text
//!   portolan up (Pods with namespaces)
//!     Pod theirs    dubbo-go provide ── registers itself ─────────┐
//!     Pod ours      dubbo-go serve + this binary, which           ▼
//!                   registers it by portolan-sdk ─────▶  annotations of Pods
//!     Pod caller    dubbo-go consume ◀── finds either, calls it ──┘
//! ```
//!
//! Four things must come true for each version: the catalog has both providers, a
//! subscription of the SDK finds theirs, and dubbo-go's consumer gets an answer of
//! each. A consumer sees one provider only: of two that come at once it may miss one,
//! because its watcher is made anew for each event. Pods have the cluster's own
//! ServiceAccount files and no other setting than the environment that dubbo-go asks for.

#![forbid(unsafe_code)]
// A judge speaks to a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod cluster;
mod provider;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use portolan_sdk::DubboGo;
use serde_json::json;

use crate::cluster::Cluster;

/// The interface, as the Go program has it.
const INTERFACE: &str = "org.example.Teller";
/// Where the Go program listens.
const PORT: u16 = 20880;
/// How long something may take to come true: dubbo-go waits a while here and there.
const WITHIN: Duration = Duration::from_secs(90);

#[derive(Parser)]
#[command(about = "Judges the registry on Pods by processes of dubbo-go.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run dubbo-go's processes beside ours
    Judge {
        /// The portolan binary
        #[arg(long)]
        portolan: PathBuf,
        /// A build of the Go program, and the version of dubbo-go in it; repeatable
        #[arg(long, value_parser = build, required = true)]
        dubbo_go: Vec<(Version, PathBuf)>,
    },
    /// Register what listens in this Pod, as the judge's Pod does
    Provide {
        /// Which dubbo-go is to find it
        #[arg(long)]
        version: Version,
    },
}

/// A version of dubbo-go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Version {
    #[value(name = "1.4")]
    V1_4,
    #[value(name = "1.5")]
    V1_5,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Self::V1_4 => "1.4",
            Self::V1_5 => "1.5",
        }
    }

    fn dialect(self) -> DubboGo {
        match self {
            Self::V1_4 => DubboGo::V1_4,
            Self::V1_5 => DubboGo::V1_5,
        }
    }
}

/// `1.5=PATH`.
fn build(text: &str) -> Result<(Version, PathBuf), String> {
    let (version, path) = text.split_once('=').ok_or("expected VERSION=PATH")?;
    Ok((Version::from_str(version, false)?, path.into()))
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Provide { version } => provider::run(version.dialect()),
        Command::Judge { portolan, dubbo_go } => {
            let mut wrong = 0;
            for (version, program) in dubbo_go {
                let cluster = Cluster::start(&portolan)?;
                let program = program.canonicalize()?;
                let offers = |namespace: &str, pods: &[&str]| {
                    cluster.apply(&manifest(version, &program, namespace, pods)?)
                };
                offers("both", &["theirs", "ours"])?;
                offers("theirs", &["theirs"])?;
                offers("ours", &["ours"])?;
                for (what, holds) in
                    questions(&cluster, &|namespace| offers(namespace, &["caller"]))?
                {
                    let verdict = if holds { "ok" } else { "WRONG" };
                    println!("{verdict:5}  dubbo-go {}: {what}", version.name());
                    if !holds {
                        wrong += 1;
                        cluster.tell();
                    }
                }
            }
            Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// What is asked, and whether it came true; `call` starts the consumer in a namespace.
fn questions(
    cluster: &Cluster,
    call: &dyn Fn(&str) -> Result<()>,
) -> Result<Vec<(&'static str, bool)>> {
    let found = || cluster.has_logged("both", "ours", "sdk", "found: theirs");
    let mut answers = vec![
        (
            "the catalog has both providers",
            comes_true(|| Ok(cluster.instances("both", INTERFACE)? == ["ours", "theirs"])),
        ),
        ("a subscription of the SDK finds theirs", comes_true(found)),
    ];
    for (namespace, what) in
        [("theirs", "their consumer calls theirs"), ("ours", "their consumer finds and calls ours")]
    {
        call(namespace)?;
        let answered = format!("answered: {namespace}");
        let called = || cluster.has_logged(namespace, "caller", "main", &answered);
        answers.push((what, comes_true(called)));
    }
    Ok(answers)
}

fn comes_true(is: impl Fn() -> Result<bool>) -> bool {
    let end = Instant::now() + WITHIN;
    loop {
        match is() {
            Ok(true) => return true,
            _ if Instant::now() < end => std::thread::sleep(Duration::from_millis(500)),
            Ok(false) => return false,
            Err(error) => {
                eprintln!("{error:#}");
                return false;
            }
        }
    }
}

/// Pods of a namespace: `theirs`, `ours`, `caller`.
fn manifest(version: Version, program: &Path, namespace: &str, pods: &[&str]) -> Result<String> {
    let here = std::env::current_exe()?;
    let (Some(program), Some(here)) = (program.to_str(), here.to_str()) else {
        bail!("the paths of the programs are no UTF-8");
    };
    let container = |name: &str, command: &[&str]| {
        json!({
            "name": name,
            "image": "portolan.dev/process",
            "command": command,
            "env": [
                {"name": "NAMESPACE", "value": namespace},
                {"name": "DUBBO_NAMESPACE", "value": namespace},
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ],
        })
    };
    let mut text = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace},
    })
    .to_string();
    for pod in pods {
        let containers = match *pod {
            "theirs" => vec![container("main", &[program, "provide"])],
            "ours" => vec![
                container("main", &[program, "serve"]),
                container("sdk", &[here, "provide", "--version", version.name()]),
            ],
            _ => vec![container("main", &[program, "consume"])],
        };
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": namespace},
            "spec": {"containers": containers, "terminationGracePeriodSeconds": 1},
        });
        text += &format!("\n---\n{pod}");
    }
    Ok(text)
}
