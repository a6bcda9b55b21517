//! Which endpoints take traffic: the one place where that is decided.
//!
//! The rules equal kube-proxy's (pkg/proxy/topology.go of Kubernetes 1.33):
//! ready endpoints, narrowed by hints when every ready endpoint carries them;
//! if none is ready, those that still serve while terminating; a Local policy
//! keeps to the client's node.

use portolan_model::{
    ClientView, Code, Endpoint, Name, Placed, TrafficDistribution, TrafficPolicy,
};

use crate::snapshot::ServiceEntry;

/// Where traffic comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// From inside the cluster: `internalTrafficPolicy` rules.
    Internal,
    /// Through node ports and load balancers: `externalTrafficPolicy` rules.
    External,
}

/// The endpoints that take traffic, and what to do when there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen<'a> {
    /// In the order of the entry.
    pub endpoints: Vec<&'a Placed>,
    /// None is chosen, and elsewhere there is one: traffic is dropped (Local
    /// policy). With none anywhere it is rejected.
    pub any_elsewhere: bool,
}

/// The endpoints that may take traffic from anywhere: those that are served, else
/// those that serve while they terminate. What [`choose`] chooses from.
pub fn candidates(entry: &ServiceEntry) -> Vec<&Placed> {
    cluster_pool(&entry.endpoints.iter().collect::<Vec<_>>(), &ClientView::default())
}

/// The served endpoints that are near a client, where the service asks for
/// nearness and any is near, else all that are served: for clients that are handed
/// addresses and pick for themselves (names of headless services). Hints count
/// before the zones that endpoints tell of themselves.
pub fn nearest<'a>(entry: &'a ServiceEntry, view: &ClientView) -> Vec<&'a Placed> {
    let served: Vec<&Placed> = entry.served().collect();
    let distribution = entry.service.distribution;
    if distribution == TrafficDistribution::Any {
        return served;
    }
    let near = |same: fn(&Endpoint) -> &Option<Name>, wanted: &Option<Name>| {
        let here = |placed: &&Placed| wanted.is_some() && same(&placed.endpoint) == wanted;
        Some(served.iter().copied().filter(here).collect::<Vec<_>>()).filter(|n| !n.is_empty())
    };
    let same_node = || match distribution {
        TrafficDistribution::SameNode => near(|endpoint| &endpoint.node, &view.node),
        _ => None,
    };
    let hinted_zone = || {
        let zone = view.zone.as_ref()?;
        hinted(&served, |hints| hints.zones.contains(zone), |hints| !hints.zones.is_empty())
    };
    same_node()
        .or_else(hinted_zone)
        .or_else(|| near(|endpoint| &endpoint.zone, &view.zone))
        .unwrap_or_else(|| served.clone())
}

/// Whether clients in different places may get different endpoints of a service.
pub fn depends_on_place(entry: &ServiceEntry) -> bool {
    let hinted = |placed: &Placed| placed.endpoint.particulars.hints.is_some();
    entry.service.internal_policy == TrafficPolicy::Local || entry.endpoints.iter().any(hinted)
}

/// Chooses for a client, among all endpoints of a service. For a port of its
/// virtual IP ask [`choose_among`].
pub fn choose<'a>(entry: &'a ServiceEntry, view: &ClientView, traffic: Traffic) -> Chosen<'a> {
    choose_among(entry, view, traffic, |_| true)
}

/// Chooses for a client, among the endpoints that `can` take this traffic. As in
/// kube-proxy each port and each address family of a service stands for itself:
/// that another port has a ready endpoint must not keep this one from falling
/// back to those that terminate.
pub fn choose_among<'a>(
    entry: &'a ServiceEntry,
    view: &ClientView,
    traffic: Traffic,
    can: impl Fn(&Endpoint) -> bool,
) -> Chosen<'a> {
    let policy = match traffic {
        Traffic::Internal => entry.service.internal_policy,
        Traffic::External => entry.service.external_policy,
    };
    let all: Vec<&Placed> = entry.endpoints.iter().filter(|placed| can(&placed.endpoint)).collect();
    let cluster = cluster_pool(&all, view);
    let any = !cluster.is_empty();
    let endpoints = match policy {
        TrafficPolicy::Cluster => cluster,
        TrafficPolicy::Local => local_pool(&all, view),
    };
    Chosen { any_elsewhere: any && endpoints.is_empty(), endpoints }
}

fn cluster_pool<'a>(all: &[&'a Placed], view: &ClientView) -> Vec<&'a Placed> {
    let ready: Vec<&Placed> = ready(all).collect();
    if ready.is_empty() {
        return terminating(all).collect();
    }
    if let Some(node) = &view.node
        && let Some(near) =
            hinted(&ready, |hints| hints.nodes.contains(node), |h| !h.nodes.is_empty())
    {
        return near;
    }
    if let Some(zone) = &view.zone
        && let Some(near) =
            hinted(&ready, |hints| hints.zones.contains(zone), |h| !h.zones.is_empty())
    {
        return near;
    }
    ready
}

fn local_pool<'a>(all: &[&'a Placed], view: &ClientView) -> Vec<&'a Placed> {
    let here = |placed: &&Placed| view.node.is_some() && placed.endpoint.node == view.node;
    let ready: Vec<&Placed> = ready(all).filter(here).collect();
    if ready.is_empty() { terminating(all).filter(here).collect() } else { ready }
}

fn ready<'a>(all: &[&'a Placed]) -> impl Iterator<Item = &'a Placed> {
    all.iter().copied().filter(|placed| placed.verdict.is_served())
}

fn terminating<'a>(all: &[&'a Placed]) -> impl Iterator<Item = &'a Placed> {
    all.iter().copied().filter(|placed| {
        let conditions = placed.endpoint.conditions;
        // Nothing else may speak against it: no weight 0, no duplicate, no
        // Service that is missing.
        let only = placed.verdict.reasons().iter().all(|reason| reason.code == Code::TERMINATING);
        conditions.serving && conditions.terminating && only
    })
}

/// Narrows to hinted endpoints: all-or-nothing, as one endpoint without a hint
/// means that the hints are not (or not yet) meant to be complete.
fn hinted<'a>(
    ready: &[&'a Placed],
    here: impl Fn(&portolan_model::Hints) -> bool,
    present: impl Fn(&portolan_model::Hints) -> bool,
) -> Option<Vec<&'a Placed>> {
    let complete = ready.iter().all(|placed| {
        placed.endpoint.particulars.hints.as_ref().is_some_and(|hints| present(hints))
    });
    if !complete {
        return None;
    }
    let near: Vec<&Placed> = ready
        .iter()
        .copied()
        .filter(|placed| {
            placed.endpoint.particulars.hints.as_ref().is_some_and(|hints| here(hints))
        })
        .collect();
    (!near.is_empty()).then_some(near)
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Arc};

    use portolan_model::{
        Conditions, EndpointPort, Hints, Particular, Reason, Service, ServiceKey, Transport,
        Verdict, Version, name,
    };

    use super::*;

    /// `last` of the address, node, condition, hints (`z:` zones, `n:` nodes).
    type One = (u8, &'static str, &'static str, &'static str);

    fn entry(policy: TrafficPolicy, all: &[One]) -> ServiceEntry {
        let placed = all.iter().map(|(last, node, condition, hints)| {
            let (conditions, verdict) = match *condition {
                "ready" => (Conditions::READY, Verdict::Served),
                "terminating" => (
                    Conditions { ready: false, serving: true, terminating: true },
                    Verdict::NotServed([Reason::plain(Code::TERMINATING)].into()),
                ),
                "duplicate" => (
                    Conditions { ready: false, serving: true, terminating: true },
                    Verdict::NotServed(
                        [Code::TERMINATING, Code::DUPLICATE_ADDRESS].map(Reason::plain).into(),
                    ),
                ),
                _ => (
                    Conditions::NOT_READY,
                    Verdict::NotServed([Reason::plain(Code::NOT_READY)].into()),
                ),
            };
            let port = EndpointPort {
                name: name(if *last < 100 { "http" } else { "grpc" }),
                transport: Transport::Tcp,
                port: Some(80),
                app_protocol: None,
            };
            let named = |prefix: &str| {
                let words = hints.split(' ').filter_map(|word| word.strip_prefix(prefix));
                words.map(name).collect::<Vec<_>>()
            };
            let hints = Hints { zones: named("z:"), nodes: named("n:") };
            let endpoint = Endpoint {
                conditions,
                node: Some(name(node)),
                particulars: Particular { hints: Some(Arc::new(hints)), ..Particular::NONE }.into(),
                ..Endpoint::new(IpAddr::from([127, 10, 0, *last]), Arc::new([port]))
            };
            Placed { endpoint: Arc::new(endpoint), verdict }
        });
        ServiceEntry {
            service: Arc::new(Service {
                internal_policy: policy,
                ..Service::bare(ServiceKey::kubernetes("ns", "web"))
            }),
            endpoints: placed.collect(),
            reasons: Arc::default(),
            etag: 0,
            changed: Version::first(0),
            observed_at_ms: 0,
        }
    }

    #[test]
    fn the_nearest_are_handed_out_where_asked() {
        use TrafficDistribution::{Any, SameNode, SameZone};
        let all: &[One] = &[
            (1, "n1", "ready", "z:a"),
            (2, "n2", "ready", "z:a"),
            (3, "n3", "ready", "z:b"),
            (4, "n4", "not", "z:c"),
        ];
        let unhinted: Vec<One> = all.iter().map(|(a, b, c, _)| (*a, *b, *c, "")).collect();
        for (what, distribution, all, node, zone, expected) in [
            ("nobody asks", Any, all, "n1", "a", &[1, 2, 3][..]),
            ("the zone of hints", SameZone, all, "n1", "a", &[1, 2]),
            ("no endpoint there", SameZone, all, "n9", "z", &[1, 2, 3]),
            ("only one that is not ready", SameZone, all, "n4", "c", &[1, 2, 3]),
            ("the node first", SameNode, all, "n2", "a", &[2]),
            ("the zone when the node has none", SameNode, all, "n9", "b", &[3]),
            ("the endpoints' own zones", SameZone, &unhinted[..], "n1", "own-1", &[1]),
        ] {
            let mut entry = entry(TrafficPolicy::Cluster, all);
            let mut service = (*entry.service).clone();
            service.distribution = distribution;
            entry.service = Arc::new(service);
            let zoned = entry.endpoints.iter().map(|placed| {
                let mut endpoint = (*placed.endpoint).clone();
                let last = endpoint.address.to_string();
                endpoint.zone = Some(name(&format!("own-{}", &last["127.10.0.".len()..])));
                let hints = &mut endpoint.particulars.hints;
                *hints = hints.take().filter(|hints| !hints.zones.is_empty());
                Placed { endpoint: Arc::new(endpoint), verdict: placed.verdict.clone() }
            });
            entry.endpoints = zoned.collect();
            let view = ClientView {
                node: Some(name(node)),
                zone: Some(name(zone)),
                ..ClientView::default()
            };
            let endpoints = nearest(&entry, &view);
            let chosen = Chosen { endpoints, any_elsewhere: false };
            assert_eq!(lasts(&chosen), expected, "{what}");
        }
        let entry = entry(TrafficPolicy::Cluster, all);
        assert_eq!(nearest(&entry, &ClientView::default()).len(), 3);
    }

    fn lasts(chosen: &Chosen<'_>) -> Vec<u8> {
        let last = |placed: &&Placed| match placed.endpoint.address {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(_) => 0,
        };
        chosen.endpoints.iter().map(last).collect()
    }

    /// What it is, the policy, the endpoints; who is chosen, and whether somebody
    /// elsewhere could have been.
    type Case = (&'static str, TrafficPolicy, &'static [One], &'static [u8], bool);

    /// Each line is a case of kube-proxy's topology_test.go, restated.
    #[test]
    fn as_kube_proxy_chooses() {
        use TrafficPolicy::{Cluster, Local};
        let cases: &[Case] = &[
            (
                "all ready",
                Cluster,
                &[(1, "me", "ready", ""), (2, "b", "ready", "")],
                &[1, 2],
                false,
            ),
            ("none at all", Cluster, &[], &[], false),
            ("none ready", Cluster, &[(1, "me", "not", "")], &[], false),
            (
                "terminating only while none is ready",
                Cluster,
                &[(1, "me", "terminating", ""), (2, "b", "ready", "")],
                &[2],
                false,
            ),
            (
                "falls back to those that terminate and serve",
                Cluster,
                &[(1, "me", "terminating", "z:b"), (2, "b", "not", "")],
                &[1],
                false,
            ),
            (
                "the duplicate of one that terminates is no second one",
                Cluster,
                &[(1, "me", "terminating", ""), (1, "b", "duplicate", "")],
                &[1],
                false,
            ),
            (
                "the zone's own",
                Cluster,
                &[(1, "me", "ready", "z:a"), (2, "b", "ready", "z:b")],
                &[1],
                false,
            ),
            (
                "one without hints turns them off",
                Cluster,
                &[(1, "me", "ready", "z:a"), (2, "b", "ready", "")],
                &[1, 2],
                false,
            ),
            (
                "hints of what is not ready do not count",
                Cluster,
                &[(1, "me", "ready", "z:a"), (2, "b", "not", "")],
                &[1],
                false,
            ),
            (
                "nobody for this zone: all",
                Cluster,
                &[(1, "me", "ready", "z:b"), (2, "b", "ready", "z:c")],
                &[1, 2],
                false,
            ),
            (
                "the node before the zone",
                Cluster,
                &[(1, "me", "ready", "z:a n:me"), (2, "b", "ready", "z:a n:b")],
                &[1],
                false,
            ),
            (
                "nobody for this node: the zone",
                Cluster,
                &[(1, "x", "ready", "z:a n:x"), (2, "b", "ready", "z:b n:b")],
                &[1],
                false,
            ),
            (
                "local: hints do not narrow it",
                Local,
                &[(1, "me", "ready", "z:b"), (2, "b", "ready", "z:a")],
                &[1],
                false,
            ),
            (
                "local: falls back on the node before it looks elsewhere",
                Local,
                &[(1, "me", "terminating", ""), (2, "b", "ready", "")],
                &[1],
                false,
            ),
            ("local: dropped, for elsewhere is one", Local, &[(2, "b", "ready", "")], &[], true),
            ("local: refused, for there is none", Local, &[(2, "b", "not", "")], &[], false),
        ];
        let view =
            ClientView { node: Some(name("me")), zone: Some(name("a")), ..ClientView::default() };
        for (case, policy, all, expected, elsewhere) in cases {
            let entry = entry(*policy, all);
            let chosen = choose(&entry, &view, Traffic::Internal);
            assert_eq!(lasts(&chosen), *expected, "{case}");
            assert_eq!(chosen.any_elsewhere, *elsewhere, "{case}");
        }
    }

    #[test]
    fn a_client_without_a_place_has_no_local_endpoint() {
        let entry = entry(TrafficPolicy::Local, &[(1, "me", "ready", "")]);
        let chosen = choose(&entry, &ClientView::default(), Traffic::Internal);
        assert!(chosen.endpoints.is_empty() && chosen.any_elsewhere);
    }

    #[test]
    fn each_port_falls_back_for_itself() {
        let all = &[(1, "me", "terminating", ""), (100, "me", "ready", "")];
        let entry = entry(TrafficPolicy::Cluster, all);
        let view = ClientView::default();
        for (port, expected) in [("http", vec![1]), ("grpc", vec![100]), ("none", vec![])] {
            let can = |endpoint: &Endpoint| endpoint.port(port, Transport::Tcp).is_some();
            let chosen = choose_among(&entry, &view, Traffic::Internal, can);
            assert_eq!(lasts(&chosen), expected, "{port}");
        }
    }
}
