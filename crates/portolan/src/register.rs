//! `portolan register`: a process outside the cluster, while this command runs.

use anyhow::Result;
use portolan_cli::{
    args::RegisterArgs,
    output::{Exit, Output},
};

/// Registers until a signal asks it to end.
pub(crate) async fn run(_args: RegisterArgs, _output: &mut Output) -> Result<Exit> {
    anyhow::bail!("not yet")
}
