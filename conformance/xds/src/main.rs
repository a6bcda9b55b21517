//! Judges the xDS face by real Envoy and real gRPC.
//!
//! ```text
//!   world ──▶ catalog ──▶ resources ──▶ one bootstrap ──▶ envoy --mode validate ──▶ table, exit code
//!   a cluster with Pods ──▶ portolan serve ──▶ Envoy and grpcio at work (`live`) ──▶
//! ```
//!
//! [`worlds`] makes small catalogs, one per rule of the generators; [`bootstrap`] puts
//! their resources into a file that Envoy reads whole, without a server. Envoy checks
//! each as it would check it on a stream. Worlds that are spoiled on purpose must be
//! refused: they prove that the judge looks.

#![forbid(unsafe_code)]
// A judge speaks to a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bootstrap;
mod cluster;
mod csds;
mod live;
mod load;
mod worlds;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use clap::Parser;
use portolan_envoy_proto::{Message, config::bootstrap::v3::Bootstrap};

#[derive(Parser)]
#[command(about = "Judges the xDS face by real Envoy and real gRPC.")]
struct Cli {
    /// The Envoy binary
    #[arg(long)]
    envoy: PathBuf,
    /// The binary under judgement
    #[arg(long)]
    portolan: PathBuf,
    /// A Python that has grpcio
    #[arg(long)]
    python: PathBuf,
    /// Only what is judged without a cluster
    #[arg(long)]
    validate_only: bool,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let folder = tempfile::tempdir().context("cannot make a folder for bootstraps")?;
    let mut wrong = 0;
    for case in worlds::all()? {
        let refused = refusal(&cli.envoy, folder.path(), &case.bootstrap)?;
        let is_fine = refused.is_some() == case.is_spoiled;
        let verdict = if is_fine { "ok" } else { "WRONG" };
        println!("{verdict:5}  {}", case.name);
        if !is_fine {
            wrong += 1;
            eprintln!("{}", refused.as_deref().unwrap_or("Envoy took what is spoiled"));
        }
    }
    if !cli.validate_only {
        for verdict in live::all(&cli.portolan, &cli.envoy, &cli.python)? {
            let word = if verdict.is_fine { "ok" } else { "WRONG" };
            println!("{word:5}  {}: {}", verdict.what, verdict.detail);
            wrong += usize::from(!verdict.is_fine);
        }
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What Envoy has against a bootstrap, if anything.
fn refusal(envoy: &Path, folder: &Path, bootstrap: &Bootstrap) -> Result<Option<String>> {
    let file = folder.join("bootstrap.pb");
    std::fs::write(&file, bootstrap.encode_to_vec())
        .with_context(|| format!("cannot write {}", file.display()))?;
    let output = Command::new(envoy)
        .args(["--mode", "validate", "--log-level", "error", "--config-path"])
        .arg(&file)
        .output()
        .with_context(|| format!("cannot run {}", envoy.display()))?;
    let told = || String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((!output.status.success()).then(told))
}
