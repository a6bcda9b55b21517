//! The loop around a controller: take a key, reconcile it, put it back on failure.

use std::{sync::Arc, time::Duration};

use portolan_apiserver::Status;
use portolan_runtime::Tasks;

use super::action::is_namespace_leaving;
use crate::queue::Queue;

/// Failures after which the log stops being discreet: conflicts between writers
/// are gone by then.
const FAILURES_QUIET: Duration = Duration::from_millis(200);

/// When to look at a key again without anything having happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Not before something happens.
    Done,
    /// After this time.
    After(Duration),
}

/// Deals with one key at a time.
pub(crate) trait Worker: Send + Sync + 'static {
    /// What the queue holds.
    type Key: Clone + Eq + std::hash::Hash + Ord + std::fmt::Debug + Send + Sync + 'static;

    /// Brings the world closer to what the key's object asks for.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Next, Status>> + Send;
}

/// Runs a controller with so many workers until shutdown.
pub(crate) fn run<W: Worker>(
    tasks: &Tasks,
    name: &'static str,
    workers: usize,
    (worker, queue): (W, Arc<Queue<W::Key>>),
) {
    let worker = Arc::new(worker);
    for _ in 0..workers {
        let (worker, queue, shutdown) = (worker.clone(), queue.clone(), tasks.shutdown().clone());
        tasks.spawn(name, async move {
            tokio::select! {
                () = work(name, &*worker, &queue) => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
}

async fn work<W: Worker>(name: &'static str, worker: &W, queue: &Queue<W::Key>) {
    loop {
        let key = queue.next().await;
        match worker.reconcile(&key).await {
            Ok(next) => {
                queue.done(&key);
                if let Next::After(pause) = next {
                    queue.add_after(key, pause);
                }
            }
            Err(status) if is_namespace_leaving(&status) => queue.done(&key),
            Err(status) => {
                let pause = queue.failed(&key);
                if pause >= FAILURES_QUIET {
                    tracing::warn!(controller = name, ?key, %status, ?pause, "trying again");
                } else {
                    tracing::debug!(controller = name, ?key, %status, ?pause, "trying again");
                }
            }
        }
    }
}
