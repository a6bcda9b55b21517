//! `cargo xtask bench`: measured figures beside their budgets.
//!
//! A benchmark prints JSON lines `{"name", "value", "unit"}`. They are compared
//! with `bench/budgets.toml`, printed as a table, and written to
//! `bench/results/NAME.json`. Machines are shared and noisy: the table gives
//! the ratio to the budget, and a miss is shown, not turned into a failing test.
//! Where a peer runs beside ours, its processor time per operation must be what
//! it was before on this machine; otherwise the run is void and not written.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{cargo, conformance, must, root};

/// A figure that was measured.
struct Figure {
    name: String,
    value: f64,
    unit: String,
}

/// A benchmark: its name, and how it is run.
type Benchmark = (&'static str, fn(Effort) -> Result<Vec<Figure>>);

/// How much is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// As much as figures need.
    Full,
    /// As little as shows that it works. Nothing is written.
    Short,
}

/// Tells a benchmark to be short.
const SHORT_SWITCH: &str = "PORTOLAN_BENCH_SHORT";

const BENCHMARKS: &[Benchmark] = &[
    ("catalog", catalog),
    ("start", start),
    ("path", path),
    ("cluster", cluster),
    ("dns", dns),
    ("registry", registry),
    ("xds", xds),
];

/// How the processor time of a peer is called.
const PEER_TIME: &str = "_cpu_theirs";

/// A peer that is slower than its recorded figure by more than this did not run
/// as it should.
const PEER_SLOWER_MAX: f64 = 1.5;

pub(crate) fn run(name: &str, effort: Effort) -> Result<()> {
    let chosen: Vec<_> =
        BENCHMARKS.iter().filter(|(known, _)| name == "all" || name == *known).collect();
    if chosen.is_empty() {
        let known: Vec<&str> = BENCHMARKS.iter().map(|(known, _)| *known).collect();
        bail!("no benchmark is called {name:?}; there are {known:?} and \"all\"");
    }
    let budgets = budgets()?;
    let mut missed = 0;
    for (name, measure) in chosen {
        let figures = measure(effort).with_context(|| format!("benchmark {name}"))?;
        missed += figures.iter().filter(|figure| !print(figure, &budgets)).count();
        if effort == Effort::Short {
            continue;
        }
        let hampered = hampered_peers(name, &figures)?;
        if !hampered.is_empty() {
            bail!("{name}: the run is void, a peer was slower than before: {hampered:?}");
        }
        write(name, &figures)?;
    }
    if missed > 0 && effort == Effort::Full {
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

/// Figures of peers that are far from what was recorded on the same machine.
fn hampered_peers(name: &str, figures: &[Figure]) -> Result<Vec<String>> {
    let recorded = root()?.join("bench/results").join(format!("{name}.json"));
    let Ok(text) = fs::read_to_string(recorded) else { return Ok(Vec::new()) };
    let recorded: Value = serde_json::from_str(&text)?;
    if recorded.get("machine") != Some(&machine().into()) {
        return Ok(Vec::new());
    }
    let before = |name: &str| {
        let all = recorded.get("figures").and_then(Value::as_array)?;
        let found = all.iter().find(|figure| figure.get("name").is_some_and(|n| n == name))?;
        found.get("value")?.as_f64()
    };
    let slower = figures.iter().filter(|figure| {
        let before = before(&figure.name).filter(|_| figure.name.ends_with(PEER_TIME));
        before.is_some_and(|before| figure.value > before * PEER_SLOWER_MAX)
    });
    Ok(slower.map(|figure| figure.name.clone()).collect())
}

/// The machine, as far as figures depend on it.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |model| model.trim_start_matches([' ', '\t', ':']));
    format!("{cores} x {model}")
}

fn today() -> Result<String> {
    let output = Command::new("date").args(["-u", "-I"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn write(name: &str, figures: &[Figure]) -> Result<()> {
    let folder = root()?.join("bench/results");
    fs::create_dir_all(&folder)?;
    let figures: Vec<Value> = figures
        .iter()
        .map(|figure| json!({"name": figure.name, "value": figure.value, "unit": figure.unit}))
        .collect();
    let results = json!({ "date": today()?, "machine": machine(), "figures": figures });
    let text = serde_json::to_string_pretty(&results)?;
    fs::write(folder.join(format!("{name}.json")), text + "\n")?;
    Ok(())
}

fn catalog(_: Effort) -> Result<Vec<Figure>> {
    figures(cargo().args(["bench", "--locked", "-p", "portolan-catalog", "--bench", "catalog"]))
}

/// The SDK's choice of an instance, and what the registry costs when everything restarts.
fn registry(effort: Effort) -> Result<Vec<Figure>> {
    let mut all =
        figures(cargo().args(["bench", "--locked", "-p", "portolan-sdk", "--bench", "pick"]))?;
    all.extend(figures(&mut of_portolan("registry", effort))?);
    Ok(all)
}

/// A benchmark that drives the binary.
fn of_portolan(name: &str, effort: Effort) -> Command {
    let mut bench = cargo();
    bench.args(["bench", "--locked", "-p", "portolan", "--bench", name]);
    if effort == Effort::Short {
        bench.env(SHORT_SWITCH, "1");
    }
    bench
}

/// The xDS face under thousands of clients.
fn xds(effort: Effort) -> Result<Vec<Figure>> {
    figures(&mut of_portolan("xds", effort))
}

fn start(_: Effort) -> Result<Vec<Figure>> {
    figures(cargo().args(["bench", "--locked", "-p", "portolan", "--bench", "start"]))
}

fn path(_: Effort) -> Result<Vec<Figure>> {
    figures(cargo().args(["bench", "--locked", "-p", "portolan", "--bench", "path"]))
}

/// The embedded Kubernetes API beside the real one.
fn cluster(_: Effort) -> Result<Vec<Figure>> {
    if !conformance::has("go", &["version"]) {
        bail!("NOT RUN (no Go toolchain in PATH): the peer cannot be built");
    }
    let root = root()?;
    let reference = conformance::kube_reference()?;
    let packages = ["-p", "portolan", "-p", "portolan-bench-kube"];
    must(cargo().current_dir(&root).args(["build", "--locked", "--release"]).args(packages))?;
    let built = root.join("target/release");
    figures(
        Command::new(built.join("portolan-bench-kube"))
            .arg("compare")
            .arg("--portolan")
            .arg(built.join("portolan"))
            .arg("--reference")
            .arg(reference)
            .arg("--out")
            .arg(root.join("target/bench-cluster")),
    )
}

/// The DNS face beside CoreDNS, Knot and NSD.
fn dns(effort: Effort) -> Result<Vec<Figure>> {
    if !conformance::has("go", &["version"]) {
        bail!("NOT RUN (no Go toolchain in PATH): CoreDNS cannot be built");
    }
    conformance::coredns()?;
    figures(&mut of_portolan("dns", effort))
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
