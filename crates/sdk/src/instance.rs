//! One service of one process, as its callers see it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use portolan_dialects::Registration;
use portolan_model::State;

/// One service of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Instance {
    /// The Pod that the process runs in.
    pub pod: String,
    /// Where it listens.
    pub address: IpAddr,
    /// On which port.
    pub port: u16,
    /// The interface: the name of the service.
    pub interface: String,
    /// Group, where the framework has such.
    pub group: Option<String>,
    /// Version of the interface.
    pub version: Option<String>,
    /// What is spoken: `http`, `grpc`, `dubbo`, ...
    pub protocol: String,
    /// Path below the address; empty, or beginning with `/`.
    pub path: String,
    /// Methods that it offers.
    pub methods: Vec<String>,
    /// Share of traffic; 100 is the usual one, 0 takes none.
    pub weight: u32,
    /// Zone: the process's word, else the Pod's label.
    pub zone: Option<String>,
    /// All other parameters that the process gave.
    pub metadata: BTreeMap<String, String>,
    /// The Pod is running, ready and not terminating.
    pub ready: bool,
    /// The same in one word, and why if not.
    pub state: State,
}

/// What makes two sightings the same instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) pod: String,
    address: SocketAddr,
    protocol: String,
    group: Option<String>,
    version: Option<String>,
}

impl Instance {
    /// An instance that is known to be there, without a registry: for a static
    /// list, and for tests.
    pub fn fixed(registration: Registration) -> Self {
        Self::new("", registration, State::Serving)
    }

    pub(crate) fn new(pod: &str, registration: Registration, state: State) -> Self {
        let off = registration.weight == 0 && state == State::Serving;
        Self {
            pod: pod.to_owned(),
            address: registration.address,
            port: registration.port,
            interface: registration.interface,
            group: registration.group,
            version: registration.version,
            protocol: registration.protocol,
            path: registration.path,
            methods: registration.methods,
            weight: registration.weight,
            zone: registration.zone,
            metadata: registration.params,
            ready: state == State::Serving,
            state: if off { State::Disabled } else { state },
        }
    }

    /// As a server tells of it. `None`: it has no address and port to call.
    #[cfg(feature = "server")]
    pub(crate) fn from_wire(told: portolan_wire::Instance) -> Option<Self> {
        let address = told.address.parse().ok()?;
        let port = told.port?;
        let mut metadata = told.metadata;
        // What a registration has fields for (`Registration::metadata`).
        let mut take = |key: &str| metadata.remove(key);
        let (group, version) = (take("group"), take("version"));
        let protocol = take("protocol").unwrap_or(told.protocol);
        let (path, methods) = (take("path").unwrap_or_default(), take("methods"));
        let methods = methods.iter().flat_map(|text| text.split(',')).map(str::to_owned);
        let state = State::parse(&told.state);
        Some(Self {
            pod: told.name,
            address,
            port,
            interface: told.service,
            group,
            version,
            protocol,
            path,
            methods: methods.collect(),
            weight: told.weight,
            zone: told.zone,
            metadata,
            ready: matches!(state, State::Serving | State::Disabled),
            state,
        })
    }

    /// Where to connect to.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Whether it takes new calls: ready, and its weight is not 0.
    pub fn is_available(&self) -> bool {
        self.state == State::Serving
    }

    pub(crate) fn key(&self) -> Key {
        Key {
            pod: self.pod.clone(),
            address: self.socket_address(),
            protocol: self.protocol.clone(),
            group: self.group.clone(),
            version: self.version.clone(),
        }
    }
}
