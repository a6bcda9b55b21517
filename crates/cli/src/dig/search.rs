//! Which names a Pod's resolver tries, and in which order.

use std::{net::IpAddr, time::Duration};

use domain::base::Rtype;
use portolan_view::reverse_name;
use portolan_wire::{Page, Status, Workload};

use crate::{Failure, args::Connection, client::Client, output::Output};

/// A Pod's resolver tries the search path first for names with fewer dots
/// (resolv.conf `options ndots:5`, as the kubelet writes it).
const NDOTS: usize = 5;

/// The domain of cluster names where no server tells another.
const DOMAIN_DEFAULT: &str = "cluster.local";

/// A Pod's search path: its namespace, and the domain of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SearchPath {
    namespace: String,
    domain: String,
    /// `NAMESPACE/POD`, where one was meant.
    pub(super) pod: Option<String>,
}

impl SearchPath {
    /// The path of `[NAMESPACE/]POD`, or of a namespace. Where a Pod is named
    /// alone the server knows its namespace; with no server, or no such Pod, the
    /// word is taken for a namespace.
    pub(super) async fn of(
        from: &str,
        connection: &Connection,
        output: &mut Output,
    ) -> Result<Self, Failure> {
        let client = Client::new(connection)?;
        let status: Result<Status, Failure> =
            client.get("/v1/status", &[], Duration::from_secs(0)).await;
        let domain = match status {
            Ok(status) if !status.cluster_domain.is_empty() => status.cluster_domain,
            Ok(_) => DOMAIN_DEFAULT.to_owned(),
            Err(failure) => {
                output.word(&format!("{failure}; taking {DOMAIN_DEFAULT} for the domain"));
                DOMAIN_DEFAULT.to_owned()
            }
        };
        let from = from.strip_prefix("pod/").unwrap_or(from);
        if let Some((namespace, _)) = from.split_once('/') {
            return Ok(Self {
                namespace: namespace.to_owned(),
                domain,
                pod: Some(from.to_owned()),
            });
        }
        let query = [("name", from.to_owned())];
        let pods: Vec<Workload> = match client.get("/v1/workloads", &query, Duration::ZERO).await {
            Ok(Page { items, .. }) => items,
            Err(_) => Vec::new(),
        };
        let (namespace, pod) = match pods.as_slice() {
            [] => (from.to_owned(), None),
            [pod] => (pod.namespace.clone(), Some(format!("{}/{from}", pod.namespace))),
            [pod, ..] => {
                return Err(Failure::Usage(format!(
                    "{} namespaces have a Pod {from}; name one: --from {}/{from}",
                    pods.len(),
                    pod.namespace
                )));
            }
        };
        Ok(Self { namespace, domain, pod })
    }
}

/// The names that are tried, in order, and the type that is asked for. An address
/// asks for the name behind it.
pub(super) fn candidates(
    name: &str,
    rtype: Rtype,
    path: Option<&SearchPath>,
) -> (Vec<String>, Rtype) {
    if let Ok(address) = name.parse::<IpAddr>() {
        let rtype = if rtype == Rtype::A { Rtype::PTR } else { rtype };
        return (vec![reverse_name(address)], rtype);
    }
    let Some(SearchPath { namespace, domain, .. }) = path.filter(|_| !name.ends_with('.')) else {
        return (vec![name.to_owned()], rtype);
    };
    let searched = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()]
        .into_iter()
        .map(|suffix| format!("{name}.{suffix}"));
    let itself = std::iter::once(name.to_owned());
    let names = match name.matches('.').count() >= NDOTS {
        true => itself.chain(searched).collect(),
        false => searched.chain(itself).collect(),
    };
    (names, rtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_order_of_a_resolver() {
        let path = SearchPath { namespace: "demo".into(), domain: "c.test".into(), pod: None };
        let searched = |name: &str| {
            ["demo.svc.c.test", "svc.c.test", "c.test"].map(|suffix| format!("{name}.{suffix}"))
        };
        for (name, expected) in [
            ("web", [&searched("web")[..], &["web".into()]].concat()),
            ("web.demo", [&searched("web.demo")[..], &["web.demo".into()]].concat()),
            ("a.b.c.d.e", [&searched("a.b.c.d.e")[..], &["a.b.c.d.e".into()]].concat()),
            ("a.b.c.d.e.f", [&["a.b.c.d.e.f".into()][..], &searched("a.b.c.d.e.f")].concat()),
            ("web.", vec!["web.".into()]),
        ] {
            assert_eq!(candidates(name, Rtype::A, Some(&path)), (expected, Rtype::A), "{name}");
        }
        assert_eq!(candidates("web", Rtype::SRV, None), (vec!["web".into()], Rtype::SRV));
    }

    #[test]
    fn addresses_ask_for_names() {
        let path = SearchPath { namespace: "demo".into(), domain: "c.test".into(), pod: None };
        let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        for (name, rtype, expected) in [
            ("127.10.0.4", Rtype::A, ("4.0.10.127.in-addr.arpa", Rtype::PTR)),
            ("127.10.0.4", Rtype::PTR, ("4.0.10.127.in-addr.arpa", Rtype::PTR)),
            ("fd00::1", Rtype::A, (v6, Rtype::PTR)),
            ("127.10.0.4", Rtype::SOA, ("4.0.10.127.in-addr.arpa", Rtype::SOA)),
        ] {
            let expected = (vec![expected.0.to_owned()], expected.1);
            assert_eq!(candidates(name, rtype, Some(&path)), expected, "{name}");
        }
    }
}
