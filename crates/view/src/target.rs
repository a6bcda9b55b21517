//! What people mean: `svc/N`, `pod/N`, `ip[:port]`, a DNS name, or a bare name.

use std::{net::IpAddr, sync::Arc};

use portolan_catalog::{ServiceEntry, Snapshot};
use portolan_model::{ObjectName, Origin, ServiceKey};

/// A target, as it was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A service of any origin.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A Pod.
    Pod(ObjectName),
    /// An address, perhaps with a port.
    Address(IpAddr, Option<u16>),
    /// A full service name of the cluster domain.
    DnsName(ServiceKey),
    /// A bare name: a service, a Pod, or the beginning of one.
    Bare {
        /// The namespace that was asked in.
        namespace: String,
        /// The name.
        name: String,
    },
}

impl Target {
    /// Understands a target. `namespace` is where unqualified names are looked
    /// for; `NS/NAME` names another. `Err` says what a target looks like.
    pub fn parse(text: &str, namespace: &str, cluster_domain: &str) -> Result<Self, String> {
        let usage = || {
            format!(
                "{text:?} is no target; give svc/NAME, pod/NAME, IP[:PORT], a DNS name or a name"
            )
        };
        let text = text.trim();
        if text.is_empty() || text.len() > 512 || text.contains(char::is_whitespace) {
            return Err(usage());
        }
        let qualified = |rest: &str| match rest.split_once('/') {
            Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
            None => (namespace.to_owned(), rest.to_owned()),
        };
        for (prefixes, pod) in
            [(["svc/", "service/", "services/"], false), (["pod/", "pods/", "po/"], true)]
        {
            for prefix in prefixes {
                let Some(rest) = text.strip_prefix(prefix) else { continue };
                let (namespace, name) = qualified(rest);
                if name.is_empty() || namespace.is_empty() || name.contains('/') {
                    return Err(usage());
                }
                return Ok(if pod {
                    Self::Pod(ObjectName::new(&namespace, &name))
                } else {
                    Self::Service { namespace, name }
                });
            }
        }
        if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(Self::Address(address, None));
        }
        if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
            return Ok(Self::Address(socket.ip(), Some(socket.port())));
        }
        if let Some(key) = service_of_dns_name(text, cluster_domain) {
            return Ok(Self::DnsName(key));
        }
        let (namespace, name) = qualified(text);
        if name.is_empty() || namespace.is_empty() || name.contains('/') {
            return Err(usage());
        }
        Ok(Self::Bare { namespace, name })
    }

    /// Moves a target that was given without a namespace to the one namespace
    /// that has it, when `default` has not and exactly one other does.
    pub fn locate(self, snapshot: &Snapshot) -> Self {
        let (name, service, pod) = match &self {
            Self::Service { name, .. } => (name.clone(), true, false),
            Self::Pod(pod) => (pod.name.to_string(), false, true),
            Self::Bare { name, .. } => (name.clone(), true, true),
            Self::Address(..) | Self::DnsName(_) => return self,
        };
        let services = snapshot
            .services()
            .map(|entry| &entry.service.key)
            .filter(|key| service && *key.name == *name)
            .map(|key| key.namespace.clone());
        let pods = snapshot
            .workloads()
            .map(|workload| &workload.name)
            .filter(|object| pod && *object.name == *name)
            .map(|object| object.namespace.clone());
        let mut namespaces: Vec<_> = services.chain(pods).collect();
        namespaces.sort();
        namespaces.dedup();
        let [only] = namespaces.as_slice() else { return self };
        match self {
            Self::Service { name, .. } => Self::Service { namespace: only.to_string(), name },
            Self::Pod(pod) => Self::Pod(ObjectName { namespace: only.clone(), ..pod }),
            Self::Bare { name, .. } => Self::Bare { namespace: only.to_string(), name },
            other => other,
        }
    }

    /// As `why` repeats it.
    pub fn text(&self) -> String {
        match self {
            Self::Service { namespace, name } => format!("service {namespace}/{name}"),
            Self::Pod(pod) => format!("pod {pod}"),
            Self::Address(address, None) => format!("address {address}"),
            Self::Address(address, Some(port)) => {
                format!("address {}", std::net::SocketAddr::new(*address, *port))
            }
            Self::DnsName(key) => format!("service {key}"),
            Self::Bare { namespace, name } => format!("{namespace}/{name}"),
        }
    }
}

/// `NAME.NS.svc.ZONE` or `NAME.NS.ORIGIN.ZONE`; NAME may hold dots for origins
/// other than Kubernetes.
fn service_of_dns_name(text: &str, cluster_domain: &str) -> Option<ServiceKey> {
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    let rest = name
        .strip_suffix(&cluster_domain.to_ascii_lowercase())
        .and_then(|rest| rest.strip_suffix('.'))
        .or_else(|| name.ends_with(".svc").then_some(&*name))?;
    let (rest, origin) = rest.rsplit_once('.')?;
    let (service, namespace) = rest.rsplit_once('.')?;
    let origin = match origin {
        "svc" => Origin::kubernetes(),
        "pod" => return None,
        other => Origin::from_text(other),
    };
    // Below a Kubernetes Service there are endpoint and port names: the service
    // is the label next to the namespace.
    let service = if origin == Origin::kubernetes() {
        service.rsplit('.').next().unwrap_or(service)
    } else {
        service
    };
    Some(ServiceKey::new(origin, namespace, service))
}

/// The services of every origin under one name.
pub fn find_services<'a>(
    snapshot: &'a Snapshot,
    namespace: &str,
    name: &str,
) -> Vec<&'a Arc<ServiceEntry>> {
    snapshot
        .origins()
        .into_iter()
        .filter_map(|origin| snapshot.service(&ServiceKey::new(origin, namespace, name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let ns = "demo";
        let service = |namespace: &str, name: &str| Target::Service {
            namespace: namespace.into(),
            name: name.into(),
        };
        for (text, expected) in [
            ("svc/web", service(ns, "web")),
            ("svc/shop/web", service("shop", "web")),
            ("pod/web-0", Target::Pod(ObjectName::new(ns, "web-0"))),
            ("127.0.0.1", Target::Address(IpAddr::from([127, 0, 0, 1]), None)),
            ("127.0.0.1:80", Target::Address(IpAddr::from([127, 0, 0, 1]), Some(80))),
            ("[::1]:80", Target::Address(IpAddr::from(std::net::Ipv6Addr::LOCALHOST), Some(80))),
            ("web.shop.svc.cluster.local.", Target::DnsName(ServiceKey::kubernetes("shop", "web"))),
            (
                "_http._tcp.web.shop.svc.cluster.local",
                Target::DnsName(ServiceKey::kubernetes("shop", "web")),
            ),
            (
                "a.b.c.demo.registry.cluster.local",
                Target::DnsName(ServiceKey::registry("demo", "a.b.c")),
            ),
            ("web", Target::Bare { namespace: ns.into(), name: "web".into() }),
            ("shop/web", Target::Bare { namespace: "shop".into(), name: "web".into() }),
        ] {
            assert_eq!(Target::parse(text, ns, "cluster.local"), Ok(expected), "{text}");
        }
        for wrong in ["", "svc/", "a b", "a/b/c", "pod//x"] {
            assert!(Target::parse(wrong, ns, "cluster.local").is_err(), "{wrong:?}");
        }
    }
}
