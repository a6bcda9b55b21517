//! Discovery through a Portolan server, in place of watching all Pods.
//!
//! ```text
//!   Discovery ── services, service, instances ──▶ GET /v1/services, /v1/instances
//!      │ subscribe ─────▶ Follower ── one GET /v1/watch for all services ──▶ Directory ──▶ Subscription
//!      └ events, on_change ──────────── GET /v1/watch of whatever is asked for
//! ```
//!
//! The server watches the Pods once, for everybody; a process is told what changes of the services
//! that it asked for, and nothing else. It needs no permission in the cluster.

mod events;
mod follow;
mod http;

use std::{any::Any, fmt, sync::Arc};

use portolan_wire::{Instance, Page, Service};
use tokio::{task::AbortHandle, time::timeout};

pub use self::events::{Changes, Event};
use self::{follow::Wanted, http::Http};
use crate::{
    Error, Subscription,
    cache::Cache,
    directory::{Failure, wait_first},
    feed::{Feed, Patience, Slot},
    kept::KeptFile,
};

/// A client of a Portolan server. Cheap to clone; one per process is enough.
///
/// ```no_run
/// # async fn find() -> Result<(), portolan_sdk::Error> {
/// use portolan_sdk::{Balancer, Discovery, InstanceQuery};
///
/// let discovery = Discovery::connect("http://127.0.0.1:8500")?;
/// // Once: what is there now.
/// let query = InstanceQuery { port: Some("http".into()), ..InstanceQuery::of_host("reviews.demo.svc.cluster.local") };
/// for instance in discovery.instances(&query).await? {
///     println!("{} {}", instance.address, instance.state);
/// }
/// // For every call: a subscription, and a balancer over it.
/// let reviews = Balancer::new(discovery.subscribe("demo", "reviews").await?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Discovery {
    inner: Arc<Inner>,
}

struct Inner {
    http: Http,
    kept: Option<KeptFile>,
    /// One stream for all subscriptions.
    feed: Slot<Wanted>,
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery")
            .field("server", &self.inner.http.server())
            .finish_non_exhaustive()
    }
}

/// Which services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceQuery {
    /// Where they are known from: `kubernetes`, `registry`, or a configured name.
    pub origin: Option<String>,
    /// Their namespace.
    pub namespace: Option<String>,
    /// A label selector over labels of services, as kubectl's `-l`.
    pub labels: Option<String>,
}

/// Which instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceQuery {
    /// Of the service with this name in DNS.
    pub host: Option<String>,
    /// Of the service `[ORIGIN:][NAMESPACE/]NAME`.
    pub service: Option<String>,
    /// At this port of the service, by number or name; its instances' own where it has none.
    pub port: Option<String>,
    /// Only those with these labels: a selector over the labels of the Pod and what the process
    /// says of itself (`version=v2`), whose word comes first.
    pub labels: Option<String>,
    /// Only those that run on this node.
    pub node: Option<String>,
}

impl InstanceQuery {
    /// All instances of a service, by its name in DNS.
    pub fn of_host(host: impl Into<String>) -> Self {
        Self { host: Some(host.into()), ..Self::default() }
    }

    /// All instances on a node: those that are beside a proxy there.
    pub fn on_node(node: impl Into<String>) -> Self {
        Self { node: Some(node.into()), ..Self::default() }
    }
}

impl Discovery {
    /// A client of the server at a URL such as `http://127.0.0.1:8500`. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// When the text is no URL of a server. The server listens in the clear and on loopback only,
    /// so `http` is what there is.
    pub fn connect(url: &str) -> Result<Self, Error> {
        Self::with(url, None)
    }

    /// The same, with a file for what subscriptions knew last: at a start without a server they
    /// begin with that, degraded and as old as it is. The file belongs to one process.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_with_file(
        url: &str,
        path: impl Into<std::path::PathBuf>,
    ) -> Result<Self, Error> {
        Self::with(url, Some(KeptFile::new(path.into(), url)))
    }

    fn with(url: &str, kept: Option<KeptFile>) -> Result<Self, Error> {
        let inner = Inner { http: Http::new(url)?, kept, feed: Slot::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Services.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, or refuses the question.
    pub async fn services(&self, query: &ServiceQuery) -> Result<Vec<Service>, Error> {
        let ServiceQuery { origin, namespace, labels } = query;
        let parameters = [("origin", origin), ("namespace", namespace), ("labels", labels)];
        self.items("/v1/services", &parameters).await
    }

    /// The service with a name in DNS, as `reviews.demo.svc.cluster.local`.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, or the name is none of a service.
    pub async fn service(&self, host: &str) -> Result<Option<Service>, Error> {
        let found = self.items("/v1/services", &[("host", &Some(host.to_owned()))]).await?;
        Ok(found.into_iter().next())
    }

    /// Instances: each endpoint on each of its ports, also those that take no calls.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, or refuses the question.
    pub async fn instances(&self, query: &InstanceQuery) -> Result<Vec<Instance>, Error> {
        let InstanceQuery { host, service, port, labels, node } = query;
        let parameters = [
            ("host", host),
            ("service", service),
            ("port", port),
            ("instanceLabels", labels),
            ("node", node),
        ];
        self.items("/v1/instances", &parameters).await
    }

    async fn items<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &Option<String>)],
    ) -> Result<Vec<T>, Error> {
        let given = parameters.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        let page: Page<T> = self.inner.http.get(path, given).await?;
        Ok(page.items)
    }

    /// What happens to services and their instances, in order, from now on; begins with all that
    /// is there.
    pub fn changes(&self, query: &ServiceQuery) -> Changes {
        Changes::new(self.inner.http.clone(), query.clone())
    }

    /// Calls back for each of these, in order and one at a time, until the guard is dropped. A call
    /// that takes long holds up the next ones, and nobody else: what changes meanwhile is told
    /// later, and told once.
    pub fn on_change(
        &self,
        query: &ServiceQuery,
        mut call: impl FnMut(Event) + Send + 'static,
    ) -> Watching {
        let mut changes = self.changes(query);
        let task = tokio::spawn(async move {
            loop {
                call(changes.next().await);
            }
        });
        Watching(task.abort_handle())
    }

    /// Follows the instances that registered a name (an interface) in a namespace. Returns when
    /// they are known; all subscriptions of a client share one stream.
    ///
    /// A server that cannot be reached is tried for half a minute, unless a file tells what was
    /// known last. After that the subscription never fails: it keeps the last good state and says
    /// that it is degraded.
    ///
    /// # Errors
    ///
    /// When the server is not reached in time and nothing is known from before, or it refuses.
    pub async fn subscribe(&self, namespace: &str, interface: &str) -> Result<Subscription, Error> {
        let service = follow::service(namespace, interface);
        let feed = self.feed();
        let mut receiver = feed.directory.subscribe(&service);
        let generation = feed.wanted.add(&service);
        let patience = Patience::with(&feed.directory, &service);
        let gives_up = |failure: &Failure| patience.kept || failure.is_final();
        let action = format!("follow services at {}", self.inner.http.server());
        let first = async {
            wait_first(&feed.directory, &action, patience.within, gives_up).await?;
            let told = timeout(patience.within, feed.wanted.told(generation)).await;
            told.map_err(|_| Error::Unreachable {
                action: action.clone(),
                detail: feed.directory.trouble().unwrap_or_else(|| "no answer in time".to_owned()),
            })
        };
        patience.accept(first.await)?;
        receiver.mark_unchanged();
        Ok(Subscription::new(interface, receiver, feed as Arc<dyn Any + Send + Sync>))
    }

    fn feed(&self) -> Arc<Feed<Wanted>> {
        let Inner { http, kept, feed } = &*self.inner;
        feed.feed(Cache::default, kept.as_ref(), |directory, wanted| {
            follow::follow(http.clone(), directory, wanted)
        })
    }
}

/// Calls go on until this is dropped.
#[must_use = "dropping it ends the calls"]
#[derive(Debug)]
pub struct Watching(AbortHandle);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}
