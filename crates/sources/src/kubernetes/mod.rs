//! Kubernetes as a source: the API's objects, and the registry on Pods.
//!
//! One task per kind (and per namespace, where those are narrowed) lists and
//! then watches; all begin at once, each on a connection of its own. Pods are
//! watched once and heard twice: as workloads (source `kubernetes`, part
//! `pods`) and as registrations (source `pods`, part `registrations`).

mod api;
mod connect;
mod convert;
mod kinds;
mod last_known;
mod objects;
mod reflector;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

pub use connect::{Client, ConnectError, connect};
use portolan_dialects::Dialect;
use portolan_model::{Name, SourceId};
use portolan_runtime::{Clock, Tasks};

use self::{
    kinds::{Context, Kind, Voice},
    last_known::LastKnown,
    reflector::{Reflector, Upkeep},
};
use crate::Sink;

/// Which kinds are watched. Watch only what the chosen roles need: every kind
/// costs the API server a connection and the events of all its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds {
    /// Namespaces.
    pub namespaces: bool,
    /// Services.
    pub services: bool,
    /// ServiceImports: only where the API has them (multicluster.x-k8s.io), as a
    /// kind that cannot be listed keeps everything else from being complete.
    pub service_imports: bool,
    /// EndpointSlices.
    pub endpoint_slices: bool,
    /// Pods as workloads: they explain endpoints and name clients.
    pub pods: bool,
    /// Nodes.
    pub nodes: bool,
    /// What processes registered on their Pods.
    pub registrations: bool,
}

impl Kinds {
    /// Everything that every cluster has.
    pub const ALL: Self = Self {
        namespaces: true,
        services: true,
        service_imports: false,
        endpoint_slices: true,
        pods: true,
        nodes: true,
        registrations: true,
    };
    /// Nothing; to add to.
    pub const NONE: Self = Self {
        namespaces: false,
        services: false,
        service_imports: false,
        endpoint_slices: false,
        pods: false,
        nodes: false,
        registrations: false,
    };
}

/// What to watch, and how.
#[derive(Clone)]
pub struct Config {
    /// The API.
    pub client: Client,
    /// Which kinds.
    pub kinds: Kinds,
    /// Only these namespaces; empty for all. Namespaces and Nodes are cluster
    /// scoped and always watched whole.
    pub namespaces: Vec<String>,
    /// How to read what processes wrote on their Pods.
    pub dialects: Vec<Dialect>,
    /// A folder for what was listed last, which is told again at a start without an API.
    /// It belongs to this API alone.
    pub last_known: Option<PathBuf>,
    /// How often what is held is compared with what the API holds at the same revision,
    /// at the ends of watches (every five minutes or so).
    pub verify_every: Duration,
}

/// How often what is held is compared with the API: a gap in a watch is rare, and must
/// not stay for ever.
const VERIFY_EVERY: Duration = Duration::from_secs(10 * 60);

impl Config {
    /// Everything of an API, in all dialects.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            kinds: Kinds::ALL,
            namespaces: Vec::new(),
            dialects: Dialect::all(),
            last_known: None,
            verify_every: VERIFY_EVERY,
        }
    }
}

/// The sources that [`start`] will be, with the parts that each will list: for
/// `Catalog::expect`, so that nothing is taken for complete too early.
pub fn parts(config: &Config) -> Vec<(SourceId, Vec<Name>)> {
    let mut sources: BTreeMap<SourceId, Vec<Name>> = BTreeMap::new();
    let mut add = |speakers: Vec<Speaker>| {
        for speaker in speakers {
            sources.entry(speaker.source).or_default().push(speaker.part);
        }
    };
    let kinds = &config.kinds;
    if kinds.namespaces {
        add(speakers::<objects::Namespace>(config, None));
    }
    if kinds.nodes {
        add(speakers::<objects::Node>(config, None));
    }
    for namespace in scopes(config) {
        if kinds.services {
            add(speakers::<objects::Service>(config, namespace));
        }
        if kinds.service_imports {
            add(speakers::<objects::ServiceImport>(config, namespace));
        }
        if kinds.endpoint_slices {
            add(speakers::<objects::EndpointSlice>(config, namespace));
        }
        if kinds.pods || kinds.registrations {
            add(speakers::<objects::Pod>(config, namespace));
        }
    }
    sources.into_iter().collect()
}

/// Starts all lists and watches at once. They end with the tasks' shutdown.
pub fn start(config: Config, sink: &Sink, clock: &Arc<dyn Clock>, tasks: &Tasks) {
    let kinds = config.kinds;
    let starter = Starter { config: &config, sink, clock, tasks };
    // What answers need first comes first: connections are accepted in order.
    for namespace in scopes(&config) {
        if kinds.services {
            starter.spawn::<objects::Service>("watch services", namespace, None);
        }
        if kinds.service_imports {
            starter.spawn::<objects::ServiceImport>("watch serviceimports", namespace, None);
        }
        if kinds.endpoint_slices {
            starter.spawn::<objects::EndpointSlice>("watch endpointslices", namespace, None);
        }
        if kinds.pods || kinds.registrations {
            starter.spawn::<objects::Pod>("watch pods", namespace, pod_selector(&config));
        }
    }
    if kinds.namespaces {
        starter.spawn::<objects::Namespace>("watch namespaces", None, None);
    }
    if kinds.nodes {
        starter.spawn::<objects::Node>("watch nodes", None, None);
    }
}

struct Starter<'a> {
    config: &'a Config,
    sink: &'a Sink,
    clock: &'a Arc<dyn Clock>,
    tasks: &'a Tasks,
}

impl Starter<'_> {
    fn spawn<K: Kind>(
        &self,
        task: &'static str,
        namespace: Option<&str>,
        selector: Option<String>,
    ) {
        let context = Context {
            workloads: self.config.kinds.pods,
            registrations: self.config.kinds.registrations,
            dialects: self.config.dialects.clone(),
        };
        let part = match namespace {
            Some(namespace) => format!("{}/{namespace}", K::PLURAL),
            None => K::PLURAL.to_owned(),
        };
        let folder = self.config.last_known.as_deref();
        let upkeep = Upkeep {
            last_known: folder.map(|folder| LastKnown::new(folder, &part)),
            verify_every: self.config.verify_every,
        };
        let reflector = Reflector::<K>::new(
            api::Resource::new(self.config.client.clone(), &K::path(namespace), selector),
            context,
            speakers::<K>(self.config, namespace),
            self.sink.clone(),
            self.clock.clone(),
            upkeep,
        );
        let shutdown = self.tasks.shutdown().clone();
        self.tasks.spawn(task, async move {
            // Every step of a reflector may be abandoned: the next start lists anew.
            shutdown.run_until_cancelled(reflector.run()).await;
        });
    }
}

/// Under which name a kind speaks.
#[derive(Clone, Debug)]
struct Speaker {
    voice: Voice,
    source: SourceId,
    part: Name,
}

fn speakers<K: Kind>(config: &Config, namespace: Option<&str>) -> Vec<Speaker> {
    K::VOICES
        .iter()
        .filter(|voice| match voice {
            Voice::Registrations => config.kinds.registrations,
            Voice::Objects if K::VOICES.len() > 1 => config.kinds.pods,
            Voice::Objects => true,
        })
        .map(|voice| {
            let (source, part) = match voice {
                Voice::Objects => ("kubernetes", K::PLURAL),
                Voice::Registrations => ("pods", "registrations"),
            };
            // Each namespace is listed on its own, so each is a part of its own.
            let part = match namespace {
                Some(namespace) => format!("{part}/{namespace}"),
                None => part.to_owned(),
            };
            Speaker {
                voice: *voice,
                source: SourceId::new(source),
                part: portolan_model::name(&part),
            }
        })
        .collect()
}

fn scopes(config: &Config) -> Vec<Option<&str>> {
    if config.namespaces.is_empty() {
        vec![None]
    } else {
        config.namespaces.iter().map(|namespace| Some(namespace.as_str())).collect()
    }
}

/// Where only registrations of one dialect are wanted, the API server leaves
/// out the Pods that cannot carry any.
fn pod_selector(config: &Config) -> Option<String> {
    match &config.dialects[..] {
        [only] if !config.kinds.pods => only.selector(),
        _ => None,
    }
}
