//! One stream for all services that a process asked for.
//!
//! ```text
//!   Wanted (names, generation) ──▶ GET /v1/watch?service=...&changes=true
//!      ▲ add                          │ reset, upsert, change, remove ... synced
//!      │                              ▼
//!   subscribe()                 Pending ── one change per `synced` ──▶ Directory
//! ```
//!
//! A stream that breaks is taken up again from the last version that was whole. When a service is
//! added a new stream begins, whose first state has all of them, and which leaves out those that
//! nobody subscribes to any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use portolan_model::Origin;
use portolan_runtime::Backoff;
use portolan_wire::{self as wire, WatchEvent};
use tokio::{sync::watch, time::sleep};

use super::http::{Http, Told};
use crate::{
    Instance,
    cache::{Cache, Changed},
    directory::{Directory, End, Failure},
    feed::{PAUSE_FIRST, PAUSE_MAX},
};

/// Subscriptions that are made together go into one stream.
const GATHERING: Duration = Duration::from_millis(5);

/// A service as the HTTP API takes and this crate keeps it.
pub(super) fn service(namespace: &str, interface: &str) -> String {
    format!("{}:{namespace}/{interface}", Origin::REGISTRY)
}

/// Which services are asked for, and how far that has been answered.
#[derive(Clone, Debug)]
pub(super) struct Wanted(Arc<Names>);

#[derive(Debug)]
struct Names {
    services: Mutex<BTreeSet<String>>,
    /// Grows with each service that is added.
    asked: watch::Sender<u64>,
    /// The newest that a whole state has come for.
    told: watch::Sender<u64>,
}

impl Default for Wanted {
    fn default() -> Self {
        let (asked, told) = (watch::Sender::new(0), watch::Sender::new(0));
        Self(Arc::new(Names { services: Mutex::default(), asked, told }))
    }
}

impl Wanted {
    /// Asks for a service; the generation that will have it.
    pub(super) fn add(&self, service: &str) -> u64 {
        let mut services = self.0.services.lock().unwrap_or_else(PoisonError::into_inner);
        if services.insert(service.to_owned()) {
            self.0.asked.send_modify(|generation| *generation += 1);
        }
        *self.0.asked.borrow()
    }

    /// Waits until a generation has been told.
    pub(super) async fn told(&self, generation: u64) {
        // The sender is held by `self`: this does not end early.
        self.0.told.subscribe().wait_for(|told| *told >= generation).await.ok();
    }

    /// What is wanted now. Services that nobody subscribes to any more are let go.
    fn now(&self, directory: &Directory) -> (u64, Vec<String>) {
        let mut services = self.0.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.retain(|service| !directory.forget(service));
        (*self.0.asked.borrow(), services.iter().cloned().collect())
    }

    async fn is_more_than(&self, generation: u64) {
        self.0.asked.subscribe().wait_for(|asked| *asked > generation).await.ok();
    }
}

/// Follows what is wanted until the task is aborted.
pub(super) async fn follow(http: Http, directory: Arc<Directory>, wanted: Wanted) {
    let end = End(directory);
    let directory = &*end.0;
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    let mut held: Option<(u64, String)> = None;
    loop {
        wanted.is_more_than(0).await;
        sleep(GATHERING).await;
        let (generation, services) = wanted.now(directory);
        if services.is_empty() {
            // Asking for none would be asking for all.
            wanted.is_more_than(generation).await;
            continue;
        }
        // Whoever asks for more has not been told the rest at that version.
        let version = held.take().filter(|(of, _)| *of == generation).map(|(_, version)| version);
        let mut stream = Stream { directory, wanted: &wanted, generation, services, version };
        let outcome = tokio::select! {
            outcome = stream.run(&http, &mut backoff) => outcome,
            () = wanted.is_more_than(generation) => continue,
        };
        held = stream.version.map(|version| (generation, version));
        if let Err(failure) = outcome {
            tracing::debug!(?failure, "the server cannot be followed; the last good state stays");
            directory.lose(&failure);
        }
        sleep(backoff.next_pause()).await;
    }
}

struct Stream<'a> {
    directory: &'a Directory,
    wanted: &'a Wanted,
    generation: u64,
    services: Vec<String>,
    /// The last that was told whole.
    version: Option<String>,
}

impl Stream<'_> {
    /// Reads until the stream ends.
    async fn run(&mut self, http: &Http, backoff: &mut Backoff) -> Result<(), Failure> {
        let services = self.services.iter().map(|service| ("service", service.as_str()));
        let version = self.version.iter().map(|version| ("version", version.as_str()));
        let query = services.chain(version).chain([("changes", "true"), ("brief", "true")]);
        let mut events = http.watch(query).await?;
        let mut pending = Pending::default();
        if self.version.is_some() {
            // Nothing was missed that is still to come.
            self.directory.alive();
        }
        while let Some(told) = events.next().await? {
            let Told::Event(event) = told else {
                // Half a step is no state to be confirmed.
                if pending.is_empty() && self.version.is_some() {
                    self.directory.alive();
                }
                continue;
            };
            if let WatchEvent::Synced { version } = &*event {
                self.version = Some(version.clone());
                self.take(mem::take(&mut pending));
                backoff.reset();
            } else {
                pending.take(*event);
            }
        }
        Ok(())
    }

    /// One whole step has come.
    fn take(&self, pending: Pending) {
        let services = &self.services;
        if pending.anew {
            self.directory.complete(|cache| pending.replace(cache, services));
            self.wanted.0.told.send_replace(self.generation);
        } else {
            self.directory.apply(|cache| pending.apply(cache));
        }
    }
}

/// What has come since the last `synced`.
#[derive(Default)]
struct Pending {
    /// It is the whole state.
    anew: bool,
    steps: Vec<Step>,
}

enum Step {
    Whole(String, Vec<Instance>),
    Part { service: String, put: Vec<Instance>, gone: Vec<Instance> },
}

impl Pending {
    fn is_empty(&self) -> bool {
        !self.anew && self.steps.is_empty()
    }

    fn take(&mut self, event: WatchEvent) {
        let key =
            |origin: &str, namespace: &str, name: &str| format!("{origin}:{namespace}/{name}");
        match event {
            WatchEvent::Reset { .. } => *self = Self { anew: true, steps: Vec::new() },
            WatchEvent::Upsert { service, instances, .. } => {
                let service = key(&service.origin, &service.namespace, &service.name);
                self.steps.push(Step::Whole(service, read(instances)));
            }
            WatchEvent::Change { origin, namespace, name, put, gone, .. } => {
                let service = key(&origin, &namespace, &name);
                self.steps.push(Step::Part { service, put: read(put), gone: read(gone) });
            }
            WatchEvent::Remove { origin, namespace, name, .. } => {
                self.steps.push(Step::Whole(key(&origin, &namespace, &name), Vec::new()));
            }
            WatchEvent::Synced { .. } => {}
        }
    }

    /// The whole state: what is not in it is gone.
    fn replace(self, cache: &mut Cache, services: &[String]) -> Changed {
        let mut all: BTreeMap<&str, Vec<Instance>> =
            services.iter().map(|service| (service.as_str(), Vec::new())).collect();
        for step in self.steps {
            if let Step::Whole(service, instances) = step
                && let Some(slot) = all.get_mut(service.as_str())
            {
                *slot = instances;
            }
        }
        let set = all.into_iter();
        set.filter_map(|(service, now)| cache.set(service, now).then(|| service.to_owned()))
            .collect()
    }

    fn apply(self, cache: &mut Cache) -> Changed {
        let mut changed = Changed::new();
        for step in self.steps {
            let (service, is_other) = match step {
                Step::Whole(service, instances) => {
                    let is_other = cache.set(&service, instances);
                    (service, is_other)
                }
                Step::Part { service, put, gone } => {
                    let is_other = cache.change(&service, put, &gone);
                    (service, is_other)
                }
            };
            if is_other {
                changed.insert(service);
            }
        }
        changed
    }
}

/// What is no address, or has no port, cannot be called; the server told of it all the same.
fn read(all: Vec<wire::Instance>) -> Vec<Instance> {
    all.into_iter().filter_map(Instance::from_wire).collect()
}
