//! The embedded Kubernetes API beside the real kube-apiserver with etcd.
//!
//! ```text
//!  rounds: servers start, in turns ──▶ writes ──▶ watches ──▶ lists ──▶ figures ──▶ table, lines
//!                                        └── /proc: processor time and memory of the servers
//! ```
//!
//! Before anything is timed, both are asked the same small questions and must
//! give the same answers. While it is timed every answer is checked as it
//! comes (code, object, revision), lists and watches after it. Each round
//! starts both servers anew, once with fsync and once without, the one and
//! then the other first.
#![forbid(unsafe_code)]
// A judge speaks to a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod client;
mod figures;
mod lists;
mod pods;
mod round;
mod servers;
mod watches;
mod writes;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use portolan_conformance_kube_api::kubeconfig;

use crate::{
    client::Dialer,
    servers::{Processes, Programs},
    watches::Plan,
    writes::Writes,
};

#[derive(Parser)]
#[command(about = "Measures the embedded Kubernetes API beside the real one.")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start both, in turns, and compare them
    Compare {
        /// Our program
        #[arg(long)]
        portolan: PathBuf,
        /// The program with kube-apiserver and etcd
        #[arg(long)]
        reference: PathBuf,
        /// Where state and logs of the servers go
        #[arg(long)]
        out: PathBuf,
        /// Interleaved runs
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// Put one load on a server that runs
    Drive {
        /// The cluster
        #[arg(long)]
        kubeconfig: PathBuf,
        /// Processes whose time is measured
        #[arg(long)]
        pid: Vec<u64>,
        #[command(subcommand)]
        load: Load,
    },
}

#[derive(Subcommand)]
enum Load {
    /// Make the Namespace that everything else happens in
    Prepare,
    /// Create Pods
    Create {
        #[arg(long, default_value_t = 64)]
        clients: usize,
        #[arg(long, default_value_t = 0)]
        from: usize,
        #[arg(long, default_value_t = 10_000)]
        count: usize,
    },
    /// Change Pods
    Patch {
        #[arg(long, default_value_t = 64)]
        clients: usize,
        #[arg(long, default_value_t = 10_000)]
        of: usize,
        #[arg(long, default_value_t = 10_000)]
        count: usize,
    },
    /// Watch while Pods change
    Watch {
        #[arg(long, default_value_t = 1_000)]
        watchers: usize,
        #[arg(long, default_value_t = 10_000)]
        pods: usize,
        #[arg(long, default_value_t = 500)]
        changes: usize,
        #[arg(long, default_value_t = 100)]
        per_second: usize,
    },
    /// List all Pods
    List {
        #[arg(long, default_value_t = 10_000)]
        pods: usize,
        #[arg(long, default_value_t = 10)]
        times: usize,
    },
}

// One thread for the load and one for the watchers: servers get the rest.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    open_more_files()?;
    match Cli::parse().task {
        Task::Compare { portolan, reference, out, rounds } => {
            let programs = Programs { ours: portolan, theirs: reference, out };
            let figures = round::all(&programs, rounds).await?;
            eprintln!("\n{}", figures.table());
            for line in figures.lines() {
                println!("{line}");
            }
            Ok(())
        }
        Task::Drive { kubeconfig, pid, load } => drive(&kubeconfig, &pid, load).await,
    }
}

/// A thousand watchers are more than the 1024 files that shells grant by default.
fn open_more_files() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("the limit of open files")
}

async fn drive(path: &std::path::Path, pids: &[u64], load: Load) -> Result<()> {
    let dialer = Dialer::new(&kubeconfig::read(path)?)?;
    let server = Processes::of(pids);
    let wrote = |load: writes::Load| {
        println!(
            "{:.0}/s, {:.0} us of processor each, of ours {:.0} us",
            load.per_second, load.cpu_us, load.own_cpu_us
        );
    };
    match load {
        Load::Prepare => {
            let mut connection = dialer.dial().await?;
            connection.post("/api/v1/namespaces", pods::namespace()).await.map(drop)?;
        }
        Load::Create { clients, from, count } => {
            let writes = Writes::Create { from };
            wrote(writes::run(&dialer, &server, writes, clients, count).await?);
        }
        Load::Patch { clients, of, count } => {
            let writes = Writes::Patch { of };
            wrote(writes::run(&dialer, &server, writes, clients, count).await?);
        }
        Load::Watch { watchers, pods, changes, per_second } => {
            // Another series every second.
            let series = std::time::UNIX_EPOCH.elapsed().context("a clock before 1970")?;
            let series = usize::try_from(series.as_secs() % 1_000_000)?;
            let plan = Plan { watchers, changes, per_second, pods, series };
            let seen = watches::run(&dialer, &server, plan).await?;
            println!(
                "p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms at {:.0}/s, {:.1} % came; {:.2} us of processor per event, of ours {:.2} us; {} watches ended early",
                seen.p50_ms,
                seen.p99_ms,
                seen.worst_ms,
                seen.per_second,
                seen.came_percent,
                seen.cpu_us,
                seen.own_cpu_us,
                seen.reopened
            );
        }
        Load::List { pods, times } => {
            let listed = lists::run(&dialer, &server, "", pods, times).await?;
            println!("{:.1} ms, {:.1} ms of processor", listed.ms, listed.cpu_ms);
        }
    }
    if !pids.is_empty() {
        println!("{:.1} MiB resident", server.resident_mib()?);
    }
    Ok(())
}
