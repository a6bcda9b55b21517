//! The rest of the world that the catalog keeps: namespaces, nodes, workloads.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{Name, ObjectName, Reason};

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// `metadata.name`.
    pub name: Name,
    /// Labels of the object.
    pub labels: Arc<BTreeMap<Name, Name>>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: Name,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<Name>,
    /// Internal addresses.
    pub addresses: Vec<IpAddr>,
    /// The Ready condition.
    pub ready: bool,
}

/// A Pod, as far as it explains an endpoint. EndpointSlices say what is served;
/// workloads say why something is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Namespace and name.
    pub name: ObjectName,
    /// Distinguishes Pods of one name over time.
    pub uid: Name,
    /// Addresses, primary first.
    pub addresses: Vec<IpAddr>,
    /// Node it is bound to.
    pub node: Option<Name>,
    /// The ServiceAccount it runs as.
    pub service_account: Option<Name>,
    /// `status.phase`.
    pub phase: Name,
    /// The Ready condition is true.
    pub ready: bool,
    /// It has a deletion timestamp.
    pub terminating: bool,
    /// Reason and message of the Ready condition when it is not true.
    pub not_ready: Option<Arc<(Name, Name)>>,
    /// Only pretends to run (see the embedded cluster's hollow Pods).
    pub hollow: bool,
    /// Labels of the object.
    pub labels: Arc<BTreeMap<Name, Name>>,
}

/// Something that was seen and could not be used. It is shown with its reasons
/// and serves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What kind of object: `Pod`, `Service`, `EndpointSlice`, `file`.
    pub kind: Name,
    /// Which one.
    pub object: ObjectName,
    /// What is wrong with it; at least one.
    pub reasons: Vec<Reason>,
}
