//! From facts to service entries: which endpoints a service has, and the
//! verdict on each.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};

use portolan_model::{
    Code, Endpoint, EndpointPort, Exposure, Name, Origin, Placed, Reason, Service, ServiceKey,
    SourceId, Verdict, Version, Workload,
};

use crate::{facts::Facts, snapshot::ServiceEntry};

/// What two endpoints must share to be the same one.
type Identity<'a> = (IpAddr, &'a [EndpointPort], Option<&'a Name>);

/// Merges what is known of a service. `None`: nothing is.
pub(crate) fn entry<'w>(
    facts: &Facts,
    key: &ServiceKey,
    workload: impl Fn(&portolan_model::ObjectName) -> Option<&'w Arc<Workload>>,
    version: Version,
    observed_at_ms: u64,
) -> Option<ServiceEntry> {
    let declarations = facts.declarations(key);
    let endpoints = endpoints(facts, key);
    if declarations.is_empty() && endpoints.is_empty() {
        return None;
    }
    let reasons = service_reasons(key, &declarations, &endpoints);
    let service = declarations
        .into_iter()
        .next()
        .map_or_else(|| Arc::new(undeclared(key, &endpoints)), |(_, service)| service);
    let placed = place(&service, endpoints, workload);
    let etag = etag(&service, &placed);
    Some(ServiceEntry {
        service,
        endpoints: placed.into(),
        reasons: reasons.into(),
        etag,
        changed: version,
        observed_at_ms,
    })
}

/// Whether two entries show the same, whenever they came to be.
pub(crate) fn same_content(a: &ServiceEntry, b: &ServiceEntry) -> bool {
    a.etag == b.etag
        && a.service == b.service
        && a.endpoints == b.endpoints
        && a.reasons == b.reasons
}

/// All endpoints, each once, ordered by identity so that the order in which
/// slices arrived leaves no trace. Where two slices tell of one endpoint (it is
/// being moved between slices), the readier sighting counts.
fn endpoints(facts: &Facts, key: &ServiceKey) -> Vec<Arc<Endpoint>> {
    let mut found: Vec<Arc<Endpoint>> =
        facts.slices(key).flat_map(|slice| slice.endpoints.iter().cloned()).collect();
    found.sort_by(|a, b| {
        (a.address, &a.discriminator, port_order(a), !a.conditions.ready, !a.conditions.serving)
            .cmp(&(
                b.address,
                &b.discriminator,
                port_order(b),
                !b.conditions.ready,
                !b.conditions.serving,
            ))
    });
    found.dedup_by(|b, a| identity(a) == identity(b));
    found
}

fn identity(endpoint: &Endpoint) -> Identity<'_> {
    (endpoint.address, &endpoint.ports, endpoint.discriminator.as_ref())
}

fn port_order(endpoint: &Endpoint) -> Vec<(Name, portolan_model::Transport, Option<u16>)> {
    endpoint.ports.iter().map(|port| (port.name.clone(), port.transport, port.port)).collect()
}

/// A service that only its endpoints tell of has the ports that they have.
fn undeclared(key: &ServiceKey, endpoints: &[Arc<Endpoint>]) -> Service {
    let mut ports: BTreeMap<(Name, portolan_model::Transport), portolan_model::ServicePort> =
        BTreeMap::new();
    for port in endpoints.iter().flat_map(|endpoint| endpoint.ports.iter()) {
        let Some(number) = port.port else { continue };
        ports.entry((port.name.clone(), port.transport)).or_insert_with(|| {
            portolan_model::ServicePort {
                name: port.name.clone(),
                transport: port.transport,
                port: number,
                node_port: None,
                app_protocol: port.app_protocol.clone().unwrap_or_else(|| {
                    portolan_model::AppProtocol::of(None, &port.name, port.transport)
                }),
            }
        });
    }
    Service { ports: ports.into_values().collect(), ..Service::bare(key.clone()) }
}

fn service_reasons(
    key: &ServiceKey,
    declarations: &[(SourceId, Arc<Service>)],
    endpoints: &[Arc<Endpoint>],
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    match declarations {
        [] if key.origin.as_str() == Origin::KUBERNETES => {
            reasons.push(Reason::plain(Code::SERVICE_MISSING));
        }
        [(first, _), others @ ..] if !others.is_empty() => {
            reasons.push(Reason::new(Code::DECLARED_TWICE, format!("Source {first} counts.")));
        }
        _ => {}
    }
    let alias = declarations
        .first()
        .is_some_and(|(_, service)| matches!(service.exposure, Exposure::ExternalName(_)));
    if endpoints.is_empty() && !alias {
        reasons.push(Reason::plain(Code::NO_ENDPOINTS));
    }
    reasons
}

fn place<'w>(
    service: &Service,
    endpoints: Vec<Arc<Endpoint>>,
    workload: impl Fn(&portolan_model::ObjectName) -> Option<&'w Arc<Workload>>,
) -> Vec<Placed> {
    endpoints
        .into_iter()
        .map(|endpoint| {
            let pod = endpoint.target.as_ref().and_then(&workload);
            let reason = refusal(service, &endpoint, pod.map(|pod| &**pod));
            let verdict = match reason {
                None => Verdict::Served,
                Some(reason) => Verdict::NotServed([reason].into()),
            };
            Placed { endpoint, verdict }
        })
        .collect()
}

/// Why an endpoint is not handed out, or `None`. The slice decides whether; the
/// Pod only says why.
fn refusal(service: &Service, endpoint: &Endpoint, pod: Option<&Workload>) -> Option<Reason> {
    if endpoint.weight == 0 {
        return Some(Reason::plain(Code::WEIGHT_ZERO));
    }
    if endpoint.conditions.ready || service.publish_not_ready {
        return None;
    }
    if endpoint.conditions.terminating || pod.is_some_and(|pod| pod.terminating) {
        return Some(Reason::plain(Code::TERMINATING));
    }
    let Some(pod) = pod else { return Some(Reason::plain(Code::NOT_READY)) };
    if matches!(&*pod.phase, "Succeeded" | "Failed") {
        return Some(Reason::new(Code::PHASE_ENDED, format!("Phase is {}.", pod.phase)));
    }
    let Some((reason, message)) = pod.not_ready.as_deref().map(|pair| (&pair.0, &pair.1)) else {
        return Some(Reason::plain(Code::NOT_READY));
    };
    match Code::leading(message) {
        Some(code) => {
            let detail = message.get(7..).unwrap_or_default().trim_start_matches([':', ' ']);
            Some(Reason::new(code, detail))
        }
        None => Some(Reason::new(Code::NOT_READY, format!("{reason}: {message}"))),
    }
}

/// A hash of what faces may show. `DefaultHasher` of one build gives equal
/// hashes everywhere; across builds an etag is only ever different, never
/// wrongly equal for long: replicas of different builds wait for each other by
/// version instead.
fn etag(service: &Service, placed: &[Placed]) -> u64 {
    let mut hasher = DefaultHasher::new();
    service.hash(&mut hasher);
    for one in placed {
        let fallback = one.endpoint.conditions.terminating && one.endpoint.conditions.serving;
        if one.verdict.is_served() || fallback {
            one.verdict.is_served().hash(&mut hasher);
            one.endpoint.hash(&mut hasher);
        }
    }
    hasher.finish()
}
