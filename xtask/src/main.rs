//! One entry for developers: `cargo xtask test`, `tidy`, `torture`, `bench`, `conformance`.

#![forbid(unsafe_code)]
// A developer's tool talks to a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod conformance;
mod test;
mod tidy;
mod torture;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "One entry for developers of Portolan.")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Prepare what tests need, then run all of them
    Test {
        /// Passed on to `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Check the rules of the house: arrows, docs, dead files
    Tidy,
    /// Kill the embedded API in the middle of its work, crowd it, starve it; minutes
    Torture,
    /// Measure, print ratios, write bench/results/NAME.json
    Bench {
        /// start, catalog, path, cluster and dns (they need Go), or all
        #[arg(default_value = "all")]
        name: String,
        /// Only see whether it works, where a benchmark knows how (dns); nothing is written
        #[arg(long)]
        short: bool,
    },
    /// Run the judges from outside (they need Go; xds needs Python), compare, and fail on differences
    #[command(after_help = "Examples:\n  \
        cargo xtask conformance kube-api\n  \
        cargo xtask conformance kube-api --only kubectl:apply")]
    Conformance {
        /// kube-api, dns, dubbo, xds, or all
        #[arg(default_value = "all")]
        name: String,
        /// Only parts whose name contains this: a scenario, kubectl:SCRIPT, informers, in-cluster
        #[arg(long, default_value = "")]
        only: String,
    },
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Test { args } => test::run(&args),
        Task::Tidy => tidy::run(),
        Task::Torture => torture::run(),
        Task::Bench { name, short } => {
            let effort = if short { bench::Effort::Short } else { bench::Effort::Full };
            bench::run(&name, effort)
        }
        Task::Conformance { name, only } => conformance::run(&name, &only),
    }
}

/// The workspace's folder.
pub(crate) fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask has no parent folder")?.to_path_buf())
}

/// Runs a command and fails when it fails.
pub(crate) fn must(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
