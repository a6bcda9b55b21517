//! What is measured, in which order.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    figures::{
        Better::{Less, More},
        Figures,
    },
    lists, pods,
    servers::{Programs, Server, Which},
    watches::{self, Plan},
    writes::{self, Writes},
};

const PODS: usize = 10_000;
/// Pods that are created by one client, and then by many: few enough that the
/// reference needs some seconds, enough that a tick of the processor clock
/// (10 ms) is far below the whole.
const ALONE: usize = 400;
const TOGETHER: usize = 3_000;
const CLIENTS: usize = 64;
/// Writes before the clock runs.
const WARM_UP: usize = 64;
const CHANGES_PER_SECOND: usize = 100;
const CHANGES: usize = 300;
const WATCHERS: usize = 1_000;
const LISTS: usize = 3;
/// Memory is looked at when this time has passed without a request.
const REST: Duration = Duration::from_secs(2);

/// All rounds.
pub(crate) async fn all(programs: &Programs, rounds: usize) -> Result<Figures> {
    check_equal(programs).await?;
    let mut figures = Figures::default();
    for round in 0..rounds {
        let mut order = [Which::Ours, Which::Theirs];
        if round % 2 == 1 {
            order.reverse();
        }
        for fsync in [true, false] {
            for which in order {
                eprintln!("round {} of {rounds}: {which:?}, fsync {fsync}", round + 1);
                one(programs, which, fsync, &mut figures)
                    .await
                    .with_context(|| format!("{which:?}, fsync {fsync}"))?;
            }
        }
    }
    Ok(figures)
}

/// Both servers, asked the same, answer the same.
async fn check_equal(programs: &Programs) -> Result<()> {
    eprintln!("comparing answers");
    let mut answers: Vec<Vec<Value>> = Vec::new();
    for which in [Which::Ours, Which::Theirs] {
        let server = Server::start(programs, which, false).await?;
        let mut connection = server.dialer.dial().await?;
        let created = connection.post(pods::COLLECTION, pods::body(0)).await?;
        let patched = connection.patch(&pods::path(0), pods::change(1)).await?;
        let listed = connection.get(pods::COLLECTION).await?;
        let size = patched.len();
        eprintln!("{which:?}: a Pod has {size} bytes of JSON");
        answers.push(
            [created, patched, listed]
                .iter()
                .map(|answer| pods::normal(answer))
                .collect::<Result<_>>()?,
        );
    }
    let [ours, theirs] = answers.as_slice() else { bail!("two servers") };
    for (what, (ours, theirs)) in ["create", "patch", "list"].iter().zip(ours.iter().zip(theirs)) {
        if ours != theirs {
            bail!("the answers to {what} differ:\nours:   {ours}\ntheirs: {theirs}");
        }
    }
    Ok(())
}

/// One server, from its start to its end.
async fn one(programs: &Programs, which: Which, fsync: bool, figures: &mut Figures) -> Result<()> {
    let server = Server::start(programs, which, fsync).await?;
    let ready_ms = server.ready.as_secs_f64() * 1e3;
    figures.add(which, "ready", "exec to ready", (ready_ms, "ms", Less));
    write(&server, which, fsync, figures).await?;
    if !fsync {
        hold(&server, which, figures).await?;
    }
    Ok(())
}

/// Creations and patches, alone and together.
async fn write(server: &Server, which: Which, fsync: bool, figures: &mut Figures) -> Result<()> {
    let (tag, words) = if fsync { ("fsync", "fsync") } else { ("nosync", "no fsync") };
    let run = |writes, clients, count| {
        writes::run(&server.dialer, &server.processes, writes, clients, count)
    };
    run(Writes::Create { from: 0 }, CLIENTS, WARM_UP).await?;
    let (alone, together) = (WARM_UP, WARM_UP + ALONE);
    let of = together + TOGETHER;
    for (verb, writes, clients, count) in [
        ("create", Writes::Create { from: alone }, 1, ALONE),
        ("create", Writes::Create { from: together }, CLIENTS, TOGETHER),
        ("patch", Writes::Patch { of }, 1, ALONE),
        ("patch", Writes::Patch { of }, CLIENTS, TOGETHER),
    ] {
        let load = run(writes, clients, count).await?;
        let name = format!("{verb}_{tag}_{clients}");
        let many = if clients == 1 { "1 client" } else { "64 clients" };
        let title = format!("{verb}, {many}, {words}");
        figures.add(which, &name, &title, (load.per_second, "/s", More));
        let title = format!("{title}: processor per operation");
        figures.add(which, &format!("{name}_cpu"), &title, (load.cpu_us, "us", Less));
        eprintln!(
            "  {name}: {:.0}/s, {:.0} us each (the load itself {:.0} us)",
            load.per_second, load.cpu_us, load.own_cpu_us
        );
    }
    Ok(())
}

/// 10,000 Pods: memory, watches, lists.
async fn hold(server: &Server, which: Which, figures: &mut Figures) -> Result<()> {
    let from = WARM_UP + ALONE + TOGETHER;
    let writes = Writes::Create { from };
    writes::run(&server.dialer, &server.processes, writes, CLIENTS, PODS - from).await?;
    tokio::time::sleep(REST).await;
    let resident = server.processes.resident_mib()?;
    figures.add(which, "resident", "memory with 10,000 Pods", (resident, "MiB", Less));

    for (series, watchers) in [(1, 1), (2, WATCHERS)] {
        let plan =
            Plan { watchers, changes: CHANGES, per_second: CHANGES_PER_SECOND, pods: PODS, series };
        let seen = watches::run(&server.dialer, &server.processes, plan).await?;
        let many = if watchers == 1 { "1 watcher" } else { "1,000 watchers" };
        let name = format!("watch_{watchers}");
        let title = format!("write to event, {many}, 100 changes/s");
        figures.add(
            which,
            &format!("{name}_p50"),
            &format!("{title}: p50"),
            (seen.p50_ms, "ms", Less),
        );
        figures.add(
            which,
            &format!("{name}_p99"),
            &format!("{title}: p99"),
            (seen.p99_ms, "ms", Less),
        );
        for (tag, what, sample) in [
            ("cpu", "processor per event", (seen.cpu_us, "us", Less)),
            ("rate", "changes made", (seen.per_second, "/s", More)),
            ("came", "events that came", (seen.came_percent, "%", More)),
        ] {
            figures.add(which, &format!("{name}_{tag}"), &format!("{title}: {what}"), sample);
        }
        eprintln!(
            "  {name}: p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms, {:.0} changes/s, {:.1} % came, {:.1} us per event (the load itself {:.1} us), {} watches ended early",
            seen.p50_ms,
            seen.p99_ms,
            seen.worst_ms,
            seen.per_second,
            seen.came_percent,
            seen.cpu_us,
            seen.own_cpu_us,
            seen.reopened
        );
    }
    for (name, title, query) in [
        ("list", "list of 10,000 Pods", ""),
        ("list_cached", "list of 10,000 Pods, resourceVersion=0", "?resourceVersion=0"),
    ] {
        let listed = lists::run(&server.dialer, &server.processes, query, PODS, LISTS).await?;
        figures.add(which, name, title, (listed.ms, "ms", Less));
        let title = format!("{title}: processor");
        figures.add(which, &format!("{name}_cpu"), &title, (listed.cpu_ms, "ms", Less));
        eprintln!("  {name}: {:.0} ms, {:.0} ms of processor", listed.ms, listed.cpu_ms);
    }
    let resident = server.processes.resident_mib()?;
    figures.add(which, "resident_after", "memory after all of this", (resident, "MiB", Less));
    Ok(())
}
