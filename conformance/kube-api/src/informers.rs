//! Runs the informer program on a server, restarts the server when it asks for
//! that, and makes rows of the stores with which it ends.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{compare::Row, kubeconfig, normal::Normal, run as suite, servers::Server};

/// The ways in which informers get to the present state: by a watch that begins
/// with it, or by a list.
const MODES: [(&str, &str); 2] = [("watch-list", "true"), ("list-watch", "false")];
/// Of objects in the stores; the suite compares managedFields.
const DROPPED: [&str; 1] = ["/metadata/managedFields"];

/// What came of all modes on one server.
#[derive(Default)]
pub(crate) struct Found {
    /// Of the stores.
    pub(crate) rows: Vec<Row>,
    /// What failed, for people.
    pub(crate) failed: Vec<String>,
}

pub(crate) fn all(program: &Path, server: &mut Server, out: &Path) -> Result<Found> {
    let mut found = Found::default();
    for mode in MODES {
        let dump = out.join(format!("{}-{}.json", server.name(), mode.0));
        match run(program, server, mode, &dump)? {
            Some(rows) => found.rows.extend(rows),
            None => found.failed.push(format!("informers ({}) on {}", mode.0, server.name())),
        }
    }
    Ok(found)
}

/// Rows of the stores; `None` when the program failed.
fn run(
    program: &Path,
    server: &mut Server,
    mode: (&str, &str),
    dump: &Path,
) -> Result<Option<Vec<Row>>> {
    let mut child = Command::new(program)
        .arg("--kubeconfig")
        .arg(&server.kubeconfig)
        .arg("--dump")
        .arg(dump)
        .env("KUBE_FEATURE_WatchListClient", mode.1)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| program.display().to_string())?;
    let mut input = child.stdin.take().context("no standard input")?;
    let output = BufReader::new(child.stdout.take().context("no standard output")?);
    let name = server.name();
    for line in output.lines() {
        let line = line?;
        println!("    {} on {name}: {line}", mode.0);
        if line == "RESTART" {
            server.restart()?;
            input.write_all(b"restarted\n")?;
        }
    }
    if !child.wait()?.success() {
        return Ok(None);
    }
    let stores: BTreeMap<String, BTreeMap<String, Value>> =
        serde_json::from_slice(&fs::read(dump)?)?;
    // Known of theirs, and no excuse for ours.
    if server.is_ours() && stores.contains_key("uncollected") {
        return Ok(None);
    }
    let mut normal = Normal::new(&kubeconfig::read(&server.kubeconfig)?.authority);
    for object in stores.values().flat_map(BTreeMap::values) {
        normal.study(object);
    }
    let mut rows = Vec::new();
    for (kind, objects) in stores {
        for (key, mut object) in objects {
            for pointer in DROPPED {
                suite::remove(&mut object, &pointer.split('/').skip(1).collect::<Vec<_>>());
            }
            let id = format!("informers:{}/{kind}/{key}", mode.0);
            rows.push(Row { id, outcome: normal.value(&object) });
        }
    }
    Ok(Some(rows))
}
