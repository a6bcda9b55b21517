//! Judges an embedded Kubernetes API by the real one.
//!
//! ```text
//!  scenarios/*.yaml ──▶ run    ─┬─▶ rows of ours   ──┐
//!  scripts/*.yaml   ──▶ script ─┤                    ├─▶ compare ──▶ table, exit code
//!  informers/       ──▶ servers ┴─▶ rows of theirs ──┘      ▲
//!                                                known-differences.toml
//! ```
//!
//! [`scenario`] reads what to ask, [`run`] asks it of one server through
//! [`client`] and writes down each outcome as a row in which [`normal`] has
//! replaced whatever may differ between two runs; [`script`] does the same with
//! command lines of kubectl. [`compare`] puts two lists of rows side by side.
//! [`servers`] starts ours and the reference.
#![forbid(unsafe_code)]
// A judge speaks to a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod client;
mod compare;
mod in_cluster;
mod informers;
mod normal;
mod run;
mod scenario;
mod script;
mod servers;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};
use clap::{Parser, Subcommand};
use portolan_conformance_kube_api::kubeconfig;

use crate::servers::Server;

#[derive(Parser)]
#[command(about = "Judges an embedded Kubernetes API by the real one.")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run the suite on any cluster and write its rows
    Run {
        /// The cluster
        #[arg(long)]
        kubeconfig: PathBuf,
        /// Where the rows go
        #[arg(long)]
        out: PathBuf,
        /// Where kubectl keeps its files
        #[arg(long, default_value = "target/conformance/kubectl")]
        home: PathBuf,
        /// Only scenarios and scripts (kubectl:NAME) whose name contains this
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Compare two lists of rows
    Compare {
        /// Rows of ours
        ours: PathBuf,
        /// Rows of the reference
        theirs: PathBuf,
    },
    /// Start both, run the suite on both, compare
    Judge {
        /// The portolan binary
        #[arg(long)]
        portolan: PathBuf,
        /// The reference binary (see reference/)
        #[arg(long)]
        reference: PathBuf,
        /// Where rows and logs are kept
        #[arg(long)]
        out: PathBuf,
        /// The informer program; run on both when given
        #[arg(long)]
        informers: Option<PathBuf>,
        /// The program that is run as a Pod; run on ours when given
        #[arg(long)]
        in_cluster: Option<PathBuf>,
        /// Only parts whose name contains this: a scenario, kubectl:SCRIPT, informers, in-cluster
        #[arg(long, default_value = "")]
        only: String,
    },
}

fn main() -> ExitCode {
    match start() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kube-api: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn start() -> Result<bool> {
    match Cli::parse().task {
        Task::Run { kubeconfig, out, home, only } => {
            let rows = suite(&kubeconfig, &home, &only).await?;
            compare::write(&out, &rows)?;
            println!("{} rows", rows.len());
            Ok(true)
        }
        Task::Compare { ours, theirs } => {
            report(&compare::read(&ours)?, &compare::read(&theirs)?, "")
        }
        Task::Judge { portolan, reference, out, informers, in_cluster, only } => {
            let judge = Judge { portolan, reference, out, informers, in_cluster, only };
            judge.run().await
        }
    }
}

/// This folder, where scenarios and known differences are.
fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

async fn suite(kubeconfig: &Path, home: &Path, only: &str) -> Result<Vec<compare::Row>> {
    let scenarios = scenario::load(&here().join("scenarios"))?;
    let scripts = script::load()?;
    let access = kubeconfig::read(kubeconfig)?;
    let mut rows = run::all(&scenarios, &access, only).await?;
    rows.extend(script::session::all(&scripts, &access, home, only).await?);
    Ok(rows)
}

fn report(ours: &[compare::Row], theirs: &[compare::Row], only: &str) -> Result<bool> {
    let text = fs::read_to_string(here().join("known-differences.toml"))
        .context("known-differences.toml")?;
    let known = compare::Known::parse(&text)?;
    let verdict = compare::compare(ours, theirs, &known);
    // What was not asked cannot have differed.
    print!("{}", verdict.table(only.is_empty()));
    Ok(verdict.passes())
}

struct Judge {
    portolan: PathBuf,
    reference: PathBuf,
    out: PathBuf,
    informers: Option<PathBuf>,
    in_cluster: Option<PathBuf>,
    only: String,
}

impl Judge {
    async fn run(&self) -> Result<bool> {
        // What cannot be read is told before anything starts.
        scenario::load(&here().join("scenarios"))?;
        script::load()?;
        fs::create_dir_all(&self.out)?;
        let mut ours = Server::ours(&self.portolan, &self.out.join("ours"))?;
        let mut theirs = Server::reference(&self.reference, &self.out.join("theirs"))?;
        println!("ours: {}\nreference: {}", ours.kubeconfig.display(), theirs.kubeconfig.display());
        let homes = ["ours", "theirs"].map(|name| self.out.join("kubectl").join(name));
        let (mut our_rows, mut their_rows) = tokio::try_join!(
            suite(&ours.kubeconfig, &homes[0], &self.only),
            suite(&theirs.kubeconfig, &homes[1], &self.only)
        )?;
        // A program that fails on both is no agreement.
        let mut failed: Vec<String> = Vec::new();
        if let Some(program) = self.informers.as_ref().filter(|_| "informers".contains(&self.only))
        {
            // Each waits more than it works.
            let (on_ours, on_theirs) = std::thread::scope(|scope| {
                let theirs = scope.spawn(|| informers::all(program, &mut theirs, &self.out));
                (informers::all(program, &mut ours, &self.out), theirs.join())
            });
            let on_theirs = on_theirs.map_err(|_| anyhow!("the thread of the reference"))?;
            for (found, rows) in [(on_ours?, &mut our_rows), (on_theirs?, &mut their_rows)] {
                rows.extend(found.rows);
                failed.extend(found.failed);
            }
        }
        drop((ours, theirs));
        if let Some(program) =
            self.in_cluster.as_ref().filter(|_| "in-cluster".contains(&self.only))
        {
            let folder = self.out.join("in-cluster");
            match in_cluster::judge(program, &self.portolan, &folder).await {
                Ok(()) => println!("in-cluster: client-go and kube-rs are served as Pods"),
                Err(error) => failed.push(format!("in-cluster: {error:#}")),
            }
        }
        compare::write(&self.out.join("ours.json"), &our_rows)?;
        compare::write(&self.out.join("theirs.json"), &their_rows)?;
        let are_alike = report(&our_rows, &their_rows, &self.only)?;
        for what in &failed {
            println!("FAILED: {what}");
        }
        Ok(are_alike && failed.is_empty())
    }
}
