//! Routes (RDS): which cluster a request goes to, by its Host header.

use std::collections::BTreeSet;

use portolan_envoy_proto::{
    config::route::v3::{DirectResponseAction, RouteConfiguration, VirtualHost, route::Action},
    google::protobuf::Duration,
};

use crate::{Aliases, Backend, names, parts};

/// The status of requests for a host that is no service.
const NO_SUCH_HOST: u32 = 502;

/// The routes of all HTTP services on one port, for clients of one namespace. Of a
/// client only its namespace matters, and of the names only the bare ones depend on
/// it.
pub fn routes_of_port<'a>(
    port: u16,
    backends: impl IntoIterator<Item = &'a Backend>,
    aliases: &Aliases,
    cluster_domain: &str,
    client_namespace: Option<&str>,
) -> RouteConfiguration {
    // Envoy refuses all routes of a port for one domain that comes twice.
    let mut taken = BTreeSet::new();
    let mut hosts: Vec<VirtualHost> = Vec::new();
    for backend in backends {
        let mut domains = domains(backend, aliases, cluster_domain, client_namespace);
        domains.retain(|domain| taken.insert(domain.clone()));
        if !domains.is_empty() {
            hosts.push(virtual_host(backend, domains));
        }
    }
    hosts.push(block_all());
    configuration(names::http_routes(port), hosts)
}

/// The routes of a service whose connections turned out to be HTTP. The listener has
/// no other service, so every host means it.
pub fn routes_of_sniffed(backend: &Backend) -> RouteConfiguration {
    let name = names::sniffed_routes(&backend.host, backend.port);
    configuration(name, vec![virtual_host(backend, vec!["*".to_owned()])])
}

fn configuration(name: String, virtual_hosts: Vec<VirtualHost>) -> RouteConfiguration {
    RouteConfiguration {
        name,
        virtual_hosts,
        // So that no domain has to be listed a second time with its port.
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    }
}

fn virtual_host(backend: &Backend, domains: Vec<String>) -> VirtualHost {
    let mut to = parts::to_cluster(backend.cluster());
    // Envoy ends requests after 15 s unless told not to; a long answer is no fault.
    to.timeout = Some(Duration::default());
    VirtualHost {
        name: format!("{}:{}", backend.host, backend.port),
        domains,
        routes: vec![parts::every_request(Action::Route(to))],
        ..VirtualHost::default()
    }
}

fn block_all() -> VirtualHost {
    let refuse = DirectResponseAction { status: NO_SUCH_HOST, ..DirectResponseAction::default() };
    VirtualHost {
        name: "block_all".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![parts::every_request(Action::DirectResponse(refuse))],
        ..VirtualHost::default()
    }
}

/// Every Host header that means a backend. A full name may end in a dot; below a
/// headless service stand the names of its Pods.
fn domains(
    backend: &Backend,
    aliases: &Aliases,
    cluster_domain: &str,
    client_namespace: Option<&str>,
) -> Vec<String> {
    let keys = [&backend.key].into_iter().chain(aliases.of_host(&backend.host));
    let mut domains: Vec<String> = keys
        .flat_map(|key| {
            let mut hosts = names::client_hosts(key, cluster_domain, client_namespace);
            let dotted = hosts.first().map(|full| format!("{full}."));
            hosts.extend(dotted);
            hosts
        })
        .collect();
    if backend.is_headless() {
        let below: Vec<String> = domains.iter().map(|domain| format!("*.{domain}")).collect();
        domains.extend(below);
    }
    domains.extend(backend.addresses.iter().map(parts::url_host));
    domains
}
