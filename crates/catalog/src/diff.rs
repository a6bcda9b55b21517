//! Differences between two snapshots.

use std::sync::Arc;

use portolan_model::{
    Name, Namespace, Node, ObjectName, Origin, Rejection, ServiceKey, SourceId, Version, Workload,
};

use crate::snapshot::{ServiceEntry, SourceStatus};

/// One value that differs. Both absent never occurs.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<K, V> {
    /// Which value.
    pub key: K,
    /// As it was; `None`: it is new.
    pub before: Option<Arc<V>>,
    /// As it is; `None`: it is gone.
    pub after: Option<Arc<V>>,
}

/// Where a service stands: its shard (origin and namespace), and its name.
pub type ServicePlace = ((Origin, Name), Name);

/// What turns one snapshot into another: `a.apply(&a.diff(&b)) == b`.
#[derive(Clone, Debug, PartialEq)]
pub struct Diff {
    /// The version it starts from.
    pub from: Version,
    /// The version it leads to.
    pub to: Version,
    /// When that version was committed, in milliseconds of Unix time.
    pub at_ms: u64,
    /// Services with their endpoints.
    pub services: Vec<Change<ServicePlace, ServiceEntry>>,
    /// Pods.
    pub workloads: Vec<Change<(Name, Name), Workload>>,
    /// Namespaces.
    pub namespaces: Vec<Change<Name, Namespace>>,
    /// Nodes.
    pub nodes: Vec<Change<Name, Node>>,
    /// Objects that could not be used.
    pub rejections: Vec<Change<(Name, ObjectName), Rejection>>,
    /// Sources.
    pub sources: Vec<Change<SourceId, SourceStatus>>,
}

impl Diff {
    /// Whether nothing but the version differs.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
            && self.workloads.is_empty()
            && self.namespaces.is_empty()
            && self.nodes.is_empty()
            && self.rejections.is_empty()
            && self.sources.is_empty()
    }

    /// The services that differ.
    pub fn service_keys(&self) -> impl Iterator<Item = ServiceKey> + '_ {
        self.services.iter().map(|change| {
            let ((origin, namespace), name) = &change.key;
            ServiceKey { origin: origin.clone(), namespace: namespace.clone(), name: name.clone() }
        })
    }
}
