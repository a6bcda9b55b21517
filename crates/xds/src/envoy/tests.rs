//! What Envoy is told of a small world, as text: one line per decision.

use portolan_envoy_proto::{
    config::{
        listener::v3::{Filter, FilterChain, Listener, filter},
        route::v3::{RouteConfiguration, route::Action},
    },
    extensions::{
        filters::network::{
            http_connection_manager::v3::{
                HttpConnectionManager, http_connection_manager::RouteSpecifier,
            },
            tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
        },
        upstreams::http::v3::{HttpProtocolOptions, http_protocol_options},
    },
};
use portolan_model::{ClientView, Service, Transport};
use portolan_testkit::{World, cluster_ip, external_name, headless, port};

use super::*;
use crate::{Aliases, Backend, backends, parts};

const DOMAIN: &str = "cluster.local";

fn service(namespace: &str, name: &str, last: u8, ports: &[(&str, u16)]) -> Service {
    let addresses = [[127, 96, 0, last].into()];
    let ports = ports.iter().map(|(name, number)| port(name, Transport::Tcp, *number)).collect();
    cluster_ip(namespace, name, &addresses, ports)
}

fn of(services: Vec<Service>) -> (Vec<Backend>, Aliases) {
    let world = services.into_iter().fold(World::new(), World::service);
    let snapshot = world.snapshot();
    let view = ClientView::default();
    let backends = snapshot.services().flat_map(|entry| backends(entry, DOMAIN, &view)).collect();
    (backends, Aliases::of(&snapshot, DOMAIN))
}

fn routes_text(routes: &RouteConfiguration) -> Vec<String> {
    let target = |action: &Option<Action>| match action {
        Some(Action::Route(route)) => {
            assert_eq!(route.timeout, Some(Default::default()), "no request is cut off");
            format!("{:?}", route.cluster_specifier)
        }
        Some(Action::DirectResponse(response)) => response.status.to_string(),
        other => panic!("{other:?}"),
    };
    let hosts = routes.virtual_hosts.iter();
    hosts
        .map(|host| {
            let [route] = &*host.routes else { panic!("one route: {host:?}") };
            let to = target(&route.action);
            let to = to.trim_start_matches("Some(Cluster(\"").trim_end_matches("\"))");
            format!("{} -> {to}", host.domains.join(" "))
        })
        .collect()
}

fn filter_text(filter: &Filter) -> String {
    let Some(filter::ConfigType::TypedConfig(config)) = &filter.config_type else {
        panic!("{filter:?}")
    };
    match &*filter.name {
        "envoy.filters.network.tcp_proxy" => {
            let proxy: TcpProxy = parts::unpack(config);
            let Some(ClusterSpecifier::Cluster(cluster)) = proxy.cluster_specifier else {
                panic!("no cluster")
            };
            format!("tcp {cluster}")
        }
        _ => {
            let manager: HttpConnectionManager = parts::unpack(config);
            let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier else { panic!("no RDS") };
            format!("http {}", rds.route_config_name)
        }
    }
}

fn chain_text(chain: &FilterChain) -> String {
    let to = filter_text(chain.filters.first().expect("a filter"));
    let Some(wanted) = &chain.filter_chain_match else { return format!("any -> {to}") };
    let words: Vec<&str> = [&*wanted.transport_protocol]
        .into_iter()
        .chain(wanted.server_names.iter().map(String::as_str))
        .chain(wanted.application_protocols.iter().map(String::as_str))
        .collect();
    format!("{} -> {to}", words.join(" "))
}

fn listener_text(listener: &Listener) -> Vec<String> {
    let inspectors: Vec<&str> =
        listener.listener_filters.iter().filter_map(|own| own.name.rsplit('.').next()).collect();
    let head = format!("{} {}", listener.name, inspectors.join(" ")).trim_end().to_owned();
    let chains = listener.filter_chains.iter().map(|own| format!("  {}", chain_text(own)));
    let rest =
        listener.default_filter_chain.iter().map(|own| format!("  else {}", chain_text(own)));
    [head].into_iter().chain(chains).chain(rest).collect()
}

fn check_listeners(services: Vec<Service>, expected: &[&str], refused: &[&str]) {
    let (backends, aliases) = of(services);
    let found = listeners([127, 0, 0, 1].into(), &backends, &aliases, DOMAIN);
    let text: Vec<String> = found.listeners.iter().flat_map(listener_text).collect();
    assert_eq!(text, expected);
    let conflicts: Vec<String> = found
        .conflicts
        .iter()
        .map(|own| format!("{}:{} by {}", own.service, own.port, own.taken_by))
        .collect();
    assert_eq!(conflicts, refused);
}

#[test]
fn every_name_of_a_service_leads_to_its_cluster() {
    let (backends, aliases) = of(vec![
        service("demo", "web", 1, &[("http", 80)]),
        service("shop", "web", 2, &[("grpc", 80)]),
        headless("demo", "db", vec![port("http", Transport::Tcp, 80)]),
        external_name("demo", "alias", "web.shop.svc.cluster.local"),
    ]);
    let text = |namespace| routes_text(&routes_of_port(80, &backends, &aliases, DOMAIN, namespace));
    assert_eq!(
        text(Some("demo")),
        [
            "db.demo.svc.cluster.local db.demo.svc db.demo db db.demo.svc.cluster.local. \
             *.db.demo.svc.cluster.local *.db.demo.svc *.db.demo *.db *.db.demo.svc.cluster.local. \
             -> outbound|80||db.demo.svc.cluster.local",
            "web.demo.svc.cluster.local web.demo.svc web.demo web web.demo.svc.cluster.local. \
             127.96.0.1 -> outbound|80||web.demo.svc.cluster.local",
            "web.shop.svc.cluster.local web.shop.svc web.shop web.shop.svc.cluster.local. \
             alias.demo.svc.cluster.local alias.demo.svc alias.demo alias \
             alias.demo.svc.cluster.local. 127.96.0.2 -> outbound|80||web.shop.svc.cluster.local",
            "* -> 502",
        ]
    );
    // In no namespace a bare name means nothing.
    assert!(text(None).iter().all(|line| line.split(' ').all(|word| word != "web")));
}

#[test]
fn no_domain_comes_twice() {
    // Two Services may claim one address, such as an import and its original.
    let (backends, aliases) = of(vec![
        service("demo", "one", 1, &[("http", 80)]),
        service("demo", "two", 1, &[("http", 80)]),
    ]);
    let routes = routes_of_port(80, &backends, &aliases, DOMAIN, Some("demo"));
    let mut domains: Vec<&String> =
        routes.virtual_hosts.iter().flat_map(|host| &host.domains).collect();
    let all = domains.len();
    domains.sort_unstable();
    domains.dedup();
    assert_eq!(domains.len(), all);
}

#[test]
fn an_ipv6_address_stands_in_brackets() {
    let ports = vec![port("http", Transport::Tcp, 80)];
    let six = cluster_ip("demo", "web", &["fd00:96::1".parse().unwrap()], ports);
    let (backends, aliases) = of(vec![six]);
    let routes = routes_of_port(80, &backends, &aliases, DOMAIN, None);
    assert!(routes.virtual_hosts[0].domains.contains(&"[fd00:96::1]".to_owned()));
}

#[test]
fn http_services_share_a_port() {
    check_listeners(
        vec![
            service("demo", "a", 1, &[("http", 80)]),
            service("demo", "b", 2, &[("grpc", 80), ("http-admin", 81)]),
        ],
        &["127.0.0.1_80", "  any -> http 80", "127.0.0.1_81", "  any -> http 81"],
        &[],
    );
}

#[test]
fn tls_services_are_told_apart_by_server_name() {
    check_listeners(
        vec![
            service("demo", "a", 1, &[("https", 443)]),
            service("demo", "b", 2, &[("tls", 443)]),
            service("demo", "c", 3, &[("tcp", 443)]),
        ],
        &[
            "127.0.0.1_443 tls_inspector",
            "  tls a.demo.svc.cluster.local a.demo.svc a.demo -> \
             tcp outbound|443||a.demo.svc.cluster.local",
            "  tls b.demo.svc.cluster.local b.demo.svc b.demo -> \
             tcp outbound|443||b.demo.svc.cluster.local",
            "  else any -> tcp outbound|443||c.demo.svc.cluster.local",
        ],
        &[],
    );
}

#[test]
fn what_nobody_declared_is_looked_at() {
    check_listeners(
        vec![service("demo", "a", 1, &[("", 9000)])],
        &[
            "127.0.0.1_9000 tls_inspector http_inspector",
            "  raw_buffer http/1.0 http/1.1 h2c -> http a.demo.svc.cluster.local:9000",
            "  else any -> tcp outbound|9000||a.demo.svc.cluster.local",
        ],
        &[],
    );
    let (backends, _) = of(vec![service("demo", "a", 1, &[("", 9000)])]);
    let routes = routes_of_sniffed(&backends[0]);
    assert_eq!(routes.name, "a.demo.svc.cluster.local:9000");
    assert_eq!(routes_text(&routes), ["* -> outbound|9000||a.demo.svc.cluster.local"]);
}

#[test]
fn one_number_stands_for_one_service_of_tcp() {
    check_listeners(
        vec![
            service("demo", "a", 1, &[("tcp", 6379)]),
            service("demo", "b", 2, &[("redis", 6379)]),
            service("demo", "c", 3, &[("", 6379)]),
        ],
        &["127.0.0.1_6379", "  else any -> tcp outbound|6379||a.demo.svc.cluster.local"],
        &["demo/b:6379 by demo/a", "demo/c:6379 by demo/a"],
    );
    // HTTP comes first, whatever the order.
    check_listeners(
        vec![
            service("demo", "a", 1, &[("tcp", 80)]),
            service("demo", "b", 2, &[("tls", 80)]),
            service("demo", "c", 3, &[("http", 80)]),
        ],
        &["127.0.0.1_80", "  any -> http 80"],
        &["demo/a:80 by demo/c", "demo/b:80 by demo/c"],
    );
}

#[test]
fn http2_is_spoken_to_those_that_declare_it() {
    let (backends, _) = of(vec![service(
        "demo",
        "a",
        1,
        &[("http", 80), ("http2", 81), ("grpc", 82), ("tls", 83), ("tcp", 84), ("", 85)],
    )]);
    let spoken: Vec<&str> = backends
        .iter()
        .map(|backend| {
            let cluster = cluster(backend);
            let options = &cluster.typed_extension_protocol_options;
            assert!(options.len() <= 1, "a map of two has no fixed encoding");
            let Some(options) = options.values().next() else { return "as it is" };
            let options: HttpProtocolOptions = parts::unpack(options);
            match options.upstream_protocol_options {
                Some(http_protocol_options::UpstreamProtocolOptions::ExplicitHttpConfig(_)) => "2",
                _ => "as the client",
            }
        })
        .collect();
    assert_eq!(spoken, ["as it is", "2", "2", "as it is", "as it is", "as the client"]);
}
