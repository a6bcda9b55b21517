//! Which endpoints take traffic: the one place where that is decided.
//!
//! The rules equal kube-proxy's (pkg/proxy/topology.go of Kubernetes 1.33):
//! ready endpoints, narrowed by hints when every ready endpoint carries them;
//! if none is ready, those that still serve while terminating; a Local policy
//! keeps to the client's node.

use portolan_model::{ClientView, Placed, TrafficPolicy};

use crate::snapshot::ServiceEntry;

/// Where traffic comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// From inside the cluster: `internalTrafficPolicy` rules.
    Internal,
    /// Through node ports and load balancers: `externalTrafficPolicy` rules.
    External,
}

/// The endpoints that take traffic, and what to do when there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen<'a> {
    /// In the order of the entry.
    pub endpoints: Vec<&'a Placed>,
    /// Whether any endpoint anywhere could have been chosen. With none, traffic
    /// is rejected; with some elsewhere (Local policy), it is dropped.
    pub any_elsewhere: bool,
}

/// Chooses for a client.
pub fn choose<'a>(entry: &'a ServiceEntry, view: &ClientView, traffic: Traffic) -> Chosen<'a> {
    let policy = match traffic {
        Traffic::Internal => entry.service.internal_policy,
        Traffic::External => entry.service.external_policy,
    };
    let cluster = cluster_pool(entry, view);
    let any = !cluster.is_empty();
    let endpoints = match policy {
        TrafficPolicy::Cluster => cluster,
        TrafficPolicy::Local => local_pool(entry, view),
    };
    Chosen { any_elsewhere: any && endpoints.is_empty(), endpoints }
}

fn cluster_pool<'a>(entry: &'a ServiceEntry, view: &ClientView) -> Vec<&'a Placed> {
    let ready: Vec<&Placed> = entry.served().collect();
    if ready.is_empty() {
        return terminating(entry).collect();
    }
    if let Some(node) = &view.node
        && let Some(near) =
            hinted(&ready, |hints| hints.nodes.contains(node), |h| !h.nodes.is_empty())
    {
        return near;
    }
    if let Some(zone) = &view.zone
        && let Some(near) =
            hinted(&ready, |hints| hints.zones.contains(zone), |h| !h.zones.is_empty())
    {
        return near;
    }
    ready
}

fn local_pool<'a>(entry: &'a ServiceEntry, view: &ClientView) -> Vec<&'a Placed> {
    let here = |placed: &&Placed| view.node.is_some() && placed.endpoint.node == view.node;
    let ready: Vec<&Placed> = entry.served().filter(here).collect();
    if ready.is_empty() { terminating(entry).filter(here).collect() } else { ready }
}

fn terminating(entry: &ServiceEntry) -> impl Iterator<Item = &Placed> {
    entry.endpoints.iter().filter(|placed| {
        let conditions = placed.endpoint.conditions;
        conditions.serving && conditions.terminating && placed.endpoint.weight > 0
    })
}

/// Narrows to hinted endpoints: all-or-nothing, as one endpoint without a hint
/// means that the hints are not (or not yet) meant to be complete.
fn hinted<'a>(
    ready: &[&'a Placed],
    here: impl Fn(&portolan_model::Hints) -> bool,
    present: impl Fn(&portolan_model::Hints) -> bool,
) -> Option<Vec<&'a Placed>> {
    let complete = ready
        .iter()
        .all(|placed| placed.endpoint.hints.as_ref().is_some_and(|hints| present(hints)));
    if !complete {
        return None;
    }
    let near: Vec<&Placed> = ready
        .iter()
        .copied()
        .filter(|placed| placed.endpoint.hints.as_ref().is_some_and(|hints| here(hints)))
        .collect();
    (!near.is_empty()).then_some(near)
}
