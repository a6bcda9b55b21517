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
//! watcher. A watch that its server ends, as the real one does to watchers that
//! it cannot keep up with, is opened again behind the last event, as informers
//! do. Both threads only note numbers while the clock runs.
//!
//! A server that does not hold the rate is a finding, not a failed run: changes
//! that cannot be sent any more are left out, and an event that has not come in
//! the end counts with the time that it was waited for.

use std::{
    collections::BTreeMap,
    io::BufRead,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, body::Incoming};
use tokio::{sync::watch, task::JoinSet, time::timeout_at};

use crate::{
    client::{Connection, Dialer, revision},
    pods,
    servers::Processes,
};

/// Connections over which changes are sent: as many as keep the rate while
/// single writes take up to 80 ms.
const WRITERS: usize = 8;
/// Time beyond that of the plan, after which no more changes are sent.
const OVERTIME: Duration = Duration::from_secs(30);
/// Time for all events to arrive after that.
const STRAGGLERS: Duration = Duration::from_secs(30);

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

impl Plan {
    /// How long the changes take at the rate.
    fn length(&self) -> Duration {
        Duration::from_secs(self.changes as u64) / self.per_second as u32
    }
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
    /// Of all events that were due, those that came, in percent.
    pub(crate) came_percent: f64,
    /// Watches that were opened again.
    pub(crate) reopened: usize,
}

/// What one watcher has seen: revisions, and when they came.
#[derive(Default)]
struct Times {
    events: Vec<(u64, Instant)>,
    reopened: usize,
}

pub(crate) async fn run(dialer: &Dialer, server: &Processes, plan: Plan) -> Result<Seen> {
    let mut connection = dialer.dial().await?;
    let page = connection.get(&format!("{}?limit=1", pods::COLLECTION)).await?;
    let since = revision(&page).context("a list without a revision")?;
    let writers = dialer.dial_many(WRITERS).await?;

    let (ready, all_open) = mpsc::channel();
    let (due, number_due) = watch::channel(plan.changes);
    let watching = {
        let dialer = dialer.clone();
        thread::spawn(move || watch_all(&dialer, plan, since, number_due, ready))
    };
    // Ends without a word when a watch was not opened; its thread tells why.
    let opened = tokio::task::spawn_blocking(move || all_open.recv()).await?.is_ok();
    let own = Processes::own();
    let (cpu, own_cpu, started) = (server.cpu()?, own.cpu()?, Instant::now());
    let mut sent = BTreeMap::new();
    let mut wrote = Duration::ZERO;
    if opened {
        sent = write_all(writers, plan).await?;
        wrote = started.elapsed();
        due.send_replace(sent.len());
    }
    let watchers = tokio::task::spawn_blocking(move || watching.join())
        .await?
        .map_err(|_| anyhow!("the watchers' thread panicked"))??;
    let (cpu, own_cpu) = (server.cpu()? - cpu, own.cpu()? - own_cpu);

    let ended = Instant::now();
    let mut latencies = Vec::with_capacity(plan.watchers * plan.changes);
    let mut came = 0;
    for (number, Times { events, .. }) in watchers.iter().enumerate() {
        let mut seen = events.iter();
        for (revision, sent) in &sent {
            let event = seen.next();
            ensure!(
                event.is_none_or(|(seen, _)| seen == revision),
                "watcher {number} did not see every change once, in order"
            );
            came += usize::from(event.is_some());
            let at = event.map_or(ended, |(_, at)| *at);
            latencies.push(at.saturating_duration_since(*sent).as_secs_f64() * 1e3);
        }
    }
    ensure!(came > 0, "no event came");
    latencies.sort_by(f64::total_cmp);
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part).round() as usize];
    let each = |time: Duration| time.as_secs_f64() * 1e6 / came as f64;
    Ok(Seen {
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        worst_ms: at(1.0),
        cpu_us: each(cpu),
        own_cpu_us: each(own_cpu),
        per_second: sent.len() as f64 / wrote.as_secs_f64(),
        came_percent: came as f64 * 100.0 / latencies.len() as f64,
        reopened: watchers.iter().map(|watcher| watcher.reopened).sum(),
    })
}

/// Sends the changes at the rate, and returns when each was sent, by its revision.
async fn write_all(writers: Vec<Connection>, plan: Plan) -> Result<BTreeMap<u64, Instant>> {
    let start = tokio::time::Instant::now();
    let last = start + plan.length() + OVERTIME;
    let mut tasks = JoinSet::new();
    for (first, mut connection) in writers.into_iter().enumerate() {
        tasks.spawn(async move {
            let mut sent = Vec::new();
            for number in (first..plan.changes).step_by(WRITERS) {
                let due = Duration::from_secs(number as u64) / plan.per_second as u32;
                if tokio::time::Instant::now() > last {
                    break;
                }
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
    let (mut all, mut count) = (BTreeMap::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let sent = done??;
        count += sent.len();
        all.extend(sent);
    }
    ensure!(all.len() == count, "two changes have one revision");
    Ok(all)
}

/// Opens all watches, says so, and returns what each has seen when each has seen all that is due,
/// or when the time for that is over.
fn watch_all(
    dialer: &Dialer,
    plan: Plan,
    since: u64,
    number_due: watch::Receiver<usize>,
    ready: mpsc::Sender<()>,
) -> Result<Vec<Times>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut watches = Vec::new();
        for _ in 0..plan.watchers {
            watches.push(Watch::open(dialer, since).await?);
        }
        ready.send(()).context("nobody waits for the watches")?;
        let end = tokio::time::Instant::now() + plan.length() + OVERTIME + STRAGGLERS;
        let watchers = watches.into_iter().map(|watch| {
            let (dialer, number_due) = (dialer.clone(), number_due.clone());
            tokio::spawn(async move {
                let mut seen = Times::default();
                seen.events.reserve(plan.changes);
                match timeout_at(end, follow(&dialer, watch, since, number_due, &mut seen)).await {
                    Ok(followed) => followed.map(|()| seen),
                    Err(_) => Ok(seen),
                }
            })
        });
        let mut all = Vec::new();
        for watcher in watchers.collect::<Vec<_>>() {
            all.push(watcher.await??);
        }
        Ok(all)
    })
}

/// An open watch; the connection goes with it.
struct Watch {
    _connection: Connection,
    body: Incoming,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
}

impl Watch {
    async fn open(dialer: &Dialer, since: u64) -> Result<Watch> {
        let path = format!(
            "{}?watch=true&allowWatchBookmarks=true&resourceVersion={since}",
            pods::COLLECTION
        );
        let mut connection = dialer.dial().await?;
        let response = connection.send(Method::GET, &path, "", Bytes::new()).await?;
        let code = response.status();
        ensure!(code.is_success(), "a watch was answered with {code}");
        Ok(Watch { _connection: connection, body: response.into_body(), begun: Vec::new() })
    }

    /// Notes the events of the next piece; false at the end of the stream.
    async fn read(&mut self, seen: &mut Times) -> Result<bool> {
        let Some(Ok(frame)) = self.body.frame().await else { return Ok(false) };
        let Ok(data) = frame.into_data() else { return Ok(true) };
        let mut rest = &data[..];
        while !rest.is_empty() {
            let (whole, length) = (rest, rest.skip_until(b'\n')?);
            let line = &whole[..length];
            if !line.ends_with(b"\n") {
                self.begun.extend_from_slice(line);
            } else if self.begun.is_empty() {
                note(seen, line)?;
            } else {
                self.begun.extend_from_slice(line);
                note(seen, &self.begun)?;
                self.begun.clear();
            }
        }
        Ok(true)
    }
}

/// Notes events until as many have come as are due.
async fn follow(
    dialer: &Dialer,
    mut watch: Watch,
    since: u64,
    mut number_due: watch::Receiver<usize>,
    seen: &mut Times,
) -> Result<()> {
    while seen.events.len() < *number_due.borrow_and_update() {
        let open = tokio::select! {
            open = watch.read(seen) => open?,
            // Fewer than planned: perhaps all have come.
            Ok(()) = number_due.changed() => continue,
        };
        if !open {
            let last = seen.events.last().map_or(since, |(revision, _)| *revision);
            watch = Watch::open(dialer, last).await?;
            seen.reopened += 1;
        }
    }
    Ok(())
}

fn note(seen: &mut Times, line: &[u8]) -> Result<()> {
    const MODIFIED: &[u8] = b"{\"type\":\"MODIFIED\"";
    const BOOKMARK: &[u8] = b"{\"type\":\"BOOKMARK\"";
    if line.starts_with(BOOKMARK) {
        return Ok(());
    }
    ensure!(line.starts_with(MODIFIED), "unexpected: {:.200}", String::from_utf8_lossy(line));
    seen.events.push((revision(line).context("an event without a revision")?, Instant::now()));
    Ok(())
}
