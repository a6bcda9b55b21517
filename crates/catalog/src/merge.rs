//! From facts to service entries: which endpoints a service has, and the
//! verdict on each.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use portolan_model::{
    Code, Endpoint, EndpointPort, Exposure, Name, Placed, Reason, Service, ServiceKey, SourceId,
    Verdict, Version, Workload,
};

use crate::{facts::Facts, snapshot::ServiceEntry};

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
    let orphaned = declarations.is_empty() && key.origin.is_declarative();
    let service = declarations
        .into_iter()
        .next()
        .map_or_else(|| Arc::new(undeclared(key, &endpoints)), |(_, service)| service);
    let placed = place(&service, orphaned, endpoints, workload);
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

/// All endpoints, ordered by identity so that the order in which slices arrived
/// leaves no trace. Where two slices tell of one endpoint (it is being moved
/// between slices), the readier sighting counts. Two Pods that claim one address
/// and the same ports both stay: the second is shown as the duplicate that it is.
fn endpoints(facts: &Facts, key: &ServiceKey) -> Vec<Arc<Endpoint>> {
    let mut found: Vec<Arc<Endpoint>> =
        facts.slices(key).flat_map(|slice| slice.endpoints.iter().cloned()).collect();
    found.sort_by(|a, b| {
        let rank =
            |one: &Endpoint| (!one.conditions.ready, !one.conditions.serving, one.target.is_none());
        identity_order(a, b).then_with(|| rank(a).cmp(&rank(b)))
    });
    let mut kept: Vec<Arc<Endpoint>> = Vec::with_capacity(found.len());
    for endpoint in found {
        let twins = kept.iter().rev().take_while(|before| same_place(before, &endpoint));
        let mut same = twins.filter(|before| {
            before.target == endpoint.target || before.target.is_none() || endpoint.target.is_none()
        });
        if same.next().is_none() {
            kept.push(endpoint);
        }
    }
    kept
}

/// Whether a client could not tell two endpoints apart.
fn same_place(a: &Endpoint, b: &Endpoint) -> bool {
    identity_order(a, b).is_eq()
}

fn identity_order(a: &Endpoint, b: &Endpoint) -> Ordering {
    let ports = |one: &EndpointPort| {
        (one.transport, one.port, one.app_protocol.as_ref().map(|p| p.as_str().to_owned()))
    };
    a.address
        .cmp(&b.address)
        .then_with(|| a.particulars.discriminator.cmp(&b.particulars.discriminator))
        .then_with(|| {
            // Endpoints of one slice share their ports: nearly always no comparison.
            if Arc::ptr_eq(&a.ports, &b.ports) {
                return Ordering::Equal;
            }
            let by_port = |(a, b): (&EndpointPort, &EndpointPort)| {
                a.name.cmp(&b.name).then_with(|| ports(a).cmp(&ports(b)))
            };
            a.ports
                .iter()
                .zip(b.ports.iter())
                .map(by_port)
                .find(|order| order.is_ne())
                .unwrap_or_else(|| a.ports.len().cmp(&b.ports.len()))
        })
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
        [] if key.origin.is_declarative() => {
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
        let detail = declarations.first().map(|(_, service)| selector_text(service));
        reasons.push(Reason::new(Code::NO_ENDPOINTS, detail.unwrap_or_default()));
    }
    if let Some((_, service)) = declarations.first().filter(|_| !alias && !endpoints.is_empty()) {
        reasons.extend(service.ports.iter().filter(|port| is_behind_none(port, endpoints)).map(
            |port| {
                let detail = format!(
                    "No endpoint has port {} {}: does its targetPort name a port of the Pods?",
                    port.port, port.name
                );
                Reason::new(Code::PORT_UNKNOWN, detail)
            },
        ));
    }
    reasons
}

/// Whether no endpoint has a port behind this one. A named targetPort that the
/// Pods do not have leaves the port out of the slice without a word.
fn is_behind_none(port: &portolan_model::ServicePort, endpoints: &[Arc<Endpoint>]) -> bool {
    let has = |endpoint: &Arc<Endpoint>| {
        let mut ports = endpoint.ports.iter();
        ports.any(|behind| behind.name == port.name && behind.transport == port.transport)
    };
    !endpoints.iter().any(has)
}

/// What chooses the Pods of a service, for people.
fn selector_text(service: &Service) -> String {
    if service.selector.is_empty() {
        return "It has no selector: somebody else has to write its endpoints.".to_owned();
    }
    let pairs: Vec<String> =
        service.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("Its selector is {}.", pairs.join(","))
}

/// Puts a verdict on each endpoint: every reason against it, in the order of the
/// ladder's rungs. `orphaned`: Kubernetes endpoints whose Service does not exist.
fn place<'w>(
    service: &Service,
    orphaned: bool,
    endpoints: Vec<Arc<Endpoint>>,
    workload: impl Fn(&portolan_model::ObjectName) -> Option<&'w Arc<Workload>>,
) -> Vec<Placed> {
    let mut all: Vec<Placed> = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        let pod = endpoint.target.as_ref().and_then(&workload).map(|pod| &**pod);
        let mut reasons = Vec::new();
        if orphaned {
            reasons.push(Reason::plain(Code::SERVICE_MISSING));
        }
        if endpoint.particulars.switched_off {
            reasons.push(Reason::plain(Code::SWITCHED_OFF));
        }
        reasons.extend(unready(service, &endpoint, pod));
        if endpoint.particulars.weight == 0 {
            reasons.push(Reason::plain(Code::WEIGHT_ZERO));
        }
        if let Some(twin) = all.last()
            && same_place(&twin.endpoint, &endpoint)
        {
            let detail = format!("{} has it.", twin.endpoint.display_name());
            reasons.push(Reason::new(Code::DUPLICATE_ADDRESS, detail));
        }
        let verdict = match reasons.is_empty() {
            true => Verdict::Served,
            false => Verdict::NotServed(reasons.into()),
        };
        all.push(Placed { endpoint, verdict });
    }
    all
}

/// What a Pod adds to the verdict on its endpoints: everything of it that
/// [`unready`] reads. Equal explanations give equal verdicts.
pub(crate) fn explanation(pod: Option<&Workload>) -> impl PartialEq + use<'_> {
    let ended = |pod: &&Workload| matches!(&*pod.phase, "Succeeded" | "Failed");
    (
        pod.is_some_and(|pod| pod.terminating),
        pod.filter(ended).map(|pod| &pod.phase),
        pod.and_then(|pod| pod.not_ready.as_ref()),
    )
}

/// Why an endpoint is not ready, or `None`. The slice decides whether; the Pod
/// only says why. Reads of the Pod what [`explanation`] names and nothing else.
fn unready(service: &Service, endpoint: &Endpoint, pod: Option<&Workload>) -> Option<Reason> {
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
