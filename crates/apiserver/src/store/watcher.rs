//! A reader's place in the history of one resource.

use std::sync::{
    Arc,
    atomic::Ordering::{AcqRel, Relaxed},
};

use tokio::sync::watch;

use super::{
    Compacted, Event,
    state::{Next, Shared},
};

/// Follows the events of one resource. It holds a position, not a queue: one
/// that reads too slowly costs nothing, and gets [`Compacted`] when the window
/// has moved past it.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    resource: usize,
    /// Sequence number of the event to read next.
    sequence: u64,
    /// Every event up to this revision was delivered, or was not asked for.
    reached: u64,
    wake: watch::Receiver<()>,
    ended: bool,
}

impl Watcher {
    pub(super) fn new(
        shared: Arc<Shared>,
        resource: &str,
        since: u64,
    ) -> Result<Watcher, Compacted> {
        let known = shared.read().find_resource(resource);
        let number = known.unwrap_or_else(|| shared.write().resource(resource));
        let (sequence, wake) = {
            let state = shared.read();
            (state.position(number, since)?, state.subscribe(number))
        };
        shared.watchers.fetch_add(1, Relaxed);
        Ok(Watcher { shared, resource: number, sequence, reached: since, wake, ended: false })
    }

    /// The next event. `None` when the store was closed, or after an error.
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Arc<Event>, Compacted>> {
        while !self.ended {
            // Both before the look at the log: what comes after it is not missed.
            self.wake.borrow_and_update();
            let closed = *self.shared.closed.borrow();
            let next = self.shared.read().next(self.resource, self.sequence, self.reached);
            match next {
                Next::Event(event) => {
                    self.sequence += 1;
                    // An event that was not asked for: `since` lay in the future.
                    if event.record.revision > self.reached {
                        self.reached = event.record.revision;
                        return Some(Ok(event));
                    }
                }
                Next::Lost(compacted) => {
                    self.ended = true;
                    return Some(Err(compacted));
                }
                Next::CaughtUp if closed => self.ended = true,
                Next::CaughtUp => self.ended = self.wake.changed().await.is_err(),
            }
        }
        None
    }

    /// The revision up to which every event of this resource was delivered: what
    /// a bookmark may say. It grows with the whole store, not only with this resource.
    pub fn position(&self) -> u64 {
        let state = self.shared.read();
        match state.next(self.resource, self.sequence, self.reached) {
            Next::CaughtUp => state.revision().max(self.reached),
            Next::Event(event) => (event.record.revision - 1).max(self.reached),
            Next::Lost(_) => self.reached,
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.watchers.fetch_sub(1, AcqRel);
    }
}
