//! Judges the DNS face by CoreDNS, over generated worlds.
//!
//! ```text
//!   seed ──▶ world ──kubectl──▶ portolan cluster ──┬─▶ portolan serve ──▶ reply ──┐
//!              │                                   └─▶ CoreDNS ─────────▶ reply ──┤
//!              └──▶ questions ── UDP, TCP, EDNS ── asked of both                  ▼
//!                                            deviations.toml ──▶ compare ──▶ table, exit code
//! ```
//!
//! [`world`] makes objects, a configuration and the questions that they suggest, from one
//! number; [`servers`] runs both on the same Corefile and the same API; [`ask`] reads replies
//! as sets of records by section; [`compare`] takes away what differs on purpose, each with
//! its reason. A run prints its seeds, and one seed repeats one world.

#![forbid(unsafe_code)]
// A judge speaks to a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod ask;
mod compare;
mod servers;
mod upstream;
mod world;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use rand::{SeedableRng, rngs::StdRng};

use crate::{compare::Verdicts, servers::Servers, world::World};

#[derive(Parser)]
#[command(about = "Judges the DNS face by CoreDNS, over generated worlds.")]
struct Cli {
    /// The portolan binary
    #[arg(long)]
    portolan: PathBuf,
    /// The CoreDNS binary (see bench/coredns)
    #[arg(long)]
    coredns: PathBuf,
    /// How many worlds
    #[arg(long, default_value_t = 12)]
    worlds: u64,
    /// The first world's number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many differences are printed whole
    #[arg(long, default_value_t = 40)]
    show: usize,
}

fn main() -> ExitCode {
    match judge(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn judge(cli: &Cli) -> Result<bool> {
    let mut verdicts = Verdicts::read()?;
    for seed in cli.seed..cli.seed + cli.worlds {
        let world = World::generate(&mut StdRng::seed_from_u64(seed));
        let before = verdicts.count();
        let (questions, differing) =
            one(cli, &world, &mut verdicts).with_context(|| format!("world {seed}"))?;
        println!(
            "world {seed}: {} objects, {questions} questions, {} answers, {differing} differ ({})",
            world.objects.len(),
            verdicts.count() - before,
            world.summary(),
        );
    }
    verdicts.print(cli.show);
    Ok(verdicts.is_fine())
}

/// Asks both everything about one world.
fn one(cli: &Cli, world: &World, verdicts: &mut Verdicts) -> Result<(usize, usize)> {
    let servers = Servers::start(&cli.portolan, &cli.coredns, world)?;
    let questions = world.questions(&servers.services()?);
    let mut differing = 0;
    for question in &questions {
        for manner in ask::MANNERS {
            let ours = ask::ask(servers.ours, question, manner).context("ours")?;
            let theirs = ask::ask(servers.theirs, question, manner).context("CoreDNS")?;
            differing += usize::from(!verdicts.judge(question, manner, &ours, &theirs));
        }
    }
    Ok((questions.len(), differing))
}
