//! What the documents must name.

use std::{collections::BTreeSet, path::Path};

use anyhow::Result;

use super::{files, shown, text};

/// Every third-party crate of the workspace has a line in docs/dependencies.md,
/// and no line outlives its crate.
pub(crate) fn dependencies(root: &Path) -> Result<Vec<String>> {
    let manifest = text(&root.join("Cargo.toml"))?;
    let document = text(&root.join("docs/dependencies.md"))?;
    let section = manifest.split("[workspace.dependencies]").nth(1).unwrap_or_default();
    let used: BTreeSet<&str> = section
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.trim())
        .filter(|name| !name.starts_with("portolan-") && !name.starts_with('#'))
        .collect();
    let named: BTreeSet<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    let missing = used.difference(&named).map(|name| format!("{name} has no line of reason"));
    let stale = named.difference(&used).map(|name| format!("{name} is named and not used"));
    Ok(missing.chain(stale).collect())
}

/// Every code of the table has a section in docs/reason-codes.md.
pub(crate) fn reason_codes(root: &Path) -> Result<Vec<String>> {
    let table = text(&root.join("crates/model/src/reason.rs"))?;
    let document = text(&root.join("docs/reason-codes.md"))?;
    let codes: BTreeSet<String> = table
        .lines()
        .filter_map(|line| line.trim().split_once(" = "))
        .filter(|(constant, _)| constant.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .filter_map(|(_, rest)| rest.split_once(','))
        .filter_map(|(number, _)| number.trim().parse::<u16>().ok())
        .map(|number| format!("PTL{number:04}"))
        .collect();
    if codes.is_empty() {
        return Ok(vec!["no code found in crates/model/src/reason.rs".to_owned()]);
    }
    let sections: BTreeSet<String> = document
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .filter_map(|title| title.split_whitespace().next())
        .map(ToOwned::to_owned)
        .collect();
    let missing = codes.difference(&sections).map(|code| format!("{code} has no section"));
    let stale =
        sections.difference(&codes).map(|code| format!("{code} is described and not given"));
    Ok(missing.chain(stale).collect())
}

/// Every metric that the code registers has a line in docs/metrics.md.
pub(crate) fn metrics(root: &Path) -> Result<Vec<String>> {
    const PREFIXES: [&str; 3] = ["\"portolan_", "\"coredns_", "\"kubeproxy_"];
    let document = text(&root.join("docs/metrics.md"))?;
    let mut findings = Vec::new();
    for path in files(&root.join("crates"), ".rs")? {
        if path.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let source = text(&path)?;
        for prefix in PREFIXES {
            for rest in source.split(prefix).skip(1) {
                let name: String = rest
                    .chars()
                    .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
                    .collect();
                let metric = format!("{}{name}", prefix.trim_start_matches('"'));
                if !document.contains(&format!("`{metric}`")) {
                    findings.push(format!("{metric} ({})", shown(root, &path)));
                }
            }
        }
    }
    Ok(findings)
}
