//! What people mean: `svc/N`, `pod/N`, `ip[:port]`, a DNS name, or a bare name.
//!
//! ```text
//!   text --parse--> Target --(what the catalog knows)--> Target, in its namespace
//! ```

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use portolan_catalog::{ServiceEntry, Snapshot};
use portolan_model::{Name, ObjectName, Origin, ServiceKey};

/// Where names are looked for that come without a namespace.
const NAMESPACE_DEFAULT: &str = "default";

/// The longest text that is taken for a target: a DNS name has at most 253
/// letters, and `pod/NAMESPACE/NAME` at most 321.
const TARGET_LENGTH_MAX: usize = 512;

/// What a target may begin with to say its kind, as kubectl writes kinds.
const KINDS: [(&str, bool); 6] = [
    ("svc/", false),
    ("service/", false),
    ("services/", false),
    ("pod/", true),
    ("pods/", true),
    ("po/", true),
];

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
    /// A bare name: a service, else a Pod.
    Bare {
        /// The namespace that was asked in.
        namespace: String,
        /// The name.
        name: String,
    },
}

impl Target {
    /// Understands a target in the light of what the catalog knows. A name
    /// without a namespace (neither given nor written `NAMESPACE/NAME`) is looked
    /// for in `default`, then in the only namespace that has it. `Err` says what
    /// a target looks like.
    pub fn find(
        text: &str,
        namespace: Option<&str>,
        cluster_domain: &str,
        snapshot: &Snapshot,
    ) -> Result<Self, String> {
        let text = text.trim();
        let target = Self::parse(text, namespace.unwrap_or(NAMESPACE_DEFAULT), cluster_domain)?;
        let target = target.folded(snapshot).undotted(snapshot);
        let written = KINDS.iter().find_map(|(kind, _)| text.strip_prefix(kind)).unwrap_or(text);
        let qualified = namespace.is_some() || written.contains('/');
        Ok(if qualified { target } else { target.locate(snapshot) })
    }

    /// Understands a target by its text alone. `namespace` is where unqualified
    /// names are looked for.
    pub fn parse(text: &str, namespace: &str, cluster_domain: &str) -> Result<Self, String> {
        let usage = || {
            format!(
                "{text:?} is no target; give svc/NAME, pod/NAME, IP[:PORT], a DNS name or a name"
            )
        };
        let text = text.trim();
        if text.is_empty()
            || text.len() > TARGET_LENGTH_MAX
            || text.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            return Err(usage());
        }
        let qualified = |rest: &str| {
            let (namespace, name) = rest.split_once('/').unwrap_or((namespace, rest));
            if name.is_empty() || namespace.is_empty() || name.contains('/') {
                return Err(usage());
            }
            Ok((namespace.to_owned(), name.to_owned()))
        };
        for (kind, pod) in KINDS {
            let Some(rest) = text.strip_prefix(kind) else { continue };
            let (namespace, name) = qualified(rest)?;
            return Ok(match pod {
                true => Self::Pod(ObjectName::new(&namespace, &name)),
                false => Self::Service { namespace, name },
            });
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Self::Address(address, None));
        }
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(Self::Address(socket.ip(), Some(socket.port())));
        }
        if let Some(target) = of_dns_name(text, cluster_domain) {
            return Ok(target);
        }
        let (namespace, name) = qualified(text)?;
        Ok(Self::Bare { namespace, name })
    }

    /// DNS folds case and names of the registry may have capitals: the service
    /// that a DNS name means is the one whose name folds to it.
    fn folded(self, snapshot: &Snapshot) -> Self {
        let Self::DnsName(key) = self else { return self };
        let known = snapshot.service(&key).map(|entry| entry.service.key.clone());
        Self::DnsName(known.or_else(|| twins(snapshot, &key).into_iter().next()).unwrap_or(key))
    }

    /// `NAME.NAMESPACE`, as Pods may write it, where no service has the whole as
    /// its name.
    fn undotted(self, snapshot: &Snapshot) -> Self {
        let Self::Bare { name, .. } = &self else { return self };
        let whole = snapshot.services().any(|entry| *entry.service.key.name == **name)
            || snapshot.workloads().any(|pod| *pod.name.name == **name);
        match name.rsplit_once('.') {
            Some((service, namespace))
                if !whole && !find_services(snapshot, namespace, service).is_empty() =>
            {
                Self::Service { namespace: namespace.to_owned(), name: service.to_owned() }
            }
            _ => self,
        }
    }

    /// Moves a target to the one namespace that has it. One that several have,
    /// or none, stays where it is.
    fn locate(self, snapshot: &Snapshot) -> Self {
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
        let mut namespaces: Vec<Name> = services.chain(pods).collect();
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

    /// The name that DNS clients ask for, and the type of record. `written`: the target as
    /// it was given, which may be such a name. `None`: Pods have no name of their own.
    pub fn dns_name(&self, written: &str, cluster_domain: &str) -> Option<(String, &'static str)> {
        if of_dns_name(written, cluster_domain).is_some() {
            let lower = written.to_ascii_lowercase();
            let record_type = if reverse(&lower).is_some() { "PTR" } else { "A" };
            let full = match lower.ends_with(".svc") {
                true => format!("{written}.{cluster_domain}"),
                false => written.to_owned(),
            };
            return Some((full, record_type));
        }
        match self {
            Self::Address(address, _) => Some((reverse_name(*address), "PTR")),
            Self::Service { namespace, name } | Self::Bare { namespace, name } => {
                Some((format!("{name}.{namespace}.svc.{cluster_domain}"), "A"))
            }
            Self::Pod(_) | Self::DnsName(_) => None,
        }
    }

    /// As `why` repeats it.
    pub fn text(&self) -> String {
        match self {
            Self::Service { namespace, name } => format!("service {namespace}/{name}"),
            Self::Pod(pod) => format!("pod {pod}"),
            Self::Address(address, None) => format!("address {address}"),
            Self::Address(address, Some(port)) => {
                format!("address {}", SocketAddr::new(*address, *port))
            }
            Self::DnsName(key) => format!("service {key}"),
            Self::Bare { namespace, name } => format!("{namespace}/{name}"),
        }
    }
}

/// What a name of DNS stands for: a service, an address (names of Pods, and of
/// the reverse zones), or nothing of ours.
fn of_dns_name(text: &str, cluster_domain: &str) -> Option<Target> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let lower = name.to_ascii_lowercase();
    if let Some(address) = reverse(&lower) {
        return Some(Target::Address(address, None));
    }
    let domain = cluster_domain.trim_end_matches('.').to_ascii_lowercase();
    let length = match lower.strip_suffix(&domain).and_then(|rest| rest.strip_suffix('.')) {
        Some(rest) => rest.len(),
        None if lower.ends_with(".svc") => lower.len(),
        None => return None,
    };
    let (rest, origin) = name.get(..length)?.rsplit_once('.')?;
    let (service, namespace) = rest.rsplit_once('.')?;
    let namespace = namespace.to_ascii_lowercase();
    match origin.to_ascii_lowercase().as_str() {
        "pod" => dashed(service).map(|address| Target::Address(address, None)),
        // Below a Kubernetes Service there are endpoint and port names: the
        // service is the label next to the namespace.
        "svc" => {
            let service = service.rsplit('.').next().unwrap_or(service).to_ascii_lowercase();
            Some(Target::DnsName(ServiceKey::kubernetes(&namespace, &service)))
        }
        origin => {
            let mut service = service;
            while let Some((port, rest)) = service.split_once('.')
                && port.starts_with('_')
            {
                service = rest;
            }
            Some(Target::DnsName(ServiceKey::new(Origin::from_text(origin), &namespace, service)))
        }
    }
}

/// `10-244-0-5`, `fd00--5`: an address as a label.
fn dashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

/// The address that a name of the reverse zones stands for.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(rest) = name.strip_suffix(".in-addr.arpa") {
        let octets: Vec<&str> = rest.split('.').rev().collect();
        return octets.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let rest = name.strip_suffix(".ip6.arpa")?;
    let nibbles: Vec<&str> = rest.split('.').rev().collect();
    let groups: Vec<String> = nibbles.chunks(4).map(|group| group.concat()).collect();
    groups.join(":").parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// The name of an address in the reverse zones (RFC 1035, 3.5; RFC 3596, 2.5).
pub fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let octets = v6.octets();
            let digits = octets.iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            let labels: Vec<String> = digits.map(|digit| format!("{digit:x}")).collect();
            format!("{}.ip6.arpa", labels.join("."))
        }
    }
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

/// The services that DNS cannot tell from `key`, itself left out.
pub(crate) fn twins(snapshot: &Snapshot, key: &ServiceKey) -> Vec<ServiceKey> {
    snapshot
        .services_in(&key.origin, &key.namespace)
        .map(|entry| &entry.service.key)
        .filter(|other| *other != key && other.name.eq_ignore_ascii_case(&key.name))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_clients_ask_for() {
        for (text, expected) in [
            ("svc/demo/web", Some(("web.demo.svc.c.test", "A"))),
            ("demo/web", Some(("web.demo.svc.c.test", "A"))),
            ("web.demo.svc", Some(("web.demo.svc.c.test", "A"))),
            ("_http._tcp.web.demo.svc.c.test.", Some(("_http._tcp.web.demo.svc.c.test.", "A"))),
            ("10-0-0-1.demo.pod.c.test", Some(("10-0-0-1.demo.pod.c.test", "A"))),
            ("10.0.0.1:80", Some(("1.0.0.10.in-addr.arpa", "PTR"))),
            ("1.0.0.10.in-addr.arpa", Some(("1.0.0.10.in-addr.arpa", "PTR"))),
            ("pod/demo/web", None),
        ] {
            let target = Target::parse(text, "demo", "c.test").unwrap();
            let expected = expected.map(|(name, kind)| (name.to_owned(), kind));
            assert_eq!(target.dns_name(text, "c.test"), expected, "{text}");
        }
    }

    #[test]
    fn targets() {
        let ns = "demo";
        let service = |namespace: &str, name: &str| Target::Service {
            namespace: namespace.into(),
            name: name.into(),
        };
        let address = |text: &str| Target::Address(text.parse().unwrap(), None);
        for (text, expected) in [
            ("svc/web", service(ns, "web")),
            ("service/web", service(ns, "web")),
            ("svc/shop/web", service("shop", "web")),
            ("pod/web-0", Target::Pod(ObjectName::new(ns, "web-0"))),
            ("po/shop/web-0", Target::Pod(ObjectName::new("shop", "web-0"))),
            ("127.0.0.1", address("127.0.0.1")),
            ("::1", address("::1")),
            ("[::1]", address("::1")),
            ("127.0.0.1:80", Target::Address(IpAddr::from([127, 0, 0, 1]), Some(80))),
            ("[::1]:80", Target::Address(IpAddr::from(Ipv6Addr::LOCALHOST), Some(80))),
            ("web.shop.svc.cluster.local.", Target::DnsName(ServiceKey::kubernetes("shop", "web"))),
            ("WEB.Shop.SVC.Cluster.Local", Target::DnsName(ServiceKey::kubernetes("shop", "web"))),
            ("web.shop.svc", Target::DnsName(ServiceKey::kubernetes("shop", "web"))),
            (
                "_http._tcp.web.shop.svc.cluster.local",
                Target::DnsName(ServiceKey::kubernetes("shop", "web")),
            ),
            (
                "a.b.c.demo.registry.cluster.local",
                Target::DnsName(ServiceKey::registry("demo", "a.b.c")),
            ),
            (
                "_http._tcp.com.acme.Reviews.demo.registry.cluster.local",
                Target::DnsName(ServiceKey::registry("demo", "com.acme.Reviews")),
            ),
            ("10-244-0-5.demo.pod.cluster.local", address("10.244.0.5")),
            ("fd00--5.demo.pod.cluster.local", address("fd00::5")),
            ("5.0.10.127.in-addr.arpa.", address("127.10.0.5")),
            (
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
                address("::1"),
            ),
            ("web", Target::Bare { namespace: ns.into(), name: "web".into() }),
            ("shop/web", Target::Bare { namespace: "shop".into(), name: "web".into() }),
            ("example.com", Target::Bare { namespace: ns.into(), name: "example.com".into() }),
        ] {
            assert_eq!(Target::parse(text, ns, "cluster.local"), Ok(expected), "{text}");
        }
        for wrong in
            ["", "svc/", "a b", "a/b/c", "pod//x", "/x", "svc//", "a\u{7}", &"x".repeat(600)]
        {
            assert!(Target::parse(wrong, ns, "cluster.local").is_err(), "{wrong:?}");
        }
    }
}
