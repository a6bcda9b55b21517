//! Names: of hosts as clients call them, and of resources as Istio calls them, so
//! that its users' tools and dashboards go on working.

use portolan_model::{Origin, ServiceKey};

/// The zone of services that other clusters of the set export (KEP-1645).
const CLUSTERSET_ZONE: &str = "clusterset.local";

/// The full name of a service, as DNS has it. `None`: its name is no host name (the
/// registry takes any text), so that no client can ask for it.
pub fn host(key: &ServiceKey, cluster_domain: &str) -> Option<String> {
    let (label, zone) = match key.origin.as_str() {
        Origin::KUBERNETES => ("svc", cluster_domain),
        Origin::CLUSTERSET => ("svc", CLUSTERSET_ZONE),
        origin => (origin, cluster_domain),
    };
    let host = format!("{}.{}.{label}.{zone}", key.name, key.namespace).to_ascii_lowercase();
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    (host.len() <= 253 && host.split('.').all(is_label)).then_some(host)
}

/// The shorter names that mean the service from every namespace. Of other origins
/// only the full name is known to resolvers.
pub fn short_hosts(key: &ServiceKey) -> Vec<String> {
    match key.origin.as_str() {
        Origin::KUBERNETES => {
            vec![
                format!("{}.{}.svc", key.name, key.namespace),
                format!("{}.{}", key.name, key.namespace),
            ]
        }
        _ => Vec::new(),
    }
}

/// Every name by which clients of a namespace may call a service: the full one first.
/// The bare name means it in its own namespace only.
pub fn client_hosts(
    key: &ServiceKey,
    cluster_domain: &str,
    client_namespace: Option<&str>,
) -> Vec<String> {
    let mut hosts: Vec<String> = host(key, cluster_domain).into_iter().collect();
    hosts.extend(short_hosts(key));
    if key.origin.as_str() == Origin::KUBERNETES && client_namespace == Some(&*key.namespace) {
        hosts.push(key.name.to_string());
    }
    hosts
}

/// The cluster of a service port.
pub fn cluster(host: &str, port: u16) -> String {
    format!("outbound|{port}||{host}")
}

/// The routes of all HTTP services on a port.
pub fn http_routes(port: u16) -> String {
    port.to_string()
}

/// The routes of one service whose connections are looked at.
pub fn sniffed_routes(host: &str, port: u16) -> String {
    format!("{host}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let of = |origin: &str, service: &str| {
            host(&ServiceKey::new(Origin::from_text(origin), "demo", service), "cluster.local")
        };
        for (origin, service, expected) in [
            ("kubernetes", "web", Some("web.demo.svc.cluster.local")),
            ("clusterset", "web", Some("web.demo.svc.clusterset.local")),
            ("registry", "com.example.Api", Some("com.example.api.demo.registry.cluster.local")),
            ("consul", "db_1", Some("db_1.demo.consul.cluster.local")),
            ("registry", "a|b", None),
            ("registry", "a..b", None),
            ("registry", "", None),
        ] {
            assert_eq!(of(origin, service).as_deref(), expected, "{origin} {service:?}");
        }
        assert_eq!(of("registry", &"a.".repeat(130)), None);
        assert_eq!(of("registry", &"a".repeat(64)), None);
    }
}
