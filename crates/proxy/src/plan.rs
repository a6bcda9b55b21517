//! Which fronts a service has and which endpoints stand behind each. Pure.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use portolan_catalog::{
    ServiceEntry,
    choose::{Traffic, choose_among},
};
use portolan_model::{
    ClientView, Code, Endpoint, Exposure, Reason, ServiceKey, ServicePort, SessionAffinity,
    Transport,
};

/// A Service with this label is served by another proxy (KEP-2447 of
/// Kubernetes; kube-proxy leaves it alone, too).
const OTHER_PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// What clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Front {
    /// Address and port.
    pub address: SocketAddr,
    /// TCP or UDP.
    pub transport: Transport,
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.address, self.transport.as_str())
    }
}

/// What stands behind a front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The service.
    pub service: ServiceKey,
    /// Where connections may go. Empty: they are refused.
    pub endpoints: Vec<SocketAddr>,
    /// How long a client stays with its endpoint after its last connection.
    pub affinity: Option<Duration>,
}

/// What plans depend on besides the service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Where this proxy stands.
    pub view: ClientView,
    /// Addresses that node ports are bound on.
    pub node_port_addresses: Vec<IpAddr>,
}

/// The fronts of a service, and the ports that cannot have one.
pub fn plans(entry: &ServiceEntry, rules: &Rules) -> (BTreeMap<Front, Plan>, Vec<(u16, Reason)>) {
    let service = &entry.service;
    let (mut fronts, mut impossible) = (BTreeMap::new(), Vec::new());
    if service.exposure != Exposure::ClusterIp || service.labels.contains_key(OTHER_PROXY_LABEL) {
        return (fronts, impossible);
    }
    let affinity = match service.affinity {
        SessionAffinity::None => None,
        SessionAffinity::ClientIp { timeout_seconds } => {
            Some(Duration::from_secs(u64::from(timeout_seconds)))
        }
    };
    for port in &service.ports {
        if port.transport == Transport::Sctp {
            let detail = format!("Port {} is SCTP.", port.port);
            impossible.push((port.port, Reason::new(Code::TRANSPORT_UNSUPPORTED, detail)));
            continue;
        }
        let virtual_ips = service.addresses.iter().map(|ip| (*ip, port.port, Traffic::Internal));
        let node_ports = port.node_port.into_iter().flat_map(|number| {
            rules.node_port_addresses.iter().map(move |ip| (*ip, number, Traffic::External))
        });
        for (ip, number, traffic) in virtual_ips.chain(node_ports) {
            let front = Front { address: (ip, number).into(), transport: port.transport };
            let endpoints = endpoints(entry, port, ip, traffic, rules);
            let plan = Plan { service: service.key.clone(), endpoints, affinity };
            fronts.insert(front, plan);
        }
    }
    (fronts, impossible)
}

/// The chosen endpoints of the front's family, each once.
fn endpoints(
    entry: &ServiceEntry,
    port: &ServicePort,
    front: IpAddr,
    traffic: Traffic,
    rules: &Rules,
) -> Vec<SocketAddr> {
    let behind = |endpoint: &Endpoint| {
        let mut ports = endpoint.ports.iter();
        ports.find(|own| own.name == port.name && own.transport == port.transport).cloned()
    };
    let can = |endpoint: &Endpoint| {
        endpoint.address.is_ipv4() == front.is_ipv4() && behind(endpoint).is_some()
    };
    let mut found: Vec<SocketAddr> = choose_among(entry, &rules.view, traffic, can)
        .endpoints
        .into_iter()
        .filter_map(|placed| {
            // An endpoint that takes any port is met on the service's own.
            let number = behind(&placed.endpoint)?.port.unwrap_or(port.port);
            Some((placed.endpoint.address, number).into())
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use portolan_model::{Conditions, Service, TrafficPolicy};
    use portolan_testkit::{World, cluster_ip, endpoint, headless, port};

    use super::*;

    fn ep(address: &str, port: u16) -> Endpoint {
        endpoint(address.parse().unwrap(), &[("http", Transport::Tcp, port)])
    }

    fn web(edit: impl FnOnce(&mut Service)) -> Service {
        let addresses = ["127.96.0.1".parse().unwrap(), "fd00:96::1".parse().unwrap()];
        let mut service =
            cluster_ip("demo", "web", &addresses, vec![port("http", Transport::Tcp, 80)]);
        edit(&mut service);
        service
    }

    fn check(service: Service, list: Vec<Endpoint>, expected: &[(&str, &[&str])]) {
        let key = service.key.clone();
        let world = World::new().service(service).endpoints("s", &key, list);
        let snapshot = world.snapshot();
        let rules = Rules {
            view: ClientView { node: Some("here".into()), ..ClientView::default() },
            node_port_addresses: vec!["127.0.0.1".parse().unwrap()],
        };
        let (fronts, _) = plans(snapshot.service(&key).unwrap(), &rules);
        let found: Vec<(String, Vec<String>)> = fronts
            .iter()
            .map(|(front, plan)| {
                let endpoints = plan.endpoints.iter().map(ToString::to_string).collect();
                (front.to_string(), endpoints)
            })
            .collect();
        let expected: Vec<(String, Vec<String>)> = expected
            .iter()
            .map(|(front, list)| {
                ((*front).to_owned(), list.iter().map(|text| (*text).to_owned()).collect())
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_family_gets_its_own_endpoints() {
        check(
            web(|_| {}),
            vec![ep("127.10.0.1", 8080), ep("fd00:10::1", 8080)],
            &[
                ("127.96.0.1:80 (TCP)", &["127.10.0.1:8080"]),
                ("[fd00:96::1]:80 (TCP)", &["[fd00:10::1]:8080"]),
            ],
        );
    }

    #[test]
    fn node_ports_follow_the_external_policy() {
        let edit = |service: &mut Service| {
            service.addresses.truncate(1);
            service.ports[0].node_port = Some(30080);
            service.external_policy = TrafficPolicy::Local;
        };
        let mut near = ep("127.10.0.1", 8080);
        near.node = Some("here".into());
        check(
            web(edit),
            vec![near, ep("127.10.0.2", 8080)],
            &[
                ("127.0.0.1:30080 (TCP)", &["127.10.0.1:8080"]),
                ("127.96.0.1:80 (TCP)", &["127.10.0.1:8080", "127.10.0.2:8080"]),
            ],
        );
    }

    #[test]
    fn endpoints_that_are_not_ready_or_lack_the_port_take_nothing() {
        let mut starting = ep("127.10.0.1", 8080);
        starting.conditions = Conditions::NOT_READY;
        let other = endpoint("127.10.0.2".parse().unwrap(), &[("grpc", Transport::Tcp, 9090)]);
        let edit = |service: &mut Service| service.addresses.truncate(1);
        check(web(edit), vec![starting, other], &[("127.96.0.1:80 (TCP)", &[])]);
    }

    #[test]
    fn other_proxies_services_and_headless_ones_have_no_front() {
        let labelled = web(|service| {
            let labels = [(OTHER_PROXY_LABEL.into(), "mine".into())];
            service.labels = std::sync::Arc::new(labels.into());
        });
        check(labelled, vec![ep("127.10.0.1", 8080)], &[]);
        let ports = vec![port("http", Transport::Tcp, 80)];
        check(headless("demo", "db", ports), vec![ep("127.10.0.1", 8080)], &[]);
    }

    #[test]
    fn sctp_is_told_and_the_rest_goes_on() {
        let service = web(|service| {
            service.addresses.truncate(1);
            service.ports.push(port("sig", Transport::Sctp, 2905));
        });
        let key = service.key.clone();
        let snapshot = World::new().service(service).snapshot();
        let (fronts, impossible) = plans(snapshot.service(&key).unwrap(), &Rules::default());
        assert_eq!(fronts.len(), 1);
        assert_eq!(impossible[0].0, 2905);
        assert_eq!(impossible[0].1.code, Code::TRANSPORT_UNSUPPORTED);
    }
}
