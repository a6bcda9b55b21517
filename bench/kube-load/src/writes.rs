//! Creations and patches, by one client or by many at once.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tokio::task::{JoinSet, LocalSet};

use crate::{
    client::{Connection, Dialer, find, revision},
    pods,
    servers::Processes,
};

/// What is written.
#[derive(Clone, Copy)]
pub(crate) enum Writes {
    /// New Pods with these numbers.
    Create { from: usize },
    /// Changes of Pods 0..`of`, each another one than the changes beside it.
    Patch { of: usize },
}

/// What a load has taken.
pub(crate) struct Load {
    pub(crate) per_second: f64,
    /// Of the server, microseconds of processor per operation.
    pub(crate) cpu_us: f64,
    /// Of this program, likewise.
    pub(crate) own_cpu_us: f64,
}

/// Work that is ready to be sent.
struct Job {
    path: String,
    body: Bytes,
    /// What the answer must hold, besides a revision.
    proof: Vec<u8>,
}

fn jobs(writes: Writes, count: usize) -> Vec<Job> {
    let job = |number: usize| match writes {
        Writes::Create { from } => Job {
            path: pods::COLLECTION.to_owned(),
            body: pods::body(from + number),
            proof: format!("\"name\":\"{}\"", pods::name(from + number)).into_bytes(),
        },
        Writes::Patch { of } => Job {
            path: pods::path(number % of),
            // Never the value that is there already.
            body: pods::change(number + 1),
            proof: format!("\"example.com/revision\":\"{}\"", number + 1).into_bytes(),
        },
    };
    (0..count).map(job).collect()
}

/// Carries out `count` writes over `clients` connections, as fast as they are answered.
pub(crate) async fn run(
    dialer: &Dialer,
    server: &Processes,
    writes: Writes,
    clients: usize,
    count: usize,
) -> Result<Load> {
    let connections = dialer.dial_many(clients).await?;
    let jobs: Rc<Vec<Job>> = Rc::new(jobs(writes, count));
    let next = Rc::new(Cell::new(0));
    let own = Processes::own();
    let (cpu, own_cpu, started) = (server.cpu()?, own.cpu()?, Instant::now());
    LocalSet::new()
        .run_until(async {
            let mut tasks = JoinSet::new();
            for connection in connections {
                tasks.spawn_local(client(connection, writes, jobs.clone(), next.clone()));
            }
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            anyhow::Ok(())
        })
        .await?;
    let wall = started.elapsed();
    let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
    Ok(Load {
        per_second: count as f64 / wall.as_secs_f64(),
        cpu_us: each(server.cpu()? - cpu),
        own_cpu_us: each(own.cpu()? - own_cpu),
    })
}

async fn client(
    mut connection: Connection,
    writes: Writes,
    jobs: Rc<Vec<Job>>,
    next: Rc<Cell<usize>>,
) -> Result<()> {
    let mut before = 0;
    while let Some(job) = jobs.get(next.replace(next.get() + 1)) {
        let answer = match writes {
            Writes::Create { .. } => connection.post(&job.path, job.body.clone()).await?,
            Writes::Patch { .. } => connection.patch(&job.path, job.body.clone()).await?,
        };
        let revision = revision(&answer).context("an answer without a revision")?;
        ensure!(revision > before, "revision {revision} came after {before}");
        before = revision;
        ensure!(
            find(&answer, &job.proof).is_some(),
            "{}: the answer does not hold {}",
            job.path,
            String::from_utf8_lossy(&job.proof)
        );
    }
    Ok(())
}
