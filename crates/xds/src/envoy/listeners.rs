//! Listeners (LDS): one per port number, on the proxy's own address.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use portolan_envoy_proto::{
    config::{
        core::v3::TrafficDirection,
        listener::v3::{
            Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, filter,
            listener_filter,
        },
    },
    extensions::filters::{
        listener::{http_inspector::v3::HttpInspector, tls_inspector::v3::TlsInspector},
        network::{
            http_connection_manager::v3::{
                HttpConnectionManager,
                http_connection_manager::{RouteSpecifier, UpgradeConfig},
            },
            tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
        },
    },
    google::protobuf::{Any, BoolValue},
    pack,
};
use portolan_model::ServiceKey;

use crate::{Aliases, Backend, Protocol, names, parts};

/// What the HTTP inspector calls plain HTTP.
const PLAIN_HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];

/// The listeners of a proxy, and what they could not take in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listeners {
    /// One per port number, in order.
    pub listeners: Vec<Listener>,
    /// Services that had to give way.
    pub conflicts: Vec<Conflict>,
}

/// A port of a service that has no listener, as another service has the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The number.
    pub port: u16,
    /// Who is not reached on it.
    pub service: ServiceKey,
    /// Who has it.
    pub taken_by: ServiceKey,
}

/// The listeners for all backends of a catalog, in its order. On each number HTTP
/// comes first, as its services share it; then services of TLS, told apart by server
/// name, with one service beside them that is told apart by nothing.
pub fn listeners<'a>(
    own: IpAddr,
    backends: impl IntoIterator<Item = &'a Backend>,
    aliases: &Aliases,
    cluster_domain: &str,
) -> Listeners {
    let mut by_port: BTreeMap<u16, Vec<&Backend>> = BTreeMap::new();
    for backend in backends {
        by_port.entry(backend.port).or_default().push(backend);
    }
    let mut all = Listeners::default();
    for (port, backends) in by_port {
        let address = SocketAddr::new(own, port);
        let (listener, conflicts) = listener(address, &backends, aliases, cluster_domain);
        all.listeners.push(listener);
        all.conflicts.extend(conflicts);
    }
    all
}

fn listener(
    address: SocketAddr,
    backends: &[&Backend],
    aliases: &Aliases,
    cluster_domain: &str,
) -> (Listener, Vec<Conflict>) {
    let name = format!("{}_{}", address.ip(), address.port());
    let mut listener = Listener {
        address: Some(parts::socket(address)),
        traffic_direction: TrafficDirection::Outbound.into(),
        ..Listener::default()
    };
    let (mut conflicts, mut holder): (_, Option<&Backend>) = (Vec::new(), None);
    if let Some(first) = backends.iter().find(|backend| backend.protocol.is_http()) {
        let manager = http(&name, names::http_routes(address.port()));
        listener.filter_chains.push(chain(manager, None));
        holder = Some(first);
    }
    let has_http = holder.is_some();
    let (mut reads_tls, mut reads_http) = (false, false);
    for backend in backends.iter().filter(|backend| !backend.protocol.is_http()) {
        match (backend.protocol, holder) {
            (Protocol::Tls, _) if !has_http => {
                let names = server_names(backend, aliases, cluster_domain);
                listener.filter_chains.push(chain(tcp(backend), Some(by_server_name(names))));
                reads_tls = true;
            }
            (_, Some(holder)) => conflicts.push(Conflict {
                port: address.port(),
                service: backend.key.clone(),
                taken_by: holder.key.clone(),
            }),
            (protocol, None) => {
                if protocol == Protocol::Sniffed {
                    let routes = names::sniffed_routes(&backend.host, backend.port);
                    listener.filter_chains.push(chain(http(&name, routes), Some(plain_http())));
                    (reads_tls, reads_http) = (true, true);
                }
                listener.default_filter_chain = Some(chain(tcp(backend), None));
                holder = Some(backend);
            }
        }
    }
    if reads_tls {
        let inspector = pack(&TlsInspector::default());
        listener.listener_filters.push(inspect("envoy.filters.listener.tls_inspector", inspector));
    }
    if reads_http {
        let inspector = pack(&HttpInspector::default());
        listener.listener_filters.push(inspect("envoy.filters.listener.http_inspector", inspector));
        // Silence means that the server speaks first: it is TCP, then.
        listener.continue_on_listener_filters_timeout = true;
    }
    listener.name = name;
    (listener, conflicts)
}

/// Server names that mean a service, whatever the client's namespace: a bare name is
/// no name to put into a certificate.
fn server_names(backend: &Backend, aliases: &Aliases, cluster_domain: &str) -> Vec<String> {
    let keys = [&backend.key].into_iter().chain(aliases.of_host(&backend.host));
    keys.flat_map(|key| names::client_hosts(key, cluster_domain, None)).collect()
}

fn by_server_name(server_names: Vec<String>) -> FilterChainMatch {
    FilterChainMatch {
        server_names,
        transport_protocol: "tls".to_owned(),
        ..FilterChainMatch::default()
    }
}

/// HTTP without TLS: the protocols that a TLS client offers inside have the same
/// names.
fn plain_http() -> FilterChainMatch {
    FilterChainMatch {
        transport_protocol: "raw_buffer".to_owned(),
        application_protocols: PLAIN_HTTP.map(str::to_owned).to_vec(),
        ..FilterChainMatch::default()
    }
}

fn chain(filter: Filter, filter_chain_match: Option<FilterChainMatch>) -> FilterChain {
    FilterChain { filter_chain_match, filters: vec![filter], ..FilterChain::default() }
}

fn http(listener: &str, routes: String) -> Filter {
    let manager = HttpConnectionManager {
        stat_prefix: format!("outbound_{listener}"),
        route_specifier: Some(RouteSpecifier::Rds(parts::rds(routes))),
        http_filters: vec![parts::router()],
        normalize_path: Some(BoolValue { value: true }),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        ..HttpConnectionManager::default()
    };
    network_filter("envoy.filters.network.http_connection_manager", pack(&manager))
}

fn tcp(backend: &Backend) -> Filter {
    let proxy = TcpProxy {
        stat_prefix: backend.cluster(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(backend.cluster())),
        ..TcpProxy::default()
    };
    network_filter("envoy.filters.network.tcp_proxy", pack(&proxy))
}

fn network_filter(name: &str, config: Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

fn inspect(name: &str, config: Any) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
        ..ListenerFilter::default()
    }
}
