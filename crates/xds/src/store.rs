//! The store: encoded resources by shelf and name.
//!
//! ```text
//!   generators --commit--> tables: shelf, name -> resource       streams read
//!                             |                                     ^  through their view
//!                             +-- log per shelf: revision, name ----+-- "what changed since 17?"
//! ```
//!
//! There is no push, only revisions. A commit that changes something makes the next
//! one; a stream remembers the revision that it has read up to, and asks what
//! changed since. However slow it is, it costs the store nothing: what changed twice
//! meanwhile is told once, in its newest form.
//!
//! A resource is encoded once. Its version is a hash of the bytes, so that every
//! replica gives it the same one, and so does this one after a restart.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use portolan_envoy_proto::{
    Message, google::protobuf::Any, service::discovery::v3::DiscoveryResponse,
};
use portolan_model::Name;
use xxhash_rust::xxh64::xxh64;

use crate::{
    encoding,
    view::{Shelf, View},
};

/// Changes of one shelf that are remembered. A stream that has missed more compares
/// all that it has, which costs it as much as beginning anew. 10,000 services can
/// change six times over.
const LOG_MAX: usize = 65_536;

/// The types of resource, in the order in which their news must reach a client: what
/// is referred to before what refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// LDS.
    Listener,
    /// RDS.
    Routes,
}

impl Kind {
    /// All of them, in that order.
    pub const ALL: [Self; 4] = [Self::Cluster, Self::Endpoints, Self::Listener, Self::Routes];

    /// As requests name it.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// As people call its service.
    pub fn short(self) -> &'static str {
        match self {
            Self::Cluster => "CDS",
            Self::Endpoints => "EDS",
            Self::Listener => "LDS",
            Self::Routes => "RDS",
        }
    }

    /// Reads it back. `None`: a type that this face does not have.
    pub fn of_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }
}

/// A resource as it goes out, shared by all streams.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Unique within its type.
    pub name: Name,
    /// A hash of the content: equal content, equal version, everywhere.
    pub version: u64,
    /// As a delta response holds it.
    whole: Bytes,
    /// Where in it that begins which other responses hold.
    bare_at: usize,
}

impl Resource {
    /// Encodes it, once for all.
    pub fn new(name: Name, body: &Any) -> Self {
        let version = xxh64(&body.value, 0);
        let (whole, bare_at) = encoding::resource(&name, &version_text(version), body);
        Self { name, version, whole, bare_at }
    }

    /// How much it adds to a response.
    pub fn size(&self) -> usize {
        self.whole.len()
    }

    /// The field that a delta response holds: with name and version.
    pub fn wrapped(&self) -> Bytes {
        self.whole.clone()
    }

    /// The field that a response of state of the world holds.
    pub fn bare(&self) -> Bytes {
        self.whole.slice(self.bare_at..)
    }

    /// Type and content, for people and for CSDS.
    pub fn body(&self) -> Any {
        // We wrote it, so it can be read.
        let read = DiscoveryResponse::decode(self.bare()).unwrap_or_default();
        read.resources.into_iter().next().unwrap_or_default()
    }
}

/// A version as responses write it.
pub fn version_text(version: u64) -> String {
    format!("{version:016x}")
}

/// What becomes of one resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Where it is.
    pub shelf: Shelf,
    /// Its name.
    pub name: Name,
    /// What is there from now on. `None`: nothing.
    pub resource: Option<Arc<Resource>>,
}

impl Change {
    /// A resource is as given from now on.
    pub fn set(shelf: Shelf, name: Name, message: &impl Message) -> Self {
        let body =
            Any { type_url: shelf.kind().type_url().to_owned(), value: message.encode_to_vec() };
        let resource = Some(Arc::new(Resource::new(name.clone(), &body)));
        Self { shelf, name, resource }
    }

    /// A resource is there no more.
    pub fn remove(shelf: Shelf, name: Name) -> Self {
        Self { shelf, name, resource: None }
    }
}

/// What changed between a revision and now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// These names, whether they are there now or not.
    Names(BTreeSet<Name>),
    /// More than is remembered: compare everything.
    Unknown,
}

/// The resources of all views.
#[derive(Clone, Debug)]
pub struct Store {
    revision: u64,
    tables: HashMap<Shelf, Table>,
    log_max: usize,
}

#[derive(Clone, Debug, Default)]
struct Table {
    resources: Arc<Resources>,
    /// Which name changed at which revision, oldest first.
    log: VecDeque<(u64, Name)>,
    /// The newest revision that the log has forgotten something of.
    forgotten: u64,
}

/// Resources of a shelf at one revision. Whoever was told them keeps this, as one
/// pointer; what differs from one revision to the next is copied, the rest is shared.
#[derive(Clone, Debug)]
struct Resources {
    /// By a hash of the name.
    parts: [Arc<BTreeMap<Name, Arc<Resource>>>; PARTS],
}

/// 10,000 resources make parts of some 40, which a change copies.
const PARTS: usize = 256;

impl Default for Resources {
    fn default() -> Self {
        let empty = Arc::default();
        Self { parts: std::array::from_fn(|_| Arc::clone(&empty)) }
    }
}

impl Resources {
    fn part(name: &str) -> usize {
        xxh64(name.as_bytes(), 0) as usize % PARTS
    }

    fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.parts.get(Self::part(name))?.get(name)
    }

    /// In no particular order.
    fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.parts.iter().flat_map(|part| part.values())
    }

    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// What stood under a name before.
    fn replace(&mut self, name: &Name, resource: Option<Arc<Resource>>) -> Option<Arc<Resource>> {
        let part = Arc::make_mut(&mut self.parts[Self::part(name)]);
        match resource {
            Some(resource) => part.insert(name.clone(), resource),
            None => part.remove(name),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::remembering(LOG_MAX)
    }
}

impl Store {
    /// A store that remembers so many changes of each shelf.
    pub fn remembering(log_max: usize) -> Self {
        Self { revision: 1, tables: HashMap::new(), log_max }
    }

    /// The revision of the last change. An empty store is at 1: who has read nothing is
    /// at 0.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What a client sees of it.
    pub fn show(&self, view: &View) -> Shown<'_> {
        let layers = |kind| {
            let overlay = view.overlay(kind).and_then(|shelf| self.tables.get(&shelf));
            [overlay, self.tables.get(&view.shelf(kind))]
        };
        Shown { revision: self.revision, layers: Kind::ALL.map(layers) }
    }

    /// How many resources there are, of each type.
    pub fn counts(&self) -> BTreeMap<Kind, usize> {
        let mut counts = BTreeMap::new();
        for (shelf, table) in &self.tables {
            *counts.entry(shelf.kind()).or_default() += table.resources.len();
        }
        counts
    }

    /// Takes changes in as one revision, and tells which of them changed a byte. If none
    /// did, there is no new revision.
    pub fn commit(&mut self, changes: impl IntoIterator<Item = Change>) -> Vec<(Shelf, Name)> {
        let next = self.revision + 1;
        let mut changed = Vec::new();
        for Change { shelf, name, resource } in changes {
            let table = self.tables.entry(shelf.clone()).or_default();
            if table.apply(&name, resource) {
                table.note(next, name.clone(), self.log_max);
                self.revision = next;
                changed.push((shelf, name));
            }
        }
        changed
    }

    /// Fills a shelf that nobody has read from yet: that is no change to anybody.
    pub fn open(&mut self, shelf: Shelf, content: impl IntoIterator<Item = Arc<Resource>>) {
        let mut all = Resources::default();
        for resource in content {
            all.replace(&resource.name.clone(), Some(resource));
        }
        let (log, forgotten) = (VecDeque::new(), self.revision);
        let table = Table { resources: Arc::new(all), log, forgotten };
        self.tables.insert(shelf, table);
    }

    /// Throws a shelf away that nobody reads from any more.
    pub fn close(&mut self, shelf: &Shelf) {
        self.tables.remove(shelf);
    }
}

/// What one client sees of a store.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    revision: u64,
    /// Of each type, in order: what stands before, what stands behind.
    layers: [[Option<&'a Table>; 2]; Kind::ALL.len()],
}

impl<'a> Shown<'a> {
    /// The revision of the store.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn tables(&self, kind: Kind) -> impl DoubleEndedIterator<Item = &'a Table> {
        self.layers[kind as usize].into_iter().flatten()
    }

    /// One resource.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&'a Arc<Resource>> {
        self.tables(kind).find_map(|table| table.resources.get(name))
    }

    /// The names of all resources of a type, in no particular order; one that stands in
    /// both layers comes twice.
    pub fn names(&self, kind: Kind) -> impl Iterator<Item = &'a Name> {
        self.tables(kind).flat_map(|table| table.resources.iter()).map(|own| &own.name)
    }

    /// All resources of a type, by name.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = &'a Arc<Resource>> {
        let mut all = BTreeMap::new();
        for table in self.tables(kind).rev() {
            all.extend(table.resources.iter().map(|own| (&*own.name, own)));
        }
        all.into_values()
    }

    /// All resources of a type as they are now, to be kept.
    pub fn keep(&self, kind: Kind) -> Kept {
        let layers = &self.layers[kind as usize];
        Kept(layers.map(|table| table.map(|table| table.resources.clone())))
    }

    /// What changed of a type after a revision.
    pub fn changed(&self, kind: Kind, since: u64) -> Changed {
        let mut names = BTreeSet::new();
        for table in self.tables(kind) {
            if since < table.forgotten {
                return Changed::Unknown;
            }
            let news = table.log.iter().rev().take_while(|(revision, _)| *revision > since);
            names.extend(news.map(|(_, name)| name.clone()));
        }
        Changed::Names(names)
    }
}

/// All resources of a type as a client saw them at one revision.
#[derive(Clone, Debug, Default)]
pub struct Kept([Option<Arc<Resources>>; 2]);

impl Kept {
    /// One resource.
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.0.iter().flatten().find_map(|resources| resources.get(name))
    }

    /// Whether nothing was kept.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// The names of all, in no particular order; some may come twice.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.iter().flatten().flat_map(|resources| resources.iter()).map(|own| &own.name)
    }
}

impl Table {
    /// Whether anything is different now.
    fn apply(&mut self, name: &Name, resource: Option<Arc<Resource>>) -> bool {
        let present = self.resources.get(name);
        // Bytes are compared, not versions: a collision must not hide a change.
        if present.map(|present| &present.whole) == resource.as_ref().map(|own| &own.whole) {
            return false;
        }
        Arc::make_mut(&mut self.resources).replace(name, resource);
        true
    }

    fn note(&mut self, revision: u64, name: Name, log_max: usize) {
        self.log.push_back((revision, name));
        while self.log.len() > log_max {
            let Some((revision, _)) = self.log.pop_front() else { break };
            self.forgotten = revision;
        }
    }
}

#[cfg(test)]
mod tests {
    use portolan_envoy_proto::{
        Name as _,
        config::{
            cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
            route::v3::RouteConfiguration,
        },
    };
    use portolan_model::name;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    use crate::view::{Dialect, Place};

    fn view() -> View {
        View { dialect: Dialect::Grpc, namespace: None, place: Place::default() }
    }

    fn changed(store: &Store, kind: Kind, since: u64) -> Changed {
        store.show(&view()).changed(kind, since)
    }

    fn cluster(text: &str, alternative: u8) -> Change {
        let cluster = Cluster {
            name: text.to_owned(),
            alt_stat_name: alternative.to_string(),
            ..Cluster::default()
        };
        Change::set(Shelf::GrpcClusters, name(text), &cluster)
    }

    fn names(list: &[&str]) -> Changed {
        Changed::Names(list.iter().map(|text| name(text)).collect())
    }

    #[test]
    fn types_are_told_by_their_urls() {
        for (kind, url) in [
            (Kind::Cluster, Cluster::type_url()),
            (Kind::Endpoints, ClusterLoadAssignment::type_url()),
            (Kind::Listener, Listener::type_url()),
            (Kind::Routes, RouteConfiguration::type_url()),
        ] {
            assert_eq!(kind.type_url(), url);
            assert_eq!(Kind::of_type_url(&url), Some(kind));
        }
        assert_eq!(Kind::of_type_url("type.googleapis.com/google.protobuf.Any"), None);
    }

    #[test]
    fn what_changed_is_told_once_and_by_type() {
        let mut store = Store::default();
        store.commit([cluster("a", 1), cluster("b", 1)]);
        assert_eq!(store.revision(), 2);
        store.commit([cluster("a", 2)]);
        assert_eq!(store.revision(), 3);
        store.commit([Change::remove(Shelf::GrpcClusters, name("b"))]);
        assert_eq!(store.revision(), 4);
        assert_eq!(changed(&store, Kind::Cluster, 0), names(&["a", "b"]));
        assert_eq!(changed(&store, Kind::Cluster, 2), names(&["a", "b"]));
        assert_eq!(changed(&store, Kind::Cluster, 3), names(&["b"]));
        assert_eq!(changed(&store, Kind::Cluster, 4), names(&[]));
        assert_eq!(changed(&store, Kind::Listener, 0), names(&[]));
        assert_eq!(store.show(&view()).get(Kind::Cluster, "b"), None);
    }

    #[test]
    fn what_stands_before_hides_what_stands_behind() {
        let place = Place { zone: Some(name("z")), node: None };
        let here = View { place: place.clone(), ..view() };
        let set = |shelf: Shelf, content: u8| {
            let Change { resource, .. } = cluster("a", content);
            Change { shelf, name: name("a"), resource }
        };
        let mut store = Store::default();
        let version = |store: &Store, view: &View| {
            store.show(view).get(Kind::Endpoints, "a").map(|own| own.version)
        };
        store.commit([set(Shelf::Endpoints, 1)]);
        assert_eq!(version(&store, &here), version(&store, &view()));
        store.commit([set(Shelf::EndpointsAt(place.clone()), 2)]);
        assert_ne!(version(&store, &here), version(&store, &view()));
        assert_eq!(store.show(&here).all(Kind::Endpoints).count(), 1);
        assert_eq!(store.show(&here).changed(Kind::Endpoints, 2), names(&["a"]));
        assert_eq!(store.show(&view()).changed(Kind::Endpoints, 2), names(&[]));
        store.commit([Change::remove(Shelf::EndpointsAt(place), name("a"))]);
        assert_eq!(version(&store, &here), version(&store, &view()));
        assert_eq!(store.show(&here).changed(Kind::Endpoints, 3), names(&["a"]));
    }

    #[test]
    fn a_shelf_that_is_opened_later_is_compared_whole() {
        let mut store = Store::default();
        store.commit([cluster("a", 1)]);
        let Change { resource, .. } = cluster("b", 1);
        store.close(&Shelf::GrpcClusters);
        store.open(Shelf::GrpcClusters, resource);
        assert_eq!(store.revision(), 2);
        assert_eq!(changed(&store, Kind::Cluster, 0), Changed::Unknown);
        assert_eq!(changed(&store, Kind::Cluster, 2), names(&[]));
        assert!(store.show(&view()).get(Kind::Cluster, "b").is_some());
    }

    #[test]
    fn what_changes_no_byte_makes_no_revision() {
        let mut store = Store::default();
        store.commit([cluster("a", 1)]);
        store.commit([cluster("a", 1)]);
        assert_eq!(store.revision(), 2);
        store.commit([Change::remove(Shelf::GrpcClusters, name("b"))]);
        assert_eq!(store.revision(), 2);
        store.commit([]);
        assert_eq!(store.revision(), 2);
    }

    #[test]
    fn who_has_missed_more_than_is_remembered_is_told_so() {
        let mut store = Store::remembering(2);
        for number in 1..=3 {
            store.commit([cluster("a", number)]);
        }
        assert_eq!(changed(&store, Kind::Cluster, 0), Changed::Unknown);
        assert_eq!(changed(&store, Kind::Cluster, 2), names(&["a"]));
        // A commit that was forgotten in part is not known.
        store.commit([cluster("b", 1), cluster("c", 1), cluster("d", 1)]);
        assert_eq!(changed(&store, Kind::Cluster, 4), Changed::Unknown);
        assert_eq!(changed(&store, Kind::Cluster, 5), names(&[]));
    }

    /// Commits of changes to few names, so that they meet.
    fn history() -> impl Strategy<Value = Vec<Vec<(u8, Option<u8>)>>> {
        vec(vec((0..5_u8, proptest::option::of(0..3_u8)), 0..4), 0..30)
    }

    fn change((text, content): (u8, Option<u8>)) -> Change {
        let text = format!("c{text}");
        match content {
            Some(content) => cluster(&text, content),
            None => Change::remove(Shelf::GrpcClusters, name(&text)),
        }
    }

    type Content = BTreeMap<Name, u64>;

    fn content(store: &Store) -> Content {
        store.show(&view()).all(Kind::Cluster).map(|own| (own.name.clone(), own.version)).collect()
    }

    proptest! {
        #[test]
        fn whoever_follows_at_any_pace_holds_what_the_store_holds(
            history in history(),
            pace in vec(any::<bool>(), 30),
            log_max in 1..20_usize,
        ) {
            let mut store = Store::remembering(log_max);
            let (mut held, mut read_up_to) = (Content::new(), 0);
            let last = history.len();
            for (number, commit) in history.into_iter().enumerate() {
                let before = content(&store);
                store.commit(commit.into_iter().map(change));
                let revision = store.revision();
                prop_assert!(before == content(&store) || revision > read_up_to);
                if !pace[number] && number + 1 < last {
                    continue;
                }
                match changed(&store, Kind::Cluster, read_up_to) {
                    Changed::Unknown => held = content(&store),
                    Changed::Names(names) => for name in names {
                        match store.show(&view()).get(Kind::Cluster, &name) {
                            Some(resource) => held.insert(name, resource.version),
                            None => held.remove(&name),
                        };
                    },
                }
                read_up_to = revision;
                prop_assert_eq!(&held, &content(&store));
            }
        }

        #[test]
        fn versions_follow_from_content_alone(history in history()) {
            let mut store = Store::default();
            for commit in history {
                store.commit(commit.into_iter().map(change));
            }
            // A replica that saw only the end of it.
            let mut replica = Store::default();
            replica.commit(store.show(&view()).all(Kind::Cluster).map(|own| Change {
                shelf: Shelf::GrpcClusters,
                name: own.name.clone(),
                resource: Some(Arc::new(Resource::new(own.name.clone(), &own.body()))),
            }));
            prop_assert_eq!(content(&store), content(&replica));
        }
    }
}
