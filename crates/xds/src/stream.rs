//! One stream of a client: what it asked for, what it holds, what it is told next.
//!
//! ```text
//!   request --take--> Stream --next(store)--> response, or nothing to say
//! ```
//!
//! A pure state machine without queue or clock. Of each type at most one response is
//! without an answer (rule R6); what changes meanwhile is told with the next one, in
//! its newest form. Both variants of the protocol run on the same state:
//!
//! - R1: news goes out clusters first, then endpoints, listeners, routes. Clusters and
//!   endpoints are taken away last, once nothing is to be said, or without an answer,
//!   of listeners and routes.
//! - R2: a cluster that is sent makes its endpoints due again, changed or not: Envoy
//!   waits for them. What a client says to hold from before counts for clusters and
//!   listeners only.
//! - R3: to ask for a name again is to want it again (delta).
//! - R4: a name that does not exist is told as removed at once (delta).
//! - R7: a response ends at about 1 MiB, the rest follows with the next (delta).
//! - R8: an empty first request, or `*`, asks for everything.
//!
//! A refusal (NACK) keeps what the client has: nothing is sent again until it changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use portolan_model::Name;

use crate::store::{Changed, Kind, Resource, Store};

/// Asks for everything of a type.
const WILDCARD: &str = "*";

/// Names that a stream may ask for, of all types together.
pub const NAMES_MAX: usize = 100_000;

/// Where a delta response ends: clients take 4 MiB, and Envoy's main thread stands
/// still while it reads.
const RESPONSE_BYTES: usize = 1 << 20;

/// Which variant of the protocol a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Each response of clusters or listeners is complete: what is absent is gone.
    StateOfTheWorld,
    /// Each response tells differences.
    Delta,
}

/// What a request says of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// All that are wanted from now on (state of the world).
    Only(Vec<Name>),
    /// What changes of the wish (delta).
    Differently {
        /// Wanted, too.
        subscribe: Vec<Name>,
        /// Wanted no more.
        unsubscribe: Vec<Name>,
        /// What the client holds from before, by version.
        known: BTreeMap<Name, u64>,
    },
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Of which type.
    pub kind: Kind,
    /// The response that it answers. `None`: it answers none.
    pub nonce: Option<u64>,
    /// Why that response was refused.
    pub error: Option<String>,
    /// What is wanted.
    pub names: Names,
}

/// A response.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Of which type.
    pub kind: Kind,
    /// What its answer will carry.
    pub nonce: u64,
    /// The revision that it brings the client towards.
    pub revision: u64,
    /// What is as given.
    pub resources: Vec<Arc<Resource>>,
    /// What is not there (delta).
    pub removed: Vec<Name>,
}

/// The client asked for more names than a stream may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyNames;

/// One stream.
#[derive(Debug)]
pub struct Stream {
    variant: Variant,
    nonce: u64,
    subscriptions: BTreeMap<Kind, Subscription>,
}

/// What the client was told of a name.
#[derive(Clone, Debug)]
enum Held {
    /// That it does not exist.
    Nothing,
    /// It says so itself.
    Known(u64),
    /// This.
    Sent(Arc<Resource>),
}

impl Held {
    fn version(&self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Known(version) => Some(*version),
            Self::Sent(resource) => Some(resource.version),
        }
    }
}

#[derive(Debug, Default)]
struct Subscription {
    wildcard: bool,
    /// It has asked for names once: an empty list means none from then on.
    named: bool,
    names: BTreeSet<Name>,
    held: BTreeMap<Name, Held>,
    /// Told next, changed or not.
    due: BTreeSet<Name>,
    /// Looked at next: what was left over.
    left: BTreeSet<Name>,
    /// A response is owed, even with nothing in it.
    owes: bool,
    read_up_to: u64,
    last_nonce: Option<u64>,
    /// The response without an answer: its nonce and revision.
    in_flight: Option<(u64, u64)>,
    acknowledged: u64,
    refusal: Option<String>,
}

impl Stream {
    /// A stream that has asked for nothing yet.
    pub fn new(variant: Variant) -> Self {
        Self { variant, nonce: 0, subscriptions: BTreeMap::new() }
    }

    /// Why the client refused the last response of a type, in its own words.
    pub fn refusal(&self, kind: Kind) -> Option<&str> {
        self.subscriptions.get(&kind)?.refusal.as_deref()
    }

    /// The revision that the client has accepted of every type it asks for. `None`: it
    /// asks for nothing.
    pub fn acknowledged(&self) -> Option<u64> {
        self.subscriptions.values().map(|own| own.acknowledged).min()
    }

    /// Takes a request in.
    pub fn take(&mut self, request: Request) -> Result<(), TooManyNames> {
        let own = self.subscriptions.entry(request.kind).or_default();
        // A wish that crossed a response on its way is said again with the answer to
        // that response (state of the world); differences are said once and count.
        let stale =
            request.nonce.is_some() && own.last_nonce.is_some() && request.nonce != own.last_nonce;
        if stale && self.variant == Variant::StateOfTheWorld {
            return Ok(());
        }
        if let Some((nonce, revision)) = own.in_flight
            && request.nonce == Some(nonce)
        {
            own.in_flight = None;
            own.refusal = request.error;
            if own.refusal.is_none() {
                own.acknowledged = revision;
            }
        }
        match request.names {
            Names::Only(names) => own.want_only(request.kind, names),
            Names::Differently { subscribe, unsubscribe, known } => {
                own.want_differently(request.kind, subscribe, unsubscribe, known);
            }
        }
        let names: usize = self.subscriptions.values().map(|own| own.names.len()).sum();
        if names > NAMES_MAX { Err(TooManyNames) } else { Ok(()) }
    }

    /// What the client is to be told next. `None`: nothing, until the store or the
    /// client says something.
    pub fn next(&mut self, store: &Store) -> Option<Response> {
        let unsettled = |own: &Subscription, kind| {
            own.in_flight.is_some() || !own.news(kind, store, self.variant).is_empty()
        };
        let may_remove = [Kind::Listener, Kind::Routes]
            .into_iter()
            .all(|kind| self.subscriptions.get(&kind).is_none_or(|own| !unsettled(own, kind)));
        Kind::ALL.into_iter().find_map(|kind| {
            let own = self.subscriptions.get_mut(&kind)?;
            let withhold = kind < Kind::Listener && !may_remove;
            let told = own.tell(kind, store, self.variant, withhold)?;
            self.nonce += 1;
            own.last_nonce = Some(self.nonce);
            own.in_flight = Some((self.nonce, store.revision()));
            let (resources, removed, changed) = told;
            if kind == Kind::Cluster
                && let Some(endpoints) = self.subscriptions.get_mut(&Kind::Endpoints)
            {
                let again = changed.into_iter().filter(|name| endpoints.names.contains(name));
                let again: Vec<Name> = again.collect();
                endpoints.due.extend(again);
            }
            Some(Response {
                kind,
                nonce: self.nonce,
                revision: store.revision(),
                resources,
                removed,
            })
        })
    }
}

/// Resources, names of what is not there, names of what is new.
type Told = (Vec<Arc<Resource>>, Vec<Name>, Vec<Name>);

impl Subscription {
    fn want_only(&mut self, kind: Kind, names: Vec<Name>) {
        let was_wildcard = self.wildcard;
        let mut names: BTreeSet<Name> = names.into_iter().collect();
        let asks_for_all = names.remove(WILDCARD);
        self.wildcard = is_complete(kind) && (asks_for_all || names.is_empty() && !self.named);
        self.named |= asks_for_all || !names.is_empty();
        self.owes |= self.wildcard && !was_wildcard;
        self.due.extend(names.difference(&self.names).cloned());
        self.names = names;
        self.forget_unwanted();
    }

    fn want_differently(
        &mut self,
        kind: Kind,
        subscribe: Vec<Name>,
        unsubscribe: Vec<Name>,
        known: BTreeMap<Name, u64>,
    ) {
        let is_first = !self.named && !self.wildcard;
        if is_first && subscribe.is_empty() && is_complete(kind) {
            (self.wildcard, self.owes) = (true, true);
        }
        for name in subscribe {
            self.named = true;
            if &*name == WILDCARD {
                self.owes |= !self.wildcard;
                self.wildcard = true;
            } else {
                self.due.insert(name.clone());
                self.names.insert(name);
            }
        }
        for name in unsubscribe {
            self.named = true;
            if &*name == WILDCARD {
                self.wildcard = false;
            } else if self.names.remove(&name) && self.wildcard {
                // It is wanted still, as one of all: the client has to hear of it.
                self.due.insert(name);
            }
        }
        if is_first && is_complete(kind) {
            for (name, version) in known {
                self.due.remove(&name);
                self.left.insert(name.clone());
                self.held.insert(name, Held::Known(version));
            }
        }
        self.forget_unwanted();
    }

    fn forget_unwanted(&mut self) {
        let (wildcard, names) = (self.wildcard, &self.names);
        let wanted = |name: &Name| wildcard || names.contains(name);
        self.held.retain(|name, _| wanted(name));
        self.due.retain(wanted);
        self.left.retain(wanted);
    }

    fn wants(&self, name: &Name) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Names of which there is something to say.
    fn news(&self, kind: Kind, store: &Store, variant: Variant) -> BTreeSet<Name> {
        let mut names: BTreeSet<Name> = self.due.union(&self.left).cloned().collect();
        let changed = match self.owes {
            true => Changed::Unknown,
            false => store.changed(kind, self.read_up_to),
        };
        match changed {
            Changed::Names(changed) => names.extend(changed),
            Changed::Unknown => {
                names.extend(self.held.keys().chain(&self.names).cloned());
                names.extend(store.all(kind).map(|resource| resource.name.clone()));
            }
        }
        names.retain(|name| {
            let now = store.get(kind, name).map(|resource| resource.version);
            let before = self.held.get(name).and_then(Held::version);
            // State of the world has no words for what does not exist, but for absence
            // from a complete list.
            let sayable = variant == Variant::Delta || now.is_some() || is_complete(kind);
            self.wants(name) && sayable && (now != before || self.due.contains(name))
        });
        names
    }

    /// Decides what to say, and takes it as said.
    fn tell(
        &mut self,
        kind: Kind,
        store: &Store,
        variant: Variant,
        withhold: bool,
    ) -> Option<Told> {
        if self.in_flight.is_some() {
            return None;
        }
        let news = self.news(kind, store, variant);
        let (mut resources, mut removed, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        let (mut left, mut bytes) = (BTreeSet::new(), 0);
        for name in news {
            let is_due = self.due.contains(&name);
            match store.get(kind, &name) {
                Some(_) if variant == Variant::Delta && bytes >= RESPONSE_BYTES => {
                    left.insert(name);
                    continue;
                }
                Some(resource) => {
                    bytes += resource.body.value.len();
                    resources.push(resource.clone());
                    changed.push(name.clone());
                    self.held.insert(name.clone(), Held::Sent(resource.clone()));
                }
                None if withhold && !is_due => {
                    left.insert(name);
                    continue;
                }
                None => {
                    removed.push(name.clone());
                    match self.names.contains(&name) {
                        true => self.held.insert(name.clone(), Held::Nothing),
                        false => self.held.remove(&name),
                    };
                }
            }
            self.due.remove(&name);
        }
        self.due.retain(|name| left.contains(name));
        self.left = left;
        self.read_up_to = store.revision();
        let owes = std::mem::take(&mut self.owes);
        if resources.is_empty() && removed.is_empty() && !owes {
            if self.refusal.is_none() && self.left.is_empty() {
                self.acknowledged = store.revision();
            }
            return None;
        }
        if variant == Variant::StateOfTheWorld {
            removed.clear();
            if is_complete(kind) {
                // All of it, with what must not be taken away yet.
                let sent = self.held.values().filter_map(|held| match held {
                    Held::Sent(resource) => Some(resource.clone()),
                    Held::Nothing | Held::Known(_) => None,
                });
                resources = sent.collect();
            }
        }
        Some((resources, removed, changed))
    }
}

/// Whether responses of a type are complete, so that absence says something; only
/// these types can be asked for as a whole.
fn is_complete(kind: Kind) -> bool {
    matches!(kind, Kind::Cluster | Kind::Listener)
}

#[cfg(test)]
mod tests;
