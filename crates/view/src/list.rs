//! Lists: services, instances, endpoints, nodes, sources, versions, clients.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use portolan_catalog::{Board, Change, ServiceEntry, Snapshot, SourceStatus};
use portolan_model::{
    AppProtocol, ClientProgress, ClientStatus, Code, Endpoint, EndpointPort, Exposure, Name,
    Origin, Placed, Problem, Reason, Selector, ServiceKey, SourceId, State, Verdict, Version,
};
use portolan_wire as wire;

/// Which services a question is about.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this origin.
    pub origin: Option<String>,
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only this name.
    pub name: Option<String>,
    /// Only services whose labels it accepts.
    pub labels: Selector,
}

impl Filter {
    /// One service.
    pub fn only(key: &ServiceKey) -> Self {
        Self {
            origin: Some(key.origin.to_string()),
            namespace: Some(key.namespace.to_string()),
            name: Some(key.name.to_string()),
            labels: Selector::default(),
        }
    }

    /// Narrows to a service that is written `[ORIGIN:][NAMESPACE/]NAME`. What it
    /// does not say stays as it was.
    #[must_use]
    pub fn of_service(mut self, text: &str) -> Self {
        let (place, name) = match text.split_once('/') {
            Some((place, name)) => (Some(place), name),
            None => (None, text),
        };
        let (origin, rest) = match place.unwrap_or(name).split_once(':') {
            Some((origin, rest)) => (Some(origin), rest),
            None => (None, place.unwrap_or(name)),
        };
        let (namespace, name) = match place {
            Some(_) => (Some(rest), name),
            None => (None, rest),
        };
        self.origin = origin.map(ToOwned::to_owned).or(self.origin);
        self.namespace = namespace.map(ToOwned::to_owned).or(self.namespace);
        self.name = Some(name.to_owned());
        self
    }

    /// Whether a service is asked for.
    pub fn accepts(&self, entry: &ServiceEntry) -> bool {
        let key = &entry.service.key;
        self.origin.as_ref().is_none_or(|origin| key.origin.as_str() == origin)
            && self.namespace.as_ref().is_none_or(|namespace| *key.namespace == **namespace)
            && self.name.as_ref().is_none_or(|name| *key.name == **name)
            && self.labels.accepts(&entry.service.labels)
    }
}

/// Which instances of the services a question is about.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// Only at this port: of its service where that has ports, else its own.
    pub port: Option<PortChoice>,
    /// Only those whose labels it accepts: those of the Pod, and what the process says of
    /// itself, whose word comes first.
    pub labels: Selector,
    /// Only those that run on this node.
    pub node: Option<String>,
}

/// A port, by number or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortChoice {
    /// By number.
    Number(u16),
    /// By name.
    Named(String),
}

impl PortChoice {
    /// Reads `8080` or `http`. `Err` says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return match text {
                "" => Err("a port is a number or a name".to_owned()),
                name => Ok(Self::Named(name.to_owned())),
            };
        }
        match text.parse() {
            Ok(number) if number > 0 => Ok(Self::Number(number)),
            _ => Err(format!("{text} is no port; ports are 1 to 65535")),
        }
    }

    fn accepts(&self, entry: &ServiceEntry, port: &EndpointPort) -> bool {
        let declared = &entry.service.ports;
        match self {
            Self::Named(name) => *port.name == **name,
            Self::Number(number) if declared.is_empty() => port.port == Some(*number),
            Self::Number(number) => declared.iter().any(|front| {
                front.port == *number
                    && front.name == port.name
                    && front.transport == port.transport
            }),
        }
    }
}

impl Which {
    fn accepts_endpoint(&self, snapshot: &Snapshot, placed: &Placed) -> bool {
        let endpoint = &placed.endpoint;
        let pod = || endpoint.target.as_ref().and_then(|name| snapshot.workload(name));
        if let Some(node) = &self.node {
            let of_pod = || pod().and_then(|pod| pod.node.clone());
            let found = endpoint.node.clone().or_else(of_pod);
            if found.is_none_or(|found| *found != **node) {
                return false;
            }
        }
        if self.labels == Selector::default() {
            return true;
        }
        let mut labels = pod().map(|pod| (*pod.labels).clone()).unwrap_or_default();
        let own = endpoint.particulars.metadata.iter().flat_map(|metadata| metadata.iter());
        labels.extend(own.map(|(key, value)| (key.clone(), value.clone())));
        self.labels.accepts(&labels)
    }
}

/// A list with the version that it was read from.
fn page<T>(snapshot: &Snapshot, now_ms: u64, items: Vec<T>) -> wire::Page<T> {
    wire::Page {
        version: snapshot.version().to_string(),
        age_ms: now_ms.saturating_sub(snapshot.at_ms()),
        items,
    }
}

fn chosen<'a>(
    snapshot: &'a Snapshot,
    filter: &'a Filter,
) -> impl Iterator<Item = &'a Arc<ServiceEntry>> {
    snapshot.services().filter(|entry| filter.accepts(entry))
}

/// Services.
pub fn services(snapshot: &Snapshot, filter: &Filter, now_ms: u64) -> wire::Page<wire::Service> {
    page(snapshot, now_ms, chosen(snapshot, filter).map(|entry| service(entry)).collect())
}

/// One service.
pub fn service(entry: &ServiceEntry) -> wire::Service {
    let declared = &entry.service;
    let (exposure, addresses) = match &declared.exposure {
        Exposure::ClusterIp => {
            ("ClusterIP", declared.addresses.iter().map(ToString::to_string).collect())
        }
        Exposure::Headless if declared.key.origin.as_str() == Origin::REGISTRY => {
            ("Registered", Vec::new())
        }
        Exposure::Headless => ("Headless", Vec::new()),
        Exposure::ExternalName(target) => ("ExternalName", vec![target.to_string()]),
    };
    wire::Service {
        origin: declared.key.origin.to_string(),
        namespace: declared.key.namespace.to_string(),
        name: declared.key.name.to_string(),
        exposure: exposure.to_owned(),
        addresses,
        ports: declared
            .ports
            .iter()
            .map(|port| wire::Port {
                name: port.name.to_string(),
                port: port.port,
                transport: port.transport.as_str().to_owned(),
                protocol: port.app_protocol.as_str().to_owned(),
                node_port: port.node_port,
            })
            .collect(),
        configured: entry.endpoints.len(),
        serving: entry.served().count(),
        etag: format!("{:016x}", entry.etag),
        changed: entry.changed.to_string(),
        reasons: entry.reasons.iter().map(reason).collect(),
    }
}

/// Instances: each endpoint on each of its ports.
pub fn instances(snapshot: &Snapshot, filter: &Filter, now_ms: u64) -> wire::Page<wire::Instance> {
    let items = chosen(snapshot, filter).flat_map(|entry| instances_of(snapshot, entry)).collect();
    page(snapshot, now_ms, items)
}

/// Some instances of some services.
pub fn instances_where(
    snapshot: &Snapshot,
    filter: &Filter,
    which: &Which,
    now_ms: u64,
) -> wire::Page<wire::Instance> {
    let mut items = Vec::new();
    for entry in chosen(snapshot, filter) {
        for placed in entry.endpoints.iter().filter(|one| which.accepts_endpoint(snapshot, one)) {
            let ports = placed.endpoint.ports.iter();
            match &which.port {
                None => items.extend(instances_at(snapshot, entry, placed)),
                Some(port) => items.extend(
                    ports
                        .filter(|own| port.accepts(entry, own))
                        .map(|own| instance(snapshot, entry, placed, Some(own))),
                ),
            }
        }
    }
    page(snapshot, now_ms, items)
}

/// What of a service's instances differs between two versions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InstanceChanges {
    /// New ones, and those that are otherwise than before.
    pub put: Vec<wire::Instance>,
    /// Those that are gone, with no more than tells them apart.
    pub gone: Vec<wire::Instance>,
}

/// The instances that differ, where nothing of the service but its instances does; `None` where
/// something else does too.
pub fn instance_changes(
    snapshot: &Snapshot,
    before: &ServiceEntry,
    after: &ServiceEntry,
) -> Option<InstanceChanges> {
    if before.service != after.service || before.reasons != after.reasons {
        return None;
    }
    // What tells endpoints of one service apart.
    fn identity(placed: &Placed) -> impl Eq + Hash + '_ {
        let Endpoint { address, ports, target, particulars, .. } = &*placed.endpoint;
        (address, ports, target, &particulars.discriminator)
    }
    let was: HashMap<_, _> = before.endpoints.iter().map(|one| (identity(one), one)).collect();
    let is: HashSet<_> = after.endpoints.iter().map(identity).collect();
    let put = after.endpoints.iter().filter(|one| was.get(&identity(one)) != Some(one));
    let gone = before.endpoints.iter().filter(|one| !is.contains(&identity(one)));
    Some(InstanceChanges {
        put: put.flat_map(|one| instances_at(snapshot, after, one)).collect(),
        gone: gone.flat_map(|one| instances_at(snapshot, before, one)).map(farewell).collect(),
    })
}

/// What is needed to know which instance has gone.
fn farewell(one: wire::Instance) -> wire::Instance {
    const TOLD: [&str; 3] = ["group", "protocol", "version"];
    let mut metadata = one.metadata;
    metadata.retain(|key, _| TOLD.contains(&key.as_str()));
    wire::Instance { metadata, node: None, zone: None, reasons: Vec::new(), ..one }
}

/// The instances of one service.
pub fn instances_of<'a>(
    snapshot: &'a Snapshot,
    entry: &'a ServiceEntry,
) -> impl Iterator<Item = wire::Instance> + 'a {
    entry.endpoints.iter().flat_map(move |placed| instances_at(snapshot, entry, placed))
}

/// One endpoint on each of its ports.
fn instances_at<'a>(
    snapshot: &'a Snapshot,
    entry: &'a ServiceEntry,
    placed: &'a Placed,
) -> impl Iterator<Item = wire::Instance> + 'a {
    let ports = &placed.endpoint.ports;
    // An endpoint without ports is still an instance: it must not vanish.
    let none = ports.is_empty().then_some(None);
    ports.iter().map(Some).chain(none).map(move |port| instance(snapshot, entry, placed, port))
}

fn instance(
    snapshot: &Snapshot,
    entry: &ServiceEntry,
    placed: &Placed,
    port: Option<&EndpointPort>,
) -> wire::Instance {
    let key = &entry.service.key;
    let endpoint = &placed.endpoint;
    let pod = endpoint.target.as_ref().and_then(|name| snapshot.workload(name));
    wire::Instance {
        origin: key.origin.to_string(),
        namespace: key.namespace.to_string(),
        service: key.name.to_string(),
        name: endpoint.display_name(),
        address: endpoint.address.to_string(),
        port: port.and_then(|port| port.port),
        port_name: port.map(|port| port.name.to_string()).unwrap_or_default(),
        protocol: port.map(|port| protocol(entry, port)).unwrap_or_default(),
        state: state(placed).as_str().to_owned(),
        hollow: pod.is_some_and(|pod| pod.hollow),
        source: source_of(&key.origin).to_owned(),
        node: endpoint.node.as_ref().map(ToString::to_string),
        zone: endpoint.zone.as_ref().map(ToString::to_string),
        weight: endpoint.particulars.weight,
        metadata: endpoint
            .particulars
            .metadata
            .iter()
            .flat_map(|metadata| metadata.iter())
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        reasons: placed.verdict.reasons().iter().map(reason).collect(),
    }
}

/// What is spoken on an endpoint's port: what the endpoint says, else what its
/// Service port says, else what the name suggests.
fn protocol(entry: &ServiceEntry, port: &EndpointPort) -> String {
    if let Some(own) = &port.app_protocol {
        return own.as_str().to_owned();
    }
    entry
        .service
        .ports
        .iter()
        .find(|declared| declared.name == port.name && declared.transport == port.transport)
        .map_or_else(
            || AppProtocol::of(None, &port.name, port.transport).as_str().to_owned(),
            |declared| declared.app_protocol.as_str().to_owned(),
        )
}

/// The source that tells of an origin's endpoints.
fn source_of(origin: &Origin) -> &str {
    if origin.as_str() == Origin::REGISTRY { "pods" } else { origin.as_str() }
}

/// The state of an instance in one word.
pub(crate) fn state(placed: &Placed) -> State {
    let Verdict::NotServed(reasons) = &placed.verdict else { return State::Serving };
    match reasons.first().map(|reason| reason.code) {
        Some(Code::TERMINATING) => State::Draining,
        Some(Code::WEIGHT_ZERO | Code::SWITCHED_OFF) => State::Disabled,
        Some(Code::NOT_READY | Code::NOT_LISTENING) => State::Starting,
        Some(_) => State::Failing,
        None => State::Unknown,
    }
}

/// Endpoints with all their ports.
pub fn endpoints(snapshot: &Snapshot, filter: &Filter, now_ms: u64) -> wire::Page<wire::Endpoint> {
    let text = |name: &Option<Name>| name.as_ref().map(ToString::to_string);
    let items = chosen(snapshot, filter)
        .flat_map(|entry| entry.endpoints.iter().map(move |placed| (entry, placed)))
        .map(|(entry, placed)| {
            let (key, endpoint) = (&entry.service.key, &placed.endpoint);
            wire::Endpoint {
                origin: key.origin.to_string(),
                namespace: key.namespace.to_string(),
                service: key.name.to_string(),
                name: endpoint.display_name(),
                address: endpoint.address.to_string(),
                ports: endpoint
                    .ports
                    .iter()
                    .map(|port| wire::EndpointPort {
                        name: port.name.to_string(),
                        port: port.port,
                        transport: port.transport.as_str().to_owned(),
                    })
                    .collect(),
                ready: endpoint.conditions.ready,
                serving: endpoint.conditions.serving,
                terminating: endpoint.conditions.terminating,
                hostname: text(&endpoint.particulars.hostname),
                node: text(&endpoint.node),
                zone: text(&endpoint.zone),
                reasons: placed.verdict.reasons().iter().map(reason).collect(),
            }
        })
        .collect();
    page(snapshot, now_ms, items)
}

/// Nodes, with the number of Pods on each.
pub fn nodes(snapshot: &Snapshot, now_ms: u64) -> wire::Page<wire::Node> {
    let mut workloads: BTreeMap<&Name, usize> = BTreeMap::new();
    for node in snapshot.workloads().filter_map(|workload| workload.node.as_ref()) {
        *workloads.entry(node).or_default() += 1;
    }
    let items = snapshot
        .nodes()
        .values()
        .map(|node| wire::Node {
            name: node.name.to_string(),
            zone: node.zone.as_ref().map(ToString::to_string),
            addresses: node.addresses.iter().map(ToString::to_string).collect(),
            ready: node.ready,
            workloads: workloads.get(&node.name).copied().unwrap_or_default(),
        })
        .collect();
    page(snapshot, now_ms, items)
}

/// Pods of a namespace, of a name; all where neither is given.
pub fn workloads(
    snapshot: &Snapshot,
    namespace: Option<&str>,
    name: Option<&str>,
    now_ms: u64,
) -> wire::Page<wire::Workload> {
    let items = snapshot
        .workloads()
        .filter(|pod| namespace.is_none_or(|namespace| *pod.name.namespace == *namespace))
        .filter(|pod| name.is_none_or(|name| *pod.name.name == *name))
        .map(|pod| wire::Workload {
            namespace: pod.name.namespace.to_string(),
            name: pod.name.name.to_string(),
            addresses: pod.addresses.iter().map(ToString::to_string).collect(),
            node: pod.node.as_ref().map(ToString::to_string),
            phase: pod.phase.to_string(),
            ready: pod.ready,
            hollow: pod.hollow,
        })
        .collect();
    page(snapshot, now_ms, items)
}

/// One service, as a list of one. `None`: it is not there.
pub fn one_service(
    snapshot: &Snapshot,
    key: &ServiceKey,
    now_ms: u64,
) -> Option<wire::Page<wire::Service>> {
    Some(page(snapshot, now_ms, vec![service(snapshot.service(key)?)]))
}

/// Sources, with their parts and how they are.
pub fn sources(snapshot: &Snapshot, now_ms: u64) -> wire::Page<wire::Source> {
    let items = snapshot
        .sources()
        .iter()
        .map(|(id, status)| wire::Source {
            name: id.to_string(),
            state: match (status.lost.is_empty(), status.is_synced()) {
                (false, _) => "lost",
                (true, true) => "synced",
                (true, false) => "listing",
            }
            .to_owned(),
            since_ms: now_ms.saturating_sub(status.since_ms),
            error: status.lost.iter().next().map(|(part, error)| format!("{part}: {error}")),
            parts: status
                .parts
                .iter()
                .map(|(name, part)| wire::Part {
                    name: name.to_string(),
                    complete: part.complete,
                    facts: part.facts,
                    revision: part.revision.to_string(),
                })
                .collect(),
        })
        .collect();
    page(snapshot, now_ms, items)
}

/// Kept versions (oldest first), newest first, with what each changed.
pub fn versions(kept: &[Arc<Snapshot>], now_ms: u64) -> wire::Page<wire::Version> {
    let pairs = kept.windows(2).filter_map(|pair| Some((pair.first()?, pair.last()?)));
    let mut versions: Vec<wire::Version> = pairs
        .map(|(before, after)| {
            let diff = before.diff(after);
            wire::Version {
                version: after.version().to_string(),
                age_ms: now_ms.saturating_sub(after.at_ms()),
                services: diff.service_keys().map(|key| key.to_string()).collect(),
                // Sources count along with every version; that alone is no news.
                others: diff.workloads.len()
                    + diff.namespaces.len()
                    + diff.nodes.len()
                    + diff.rejections.len()
                    + diff.sources.iter().filter(|change| is_news(change)).count(),
            }
        })
        .collect();
    versions.reverse();
    match kept.last() {
        Some(current) => page(current, now_ms, versions),
        None => page(&Snapshot::empty(Version::first(0)), now_ms, versions),
    }
}

/// Whether a source's state changed, beyond its counts.
fn is_news(change: &Change<SourceId, SourceStatus>) -> bool {
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => {
            before.lost != after.lost || before.is_synced() != after.is_synced()
        }
        _ => true,
    }
}

/// What a process knows of itself beyond its catalog.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// The version of the program.
    pub program: String,
    /// The domain of cluster names.
    pub cluster_domain: String,
    /// What blocks readiness.
    pub blockers: Vec<String>,
    /// Where the xDS server listens.
    pub xds: Option<String>,
}

/// The process at a glance.
pub fn status(
    snapshot: &Snapshot,
    process: Process,
    problems: &[Problem],
    now_ms: u64,
) -> wire::Status {
    wire::Status {
        version: snapshot.version().to_string(),
        age_ms: now_ms.saturating_sub(snapshot.at_ms()),
        program: process.program,
        cluster_domain: process.cluster_domain,
        synced: snapshot.is_synced(),
        blockers: process.blockers,
        services: snapshot.service_count(),
        endpoints: snapshot.services().map(|entry| entry.endpoints.len()).sum(),
        serving: snapshot.services().map(|entry| entry.served().count()).sum(),
        problems: problems.iter().map(problem).collect(),
        xds: process.xds,
    }
}

/// Clients whose progress is known, by name.
pub fn clients(snapshot: &Snapshot, board: &Board, now_ms: u64) -> wire::Page<wire::Client> {
    let mut clients = board.clients();
    clients.sort_by(|one, other| (&one.node, &one.id).cmp(&(&other.node, &other.id)));
    page(snapshot, now_ms, clients.iter().map(|own| client(own, now_ms)).collect())
}

fn client(client: &ClientStatus, now_ms: u64) -> wire::Client {
    let types = client.types.iter().map(|(kind, progress)| {
        let (state, since_ms, text) = match progress {
            ClientProgress::Synced => (wire::ClientState::Synced, None, None),
            ClientProgress::Stale { since_ms } => (wire::ClientState::Stale, Some(since_ms), None),
            ClientProgress::Error { text } => (wire::ClientState::Error, None, Some(text)),
            ClientProgress::NotSent => (wire::ClientState::NotSent, None, None),
        };
        wire::ClientType {
            kind: kind.to_string(),
            state,
            age_ms: since_ms.map(|since_ms| now_ms.saturating_sub(*since_ms)),
            text: text.map(ToString::to_string),
        }
    });
    wire::Client {
        id: client.id.to_string(),
        node: client.node.to_string(),
        agent: client.agent.to_string(),
        pod: client.pod.as_ref().map(ToString::to_string),
        peer: client.peer.to_string(),
        age_ms: now_ms.saturating_sub(client.since_ms),
        types: types.collect(),
    }
}

/// A reason as it goes over the wire.
pub fn reason(reason: &Reason) -> wire::Reason {
    wire::Reason {
        code: reason.code.to_string(),
        text: reason.text(),
        fix: reason.fix().to_owned(),
    }
}

/// A problem of a face, as a reason that names face, service and port.
pub(crate) fn problem(problem: &Problem) -> wire::Reason {
    let plain = reason(&problem.reason);
    wire::Reason {
        text: format!(
            "{} port {} on {}: {}",
            problem.service, problem.port, problem.face, plain.text
        ),
        ..plain
    }
}
