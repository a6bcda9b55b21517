//! The registry on Pods: what processes wrote on their Pods becomes endpoints.
//!
//! One Pod and interface give one list of endpoints of origin `registry`, named
//! `<pod>#<interface>`. Whether an endpoint is ready is the Pod's word first: phase,
//! Ready condition and deletion count, so that a process that died without
//! deregistering takes no traffic. A process may say less than its Pod, never more.

use std::{collections::BTreeMap, sync::Arc};

use portolan_dialects::{ContainerView, Dialect, PodView, Registration, Standing};
use portolan_model::{
    AppProtocol, Conditions, Endpoint, EndpointPort, EndpointSlice, Fact, FactKey, ObjectName,
    Origin, Particular, ServiceKey, Transport,
};

use super::{Facts, ZONE_LABEL, pod::is_ready, rejection, some};
use crate::{kubernetes::objects, names::Names};

/// What a Pod registered, and what of it cannot be used.
pub(crate) fn registrations(
    object: &objects::Pod,
    dialects: &[Dialect],
    names: &mut Names,
) -> Facts {
    let meta = &object.metadata;
    let addresses = super::addresses(object);
    let containers: Vec<ContainerView<'_>> = object
        .status
        .container_statuses
        .iter()
        .map(|status| ContainerView {
            name: &status.name,
            started: status.state.running.as_ref().map(|running| &*running.started_at),
        })
        .collect();
    let view = PodView {
        labels: &meta.labels,
        annotations: &meta.annotations,
        addresses: &addresses,
        containers: &containers,
    };
    let reading = Dialect::read_all(dialects, &view);
    if reading.registrations.is_empty() && reading.reasons.is_empty() {
        return Facts::new();
    }
    let pod = names.object(&meta.namespace, &meta.name);
    let mut reasons = reading.reasons;
    let mut by_interface: BTreeMap<String, Vec<Arc<Endpoint>>> = BTreeMap::new();
    for registration in reading.registrations {
        if let Some(reason) = registration.foreign_to(&addresses) {
            reasons.push(reason);
            continue;
        }
        let endpoint = Arc::new(endpoint(object, &pod, &registration, names));
        by_interface.entry(registration.interface).or_default().push(endpoint);
    }
    let mut facts: Facts = by_interface
        .into_iter()
        .map(|(interface, endpoints)| {
            let service = ServiceKey {
                origin: Origin::registry(),
                namespace: pod.namespace.clone(),
                name: names.get(&interface),
            };
            // No Pod name holds a '#'.
            let list = ObjectName {
                namespace: pod.namespace.clone(),
                name: portolan_model::name(&format!("{}#{interface}", pod.name)),
            };
            (
                FactKey::EndpointSlice(Origin::registry(), list),
                Fact::EndpointSlice(EndpointSlice { service, endpoints }),
            )
        })
        .collect();
    facts.extend(rejection("Pod", pod, reasons));
    facts
}

fn endpoint(
    object: &objects::Pod,
    pod: &ObjectName,
    registration: &Registration,
    names: &mut Names,
) -> Endpoint {
    let transport = if registration.protocol == "udp" { Transport::Udp } else { Transport::Tcp };
    let protocol = names.get(&registration.protocol);
    let port = EndpointPort {
        app_protocol: Some(AppProtocol::of(Some(&protocol), &protocol, transport)),
        name: protocol,
        transport,
        port: Some(registration.port),
    };
    let zone = registration.zone.as_deref();
    // Recent clusters copy the node's zone onto its Pods (KEP-4742).
    let zone = zone.or_else(|| object.metadata.labels.get(ZONE_LABEL).and_then(|text| some(text)));
    let metadata = registration.metadata();
    Endpoint {
        conditions: conditions(object, registration.standing),
        target: Some(pod.clone()),
        node: object.spec.node_name.as_deref().and_then(some).map(|node| names.get(node)),
        zone: zone.map(|zone| names.get(zone)),
        particulars: Particular {
            discriminator: registration.discriminator().map(|text| names.get(&text)),
            weight: match registration.standing {
                Standing::OutOfService => 0,
                _ => registration.weight,
            },
            switched_off: registration.standing == Standing::SwitchedOff,
            metadata: Some(names.map(&metadata)),
            ..Particular::NONE
        }
        .into(),
        ..Endpoint::new(registration.address, [port].into())
    }
}

/// What the EndpointSlice controller would say of the Pod, if it were the process.
fn conditions(object: &objects::Pod, process: Standing) -> Conditions {
    let runs = !matches!(process, Standing::Down | Standing::Starting);
    let serving = runs && is_ready(object) && object.status.phase == "Running";
    let leaves = object.metadata.deletion_timestamp.is_some();
    let terminating = leaves || process == Standing::Draining;
    Conditions { ready: serving && !terminating, serving, terminating }
}
