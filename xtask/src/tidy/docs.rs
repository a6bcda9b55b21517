//! What the documents must name.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::Result;
use portolan_model::CODES;

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

/// Every code of the table has its section in docs/reason-codes.md, with the
/// words of the table, and no section outlives its code.
pub(crate) fn reason_codes(root: &Path) -> Result<Vec<String>> {
    let document = text(&root.join("docs/reason-codes.md"))?;
    let sections: BTreeMap<&str, &str> = document
        .split("\n## ")
        .skip(1)
        .map(|section| section.split_once('\n').unwrap_or((section, "")))
        .map(|(title, body)| (title.trim(), body.trim()))
        .collect();
    let mut findings = Vec::new();
    let mut known = BTreeSet::new();
    for info in CODES {
        let title = format!("{} {}", info.code, info.name);
        let body = format!("Stops at: {}. {}\n\nFix: {}", info.stage.as_str(), info.text, info.fix);
        match sections.get(title.as_str()) {
            None => findings.push(format!("no section \"## {title}\"")),
            Some(found) if !found.starts_with(&body) => {
                findings.push(format!("{title}: the section does not begin with {body:?}"));
            }
            Some(_) => {}
        }
        known.insert(title);
    }
    let stale = sections.keys().filter(|title| !known.contains(**title));
    findings.extend(stale.map(|title| format!("{title:?} is described and not given")));
    Ok(findings)
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

/// Every key of the DNS face's configuration has a place in docs/dns.md.
pub(crate) fn config_keys(root: &Path) -> Result<Vec<String>> {
    let document = text(&root.join("docs/dns.md"))?;
    let mut findings = Vec::new();
    for path in files(&root.join("crates/dns/src/config"), ".rs")? {
        for key in keys(&text(&path)?) {
            if !document.contains(&format!("`{key}`")) {
                findings.push(format!("{key} ({})", shown(root, &path)));
            }
        }
    }
    Ok(findings)
}

/// The public fields of what serde reads, by the names that it reads them by.
fn keys(source: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut renamed = None;
    let mut read = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[derive(") {
            read = line.contains("Deserialize");
        } else if let Some((_, rest)) = line.split_once("rename = \"") {
            renamed = rest.split('"').next().map(ToOwned::to_owned);
        } else if let Some((name, _)) =
            line.strip_prefix("pub ").and_then(|rest| rest.split_once(": "))
        {
            let own = name.trim_start_matches("r#").to_owned();
            if read && own.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            {
                keys.push(renamed.take().unwrap_or(own));
            }
        }
    }
    keys
}
