//! One stream of a client: what it asked for, what it holds, what it is told next.
//!
//! ```text
//!   request --take--> Stream --next(shown)--> response, or nothing to say
//! ```
//!
//! A pure state machine without queue; the time is handed in. Of each type at most one
//! response is without an answer (rule R6); what changes meanwhile is told with the next
//! one, in its newest form. Both variants of the protocol run on the same state:
//!
//! - R1: news goes out clusters first, then endpoints, listeners, routes. Clusters and
//!   endpoints are taken away last, once nothing is to be said, or without an answer,
//!   of listeners and routes; or after half a minute, if the client does not answer.
//! - R2: a cluster that is sent makes its endpoints due again, changed or not: Envoy
//!   waits for them. So what a client says to hold from before does not count for
//!   endpoints whose cluster was sent on this stream, nor for routes once a listener was.
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

use crate::store::{Changed, Kept, Kind, Resource, Shown};

/// Asks for everything of a type.
const WILDCARD: &str = "*";

/// Names that a stream may ask for, of all types together.
pub const NAMES_MAX: usize = 100_000;

/// Where a delta response ends: clients take 4 MiB, and Envoy's main thread stands
/// still while it reads.
const RESPONSE_BYTES: usize = 1 << 20;

/// How long clusters and endpoints that are gone wait for a client to let go of what
/// refers to them.
pub const REMOVE_AFTER_MS: u64 = 30_000;

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

/// What a stream wants to hear of, or no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// One name of a type.
    Name(Kind, Name, bool),
    /// Everything of a type.
    All(Kind, bool),
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
    /// Since when something gone waits for the client, in milliseconds.
    withheld_since: Option<u64>,
    /// What its interest has changed by since somebody asked.
    interest: Vec<Interest>,
}

/// How far a client is with one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has accepted all that there is.
    Synced,
    /// It was told, and has not answered; or it is to be told.
    Stale,
    /// It refused what it was told last, in these words.
    Refused(String),
}

/// What the client was told of a name, where that is not what was shown last.
#[derive(Clone, Debug)]
enum Held {
    /// That it does not exist, or nothing at all.
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
    /// What was shown when the client was told last: that it holds, as far as it wants
    /// it, but for `otherwise`.
    told: Kept,
    otherwise: BTreeMap<Name, Held>,
    /// What it holds from before and was not sent on this stream.
    unsent: BTreeSet<Name>,
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
        Self {
            variant,
            nonce: 0,
            subscriptions: BTreeMap::new(),
            withheld_since: None,
            interest: Vec::new(),
        }
    }

    /// What it wants to hear of that it did not before, and the other way round, since
    /// the last call.
    pub fn take_interest(&mut self) -> Vec<Interest> {
        std::mem::take(&mut self.interest)
    }

    /// All that it wants to hear of.
    pub fn interests(&self) -> impl Iterator<Item = Interest> {
        self.subscriptions.iter().flat_map(|(kind, own)| {
            let names = own.names.iter().map(|name| Interest::Name(*kind, name.clone(), true));
            names.chain(own.wildcard.then_some(Interest::All(*kind, true)))
        })
    }

    /// The types that it has asked for.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.subscriptions.keys().copied()
    }

    /// How far the client is with a type. `None`: it never asked for it.
    pub fn progress(&self, kind: Kind, shown: &Shown<'_>) -> Option<Progress> {
        let own = self.subscriptions.get(&kind)?;
        Some(match &own.refusal {
            Some(refusal) => Progress::Refused(refusal.clone()),
            None if own.in_flight.is_some() || own.owes => Progress::Stale,
            None if own.news(kind, shown, self.variant).is_empty() => Progress::Synced,
            None => Progress::Stale,
        })
    }

    /// When there may be something to say without anybody having said anything, in
    /// milliseconds.
    pub fn due_at_ms(&self) -> Option<u64> {
        self.withheld_since.map(|since| since.saturating_add(REMOVE_AFTER_MS))
    }

    /// What it was told of a type and holds, by name: for who asks (CSDS).
    pub fn holds(&self, kind: Kind) -> Vec<Arc<Resource>> {
        self.subscriptions.get(&kind).map(Subscription::holds).unwrap_or_default()
    }

    /// Why the client refused the last response of a type, in its own words.
    pub fn refusal(&self, kind: Kind) -> Option<&str> {
        self.subscriptions.get(&kind)?.refusal.as_deref()
    }

    /// The revision that the client has accepted of every type it asks for; 0: nothing of
    /// one of them. `None`: it asks for nothing.
    pub fn acknowledged(&self) -> Option<u64> {
        self.subscriptions.values().map(|own| own.acknowledged).min()
    }

    /// Takes a request in.
    pub fn take(&mut self, mut request: Request) -> Result<(), TooManyNames> {
        if let Names::Differently { known, .. } = &mut request.names {
            known.retain(|name, _| !self.was_parent_sent(request.kind, name));
        }
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
        let was_wildcard = own.wildcard;
        let kind = request.kind;
        let before = match request.names {
            Names::Only(names) => own.want_only(kind, names),
            Names::Differently { subscribe, unsubscribe, known } => {
                own.want_differently(kind, subscribe, unsubscribe, known)
            }
        };
        let interest = &mut self.interest;
        interest.extend(before.into_iter().map(|(name, wants)| Interest::Name(kind, name, wants)));
        interest
            .extend((own.wildcard != was_wildcard).then_some(Interest::All(kind, own.wildcard)));
        // Who asks for children for the first time says what it holds of them; what was
        // sent of their parents matters no more then.
        let parents = match kind {
            Kind::Endpoints => self.subscriptions.get_mut(&Kind::Cluster),
            Kind::Routes => self.subscriptions.get_mut(&Kind::Listener),
            Kind::Cluster | Kind::Listener => None,
        };
        if let Some(parents) = parents {
            parents.unsent.clear();
        }
        let names: usize = self.subscriptions.values().map(|own| own.names.len()).sum();
        if names > NAMES_MAX { Err(TooManyNames) } else { Ok(()) }
    }

    /// Whether the parent of a resource was sent on this stream: then the client waits
    /// for it, whatever it holds from before (R2).
    fn was_parent_sent(&self, kind: Kind, name: &Name) -> bool {
        let of = |kind| self.subscriptions.get(&kind);
        match kind {
            Kind::Cluster | Kind::Listener => false,
            Kind::Endpoints => of(Kind::Cluster).is_some_and(|own| own.has_sent(name)),
            // Which listener refers to which routes is not known here.
            Kind::Routes => of(Kind::Listener)
                .is_some_and(|own| own.told.names().any(|name| own.has_sent(name))),
        }
    }

    /// What the client is to be told next. `None`: nothing, until the store, the client
    /// or the time ([`Self::due_at_ms`]) says something.
    pub fn next(&mut self, shown: &Shown<'_>, now_ms: u64) -> Option<Response> {
        let unsettled = |own: &Subscription, kind| {
            own.in_flight.is_some() || !own.news(kind, shown, self.variant).is_empty()
        };
        let overdue = self.due_at_ms().is_some_and(|due| now_ms >= due);
        let may_remove = overdue
            || [Kind::Listener, Kind::Routes]
                .into_iter()
                .all(|kind| self.subscriptions.get(&kind).is_none_or(|own| !unsettled(own, kind)));
        let response = self.tell(shown, may_remove);
        let withholds = self.subscriptions.iter().any(|(kind, own)| own.withholds(*kind, shown));
        self.withheld_since = withholds.then(|| self.withheld_since.unwrap_or(now_ms));
        response
    }

    fn tell(&mut self, shown: &Shown<'_>, may_remove: bool) -> Option<Response> {
        Kind::ALL.into_iter().find_map(|kind| {
            let own = self.subscriptions.get_mut(&kind)?;
            let withhold = kind < Kind::Listener && !may_remove;
            let told = own.tell(kind, shown, self.variant, withhold)?;
            self.nonce += 1;
            own.last_nonce = Some(self.nonce);
            own.in_flight = Some((self.nonce, shown.revision()));
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
                revision: shown.revision(),
                resources,
                removed,
            })
        })
    }
}

/// Resources, names of what is not there, names of what is new.
type Told = (Vec<Arc<Resource>>, Vec<Name>, Vec<Name>);

impl Subscription {
    /// Returns the names that are wanted now and were not before, and the other way round.
    fn want_only(&mut self, kind: Kind, names: Vec<Name>) -> Vec<(Name, bool)> {
        let was_wildcard = self.wildcard;
        let mut names: BTreeSet<Name> = names.into_iter().collect();
        let asks_for_all = names.remove(WILDCARD);
        self.wildcard = is_complete(kind) && (asks_for_all || names.is_empty() && !self.named);
        self.named |= asks_for_all || !names.is_empty();
        self.owes |= self.wildcard && !was_wildcard;
        let new = names.difference(&self.names).map(|name| (name.clone(), true));
        let old = self.names.difference(&names).map(|name| (name.clone(), false));
        let differences: Vec<_> = new.chain(old).collect();
        self.due.extend(differences.iter().filter(|(_, new)| *new).map(|(name, _)| name.clone()));
        self.names = names;
        self.forget_unwanted();
        differences
    }

    /// Returns the names that are wanted now and were not before, and the other way round.
    fn want_differently(
        &mut self,
        kind: Kind,
        subscribe: Vec<Name>,
        unsubscribe: Vec<Name>,
        known: BTreeMap<Name, u64>,
    ) -> Vec<(Name, bool)> {
        let mut differences = Vec::new();
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
                if self.names.insert(name.clone()) {
                    differences.push((name, true));
                }
            }
        }
        for name in unsubscribe {
            self.named = true;
            if &*name == WILDCARD {
                self.wildcard = false;
            } else if self.names.remove(&name) {
                differences.push((name.clone(), false));
                if self.wildcard {
                    // It is wanted still, as one of all: the client has to hear of it.
                    self.due.insert(name);
                }
            }
        }
        if is_first {
            for (name, version) in known {
                self.due.remove(&name);
                self.left.insert(name.clone());
                self.otherwise.insert(name, Held::Known(version));
            }
        }
        self.forget_unwanted();
        differences
    }

    fn forget_unwanted(&mut self) {
        let (wildcard, names) = (self.wildcard, &self.names);
        let wanted = |name: &Name| wildcard || names.contains(name);
        self.otherwise.retain(|name, _| wanted(name));
        self.unsent.retain(wanted);
        self.due.retain(wanted);
        self.left.retain(wanted);
    }

    fn wants(&self, name: &Name) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// What the client holds of a name that it wants.
    fn held(&self, name: &Name) -> Option<u64> {
        match self.otherwise.get(name) {
            Some(held) => held.version(),
            None => self.told.get(name).map(|resource| resource.version),
        }
    }

    /// What was sent on this stream, and is held.
    fn holds(&self) -> Vec<Arc<Resource>> {
        let names: BTreeSet<&Name> = self.told.names().chain(self.otherwise.keys()).collect();
        let sent = names.into_iter().filter(|name| self.has_sent(name));
        sent.filter_map(|name| match self.as_held(name) {
            Held::Sent(resource) => Some(resource),
            Held::Nothing | Held::Known(_) => None,
        })
        .collect()
    }

    /// Whether a resource was sent on this stream, and is held.
    fn has_sent(&self, name: &Name) -> bool {
        match self.otherwise.get(name) {
            Some(held) => matches!(held, Held::Sent(_)),
            None => {
                self.wants(name) && !self.unsent.contains(name) && self.told.get(name).is_some()
            }
        }
    }

    /// Names of which there is something to say, each once.
    fn news(&self, kind: Kind, shown: &Shown<'_>, variant: Variant) -> Vec<Name> {
        // Who asks for everything and holds nothing gets everything: that needs no
        // comparison, and after a restart of the server all of them come at once.
        let holds_nothing = self.told.is_empty() && self.otherwise.is_empty();
        if self.wildcard && self.owes && holds_nothing && self.names.is_empty() {
            return shown.names(kind).cloned().collect();
        }
        let mut names: BTreeSet<Name> = self.due.union(&self.left).cloned().collect();
        let changed = match self.owes {
            true => Changed::Unknown,
            false => shown.changed(kind, self.read_up_to),
        };
        match changed {
            Changed::Names(changed) => names.extend(changed),
            Changed::Unknown => {
                names.extend(self.otherwise.keys().chain(&self.names).cloned());
                if self.wildcard {
                    names.extend(self.told.names().cloned());
                    names.extend(shown.names(kind).cloned());
                }
            }
        }
        names.retain(|name| {
            let now = shown.get(kind, name).map(|resource| resource.version);
            let before = self.held(name);
            // State of the world has no words for what does not exist, but for absence
            // from a complete list.
            let sayable = variant == Variant::Delta || now.is_some() || is_complete(kind);
            self.wants(name) && sayable && (now != before || self.due.contains(name))
        });
        names.into_iter().collect()
    }

    /// What the client holds of a name, to be kept.
    fn as_held(&self, name: &Name) -> Held {
        match (self.otherwise.get(name), self.told.get(name)) {
            (Some(held), _) => held.clone(),
            (None, Some(resource)) => Held::Sent(resource.clone()),
            (None, None) => Held::Nothing,
        }
    }

    /// Whether something that is gone waits to be told.
    fn withholds(&self, kind: Kind, shown: &Shown<'_>) -> bool {
        kind < Kind::Listener && self.left.iter().any(|name| shown.get(kind, name).is_none())
    }

    /// Decides what to say, and takes it as said.
    fn tell(
        &mut self,
        kind: Kind,
        shown: &Shown<'_>,
        variant: Variant,
        withhold: bool,
    ) -> Option<Told> {
        if self.in_flight.is_some() {
            return None;
        }
        let news = self.news(kind, shown, variant);
        let (mut resources, mut removed, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        // What is not told now stays as it was.
        let (mut left, mut bytes) = (BTreeMap::new(), 0);
        for name in news {
            let is_due = self.due.contains(&name);
            match shown.get(kind, &name) {
                Some(_) if variant == Variant::Delta && bytes >= RESPONSE_BYTES => {
                    left.insert(name.clone(), self.as_held(&name));
                    continue;
                }
                Some(resource) => {
                    bytes += resource.size();
                    resources.push(resource.clone());
                    changed.push(name.clone());
                }
                None if withhold && !is_due => {
                    left.insert(name.clone(), self.as_held(&name));
                    continue;
                }
                None => removed.push(name.clone()),
            }
            self.due.remove(&name);
            self.unsent.remove(&name);
            self.otherwise.remove(&name);
        }
        self.due.retain(|name| left.contains_key(name));
        // What it holds from before and is as it is now.
        let same = std::mem::take(&mut self.otherwise).into_iter();
        let same =
            same.filter(|(name, held)| matches!(held, Held::Known(_)) && !left.contains_key(name));
        self.unsent.extend(same.map(|(name, _)| name));
        self.left = left.keys().cloned().collect();
        self.otherwise = left;
        self.told = shown.keep(kind);
        self.read_up_to = shown.revision();
        let owes = std::mem::take(&mut self.owes);
        if resources.is_empty() && removed.is_empty() && !owes {
            if self.refusal.is_none() && self.left.is_empty() {
                self.acknowledged = shown.revision();
            }
            return None;
        }
        if variant == Variant::StateOfTheWorld {
            removed.clear();
            if is_complete(kind) {
                // All of it, with what must not be taken away yet.
                resources = self.holds();
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
