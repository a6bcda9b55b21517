//! The arrows of ARCHITECTURE.md: which crate may depend on which.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cargo;

/// What each crate of the house may depend on. Anything else is an arrow that
/// the drawing does not have.
const ALLOWED: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("catalog", &["model"]),
    ("runtime", &["model"]),
    ("wire", &[]),
    ("dialects", &["model"]),
    ("policy", &["model"]),
    ("view", &["model", "catalog", "policy", "wire"]),
    ("sources", &["model", "runtime", "dialects"]),
    ("writers", &["model", "runtime", "dialects"]),
    ("sdk", &["model", "runtime", "dialects", "wire"]),
    ("agent", &["sdk", "runtime", "wire"]),
    ("dns", &["model", "catalog", "runtime"]),
    ("xds", &["model", "catalog", "runtime", "policy", "envoy-proto"]),
    ("proxy", &["model", "catalog", "runtime"]),
    ("api", &["model", "catalog", "runtime", "view", "wire"]),
    ("console", &["model", "catalog", "runtime", "view", "wire"]),
    ("kube-patch", &[]),
    ("apiserver", &["kube-patch", "runtime"]),
    ("cluster", &["apiserver", "kube-patch", "runtime"]),
    ("cli", &["view", "wire"]),
    ("demo", &["sdk"]),
    ("testkit", &["model", "catalog", "runtime", "wire", "apiserver", "cluster"]),
    ("envoy-proto", &[]),
];

/// Who may name a third-party crate that must not spread.
const CONFINED: &[(&str, &[&str])] = &[
    ("kube", &["sources", "writers", "sdk", "agent", "portolan"]),
    ("k8s-openapi", &["sources", "writers", "sdk", "agent", "portolan"]),
    ("tonic", &["xds", "envoy-proto", "sdk", "agent", "portolan"]),
    ("prost", &["xds", "envoy-proto", "apiserver", "portolan"]),
    ("redb", &["apiserver"]),
];

/// Only these may depend on the embedded cluster.
const CLUSTER_USERS: &[&str] = &["portolan", "testkit", "sim", "conformance", "cluster"];

pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let output = cargo()
        .current_dir(root)
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked", "--offline"])
        .output()
        .context("cannot run cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)))?;
    let packages = metadata.get("packages").and_then(Value::as_array).context("no packages")?;
    let mut findings = Vec::new();
    for package in packages {
        let name = package.get("name").and_then(Value::as_str).unwrap_or_default();
        let dependencies = package.get("dependencies").and_then(Value::as_array);
        for dependency in dependencies.into_iter().flatten() {
            let on = dependency.get("name").and_then(Value::as_str).unwrap_or_default();
            let kind = dependency.get("kind").and_then(Value::as_str).unwrap_or("normal");
            findings.extend(arrow(short(name), short(on), kind));
        }
    }
    Ok(findings)
}

fn short(package: &str) -> &str {
    package.strip_prefix("portolan-").unwrap_or(package)
}

/// What is wrong with one arrow.
fn arrow(from: &str, to: &str, kind: &str) -> Option<String> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let development = kind == "dev";
    // Judges (`conformance-xds`) and load (`xds-load`) are packages of their own, and may look
    // at one crate alone.
    let outside = ["xtask", "sim", "bench"].contains(&from)
        || from.starts_with("conformance")
        || from.ends_with("-load");
    if let Some((_, users)) = CONFINED.iter().find(|(name, _)| *name == to) {
        let fine = development || users.contains(&from);
        return (!fine).then(|| format!("{from} names {to}; only {users:?} may"));
    }
    if to == "testkit" {
        return (!development && !outside)
            .then(|| format!("{from} depends on testkit outside tests"));
    }
    let ours = allowed.contains_key(to) || to == "portolan";
    if !ours || outside || from == "portolan" {
        return None;
    }
    if ["apiserver", "cluster"].contains(&to) {
        let fine = CLUSTER_USERS.contains(&from);
        return (!fine).then(|| format!("{from} depends on {to}; only {CLUSTER_USERS:?} may"));
    }
    // Itself, with features that only tests need.
    if development && from == to {
        return None;
    }
    // Tests may look at the world from outside: a face's tests fill a catalog.
    if development && ["model", "catalog", "runtime", "wire", "dialects"].contains(&to) {
        return None;
    }
    match allowed.get(from) {
        None => Some(format!("{from} is no crate of the house; add it to the drawing first")),
        Some(targets) if targets.contains(&to) => None,
        Some(targets) => Some(format!("{from} -> {to} is no arrow; {from} may use {targets:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::arrow;

    #[test]
    fn arrows() {
        for (from, to, kind, fine) in [
            ("catalog", "model", "normal", true),
            ("model", "catalog", "normal", false),
            ("dns", "catalog", "normal", true),
            ("dns", "sources", "normal", false),
            ("dns", "kube", "normal", false),
            ("sources", "kube", "normal", true),
            ("sdk", "cluster", "normal", false),
            ("sdk", "cluster", "dev", false),
            ("sdk", "sdk", "dev", true),
            ("sdk", "sdk", "normal", false),
            ("dns", "testkit", "dev", true),
            ("dns", "testkit", "normal", false),
            ("cluster", "apiserver", "normal", true),
            ("apiserver", "model", "normal", false),
            ("portolan", "cluster", "normal", true),
            ("dns", "serde", "normal", true),
            ("conformance-xds", "xds", "normal", true),
            ("conformance-xds", "testkit", "normal", true),
            ("conformance-xds", "kube", "normal", false),
            ("xds-load", "envoy-proto", "normal", true),
        ] {
            assert_eq!(arrow(from, to, kind).is_none(), fine, "{from} -> {to} ({kind})");
        }
    }
}
