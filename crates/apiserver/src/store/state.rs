//! What readers see: the present objects, and the window of recent events.
//!
//! The writer thread alone changes a [`State`], a whole batch at a time under
//! one lock, so that a reader finds index, history and revision in step: a list
//! and the revision it names belong together, and a watch from that revision
//! neither misses nor repeats an event.
//!
//! Each resource has its own log, evicted in the order of all revisions. A
//! watcher of a quiet resource therefore never loses its place because another
//! resource is busy, and is not woken for it either.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic::AtomicUsize},
};

use tokio::sync::watch;

use super::{Compacted, Event, EventKind, History, Key, Listing, Record};

/// Revision of an empty store, as etcd has it: 0 means "any" to clients.
pub(super) const FIRST_REVISION: u64 = 1;

/// Namespace and name: what is left of a key inside its resource.
type Place = (Arc<str>, Arc<str>);

fn place(key: &Key) -> Place {
    (key.namespace.clone(), key.name.clone())
}

/// The state with what readers and the writer need around it.
#[derive(Debug)]
pub(super) struct Shared {
    state: RwLock<State>,
    pub(super) closed: watch::Sender<bool>,
    pub(super) watchers: AtomicUsize,
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Shared {
            state: RwLock::new(state),
            closed: watch::Sender::new(false),
            watchers: AtomicUsize::new(0),
        }
    }

    // A poisoned lock is taken all the same: what is done under it cannot fail half way.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct State {
    revision: u64,
    /// Nothing is known of what happened up to this revision: history begins here.
    start: u64,
    resources: Vec<Resource>,
    by_name: HashMap<Arc<str>, usize>,
    /// The resource of each event held, oldest first: the order of eviction.
    order: VecDeque<usize>,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Resource {
    name: Arc<str>,
    index: BTreeMap<Place, Arc<Record>>,
    log: VecDeque<Arc<Event>>,
    /// How many events have left the log: the sequence number of its first.
    evicted: u64,
    /// The state can be rebuilt for this revision and every later one.
    oldest: u64,
    wake: watch::Sender<()>,
}

/// What a watcher finds at its place in a log.
pub(super) enum Next {
    Event(Arc<Event>),
    /// It was there, and is not any more.
    Lost(Compacted),
    /// Nothing yet.
    CaughtUp,
}

/// What is left to do about a published batch when the lock is given back.
#[must_use]
pub(super) struct Published {
    wake: Vec<watch::Sender<()>>,
    // Freed outside the lock.
    _evicted: Vec<Arc<Event>>,
}

impl Published {
    pub(super) fn wake(self) {
        for sender in self.wake {
            sender.send_replace(());
        }
    }
}

/// Bytes that an event keeps alive. An upper bound: the present object and the
/// `previous` of a later event are counted though the index or another event
/// holds them too.
fn event_bytes(event: &Event) -> usize {
    let previous = event.previous.as_ref().map_or(0, |record| record.bytes.len());
    event.record.bytes.len() + previous
}

impl State {
    pub(super) fn new(revision: u64, events_max: usize, bytes_max: usize) -> Self {
        State {
            revision,
            start: revision,
            resources: Vec::new(),
            by_name: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            events_max,
            bytes_max,
        }
    }

    /// Adds an object that was stored before this process.
    pub(super) fn load(&mut self, record: Record) {
        let resource = self.resource(&record.key.resource);
        let resource = &mut self.resources[resource];
        resource.index.insert(place(&record.key), Arc::new(record));
    }

    /// The number of a resource, which stays.
    pub(super) fn resource(&mut self, name: &str) -> usize {
        if let Some(&number) = self.by_name.get(name) {
            return number;
        }
        let name: Arc<str> = Arc::from(name);
        self.by_name.insert(name.clone(), self.resources.len());
        self.resources.push(Resource {
            name,
            index: BTreeMap::new(),
            log: VecDeque::new(),
            evicted: 0,
            oldest: self.start,
            wake: watch::Sender::new(()),
        });
        self.resources.len() - 1
    }

    pub(super) fn find_resource(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn resources(&self) -> Vec<Arc<str>> {
        let held = self.resources.iter().filter(|resource| !resource.index.is_empty());
        let mut names: Vec<_> = held.map(|resource| resource.name.clone()).collect();
        names.sort_unstable();
        names
    }

    pub(super) fn count(&self, resource: &str) -> usize {
        self.find_resource(resource).map_or(0, |number| self.resources[number].index.len())
    }

    pub(super) fn history(&self) -> History {
        History { events: self.order.len(), bytes: self.bytes }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Record>> {
        let resource = &self.resources[self.find_resource(&key.resource)?];
        resource.index.get(&place(key)).cloned()
    }

    /// Makes a batch visible: `events` in the order of their revisions, the last
    /// of which becomes the current one.
    pub(super) fn publish(&mut self, events: Vec<Arc<Event>>) -> Published {
        let mut touched = Vec::new();
        for event in events {
            let number = self.resource(&event.record.key.resource);
            if !touched.contains(&number) {
                touched.push(number);
            }
            let resource = &mut self.resources[number];
            let place = place(&event.record.key);
            match event.kind {
                EventKind::Deleted => resource.index.remove(&place),
                EventKind::Added | EventKind::Modified => {
                    resource.index.insert(place, event.record.clone())
                }
            };
            self.revision = event.record.revision;
            self.bytes += event_bytes(&event);
            self.order.push_back(number);
            resource.log.push_back(event);
        }
        let evicted = self.evict();
        let wake = touched.iter().map(|&number| self.resources[number].wake.clone()).collect();
        Published { wake, _evicted: evicted }
    }

    fn evict(&mut self) -> Vec<Arc<Event>> {
        let mut evicted = Vec::new();
        while self.order.len() > self.events_max.max(1)
            || (self.bytes > self.bytes_max && self.order.len() > 1)
        {
            let Some(number) = self.order.pop_front() else { break };
            let resource = &mut self.resources[number];
            let Some(event) = resource.log.pop_front() else { continue };
            resource.evicted += 1;
            resource.oldest = event.record.revision;
            self.bytes -= event_bytes(&event);
            evicted.push(event);
        }
        evicted
    }

    fn compacted(&self, requested: u64, oldest: u64) -> Compacted {
        Compacted { requested, oldest, current: self.revision }
    }

    pub(super) fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<&Key>,
        limit: Option<usize>,
        at: Option<u64>,
    ) -> Result<Listing, Compacted> {
        let revision = at.unwrap_or(self.revision);
        let resource = self.find_resource(resource).map(|number| &self.resources[number]);
        let oldest = resource.map_or(self.start, |resource| resource.oldest);
        if revision < oldest || revision > self.revision {
            return Err(self.compacted(revision, oldest));
        }
        let Some(resource) = resource else {
            return Ok(Listing { revision, items: Vec::new(), remaining: 0 });
        };
        let undone = resource.undone(revision);
        let present = Range::new(namespace, after).over(&resource.index);
        let past = Range::new(namespace, after).over(&undone);
        let mut items = overlay(present, past);
        let page: Vec<_> = items.by_ref().take(limit.unwrap_or(usize::MAX)).cloned().collect();
        Ok(Listing { revision, items: page, remaining: items.count() })
    }

    /// The sequence number of a resource's first event after `since`.
    pub(super) fn position(&self, resource: usize, since: u64) -> Result<u64, Compacted> {
        let resource = &self.resources[resource];
        if since < resource.oldest {
            return Err(self.compacted(since, resource.oldest));
        }
        Ok(resource.evicted + resource.first_after(since) as u64)
    }

    /// The event with this sequence number, for a watcher that has got as far as
    /// revision `reached`.
    pub(super) fn next(&self, resource: usize, sequence: u64, reached: u64) -> Next {
        let resource = &self.resources[resource];
        let Some(offset) = sequence.checked_sub(resource.evicted) else {
            return Next::Lost(self.compacted(reached, resource.oldest));
        };
        let event = usize::try_from(offset).ok().and_then(|offset| resource.log.get(offset));
        event.map_or(Next::CaughtUp, |event| Next::Event(event.clone()))
    }

    pub(super) fn subscribe(&self, resource: usize) -> watch::Receiver<()> {
        self.resources[resource].wake.subscribe()
    }

    /// Wakes every watcher, to find the store closed.
    pub(super) fn wake_all(&self) {
        for resource in &self.resources {
            resource.wake.send_replace(());
        }
    }
}

impl Resource {
    /// Offset in the log of the first event after a revision.
    fn first_after(&self, revision: u64) -> usize {
        self.log.partition_point(|event| event.record.revision <= revision)
    }

    /// For each object that changed after a revision: what it was at that revision.
    fn undone(&self, revision: u64) -> BTreeMap<Place, Option<Arc<Record>>> {
        let mut undone = BTreeMap::new();
        for event in self.log.range(self.first_after(revision)..) {
            // The first event after the revision knows what was there; later ones do not.
            undone.entry(place(&event.record.key)).or_insert_with(|| event.previous.clone());
        }
        undone
    }
}

/// The places that a list covers.
struct Range<'a> {
    namespace: Option<&'a str>,
    from: Bound<Place>,
}

impl<'a> Range<'a> {
    fn new(namespace: Option<&'a str>, after: Option<&Key>) -> Self {
        let first = (Arc::from(namespace.unwrap_or_default()), Arc::from(""));
        let from = match after.map(place) {
            Some(after) if after >= first => Bound::Excluded(after),
            _ => Bound::Included(first),
        };
        Range { namespace, from }
    }

    fn over<V>(self, map: &'a BTreeMap<Place, V>) -> impl Iterator<Item = (&'a Place, &'a V)> {
        map.range((self.from, Bound::Unbounded))
            .take_while(move |(place, _)| self.namespace.is_none_or(|name| *place.0 == *name))
    }
}

/// Two sequences in the order of their places made one, in which `over` wins
/// and its `None` leaves a place out.
fn overlay<'a>(
    base: impl Iterator<Item = (&'a Place, &'a Arc<Record>)>,
    over: impl Iterator<Item = (&'a Place, &'a Option<Arc<Record>>)>,
) -> impl Iterator<Item = &'a Arc<Record>> {
    let mut base = base.peekable();
    let mut over = over.peekable();
    std::iter::from_fn(move || {
        loop {
            let from_base = match (base.peek(), over.peek()) {
                (None, None) => return None,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some((base, _)), Some((over, _))) => base < over,
            };
            if from_base {
                return base.next().map(|(_, record)| record);
            }
            let (place, record) = over.next()?;
            base.next_if(|(base, _)| *base == place);
            if let Some(record) = record {
                return Some(record);
            }
        }
    })
}
