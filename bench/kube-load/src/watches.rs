//! From a write to the event of it, at one watcher and at a thousand.
//!
//! ```text
//!  writer thread: a change every 1/rate s ──▶ server ──▶ watcher thread: N connections
//!       revision of each, and when it was sent             revision of each, and when it came
//!                         └────────────── compared: all, once, in order ──────┘
//! ```
//!
//! Every watcher must see exactly the changes that were acknowledged, in the
//! order of their revisions; the latency is that of every event at every
//! watcher. Both threads only note numbers while the clock runs.

use std::{
    collections::HashMap,
    io::BufRead,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, body::Incoming};
use tokio::{sync::Notify, task::JoinSet, time::timeout};

use crate::{
    client::{Connection, Dialer, revision},
    pods,
    servers::Processes,
};

/// Connections over which changes are sent: as many as keep the rate while
/// single writes take up to 80 ms.
const WRITERS: usize = 8;
/// Time for all events to arrive after the last write.
const STRAGGLERS: Duration = Duration::from_secs(60);

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) watchers: usize,
    pub(crate) changes: usize,
    pub(crate) per_second: usize,
    /// Changes go round these many Pods.
    pub(crate) pods: usize,
    /// Makes the changes differ from those of plans before.
    pub(crate) series: usize,
}

/// What was seen.
pub(crate) struct Seen {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) worst_ms: f64,
    /// Of the server, microseconds of processor per event at a watcher.
    pub(crate) cpu_us: f64,
    pub(crate) own_cpu_us: f64,
    /// Changes per second that were really made.
    pub(crate) per_second: f64,
}

type Times = Vec<(u64, Instant)>;

pub(crate) async fn run(dialer: &Dialer, server: &Processes, plan: Plan) -> Result<Seen> {
    let mut connection = dialer.dial().await?;
    let page = connection.get(&format!("{}?limit=1", pods::COLLECTION)).await?;
    let since = revision(&page).context("a list without a revision")?;
    let writers = dialer.dial_many(WRITERS).await?;

    let (ready, all_open) = mpsc::channel();
    let failed = Arc::new(Notify::new());
    let watching = {
        let (dialer, failed) = (dialer.clone(), failed.clone());
        thread::spawn(move || {
            let seen = watch_all(&dialer, plan, since, ready);
            failed.notify_one();
            seen
        })
    };
    // Ends without a word when a watch was not opened; its thread tells why.
    let opened = tokio::task::spawn_blocking(move || all_open.recv()).await?.is_ok();
    let own = Processes::own();
    let (cpu, own_cpu, started) = (server.cpu()?, own.cpu()?, Instant::now());
    let mut sent = HashMap::new();
    let mut wrote = Duration::ZERO;
    if opened {
        sent = write_all(writers, plan).await?;
        wrote = started.elapsed();
    }
    let watchers = tokio::task::spawn_blocking(move || watching.join())
        .await?
        .map_err(|_| anyhow!("the watchers' thread panicked"))??;
    let (cpu, own_cpu) = (server.cpu()? - cpu, own.cpu()? - own_cpu);

    let mut expected: Vec<u64> = sent.keys().copied().collect();
    expected.sort_unstable();
    let mut latencies = Vec::with_capacity(plan.watchers * plan.changes);
    for (number, events) in watchers.iter().enumerate() {
        let revisions: Vec<u64> = events.iter().map(|(revision, _)| *revision).collect();
        ensure!(revisions == expected, "watcher {number} did not see every change once, in order");
        latencies.extend(events.iter().map(|(revision, at)| {
            at.saturating_duration_since(sent[revision]).as_secs_f64() * 1e3
        }));
    }
    latencies.sort_by(f64::total_cmp);
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part).round() as usize];
    let each = |time: Duration| time.as_secs_f64() * 1e6 / latencies.len() as f64;
    Ok(Seen {
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        worst_ms: at(1.0),
        cpu_us: each(cpu),
        own_cpu_us: each(own_cpu),
        per_second: plan.changes as f64 / wrote.as_secs_f64(),
    })
}

/// Sends the changes at the rate, and returns when each was sent, by its revision.
async fn write_all(writers: Vec<Connection>, plan: Plan) -> Result<HashMap<u64, Instant>> {
    let start = tokio::time::Instant::now();
    let mut tasks = JoinSet::new();
    for (first, mut connection) in writers.into_iter().enumerate() {
        tasks.spawn(async move {
            let mut sent = Vec::new();
            for number in (first..plan.changes).step_by(WRITERS) {
                let due = Duration::from_secs(number as u64) / plan.per_second as u32;
                tokio::time::sleep_until(start + due).await;
                let path = pods::path(number % plan.pods);
                let body = pods::change(plan.series * plan.changes + number + 1);
                let at = Instant::now();
                let answer = connection.patch(&path, body).await?;
                sent.push((revision(&answer).context("no revision")?, at));
            }
            anyhow::Ok(sent)
        });
    }
    let mut all = HashMap::new();
    while let Some(done) = tasks.join_next().await {
        all.extend(done??);
    }
    ensure!(all.len() == plan.changes, "two changes have one revision");
    Ok(all)
}

/// Opens all watches, says so, and returns what each has seen when each has seen all.
fn watch_all(
    dialer: &Dialer,
    plan: Plan,
    since: u64,
    ready: mpsc::Sender<()>,
) -> Result<Vec<Times>> {
    let path =
        format!("{}?watch=true&allowWatchBookmarks=true&resourceVersion={since}", pods::COLLECTION);
    let patience = Duration::from_secs(plan.changes as u64) / plan.per_second as u32 + STRAGGLERS;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut bodies = Vec::new();
        for _ in 0..plan.watchers {
            let mut connection = dialer.dial().await?;
            let response = connection.send(Method::GET, &path, "", Bytes::new()).await?;
            let code = response.status();
            ensure!(code.is_success(), "a watch was answered with {code}");
            bodies.push((connection, response.into_body()));
        }
        ready.send(()).context("nobody waits for the watches")?;
        let watchers = bodies.into_iter().map(|(connection, body)| {
            tokio::spawn(async move {
                let seen = timeout(patience, watch(body, plan.changes)).await;
                drop(connection);
                seen.context("not all events came")?
            })
        });
        let mut all = Vec::new();
        for watcher in watchers.collect::<Vec<_>>() {
            all.push(watcher.await??);
        }
        Ok(all)
    })
}

/// Notes events until so many have come.
async fn watch(mut body: Incoming, count: usize) -> Result<Times> {
    let mut seen = Vec::with_capacity(count);
    let mut begun: Vec<u8> = Vec::new();
    while seen.len() < count {
        let frame = body.frame().await.context("the watch ended")??;
        let Ok(data) = frame.into_data() else { continue };
        let mut rest = &data[..];
        while !rest.is_empty() {
            let (whole, length) = (rest, rest.skip_until(b'\n')?);
            let line = &whole[..length];
            if !line.ends_with(b"\n") {
                begun.extend_from_slice(line);
            } else if begun.is_empty() {
                note(&mut seen, line)?;
            } else {
                begun.extend_from_slice(line);
                note(&mut seen, &begun)?;
                begun.clear();
            }
        }
    }
    Ok(seen)
}

fn note(seen: &mut Times, line: &[u8]) -> Result<()> {
    const MODIFIED: &[u8] = b"{\"type\":\"MODIFIED\"";
    const BOOKMARK: &[u8] = b"{\"type\":\"BOOKMARK\"";
    if line.starts_with(BOOKMARK) {
        return Ok(());
    }
    ensure!(line.starts_with(MODIFIED), "unexpected: {:.200}", String::from_utf8_lossy(line));
    seen.push((revision(line).context("an event without a revision")?, Instant::now()));
    Ok(())
}
