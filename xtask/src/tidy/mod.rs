//! `cargo xtask tidy`: rules of the house that are facts.
//!
//! Each rule reads the tree and returns what breaks it; all are run before
//! anything is printed, so that one pass shows everything.

mod arrows;
mod docs;
mod sources;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::root;

/// A rule: its name, and what breaks it.
type Rule = (&'static str, fn(&Path) -> Result<Vec<String>>);

const RULES: &[Rule] = &[
    ("arrows between crates", arrows::check),
    ("every dependency has its reason", docs::dependencies),
    ("every reason code is documented", docs::reason_codes),
    ("every metric is documented", docs::metrics),
    ("every configuration key is documented", docs::config_keys),
    ("every module tells its story", sources::module_docs),
    ("no dead file", sources::dead_files),
    ("no unsafe code by default", sources::unsafe_forbidden),
    ("no leftovers", sources::leftovers),
];

pub(crate) fn run() -> Result<()> {
    let root = root()?;
    let mut broken = 0;
    for (name, rule) in RULES {
        let findings = rule(&root).with_context(|| format!("rule: {name}"))?;
        let mark = if findings.is_empty() { "ok " } else { "BAD" };
        println!("{mark} {name}");
        for finding in &findings {
            println!("      {finding}");
        }
        broken += findings.len();
    }
    if broken > 0 {
        bail!("{broken} findings");
    }
    Ok(())
}

/// Files below a folder whose name ends so, in order; build output is left out.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                if !name.starts_with('.') && !name.starts_with("target") {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A path as people name it.
fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

/// A file's text.
fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
