//! The one task that feeds all subscriptions of a client.
//!
//! ```text
//!   subscribe ──▶ Slot ── the running Feed, or a new one ──▶ task that follows ──▶ Directory
//!                                                      └───▶ task that keeps the file up
//! ```
//!
//! It begins with the first subscription and ends with the last: each of them holds it.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::task::AbortHandle;

use crate::{
    Error,
    cache::Cache,
    directory::Directory,
    kept::{self, KeptFile},
};

/// How long a subscription waits for the first state while nobody can be reached: as long as the
/// restart of an API server on a small machine.
const FIRST_WITHIN: Duration = Duration::from_secs(30);
/// The same where something is known from before the start: whoever is there has answered by then.
const FIRST_BEFORE_KEPT_WITHIN: Duration = Duration::from_secs(2);

/// The first pause is short: most losses are restarts of the server.
pub(crate) const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// client-go's reflector waits 30 s at most.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is followed, and by which tasks. `wanted` is what the follower is told beside.
pub(crate) struct Feed<W> {
    pub(crate) directory: Arc<Directory>,
    pub(crate) wanted: W,
    task: AbortHandle,
    keeper: Option<AbortHandle>,
}

impl<W> Drop for Feed<W> {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }
}

/// How patient a subscription is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Something is known from before the start, which does where nobody answers.
    pub(crate) kept: bool,
    pub(crate) within: Duration,
}

impl Patience {
    pub(crate) fn with(directory: &Directory, interface: &str) -> Self {
        let kept = directory.has_begun_with(interface);
        Self { kept, within: if kept { FIRST_BEFORE_KEPT_WITHIN } else { FIRST_WITHIN } }
    }

    /// Whether a subscription can begin after this.
    pub(crate) fn accept(self, first: Result<(), Error>) -> Result<(), Error> {
        match first {
            // Refused is not unreachable: nothing that was kept makes up for a permission.
            Err(error) if !self.kept || error.is_final() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Where a client has its feed while somebody subscribes.
pub(crate) struct Slot<W>(Mutex<Weak<Feed<W>>>);

impl<W> Default for Slot<W> {
    fn default() -> Self {
        Self(Mutex::new(Weak::new()))
    }
}

impl<W: Clone + Default> Slot<W> {
    /// The running feed, or a new one.
    pub(crate) fn feed<F>(
        &self,
        cache: impl FnOnce() -> Cache,
        kept: Option<&KeptFile>,
        follow: impl FnOnce(Arc<Directory>, W) -> F,
    ) -> Arc<Feed<W>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = slot.upgrade()
            && !feed.task.is_finished()
        {
            return feed;
        }
        let directory = Arc::new(Directory::new(cache()));
        let keeper = kept::start(kept, &directory);
        let wanted = W::default();
        let task = tokio::spawn(follow(directory.clone(), wanted.clone())).abort_handle();
        let feed = Arc::new(Feed { directory, wanted, task, keeper });
        *slot = Arc::downgrade(&feed);
        feed
    }
}
