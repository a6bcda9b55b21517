//! Answers about one small world, asked from outside.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside test functions")]

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use portolan_catalog::{Ack, Hub};
use portolan_model::{
    Code, Conditions, Endpoint, Event, Face, FaceId, Fact, FactKey, Node, ObjectName, Origin,
    Problem, Reason, Rejection, Service, ServiceKey, SourceId, SourceReport, TrafficPolicy,
    Transport, Version, Workload, name,
};
use portolan_testkit::{Live, World, cluster_ip, endpoint, external_name, headless, port};
use portolan_view::{self as view, Aspect, Filter, Selector, Target, Wanted};
use portolan_wire::{StepState, Why};

const DOMAIN: &str = "cluster.local";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn map(pairs: &[(&str, &str)]) -> Arc<BTreeMap<portolan_model::Name, portolan_model::Name>> {
    Arc::new(pairs.iter().map(|(key, value)| (name(key), name(value))).collect())
}

/// A Pod on a node, and what it says when it is not ready.
fn pod(
    namespace: &str,
    pod: &str,
    address: Option<&str>,
    node: &str,
    not_ready: Option<(&str, &str)>,
) -> (FactKey, Fact) {
    let object = ObjectName::new(namespace, pod);
    let app = pod.split('-').next().unwrap_or(pod);
    let workload = Workload {
        name: object.clone(),
        uid: name(pod),
        addresses: address.map(ip).into_iter().collect(),
        node: Some(name(node)),
        service_account: None,
        phase: name("Running"),
        ready: not_ready.is_none(),
        terminating: false,
        not_ready: not_ready.map(|(reason, text)| Arc::new((name(reason), name(text)))),
        hollow: false,
        labels: map(&[("app", app)]),
    };
    (FactKey::Workload(object), Fact::Workload(workload.into()))
}

fn of_pod(namespace: &str, pod: &str, address: &str, node: &str) -> Endpoint {
    Endpoint {
        target: Some(ObjectName::new(namespace, pod)),
        node: Some(name(node)),
        ..endpoint(ip(address), &[("http", Transport::Tcp, 8080)])
    }
}

fn refused(object: &str, code: Code, detail: &str) -> (FactKey, Fact) {
    let object = ObjectName::new("demo", object);
    let rejection = Rejection {
        kind: name("Pod"),
        object: object.clone(),
        reasons: vec![Reason::new(code, detail)],
    };
    (FactKey::Rejection(name("Pod"), object), Fact::Rejection(rejection))
}

/// Namespace demo: `web` with one Pod that is served, one that listens elsewhere
/// and one that waits; `near` keeps traffic on node b; and all kinds of trouble.
fn world() -> World {
    let http = || vec![port("http", Transport::Tcp, 80)];
    let mut web = cluster_ip("demo", "web", &[ip("127.96.0.1")], http());
    web.selector = map(&[("app", "web")]);
    web.labels = map(&[("tier", "front")]);
    web.ports[0].node_port = Some(30080);
    let mut near = cluster_ip("demo", "near", &[ip("127.96.0.2")], http());
    near.internal_policy = TrafficPolicy::Local;
    let mut empty = cluster_ip("demo", "empty", &[ip("127.96.0.3")], http());
    empty.selector = map(&[("app", "nobody")]);
    let unready = |endpoint: Endpoint| Endpoint { conditions: Conditions::NOT_READY, ..endpoint };
    let node = |text: &str, address: &str| {
        let node = Node {
            name: name(text),
            zone: Some(name("z")),
            addresses: vec![ip(address)],
            ready: true,
        };
        (FactKey::Node(name(text)), Fact::Node(node))
    };
    let elsewhere = Some(("ContainersNotReady", "PTL0201: on 127.0.0.1; fix: listen on POD_IP"));
    let facts = [
        node("a", "10.0.0.1"),
        node("b", "10.0.0.2"),
        pod("demo", "web-1", Some("127.10.0.1"), "a", None),
        pod("demo", "web-2", Some("127.10.0.2"), "a", elsewhere),
        pod("demo", "web-3", None, "a", Some(("Waiting", "ContainerCreating"))),
        pod("demo", "near-1", Some("127.10.0.4"), "b", None),
        pod("demo", "lonely", Some("127.10.0.9"), "a", None),
        pod("demo", "plain", Some("127.10.0.10"), "a", None),
        refused("plain", Code::ANNOTATION_UNREADABLE, "Invalid byte 32."),
    ];
    let world = World::new()
        .namespace("demo")
        .service(web)
        .service(near)
        .service(empty)
        .service(external_name("demo", "alias", "example.com"))
        .service(headless("demo", "many", http()))
        .service(headless("other", "only-here", http()))
        .service(headless("other", "web", http()))
        .endpoints(
            "web-x",
            &ServiceKey::kubernetes("demo", "web"),
            vec![
                of_pod("demo", "web-1", "127.10.0.1", "a"),
                unready(of_pod("demo", "web-2", "127.10.0.2", "a")),
            ],
        )
        .endpoints(
            "near-x",
            &ServiceKey::kubernetes("demo", "near"),
            vec![of_pod("demo", "near-1", "127.10.0.4", "b")],
        )
        .endpoints(
            "only-x",
            &ServiceKey::kubernetes("other", "only-here"),
            vec![endpoint(ip("127.10.0.20"), &[("http", Transport::Tcp, 8080)])],
        )
        .endpoints(
            "orphan-x",
            &ServiceKey::kubernetes("demo", "orphan"),
            vec![endpoint(ip("127.10.0.21"), &[("http", Transport::Tcp, 8080)])],
        )
        .registered(
            "registry",
            "demo",
            "com.acme.Reviews",
            vec![endpoint(ip("127.10.0.30"), &[("http", Transport::Tcp, 9080)])],
        )
        .registered("registry", "demo", "Twin", vec![endpoint(ip("127.10.0.31"), &[])])
        .registered("registry", "demo", "twin", vec![endpoint(ip("127.10.0.32"), &[])]);
    facts.into_iter().fold(world, |world, (key, fact)| world.fact(key, fact))
}

/// A hub with two members that serve all of it.
fn live() -> Live {
    let live = Live::new(&world());
    for face in [Face::Dns, Face::Proxy] {
        acknowledge(live.hub(), face, live.hub().snapshot().version());
    }
    live
}

fn acknowledge(hub: &Hub, face: Face, version: Version) {
    let residue_ms = if face == Face::Dns { 5000 } else { 0 };
    let id = FaceId { face, member: name("one") };
    hub.board().acknowledge(&id, Ack { version, at_ms: 1, residue_ms });
}

fn ask(hub: &Hub, text: &str, aspect: &Aspect<'_>) -> Why {
    let snapshot = hub.snapshot();
    let target = Target::find(text, None, DOMAIN, &snapshot).unwrap();
    view::why(&snapshot, hub.board(), &target, aspect, snapshot.at_ms() + 10)
}

/// Every code of an answer: of the rungs that stopped something, then of the rest.
fn codes(why: &Why) -> Vec<String> {
    let steps = why.ladders.iter().flat_map(|ladder| &ladder.steps);
    let stopped = steps.filter(|step| step.state == StepState::Stopped);
    let stops = stopped.filter_map(|step| Some(step.reason.as_ref()?.code.clone()));
    let mut codes: Vec<String> =
        stops.chain(why.reasons.iter().map(|reason| reason.code.clone())).collect();
    codes.sort();
    codes
}

#[test]
fn why_for_every_kind_of_target() {
    let live = live();
    // Target; ladders; codes; words of the summary, of a reason, or of a ladder.
    let cases: &[(&str, usize, &[&str], &str)] = &[
        ("svc/demo/web", 3, &["PTL0103", "PTL0201"], "1 of 3 served"),
        ("demo/web", 3, &["PTL0103", "PTL0201"], "ContainerCreating"),
        ("web.demo.svc.cluster.local", 3, &["PTL0103", "PTL0201"], "service demo/web"),
        ("web.demo.svc", 3, &["PTL0103", "PTL0201"], "service demo/web"),
        ("web.demo", 3, &["PTL0103", "PTL0201"], "service demo/web"),
        ("127.96.0.1", 3, &["PTL0103", "PTL0201"], "address 127.96.0.1"),
        ("127.96.0.1:80", 3, &["PTL0103", "PTL0201"], "address 127.96.0.1:80"),
        ("127.96.0.1:81", 3, &["PTL0103", "PTL0110", "PTL0201"], "offers 80, not 81"),
        ("10.0.0.2:30080", 3, &["PTL0103", "PTL0201"], "web-1 of demo/web"),
        ("127.0.0.1:30080", 3, &["PTL0103", "PTL0201"], "web-1 of demo/web"),
        ("pod/demo/web-1", 1, &[], "all 1 served"),
        ("pod/web-1", 1, &[], "all 1 served"),
        ("web-1", 1, &[], "all 1 served"),
        ("pod/web-2", 1, &["PTL0201"], "on 127.0.0.1"),
        ("pod/web-3", 1, &["PTL0103"], "ContainerCreating"),
        ("127.10.0.1:8080", 1, &[], "all 1 served"),
        ("127.10.0.1:9999", 1, &["PTL0110"], "offers 8080, not 9999"),
        ("127-10-0-1.demo.pod.cluster.local", 1, &[], "all 1 served"),
        ("1.0.10.127.in-addr.arpa", 1, &[], "all 1 served"),
        ("pod/lonely", 1, &["PTL0101"], "labels app=lonely"),
        ("127.10.0.9", 1, &["PTL0101"], "pod demo/lonely"),
        ("127.10.0.9:80", 1, &["PTL0101", "PTL0110"], "offers none"),
        ("pod/plain", 1, &["PTL0001", "PTL0001"], "Invalid byte 32."),
        ("svc/empty", 0, &["PTL0105"], "Its selector is app=nobody."),
        ("svc/many", 0, &["PTL0105"], "has no selector"),
        ("svc/alias", 0, &[], "needs no endpoints"),
        ("svc/orphan", 1, &["PTL0102", "PTL0102"], "0 of 1 served"),
        ("svc/only-here", 1, &[], "service other/only-here"),
        ("com.acme.Reviews", 1, &[], "all 1 served"),
        ("com.acme.reviews.demo.registry.cluster.local", 1, &[], "com.acme.Reviews"),
        ("svc/Twin", 1, &["PTL0008"], "registry:demo/twin"),
        ("svc/nothing", 0, &[], "no source has told of service default/nothing"),
        // Found elsewhere only: a namespace that is written is not left.
        ("svc/default/web", 0, &[], "no source has told of service default/web"),
        ("default/only-here", 0, &[], "no source has told of default/only-here"),
        ("10.9.9.9", 0, &[], "no source has told of address 10.9.9.9"),
    ];
    for (text, ladders, expected, words) in cases {
        let why = ask(live.hub(), text, &Aspect::default());
        assert_eq!(codes(&why), *expected, "{text}: {why:#?}");
        assert_eq!(why.ladders.len(), *ladders, "{text}: {why:#?}");
        let all = format!("{why:?}");
        assert!(all.contains(words), "{text}: {words:?} in {why:#?}");
        let nothing = why.summary.starts_with("no source");
        assert_eq!(why.fine, expected.is_empty() && !nothing, "{text}");
        // Whatever stops has a reason, and each reason a fix.
        for step in why.ladders.iter().flat_map(|ladder| &ladder.steps) {
            assert!(step.state != StepState::Stopped || step.reason.is_some(), "{text}: {step:?}");
        }
        assert!(why.reasons.iter().all(|reason| !reason.fix.is_empty()), "{text}");
    }
}

#[test]
fn names_that_were_perhaps_meant() {
    let live = live();
    for (text, expected) in [
        ("svc/wb", "svc/demo/web"),
        ("lonley", "pod/demo/lonely"),
        ("svc/only-hree", "svc/other/only-here"),
    ] {
        let why = ask(live.hub(), text, &Aspect::default());
        assert!(why.nearest.iter().any(|name| name == expected), "{text}: {:?}", why.nearest);
    }
    assert!(ask(live.hub(), &"x".repeat(500), &Aspect::default()).nearest.is_empty());
}

#[test]
fn why_on_some_faces() {
    let live = live();
    let problems = [Problem {
        face: Face::Proxy,
        service: ServiceKey::kubernetes("demo", "near"),
        port: 80,
        reason: Reason::plain(Code::PORT_PRIVILEGED),
    }];
    let asked = |faces: &[Face], text: &str| {
        codes(&ask(live.hub(), text, &Aspect { problems: &problems, faces, from: None }))
    };
    assert_eq!(asked(&[], "svc/near"), ["PTL0301"]);
    assert_eq!(asked(&[Face::Proxy], "svc/near"), ["PTL0301"]);
    assert_eq!(asked(&[Face::Proxy], "pod/near-1"), ["PTL0301"], "of the Pod's service");
    assert!(asked(&[Face::Dns], "svc/near").is_empty());
    assert_eq!(asked(&[Face::Xds], "svc/near"), ["PTL0306"], "nobody is at work there");
    // Names that DNS cannot tell apart are the DNS face's trouble only.
    assert!(asked(&[Face::Proxy], "svc/Twin").is_empty());

    // A member that is behind is named, at the last rung.
    let mut live = live;
    let old = live.hub().snapshot().version();
    live.set(&world().service(Service {
        labels: map(&[("new", "label")]),
        ..cluster_ip("demo", "near", &[ip("127.96.0.2")], vec![port("http", Transport::Tcp, 80)])
    }));
    acknowledge(live.hub(), Face::Proxy, live.hub().snapshot().version());
    let why = ask(live.hub(), "svc/near", &Aspect::default());
    let last = why.ladders[0].steps.last().unwrap();
    assert_eq!((last.state, last.stage.as_str()), (StepState::Stopped, "acknowledged"));
    assert_eq!(last.detail, format!("dns/one still serves {old}"));
    let aspect = Aspect { faces: &[Face::Proxy], ..Aspect::default() };
    assert!(ask(live.hub(), "svc/near", &aspect).fine);
}

#[test]
fn why_from_a_pod() {
    let live = live();
    let from = |pod: &str, text: &str| {
        let pod = ObjectName::new("demo", pod);
        ask(live.hub(), text, &Aspect { from: Some(&pod), ..Aspect::default() })
    };
    let far = from("web-1", "svc/near");
    assert_eq!(codes(&far), ["PTL0111"]);
    assert!(format!("{far:?}").contains("demo/web-1 is on a, endpoints are on b."), "{far:?}");
    assert!(format!("{far:?}").contains("goes to others"), "{far:?}");
    let here = from("near-1", "svc/near");
    assert!(here.fine && format!("{here:?}").contains("takes traffic from demo/near-1"));
    // Without a virtual IP no policy is applied.
    assert!(from("web-1", "com.acme.Reviews").fine);
}

#[test]
fn absence_proves_nothing_until_everybody_was_heard() {
    let hub = Hub::new(Version::first(0));
    let mut catalog = portolan_catalog::Catalog::new(hub.clone());
    let part = name("services");
    let say = |event: Event| SourceReport {
        source: SourceId::new("kubernetes"),
        revision: name(""),
        observed_at_ms: 1_000,
        event,
    };
    catalog.expect(SourceId::new("kubernetes"), std::slice::from_ref(&part), 1);
    let summary = |hub: &Hub| ask(hub, "svc/x", &Aspect::default()).summary;
    assert!(summary(&hub).contains("not every source has told"), "{}", summary(&hub));
    let gone = |hub: &Hub| {
        let target = Target::find("svc/x", None, DOMAIN, &hub.snapshot()).unwrap();
        view::convergence(&hub.snapshot(), hub.board(), &target, Wanted::Gone, &[], None, 2).present
    };
    assert!(!gone(&hub), "what was never listed is not gone");
    let listed = [Event::Begin { part: part.clone() }, Event::Complete { part: part.clone() }];
    catalog.apply(listed.map(say), 1_000);
    assert!(summary(&hub).contains("no source has told"), "{}", summary(&hub));
    assert!(gone(&hub));
    catalog.apply([say(Event::Lost { part, error: name("refused") })], 1_000);
    assert!(summary(&hub).contains("when source kubernetes was lost"), "{}", summary(&hub));
}

fn converge(
    hub: &Hub,
    text: &str,
    wanted: Wanted,
    faces: &[Face],
    since: Option<Version>,
) -> portolan_wire::Convergence {
    let snapshot = hub.snapshot();
    let target = Target::find(text, Some("demo"), DOMAIN, &snapshot).unwrap();
    view::convergence(&snapshot, hub.board(), &target, wanted, faces, since, 1)
}

#[test]
fn convergence_by_target_and_face() {
    let live = live();
    let behind = FaceId { face: Face::Xds, member: name("slow") };
    live.hub().board().join(behind.clone());
    // Target, gone?, faces: present, converged.
    let all: &[Face] = &[];
    for (text, wanted, faces, present, converged) in [
        ("svc/web", Wanted::There, all, true, false),
        ("svc/web", Wanted::There, &[Face::Dns, Face::Proxy], true, true),
        ("svc/web", Wanted::There, &[Face::Xds], true, false),
        ("svc/web", Wanted::There, &[Face::Console], true, false),
        ("svc/web", Wanted::Gone, &[Face::Dns], false, false),
        ("svc/nothing", Wanted::There, &[Face::Dns], false, false),
        ("svc/nothing", Wanted::Gone, &[Face::Dns], true, true),
        ("pod/web-1", Wanted::There, &[Face::Dns], true, true),
        ("pod/web-2", Wanted::There, &[Face::Dns], false, false),
        ("pod/web-2", Wanted::Gone, &[Face::Dns], true, true),
        ("127.96.0.1", Wanted::There, &[Face::Dns], true, true),
        ("127.96.0.1:81", Wanted::There, &[Face::Dns], false, false),
        ("127.10.0.1:8080", Wanted::There, &[Face::Dns], true, true),
        ("127.10.0.1:81", Wanted::There, &[Face::Dns], false, false),
        ("com.acme.reviews.demo.registry.cluster.local", Wanted::There, &[Face::Dns], true, true),
        ("web-1", Wanted::There, &[Face::Dns], true, true),
    ] {
        let state = converge(live.hub(), text, wanted, faces, None);
        assert_eq!((state.present, state.converged), (present, converged), "{text} {state:?}");
    }
    let state = converge(live.hub(), "svc/web", Wanted::There, &[], None);
    let silent: Vec<&str> =
        state.members.iter().filter(|one| !one.reached).map(|one| one.id.as_str()).collect();
    assert_eq!(silent, ["xds/slow"]);
    let absent = converge(live.hub(), "svc/web", Wanted::There, &[Face::Console], None);
    assert_eq!(absent.reasons[0].code, "PTL0306");
    // Who holds old answers for how long counts for what is gone, and only there.
    let gone = converge(live.hub(), "svc/nothing", Wanted::Gone, &[Face::Dns], None);
    assert_eq!(gone.residue.ms, 5000);
    assert!(gone.residue.because.contains("TTL"));
    let proxy = converge(live.hub(), "svc/nothing", Wanted::Gone, &[Face::Proxy], None);
    assert_eq!(proxy.residue.ms, 0);
}

/// While somebody waits, the catalog goes on: the goal must stay where it was, as
/// long as the target is as wanted.
#[test]
fn the_goal_of_a_wait_does_not_move() {
    let mut live = live();
    let first = converge(live.hub(), "svc/nothing", Wanted::Gone, &[Face::Dns], None);
    let since: Version = first.version.parse().unwrap();
    // Something else changes; nobody has acknowledged that yet.
    live.set(&world().namespace("more"));
    let anew = converge(live.hub(), "svc/nothing", Wanted::Gone, &[Face::Dns], None);
    assert!(!anew.converged, "asked anew, it is about the newest version");
    let held = converge(live.hub(), "svc/nothing", Wanted::Gone, &[Face::Dns], Some(since));
    assert!(held.converged && held.version == first.version, "{held:?}");
    // It comes up: what was true of its absence counts no more.
    let world = world().service(headless("demo", "nothing", Vec::new()));
    live.set(&world);
    let there = converge(live.hub(), "svc/nothing", Wanted::Gone, &[Face::Dns], Some(since));
    assert!(!there.present && !there.converged);
    // A version of another life holds nobody to anything.
    let foreign = Version { epoch: 9, seq: 1 };
    let state = converge(live.hub(), "svc/web", Wanted::There, &[Face::Dns], Some(foreign));
    assert_ne!(state.version, foreign.to_string());
}

/// An endpoint that terminates is not gone while its service falls back to it.
#[test]
fn what_still_takes_traffic_is_not_gone() {
    let leaving = Conditions { ready: false, serving: true, terminating: true };
    let key = ServiceKey::kubernetes("demo", "web");
    let last = Endpoint { conditions: leaving, ..of_pod("demo", "web-1", "127.10.0.1", "a") };
    let other = of_pod("demo", "web-9", "127.10.0.99", "a");
    let mut live = live();
    live.set(&world().endpoints("web-x", &key, vec![last.clone()]));
    let state = converge(live.hub(), "pod/web-1", Wanted::Gone, &[], None);
    assert!(!state.present, "{state:?}");
    live.set(&world().endpoints("web-x", &key, vec![last, other]));
    let state = converge(live.hub(), "pod/web-1", Wanted::Gone, &[], None);
    assert!(state.present, "{state:?}");
}

#[test]
fn lists_by_filter() {
    let live = live();
    let snapshot = live.hub().snapshot();
    let of = |service: &str| Filter::default().of_service(service);
    let labelled = |text: &str| Filter {
        labels: Selector::parse(text).unwrap(),
        origin: Some("kubernetes".into()),
        namespace: Some("demo".into()),
        name: None,
    };
    let cases: &[(Filter, &[&str])] = &[
        (of("web"), &["kubernetes:demo/web", "kubernetes:other/web"]),
        (of("demo/web"), &["kubernetes:demo/web"]),
        (of("kubernetes:demo/web"), &["kubernetes:demo/web"]),
        (of("registry:demo/web"), &[]),
        (of("registry:com.acme.Reviews"), &["registry:demo/com.acme.Reviews"]),
        (labelled("tier=front"), &["kubernetes:demo/web"]),
        (labelled("tier in (front,back)"), &["kubernetes:demo/web"]),
        (labelled("tier,tier!=front"), &[]),
        (Filter::only(&ServiceKey::registry("demo", "Twin")), &["registry:demo/Twin"]),
    ];
    for (filter, expected) in cases {
        let page = view::services(&snapshot, filter, snapshot.at_ms() + 7);
        let found: Vec<String> = page
            .items
            .iter()
            .map(|one| format!("{}:{}/{}", one.origin, one.namespace, one.name))
            .collect();
        assert_eq!(found, *expected, "{filter:?}");
        assert_eq!((page.version, page.age_ms), (snapshot.version().to_string(), 7));
    }
    let states = |service: &str| -> Vec<String> {
        let page = view::instances(&snapshot, &of(service), 0);
        page.items.into_iter().map(|one| one.state).collect()
    };
    assert_eq!(states("demo/web"), ["serving", "failing"]);
    assert_eq!(states("orphan"), ["failing"]);
    // An endpoint without ports is an instance all the same.
    let twin = view::instances(&snapshot, &of("Twin"), 0).items;
    assert_eq!((twin.len(), twin[0].port), (1, None));
    let pods = view::workloads(&snapshot, Some("demo"), Some("web-2"), 0).items;
    assert_eq!((pods.len(), pods[0].ready, pods[0].node.as_deref()), (1, false, Some("a")));
}

#[test]
fn versions_tell_what_changed() {
    let mut live = live();
    let key = ServiceKey::new(Origin::kubernetes(), "demo", "fresh");
    let world = world().service(Service::bare(key));
    live.set(&world);
    live.set(&world.namespace("more"));
    let page = view::versions(&live.hub().versions(), 0);
    assert_eq!(page.items[0].services, Vec::<String>::new());
    assert_eq!(page.items[0].others, 1, "the namespace, and no source that merely counts");
    assert_eq!(page.items[1].services, ["demo/fresh"]);
    assert_eq!(page.version, live.hub().snapshot().version().to_string());
}

#[test]
fn codes_are_explained_by_number_and_by_name() {
    for text in ["PTL0201", "ptl0201", "ListensElsewhere", "listenselsewhere"] {
        assert_eq!(view::explain(text).map(|one| one.code), Some("PTL0201".into()), "{text}");
    }
    for text in ["PTL9999", "PTL+201", "201", ""] {
        assert_eq!(view::explain(text), None, "{text:?}");
    }
    assert!(view::all_codes().all(|one| !one.fix.is_empty() && !one.text.is_empty()));
}
