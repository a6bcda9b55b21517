//! Services, and the ServiceImports of a cluster set.

use std::sync::Arc;

use portolan_model::{
    AppProtocol, Code, Exposure, Fact, FactKey, Name, ObjectName, Origin, Outside, Reason, Service,
    ServiceKey, ServicePort, SessionAffinity, TrafficDistribution, TrafficPolicy, Transport,
};

use super::{Facts, is_label, parse_addresses, port, rejection, some};
use crate::{kubernetes::objects, names::Names};

/// `sessionAffinityConfig.clientIP.timeoutSeconds` when absent (Service API).
const AFFINITY_SECONDS: u32 = 10_800;

/// A Service. Ports that cannot be used are left out and named in a rejection.
pub(crate) fn service(object: &objects::Service, names: &mut Names) -> Facts {
    let (meta, spec) = (&object.metadata, &object.spec);
    let object_name = names.object(&meta.namespace, &meta.name);
    let mut reasons = Vec::new();
    if !is_label(&meta.name) {
        reasons.push(Reason::new(Code::NAME_INVALID, format!("{:?}", meta.name)));
        return rejection("Service", object_name, reasons).into_iter().collect();
    }
    let exposure = match exposure(spec) {
        Ok(exposure) => exposure,
        Err(reason) => {
            return rejection("Service", object_name, vec![reason]).into_iter().collect();
        }
    };
    let key = ServiceKey {
        origin: Origin::kubernetes(),
        namespace: object_name.namespace.clone(),
        name: object_name.name.clone(),
    };
    let mut service = Service {
        exposure,
        ports: ports(&spec.ports, names, &mut reasons),
        publish_not_ready: spec.publish_not_ready_addresses,
        internal_policy: policy(&spec.internal_traffic_policy),
        external_policy: policy(&spec.external_traffic_policy),
        affinity: match spec.session_affinity.as_str() {
            "ClientIP" => {
                let seconds = spec.session_affinity_config.client_ip.timeout_seconds;
                SessionAffinity::ClientIp { timeout_seconds: seconds.unwrap_or(AFFINITY_SECONDS) }
            }
            _ => SessionAffinity::None,
        },
        distribution: match spec.traffic_distribution.as_str() {
            // PreferSameZone is the later name of PreferClose (KEP-3015).
            "PreferClose" | "PreferSameZone" => TrafficDistribution::SameZone,
            "PreferSameNode" => TrafficDistribution::SameNode,
            _ => TrafficDistribution::Any,
        },
        selector: names.map(&spec.selector),
        labels: names.map(&meta.labels),
        ..Service::bare(key)
    };
    if service.exposure == Exposure::ClusterIp {
        let all = spec.cluster_ips.iter().map(String::as_str);
        let (good, bad) = parse_addresses(all.chain([spec.cluster_ip.as_str()]));
        service.addresses = good;
        reasons.extend(bad.iter().map(|text| bad_address("clusterIP", text)));
    }
    service.outside = outside(object, names, &mut reasons);
    declared("Service", object_name, service, reasons)
}

/// A ServiceImport: a Service that clusters of the set share (KEP 1645).
pub(crate) fn service_import(object: &objects::ServiceImport, names: &mut Names) -> Facts {
    let (meta, spec) = (&object.metadata, &object.spec);
    let object_name = names.object(&meta.namespace, &meta.name);
    let mut reasons = Vec::new();
    if !is_label(&meta.name) {
        reasons.push(Reason::new(Code::NAME_INVALID, format!("{:?}", meta.name)));
        return rejection("ServiceImport", object_name, reasons).into_iter().collect();
    }
    let headless = spec.kind == "Headless";
    let (addresses, bad) = parse_addresses(spec.ips.iter().map(String::as_str));
    reasons.extend(bad.iter().map(|text| bad_address("ips", text)));
    let key = ServiceKey {
        origin: Origin::clusterset(),
        namespace: object_name.namespace.clone(),
        name: object_name.name.clone(),
    };
    let service = Service {
        exposure: if headless { Exposure::Headless } else { Exposure::ClusterIp },
        addresses: if headless { Vec::new() } else { addresses },
        ports: ports(&spec.ports, names, &mut reasons),
        labels: names.map(&meta.labels),
        ..Service::bare(key)
    };
    declared("ServiceImport", object_name, service, reasons)
}

fn declared(kind: &str, object: ObjectName, service: Service, reasons: Vec<Reason>) -> Facts {
    let mut facts = vec![(FactKey::Service(service.key.clone()), Fact::Service(service.into()))];
    facts.extend(rejection(kind, object, reasons));
    facts
}

fn bad_address(field: &str, text: &str) -> Reason {
    Reason::new(Code::ADDRESS_INVALID, format!("{field} {text:?} is none."))
}

/// How a Service is reached from outside.
fn outside(
    object: &objects::Service,
    names: &mut Names,
    reasons: &mut Vec<Reason>,
) -> Option<Arc<Outside>> {
    let ingress = &object.status.load_balancer.ingress;
    let (addresses, bad) = parse_addresses(object.spec.external_ips.iter().map(String::as_str));
    let (balancers, bad_too) = parse_addresses(ingress.iter().map(|one| one.ip.as_str()));
    reasons.extend(bad.iter().map(|text| bad_address("externalIPs", text)));
    reasons.extend(bad_too.iter().map(|text| bad_address("ingress ip", text)));
    let hostnames = ingress.iter().filter_map(|one| some(&one.hostname));
    let outside = Outside {
        addresses,
        balancers,
        balancer_names: hostnames.map(|name| names.get(name)).collect(),
    };
    Some(outside).filter(|outside| *outside != Outside::default()).map(Arc::new)
}

fn exposure(spec: &objects::ServiceSpec) -> Result<Exposure, Reason> {
    if spec.kind == "ExternalName" {
        let name = spec.external_name.trim_end_matches('.');
        let fine = name.len() <= 253
            && name.split('.').all(|label| {
                !label.is_empty()
                    && label.len() <= 63
                    && label.bytes().all(|b| b.is_ascii_graphic())
            });
        if !fine {
            let detail = format!("externalName {:?} is none.", spec.external_name);
            return Err(Reason::new(Code::NAME_INVALID, detail));
        }
        return Ok(Exposure::ExternalName(portolan_model::name(name)));
    }
    Ok(if spec.cluster_ip == "None" { Exposure::Headless } else { Exposure::ClusterIp })
}

fn ports(
    declared: &[objects::ServicePort],
    names: &mut Names,
    reasons: &mut Vec<Reason>,
) -> Vec<ServicePort> {
    let mut ports = Vec::with_capacity(declared.len());
    for declared in declared {
        let Some(transport) = Transport::parse(declared.protocol.as_deref()) else {
            let protocol = declared.protocol.as_deref().unwrap_or_default();
            let detail = format!("Port {} has the unknown protocol {protocol:?}.", declared.port);
            reasons.push(Reason::new(Code::TRANSPORT_UNSUPPORTED, detail));
            continue;
        };
        let Some(number) = port(declared.port) else {
            reasons.push(Reason::new(Code::PORT_INVALID, format!("port {}", declared.port)));
            continue;
        };
        ports.push(ServicePort {
            name: names.get(&declared.name),
            transport,
            port: number,
            // 0 stands for "none".
            node_port: port(declared.node_port),
            app_protocol: app_protocol(
                declared.app_protocol.as_deref(),
                &declared.name,
                transport,
                names,
            ),
        });
    }
    ports
}

/// The protocol of a port; unusual names are shared.
pub(super) fn app_protocol(
    app_protocol: Option<&str>,
    port_name: &str,
    transport: Transport,
    names: &mut Names,
) -> AppProtocol {
    match AppProtocol::of(app_protocol, port_name, transport) {
        AppProtocol::Other(name) => AppProtocol::Other(share(&name, names)),
        known => known,
    }
}

fn share(name: &Name, names: &mut Names) -> Name {
    names.get(name)
}

fn policy(text: &str) -> TrafficPolicy {
    match some(text) {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    }
}
