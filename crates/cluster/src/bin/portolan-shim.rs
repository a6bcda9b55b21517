//! The kubelet's shim as a program of its own, for programs that embed the
//! cluster and whose own executable does not offer the hidden subcommand.
//! `portolan` does not need it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args = std::env::args_os().skip(1);
    ExitCode::from(portolan_cluster::kubelet::supervise::shim_main(args))
}
