//! Lists of all Pods.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{client::Dialer, pods, servers::Processes};

pub(crate) struct Listed {
    pub(crate) ms: f64,
    /// Of the server, milliseconds of processor per list.
    pub(crate) cpu_ms: f64,
}

/// Asks for the list some times over; the answers are checked, off the clock.
pub(crate) async fn run(
    dialer: &Dialer,
    server: &Processes,
    query: &str,
    expected: usize,
    times: usize,
) -> Result<Listed> {
    let mut connection = dialer.dial().await?;
    let path = format!("{}{query}", pods::COLLECTION);
    let (mut ms, mut cpu_ms) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let (cpu, started) = (server.cpu()?, Instant::now());
        let answer = connection.get(&path).await?;
        ms.push(started.elapsed().as_secs_f64() * 1e3);
        cpu_ms.push((server.cpu()? - cpu).as_secs_f64() * 1e3);
        check(&answer, expected)?;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    ms.sort_by(f64::total_cmp);
    Ok(Listed { ms: ms[ms.len() / 2], cpu_ms: mean(&cpu_ms) })
}

/// Every Pod is there, once, in the order of names.
fn check(answer: &[u8], expected: usize) -> Result<()> {
    let list: Value = serde_json::from_slice(answer)?;
    let items = list.get("items").and_then(Value::as_array).context("no items")?;
    ensure!(items.len() == expected, "{} Pods where {expected} were expected", items.len());
    for (index, item) in items.iter().enumerate() {
        let name = item.pointer("/metadata/name").and_then(Value::as_str);
        ensure!(name == Some(&*pods::name(index)), "Pod {index} of the list is {name:?}");
    }
    Ok(())
}
