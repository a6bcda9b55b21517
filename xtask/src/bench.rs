//! `cargo xtask bench`: measured figures beside their budgets.
//!
//! A benchmark prints JSON lines `{"name", "value", "unit"}`. They are compared
//! with `bench/budgets.toml`, printed as a table, and written to
//! `bench/results/NAME.json`. Machines are shared and noisy: the table gives
//! the ratio to the budget, and a miss is shown, not turned into a failing test.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{cargo, root};

/// A figure that was measured.
struct Figure {
    name: String,
    value: f64,
    unit: String,
}

/// A benchmark: its name, and how it is run.
type Benchmark = (&'static str, fn() -> Result<Vec<Figure>>);

const BENCHMARKS: &[Benchmark] = &[("catalog", catalog), ("start", start), ("path", path)];

pub(crate) fn run(name: &str) -> Result<()> {
    let chosen: Vec<_> =
        BENCHMARKS.iter().filter(|(known, _)| name == "all" || name == *known).collect();
    if chosen.is_empty() {
        let known: Vec<&str> = BENCHMARKS.iter().map(|(known, _)| *known).collect();
        bail!("no benchmark is called {name:?}; there are {known:?} and \"all\"");
    }
    let budgets = budgets()?;
    let mut missed = 0;
    for (name, measure) in chosen {
        let figures = measure().with_context(|| format!("benchmark {name}"))?;
        missed += figures.iter().filter(|figure| !print(figure, &budgets)).count();
        write(name, &figures)?;
    }
    if missed > 0 {
        bail!("{missed} figures miss their budget");
    }
    Ok(())
}

/// Budgets by full name.
fn budgets() -> Result<BTreeMap<String, f64>> {
    let text = fs::read_to_string(root()?.join("bench/budgets.toml"))?;
    let tables: BTreeMap<String, BTreeMap<String, toml::Table>> =
        toml::from_str(&text).context("bench/budgets.toml")?;
    let mut budgets = BTreeMap::new();
    for (group, figures) in tables {
        for (name, figure) in figures {
            let max = figure.get("max").and_then(toml::Value::as_float);
            budgets.insert(format!("{group}.{name}"), max.context("a budget needs max")?);
        }
    }
    Ok(budgets)
}

/// Prints one line; false when the budget is missed.
fn print(figure: &Figure, budgets: &BTreeMap<String, f64>) -> bool {
    let Figure { name, value, unit } = figure;
    match budgets.get(name) {
        Some(max) => {
            let ratio = value / max;
            let mark = if ratio <= 1.0 { "ok  " } else { "MISS" };
            println!(
                "{mark} {name:<36} {value:>10.2} {unit:<4} budget {max:>8.1}  ratio {ratio:.2}"
            );
            ratio <= 1.0
        }
        None => {
            println!("     {name:<36} {value:>10.2} {unit}");
            true
        }
    }
}

fn write(name: &str, figures: &[Figure]) -> Result<()> {
    let folder = root()?.join("bench/results");
    fs::create_dir_all(&folder)?;
    let figures: Vec<Value> = figures
        .iter()
        .map(|figure| json!({"name": figure.name, "value": figure.value, "unit": figure.unit}))
        .collect();
    let text = serde_json::to_string_pretty(&json!({ "figures": figures }))?;
    fs::write(folder.join(format!("{name}.json")), text + "\n")?;
    Ok(())
}

fn catalog() -> Result<Vec<Figure>> {
    figures(cargo().args(["bench", "--locked", "-p", "portolan-catalog", "--bench", "catalog"]))
}

fn start() -> Result<Vec<Figure>> {
    figures(cargo().args(["bench", "--locked", "-p", "portolan", "--bench", "start"]))
}

fn path() -> Result<Vec<Figure>> {
    figures(cargo().args(["bench", "--locked", "-p", "portolan", "--bench", "path"]))
}

/// Runs a benchmark and reads its figures.
fn figures(command: &mut Command) -> Result<Vec<Figure>> {
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<Figure> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|line| {
            Some(Figure {
                name: line.get("name")?.as_str()?.to_owned(),
                value: line.get("value")?.as_f64()?,
                unit: line.get("unit")?.as_str()?.to_owned(),
            })
        })
        .collect();
    if figures.is_empty() {
        bail!("{command:?} printed no figure");
    }
    Ok(figures)
}
