//! The registry straight on the Kubernetes API.
//!
//! ```text
//!   Builder ── environment ──▶ Registry ── register ──▶ Writer ── PATCH own Pod
//!                                 │ list ────────────▶ Pods ──── LIST
//!                                 └ subscribe ───────▶ Feed ──── LIST, WATCH ──▶ Directory
//! ```

mod api;
mod connect;
mod follow;
mod settings;
mod writer;

use std::{
    any::Any,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use portolan_dialects::{Dialect, Registration};
use tokio::task::AbortHandle;

use crate::{
    Error, Instance, Subscription,
    cache::Cache,
    directory::{Directory, wait_first},
    kept::{self, KeptFile},
};
use api::Pods;
use writer::Writer;

pub use settings::Builder;
pub use writer::Registered;

/// How long [`Registry::subscribe`] waits for the first listing while the API
/// cannot be reached: as long as the API server's restart on a small machine.
const FIRST_LISTING_WITHIN: Duration = Duration::from_secs(30);

/// The same where something is known from before the start: an API that is there has answered by
/// then.
pub(crate) const FIRST_BEFORE_KEPT_WITHIN: Duration = Duration::from_secs(2);

/// The registry of one namespace. Cheap to clone; one per process is enough.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    namespace: String,
    pod: Option<String>,
    pods: Pods,
    dialects: Vec<Dialect>,
    writer: Option<Arc<Writer>>,
    feed: Mutex<Weak<Feed>>,
    kept: Option<KeptFile>,
}

/// The one watch of a registry; it ends with the last subscription.
struct Feed {
    directory: Arc<Directory>,
    task: AbortHandle,
    keeper: Option<AbortHandle>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("namespace", &self.inner.namespace)
            .field("pod", &self.inner.pod)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// Settings; what is not set comes from the environment.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The registry that the environment describes, as [`Builder`] tells.
    pub async fn from_env() -> Result<Self, Error> {
        Self::builder().build().await
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.inner.namespace
    }

    /// The Pod that the process runs in, where that is known.
    pub fn pod(&self) -> Option<&str> {
        self.inner.pod.as_deref()
    }

    /// Registers a service of this process on its Pod: first the label, by which
    /// Pods are found, then the annotation. Register once the process listens.
    ///
    /// What others wrote on the Pod stays. A service that was registered before
    /// at the same address (by this process before its restart) is replaced.
    pub async fn register(&self, service: Registration) -> Result<Registered, Error> {
        self.register_all([service]).await
    }

    /// Registers several services in one write.
    pub async fn register_all(
        &self,
        services: impl IntoIterator<Item = Registration>,
    ) -> Result<Registered, Error> {
        let writer = self.inner.writer.clone().ok_or(Error::PodUnknown)?;
        Registered::new(writer, services.into_iter().collect()).await
    }

    /// The instances of an interface, asked of the API now. To follow them,
    /// and for anything that is called often, [`subscribe`](Self::subscribe).
    pub async fn list(&self, interface: &str) -> Result<Vec<Arc<Instance>>, Error> {
        let (_, pods) =
            self.inner.pods.list().await.map_err(|failure| failure.into_error("list Pods"))?;
        let mut cache = Cache::new(self.inner.dialects.clone());
        cache.replace(&pods);
        Ok(cache.instances(interface))
    }

    /// Follows the instances of an interface. Returns when they are known, so
    /// that the first [`current`](Subscription::current) is complete.
    ///
    /// A refusal (401, 403, 404) fails at once; an API that cannot be reached
    /// is tried for half a minute, unless [`Builder::keep_in`] has what was known before. After
    /// that the subscription never fails: it keeps the last good state and says that it is
    /// degraded.
    pub async fn subscribe(&self, interface: &str) -> Result<Subscription, Error> {
        let feed = self.feed();
        let mut receiver = feed.directory.subscribe(interface);
        let kept = feed.directory.has_begun_with(interface);
        let within = if kept { FIRST_BEFORE_KEPT_WITHIN } else { FIRST_LISTING_WITHIN };
        let first =
            wait_first(&feed.directory, "list Pods", within, |failure| kept || failure.is_final());
        match first.await {
            // Refused is not unreachable: nothing that was kept makes up for a permission.
            Err(error) if !kept || error.is_final() => return Err(error),
            _ => {}
        }
        // The first listing is where the caller begins, not a change.
        receiver.mark_unchanged();
        Ok(Subscription::new(interface, receiver, feed as Arc<dyn Any + Send + Sync>))
    }

    /// The running watch, or a new one.
    fn feed(&self) -> Arc<Feed> {
        let mut slot = self.inner.feed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = slot.upgrade()
            && !feed.task.is_finished()
        {
            return feed;
        }
        let directory = Arc::new(Directory::new(Cache::new(self.inner.dialects.clone())));
        let keeper = kept::start(self.inner.kept.as_ref(), &directory);
        let following = follow::follow(self.inner.pods.clone(), directory.clone());
        let task = tokio::spawn(following).abort_handle();
        let feed = Arc::new(Feed { directory, task, keeper });
        *slot = Arc::downgrade(&feed);
        feed
    }
}
