//! Worlds: facts by hand, told to a catalog the way a source tells them.
//!
//! A [`World`] is a plain list of facts. It becomes a snapshot by going through
//! `Catalog::apply` as one listing, never by building a snapshot by hand: what a
//! test sees is what a face would see. [`Live`] keeps the catalog, so that a
//! changed world can follow and subscribers see the difference.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use portolan_catalog::{Catalog, Hub, Snapshot};
use portolan_model::{
    AppProtocol, Endpoint, EndpointPort, EndpointSlice, Event, Exposure, Fact, FactKey, Name,
    Namespace, ObjectName, Origin, Service, ServiceKey, ServicePort, SourceId, SourceReport,
    Transport, Version, Workload, name,
};

/// The one source and the one part that a world speaks through.
const SOURCE: &str = "world";

/// When the worlds of tests are observed: 2026-01-01, in milliseconds.
const OBSERVED_AT_MS: u64 = 1_767_225_600_000;

/// Facts that are so at one time.
#[derive(Clone, Debug, Default)]
pub struct World {
    facts: BTreeMap<FactKey, Fact>,
}

impl World {
    /// A world with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a namespace.
    #[must_use]
    pub fn namespace(mut self, text: &str) -> Self {
        let namespace = Namespace { name: name(text), labels: Arc::default() };
        self.facts.insert(FactKey::Namespace(name(text)), Fact::Namespace(namespace));
        self
    }

    /// Adds or replaces a service.
    #[must_use]
    pub fn service(mut self, service: Service) -> Self {
        self.facts.insert(FactKey::Service(service.key.clone()), Fact::Service(service.into()));
        self
    }

    /// Adds or replaces a list of endpoints. `object` names the list.
    #[must_use]
    pub fn endpoints(mut self, object: &str, service: &ServiceKey, list: Vec<Endpoint>) -> Self {
        let key = FactKey::EndpointSlice(
            service.origin.clone(),
            ObjectName::new(&service.namespace, object),
        );
        let endpoints = list.into_iter().map(Arc::new).collect();
        let slice = EndpointSlice { service: service.clone(), endpoints };
        self.facts.insert(key, Fact::EndpointSlice(slice));
        self
    }

    /// Adds endpoints of a service of another origin.
    #[must_use]
    pub fn registered(
        self,
        origin: &str,
        namespace: &str,
        service: &str,
        list: Vec<Endpoint>,
    ) -> Self {
        let key = ServiceKey::new(Origin::from_text(origin), namespace, service);
        let object: Name = name(&format!("of-{service}"));
        self.endpoints(&object, &key, list)
    }

    /// Adds or replaces a Pod.
    #[must_use]
    pub fn pod(self, namespace: &str, pod: &str, address: IpAddr) -> Self {
        self.pod_somewhere(namespace, pod, address, None)
    }

    /// Adds or replaces a Pod that is bound to a Node.
    #[must_use]
    pub fn pod_on(self, namespace: &str, pod: &str, address: IpAddr, node: &str) -> Self {
        self.pod_somewhere(namespace, pod, address, Some(name(node)))
    }

    fn pod_somewhere(
        mut self,
        namespace: &str,
        pod: &str,
        address: IpAddr,
        node: Option<Name>,
    ) -> Self {
        let object = ObjectName::new(namespace, pod);
        let workload = Workload {
            name: object.clone(),
            uid: name(&format!("uid-{namespace}-{pod}")),
            addresses: vec![address],
            node,
            service_account: None,
            phase: name("Running"),
            ready: true,
            terminating: false,
            not_ready: None,
            hollow: false,
            labels: Arc::default(),
        };
        self.facts.insert(FactKey::Workload(object), Fact::Workload(workload.into()));
        self
    }

    /// Adds or replaces any fact.
    #[must_use]
    pub fn fact(mut self, key: FactKey, fact: Fact) -> Self {
        self.facts.insert(key, fact);
        self
    }

    /// Takes a fact away.
    #[must_use]
    pub fn without(mut self, key: &FactKey) -> Self {
        self.facts.remove(key);
        self
    }

    /// The world as one complete listing.
    pub fn reports(&self) -> Vec<SourceReport> {
        let part = name(SOURCE);
        let begin = Event::Begin { part: part.clone() };
        let complete = Event::Complete { part };
        [begin].into_iter().chain(self.sightings()).chain([complete]).map(report).collect()
    }

    fn sightings(&self) -> impl Iterator<Item = Event> + '_ {
        self.facts.iter().map(|(key, fact)| Event::Sighting {
            part: name(SOURCE),
            key: key.clone(),
            fact: Box::new(fact.clone()),
        })
    }

    /// The snapshot that this world makes.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Live::new(self).hub().snapshot()
    }

    /// The snapshot while the listing is still under way: everything is there,
    /// and nothing says that this is all.
    pub fn unsynced(&self) -> Arc<Snapshot> {
        let hub = Hub::new(Version::first(0));
        let begin = Event::Begin { part: name(SOURCE) };
        let reports = [begin].into_iter().chain(self.sightings()).map(report);
        Catalog::new(hub.clone()).apply(reports, OBSERVED_AT_MS);
        hub.snapshot()
    }
}

/// A catalog that follows a world.
#[derive(Debug)]
pub struct Live {
    catalog: Catalog,
    hub: Arc<Hub>,
    now_ms: u64,
}

impl Live {
    /// Starts with a world.
    pub fn new(world: &World) -> Self {
        let hub = Hub::new(Version::first(0));
        let mut live = Self { catalog: Catalog::new(hub.clone()), hub, now_ms: OBSERVED_AT_MS };
        live.set(world);
        live
    }

    /// Starts with a listing that has only begun.
    pub fn unsynced() -> Self {
        let hub = Hub::new(Version::first(0));
        let mut live = Self { catalog: Catalog::new(hub.clone()), hub, now_ms: OBSERVED_AT_MS };
        live.catalog.apply([report(Event::Begin { part: name(SOURCE) })], OBSERVED_AT_MS);
        live
    }

    /// Where faces subscribe.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The world is another now; what it no longer holds is gone.
    pub fn set(&mut self, world: &World) -> Arc<Snapshot> {
        self.now_ms += 1;
        self.catalog.apply(world.reports(), self.now_ms);
        self.hub.snapshot()
    }
}

fn report(event: Event) -> SourceReport {
    SourceReport {
        source: SourceId::new(SOURCE),
        revision: name("1"),
        observed_at_ms: OBSERVED_AT_MS,
        event,
    }
}

/// A port of a service and, by the same name, of its endpoints.
pub fn port(port_name: &str, transport: Transport, number: u16) -> ServicePort {
    ServicePort {
        name: name(port_name),
        transport,
        port: number,
        node_port: None,
        app_protocol: AppProtocol::of(None, port_name, transport),
    }
}

/// A service with virtual IPs.
pub fn cluster_ip(
    namespace: &str,
    service: &str,
    addresses: &[IpAddr],
    ports: Vec<ServicePort>,
) -> Service {
    Service {
        exposure: Exposure::ClusterIp,
        addresses: addresses.to_vec(),
        ports,
        ..Service::bare(ServiceKey::kubernetes(namespace, service))
    }
}

/// A service without virtual IPs.
pub fn headless(namespace: &str, service: &str, ports: Vec<ServicePort>) -> Service {
    Service { ports, ..Service::bare(ServiceKey::kubernetes(namespace, service)) }
}

/// An alias.
pub fn external_name(namespace: &str, service: &str, target: &str) -> Service {
    Service {
        exposure: Exposure::ExternalName(name(target)),
        ..Service::bare(ServiceKey::kubernetes(namespace, service))
    }
}

/// A ready endpoint whose ports are given as (name, transport, number).
pub fn endpoint(address: IpAddr, ports: &[(&str, Transport, u16)]) -> Endpoint {
    let ports = ports.iter().map(|(port_name, transport, number)| EndpointPort {
        name: name(port_name),
        transport: *transport,
        port: Some(*number),
        app_protocol: None,
    });
    Endpoint::new(address, ports.collect())
}
