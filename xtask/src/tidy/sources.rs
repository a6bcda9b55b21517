//! How source files must be.

use std::path::Path;

use anyhow::Result;

use super::{files, shown, text};

/// Every file of code begins with what it is for.
pub(crate) fn module_docs(root: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for path in code(root)? {
        if !text(&path)?.starts_with("//!") {
            findings.push(format!("{} does not begin with //!", shown(root, &path)));
        }
    }
    Ok(findings)
}

/// Every file is somebody's module.
pub(crate) fn dead_files(root: &Path) -> Result<Vec<String>> {
    let all = code(root)?;
    let mut findings = Vec::new();
    for path in &all {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let parent = path.parent().unwrap_or(root);
        let folder = parent.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Cargo finds these by itself.
        let entry = matches!(stem, "lib" | "main" | "build")
            || matches!(folder, "bin" | "examples" | "benches");
        let entry = entry || (folder == "tests" && stem == "it");
        if entry {
            continue;
        }
        let (name, at) =
            if stem == "mod" { (folder, parent.parent().unwrap_or(root)) } else { (stem, parent) };
        let declared = declaring_files(at).iter().any(|file| {
            text(file).is_ok_and(|source| {
                source.lines().any(|line| {
                    let line = line.trim();
                    line.ends_with(&format!("mod {name};"))
                })
            })
        });
        if !declared {
            findings.push(format!("{} is nobody's module", shown(root, path)));
        }
    }
    Ok(findings)
}

/// The files that may declare the modules of a folder.
fn declaring_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut candidates: Vec<_> =
        ["lib.rs", "main.rs", "mod.rs", "it.rs"].iter().map(|name| folder.join(name)).collect();
    // `foo.rs` beside `foo/`.
    candidates.push(folder.with_extension("rs"));
    candidates.retain(|path| path.is_file());
    // A benchmark is a root of its own.
    if folder.file_name().is_some_and(|name| name == "benches") {
        let benches = std::fs::read_dir(folder).into_iter().flatten().flatten();
        candidates.extend(benches.map(|entry| entry.path()).filter(|path| path.is_file()));
    }
    candidates
}

/// Every crate forbids unsafe code in its first lines, or says where it is.
pub(crate) fn unsafe_forbidden(root: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for path in code(root)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_root = matches!(name, "lib.rs" | "main.rs")
            && path.parent().and_then(Path::file_name).is_some_and(|folder| folder == "src");
        if is_root && !text(&path)?.contains("#![forbid(unsafe_code)]") {
            findings.push(format!("{} does not forbid unsafe code", shown(root, &path)));
        }
    }
    Ok(findings)
}

/// Nothing is left lying about: notes to oneself, paths of a machine.
pub(crate) fn leftovers(root: &Path) -> Result<Vec<String>> {
    // Spelt in two parts, so that this file does not find itself.
    let words = [
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("/wo", "rk/"),
        concat!("arti", "factory"),
    ];
    let mut findings = Vec::new();
    for ending in [".rs", ".md", ".toml", ".yaml", ".sh"] {
        for path in files(root, ending)? {
            let text = text(&path)?;
            for word in words.iter().filter(|word| text.contains(**word)) {
                findings.push(format!("{} contains {word}", shown(root, &path)));
            }
        }
    }
    Ok(findings)
}

/// All code of the workspace.
fn code(root: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut all = files(&root.join("crates"), ".rs")?;
    all.extend(files(&root.join("xtask"), ".rs")?);
    Ok(all)
}
