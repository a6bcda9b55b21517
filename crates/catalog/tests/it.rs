//! The laws of the catalog, over generated histories.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use portolan_catalog::{Catalog, Hub, Snapshot, Update};
use portolan_model::{
    Conditions, Endpoint, EndpointPort, EndpointSlice, Event, Face, FaceId, Fact, FactKey,
    Namespace, Node, ObjectName, Origin, Particular, Placed, Service, ServiceKey, SourceId,
    SourceReport, Transport, Version, Workload, name,
};
use proptest::prelude::*;

const PART: &str = "all";

fn hub() -> Arc<Hub> {
    Hub::new(Version::first(7))
}

fn report(source: &str, event: Event) -> SourceReport {
    SourceReport { source: SourceId::new(source), revision: name(""), observed_at_ms: 1, event }
}

fn begin() -> Event {
    Event::Begin { part: name(PART) }
}

fn complete() -> Event {
    Event::Complete { part: name(PART) }
}

fn lost() -> Event {
    Event::Lost { part: name(PART), error: name("reset") }
}

fn sight((key, fact): (FactKey, Fact)) -> Event {
    Event::Sighting { part: name(PART), key, fact: Box::new(fact) }
}

fn gone(key: FactKey) -> Event {
    Event::Gone { part: name(PART), key }
}

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 10, 0, last))
}

fn endpoint(last: u8, conditions: Conditions) -> Arc<Endpoint> {
    let ports = [EndpointPort {
        name: name("http"),
        transport: Transport::Tcp,
        port: Some(8080),
        app_protocol: None,
    }];
    Arc::new(Endpoint {
        conditions,
        target: Some(ObjectName::new("ns", &format!("pod-{last}"))),
        ..Endpoint::new(address(last), Arc::new(ports))
    })
}

fn slice(object: &str, service: &str, endpoints: Vec<Arc<Endpoint>>) -> (FactKey, Fact) {
    let key = ServiceKey::kubernetes("ns", service);
    (
        FactKey::EndpointSlice(Origin::kubernetes(), ObjectName::new("ns", object)),
        Fact::EndpointSlice(EndpointSlice { service: key, endpoints }),
    )
}

fn service(service: &str) -> (FactKey, Fact) {
    let key = ServiceKey::kubernetes("ns", service);
    (FactKey::Service(key.clone()), Fact::Service(Service::bare(key).into()))
}

fn pod(last: u8, ready: bool) -> (FactKey, Fact) {
    let pod = ObjectName::new("ns", &format!("pod-{last}"));
    let workload = Workload {
        name: pod.clone(),
        uid: name("u"),
        addresses: vec![address(last)],
        node: None,
        service_account: None,
        phase: name("Running"),
        ready,
        terminating: false,
        not_ready: (!ready).then(|| Arc::new((name("Waiting"), name("PTL0201: on 127.0.0.1")))),
        hollow: false,
        labels: Arc::default(),
    };
    (FactKey::Workload(pod), Fact::Workload(workload.into()))
}

fn served(snapshot: &Snapshot, service: &str) -> Vec<IpAddr> {
    snapshot
        .service(&ServiceKey::kubernetes("ns", service))
        .map(|entry| entry.served().map(|placed| placed.endpoint.address).collect())
        .unwrap_or_default()
}

/// Everything but versions and times: what two histories of one world share.
fn content(snapshot: &Snapshot) -> impl PartialEq + std::fmt::Debug + use<> {
    let services: BTreeMap<_, _> = snapshot
        .services()
        .map(|entry| {
            let shown = (entry.service.clone(), entry.endpoints.clone(), entry.etag);
            (entry.service.key.clone(), (shown, entry.reasons.clone()))
        })
        .collect();
    let workloads: Vec<_> = snapshot.workloads().cloned().collect();
    (services, workloads, snapshot.namespaces().clone(), snapshot.nodes().clone())
}

#[test]
fn a_listing_that_breaks_off_takes_nothing_away() {
    let hub = hub();
    let mut catalog = Catalog::new(hub.clone());
    let two = vec![endpoint(1, Conditions::READY), endpoint(2, Conditions::READY)];
    let events = [begin(), sight(service("a")), sight(slice("a-1", "a", two)), complete()];
    catalog.apply(events.map(|event| report("k", event)), 1);
    assert_eq!(served(&hub.snapshot(), "a"), [address(1), address(2)]);

    // The list is cut after its first page; the connection is lost; a stray
    // Complete arrives. Nothing may leave.
    catalog.apply([begin(), sight(service("b")), lost()].map(|event| report("k", event)), 2);
    assert_eq!(served(&hub.snapshot(), "a"), [address(1), address(2)]);
    let why = hub.snapshot().sources()[&SourceId::new("k")].lost.get(PART).cloned();
    assert_eq!(why.as_deref(), Some("reset"));
    catalog.apply([report("k", complete())], 2);
    assert_eq!(served(&hub.snapshot(), "a"), [address(1), address(2)]);

    // A whole list without it takes it away.
    let one = vec![endpoint(2, Conditions::READY)];
    let events = [begin(), sight(service("a")), sight(slice("a-1", "a", one)), complete()];
    catalog.apply(events.map(|event| report("k", event)), 3);
    assert_eq!(served(&hub.snapshot(), "a"), [address(2)]);
    assert!(hub.snapshot().sources()[&SourceId::new("k")].lost.is_empty());
}

#[test]
fn the_pod_explains_why_its_endpoint_is_not_served() {
    let hub = hub();
    let mut catalog = Catalog::new(hub.clone());
    let facts =
        [service("a"), slice("a-1", "a", vec![endpoint(1, Conditions::NOT_READY)]), pod(1, true)];
    catalog.apply(facts.map(|fact| report("k", sight(fact))), 1);
    let reason = |hub: &Hub| {
        let snapshot = hub.snapshot();
        let entry = snapshot.service(&ServiceKey::kubernetes("ns", "a")).cloned();
        entry.map(|entry| entry.endpoints[0].verdict.reasons()[0].to_string())
    };
    assert!(reason(&hub).is_some_and(|text| text.starts_with("PTL0103")));
    // Only the Pod changes; the verdict on its endpoint follows.
    catalog.apply([report("k", sight(pod(1, false)))], 2);
    let text = reason(&hub);
    assert!(
        text.as_ref().is_some_and(|t| t.starts_with("PTL0201") && t.ends_with("on 127.0.0.1")),
        "{text:?}"
    );
}

#[test]
fn an_endpoint_that_moves_between_slices_is_there_throughout() {
    let hub = hub();
    let mut catalog = Catalog::new(hub.clone());
    let here = |object| slice(object, "a", vec![endpoint(1, Conditions::READY)]);
    let steps: Vec<Vec<Event>> = vec![
        vec![sight(service("a")), sight(here("a-1"))],
        vec![sight(here("a-2"))],
        vec![gone(here("a-1").0)],
    ];
    for step in steps {
        catalog.apply(step.into_iter().map(|event| report("k", event)), 1);
        assert_eq!(served(&hub.snapshot(), "a"), [address(1)]);
    }
}

#[test]
fn nothing_new_makes_no_version() {
    let hub = hub();
    let mut catalog = Catalog::new(hub.clone());
    assert!(catalog.apply([report("k", sight(service("a")))], 1).is_some());
    let version = hub.snapshot().version();
    assert!(
        catalog
            .apply(
                [report("k", sight(service("a"))), report("k", Event::Alive { part: name(PART) })],
                2
            )
            .is_none()
    );
    assert_eq!(hub.snapshot().version(), version);
}

#[test]
fn not_synced_until_every_expected_part_has_listed() {
    let hub = hub();
    let mut catalog = Catalog::new(hub.clone());
    assert!(!hub.snapshot().is_synced());
    catalog.expect(SourceId::new("k"), &[name("services"), name("slices")], 1);
    for (part, synced) in [("services", false), ("slices", true)] {
        let part = name(part);
        let events = [Event::Begin { part: part.clone() }, Event::Complete { part }];
        catalog.apply(events.map(|event| report("k", event)), 2);
        assert_eq!(hub.snapshot().is_synced(), synced);
    }
}

#[test]
fn convergence_waits_for_every_member() {
    let hub = hub();
    let mut catalog = Catalog::new(hub.clone());
    let dns = FaceId { face: Face::Dns, member: name("udp-0") };
    let proxy = FaceId { face: Face::Proxy, member: name("local") };
    hub.board().join(dns.clone());
    hub.board().join(proxy.clone());
    catalog.apply([report("k", sight(service("a")))], 1);
    let version = hub.snapshot().version();
    let ack = |residue_ms| portolan_catalog::Ack { version, at_ms: 1, residue_ms };
    hub.board().acknowledge(&dns, ack(5000));
    let state = hub.board().convergence(version, &[]);
    assert_eq!((state.reached.len(), state.missing.len()), (1, 1));
    assert!(hub.board().convergence(version, &[Face::Dns]).is_reached());
    hub.board().acknowledge(&proxy, ack(0));
    let state = hub.board().convergence(version, &[]);
    assert!(state.is_reached());
    assert_eq!(state.residue_ms(), 5000);
    // A version of another life is never reached.
    assert!(!hub.board().convergence(Version { epoch: 8, seq: 1 }, &[]).is_reached());
}

#[test]
fn a_loss_is_as_old_as_its_beginning_however_often_a_listing_breaks_off() {
    let hub = hub();
    let mut catalog = Catalog::new(hub.clone());
    let at = |ms: u64, event: Event| SourceReport { observed_at_ms: ms, ..report("k", event) };
    let status = |hub: &Hub| hub.snapshot().sources()[&SourceId::new("k")].clone();
    catalog.apply([at(1, begin()), at(1, complete())], 1);
    catalog.apply([at(1_000, lost())], 1_000);
    // A listing begins, tells something, and breaks off.
    for ms in [2_000, 3_000] {
        catalog.apply([at(ms, begin()), at(ms, sight(service("a"))), at(ms, lost())], ms);
        let status = status(&hub);
        assert_eq!((status.lost.len(), status.since_ms), (1, 1_000));
    }
    // Back by a whole listing, or by a watch that goes on.
    let listed = vec![at(4_000, begin()), at(4_000, complete())];
    let watched = vec![at(6_000, sight(service("b")))];
    for (back, ms) in [(listed, 4_000), (watched, 6_000)] {
        catalog.apply(back, ms);
        assert!(status(&hub).lost.is_empty());
        assert_eq!(status(&hub).since_ms, ms);
        catalog.apply([at(5_000, lost())], 5_000);
    }
}

#[test]
fn sources_count_what_they_tell_and_heartbeats_make_no_version() {
    let hub = hub();
    let mut catalog = Catalog::new(hub.clone());
    let facts = |hub: &Hub, part: &str| {
        hub.snapshot().sources()[&SourceId::new("k")].parts.get(part).map_or(0, |part| part.facts)
    };
    catalog.apply([begin(), complete()].map(|event| report("k", event)), 1);
    assert_eq!(facts(&hub, PART), 0);
    catalog.apply([report("k", sight(service("a")))], 2);
    assert_eq!(facts(&hub, PART), 1);
    // Another part of the source tells the same from now on, and changes it.
    let (key, fact) = service("a");
    let moved = Event::Sighting { part: name("other"), key: key.clone(), fact: Box::new(fact) };
    catalog.apply([report("k", moved), report("k", sight(service("b")))], 3);
    assert_eq!((facts(&hub, PART), facts(&hub, "other")), (1, 1));
    catalog.apply([report("k", gone(key))], 4);
    assert_eq!((facts(&hub, PART), facts(&hub, "other")), (1, 0));
    let version = hub.snapshot().version();
    assert!(catalog.apply([report("k", Event::Alive { part: name(PART) })], 5).is_none());
    assert_eq!(hub.snapshot().version(), version);
}

/// The codes of each endpoint of service `a`, in order.
fn codes(snapshot: &Snapshot) -> Vec<Vec<String>> {
    let entry = snapshot.service(&ServiceKey::kubernetes("ns", "a")).cloned();
    entry.map_or_else(Vec::new, |entry| {
        let codes = |placed: &portolan_model::Placed| {
            placed.verdict.reasons().iter().map(|reason| reason.code.to_string()).collect()
        };
        entry.endpoints.iter().map(codes).collect()
    })
}

#[test]
fn verdicts() {
    let not_ready = Conditions::NOT_READY;
    let leaving = Conditions { ready: false, serving: true, terminating: true };
    let particular = |particular: Particular, conditions| {
        let particulars = particular.into();
        Arc::new(Endpoint { particulars, ..Endpoint::clone(&endpoint(1, conditions)) })
    };
    let weighed =
        |weight, conditions| particular(Particular { weight, ..Particular::NONE }, conditions);
    let switched_off =
        |conditions| particular(Particular { switched_off: true, ..Particular::NONE }, conditions);
    let of_pod = |pod: &str, conditions| {
        let target = Some(ObjectName::new("ns", pod));
        Arc::new(Endpoint { target, ..Endpoint::clone(&endpoint(1, conditions)) })
    };
    let unbound =
        || Arc::new(Endpoint { target: None, ..Endpoint::clone(&endpoint(1, Conditions::READY)) });
    type Case = (&'static str, Vec<(FactKey, Fact)>, &'static [&'static [&'static str]]);
    let cases: Vec<Case> = vec![
        ("ready", vec![slice("s", "a", vec![endpoint(1, Conditions::READY)])], &[&[]]),
        ("not ready", vec![slice("s", "a", vec![endpoint(1, not_ready)])], &[&["PTL0103"]]),
        ("terminating", vec![slice("s", "a", vec![endpoint(1, leaving)])], &[&["PTL0104"]]),
        (
            "switched off",
            vec![slice("s", "a", vec![switched_off(Conditions::READY)])],
            &[&["PTL0113"]],
        ),
        (
            "switched off comes first, whatever else is so",
            vec![slice("s", "a", vec![switched_off(leaving)])],
            &[&["PTL0113", "PTL0104"]],
        ),
        ("weight 0", vec![slice("s", "a", vec![weighed(0, Conditions::READY)])], &[&["PTL0106"]]),
        (
            "not ready comes before weight 0 on the ladder",
            vec![slice("s", "a", vec![weighed(0, not_ready)])],
            &[&["PTL0103", "PTL0106"]],
        ),
        (
            "the Pod says why",
            vec![slice("s", "a", vec![endpoint(1, not_ready)]), pod(1, false)],
            &[&["PTL0201"]],
        ),
        (
            "two Pods with one address: the readier is served, the other is shown",
            vec![slice("s", "a", vec![of_pod("old", not_ready), of_pod("new", Conditions::READY)])],
            &[&[], &["PTL0103", "PTL0107"]],
        ),
        (
            "one Pod in two slices is one endpoint",
            vec![
                slice("s", "a", vec![of_pod("x", not_ready)]),
                slice("t", "a", vec![of_pod("x", Conditions::READY)]),
            ],
            &[&[]],
        ),
        (
            "a slice by hand that names no Pod tells of the same endpoint",
            vec![
                slice("s", "a", vec![unbound()]),
                slice("t", "a", vec![of_pod("x", Conditions::READY)]),
            ],
            &[&[]],
        ),
    ];
    for (case, facts, expected) in cases {
        let hub = hub();
        let mut catalog = Catalog::new(hub.clone());
        let all = [service("a")].into_iter().chain(facts.clone());
        catalog.apply(all.map(|fact| report("k", sight(fact))), 1);
        assert_eq!(codes(&hub.snapshot()), expected, "{case}");
        // The other order, one by one.
        let hub = self::hub();
        let mut catalog = Catalog::new(hub.clone());
        for fact in facts.into_iter().rev().chain([service("a")]) {
            catalog.apply([report("k", sight(fact))], 1);
        }
        assert_eq!(codes(&hub.snapshot()), expected, "{case}, backwards");
    }
}

#[test]
fn endpoints_without_their_service_are_shown_and_not_served() {
    let hub = hub();
    let mut catalog = Catalog::new(hub.clone());
    let orphans = slice("s", "a", vec![endpoint(1, Conditions::READY)]);
    catalog.apply([report("k", sight(orphans))], 1);
    assert_eq!(codes(&hub.snapshot()), [["PTL0102"]]);
    catalog.apply([report("k", sight(service("a")))], 2);
    assert_eq!(served(&hub.snapshot(), "a"), [address(1)]);
}

#[test]
fn not_ready_addresses_are_served_where_the_service_publishes_them() {
    let hub = hub();
    let mut catalog = Catalog::new(hub.clone());
    let key = ServiceKey::kubernetes("ns", "a");
    let eager = Service { publish_not_ready: true, ..Service::bare(key.clone()) };
    let eager = (FactKey::Service(key), Fact::Service(eager.into()));
    let facts = [eager, slice("s", "a", vec![endpoint(1, Conditions::NOT_READY)])];
    catalog.apply(facts.map(|fact| report("k", sight(fact))), 1);
    assert_eq!(served(&hub.snapshot(), "a"), [address(1)]);
}

#[test]
fn a_pod_touches_only_services_whose_verdict_it_explains() {
    let hub = hub();
    let mut catalog = Catalog::new(hub.clone());
    let facts =
        [service("a"), slice("a-1", "a", vec![endpoint(1, Conditions::NOT_READY)]), pod(1, true)];
    catalog.apply(facts.map(|fact| report("k", sight(fact))), 1);
    let changed = |hub: &Hub| {
        hub.snapshot().service(&ServiceKey::kubernetes("ns", "a")).map(|entry| entry.changed)
    };
    let before = changed(&hub);
    // Its labels say nothing about the endpoint.
    let (key, fact) = pod(1, true);
    let Fact::Workload(workload) = fact else { panic!("no Pod") };
    let labels = Arc::new(BTreeMap::from([(name("tier"), name("front"))]));
    let labelled = Fact::Workload(Workload { labels, ..(*workload).clone() }.into());
    assert!(catalog.apply([report("k", sight((key.clone(), labelled)))], 2).is_some());
    assert_eq!(changed(&hub), before);
    // That it ends does, and so does that it is gone.
    let ended = Fact::Workload(Workload { phase: name("Failed"), ..(*workload).clone() }.into());
    catalog.apply([report("k", sight((key.clone(), ended)))], 3);
    assert_eq!(codes(&hub.snapshot()), [["PTL0108"]]);
    catalog.apply([report("k", gone(key))], 4);
    assert_eq!(codes(&hub.snapshot()), [["PTL0103"]]);
}

/// A service of 1,000 endpoints: each version holds a list of its own, and that counts for
/// what the history may hold.
#[test]
fn what_versions_hold_counts_for_the_history() {
    let hub = hub();
    let mut catalog = Catalog::new(hub.clone());
    catalog.apply([report("k", sight(service("svc-7")))], 1);
    let held = 1_000 * (size_of::<Placed>() + size_of::<Endpoint>());
    let kept_max = (64 << 20) / held;
    for step in 0..kept_max + 50 {
        let all = (0..1_000_u16).map(|number| {
            let [high, low] = number.to_be_bytes();
            let ready = (usize::from(number) + step).is_multiple_of(2);
            let conditions = if ready { Conditions::READY } else { Conditions::NOT_READY };
            Endpoint { conditions, ..Endpoint::new([10, 1, high, low].into(), Arc::default()) }
        });
        let all = all.map(Arc::new).collect();
        catalog.apply([report("k", sight(slice("s", "svc-7", all)))], 2);
    }
    let kept = hub.versions().len();
    assert!(kept > kept_max / 2 && kept <= kept_max + 1, "{kept} of {kept_max}");
}

/// A small world, so that histories collide.
fn any_fact() -> impl Strategy<Value = (FactKey, Fact)> {
    let conditions = prop_oneof![
        Just(Conditions::READY),
        Just(Conditions::NOT_READY),
        Just(Conditions { ready: false, serving: true, terminating: true }),
    ];
    let endpoints = proptest::collection::btree_map(1u8..6, conditions, 0..4).prop_map(|map| {
        map.into_iter().map(|(last, conditions)| endpoint(last, conditions)).collect::<Vec<_>>()
    });
    let service_name = prop_oneof![Just("a"), Just("b"), Just("c")];
    prop_oneof![
        service_name.clone().prop_map(service),
        (prop_oneof![Just("s-1"), Just("s-2"), Just("s-3")], service_name, endpoints)
            .prop_map(|(object, service, endpoints)| slice(object, service, endpoints)),
        (1u8..6, any::<bool>()).prop_map(|(last, ready)| pod(last, ready)),
        (0u8..2).prop_map(|n| {
            let namespace = name(&format!("ns-{n}"));
            let fact = Namespace { name: namespace.clone(), labels: Arc::default() };
            (FactKey::Namespace(namespace), Fact::Namespace(fact))
        }),
        (0u8..2, any::<bool>()).prop_map(|(n, ready)| {
            let node = name(&format!("node-{n}"));
            let fact = Node { name: node.clone(), zone: None, addresses: vec![], ready };
            (FactKey::Node(node), Fact::Node(fact))
        }),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => any_fact().prop_map(sight),
        2 => any_fact().prop_map(|(key, _)| gone(key)),
        1 => Just(begin()),
        1 => Just(complete()),
        1 => Just(lost()),
    ]
}

#[test]
fn verifying_listings_tell_what_they_repair() {
    let hub = hub();
    let mut catalog = Catalog::new(hub.clone());
    let say = |event| report("k", event);
    catalog.apply([begin(), sight(service("a")), sight(service("b")), complete()].map(say), 1);
    let verify = || Event::Verify { part: name(PART) };
    catalog.apply([verify(), sight(service("a")), sight(service("b")), complete()].map(say), 2);
    assert_eq!(catalog.take_repairs(), []);

    let (key, Fact::Service(other)) = service("a") else { panic!() };
    let other = Fact::Service(Service { publish_not_ready: true, ..(*other).clone() }.into());
    let wrong = [verify(), sight((key, other)), sight(service("c")), complete()];
    catalog.apply(wrong.map(say), 3);
    let repairs: Vec<String> = catalog
        .take_repairs()
        .into_iter()
        .map(|repair| format!("{} {:?}", repair.key, repair.how))
        .collect();
    assert_eq!(repairs, ["Service ns/a Changed", "Service ns/c Added", "Service ns/b Removed"]);
    let repaired = |hub: &Hub| hub.snapshot().sources()[&SourceId::new("k")].parts[PART].repaired;
    assert_eq!(repaired(&hub), 3);
    // Changes behind it are news.
    catalog.apply([sight(service("d"))].map(say), 4);
    assert_eq!((catalog.take_repairs(), repaired(&hub)), (vec![], 3));
    // One that breaks off repairs what it had come to, and ends.
    catalog.apply([verify(), lost(), begin(), complete()].map(say), 5);
    assert_eq!(catalog.take_repairs(), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_diff_leads_from_one_snapshot_to_the_other(
        batches in proptest::collection::vec(proptest::collection::vec(any_event(), 1..8), 1..12),
        pick in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let hub = hub();
        let mut catalog = Catalog::new(hub.clone());
        let mut snapshots = vec![hub.snapshot()];
        for batch in batches {
            catalog.apply(batch.into_iter().map(|event| report("k", event)), 1);
            snapshots.push(hub.snapshot());
        }
        let (a, b) = (pick.0.get(&snapshots), pick.1.get(&snapshots));
        prop_assert_eq!(&a.apply(&a.diff(b)), &**b);
        prop_assert_eq!(&b.apply(&b.diff(a)), &**a);
        prop_assert!(a.diff(a).is_empty());
    }

    #[test]
    fn a_subscriber_that_sleeps_arrives_where_the_others_are(
        batches in proptest::collection::vec((proptest::collection::vec(any_event(), 1..6), any::<bool>()), 1..12),
    ) {
        let hub = hub();
        let mut catalog = Catalog::new(hub.clone());
        let mut subscriber = hub.subscribe();
        let mut held = Snapshot::empty(Version::first(0));
        let mut follow = |subscriber: &mut portolan_catalog::Subscriber| match subscriber.poll() {
            Some(Update::Reset(snapshot)) => held = Snapshot::clone(&snapshot),
            Some(Update::Diff(diff, _)) => held = held.apply(&diff),
            None => {}
        };
        for (batch, awake) in batches {
            catalog.apply(batch.into_iter().map(|event| report("k", event)), 1);
            if awake {
                follow(&mut subscriber);
            }
        }
        follow(&mut subscriber);
        prop_assert_eq!(&held, &*hub.snapshot());
    }

    #[test]
    fn the_order_in_which_sources_speak_does_not_matter(
        left in proptest::collection::vec(any_event(), 0..12),
        right in proptest::collection::vec(any_event(), 0..12),
        order in proptest::collection::vec(any::<bool>(), 24),
    ) {
        let sequential = hub();
        let mut catalog = Catalog::new(sequential.clone());
        let events = |source: &'static str, events: &[Event]| -> Vec<SourceReport> {
            events.iter().cloned().map(|event| report(source, event)).collect()
        };
        catalog.apply(events("left", &left), 1);
        catalog.apply(events("right", &right), 1);

        // The same two stories, interleaved report by report.
        let mixed = hub();
        let mut catalog = Catalog::new(mixed.clone());
        let (mut left, mut right) =
            (events("left", &left).into_iter().peekable(), events("right", &right).into_iter().peekable());
        for from_left in order.into_iter().chain(std::iter::repeat(true)) {
            let next = if from_left { left.next().or_else(|| right.next()) } else { right.next().or_else(|| left.next()) };
            let Some(next) = next else { break };
            catalog.apply([next], 1);
        }
        prop_assert_eq!(content(&sequential.snapshot()), content(&mixed.snapshot()));
    }

    #[test]
    fn an_endpoint_leaves_only_by_gone_or_by_absence_from_a_complete_list(
        batches in proptest::collection::vec(any_event(), 1..40),
    ) {
        let hub = hub();
        let mut catalog = Catalog::new(hub.clone());
        // The rule, restated: facts sighted, with the listing they belong to.
        let mut oracle: BTreeMap<FactKey, (Fact, u64)> = BTreeMap::new();
        let (mut listing, mut open) = (0u64, false);
        for event in batches {
            match &event {
                Event::Sighting { key, fact, .. } => {
                    oracle.insert(key.clone(), ((**fact).clone(), listing));
                }
                Event::Gone { key, .. } => {
                    oracle.remove(key);
                }
                Event::Begin { .. } => (listing, open) = (listing + 1, true),
                Event::Complete { .. } if open => {
                    open = false;
                    oracle.retain(|_, (_, seen)| *seen == listing);
                }
                Event::Lost { .. } => open = false,
                _ => {}
            }
            catalog.apply([report("k", event)], 1);
            let snapshot = hub.snapshot();
            for service in ["a", "b", "c"] {
                let key = ServiceKey::kubernetes("ns", service);
                let mut expected: Vec<IpAddr> = oracle
                    .values()
                    .filter_map(|(fact, _)| match fact {
                        Fact::EndpointSlice(slice) if slice.service == key => Some(slice),
                        _ => None,
                    })
                    .flat_map(|slice| slice.endpoints.iter().map(|endpoint| endpoint.address))
                    .collect();
                expected.sort();
                expected.dedup();
                let actual: Vec<IpAddr> = snapshot
                    .service(&key)
                    .map(|entry| entry.endpoints.iter().map(|placed| placed.endpoint.address).collect())
                    .unwrap_or_default();
                prop_assert_eq!(actual, expected, "service {}", service);
            }
        }
    }
}
