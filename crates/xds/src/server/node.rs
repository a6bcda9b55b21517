//! Who a client is, and what it is shown for that.
//!
//! A client writes what it likes into its node. Nothing is given for it that another
//! client does not get as well: it chooses the dialect, the namespace of its bare
//! names, the address that its own listeners bind. Where it is, is taken from the
//! catalog, by the Pod that the connection comes from, or by the Pod that it names.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use portolan_catalog::Snapshot;
use portolan_envoy_proto::{
    config::core::v3::Node,
    google::protobuf::{Struct, value},
};
use portolan_model::{Name, ObjectName, Workload, name};

use crate::view::{Dialect, Place, View};

/// Characters of a node's name that are kept.
const ID_CHARS_MAX: usize = 253;

/// The name that a client gives itself, and what program it is.
pub(super) fn names(node: &Node) -> (Name, Name) {
    (cut(&node.id), cut(&node.user_agent_name))
}

/// A client as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// The Pod that it is taken for.
    pub(super) pod: Option<ObjectName>,
    /// What it is shown.
    pub(super) view: View,
}

/// Reads a node. `peer`: where the connection comes from.
pub(super) fn read(node: &Node, peer: Option<IpAddr>, snapshot: &Snapshot) -> Client {
    let id = IstioId::parse(&node.id);
    let pod = pod(&id, peer, snapshot);
    let own_namespace = pod.map(|pod| pod.name.namespace.clone());
    let told_namespace = || {
        let told = text(node.metadata.as_ref(), "NAMESPACE").or(id.namespace)?;
        snapshot.namespaces().get_key_value(told).map(|(name, _)| name.clone())
    };
    let own_node = pod.and_then(|pod| pod.node.clone());
    let zone = match &own_node {
        Some(node) => snapshot.nodes().get(node).and_then(|node| node.zone.clone()),
        None => node.locality.as_ref().filter(|at| !at.zone.is_empty()).map(|at| name(&at.zone)),
    };
    let dialect = match is_grpc(node) {
        true => Dialect::Grpc,
        false => Dialect::Envoy(listens_on(pod, id.address)),
    };
    Client {
        pod: pod.map(|pod| pod.name.clone()),
        view: View {
            dialect,
            namespace: own_namespace.or_else(told_namespace),
            place: Place { zone, node: own_node },
        },
    }
}

/// The Pod at the other end; on loopback, where Pods may share an address with anybody,
/// the one that the client names.
fn pod<'a>(
    id: &IstioId<'_>,
    peer: Option<IpAddr>,
    snapshot: &'a Snapshot,
) -> Option<&'a Arc<Workload>> {
    let by_connection = peer.and_then(|peer| snapshot.workload_at(peer));
    by_connection.or_else(|| {
        let is_near = peer.is_none_or(|peer| peer.is_loopback());
        let named = ObjectName { namespace: name(id.namespace?), name: name(id.pod?) };
        snapshot.workload(&named).filter(|_| is_near)
    })
}

/// The address that listeners bind: where Pods share the machine's loopback each has
/// one of its own there; elsewhere loopback is the Pod's own.
fn listens_on(pod: Option<&Arc<Workload>>, told: Option<IpAddr>) -> IpAddr {
    let own = match pod {
        Some(pod) => pod.addresses.first().copied(),
        None => told,
    };
    own.filter(IpAddr::is_loopback).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Whether a client without a proxy asks: all of gRPC's name themselves `gRPC ...`.
fn is_grpc(node: &Node) -> bool {
    node.user_agent_name.get(..4).is_some_and(|begin| begin.eq_ignore_ascii_case("grpc"))
        // As Istio's agent tells its control plane.
        || text(node.metadata.as_ref(), "GENERATOR") == Some("grpc")
}

fn text<'a>(metadata: Option<&'a Struct>, key: &str) -> Option<&'a str> {
    match metadata?.fields.get(key)?.kind.as_ref()? {
        value::Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

fn cut(text: &str) -> Name {
    match text.char_indices().nth(ID_CHARS_MAX) {
        Some((at, _)) => name(&text[..at]),
        None => name(text),
    }
}

/// `KIND~ADDRESS~POD.NAMESPACE~DOMAIN`, as Istio's proxies name themselves; or only
/// `POD.NAMESPACE`.
#[derive(Debug, Default, PartialEq, Eq)]
struct IstioId<'a> {
    address: Option<IpAddr>,
    pod: Option<&'a str>,
    namespace: Option<&'a str>,
}

impl<'a> IstioId<'a> {
    fn parse(id: &'a str) -> Self {
        let mut parts = id.split('~');
        let (first, address, whole) = (parts.next(), parts.next(), parts.next());
        // Names of Pods may hold dots, those of namespaces may not.
        let (pod, namespace) = whole.or(first).and_then(|whole| whole.rsplit_once('.')).unzip();
        Self { address: address.and_then(|text| text.parse().ok()), pod, namespace }
    }
}

#[cfg(test)]
mod tests {
    use portolan_envoy_proto::{
        config::core::v3::Locality,
        google::protobuf::{Value, value::Kind},
    };
    use portolan_testkit::World;

    use super::*;

    fn node(id: &str, agent: &str) -> Node {
        Node { id: id.into(), user_agent_name: agent.into(), ..Node::default() }
    }

    fn with(mut node: Node, key: &str, text: &str) -> Node {
        let value = Value { kind: Some(Kind::StringValue(text.into())) };
        node.metadata.get_or_insert_default().fields.insert(key.into(), value);
        node
    }

    #[test]
    fn ids() {
        let parse = |id| {
            let IstioId { address, pod, namespace } = IstioId::parse(id);
            (address.map(|own| own.to_string()), pod, namespace)
        };
        let address = Some("127.10.0.5".to_owned());
        assert_eq!(
            parse("sidecar~127.10.0.5~web-1.x.demo~demo.svc.cluster.local"),
            (address, Some("web-1.x"), Some("demo"))
        );
        assert_eq!(parse("web-1.demo"), (None, Some("web-1"), Some("demo")));
        assert_eq!(parse("web"), (None, None, None));
        assert_eq!(parse(""), (None, None, None));
        assert_eq!(parse("sidecar~nowhere~x~"), (None, None, None));
    }

    #[test]
    fn a_client_that_is_no_pod_is_shown_what_all_are() {
        let empty = World::new().snapshot();
        let read = |node: &Node| read(node, Some([127, 0, 0, 1].into()), &empty);
        let envoy = read(&node("sidecar~127.0.0.7~a.nowhere~", "envoy"));
        assert_eq!(envoy.view.dialect, Dialect::Envoy([127, 0, 0, 7].into()));
        assert_eq!((envoy.view.namespace, envoy.pod), (None, None), "no such namespace");
        // An address that is not on this machine is not bound.
        let away = read(&node("sidecar~10.0.0.7~a.nowhere~", "envoy"));
        assert_eq!(away.view.dialect, Dialect::Envoy([127, 0, 0, 1].into()));
        for agent in ["gRPC C-core linux", "grpc-go", "gRPC Node Pure JS"] {
            assert_eq!(read(&node("x", agent)).view.dialect, Dialect::Grpc, "{agent}");
        }
        assert_eq!(read(&with(node("x", ""), "GENERATOR", "grpc")).view.dialect, Dialect::Grpc);
        let mut there = node("x", "envoy");
        there.locality = Some(Locality { zone: "z1".into(), ..Locality::default() });
        assert_eq!(read(&there).view.place.zone.as_deref(), Some("z1"));
    }

    #[test]
    fn a_long_name_is_cut() {
        let long = "\u{e4}".repeat(10_000);
        let (id, agent) = names(&node(&long, &long));
        assert_eq!(id.chars().count(), ID_CHARS_MAX);
        assert_eq!(agent.chars().count(), ID_CHARS_MAX);
    }
}
