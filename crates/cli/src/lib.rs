//! The command tree, and the verbs that read.
//!
//! ```text
//!   argv --args--> Command --+-- running verbs: up, cluster, register ... --> the binary
//!                            +-- reading verbs: get, why, wait, dig ...   --> here, over HTTP
//! ```
//!
//! Data goes to stdout, words to stderr. Exit codes: 0 fine, 1 found a problem,
//! 2 usage, 3 cannot reach.

#![forbid(unsafe_code)]

pub mod args;
mod bootstrap;
mod check;
mod client;
mod dig;
mod explain;
mod get;
pub mod output;
mod progress;
mod table;
mod wait;
mod watch;
mod why;

use std::io::ErrorKind;

pub use client::{DATA_DIR_DEFAULT, local_addresses};

use args::{Cli, Command};
use clap::CommandFactory;
use output::{Exit, Output};
use thiserror::Error;

/// A verb could not do its work.
#[derive(Debug, Error)]
pub enum Failure {
    /// The call's words are off.
    #[error("{0}")]
    Usage(String),
    /// No server answers.
    #[error("cannot reach Portolan at {server}: {reason}")]
    Unreachable {
        /// Where it was looked for.
        server: String,
        /// Why not.
        reason: String,
    },
    /// No DNS server answers.
    #[error("cannot reach the DNS server at {server}: {reason}")]
    NoDns {
        /// Where it was looked for.
        server: std::net::SocketAddr,
        /// Why not.
        reason: String,
    },
    /// The server refused.
    #[error("{message}")]
    Refused {
        /// What it said.
        message: String,
        /// What to do.
        hint: String,
    },
    /// Writing the answer failed (a closed pipe, say).
    #[error("cannot write the answer")]
    Write(#[from] std::io::Error),
    /// The answer is not what this version understands.
    #[error("the server's answer makes no sense to this version of the command: {0}")]
    Answer(#[from] serde_json::Error),
}

impl Failure {
    /// The exit code that it ends with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Unreachable { .. } | Self::NoDns { .. } => Exit::Unreachable,
            Self::Refused { .. } | Self::Write(_) | Self::Answer(_) => Exit::Problem,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } => Some(
                "start one with `portolan up`, or name one with --server or PORTOLAN_SERVER"
                    .to_owned(),
            ),
            Self::NoDns { .. } => {
                Some("start one with `portolan up`, or name one with --dns".to_owned())
            }
            Self::Refused { hint, .. } if !hint.is_empty() => Some(hint.clone()),
            _ => None,
        }
    }
}

/// Runs a reading verb. Verbs that run something are the binary's: they come
/// back as `None`.
pub async fn run(cli: &Cli, output: &mut Output) -> Option<Result<Exit, Failure>> {
    let connection = &cli.connection;
    let ended = match &cli.command {
        Command::Get(args) => get::run(connection, args, output).await,
        Command::Watch(args) => watch::run(connection, args, output).await,
        Command::Why(args) => why::run(connection, args, output).await,
        Command::Wait(args) => wait::run(connection, args, output).await,
        Command::Dig(args) => dig::run(connection, args, output).await,
        Command::Check(args) => check::run(connection, args, output).await,
        Command::Explain(args) => explain::run(args, output),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "portolan", &mut script);
            output.raw(&script).map(|()| Exit::Fine).map_err(Failure::from)
        }
        Command::Version => version(output),
        Command::Up(_)
        | Command::Cluster(_)
        | Command::Serve(_)
        | Command::Register(_)
        | Command::Agent(_)
        | Command::Demo(_) => {
            return None;
        }
    };
    Some(match ended {
        // Whoever read has had enough (`| head`): that is no failure of ours.
        Err(Failure::Write(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Fine),
        ended => ended,
    })
}

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

fn version(output: &mut Output) -> Result<Exit, Failure> {
    output.line(&format!("portolan {VERSION}"))?;
    Ok(Exit::Fine)
}
