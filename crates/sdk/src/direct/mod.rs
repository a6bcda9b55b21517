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

use std::{any::Any, sync::Arc};

use portolan_dialects::{Dialect, Registration};

use crate::{
    Error, Instance, Subscription,
    cache::Cache,
    directory::{Failure, wait_first},
    feed::{Feed, Patience, Slot},
    kept::KeptFile,
};
use api::Pods;
use writer::Writer;

pub use settings::Builder;
pub use writer::Registered;

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
    feed: Slot<()>,
    kept: Option<KeptFile>,
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

    /// The same registry, writing natively as an owner ([`Builder::owner`]) whose life begins now:
    /// for a process that registers for others, whose records each have an owner and a life of
    /// their own. What it registers replaces what the owner has on the Pod.
    ///
    /// # Errors
    ///
    /// When the own Pod is not known, or the name is none of an owner.
    pub fn as_owner(&self, owner: &str) -> Result<Self, Error> {
        let before = self.inner.writer.as_deref().ok_or(Error::PodUnknown)?;
        let Inner { namespace, pod, pods, dialects, .. } = &*self.inner;
        let writer = before.as_owner(settings::owner(owner)?);
        let inner = Inner {
            namespace: namespace.clone(),
            pod: pod.clone(),
            pods: pods.clone(),
            dialects: dialects.clone(),
            writer: Some(Arc::new(writer)),
            feed: Slot::default(),
            kept: None,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes back what the owner of this registry has on its Pod from an earlier life; with a list
    /// dialect there is nothing that could be told to be its own. That the Pod is gone is no error.
    ///
    /// # Errors
    ///
    /// When the own Pod is not known, or the API cannot be reached or refuses.
    pub async fn withdraw(&self) -> Result<(), Error> {
        let writer = self.inner.writer.as_deref().ok_or(Error::PodUnknown)?;
        writer.withdraw().await
    }

    /// The interfaces that are registered in the namespace, asked of the API now, in order.
    ///
    /// # Errors
    ///
    /// When the API cannot be reached or refuses.
    pub async fn interfaces(&self) -> Result<Vec<String>, Error> {
        Ok(self.listed().await?.interfaces())
    }

    async fn listed(&self) -> Result<Cache, Error> {
        let (_, pods) =
            self.inner.pods.list().await.map_err(|failure| failure.into_error("list Pods"))?;
        let mut cache = Cache::new(self.inner.dialects.clone());
        cache.replace(&pods);
        Ok(cache)
    }

    /// The instances of an interface, asked of the API now. To follow them,
    /// and for anything that is called often, [`subscribe`](Self::subscribe).
    pub async fn list(&self, interface: &str) -> Result<Vec<Arc<Instance>>, Error> {
        Ok(self.listed().await?.instances(interface))
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
        let patience = Patience::with(&feed.directory, interface);
        let gives_up = |failure: &Failure| patience.kept || failure.is_final();
        patience
            .accept(wait_first(&feed.directory, "list Pods", patience.within, gives_up).await)?;
        // The first listing is where the caller begins, not a change.
        receiver.mark_unchanged();
        Ok(Subscription::new(interface, receiver, feed as Arc<dyn Any + Send + Sync>))
    }

    fn feed(&self) -> Arc<Feed<()>> {
        let Inner { dialects, pods, kept, .. } = &*self.inner;
        let cache = || Cache::new(dialects.clone());
        self.inner
            .feed
            .feed(cache, kept.as_ref(), |directory, ()| follow::follow(pods.clone(), directory))
    }
}
