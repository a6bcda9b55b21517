//! What lists hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A list, with the version of the catalog that it was read from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// Catalog version, like `k3f9-1842`.
    pub version: String,
    /// Milliseconds since that version was committed.
    pub age_ms: u64,
    /// The items.
    pub items: Vec<T>,
}

/// Why something is not served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// `PTLnnnn`.
    pub code: String,
    /// What it means here.
    pub text: String,
    /// What to do.
    pub fix: String,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Where it is known from: `kubernetes`, `registry`, or a configured name.
    pub origin: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `ClusterIP`, `Headless`, `ExternalName` or `Registered`.
    #[serde(rename = "type")]
    pub exposure: String,
    /// Virtual IPs, or the external name.
    pub addresses: Vec<String>,
    /// Ports in front.
    pub ports: Vec<Port>,
    /// Endpoints that are known.
    pub configured: usize,
    /// Endpoints that are handed out.
    pub serving: usize,
    /// Hash of what faces show of it.
    pub etag: String,
    /// The version that brought this content.
    pub changed: String,
    /// What is wrong with the service as a whole.
    pub reasons: Vec<Reason>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Empty for the single unnamed port.
    pub name: String,
    /// The port in front.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub transport: String,
    /// What is spoken: `http`, `grpc`, `tcp`, ...
    pub protocol: String,
    /// The port on every node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
}

/// An endpoint on one port: what a client connects to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Where it is known from.
    pub origin: String,
    /// Namespace of its service.
    pub namespace: String,
    /// Name of its service.
    pub service: String,
    /// Its Pod, or its address.
    pub name: String,
    /// IP address.
    pub address: String,
    /// Port; absent when it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Name of the port.
    pub port_name: String,
    /// What is spoken.
    pub protocol: String,
    /// `serving`, `starting`, `draining`, `failing`, `disabled`, `unknown`.
    pub state: String,
    /// The Pod only pretends to run its image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hollow: bool,
    /// Who told of it: `kubernetes`, `pods`, ...
    pub source: String,
    /// Node it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Zone of that node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Share of traffic; 100 is the usual one.
    pub weight: u32,
    /// What the process says of itself.
    pub metadata: BTreeMap<String, String>,
    /// Why it is not served; empty when it is.
    pub reasons: Vec<Reason>,
}

/// An endpoint with all its ports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Where it is known from.
    pub origin: String,
    /// Namespace of its service.
    pub namespace: String,
    /// Name of its service.
    pub service: String,
    /// Its Pod, or its address.
    pub name: String,
    /// IP address.
    pub address: String,
    /// Its ports.
    pub ports: Vec<EndpointPort>,
    /// Takes new traffic.
    pub ready: bool,
    /// Would, were it not terminating.
    pub serving: bool,
    /// Is being deleted.
    pub terminating: bool,
    /// Hostname for DNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Node it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Zone of that node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Why it is not served; empty when it is.
    pub reasons: Vec<Reason>,
}

/// A port of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPort {
    /// Name of the service port it stands behind.
    pub name: String,
    /// The number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `TCP`, `UDP` or `SCTP`.
    pub transport: String,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Name.
    pub name: String,
    /// Zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Internal addresses.
    pub addresses: Vec<String>,
    /// The Ready condition.
    pub ready: bool,
    /// Pods on it.
    pub workloads: usize,
}

/// A Pod, as far as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Addresses, primary first.
    pub addresses: Vec<String>,
    /// Node it is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `status.phase`.
    pub phase: String,
    /// The Ready condition.
    pub ready: bool,
    /// It only pretends to run its image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hollow: bool,
}

/// A source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Name.
    pub name: String,
    /// `synced`, `listing` or `lost`.
    pub state: String,
    /// Milliseconds since it is in that state.
    pub since_ms: u64,
    /// What went wrong, when it is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The kinds it watches.
    pub parts: Vec<Part>,
}

/// One kind that a source watches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Name.
    pub name: String,
    /// Listed whole at least once.
    pub complete: bool,
    /// Facts it tells.
    pub facts: usize,
    /// The source's own revision.
    pub revision: String,
}

/// A version that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Like `k3f9-1842`.
    pub version: String,
    /// Milliseconds since it was committed.
    pub age_ms: u64,
    /// Services that it changed.
    pub services: Vec<String>,
    /// Other things that it changed: Pods, nodes, namespaces, sources.
    pub others: usize,
}

/// The process at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Catalog version.
    pub version: String,
    /// Milliseconds since it was committed.
    pub age_ms: u64,
    /// The version of the program.
    #[serde(default)]
    pub program: String,
    /// The domain of cluster names.
    #[serde(default)]
    pub cluster_domain: String,
    /// Every source has told all it knows.
    pub synced: bool,
    /// What blocks readiness.
    pub blockers: Vec<String>,
    /// Services.
    pub services: usize,
    /// Endpoints.
    pub endpoints: usize,
    /// Endpoints that are handed out.
    pub serving: usize,
    /// What faces cannot show.
    pub problems: Vec<Reason>,
    /// `ip:port` of the xDS server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xds: Option<String>,
}

/// A client whose progress is known: of xDS, one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// Face and client.
    pub id: String,
    /// The name that it gives itself.
    pub node: String,
    /// What program it is, in its own words.
    pub agent: String,
    /// `namespace/name` of its Pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Where it connects from.
    pub peer: String,
    /// Milliseconds since it came.
    pub age_ms: u64,
    /// How far it is, by type of resource.
    pub types: Vec<ClientType>,
}

/// How far a client is with one type of resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientType {
    /// `CDS`, `EDS`, `LDS` or `RDS`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How far.
    pub state: ClientState,
    /// Milliseconds since it was told what it has not answered to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// Why it refused, in its own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientState {
    /// It has accepted all that there is.
    Synced,
    /// It has not answered yet to what it was told.
    Stale,
    /// It refused what it was told last.
    Error,
    /// It is owed an answer.
    NotSent,
}

/// A client of the DNS server, over the last minute or two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsClient {
    /// Its address, or `others`: those that were too many to be told apart.
    pub address: String,
    /// `NAMESPACE/NAME` of the Pod that has the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Queries a second.
    pub queries_per_second: f64,
    /// The part of them that was answered NXDOMAIN, 0 to 1.
    pub denied: f64,
    /// The part of them that was answered SERVFAIL or REFUSED, 0 to 1.
    pub failed: f64,
}
