//! What sources say, and how they say it.
//!
//! A source speaks in events. A full listing is bracketed by `Begin` and
//! `Complete`; changes between listings come one by one. An endpoint leaves the
//! catalog only by `Gone`, or by being absent from a listing that completed:
//! a listing that breaks off takes nothing away.

use std::sync::Arc;

use crate::{
    EndpointSlice, Name, Namespace, Node, ObjectName, Origin, Rejection, Service, ServiceKey,
    Workload,
};

/// Names a source: `kubernetes`, `pods`, or the configured name of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub Name);

impl SourceId {
    /// Names a source.
    pub fn new(text: &str) -> Self {
        Self(crate::name(text))
    }
}

impl std::fmt::Display for SourceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which fact. A source says at most one thing under one key; saying it again
/// replaces what it said before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FactKey {
    /// A namespace, by name.
    Namespace(Name),
    /// A node, by name.
    Node(Name),
    /// A Pod.
    Workload(ObjectName),
    /// A service declaration.
    Service(ServiceKey),
    /// A list of endpoints: the EndpointSlice object, or one registration. The
    /// origin keeps lists of different origins apart.
    EndpointSlice(Origin, ObjectName),
    /// An object that could not be used: kind and name.
    Rejection(Name, ObjectName),
}

impl std::fmt::Display for FactKey {
    /// The kind of object, and its name.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "Namespace {name}"),
            Self::Node(name) => write!(f, "Node {name}"),
            Self::Workload(object) => write!(f, "Pod {object}"),
            Self::Service(key) => write!(f, "Service {key}"),
            Self::EndpointSlice(_, object) => write!(f, "EndpointSlice {object}"),
            Self::Rejection(kind, object) => write!(f, "unusable {kind} {object}"),
        }
    }
}

/// What is known under a key. What snapshots show as it is, they share with the fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A namespace exists.
    Namespace(Namespace),
    /// A node exists.
    Node(Node),
    /// A Pod exists.
    Workload(Arc<Workload>),
    /// A service is declared.
    Service(Arc<Service>),
    /// Endpoints of a service.
    EndpointSlice(EndpointSlice),
    /// An object could not be used.
    Rejection(Rejection),
}

/// One thing that a source says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A full listing of this part of the source begins. A source that watches
    /// several kinds lists each on its own; `part` names it (`services`, ...).
    Begin {
        /// Which part.
        part: Name,
    },
    /// The same, of the very revision that this source has told of before: whatever it
    /// changes had been wrong.
    Verify {
        /// Which part.
        part: Name,
    },
    /// A fact is so.
    Sighting {
        /// The part that tells it.
        part: Name,
        /// Under which key.
        key: FactKey,
        /// What is so. Boxed: a fact is far larger than its sibling events.
        fact: Box<Fact>,
    },
    /// A fact is no longer so.
    Gone {
        /// The part that tells it.
        part: Name,
        /// Which fact.
        key: FactKey,
    },
    /// The listing that began is complete: what was not sighted since `Begin`
    /// is gone.
    Complete {
        /// Which part.
        part: Name,
    },
    /// A part lost its connection. Its last good state stays, its age is
    /// published, and a listing of it that was under way counts for nothing.
    Lost {
        /// Which part.
        part: Name,
        /// What went wrong, for people.
        error: Name,
    },
    /// A part is connected and up to date, even where nothing changed
    /// (bookmarks, heartbeats).
    Alive {
        /// Which part.
        part: Name,
    },
}

impl Event {
    /// The part that speaks.
    pub fn part(&self) -> &Name {
        match self {
            Self::Begin { part }
            | Self::Verify { part }
            | Self::Sighting { part, .. }
            | Self::Gone { part, .. }
            | Self::Complete { part }
            | Self::Lost { part, .. }
            | Self::Alive { part } => part,
        }
    }
}

/// An event with its origin in time and space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceReport {
    /// Who says it.
    pub source: SourceId,
    /// The source's own revision (resourceVersion), empty where it has none.
    pub revision: Name,
    /// When it was observed, in milliseconds of Unix time.
    pub observed_at_ms: u64,
    /// What is said.
    pub event: Event,
}
