//! Parses, wires and runs Portolan. Decisions are elsewhere.

#![forbid(unsafe_code)]

mod agent;
mod apply;
mod config;
mod data_dir;
mod faces;
mod outside;
mod register;
mod serve;
mod signals;
mod tour;
mod up;

use std::{
    io::{ErrorKind, IsTerminal},
    process::ExitCode,
};

use clap::Parser;
use portolan_cli::{
    Failure,
    args::{Cli, Command},
    output::{Exit, Output},
};
use portolan_cluster::kubelet::supervise;
use tracing_subscriber::EnvFilter;

/// Objects of the embedded API are trees of small allocations, made by one thread and freed by
/// another; docs/dependencies.md has the figure.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Words of the log unless RUST_LOG says otherwise: what a person should look at, and
/// the query log, which is there only where a configuration asks for it.
const LOG_DEFAULT: &str = "warn,dns_query=info";

fn main() -> ExitCode {
    // A process that watches over one container; see `portolan_cluster::kubelet::supervise`.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == supervise::SHIM_WORD) {
        return ExitCode::from(supervise::shim_main(arguments));
    }
    let mut cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT)),
        )
        .with_writer(std::io::stderr)
        .with_ansi(is_colourful())
        .init();
    // One provider of cryptography, chosen here and nowhere else. It can only
    // be installed already, by ourselves.
    rustls::crypto::ring::default_provider().install_default().ok();
    // While there is one thread: namespaces are entered by threads.
    let outside = match outside::enter(&mut cli.command) {
        Ok(outside) => outside,
        Err(error) => {
            Output::standard().word(&format!("error: {error:#}"));
            return ExitCode::from(Exit::Usage as u8);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            Output::standard().word(&format!("error: cannot start the runtime: {error}"));
            return ExitCode::from(Exit::Problem as u8);
        }
    };
    let exit = runtime.block_on(run(cli, outside));
    // Detached work (a resolver of the system, say) must not hold the exit up.
    runtime.shutdown_background();
    ExitCode::from(exit as u8)
}

async fn run(cli: Cli, outside: Option<outside::Outside>) -> Exit {
    let mut output = Output::standard();
    match portolan_cli::run(&cli, &mut output).await {
        Some(Ok(exit)) => return exit,
        // Whoever read us has enough: `portolan get ... | head`.
        Some(Err(Failure::Write(error))) if error.kind() == ErrorKind::BrokenPipe => {
            return Exit::Fine;
        }
        Some(Err(failure)) => {
            output.word(&format!("error: {}", chain(&failure)));
            if let Some(hint) = failure.hint() {
                output.word(&format!("hint: {hint}"));
            }
            return failure.exit();
        }
        None => {}
    }
    let ended = match cli.command {
        Command::Up(args) => up::run(up::Wanted::everything(*args), outside, &mut output).await,
        Command::Cluster(args) => {
            up::run(up::Wanted::cluster_alone(args), outside, &mut output).await
        }
        Command::Serve(args) => serve::run(*args, &mut output).await,
        Command::Register(args) => register::run(args, &mut output).await,
        Command::Agent(args) => agent::run(args, cli.connection.server, &mut output).await,
        Command::Demo(args) => demo(args).await,
        // The reading verbs were run above.
        _ => Ok(Exit::Fine),
    };
    ended.unwrap_or_else(|error| {
        output.word(&format!("error: {error:#}"));
        Exit::Usage
    })
}

async fn demo(args: portolan_cli::args::DemoArgs) -> anyhow::Result<Exit> {
    portolan_demo::run(portolan_demo::Config {
        service: args.service,
        version: args.version,
        listen: args.listen,
    })
    .await?;
    Ok(Exit::Fine)
}

/// Colour only for people, and only for those who want it (no-color.org).
fn is_colourful() -> bool {
    std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// An error with what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}
