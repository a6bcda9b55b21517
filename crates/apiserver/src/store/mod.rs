//! One ordered log of object revisions: what etcd is to the real API server.
//!
//! Data flows one way. A request handler asks for a [`Write`] with the revision
//! it expects to replace; the single writer thread checks the expectation,
//! assigns the next revision, encodes the object once, makes the batch durable
//! (one redb transaction and one fsync for all writes that waited), and only
//! then publishes: index first, then watchers, then the waiting caller. Lists
//! and watchers share the encoded bytes of a [`Record`]; nothing here parses
//! JSON.

use std::{cmp::Ordering, sync::Arc};

use bytes::Bytes;

/// Names one stored object. Keys sort by resource, namespace, name: the order
/// of lists and of `continue` tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// `group/resource`, or the bare resource for the core group: `pods`, `apps/deployments`.
    pub resource: Arc<str>,
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.resource, &self.namespace, &self.name).cmp(&(
            &other.resource,
            &other.namespace,
            &other.name,
        ))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One revision of one object, in the bytes that clients receive.
#[derive(Debug)]
pub struct Record {
    /// Which object.
    pub key: Key,
    /// The revision that wrote it; equals `metadata.resourceVersion` inside `bytes`.
    pub revision: u64,
    /// The object as JSON.
    pub bytes: Bytes,
}
