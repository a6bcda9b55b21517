//! Resources of proxyless gRPC clients: the strict dialect.
//!
//! A channel to `xds:///HOST:PORT` asks for the listener of that very name, then for
//! what it refers to: listener, routes, cluster, endpoints. Clients refuse what they
//! cannot do (gRFC A27, A28; a balancer other than ROUND_ROBIN and RING_HASH, for
//! one), so nothing is set here that they do not need.
//!
//! A client that asks for a port says by this that gRPC is spoken on it: ports of
//! every TCP protocol are served.

use portolan_envoy_proto::{
    config::{
        cluster::v3::{
            Cluster,
            cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy},
        },
        listener::v3::{ApiListener, Listener},
        route::v3::{RouteConfiguration, VirtualHost, route::Action},
    },
    extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager, http_connection_manager::RouteSpecifier,
    },
    pack,
};

use crate::{Aliases, Backend, names, parts};

/// The targets by which clients of a namespace reach a backend.
pub fn targets(
    backend: &Backend,
    aliases: &Aliases,
    cluster_domain: &str,
    client_namespace: Option<&str>,
) -> Vec<String> {
    let keys = [&backend.key].into_iter().chain(aliases.of_host(&backend.host));
    keys.flat_map(|key| names::client_hosts(key, cluster_domain, client_namespace))
        .map(|host| format!("{host}:{}", backend.port))
        .collect()
}

/// What a channel to `target` asks for first.
pub fn listener(target: &str, backend: &Backend) -> Listener {
    let manager = HttpConnectionManager {
        http_filters: vec![parts::router()],
        route_specifier: Some(RouteSpecifier::Rds(parts::rds(backend.cluster()))),
        ..HttpConnectionManager::default()
    };
    Listener {
        name: target.to_owned(),
        api_listener: Some(ApiListener { api_listener: Some(pack(&manager)) }),
        ..Listener::default()
    }
}

/// The routes of a backend, under the name of its cluster. They match every target:
/// which names mean the backend is decided by the listeners, and one set of routes
/// serves all of them.
pub fn routes(backend: &Backend) -> RouteConfiguration {
    let host = VirtualHost {
        name: backend.cluster(),
        domains: vec!["*".to_owned()],
        routes: vec![parts::every_request(Action::Route(parts::to_cluster(backend.cluster())))],
        ..VirtualHost::default()
    };
    RouteConfiguration {
        name: backend.cluster(),
        virtual_hosts: vec![host],
        ..RouteConfiguration::default()
    }
}

/// The cluster of a backend.
pub fn cluster(backend: &Backend) -> Cluster {
    Cluster {
        name: backend.cluster(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(parts::ads()),
            ..EdsClusterConfig::default()
        }),
        lb_policy: LbPolicy::RoundRobin.into(),
        ..Cluster::default()
    }
}

#[cfg(test)]
mod tests {
    use portolan_envoy_proto::config::endpoint::v3::lb_endpoint::HostIdentifier;
    use portolan_model::{ClientView, Transport};
    use portolan_testkit::{World, cluster_ip, endpoint, external_name, port};

    use super::*;
    use crate::{backends, endpoints};

    /// The whole chain that a client of `demo` walks, for each target.
    #[test]
    fn a_channel_finds_its_way_from_target_to_endpoints() {
        let ports = vec![port("grpc", Transport::Tcp, 80)];
        let service = cluster_ip("demo", "web", &["127.96.0.1".parse().unwrap()], ports);
        let key = service.key.clone();
        let to =
            |address: &str| endpoint(address.parse().unwrap(), &[("grpc", Transport::Tcp, 8080)]);
        let snapshot = World::new()
            .service(service)
            .service(external_name("shop", "alias", "web.demo.svc.cluster.local"))
            .endpoints("s", &key, vec![to("127.10.0.1"), to("127.10.0.2")])
            .snapshot();
        let aliases = Aliases::of(&snapshot, "cluster.local");
        let entry = snapshot.service(&key).unwrap();
        let backends = backends(entry, "cluster.local", &ClientView::default());
        let [backend] = &*backends else { panic!("one backend: {backends:?}") };
        let targets = targets(backend, &aliases, "cluster.local", Some("demo"));
        assert_eq!(
            targets,
            [
                "web.demo.svc.cluster.local:80",
                "web.demo.svc:80",
                "web.demo:80",
                "web:80",
                "alias.shop.svc.cluster.local:80",
                "alias.shop.svc:80",
                "alias.shop:80",
            ]
        );
        for target in &targets {
            let listener = listener(target, backend);
            assert_eq!(listener.name, *target);
            let api = listener.api_listener.unwrap().api_listener.unwrap();
            let manager: HttpConnectionManager = parts::unpack(&api);
            assert_eq!(manager.http_filters.last().unwrap().name, "envoy.filters.http.router");
            let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier else { panic!("no RDS") };
            assert_eq!(rds.route_config_name, routes(backend).name);
        }
        let [host] = &*routes(backend).virtual_hosts else { panic!("one host") };
        assert_eq!(host.domains, ["*"]);
        let [route] = &*host.routes else { panic!("one route") };
        assert_eq!(route.action, Some(Action::Route(parts::to_cluster(cluster(backend).name))));
        let assignment = endpoints::assignment(backend);
        assert_eq!(assignment.cluster_name, "outbound|80||web.demo.svc.cluster.local");
        let [locality] = &*assignment.endpoints else { panic!("one locality") };
        assert!(locality.locality.is_some());
        assert_eq!(locality.load_balancing_weight.unwrap().value, 200);
        let addresses: Vec<_> = locality
            .lb_endpoints
            .iter()
            .map(|endpoint| match &endpoint.host_identifier {
                Some(HostIdentifier::Endpoint(endpoint)) => endpoint.address.clone().unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = ["127.10.0.1:8080", "127.10.0.2:8080"];
        assert_eq!(addresses, expected.map(|text| parts::socket(text.parse().unwrap())));
    }

    #[test]
    fn nothing_of_envoys_own_reaches_a_grpc_client() {
        let service = cluster_ip(
            "demo",
            "web",
            &["127.96.0.1".parse().unwrap()],
            vec![port("grpc", Transport::Tcp, 80), port("dns", Transport::Udp, 53)],
        );
        let snapshot = World::new().service(service.clone()).snapshot();
        let entry = snapshot.service(&service.key).unwrap();
        let backends = backends(entry, "cluster.local", &ClientView::default());
        assert_eq!(backends.len(), 1, "UDP is not carried");
        let cluster = cluster(&backends[0]);
        let only = Cluster {
            name: cluster.name.clone(),
            cluster_discovery_type: cluster.cluster_discovery_type.clone(),
            eds_cluster_config: cluster.eds_cluster_config.clone(),
            ..Cluster::default()
        };
        assert_eq!(cluster, only);
        assert_eq!(cluster.lb_policy(), LbPolicy::RoundRobin);
        assert!(endpoints::assignment(&backends[0]).endpoints.is_empty());
    }
}
