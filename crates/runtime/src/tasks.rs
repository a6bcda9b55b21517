//! Supervised tasks and shutdown.

use std::{future::Future, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

/// Asks tasks to end. A child ends with its parent, not the other way round.
pub type Shutdown = CancellationToken;

/// Runs named tasks, notices when one panics, and waits for all at the end.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: Shutdown,
}

impl Tasks {
    /// Tasks that end with `shutdown`.
    pub fn new(shutdown: Shutdown) -> Self {
        Self { tracker: TaskTracker::new(), shutdown }
    }

    /// What asks the tasks to end.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Runs a task until it ends by itself; the task listens to the shutdown. A
    /// panic is logged and asks everything to end: a process that has lost a
    /// part must not look healthy.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shutdown = self.shutdown.clone();
        self.tracker.spawn(async move {
            if let Err(failure) = tokio::spawn(task).await
                && failure.is_panic()
            {
                error!(task = name, "task panicked; ending the process");
                shutdown.cancel();
            }
        });
    }

    /// Waits until all tasks have ended, at most for `deadline`.
    pub async fn finish(&self, deadline: Duration) {
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_err() {
            warn!(tasks = self.tracker.len(), "tasks still run after the deadline");
        }
    }
}
