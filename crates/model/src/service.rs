//! Services: stable names in front of endpoints that come and go.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{Name, ServiceKey};

/// How a service shows itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Exposure {
    /// Has one virtual IP per family (`Service::addresses`).
    ClusterIp,
    /// Has no virtual IP; names resolve to the endpoints themselves.
    Headless,
    /// An alias for a name outside the cluster.
    ExternalName(Name),
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP, the default of the Kubernetes API.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// As the Kubernetes API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// Reads the Kubernetes spelling; absent means TCP.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// What is spoken on a port. From `appProtocol`, else from the port name's
/// prefix before `-` (Istio's convention), else the transport decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AppProtocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC.
    Grpc,
    /// TLS whose content is not looked at.
    Tls,
    /// Plain TCP.
    Tcp,
    /// TCP of which nothing was said that is known. A proxy that can look at the
    /// first bytes decides by them; to everyone else it is TCP.
    Unknown,
    /// Plain UDP.
    Udp,
    /// Any other name, kept as it was written: `mongo`, `redis`, `dubbo`, ...
    Other(Name),
}

impl AppProtocol {
    /// Decides the protocol of a port from what its Service says of it.
    pub fn of(app_protocol: Option<&str>, port_name: &str, transport: Transport) -> Self {
        if transport == Transport::Udp {
            return Self::Udp;
        }
        let named = app_protocol.filter(|text| !text.is_empty());
        let word = named.unwrap_or_else(|| port_name.split('-').next().unwrap_or_default());
        match (word.to_ascii_lowercase().as_str(), named) {
            ("http" | "kubernetes.io/ws", _) => Self::Http,
            ("http2" | "kubernetes.io/h2c", _) => Self::Http2,
            ("grpc", _) => Self::Grpc,
            ("https" | "tls" | "kubernetes.io/wss", _) => Self::Tls,
            ("mongo" | "redis" | "mysql" | "dubbo" | "thrift" | "kafka", _) => {
                Self::Other(crate::name(&word.to_ascii_lowercase()))
            }
            ("tcp", _) => Self::Tcp,
            (_, Some(other)) => Self::Other(crate::name(other)),
            _ => Self::Unknown,
        }
    }

    /// The protocol as text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tls => "tls",
            Self::Tcp | Self::Unknown => "tcp",
            Self::Udp => "udp",
            Self::Other(other) => other,
        }
    }
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// Empty for the single unnamed port.
    pub name: Name,
    /// Transport.
    pub transport: Transport,
    /// The port in front.
    pub port: u16,
    /// The port on every node, for NodePort and LoadBalancer.
    pub node_port: Option<u16>,
    /// What is spoken on it.
    pub app_protocol: AppProtocol,
}

/// Which endpoints may take traffic from a given place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficPolicy {
    /// All of the cluster.
    #[default]
    Cluster,
    /// Those of the same node only.
    Local,
}

/// Stickiness of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SessionAffinity {
    /// Each connection is balanced anew.
    #[default]
    None,
    /// By client address, for so many seconds after its last connection.
    ClientIp {
        /// `sessionAffinityConfig.clientIP.timeoutSeconds`.
        timeout_seconds: u32,
    },
}

/// Preference for near endpoints, where the Service asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficDistribution {
    /// No preference.
    #[default]
    Any,
    /// The client's zone first.
    SameZone,
    /// The client's node, then its zone.
    SameNode,
}

/// How a service is reached from outside the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outside {
    /// `spec.externalIPs`.
    pub addresses: Vec<IpAddr>,
    /// Addresses of its load balancer (`status.loadBalancer.ingress`).
    pub balancers: Vec<IpAddr>,
    /// Names of its load balancer, where it has no address.
    pub balancer_names: Vec<Name>,
}

/// A service as its owner declared it. Its endpoints are kept beside it in the
/// catalog, never in another place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// Identity.
    pub key: ServiceKey,
    /// How it shows itself.
    pub exposure: Exposure,
    /// Virtual IPs, primary family first.
    pub addresses: Vec<IpAddr>,
    /// How it is reached from outside; `None` for nearly all services.
    pub outside: Option<Arc<Outside>>,
    /// Ports in declared order.
    pub ports: Vec<ServicePort>,
    /// Whether endpoints count before they are ready.
    pub publish_not_ready: bool,
    /// For traffic from inside the cluster.
    pub internal_policy: TrafficPolicy,
    /// For traffic from outside (node ports, load balancers).
    pub external_policy: TrafficPolicy,
    /// Stickiness.
    pub affinity: SessionAffinity,
    /// Nearness.
    pub distribution: TrafficDistribution,
    /// Whether a selector chooses Pods (then missing endpoints mean missing Pods).
    pub selector: Arc<BTreeMap<Name, Name>>,
    /// Labels of the object.
    pub labels: Arc<BTreeMap<Name, Name>>,
}

impl Service {
    /// A service that only its endpoints tell of: no virtual IP, no declared
    /// ports. Registered and static services begin as this.
    pub fn bare(key: ServiceKey) -> Self {
        Self {
            key,
            exposure: Exposure::Headless,
            addresses: Vec::new(),
            outside: None,
            ports: Vec::new(),
            publish_not_ready: false,
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Cluster,
            affinity: SessionAffinity::None,
            distribution: TrafficDistribution::Any,
            selector: Arc::default(),
            labels: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_of_a_port() {
        for (app, port_name, transport, expected) in [
            (None, "http", Transport::Tcp, "http"),
            (None, "http2-web", Transport::Tcp, "http2"),
            (None, "grpc-api", Transport::Tcp, "grpc"),
            (None, "tls-x", Transport::Tcp, "tls"),
            (None, "mongo", Transport::Tcp, "mongo"),
            (None, "whatever", Transport::Tcp, "tcp"),
            (None, "httpx", Transport::Tcp, "tcp"),
            (None, "tcp-x", Transport::Tcp, "tcp"),
            (None, "", Transport::Tcp, "tcp"),
            (None, "grpc", Transport::Udp, "udp"),
            (Some("kubernetes.io/h2c"), "http", Transport::Tcp, "http2"),
            (Some("example.com/own"), "http", Transport::Tcp, "example.com/own"),
        ] {
            assert_eq!(
                AppProtocol::of(app, port_name, transport).as_str(),
                expected,
                "{app:?} {port_name:?} {transport:?}"
            );
        }
    }

    #[test]
    fn tcp_that_is_said_differs_from_tcp_that_is_assumed() {
        for (app, port_name, said) in [
            (None, "tcp", true),
            (None, "tcp-x", true),
            (Some("TCP"), "whatever", true),
            (None, "whatever", false),
            (None, "", false),
            (Some(""), "", false),
        ] {
            let protocol = AppProtocol::of(app, port_name, Transport::Tcp);
            assert_eq!(protocol == AppProtocol::Tcp, said, "{app:?} {port_name:?}");
            assert_eq!(protocol == AppProtocol::Unknown, !said, "{app:?} {port_name:?}");
        }
    }
}
