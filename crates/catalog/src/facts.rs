//! What each source has said, and which services its words touch.
//!
//! Facts are kept per source and key. A listing (`Begin` ... `Complete`) marks
//! what it sights with its number; `Complete` removes what still carries an
//! older number. A listing that never completes therefore removes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use portolan_model::{
    EndpointSlice, Event, Fact, FactKey, Name, ObjectName, Origin, Service, ServiceKey, SourceId,
};

use crate::intern::Interner;

/// Repairs that are remembered until somebody asks; the rest is counted only.
const REPAIRS_MAX: usize = 64;

/// What a verifying listing did to a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repaired {
    /// It had been missed.
    Added,
    /// It had been another.
    Changed,
    /// It had been gone.
    Removed,
}

/// A fact that had been wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Who told it.
    pub source: SourceId,
    /// Which.
    pub key: FactKey,
    /// What became of it.
    pub how: Repaired,
}

/// What a batch of events has touched.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub(crate) services: BTreeSet<ServiceKey>,
    pub(crate) workloads: BTreeSet<ObjectName>,
    pub(crate) namespaces: BTreeSet<Name>,
    pub(crate) nodes: BTreeSet<Name>,
    pub(crate) rejections: BTreeSet<(Name, ObjectName)>,
    /// Sources whose state has changed.
    pub(crate) sources: BTreeSet<SourceId>,
    /// Sources that have said anything: their counts are brought up to date with
    /// the next version, and make none by themselves.
    pub(crate) heard: BTreeSet<SourceId>,
}

impl Touched {
    /// Whether nothing is left to commit.
    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty()
            && self.workloads.is_empty()
            && self.namespaces.is_empty()
            && self.nodes.is_empty()
            && self.rejections.is_empty()
            && self.sources.is_empty()
    }
}

/// A fact with the listing that last sighted it.
#[derive(Debug)]
struct Said {
    fact: Arc<Fact>,
    part: Name,
    listing: u64,
}

/// One part of a source.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// Number of the listing under way, or of the last one.
    listing: u64,
    /// The listing under way has not completed.
    listing_open: bool,
    /// The listing under way should change nothing.
    verifies: bool,
    pub(crate) complete: bool,
    pub(crate) facts: usize,
    /// Facts that verifying listings have changed.
    pub(crate) repaired: usize,
    pub(crate) revision: Name,
}

/// One source with all it has said.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) parts: BTreeMap<Name, Part>,
    /// Parts that are not connected, and why.
    pub(crate) lost: BTreeMap<Name, Name>,
    pub(crate) since_ms: u64,
    said: BTreeMap<FactKey, Said>,
}

impl Source {
    fn begin(&mut self, part: Name, verifies: bool) {
        let part = self.parts.entry(part).or_default();
        part.listing += 1;
        part.listing_open = true;
        part.verifies = verifies;
    }

    /// Whether an event shows that its part is connected again. A listing shows
    /// it by its end only: one that begins and breaks off, time after time, must
    /// not make the loss look young.
    fn is_back(&self, event: &Event) -> bool {
        match event {
            Event::Begin { .. } | Event::Verify { .. } | Event::Lost { .. } => false,
            Event::Complete { .. } | Event::Alive { .. } => true,
            Event::Sighting { part, .. } | Event::Gone { part, .. } => {
                self.parts.get(part).is_none_or(|part| !part.listing_open)
            }
        }
    }
}

/// All that all sources have said.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    names: Interner,
    pub(crate) sources: BTreeMap<SourceId, Source>,
    /// Which slices list endpoints of a service: the way from a service to its
    /// facts without a walk over all slices.
    /// A sorted list each: nearly all services have one slice, and a set would
    /// cost ten times as much for it.
    slices: BTreeMap<ServiceKey, Vec<(SourceId, Origin, ObjectName)>>,
    /// What verifying listings have changed since somebody asked.
    pub(crate) repairs: Vec<Repair>,
}

impl Facts {
    /// Takes one event in and notes what it touches.
    pub(crate) fn take(
        &mut self,
        source_id: &SourceId,
        revision: &Name,
        at_ms: u64,
        event: Event,
        touched: &mut Touched,
    ) {
        touched.heard.insert(source_id.clone());
        let source = self.sources.entry(source_id.clone()).or_default();
        if source.is_back(&event) && source.lost.remove(event.part()).is_some() {
            // The age of a loss is counted from its first part to its last.
            if source.lost.is_empty() {
                source.since_ms = at_ms;
            }
            touched.sources.insert(source_id.clone());
        }
        match event {
            Event::Begin { part } => source.begin(part, false),
            Event::Verify { part } => source.begin(part, true),
            Event::Sighting { part, mut key, mut fact } => {
                self.names.key(&mut key);
                match &mut *fact {
                    Fact::EndpointSlice(slice) => self.names.slice(slice),
                    Fact::Service(service) => {
                        self.names.service_key(&mut Arc::make_mut(service).key);
                    }
                    _ => {}
                }
                let slot = source.parts.entry(part.clone()).or_default();
                slot.revision = revision.clone();
                let listing = slot.listing;
                self.put(source_id, part, listing, key, Arc::new(*fact), touched);
            }
            Event::Gone { part, key } => {
                if let Some(slot) = source.parts.get_mut(&part) {
                    slot.revision = revision.clone();
                }
                self.remove(source_id, &key, touched);
            }
            Event::Complete { part } => {
                let slot = source.parts.entry(part.clone()).or_default();
                // A `Complete` without a `Begin` proves nothing.
                if !slot.listing_open {
                    return;
                }
                slot.listing_open = false;
                slot.complete = true;
                slot.revision = revision.clone();
                let listing = slot.listing;
                touched.sources.insert(source_id.clone());
                let stale: Vec<FactKey> = source
                    .said
                    .iter()
                    .filter(|(_, said)| said.part == part && said.listing < listing)
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in stale {
                    self.repair(source_id, &part, &key, Repaired::Removed);
                    self.remove(source_id, &key, touched);
                }
                // What comes between listings is news.
                if let Some(slot) =
                    self.sources.get_mut(source_id).and_then(|s| s.parts.get_mut(&part))
                {
                    slot.verifies = false;
                }
            }
            Event::Lost { part, error } => {
                if source.lost.is_empty() {
                    source.since_ms = at_ms;
                }
                // A listing that broke off must not complete later by accident.
                let slot = source.parts.entry(part.clone()).or_default();
                (slot.listing_open, slot.verifies) = (false, false);
                if source.lost.get(&part) != Some(&error) {
                    source.lost.insert(part, error);
                    touched.sources.insert(source_id.clone());
                }
            }
            Event::Alive { .. } => {}
        }
    }

    fn put(
        &mut self,
        source_id: &SourceId,
        part: Name,
        listing: u64,
        key: FactKey,
        fact: Arc<Fact>,
        touched: &mut Touched,
    ) {
        let Some(source) = self.sources.get_mut(source_id) else { return };
        let how = if let Some(old) = source.said.get_mut(&key) {
            if old.part != part {
                // Another part tells it now; each is counted where it is told.
                if let Some(teller) = source.parts.get_mut(&old.part) {
                    teller.facts = teller.facts.saturating_sub(1);
                }
                if let Some(teller) = source.parts.get_mut(&part) {
                    teller.facts += 1;
                }
                old.part = part.clone();
            }
            old.listing = listing;
            if *old.fact == *fact {
                return;
            }
            Repaired::Changed
        } else {
            Repaired::Added
        };
        self.repair(source_id, &part, &key, how);
        let Some(source) = self.sources.get_mut(source_id) else { return };
        let moved = source.said.get(&key).and_then(|old| match &*old.fact {
            Fact::EndpointSlice(slice) => Some(slice.service.clone()),
            _ => None,
        });
        if let (Some(service), FactKey::EndpointSlice(origin, object)) = (moved, &key) {
            touched.services.insert(service.clone());
            self.unindex(&service, source_id, origin, object);
        }
        if let (Fact::EndpointSlice(slice), FactKey::EndpointSlice(origin, object)) = (&*fact, &key)
        {
            let listed = self.slices.entry(slice.service.clone()).or_default();
            let place = (source_id.clone(), origin.clone(), object.clone());
            if let Err(index) = listed.binary_search(&place) {
                listed.reserve_exact(1);
                listed.insert(index, place);
            }
            touched.services.insert(slice.service.clone());
        }
        note(&key, touched);
        let Some(source) = self.sources.get_mut(source_id) else { return };
        let before = source.said.insert(key, Said { fact, part: part.clone(), listing });
        if before.is_none()
            && let Some(part) = source.parts.get_mut(&part)
        {
            part.facts += 1;
        }
    }

    /// Notes a change that a verifying listing makes.
    fn repair(&mut self, source_id: &SourceId, part: &Name, key: &FactKey, how: Repaired) {
        let source = self.sources.get_mut(source_id);
        let Some(part) = source.and_then(|source| source.parts.get_mut(part)) else { return };
        if !part.verifies {
            return;
        }
        part.repaired += 1;
        if self.repairs.len() < REPAIRS_MAX {
            self.repairs.push(Repair { source: source_id.clone(), key: key.clone(), how });
        }
    }

    fn remove(&mut self, source_id: &SourceId, key: &FactKey, touched: &mut Touched) {
        let Some(source) = self.sources.get_mut(source_id) else { return };
        let Some(said) = source.said.remove(key) else { return };
        if let Some(part) = source.parts.get_mut(&said.part) {
            part.facts = part.facts.saturating_sub(1);
        }
        if let (Fact::EndpointSlice(slice), FactKey::EndpointSlice(origin, object)) =
            (&*said.fact, key)
        {
            touched.services.insert(slice.service.clone());
            self.unindex(&slice.service, source_id, origin, object);
        }
        note(key, touched);
    }

    fn unindex(
        &mut self,
        service: &ServiceKey,
        source: &SourceId,
        origin: &Origin,
        object: &ObjectName,
    ) {
        if let Some(slices) = self.slices.get_mut(service) {
            slices.retain(|(s, o, name)| (s, o, name) != (source, origin, object));
            if slices.is_empty() {
                self.slices.remove(service);
            }
        }
    }

    /// What the sources say under one key, in order of their names.
    pub(crate) fn said<'a>(
        &'a self,
        key: &'a FactKey,
    ) -> impl Iterator<Item = (&'a SourceId, &'a Arc<Fact>)> {
        self.sources.iter().filter_map(move |(id, source)| Some((id, &source.said.get(key)?.fact)))
    }

    /// The declarations of a service, in order of source names.
    pub(crate) fn declarations(&self, key: &ServiceKey) -> Vec<(SourceId, Arc<Service>)> {
        let fact_key = FactKey::Service(key.clone());
        self.said(&fact_key)
            .filter_map(|(id, fact)| match &**fact {
                Fact::Service(service) => Some((id.clone(), service.clone())),
                _ => None,
            })
            .collect()
    }

    /// The slices of a service, in order of source, origin and name.
    pub(crate) fn slices<'a>(
        &'a self,
        key: &ServiceKey,
    ) -> impl Iterator<Item = &'a EndpointSlice> + use<'a> {
        self.slices.get(key).into_iter().flatten().filter_map(|(source, origin, object)| {
            let key = FactKey::EndpointSlice(origin.clone(), object.clone());
            match &*self.sources.get(source)?.said.get(&key)?.fact {
                Fact::EndpointSlice(slice) => Some(slice),
                _ => None,
            }
        })
    }
}

/// Notes what a fact of this key touches by itself.
fn note(key: &FactKey, touched: &mut Touched) {
    match key {
        FactKey::Namespace(name) => {
            touched.namespaces.insert(name.clone());
        }
        FactKey::Node(name) => {
            touched.nodes.insert(name.clone());
        }
        FactKey::Workload(name) => {
            touched.workloads.insert(name.clone());
        }
        FactKey::Service(key) => {
            touched.services.insert(key.clone());
        }
        FactKey::Rejection(kind, name) => {
            touched.rejections.insert((kind.clone(), name.clone()));
        }
        // The service it belongs to is in the fact, not in the key.
        FactKey::EndpointSlice(..) => {}
    }
}
