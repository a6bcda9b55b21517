//! The store: the encoded resources of one view, by type and name.
//!
//! ```text
//!   generators --commit--> tables (type, name) -> resource      streams read
//!                             |                                     ^
//!                             +-- log per type: revision, name -----+-- "what changed since 17?"
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
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use portolan_envoy_proto::{
    Message, Name as _,
    config::{
        cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
        route::v3::RouteConfiguration,
    },
    google::protobuf::Any,
};
use portolan_model::Name;
use xxhash_rust::xxh64::xxh64;

/// Changes of one type that are remembered. A stream that has missed more compares
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
    pub fn type_url(self) -> String {
        match self {
            Self::Cluster => Cluster::type_url(),
            Self::Endpoints => ClusterLoadAssignment::type_url(),
            Self::Listener => Listener::type_url(),
            Self::Routes => RouteConfiguration::type_url(),
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
    /// Type and encoded content.
    pub body: Any,
}

/// What becomes of one resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its type.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// Its content. `None`: it is there no more.
    pub body: Option<Any>,
}

impl Change {
    /// A resource is as given from now on.
    pub fn set(kind: Kind, name: Name, message: &impl Message) -> Self {
        let body = Any { type_url: kind.type_url(), value: message.encode_to_vec() };
        Self { kind, name, body: Some(body) }
    }

    /// A resource is there no more.
    pub fn remove(kind: Kind, name: Name) -> Self {
        Self { kind, name, body: None }
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

/// The resources of one view.
#[derive(Clone, Debug)]
pub struct Store {
    revision: u64,
    tables: BTreeMap<Kind, Table>,
    log_max: usize,
}

#[derive(Clone, Debug, Default)]
struct Table {
    resources: BTreeMap<Name, Arc<Resource>>,
    /// Which name changed at which revision, oldest first.
    log: VecDeque<(u64, Name)>,
    /// The newest revision that the log has forgotten something of.
    forgotten: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self::remembering(LOG_MAX)
    }
}

impl Store {
    /// A store that remembers so many changes of each type.
    pub fn remembering(log_max: usize) -> Self {
        Self { revision: 0, tables: BTreeMap::new(), log_max }
    }

    /// The revision of the last change. An empty store is at 0.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// One resource.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Arc<Resource>> {
        self.tables.get(&kind)?.resources.get(name)
    }

    /// All resources of a type, by name.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = &Arc<Resource>> {
        self.tables.get(&kind).into_iter().flat_map(|table| table.resources.values())
    }

    /// What changed of a type after a revision.
    pub fn changed(&self, kind: Kind, since: u64) -> Changed {
        let Some(table) = self.tables.get(&kind) else { return Changed::Names(BTreeSet::new()) };
        if since < table.forgotten {
            return Changed::Unknown;
        }
        let news = table.log.iter().rev().take_while(|(revision, _)| *revision > since);
        Changed::Names(news.map(|(_, name)| name.clone()).collect())
    }

    /// Takes changes in as one revision, and tells the revision after them. Those that
    /// change no byte are none; if no change is left, neither is there a revision.
    pub fn commit(&mut self, changes: impl IntoIterator<Item = Change>) -> u64 {
        let next = self.revision + 1;
        for Change { kind, name, body } in changes {
            let table = self.tables.entry(kind).or_default();
            if table.apply(&name, body) {
                table.note(next, name, self.log_max);
                self.revision = next;
            }
        }
        self.revision
    }
}

impl Table {
    /// Whether anything is different now.
    fn apply(&mut self, name: &Name, body: Option<Any>) -> bool {
        let Some(body) = body else { return self.resources.remove(name).is_some() };
        // Bytes are compared, not versions: a collision must not hide a change.
        if self.resources.get(name).is_some_and(|present| present.body == body) {
            return false;
        }
        let version = xxh64(&body.value, 0);
        let resource = Resource { name: name.clone(), version, body };
        self.resources.insert(name.clone(), Arc::new(resource));
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
    use portolan_model::name;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn cluster(text: &str, alternative: u8) -> Change {
        let cluster = Cluster {
            name: text.to_owned(),
            alt_stat_name: alternative.to_string(),
            ..Cluster::default()
        };
        Change::set(Kind::Cluster, name(text), &cluster)
    }

    fn names(list: &[&str]) -> Changed {
        Changed::Names(list.iter().map(|text| name(text)).collect())
    }

    #[test]
    fn types_are_told_by_their_urls() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_type_url(&kind.type_url()), Some(kind));
        }
        assert_eq!(Kind::of_type_url("type.googleapis.com/google.protobuf.Any"), None);
    }

    #[test]
    fn what_changed_is_told_once_and_by_type() {
        let mut store = Store::default();
        assert_eq!(store.commit([cluster("a", 1), cluster("b", 1)]), 1);
        assert_eq!(store.commit([cluster("a", 2)]), 2);
        assert_eq!(store.commit([Change::remove(Kind::Cluster, name("b"))]), 3);
        assert_eq!(store.changed(Kind::Cluster, 0), names(&["a", "b"]));
        assert_eq!(store.changed(Kind::Cluster, 1), names(&["a", "b"]));
        assert_eq!(store.changed(Kind::Cluster, 2), names(&["b"]));
        assert_eq!(store.changed(Kind::Cluster, 3), names(&[]));
        assert_eq!(store.changed(Kind::Listener, 0), names(&[]));
        assert_eq!(store.get(Kind::Cluster, "b"), None);
    }

    #[test]
    fn what_changes_no_byte_makes_no_revision() {
        let mut store = Store::default();
        store.commit([cluster("a", 1)]);
        assert_eq!(store.commit([cluster("a", 1)]), 1);
        assert_eq!(store.commit([Change::remove(Kind::Cluster, name("b"))]), 1);
        assert_eq!(store.commit([]), 1);
    }

    #[test]
    fn who_has_missed_more_than_is_remembered_is_told_so() {
        let mut store = Store::remembering(2);
        for number in 1..=3 {
            store.commit([cluster("a", number)]);
        }
        assert_eq!(store.changed(Kind::Cluster, 0), Changed::Unknown);
        assert_eq!(store.changed(Kind::Cluster, 1), names(&["a"]));
        // A commit that was forgotten in part is not known.
        store.commit([cluster("b", 1), cluster("c", 1), cluster("d", 1)]);
        assert_eq!(store.changed(Kind::Cluster, 3), Changed::Unknown);
        assert_eq!(store.changed(Kind::Cluster, 4), names(&[]));
    }

    /// Commits of changes to few names, so that they meet.
    fn history() -> impl Strategy<Value = Vec<Vec<(u8, Option<u8>)>>> {
        vec(vec((0..5_u8, proptest::option::of(0..3_u8)), 0..4), 0..30)
    }

    fn change((text, content): (u8, Option<u8>)) -> Change {
        let text = format!("c{text}");
        match content {
            Some(content) => cluster(&text, content),
            None => Change::remove(Kind::Cluster, name(&text)),
        }
    }

    type Content = BTreeMap<Name, u64>;

    fn content(store: &Store) -> Content {
        store.all(Kind::Cluster).map(|own| (own.name.clone(), own.version)).collect()
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
                let revision = store.commit(commit.into_iter().map(change));
                prop_assert!(before == content(&store) || revision > read_up_to);
                if !pace[number] && number + 1 < last {
                    continue;
                }
                match store.changed(Kind::Cluster, read_up_to) {
                    Changed::Unknown => held = content(&store),
                    Changed::Names(names) => for name in names {
                        match store.get(Kind::Cluster, &name) {
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
            replica.commit(store.all(Kind::Cluster).map(|own| Change {
                kind: Kind::Cluster,
                name: own.name.clone(),
                body: Some(own.body.clone()),
            }));
            prop_assert_eq!(content(&store), content(&replica));
        }
    }
}
