//! From the catalog to the store: what changed there is made anew here.
//!
//! ```text
//!   catalog --diff--> services, ports that differ --units--> generators --changes--> Store
//!                                                    |
//!                     shelves that somebody reads ---+
//! ```
//!
//! A unit is what one call of a generator makes: the resources of one service, or of
//! one port number that services share. A shelf remembers which names each of its
//! units made, so that what a unit makes no longer is taken away, whatever the reason.
//! Endpoints come and go all the time; they touch the units of their service on the
//! shelves of endpoints and no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};

use portolan_catalog::{Hub, ServiceEntry, Snapshot, Update, choose::depends_on_place};
use portolan_envoy_proto::{google::protobuf::Any, pack};
use portolan_model::{ClientView, Exposure, Name, ServiceKey, Version, name};
use tokio::sync::watch;

use crate::{
    Aliases, Backend,
    backend::{backends, shapes},
    endpoints, envoy, grpc,
    interest::Interests,
    names,
    protocol::Protocol,
    store::{Change, Resource, Shown, Store},
    view::{Shelf, View},
};

/// Shelves that are kept at most: 2,000 proxies with an address each, in as many
/// namespaces, on as many nodes.
pub const SHELVES_MAX: usize = 8_192;

/// Revisions whose catalog version is remembered. A client that is behind by more
/// counts as having nothing.
const MARKS_MAX: usize = 1_024;

/// Fills a store from the catalog, as far as somebody reads from it.
#[derive(Debug)]
pub struct Publisher {
    cluster_domain: String,
    content: Mutex<Content>,
    published: RwLock<Published>,
    /// Every source has told all it knows, once.
    synced: watch::Sender<bool>,
    pub(crate) interests: Interests,
}

/// What streams read.
#[derive(Debug)]
struct Published {
    store: Store,
    /// Which version of the catalog was whole at which revision, oldest first; the
    /// last one is the present.
    marks: BTreeMap<u64, Version>,
}

/// What the shelves are made from, and who reads from them.
#[derive(Debug)]
struct Content {
    snapshot: Arc<Snapshot>,
    services: BTreeMap<ServiceKey, Vec<Backend>>,
    ports: BTreeMap<u16, BTreeSet<ServiceKey>>,
    aliases: Aliases,
    shelves: BTreeMap<Shelf, Readers>,
}

#[derive(Debug, Default)]
struct Readers {
    count: usize,
    made: BTreeMap<Unit, BTreeSet<Name>>,
}

/// What is generated at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Service(ServiceKey),
    Port(u16),
}

/// There are too many different views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{SHELVES_MAX} different sets of resources are shown already; no other view is taken in")]
pub struct TooManyViews;

/// A reader of a view. What only it read from is thrown away with it.
#[derive(Debug)]
pub struct Reader {
    publisher: Arc<Publisher>,
    view: View,
}

impl Publisher {
    /// A publisher of an empty catalog.
    pub fn new(cluster_domain: &str, hub: &Hub) -> Arc<Self> {
        let first = hub.versions().first().map_or_else(|| hub.snapshot(), Arc::clone);
        let snapshot = Arc::new(Snapshot::empty(first.version()));
        let store = Store::default();
        let marks = [(store.revision(), snapshot.version())].into();
        Arc::new(Self {
            cluster_domain: cluster_domain.to_owned(),
            published: RwLock::new(Published { store, marks }),
            content: Mutex::new(Content {
                snapshot,
                services: BTreeMap::new(),
                ports: BTreeMap::new(),
                aliases: Aliases::default(),
                shelves: BTreeMap::new(),
            }),
            synced: watch::Sender::default(),
            interests: Interests::default(),
        })
    }

    /// Takes an update of the catalog in.
    pub fn update(&self, update: &Update) {
        let mut content = self.content();
        let changes = content.take(update, &self.cluster_domain);
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        let changed = published.store.commit(changes);
        let revision = published.store.revision();
        published.marks.insert(revision, content.snapshot.version());
        while published.marks.len() > MARKS_MAX {
            published.marks.pop_first();
        }
        drop(published);
        let synced = content.snapshot.is_synced();
        drop(content);
        self.synced.send_if_modified(|known| synced && !std::mem::replace(known, true));
        self.interests.wake(&changed);
    }

    /// Begins to read a view.
    pub fn read(self: &Arc<Self>, view: View) -> Result<Reader, TooManyViews> {
        let mut content = self.content();
        let shelves = view.shelves();
        let missing = shelves.iter().filter(|shelf| !content.shelves.contains_key(shelf)).count();
        if content.shelves.len() + missing > SHELVES_MAX {
            return Err(TooManyViews);
        }
        for shelf in shelves {
            if !content.shelves.contains_key(&shelf) {
                let made = content.open(&shelf, &self.cluster_domain);
                let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
                published.store.open(shelf.clone(), made);
            }
            content.shelves.entry(shelf).or_default().count += 1;
        }
        Ok(Reader { publisher: self.clone(), view })
    }

    /// Wakes once every source has told all it knows.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// The revision of the store.
    pub fn revision(&self) -> u64 {
        self.published().store.revision()
    }

    /// The newest version of the catalog that is shown whole at a revision. `None`: at
    /// this one nothing is, or it is too long ago.
    pub fn version_at(&self, revision: u64) -> Option<Version> {
        let published = self.published();
        // What came after the revision and changed nothing was taken in with it.
        published.marks.range(..=revision).next_back().map(|(_, version)| *version)
    }

    /// The version of the catalog that is shown now.
    pub fn version(&self) -> Version {
        self.content().snapshot.version()
    }

    /// The catalog as it is shown now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.content().snapshot.clone()
    }

    /// Ports that Envoys which are connected cannot serve, as another service has the
    /// number.
    pub fn conflicts(&self) -> Vec<envoy::Conflict> {
        let content = self.content();
        let mut addresses = content.shelves.keys().filter_map(|shelf| match shelf {
            Shelf::EnvoyListeners(own) => Some(*own),
            _ => None,
        });
        // Which address the listeners bind makes no difference.
        let Some(own) = addresses.next() else { return Vec::new() };
        let ports = content.ports.keys();
        ports
            .flat_map(|port| {
                let backends = content.on_port(*port);
                envoy::listeners(own, backends, &content.aliases, &self.cluster_domain).conflicts
            })
            .collect()
    }

    /// How many different sets of resources are kept.
    pub fn shelves(&self) -> usize {
        self.content().shelves.len()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn published(&self) -> RwLockReadGuard<'_, Published> {
        self.published.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Looks at what the view shows now.
    pub fn show<T>(&self, look: impl FnOnce(&Shown<'_>) -> T) -> T {
        look(&self.publisher.published().store.show(&self.view))
    }

    /// What is shown.
    pub fn view(&self) -> &View {
        &self.view
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut content = self.publisher.content();
        for shelf in self.view.shelves() {
            let Some(readers) = content.shelves.get_mut(&shelf) else { continue };
            readers.count -= 1;
            if readers.count == 0 {
                content.shelves.remove(&shelf);
                let mut published =
                    self.publisher.published.write().unwrap_or_else(PoisonError::into_inner);
                published.store.close(&shelf);
            }
        }
    }
}

impl Content {
    /// Takes an update in; tells what changes on the shelves by it.
    fn take(&mut self, update: &Update, cluster_domain: &str) -> Vec<Change> {
        self.snapshot = update.snapshot().clone();
        let mut dirty = Dirty::default();
        match update {
            Update::Reset(snapshot) => {
                dirty.services.extend(self.services.keys().cloned());
                dirty.services.extend(snapshot.services().map(|own| own.service.key.clone()));
                dirty.aliases = true;
            }
            Update::Diff(diff, _) => {
                dirty.services.extend(diff.service_keys());
                // An alias, or what one may lead to, has come, gone or become another.
                let is_alias = |entry: &Option<Arc<ServiceEntry>>| {
                    entry.as_ref().is_none_or(|entry| {
                        matches!(entry.service.exposure, Exposure::ExternalName(_))
                    })
                };
                dirty.aliases = diff
                    .services
                    .iter()
                    .any(|change| is_alias(&change.before) || is_alias(&change.after));
            }
        }
        self.refresh(&mut dirty, cluster_domain);
        let mut shelves = std::mem::take(&mut self.shelves);
        let mut changes = Vec::new();
        for (shelf, readers) in &mut shelves {
            // A name may go from one unit to another (that of an alias, to what it means),
            // in whichever order the two are made.
            let mut by_name: BTreeMap<Name, Option<Any>> = BTreeMap::new();
            for unit in dirty.units(shelf) {
                let made = self.make(shelf, &unit, cluster_domain);
                for (name, body) in readers.remember(unit, made) {
                    let slot = by_name.entry(name).or_default();
                    *slot = body.or_else(|| slot.take());
                }
            }
            let change = |(name, body): (Name, Option<Any>)| {
                let resource = body.map(|body| Arc::new(Resource::new(name.clone(), &body)));
                Change { shelf: shelf.clone(), name, resource }
            };
            changes.extend(by_name.into_iter().map(change));
        }
        self.shelves = shelves;
        changes
    }

    /// Brings services, ports and aliases up to date; notes what else differs by it.
    fn refresh(&mut self, dirty: &mut Dirty, cluster_domain: &str) {
        for key in &dirty.services {
            // Endpoints are made from the catalog's entry when they are asked for.
            let now = self.snapshot.service(key).map(|entry| shapes(entry, cluster_domain));
            let now = now.unwrap_or_default();
            let before = match now.is_empty() {
                true => self.services.remove(key).unwrap_or_default(),
                false => self.services.insert(key.clone(), now.clone()).unwrap_or_default(),
            };
            if before == now {
                continue;
            }
            dirty.reshaped.insert(key.clone());
            for port in before.iter().map(|backend| backend.port) {
                dirty.ports.insert(port);
                if let Some(keys) = self.ports.get_mut(&port) {
                    keys.remove(key);
                }
            }
            for port in now.iter().map(|backend| backend.port) {
                dirty.ports.insert(port);
                self.ports.entry(port).or_default().insert(key.clone());
            }
        }
        self.ports.retain(|_, keys| !keys.is_empty());
        if dirty.aliases {
            let aliases = Aliases::of(&self.snapshot, cluster_domain);
            if aliases != self.aliases {
                self.aliases = aliases;
                dirty.reshaped.extend(self.services.keys().cloned());
                dirty.ports.extend(self.ports.keys());
            }
        }
    }

    /// Everything that belongs on a shelf.
    fn open(&mut self, shelf: &Shelf, cluster_domain: &str) -> Vec<Arc<Resource>> {
        let mut readers = Readers::default();
        let mut all = Vec::new();
        let services = self.services.keys().cloned().map(Unit::Service);
        for unit in services.chain(self.ports.keys().copied().map(Unit::Port)) {
            if !is_made_of(shelf, &unit) {
                continue;
            }
            let made = self.make(shelf, &unit, cluster_domain);
            let made = readers.remember(unit, made).into_iter();
            all.extend(made.filter_map(|(name, body)| Some(Arc::new(Resource::new(name, &body?)))));
        }
        self.shelves.insert(shelf.clone(), readers);
        all
    }

    fn of_unit(&self, unit: &Unit) -> &[Backend] {
        match unit {
            Unit::Service(key) => self.services.get(key).map_or(&[], Vec::as_slice),
            Unit::Port(_) => &[],
        }
    }

    /// What stands on a port number, in the order of the catalog.
    fn on_port(&self, port: u16) -> impl Iterator<Item = &Backend> {
        let keys = self.ports.get(&port).into_iter().flatten();
        keys.filter_map(move |key| {
            self.services.get(key)?.iter().find(|backend| backend.port == port)
        })
    }

    /// What a unit has on a shelf.
    fn make(&self, shelf: &Shelf, unit: &Unit, cluster_domain: &str) -> Vec<(String, Any)> {
        let each = |make: &dyn Fn(&Backend) -> Any| {
            self.of_unit(unit).iter().map(|own| (own.cluster(), make(own))).collect()
        };
        match shelf {
            Shelf::EnvoyClusters => each(&|backend| pack(&envoy::cluster(backend))),
            Shelf::GrpcClusters => each(&|backend| pack(&grpc::cluster(backend))),
            Shelf::GrpcRoutes => each(&|backend| pack(&grpc::routes(backend))),
            Shelf::Endpoints => self.endpoints(unit, cluster_domain, &ClientView::default()),
            Shelf::EndpointsAt(place) => {
                let Unit::Service(key) = unit else { return Vec::new() };
                let entry = self.snapshot.service(key);
                match entry.is_some_and(|entry| depends_on_place(entry)) {
                    true => self.endpoints(unit, cluster_domain, &place.client_view()),
                    false => Vec::new(),
                }
            }
            Shelf::GrpcListeners(namespace) => {
                let namespace = namespace.as_deref();
                let targets = |backend| {
                    grpc::targets(backend, &self.aliases, cluster_domain, namespace)
                        .into_iter()
                        .map(move |target| {
                            let listener = pack(&grpc::listener(&target, backend));
                            (target, listener)
                        })
                };
                self.of_unit(unit).iter().flat_map(targets).collect()
            }
            Shelf::EnvoyListeners(own) => {
                let Unit::Port(port) = unit else { return Vec::new() };
                let backends = self.on_port(*port);
                let all = envoy::listeners(*own, backends, &self.aliases, cluster_domain);
                all.listeners.iter().map(|own| (own.name.clone(), pack(own))).collect()
            }
            Shelf::EnvoyRoutes(namespace) => match unit {
                Unit::Service(_) => {
                    let sniffed = self.of_unit(unit).iter();
                    sniffed
                        .filter(|backend| backend.protocol == Protocol::Sniffed)
                        .map(envoy::routes_of_sniffed)
                        .map(|routes| (routes.name.clone(), pack(&routes)))
                        .collect()
                }
                Unit::Port(port) => {
                    let http = || self.on_port(*port).filter(|own| own.protocol.is_http());
                    if http().next().is_none() {
                        return Vec::new();
                    }
                    let routes = envoy::routes_of_port(
                        *port,
                        http(),
                        &self.aliases,
                        cluster_domain,
                        namespace.as_deref(),
                    );
                    vec![(names::http_routes(*port), pack(&routes))]
                }
            },
        }
    }

    fn endpoints(
        &self,
        unit: &Unit,
        cluster_domain: &str,
        view: &ClientView,
    ) -> Vec<(String, Any)> {
        let Unit::Service(key) = unit else { return Vec::new() };
        let Some(entry) = self.snapshot.service(key) else { return Vec::new() };
        let all = backends(entry, cluster_domain, view);
        all.iter().map(|own| (own.cluster(), pack(&endpoints::assignment(own)))).collect()
    }
}

impl Readers {
    /// A unit makes these from now on. Tells what it has, and what it has no more.
    fn remember(&mut self, unit: Unit, made: Vec<(String, Any)>) -> Vec<(Name, Option<Any>)> {
        let mut names = BTreeSet::new();
        let mut changes = Vec::with_capacity(made.len());
        for (text, body) in made {
            let name = name(&text);
            // Names are unique by the rules of the catalog; the first one has it.
            if names.insert(name.clone()) {
                changes.push((name, Some(body)));
            }
        }
        let before = match names.is_empty() {
            true => self.made.remove(&unit),
            false => self.made.insert(unit, names.clone()),
        };
        let gone = before.into_iter().flatten().filter(|name| !names.contains(name));
        changes.extend(gone.map(|name| (name, None)));
        changes
    }
}

/// What differs.
#[derive(Debug, Default)]
struct Dirty {
    /// In any way.
    services: BTreeSet<ServiceKey>,
    /// In more than their endpoints.
    reshaped: BTreeSet<ServiceKey>,
    ports: BTreeSet<u16>,
    aliases: bool,
}

impl Dirty {
    /// The units of a shelf that are to be made anew.
    fn units(&self, shelf: &Shelf) -> Vec<Unit> {
        let services = match shelf {
            Shelf::Endpoints | Shelf::EndpointsAt(_) => &self.services,
            _ => &self.reshaped,
        };
        let services = services.iter().cloned().map(Unit::Service);
        let all = services.chain(self.ports.iter().copied().map(Unit::Port));
        all.filter(|unit| is_made_of(shelf, unit)).collect()
    }
}

fn is_made_of(shelf: &Shelf, unit: &Unit) -> bool {
    match shelf {
        Shelf::EnvoyListeners(_) => matches!(unit, Unit::Port(_)),
        Shelf::EnvoyRoutes(_) => true,
        _ => matches!(unit, Unit::Service(_)),
    }
}

#[cfg(test)]
mod tests;
