//! Whether an object may be stored: 422 with a cause per field.
//!
//! [`create`] looks at a new object, [`update`] at a change, [`update_status`]
//! at a change through `/status`; all after defaults, and for Services after
//! allocation. An empty list means yes.
//! Counterpart of upstream's `pkg/apis/*/validation`, whose words and field
//! paths are used because people and programs search for them. What upstream
//! checks and this does not yet is said at the module concerned.

mod address;
mod affinity;
mod containers;
mod data;
mod endpoints;
mod env;
mod events;
mod go;
mod json;
mod labels;
mod leases;
mod meta;
mod mounts;
mod nodes;
mod order;
mod pods;
mod probes;
mod rbac;
mod report;
mod resources;
mod security;
mod services;
mod status;
mod syntax;
mod volumes;
mod workloads;

#[cfg(test)]
mod tests;

use serde_json::Value;

use self::{order::Step, report::Report};
use crate::{Cause, Kind, registry::Cidr};

pub(crate) use address::parse as parse_address;
pub(super) use syntax::dns_label as label_faults;

/// What validation needs to know of the cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// Ranges whose addresses may be endpoints although they are loopback addresses: the one
    /// deliberate difference from upstream.
    pub pod_cidrs: &'a [Cidr],
}

/// What keeps a text from being the key of a label.
pub(crate) fn qualified_name_faults(text: &str) -> Vec<String> {
    syntax::qualified_name(text)
}

/// What keeps a text from being the value of a label.
pub(crate) fn label_value_faults(text: &str) -> Vec<String> {
    syntax::label_value(text)
}

/// What is wrong with a new object.
pub fn create(kind: &Kind, object: &Value, context: &Context<'_>) -> Vec<Cause> {
    let mut report = Report::default();
    meta::create(&mut report, kind, object);
    body(&mut report, kind, None, object, context);
    match (kind.group, kind.plural) {
        ("apps", "controllerrevisions") => workloads::controller_revision(&mut report, object),
        ("", "pods") => pods::new_pod(&mut report, object),
        _ => {}
    }
    report.into_causes()
}

/// What is wrong with the addresses and families of a Service, which are looked at before it
/// is given any.
pub(crate) fn service_addresses(service: &Value) -> Vec<Cause> {
    let mut report = Report::default();
    services::addresses(&mut report, service.get("spec").unwrap_or(&Value::Null));
    report.into_causes()
}

/// What is wrong with a changed object.
pub fn update(kind: &Kind, old: &Value, new: &Value, context: &Context<'_>) -> Vec<Cause> {
    let mut report = Report::default();
    meta::update(&mut report, kind, old, new);
    for step in order::of(kind) {
        match step {
            Step::Meta => meta::again(&mut report, kind, new),
            Step::MetaChange => meta::change_again(&mut report, kind, old, new),
            Step::Body => body(&mut report, kind, Some(old), new, context),
            Step::Change => change(&mut report, kind, old, new),
        }
    }
    report.into_causes()
}

/// What of a kind may not change.
fn change(report: &mut Report, kind: &Kind, old: &Value, new: &Value) {
    match (kind.group, kind.plural) {
        ("", "services") => services::change(report, old, new),
        ("", "configmaps") => data::config_map_change(report, old, new),
        ("", "secrets") => data::secret_change(report, old, new),
        ("", "nodes") => nodes::change(report, old, new),
        ("", "pods") => pods::change(report, old, new),
        ("networking.k8s.io", "ipaddresses") => address::ip_address_change(report, old, new),
        ("networking.k8s.io", "servicecidrs") => address::service_cidr_change(report, old, new),
        ("discovery.k8s.io", "endpointslices") => endpoints::slice_change(report, old, new),
        ("apps", _) => workloads::change(report, kind, old, new),
        ("coordination.k8s.io", "leasecandidates") => leases::candidate_change(report, old, new),
        ("rbac.authorization.k8s.io", _) => rbac::binding_change(report, old, new),
        _ => {}
    }
}

/// What is wrong with an object changed through `/status`.
pub fn update_status(kind: &Kind, old: &Value, new: &Value, _: &Context<'_>) -> Vec<Cause> {
    let mut report = Report::default();
    meta::update(&mut report, kind, old, new);
    // StatefulSets tell of their metadata last.
    let is_last = (kind.group, kind.plural) == ("apps", "statefulsets");
    if !is_last {
        meta::change_again(&mut report, kind, old, new);
    }
    match (kind.group, kind.plural) {
        ("", "pods") => status::pod(&mut report, old, new),
        ("", "nodes") => nodes::change(&mut report, old, new),
        ("", "namespaces") => status::namespace(&mut report, new),
        ("", "services") => status::service(&mut report, new),
        ("apps", _) => status::workload(&mut report, kind, old, new),
        _ => {}
    }
    if is_last {
        meta::change_again(&mut report, kind, old, new);
    }
    report.into_causes()
}

/// What is wrong with a Pod changed through `/ephemeralcontainers`.
pub fn update_ephemeral_containers(
    kind: &Kind,
    old: &Value,
    new: &Value,
    context: &Context<'_>,
) -> Vec<Cause> {
    let mut report = Report::default();
    pods::ephemeral_change(&mut report, old, new);
    meta::update(&mut report, kind, old, new);
    body(&mut report, kind, Some(old), new, context);
    report.into_causes()
}

/// What is wrong with a Pod changed through `/resize`, where nothing but resources can change.
pub fn update_resize(kind: &Kind, old: &Value, new: &Value, context: &Context<'_>) -> Vec<Cause> {
    let mut report = Report::default();
    meta::update(&mut report, kind, old, new);
    pods::resize(&mut report, old, new);
    body(&mut report, kind, Some(old), new, context);
    report.into_causes()
}

/// Rules that hold for every state of an object.
fn body(
    report: &mut Report,
    kind: &Kind,
    old: Option<&Value>,
    object: &Value,
    context: &Context<'_>,
) {
    match (kind.group, kind.plural) {
        ("", "pods") => pods::pod(report, object),
        ("", "services") => services::service(report, object),
        ("", "endpoints") => endpoints::endpoints(report, old, object, context),
        ("discovery.k8s.io", "endpointslices") => endpoints::slice(report, old, object, context),
        ("", "namespaces") => meta::namespace_finalizers(report, object),
        ("", "nodes") => nodes::node(report, object),
        ("", "configmaps") => data::config_map(report, object),
        ("", "secrets") => data::secret(report, object),
        ("", "events") => events::event(report, object),
        ("apps", "deployments") => workloads::deployment(report, object),
        ("apps", "replicasets") => workloads::replica_set(report, object),
        ("apps", "statefulsets") => workloads::stateful_set(report, object, old.is_none()),
        ("apps", "controllerrevisions") => report.not_negative(object, "", "revision"),
        ("apps", "daemonsets") => workloads::daemon_set(report, object),
        ("coordination.k8s.io", "leases") => leases::lease(report, object),
        ("coordination.k8s.io", "leasecandidates") => leases::candidate(report, object),
        ("networking.k8s.io", "servicecidrs") => address::service_cidr(report, object),
        ("networking.k8s.io", "ipaddresses") => address::ip_address(report, object),
        ("rbac.authorization.k8s.io", "roles") => rbac::role(report, object, true),
        ("rbac.authorization.k8s.io", "clusterroles") => rbac::role(report, object, false),
        ("rbac.authorization.k8s.io", "rolebindings") => rbac::binding(report, object, true),
        ("rbac.authorization.k8s.io", "clusterrolebindings") => {
            rbac::binding(report, object, false);
        }
        _ => {}
    }
}
