//! How adapters hand over what they saw: batches of reports through a bounded
//! channel. A full channel slows the adapter down, and through it the watch.

use std::sync::Arc;

use portolan_model::{Event, Name, SourceId, SourceReport};
use portolan_runtime::Clock;
use tokio::sync::mpsc;

/// Where batches go; the catalog's writer holds the other end.
pub type Sink = mpsc::Sender<Vec<SourceReport>>;

/// A batch under way.
#[derive(Debug)]
pub struct Reports {
    batch: Vec<SourceReport>,
    observed_at_ms: u64,
}

impl Reports {
    /// A batch of things observed now.
    pub fn now(clock: &Arc<dyn Clock>) -> Self {
        Self::at(clock.unix_ms())
    }

    /// A batch of things observed at a time.
    pub fn at(observed_at_ms: u64) -> Self {
        Self { batch: Vec::new(), observed_at_ms }
    }

    /// Adds an event.
    pub fn push(&mut self, source: &SourceId, revision: &Name, event: Event) {
        self.batch.push(SourceReport {
            source: source.clone(),
            revision: revision.clone(),
            observed_at_ms: self.observed_at_ms,
            event,
        });
    }

    /// Hands the batch over. `Err`: nobody listens any more, the process ends.
    pub async fn send(self, sink: &Sink) -> Result<(), Closed> {
        if self.batch.is_empty() {
            return Ok(());
        }
        sink.send(self.batch).await.map_err(|_| Closed)
    }
}

/// Nobody listens any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;
