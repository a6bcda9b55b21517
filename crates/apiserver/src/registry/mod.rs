//! One generic implementation of every verb on every kind.
//!
//! ```text
//! create/update/patch/delete: parse ─▶ prepare ─▶ default ─▶ validate ─▶ allocate ─▶ encode ─▶ store
//! get/list/watch:             store ─▶ bytes (or parsed, for callers in this process)
//! ```
//!
//! The registry is the in-process door: controllers, the kubelet and the HTTP
//! handlers call the same functions, so that nothing in the process can store
//! what a client could not. What differs between kinds is data in
//! [`crate::kinds`], rules in [`rules`], and, for Services, the allocation of
//! addresses and ports ([`service`], [`allocators`]). Concurrency is optimistic:
//! a write names the revision that it replaces, and a patch that lost the race
//! is computed again on what won.

pub mod access;
mod addresses;
mod admission;
pub mod allocators;
mod caller;
mod commit;
mod create;
mod delete;
mod events;
mod fields;
mod label_syntax;
pub mod object;
mod patch;
mod pods;
mod rbac;
mod rules;
mod scale;
pub mod selection;
mod service;
mod sessions;
mod tokens;
mod update;

use std::{
    collections::{BTreeSet, HashMap},
    ops::RangeInclusive,
    sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock},
};

use portolan_runtime::{Clock, SystemClock};
use serde_json::Value;

use self::allocators::Allocators;
pub use self::{
    access::{Action, Decision},
    allocators::Cidr,
    caller::{BoundPod, Caller, EXTRA_POD_NAME, EXTRA_POD_UID, MASTERS},
    delete::{DeleteOptions, Deleted, Preconditions, Propagation},
    patch::Patch,
    pods::{LogOptions, LogStream, PodLogs},
    selection::{FieldSelector, LabelSelector},
    sessions::{Connection, Input, Output, PodSessions, Session, SessionOptions, TerminalSize},
    tokens::{ISSUER, TOKEN_SECONDS_MAX, TOKEN_SECONDS_MIN, TokenSubject, Tokens},
};
pub(crate) use self::{
    create::check_place,
    rules::{SCHEME, TEMPLATE_GENERATION, read_as},
};
use crate::{
    Kind, Status, kinds,
    store::{Key, Record, Store, Watcher},
};

/// NodePorts that Services get (kube-apiserver `--service-node-port-range`).
pub const NODE_PORTS_DEFAULT: RangeInclusive<u16> = 30_000..=32_767;

/// What the registry needs to know about its cluster.
#[derive(Clone)]
pub struct Options {
    /// Ranges of Service addresses: one, or one per family; the first is the default family.
    pub service_cidrs: Vec<Cidr>,
    /// Range of NodePorts.
    pub node_ports: RangeInclusive<u16>,
    /// Pod ranges; endpoints in them are exempt from the loopback rule of validation.
    pub pod_cidrs: Vec<Cidr>,
    /// Tells the time of `creationTimestamp` and `deletionTimestamp`.
    pub clock: Arc<dyn Clock>,
    /// Secret that signs the tokens of ServiceAccounts; `None` makes one that lives as long as
    /// the process.
    pub token_key: Option<Vec<u8>>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            service_cidrs: Vec::new(),
            node_ports: NODE_PORTS_DEFAULT,
            pod_cidrs: Vec::new(),
            clock: Arc::new(SystemClock),
            token_key: None,
        }
    }
}

/// Parts of an object with rules of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subresource {
    /// `status`: only the status changes.
    Status,
    /// `scale`: only `spec.replicas`, shown as an `autoscaling/v1` Scale.
    Scale,
    /// `finalize` of a Namespace: only `spec.finalizers`.
    Finalize,
    /// `ephemeralcontainers` of a Pod.
    EphemeralContainers,
    /// `resize` of a Pod.
    Resize,
}

impl Subresource {
    /// Its name in URLs.
    pub fn name(self) -> &'static str {
        match self {
            Subresource::Status => "status",
            Subresource::Scale => "scale",
            Subresource::Finalize => "finalize",
            Subresource::EphemeralContainers => "ephemeralcontainers",
            Subresource::Resize => "resize",
        }
    }
}

/// What to do about fields that the kind does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    #[default]
    Ignore,
    /// Drop them and warn.
    Warn,
    /// Refuse the request.
    Strict,
}

/// Parameters of create, update and patch.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Do everything but store.
    pub dry_run: bool,
    /// Who owns the fields that this write sets.
    pub field_manager: Option<String>,
    /// Take over fields that other managers own (apply only).
    pub force: bool,
    /// What to do about unknown fields.
    pub field_validation: FieldValidation,
    /// Fields that the body names twice, each as `duplicate field "spec.a"`; treated as unknown
    /// fields are.
    pub duplicate_fields: Vec<String>,
}

/// The outcome of a write.
#[derive(Debug)]
pub struct Written {
    /// The object as stored (or as it would be, for a dry run).
    pub object: Value,
    /// What is stored; `None` for a dry run.
    pub record: Option<Arc<Record>>,
    /// Whether the write made a new object.
    pub created: bool,
    /// What the client should hear although the write went through.
    pub warnings: Vec<String>,
}

impl Written {
    fn new(object: Value, record: Option<Arc<Record>>, created: bool) -> Written {
        Written { object, record, created, warnings: Vec::new() }
    }

    /// The same outcome, told after these warnings.
    fn after(mut self, warnings: Vec<String>) -> Written {
        self.warnings.splice(0..0, warnings);
        self
    }
}

/// A handle on the one registry of a process; clones are cheap.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    options: Options,
    allocators: Arc<Allocators>,
    /// Nodes whose Pods end gracefully, because something in this process stops them.
    agents: RwLock<BTreeSet<String>>,
    pod_logs: OnceLock<Arc<dyn PodLogs>>,
    pod_sessions: OnceLock<Arc<dyn PodSessions>>,
    tokens: Tokens,
}

impl Registry {
    /// A registry over a store. What Services hold is read out of the store once, here.
    pub fn new(store: Store, options: Options) -> Registry {
        let tokens = match &options.token_key {
            Some(key) => Tokens::new(key),
            None => Tokens::new(&rand::random::<[u8; 32]>()),
        };
        let allocators =
            Arc::new(Allocators::new(&options.service_cidrs, options.node_ports.clone()));
        let registry = Registry {
            inner: Arc::new(Inner {
                store,
                options,
                allocators,
                agents: RwLock::default(),
                pod_logs: OnceLock::new(),
                pod_sessions: OnceLock::new(),
                tokens,
            }),
        };
        for service in registry.list(&kinds::SERVICES, None).1 {
            registry.inner.allocators.adopt(&service::holdings(&service));
        }
        registry
    }

    /// The store beneath.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// What it was started with.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// The addresses and ports that Services hold.
    pub fn allocators(&self) -> &Allocators {
        &self.inner.allocators
    }

    /// Says that a kubelet of this process acts on the Pods of a node: they end gracefully.
    /// Pods elsewhere are removed at once when they are deleted.
    pub fn add_node_agent(&self, node: &str) {
        let mut agents = self.inner.agents.write().unwrap_or_else(PoisonError::into_inner);
        agents.insert(node.to_owned());
    }

    pub(crate) fn has_node_agent(&self, node: &str) -> bool {
        self.inner.agents.read().unwrap_or_else(PoisonError::into_inner).contains(node)
    }

    /// Who answers `kubectl logs`. The first caller stays.
    pub fn set_pod_logs(&self, logs: Arc<dyn PodLogs>) {
        if self.inner.pod_logs.set(logs).is_err() {
            tracing::warn!("pod logs are answered already");
        }
    }

    /// Who answers `kubectl logs`, if anybody.
    pub fn pod_logs(&self) -> Option<&Arc<dyn PodLogs>> {
        self.inner.pod_logs.get()
    }

    /// Who answers `kubectl exec`, `attach` and `port-forward`. The first caller stays.
    pub fn set_pod_sessions(&self, sessions: Arc<dyn PodSessions>) {
        if self.inner.pod_sessions.set(sessions).is_err() {
            tracing::warn!("sessions in Pods are answered already");
        }
    }

    /// Who answers `kubectl exec`, `attach` and `port-forward`, if anybody.
    pub fn pod_sessions(&self) -> Option<&Arc<dyn PodSessions>> {
        self.inner.pod_sessions.get()
    }

    fn now_unix_seconds(&self) -> u64 {
        self.inner.options.clock.unix_ms() / 1_000
    }

    fn now(&self) -> String {
        object::timestamp(self.now_unix_seconds())
    }

    /// One object, as stored.
    pub fn get_record(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Record>, Status> {
        self.inner
            .store
            .get(&key(kind, namespace, name))
            .ok_or_else(|| Status::not_found(kind, name))
    }

    /// One object.
    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Value, Status> {
        object::parse(&*self.get_record(kind, namespace, name)?)
    }

    /// All objects of a kind, or those of one namespace, and the revision at which they were so.
    pub fn list(&self, kind: &Kind, namespace: Option<&str>) -> (u64, Vec<Value>) {
        match self.inner.store.list(kind.resource, namespace, None, None, None) {
            Ok(listing) => {
                let items = listing.items.iter().filter_map(|r| match object::parse(r) {
                    Ok(object) => Some(object),
                    Err(status) => {
                        tracing::error!(key = %r.key, %status, "object left out of a list");
                        None
                    }
                });
                (listing.revision, items.collect())
            }
            // A list of the present needs no history.
            Err(compacted) => (compacted.current, Vec::new()),
        }
    }

    /// Every change of a kind after a revision: with [`Registry::list`], without a gap.
    pub fn watch(&self, kind: &Kind, since: u64) -> Result<Watcher, Status> {
        self.inner.store.watch(kind.resource, since).map_err(|c| {
            Status::expired(format!("too old resource version: {} ({})", since, c.oldest))
        })
    }
}

/// The store's name of an object.
pub fn key(kind: &Kind, namespace: &str, name: &str) -> Key {
    // One shared name per resource, so that a lookup does not copy it.
    static RESOURCES: LazyLock<HashMap<&'static str, Arc<str>>> =
        LazyLock::new(|| kinds::ALL.iter().map(|k| (k.resource, Arc::from(k.resource))).collect());
    let resource = RESOURCES.get(kind.resource).cloned().unwrap_or_else(|| kind.resource.into());
    let namespace = if kind.namespaced { namespace } else { "" };
    Key { resource, namespace: namespace.into(), name: name.into() }
}
