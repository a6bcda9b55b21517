//! `cargo xtask test`: what the README tells a newcomer to run.
//!
//! The tests drive the real binary with real clients, which are looked for
//! first: on PATH, else from Debian's packages where we may install them. A
//! client that cannot be had is a failure, not a skip.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::{cargo, must};

/// A client that tests run, and the Debian package that has it.
struct Tool {
    name: &'static str,
    package: &'static str,
}

const TOOLS: [Tool; 7] = [
    Tool { name: "kubectl", package: "kubernetes-client" },
    Tool { name: "dig", package: "bind9-dnsutils" },
    Tool { name: "curl", package: "curl" },
    // Pods with namespaces of their own are made with them.
    Tool { name: "ip", package: "iproute2" },
    Tool { name: "nsenter", package: "util-linux" },
    Tool { name: "python3", package: "python3-minimal" },
    // A resolver that many containers have.
    Tool { name: "musl-gcc", package: "musl-tools" },
];

pub(crate) fn run(args: &[String]) -> Result<()> {
    for tool in &TOOLS {
        provide(tool)?;
    }
    // Cargo builds the binary for the tests that drive it. A build of its own before would have
    // other features of some dependencies (a development dependency adds to them), and so compile
    // half of them twice.
    let mut tests = cargo();
    tests.args(["test", "--locked", "--workspace"]).args(args);
    must(&mut tests)
}

fn provide(tool: &Tool) -> Result<()> {
    if let Some(path) = find(tool.name) {
        println!("{}: {}", tool.name, path.display());
        return Ok(());
    }
    let by_hand = format!("install {} (Debian package {})", tool.name, tool.package);
    if !is_root()? || find("apt-get").is_none() {
        bail!("tests need {}: {by_hand}", tool.name);
    }
    println!("{}: installing Debian package {}", tool.name, tool.package);
    must(Command::new("apt-get").args(["update", "-qq"]))?;
    must(
        Command::new("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .arg(tool.package),
    )
    .context(by_hand)
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn is_root() -> Result<bool> {
    let status =
        std::fs::read_to_string("/proc/self/status").context("no /proc: is this Linux?")?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    Ok(uid.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0"))
}
