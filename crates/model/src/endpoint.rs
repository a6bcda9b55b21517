//! Endpoints: one address of a service with all its ports, and the verdict on it.

use std::{collections::BTreeMap, net::IpAddr, ops, sync::Arc};

use crate::{AppProtocol, Name, ObjectName, Reason, ServiceKey, Transport};

/// The three conditions of the EndpointSlice API, with their defaults applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conditions {
    /// May take new traffic (or the Service publishes what is not ready).
    pub ready: bool,
    /// Would be ready were it not terminating.
    pub serving: bool,
    /// Is being deleted.
    pub terminating: bool,
}

impl Conditions {
    /// Ready and serving.
    pub const READY: Self = Self { ready: true, serving: true, terminating: false };
    /// Alive, not ready yet or no longer.
    pub const NOT_READY: Self = Self { ready: false, serving: false, terminating: false };

    /// Unset conditions mean: ready = true, serving = ready, terminating = false
    /// (EndpointConditions of discovery.k8s.io/v1).
    pub fn from_optional(
        ready: Option<bool>,
        serving: Option<bool>,
        terminating: Option<bool>,
    ) -> Self {
        let ready = ready.unwrap_or(true);
        Self { ready, serving: serving.unwrap_or(ready), terminating: terminating.unwrap_or(false) }
    }
}

/// One port of an endpoint. Endpoints of a slice share one list of these.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointPort {
    /// The name of the Service port it stands behind.
    pub name: Name,
    /// Transport.
    pub transport: Transport,
    /// The port that the process listens on. `None`: any port.
    pub port: Option<u16>,
    /// What is spoken on it, where the endpoint itself says so.
    pub app_protocol: Option<AppProtocol>,
}

/// Zones and nodes that should use an endpoint (EndpointSlice hints).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hints {
    /// `hints.forZones`.
    pub zones: Vec<Name>,
    /// `hints.forNodes`.
    pub nodes: Vec<Name>,
}

/// One address of a service with all its ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Where to connect to.
    pub address: IpAddr,
    /// Shared with the other endpoints of the slice.
    pub ports: Arc<[EndpointPort]>,
    /// Readiness as its source tells it.
    pub conditions: Conditions,
    /// The Pod behind it, when there is one.
    pub target: Option<ObjectName>,
    /// Node it runs on.
    pub node: Option<Name>,
    /// Zone of that node.
    pub zone: Option<Name>,
    /// What few endpoints have.
    pub particulars: Particulars,
}

/// What is particular about an endpoint. Reads and writes like a [`Particular`]; nothing is
/// allocated for the many that have none.
#[derive(Clone, Debug, Default)]
pub struct Particulars(Option<Arc<Particular>>);

/// What few endpoints have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Particular {
    /// Distinguishes what shares an address: registrations of one Pod under one
    /// service (group, version), or the clusters of a set (an imported endpoint
    /// carries the id of its cluster, as Pod ranges of clusters may overlap).
    pub discriminator: Option<Name>,
    /// Hostname for DNS names below the service.
    pub hostname: Option<Name>,
    /// Share of traffic; 100 is the usual one, 0 takes none.
    pub weight: u32,
    /// An operator has switched it off, whatever else is said of it.
    pub switched_off: bool,
    /// Who should use it.
    pub hints: Option<Arc<Hints>>,
    /// What the process says of itself: methods, version, group, ...
    pub metadata: Option<Arc<BTreeMap<Name, Name>>>,
}

impl Particular {
    /// Nothing is.
    pub const NONE: Self = Self {
        discriminator: None,
        hostname: None,
        weight: Endpoint::DEFAULT_WEIGHT,
        switched_off: false,
        hints: None,
        metadata: None,
    };
}

impl Default for Particular {
    fn default() -> Self {
        Self::NONE
    }
}

impl From<Particular> for Particulars {
    fn from(particular: Particular) -> Self {
        Self((particular != Particular::NONE).then(|| Arc::new(particular)))
    }
}

impl ops::Deref for Particulars {
    type Target = Particular;

    fn deref(&self) -> &Particular {
        static NONE: Particular = Particular::NONE;
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl ops::DerefMut for Particulars {
    /// What others share is copied first.
    fn deref_mut(&mut self) -> &mut Particular {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl PartialEq for Particulars {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            _ => **self == **other,
        }
    }
}

impl Eq for Particulars {}

impl std::hash::Hash for Particulars {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl Endpoint {
    /// The weight of an endpoint that names none (Dubbo's and Envoy's habit of
    /// percent-like weights).
    pub const DEFAULT_WEIGHT: u32 = 100;

    /// A ready endpoint with nothing but address and ports.
    pub fn new(address: IpAddr, ports: Arc<[EndpointPort]>) -> Self {
        Self {
            address,
            ports,
            conditions: Conditions::READY,
            target: None,
            node: None,
            zone: None,
            particulars: Particulars::default(),
        }
    }

    /// The number of the port behind a Service port. `None`: the endpoint does
    /// not have that port, or accepts any.
    pub fn port(&self, port_name: &str, transport: Transport) -> Option<u16> {
        self.ports
            .iter()
            .find(|port| &*port.name == port_name && port.transport == transport)
            .and_then(|port| port.port)
    }

    /// The name people know it by: its Pod, else its address.
    pub fn display_name(&self) -> String {
        match &self.target {
            Some(target) => target.name.to_string(),
            None => self.address.to_string(),
        }
    }
}

/// Some endpoints of one service, under the name of the object that lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The service that they belong to.
    pub service: ServiceKey,
    /// The endpoints.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// Whether an instance is served, and if not, why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Faces hand it out.
    Served,
    /// Faces do not; at least one reason.
    NotServed(Arc<[Reason]>),
}

impl Verdict {
    /// Whether faces hand it out.
    pub fn is_served(&self) -> bool {
        matches!(self, Self::Served)
    }

    /// Why not; empty when served.
    pub fn reasons(&self) -> &[Reason] {
        match self {
            Self::Served => &[],
            Self::NotServed(reasons) => reasons,
        }
    }
}

/// An endpoint in its place inside a service, with the verdict on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The endpoint, shared with the slice that brought it.
    pub endpoint: Arc<Endpoint>,
    /// Served or not.
    pub verdict: Verdict,
}

/// The state of an instance in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Takes traffic.
    Serving,
    /// Not ready yet.
    Starting,
    /// Terminating; existing work only.
    Draining,
    /// Was ready, or should be, and is not.
    Failing,
    /// Switched off by an operator or by weight 0.
    Disabled,
    /// Nothing is known of it.
    Unknown,
}

impl State {
    /// As the HTTP API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::Failing => "failing",
            Self::Disabled => "disabled",
            Self::Unknown => "unknown",
        }
    }

    /// The state of that word; of any other, nothing is known.
    pub fn parse(text: &str) -> Self {
        let known = [Self::Serving, Self::Starting, Self::Draining, Self::Failing, Self::Disabled];
        known.into_iter().find(|state| state.as_str() == text).unwrap_or(Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100,000 of them are held. With the counters of an `Arc` it is 128 bytes, which is a
    /// size that allocators keep.
    #[test]
    fn an_endpoint_is_small() {
        assert_eq!(size_of::<Endpoint>(), 112);
    }

    #[test]
    fn nothing_particular_is_one_thing() {
        let mut one = Particulars::from(Particular { weight: 1, ..Particular::NONE });
        let other = one.clone();
        one.weight = Endpoint::DEFAULT_WEIGHT;
        assert_eq!((one, other.weight), (Particulars::default(), 1));
        assert!(Particulars::from(Particular::NONE).0.is_none());
    }
}
