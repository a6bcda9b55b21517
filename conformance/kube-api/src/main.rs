//! Judges an embedded Kubernetes API by the real one.
//!
//! ```text
//!  scenarios/*.yaml ──▶ run ──▶ rows of ours   ──┐
//!                        │                       ├─▶ compare ──▶ table, exit code
//!                        └────▶ rows of theirs ──┘      ▲
//!                                            known-differences.toml
//! ```
//!
//! [`scenario`] reads what to ask, [`run`] asks it of one server through
//! [`client`] and writes down each outcome as a row in which [`normal`] has
//! replaced whatever may differ between two runs; [`compare`] puts two lists of
//! rows side by side. [`servers`] starts ours and the reference.
#![forbid(unsafe_code)]
// A judge speaks to a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod client;
mod compare;
mod kubeconfig;
mod normal;
mod run;
mod scenario;
mod servers;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

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
        /// Only scenarios whose name contains this
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
        /// Only scenarios whose name contains this
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
        Task::Run { kubeconfig, out, only } => {
            let rows = suite(&kubeconfig, &only).await?;
            compare::write(&out, &rows)?;
            println!("{} rows", rows.len());
            Ok(true)
        }
        Task::Compare { ours, theirs } => report(&compare::read(&ours)?, &compare::read(&theirs)?),
        Task::Judge { portolan, reference, out, informers, only } => {
            fs::create_dir_all(&out)?;
            judge(&portolan, &reference, &out, informers.as_deref(), &only).await
        }
    }
}

/// This folder, where scenarios and known differences are.
fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

async fn suite(kubeconfig: &Path, only: &str) -> Result<Vec<compare::Row>> {
    let scenarios = scenario::load(&here().join("scenarios"))?;
    let access = kubeconfig::read(kubeconfig)?;
    run::all(&scenarios, &access, only).await
}

fn report(ours: &[compare::Row], theirs: &[compare::Row]) -> Result<bool> {
    let text = fs::read_to_string(here().join("known-differences.toml"))
        .context("known-differences.toml")?;
    let known = compare::Known::parse(&text)?;
    let verdict = compare::compare(ours, theirs, &known);
    print!("{}", verdict.table());
    Ok(verdict.passes())
}

async fn judge(
    portolan: &Path,
    reference: &Path,
    out: &Path,
    informers: Option<&Path>,
    only: &str,
) -> Result<bool> {
    let ours = servers::Server::ours(portolan, &out.join("ours"))?;
    let theirs = servers::Server::reference(reference, &out.join("theirs"))?;
    println!("ours: {}\nreference: {}", ours.kubeconfig.display(), theirs.kubeconfig.display());
    let (our_rows, their_rows) =
        tokio::try_join!(suite(&ours.kubeconfig, only), suite(&theirs.kubeconfig, only))?;
    compare::write(&out.join("ours.json"), &our_rows)?;
    compare::write(&out.join("theirs.json"), &their_rows)?;
    let mut fine = report(&our_rows, &their_rows)?;
    if let Some(informers) = informers {
        for (name, mut server) in [("ours", ours), ("reference", theirs)] {
            let passed = servers::informers(informers, &mut server)?;
            println!("informers on {name}: {}", if passed { "caches equal" } else { "FAILED" });
            fine &= passed;
        }
    }
    Ok(fine)
}
