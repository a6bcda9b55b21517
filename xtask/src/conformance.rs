//! `cargo xtask conformance [NAME]`: judges from outside that are too heavy
//! for every change.
//!
//! A judge whose toolchain is missing prints NOT RUN, and the command fails:
//! what was not judged has not passed.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Result, bail};

use crate::{cargo, must, root};

/// Compilations at once. The judges are large, and a machine has other work.
const GO_JOBS: &str = "1";

pub(crate) fn run(name: &str) -> Result<()> {
    match name {
        "kube-api" | "all" => kube_api(),
        other => bail!("no judge {other:?}; there is: kube-api"),
    }
}

/// The real kube-apiserver beside ours.
fn kube_api() -> Result<()> {
    let root = root()?;
    let has_go = Command::new("go").arg("version").stdout(Stdio::null()).status();
    if !has_go.is_ok_and(|status| status.success()) {
        println!("conformance kube-api: NOT RUN (no Go toolchain in PATH)");
        bail!("kube-api was not judged");
    }
    let here = root.join("conformance/kube-api");
    let out = root.join("target/conformance");
    let reference = build(&here.join("reference"), &out.join("kube-reference"))?;
    let informers = build(&here.join("informers"), &out.join("kube-informers"))?;
    let packages = ["-p", "portolan", "-p", "portolan-conformance-kube-api"];
    must(cargo().current_dir(&root).args(["build", "--locked"]).args(packages))?;
    let built = root.join("target/debug");
    must(
        Command::new(built.join("portolan-conformance-kube-api"))
            .arg("judge")
            .arg("--portolan")
            .arg(built.join("portolan"))
            .arg("--reference")
            .arg(reference)
            .arg("--informers")
            .arg(informers)
            .arg("--out")
            .arg(out.join("kube-api")),
    )
}

/// Builds a Go program; the second time Go finds everything in its cache.
fn build(module: &Path, binary: &Path) -> Result<PathBuf> {
    println!("building {} (the first time takes some minutes)", module.display());
    must(
        Command::new("nice")
            .args(["-n", "10", "go", "build", "-mod=readonly", "-p", GO_JOBS, "-o"])
            .arg(binary)
            .arg(".")
            .current_dir(module),
    )?;
    Ok(binary.to_path_buf())
}
