//! EndpointSlices: the truth about the endpoints of Kubernetes Services.

use std::{net::IpAddr, sync::Arc};

use portolan_model::{
    Code, Conditions, Endpoint, EndpointPort, EndpointSlice, Fact, FactKey, Hints, Name,
    ObjectName, Origin, Particular, Reason, ServiceKey, Transport,
};

use super::{Facts, port, rejection, service::app_protocol, some};
use crate::{kubernetes::objects, names::Names};

/// Names the Service of a slice (discovery.k8s.io/v1, LabelServiceName).
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Names the ServiceImport of a slice, and the cluster that its endpoints live in
/// (multicluster.x-k8s.io/v1alpha1).
const IMPORT_LABEL: &str = "multicluster.kubernetes.io/service-name";
const CLUSTER_LABEL: &str = "multicluster.kubernetes.io/source-cluster";

/// An EndpointSlice. Endpoints and ports that cannot be used are left out and
/// named in a rejection. A slice without the label of a Service serves somebody
/// else and says nothing here, as with kube-proxy. One that carries the label of a
/// ServiceImport as well speaks for both.
pub(crate) fn endpoint_slice(object: &objects::EndpointSlice, names: &mut Names) -> Facts {
    let meta = &object.metadata;
    let label = |label| meta.labels.get(label).and_then(|text| some(text));
    let (service, import) = (label(SERVICE_LABEL), label(IMPORT_LABEL));
    if service.is_none() && import.is_none() {
        return Facts::new();
    }
    let object_name = names.object(&meta.namespace, &meta.name);
    let mut reasons = Vec::new();
    let ports = ports(&object.ports, names, &mut reasons);
    let mut endpoints = Vec::with_capacity(object.endpoints.len());
    for declared in &object.endpoints {
        // Further addresses of one endpoint are interchangeable with the first
        // (kubernetes/kubernetes#106267); kube-proxy uses the first alone.
        let text = declared.addresses.first().map(String::as_str).unwrap_or_default();
        match address(text, &object.address_type) {
            Ok(address) => {
                endpoints.push(Arc::new(endpoint(declared, address, &ports, &object_name, names)));
            }
            Err(reason) => reasons.push(reason),
        }
    }
    let mut facts = Facts::new();
    let mut say = |origin: Origin, service: Name, endpoints| {
        let namespace = object_name.namespace.clone();
        let key = FactKey::EndpointSlice(origin.clone(), object_name.clone());
        let service = ServiceKey { origin, namespace, name: service };
        facts.push((key, Fact::EndpointSlice(EndpointSlice { service, endpoints })));
    };
    if let Some(import) = import {
        let cluster = label(CLUSTER_LABEL).map(|cluster| names.get(cluster));
        let imported = endpoints.iter().map(|endpoint| imported(endpoint, cluster.clone()));
        say(Origin::clusterset(), names.get(import), imported.collect());
    }
    if let Some(service) = service {
        say(Origin::kubernetes(), names.get(service), endpoints);
    }
    facts.extend(rejection("EndpointSlice", object_name, reasons));
    facts
}

/// An endpoint of another cluster. Its Pod is not ours to look up.
fn imported(endpoint: &Endpoint, cluster: Option<Name>) -> Arc<Endpoint> {
    let mut imported = Endpoint { target: None, ..endpoint.clone() };
    imported.particulars.discriminator = cluster;
    Arc::new(imported)
}

fn address(text: &str, address_type: &str) -> Result<IpAddr, Reason> {
    let address = text.parse::<IpAddr>().ok().filter(|address| match address_type {
        "IPv4" => address.is_ipv4(),
        "IPv6" => address.is_ipv6(),
        // FQDN slices name hosts, which no face can balance over.
        _ => false,
    });
    address.ok_or_else(|| {
        Reason::new(Code::ADDRESS_INVALID, format!("{text:?} is no {address_type} address."))
    })
}

fn ports(
    declared: &[objects::SlicePort],
    names: &mut Names,
    reasons: &mut Vec<Reason>,
) -> Arc<[EndpointPort]> {
    let mut ports = Vec::with_capacity(declared.len());
    for one in declared {
        let Some(transport) = Transport::parse(one.protocol.as_deref()) else {
            let protocol = one.protocol.as_deref().unwrap_or_default();
            let detail = format!("Port {:?} has the unknown protocol {protocol:?}.", one.name);
            reasons.push(Reason::new(Code::TRANSPORT_UNSUPPORTED, detail));
            continue;
        };
        let number = match one.port {
            None => None,
            Some(number) => match port(number) {
                Some(number) => Some(number),
                None => {
                    reasons.push(Reason::new(Code::PORT_INVALID, format!("port {number}")));
                    continue;
                }
            },
        };
        ports.push(EndpointPort {
            name: names.get(&one.name),
            transport,
            port: number,
            app_protocol: one
                .app_protocol
                .as_deref()
                .and_then(some)
                .map(|text| app_protocol(Some(text), &one.name, transport, names)),
        });
    }
    ports.into()
}

fn endpoint(
    declared: &objects::SliceEndpoint,
    address: IpAddr,
    ports: &Arc<[EndpointPort]>,
    slice: &ObjectName,
    names: &mut Names,
) -> Endpoint {
    let conditions = &declared.conditions;
    let target = declared.target_ref.as_ref().filter(|target| target.kind == "Pod").map(|target| {
        let namespace = match some(&target.namespace) {
            Some(namespace) => names.get(namespace),
            None => slice.namespace.clone(),
        };
        ObjectName { namespace, name: portolan_model::name(&target.name) }
    });
    let mut optional = |text: &Option<String>| text.as_deref().and_then(some).map(|t| names.get(t));
    Endpoint {
        conditions: Conditions::from_optional(
            conditions.ready,
            conditions.serving,
            conditions.terminating,
        ),
        target,
        node: optional(&declared.node_name),
        zone: optional(&declared.zone),
        particulars: Particular {
            hostname: optional(&declared.hostname),
            hints: declared.hints.as_ref().and_then(|hints| hints_of(hints, names)),
            ..Particular::NONE
        }
        .into(),
        ..Endpoint::new(address, ports.clone())
    }
}

fn hints_of(hints: &objects::SliceHints, names: &mut Names) -> Option<Arc<Hints>> {
    let mut list =
        |hints: &[objects::Hint]| hints.iter().map(|hint| names.get(&hint.name)).collect();
    let hints = Hints { zones: list(&hints.for_zones), nodes: list(&hints.for_nodes) };
    // Empty hints say nothing.
    Some(hints).filter(|hints| *hints != Hints::default()).map(Arc::new)
}
