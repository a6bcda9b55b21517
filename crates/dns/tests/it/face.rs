//! The face as a whole: it follows the catalog, acknowledges, counts, and says
//! how an answer came about.

use std::{net::SocketAddr, sync::Arc};

use domain::base::{Rtype, iana::OptRcode};
use portolan_catalog::{Catalog, Hub, Update};
use portolan_dns::{
    Absence, Answer, Class, Failure, Names, PodNames, Question, Settings, Zone, answer, trace,
};
use portolan_model::{ClientView, Face, FactKey, ServiceKey, Transport, Version};
use portolan_testkit::{Live, World, cluster_ip, endpoint, external_name, headless, port};
use proptest::prelude::*;

use crate::client::{Ask, PATIENCE, SILENCE, Server, message, udp};

fn web() -> World {
    World::new().namespace("demo").service(cluster_ip(
        "demo",
        "web",
        &["10.0.0.1".parse().unwrap()],
        vec![port("http", Transport::Tcp, 80)],
    ))
}

fn names(world: &World, settings: Settings) -> Names {
    Names::new(Arc::new(settings), world.snapshot())
}

fn ask(names: &Names, name: &str, kind: Rtype) -> Answer {
    let question = Question {
        name: domain::base::Name::bytes_from_str(name).unwrap(),
        kind,
        class: Class::IN,
    };
    answer(names, &ClientView::default(), &question)
}

/// An answer in one line.
fn short(answer: &Answer) -> String {
    match answer {
        Answer::Records { answer, .. } => {
            let data: Vec<String> = answer.iter().map(|record| record.data().to_string()).collect();
            data.join(" ")
        }
        Answer::NoData { .. } => "NODATA".to_owned(),
        Answer::NxDomain { .. } => "NXDOMAIN".to_owned(),
        Answer::ServFail { .. } => "SERVFAIL".to_owned(),
        Answer::Refused(_) => "REFUSED".to_owned(),
    }
}

#[tokio::test]
async fn a_change_is_served_then_acknowledged() {
    let mut live = Live::new(&web());
    let server = Server::start(live.hub().clone(), Settings::default()).await;
    let board = |live: &Live| live.hub().board().members();
    assert_eq!(
        board(&live).iter().map(|member| member.id.to_string()).collect::<Vec<_>>(),
        ["dns/tcp", "dns/udp-0", "dns/udp-1"]
    );
    let later = Ask::new("late.demo.svc.cluster.local", Rtype::A).packet();
    let rcode = |reply: Option<Vec<u8>>| message(reply.unwrap()).opt_rcode();
    assert_eq!(rcode(udp(server.address(), &later, PATIENCE).await), OptRcode::NXDOMAIN);

    let world = web().service(cluster_ip("demo", "late", &["10.0.0.2".parse().unwrap()], vec![]));
    let version = live.set(&world).version();
    let mut changed = live.hub().board().watch();
    let reached = tokio::time::timeout(PATIENCE, async {
        while !live.hub().board().convergence(version, &[Face::Dns]).is_reached() {
            changed.changed().await.unwrap();
        }
        live.hub().board().convergence(version, &[Face::Dns])
    })
    .await
    .expect("no acknowledgement");
    assert_eq!(reached.residue_ms(), 5000);
    // Once acknowledged there is no worker left that answers from the old version.
    for _ in 0..20 {
        assert_eq!(rcode(udp(server.address(), &later, PATIENCE).await), OptRcode::NOERROR);
    }
    server.stop().await;
    assert!(board(&live).is_empty(), "members stay after the end: {:?}", board(&live));
}

#[test]
fn a_server_ends_with_its_runtime() {
    let (ended, end) = std::sync::mpsc::channel();
    // A test that fails does the same: it panics while its server runs, and its runtime
    // waits for the server's threads.
    let failing = std::thread::spawn(move || {
        struct Told(std::sync::mpsc::Sender<()>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.send(()).ok();
            }
        }
        let _told = Told(ended);
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(
            async {
                let live = Live::new(&web());
                let server = Server::start(live.hub().clone(), Settings::default()).await;
                let query = Ask::new("web.demo.svc.cluster.local", Rtype::A).packet();
                udp(server.address(), &query, PATIENCE).await.unwrap();
                // Without the words of a panic in the log of a test that passes.
                std::panic::resume_unwind(Box::new("as a failing test"));
            },
        );
    });
    end.recv_timeout(PATIENCE).expect("the server's threads hold its runtime");
    assert!(failing.join().is_err(), "it did not panic");
}

#[tokio::test]
async fn nothing_is_denied_before_the_sources_have_told_all() {
    let hub = Hub::new(Version::first(0));
    let mut catalog = Catalog::new(hub.clone());
    let mut reports = web().reports();
    let complete = reports.pop();
    catalog.apply(reports, 1);
    let server = Server::start(hub, Settings::default()).await;
    let address = server.address();
    let ask = async |name: &str, kind: Rtype| {
        udp(address, &Ask::new(name, kind).packet(), PATIENCE).await
    };
    for (name, kind) in [
        ("no.demo.svc.cluster.local", "A"),
        ("web.demo.svc.cluster.local", "A"),
        ("1.2.0.192.in-addr.arpa", "PTR"),
    ] {
        let reply = message(ask(name, kind.parse().unwrap()).await.unwrap());
        assert_eq!(reply.opt_rcode(), OptRcode::SERVFAIL, "{name}");
    }
    assert_eq!(server.readiness.blockers().len(), 1);

    catalog.apply(complete, 2);
    tokio::time::timeout(PATIENCE, server.readiness.wait()).await.expect("never ready");
    let reply = message(ask("web.demo.svc.cluster.local", Rtype::A).await.unwrap());
    assert_eq!(reply.opt_rcode(), OptRcode::NOERROR);
    server.stop().await;
}

#[tokio::test]
async fn queries_are_counted_under_both_names() {
    let server = Server::start(Live::new(&web()).hub().clone(), Settings::default()).await;
    let mut response = Ask::new("web.demo.svc.cluster.local", Rtype::A).packet();
    response[2] |= 0x80;
    for name in ["web.demo.svc.cluster.local", "no.demo.svc.cluster.local", "example.org"] {
        udp(server.address(), &Ask::new(name, Rtype::A).packet(), PATIENCE).await.unwrap();
    }
    assert_eq!(udp(server.address(), &response, SILENCE).await, None);
    let text = server.metrics.encode().unwrap();
    for line in [
        r#"portolan_dns_requests_total{proto="udp",family="1",type="A"} 3"#,
        r#"portolan_dns_responses_total{rcode="NXDOMAIN"} 1"#,
        r#"portolan_dns_dropped_total{reason="no_query"} 1"#,
        r#"coredns_dns_requests_total{server="dns://:53",zone="cluster.local.",view="",proto="udp",family="1",type="A"} 2"#,
        r#"coredns_dns_responses_total{server="dns://:53",zone=".",view="",rcode="REFUSED",plugin=""} 1"#,
        r#"coredns_dns_request_duration_seconds_count{server="dns://:53",zone="cluster.local.",view="",type="A"} 2"#,
        r#"coredns_dns_request_size_bytes_count{server="dns://:53",zone="cluster.local.",view="",proto="udp"} 2"#,
        r#"coredns_dns_request_size_bytes_sum{server="dns://:53",zone="cluster.local.",view="",proto="udp"} 87.0"#,
        r#"coredns_dns_request_size_bytes_bucket{le="100.0",server="dns://:53",zone=".",view="",proto="udp"} 1"#,
        r#"coredns_dns_response_size_bytes_count{server="dns://:53",zone="cluster.local.",view="",proto="udp"} 2"#,
        r#"coredns_dns_response_size_bytes_bucket{le="0.0",server="dns://:53",zone="cluster.local.",view="",proto="udp"} 0"#,
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
    server.stop().await;
}

/// Each name with its answers to A, SRV and TXT.
#[test]
fn names_of_other_origins() {
    let at =
        |last: u8| vec![endpoint([10, 1, 0, last].into(), &[("dubbo", Transport::Tcp, 20880)])];
    let world = web()
        .registered("registry", "demo", "com.example.Greeter", at(1))
        .registered("registry", "demo", "plain", at(2))
        .registered("registry", "demo", "Twin", at(3))
        .registered("registry", "demo", "twin", at(4))
        .registered("consul", "dc1", "search", at(5));
    let names = names(&world, Settings::default());
    let greeter = "com.example.Greeter.demo.registry.cluster.local";
    for (name, a, srv) in [
        (greeter.to_owned(), "10.1.0.1", format!("0 100 20880 10-1-0-1.{greeter}")),
        (format!("_dubbo._tcp.{greeter}"), "10.1.0.1", format!("0 100 20880 10-1-0-1.{greeter}")),
        (format!("10-1-0-1.{greeter}"), "10.1.0.1", format!("0 100 20880 10-1-0-1.{greeter}")),
        (format!("_tcp.{greeter}"), "NODATA", "NODATA".into()),
        (format!("_udp.{greeter}"), "NXDOMAIN", "NXDOMAIN".into()),
        (format!("x.{greeter}"), "NXDOMAIN", "NXDOMAIN".into()),
        ("example.greeter.demo.registry.cluster.local".into(), "NODATA", "NODATA".into()),
        ("other.greeter.demo.registry.cluster.local".into(), "NXDOMAIN", "NXDOMAIN".into()),
        ("demo.registry.cluster.local".into(), "NODATA", "NODATA".into()),
        ("registry.cluster.local".into(), "NODATA", "NODATA".into()),
        ("other.registry.cluster.local".into(), "NXDOMAIN", "NXDOMAIN".into()),
        ("plain.demo.consul.cluster.local".into(), "NXDOMAIN", "NXDOMAIN".into()),
        (
            "search.dc1.consul.cluster.local".into(),
            "10.1.0.5",
            "0 100 20880 10-1-0-5.search.dc1.consul.cluster.local".into(),
        ),
        // Origins are never merged.
        ("plain.demo.svc.cluster.local".into(), "NXDOMAIN", "NXDOMAIN".into()),
        ("web.demo.registry.cluster.local".into(), "NXDOMAIN", "NXDOMAIN".into()),
        ("web.demo.kubernetes.cluster.local".into(), "NXDOMAIN", "NXDOMAIN".into()),
        // Nobody can tell which one is meant.
        ("twin.demo.registry.cluster.local".into(), "SERVFAIL", "SERVFAIL".into()),
        ("Twin.demo.registry.cluster.local".into(), "SERVFAIL", "SERVFAIL".into()),
    ] {
        assert_eq!(short(&ask(&names, &name, Rtype::A)), a, "{name} A");
        assert_eq!(short(&ask(&names, &name, Rtype::SRV)), srv, "{name} SRV");
        let exists = !matches!(a, "NXDOMAIN" | "SERVFAIL");
        let other = short(&ask(&names, &name, Rtype::TXT));
        assert_eq!(other, if exists { "NODATA" } else { a }, "{name} TXT");
    }
    let twin = ask(&names, "twin.demo.registry.cluster.local", Rtype::A);
    let Answer::ServFail { failure: Failure::NamesFold(keys), .. } = twin else {
        panic!("{twin:?}")
    };
    assert_eq!(keys.len(), 2);
}

#[test]
fn aliases_are_followed_to_their_end() {
    let chain = |from: usize, to: usize| {
        external_name("demo", &format!("a{from}"), &format!("a{to}.demo.svc.cluster.local"))
    };
    let mut world = web()
        .service(external_name("demo", "out", "www.example.org"))
        .service(external_name("demo", "in", "WEB.demo.svc.cluster.local."))
        .service(external_name("demo", "dead", "no.demo.svc.cluster.local"))
        .service(external_name("demo", "self", "self.demo.svc.cluster.local"))
        .service(external_name("demo", "ping", "pong.demo.svc.cluster.local"))
        .service(external_name("demo", "pong", "ping.demo.svc.cluster.local"))
        .service(external_name("demo", "ip", "192.0.2.1"))
        .service(external_name("demo", "bad", "a..b"))
        .service(external_name("demo", "b9", "web.demo.svc.cluster.local"));
    for step in 0..20 {
        world = world.service(chain(step, step + 1));
    }
    let names = names(&world, Settings::default());
    for (label, kind, expected) in [
        ("out", Rtype::A, "www.example.org."),
        ("out", Rtype::TXT, "www.example.org."),
        ("in", Rtype::A, "WEB.demo.svc.cluster.local. 10.0.0.1"),
        ("in", Rtype::CNAME, "WEB.demo.svc.cluster.local."),
        ("in", Rtype::AAAA, "NODATA"),
        ("dead", Rtype::A, "NXDOMAIN"),
        ("self", Rtype::A, "SERVFAIL"),
        ("ping", Rtype::A, "SERVFAIL"),
        ("ping", Rtype::CNAME, "pong.demo.svc.cluster.local."),
        ("ip", Rtype::A, "NXDOMAIN"),
        ("bad", Rtype::A, "NXDOMAIN"),
        ("a0", Rtype::A, "SERVFAIL"),
        ("x.out", Rtype::A, "NXDOMAIN"),
    ] {
        let name = format!("{label}.demo.svc.cluster.local");
        assert_eq!(short(&ask(&names, &name, kind)), expected, "{label} {kind}");
    }
    let out = ask(&names, "out.demo.svc.cluster.local", Rtype::A);
    let Answer::Records { elsewhere: Some(name), .. } = out else { panic!("{out:?}") };
    assert_eq!(name.to_string(), "www.example.org");
}

#[test]
fn reverse_names() {
    let db = ServiceKey::kubernetes("demo", "db");
    let world = web()
        .service(headless("demo", "db", vec![]))
        .endpoints("db-1", &db, vec![endpoint("10.7.0.9".parse().unwrap(), &[])])
        .endpoints(
            "old-1",
            &ServiceKey::kubernetes("demo", "deleted"),
            vec![endpoint("10.7.0.10".parse().unwrap(), &[])],
        );
    let settings = Settings::default().with_range("10.0.0.0".parse().unwrap(), 16);
    let names = names(&world, settings);
    for (name, kind, expected) in [
        // In a range that is ours alone.
        ("1.0.0.10.in-addr.arpa", Rtype::PTR, "web.demo.svc.cluster.local."),
        ("1.0.0.10.in-addr.arpa", Rtype::A, "NODATA"),
        ("2.0.0.10.in-addr.arpa", Rtype::PTR, "NXDOMAIN"),
        ("0.0.10.in-addr.arpa", Rtype::PTR, "NODATA"),
        ("1.0.10.in-addr.arpa", Rtype::PTR, "NXDOMAIN"),
        ("0.10.in-addr.arpa", Rtype::A, "NODATA"),
        ("x.1.0.0.10.in-addr.arpa", Rtype::PTR, "NXDOMAIN"),
        // Elsewhere only what we know is ours.
        ("9.0.7.10.in-addr.arpa", Rtype::PTR, "10-7-0-9.db.demo.svc.cluster.local."),
        ("9.0.7.10.in-addr.arpa", Rtype::TXT, "NODATA"),
        ("8.0.7.10.in-addr.arpa", Rtype::PTR, "REFUSED"),
        ("7.10.in-addr.arpa", Rtype::NS, "REFUSED"),
        // Slices that outlive their Service make no name.
        ("10.0.7.10.in-addr.arpa", Rtype::PTR, "REFUSED"),
    ] {
        assert_eq!(short(&ask(&names, name, kind)), expected, "{name} {kind}");
    }
}

#[test]
fn the_server_names_itself_by_its_service_when_address_and_port_agree() {
    let dns = ServiceKey::kubernetes("kube-system", "kube-dns");
    let other = ServiceKey::kubernetes("demo", "same-address");
    let loopback = "127.0.0.1".parse().unwrap();
    let world = web()
        .service(cluster_ip("kube-system", "kube-dns", &["10.0.0.10".parse().unwrap()], vec![]))
        .endpoints("dns", &dns, vec![endpoint(loopback, &[("dns", Transport::Udp, 1053)])])
        .service(cluster_ip("demo", "same-address", &["10.0.0.11".parse().unwrap()], vec![]))
        .endpoints("other", &other, vec![endpoint(loopback, &[("http", Transport::Tcp, 8080)])]);
    let own = |text: &str| Settings {
        own_addresses: vec![text.parse::<SocketAddr>().unwrap()],
        ..Settings::default()
    };
    for (settings, ns, glue) in [
        (own("127.0.0.1:1053"), "kube-dns.kube-system.svc.cluster.local.", "10.0.0.10"),
        (own("127.0.0.1:53"), "ns.dns.cluster.local.", "127.0.0.1"),
    ] {
        let names = names(&world, settings);
        assert_eq!(short(&ask(&names, "cluster.local", Rtype::NS)), ns);
        assert_eq!(short(&ask(&names, "ns.dns.cluster.local", Rtype::A)), glue);
    }
}

#[test]
fn traces_say_why() {
    let db = ServiceKey::kubernetes("demo", "db");
    let mut starting = endpoint("10.7.0.9".parse().unwrap(), &[]);
    starting.conditions = portolan_model::Conditions::NOT_READY;
    let world = web()
        .service(headless("demo", "db", vec![]))
        .endpoints("db-1", &db, vec![starting])
        .service(external_name("demo", "away", "web.demo.svc.cluster.local"));
    let names = names(&world, Settings::default());
    for (name, stages, why) in [
        ("web.demo.svc.cluster.local", &["zone", "name", "answer"][..], "1 records"),
        (
            "db.demo.svc.cluster.local",
            &["zone", "name", "answer"],
            "NXDOMAIN: none of the 1 endpoints of service demo/db is served",
        ),
        ("away.demo.svc.cluster.local", &["zone", "name", "alias", "name", "answer"], "2 records"),
        (
            "example.org.demo.svc.cluster.local",
            &["zone", "name", "answer"],
            "NXDOMAIN: the namespace has no service \"org\"",
        ),
        (
            "example.org",
            &["zone", "answer"],
            "REFUSED: not our name, and other servers are not asked",
        ),
    ] {
        let question = Question { name: name.parse().unwrap(), kind: Rtype::A, class: Class::IN };
        let steps = trace(&names, &question, &ClientView::default());
        let found: Vec<&str> = steps.iter().map(|step| step.stage).collect();
        assert_eq!(found, stages, "{name}: {steps:?}");
        assert_eq!(steps.last().unwrap().text, why, "{name}");
    }
    let missing = ask(&names, "db.demo.svc.cluster.local", Rtype::A);
    assert!(matches!(missing, Answer::NxDomain { why: Absence::NoReadyEndpoint(_, 1), .. }));
}

/// A small world drawn at random: services of both origins over few names and
/// addresses, so that they meet often.
fn worlds() -> impl Strategy<Value = World> {
    let service = (0..4_u8, 0..3_u8, prop::collection::vec(0..6_u8, 0..4));
    prop::collection::vec(service, 0..6).prop_map(|services| {
        services.into_iter().fold(World::new().namespace("ns"), |world, (name, shape, pods)| {
            let pods = || {
                pods.iter()
                    .map(|last| endpoint([10, 0, 1, *last].into(), &[("p", Transport::Tcp, 1)]))
                    .collect()
            };
            let text = ["a", "A", "b.a", "B.a"][usize::from(name)];
            let lower = ["a", "b", "c", "d"][usize::from(name)];
            let key = ServiceKey::kubernetes("ns", lower);
            match shape {
                0 => world.registered("registry", "ns", text, pods()),
                1 => world.service(headless("ns", lower, vec![])).endpoints(lower, &key, pods()),
                _ => world
                    .service(cluster_ip("ns", lower, &[[10, 0, 0, name].into()], vec![]))
                    .endpoints(lower, &key, pods()),
            }
        })
    })
}

fn questions() -> Vec<String> {
    let mut names = Vec::new();
    for service in ["a", "b", "c", "d", "b.a", "10-0-1-1.a", "_p._tcp.a"] {
        names.push(format!("{service}.ns.svc.cluster.local"));
        names.push(format!("{service}.ns.registry.cluster.local"));
    }
    for last in 0..6 {
        names.push(format!("{last}.1.0.10.in-addr.arpa"));
        names.push(format!("{last}.0.0.10.in-addr.arpa"));
    }
    names.extend(["1.0.10.in-addr.arpa", "ns.registry.cluster.local"].map(str::to_owned));
    names
}

proptest! {
    /// Names that followed every diff answer as names read anew.
    #[test]
    fn following_equals_reading_anew(history in prop::collection::vec(worlds(), 1..6)) {
        let settings = Arc::new(Settings::default().with_range([10, 0, 0, 0].into(), 16));
        let mut live = Live::new(&World::new());
        let mut subscriber = live.hub().subscribe();
        let first = subscriber.poll().map(|update| update.snapshot().clone());
        let mut followed = Names::new(settings.clone(), first.unwrap());
        for world in &history {
            let snapshot = live.set(world);
            if let Some(update) = subscriber.poll() {
                prop_assert!(matches!(update, Update::Diff(..)));
                followed = followed.follow(&update);
            }
            let anew = Names::new(settings.clone(), snapshot);
            for name in questions() {
                for kind in [Rtype::A, Rtype::SRV, Rtype::PTR] {
                    prop_assert_eq!(ask(&followed, &name, kind), ask(&anew, &name, kind));
                }
            }
        }
    }

    /// Any name has an answer, whatever its bytes.
    #[test]
    fn any_name_is_answered(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..6), zone in 0..4_usize) {
        let zone = ["svc.cluster.local", "registry.cluster.local", "in-addr.arpa", "pod.cluster.local"][zone];
        let mut wire: Vec<u8> = Vec::new();
        for label in &labels {
            wire.push(u8::try_from(label.len()).unwrap());
            wire.extend(label);
        }
        wire.extend(domain::base::Name::vec_from_str(zone).unwrap().as_slice());
        let name = domain::base::Name::from_octets(bytes::Bytes::from(wire)).unwrap();
        let settings = Settings { pods: PodNames::Verified, zones: ["cluster.local", "arpa"].iter().filter_map(|zone| Zone::new(zone)).collect(), ..Settings::default() };
        let names = names(&web(), settings);
        for kind in [Rtype::A, Rtype::PTR, Rtype::ANY] {
            answer(&names, &ClientView::default(), &Question { name: name.clone(), kind, class: Class::IN });
        }
    }
}

/// A subscriber that lost its place reads anew and never steps back in serial.
#[test]
fn a_reset_is_followed_too() {
    let world = web();
    let names = names(&World::new(), Settings::default());
    let next = names.follow(&Update::Reset(world.snapshot()));
    assert_eq!(short(&ask(&next, "web.demo.svc.cluster.local", Rtype::A)), "10.0.0.1");
    let gone = world.without(&FactKey::Service(ServiceKey::kubernetes("demo", "web")));
    let last = next.follow(&Update::Reset(gone.snapshot()));
    assert_eq!(short(&ask(&last, "web.demo.svc.cluster.local", Rtype::A)), "NXDOMAIN");
}

#[test]
fn endpoints_of_one_zone_have_names() {
    let db = ServiceKey::kubernetes("demo", "db");
    let zoned = |last: u8, zone: &str| {
        let mut endpoint = endpoint([10, 1, 0, last].into(), &[("sql", Transport::Tcp, 5432)]);
        endpoint.zone = Some(zone.into());
        endpoint
    };
    let world = web().service(headless("demo", "db", vec![])).endpoints(
        "db-1",
        &db,
        vec![zoned(1, "z-a"), zoned(2, "z-b")],
    );
    for (zonal, below, expected) in [
        (true, "z-a.pin._zone.db", "10.1.0.1"),
        (true, "Z-B.Prefer._Zone.db", "10.1.0.2"),
        (true, "z-c.pin._zone.db", "NODATA"),
        (true, "z-c.prefer._zone.db", "10.1.0.1 10.1.0.2"),
        // Names stand below these.
        (true, "pin._zone.db", "NODATA"),
        (true, "_zone.db", "NODATA"),
        (true, "near._zone.db", "NXDOMAIN"),
        (true, "x.z-a.pin._zone.db", "NXDOMAIN"),
        (true, "z-a.near._zone.db", "NXDOMAIN"),
        (true, "z-a.pin._zone.web", "NXDOMAIN"),
        (true, "_zone.web", "NXDOMAIN"),
        (true, "_sql._tcp.db", "10.1.0.1 10.1.0.2"),
        (false, "z-a.pin._zone.db", "NXDOMAIN"),
        (false, "_zone.db", "NXDOMAIN"),
    ] {
        let names = names(&world, Settings { zonal, ..Settings::default() });
        let name = format!("{below}.demo.svc.cluster.local");
        assert_eq!(short(&ask(&names, &name, Rtype::A)), expected, "{below}");
    }
}

/// Where the Service asks for it, a client gets the endpoints of its zone; it is
/// known by its Pod, over a real socket.
#[tokio::test]
async fn clients_get_what_is_near() {
    use portolan_model::{Fact, Node, ObjectName, Service, TrafficDistribution, name};
    let zoned = |last: u8, zone: &str| {
        let mut endpoint = endpoint([10, 1, 0, last].into(), &[]);
        endpoint.zone = Some(zone.into());
        endpoint
    };
    let near = |distribution| {
        let db = ServiceKey::kubernetes("demo", "db");
        let service = Service { distribution, ..headless("demo", "db", vec![]) };
        let node = Node { name: name("n1"), zone: Some(name("a")), addresses: vec![], ready: true };
        let pod = World::new().pod("demo", "me", [127, 0, 0, 1].into()).snapshot();
        let mut pod = pod.workloads().next().unwrap().as_ref().clone();
        pod.node = Some(name("n1"));
        web()
            .service(service)
            .endpoints("db-1", &db, vec![zoned(1, "a"), zoned(2, "b")])
            .fact(FactKey::Node(name("n1")), Fact::Node(node))
            .fact(FactKey::Workload(ObjectName::new("demo", "me")), Fact::Workload(pod.into()))
    };
    let mut live = Live::new(&near(TrafficDistribution::Any));
    let server = Server::start(live.hub().clone(), Settings::default()).await;
    let packet = Ask::new("db.demo.svc.cluster.local.", Rtype::A).packet();
    for (distribution, expected) in [
        (TrafficDistribution::Any, 2),
        (TrafficDistribution::SameZone, 1),
        (TrafficDistribution::Any, 2),
    ] {
        live.set(&near(distribution));
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let reply = message(udp(server.address(), &packet, PATIENCE).await.unwrap());
            if reply.header_counts().ancount() == expected {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{distribution:?}");
        }
    }
    server.stop().await;
}

#[test]
fn labels_choose_what_has_names() {
    use portolan_model::{Fact, Namespace, Selector, Service, name};
    let labels = |pairs: &[(&str, &str)]| {
        Arc::new(pairs.iter().map(|(key, value)| (name(key), name(value))).collect())
    };
    let service = |text: &str, last: u8, pairs: &[(&str, &str)]| Service {
        labels: labels(pairs),
        ..cluster_ip("demo", text, &[[10, 0, 0, last].into()], vec![])
    };
    let namespace = Namespace { name: name("demo"), labels: labels(&[("env", "prod")]) };
    let world = World::new()
        .fact(FactKey::Namespace(name("demo")), Fact::Namespace(namespace))
        .namespace("plain")
        .service(service("shown", 1, &[("dns", "yes")]))
        .service(service("hidden", 2, &[]))
        .service(cluster_ip("plain", "other", &[[10, 0, 0, 3].into()], vec![]));
    let selector = |text: &str| Some(Selector::parse(text).unwrap());
    let zones = ["cluster.local", "in-addr.arpa"].iter().filter_map(|zone| Zone::new(zone));
    let settings = |namespace_labels, labels| Settings {
        namespace_labels,
        labels,
        zones: zones.clone().collect(),
        ..Settings::default()
    };
    let all = settings(None, None);
    let by_namespace = settings(selector("env in (prod,dev)"), None);
    let by_label = settings(None, selector("dns=yes"));
    for (settings, expected) in [
        (all, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "hidden.demo.svc.cluster.local.", "NODATA"]),
        (
            by_namespace,
            ["10.0.0.1", "10.0.0.2", "NXDOMAIN", "hidden.demo.svc.cluster.local.", "NXDOMAIN"],
        ),
        (by_label, ["10.0.0.1", "NXDOMAIN", "NXDOMAIN", "NXDOMAIN", "NODATA"]),
    ] {
        let names = names(&world, settings);
        let found = [
            ("shown.demo.svc.cluster.local", Rtype::A),
            ("hidden.demo.svc.cluster.local", Rtype::A),
            ("other.plain.svc.cluster.local", Rtype::A),
            ("2.0.0.10.in-addr.arpa", Rtype::PTR),
            ("plain.svc.cluster.local", Rtype::A),
        ]
        .map(|(name, kind)| short(&ask(&names, name, kind)));
        assert_eq!(found, expected);
    }
}
