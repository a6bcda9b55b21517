//! Compiled answers against those of the general path: byte for byte the same, for
//! any world, any packet, and after any change.

use std::{path::Path, sync::Arc};

use arc_swap::ArcSwap;
use portolan_catalog::{Subscriber, Update};
use portolan_model::{
    Exposure, Fact, FactKey, Namespace, Selector, Service, ServiceKey, TrafficDistribution,
    Transport, name,
};
use portolan_runtime::{Metrics, Shutdown, Tasks};
use portolan_testkit::{Live, World, cluster_ip, endpoint, external_name, headless, port};
use proptest::prelude::*;

use super::*;
use crate::{
    config::{FaceConfig, read_native},
    corefile,
    forward::ForwardMetrics,
    message::tests::{opt, packet},
    metrics::{DnsMetrics, Proto},
    responder::{Met, Responder},
    settings::Settings,
};

/// One service of a generated world.
#[derive(Clone, Debug)]
struct Spec {
    namespace: usize,
    kind: usize,
    ports: usize,
    endpoints: u8,
    v6: bool,
    labelled: bool,
}

const NAMESPACES: [&str; 3] = ["demo", "shop", "svc"];
const SERVICES: [&str; 5] = ["web", "db", "pod", "a-b", "dns"];

fn specs() -> impl Strategy<Value = Vec<(usize, Spec)>> {
    let spec = (0..3_usize, 0..5_usize, 0..3_usize, 0..90_u8, any::<bool>(), any::<bool>())
        .prop_map(|(namespace, kind, ports, endpoints, v6, labelled)| Spec {
            namespace,
            kind,
            ports,
            endpoints,
            v6,
            labelled,
        });
    prop::collection::vec((0..SERVICES.len(), spec), 0..8)
}

fn world(specs: &[(usize, Spec)], labelled: bool) -> World {
    let labels =
        |yes: bool| Arc::new(yes.then(|| (name("dns"), name("yes"))).into_iter().collect());
    let shop = Namespace { name: name("shop"), labels: labels(labelled) };
    let mut world = World::new()
        .namespace("demo")
        .fact(FactKey::Namespace(name("shop")), Fact::Namespace(shop))
        .registered(
            "registry",
            "demo",
            "com.example.Api",
            vec![endpoint([10, 9, 0, 1].into(), &[])],
        );
    for (place, spec) in specs {
        let (namespace, text) = (NAMESPACES[spec.namespace], SERVICES[*place]);
        let key = ServiceKey::kubernetes(namespace, text);
        let all = [port("http", Transport::Tcp, 80), port("", Transport::Udp, 53)];
        let ports = all[..spec.ports].to_vec();
        let mut addresses = vec![[10, 0, spec.namespace as u8, *place as u8].into()];
        if spec.v6 {
            addresses.push("fd00::7".parse().unwrap());
        }
        let base = match spec.kind {
            0 | 1 => cluster_ip(namespace, text, &addresses, ports),
            2 => headless(namespace, text, ports),
            3 => external_name(namespace, text, "web.demo.svc.cluster.local"),
            _ => Service {
                distribution: TrafficDistribution::SameZone,
                ..headless(namespace, text, ports)
            },
        };
        let alias = matches!(base.exposure, Exposure::ExternalName(_));
        world = world.service(Service { labels: labels(spec.labelled), ..base });
        if !alias {
            let list = (0..spec.endpoints).map(|last| {
                let address = match spec.v6 && last % 3 == 0 {
                    true => format!("fd00:1::{last:x}").parse().unwrap(),
                    false => [10, 1, *place as u8, last].into(),
                };
                endpoint(address, &[("http", Transport::Tcp, 8080)])
            });
            world = world.endpoints(&format!("{text}-1"), &key, list.collect());
        }
    }
    world
}

fn settings(choice: u8) -> Settings {
    let selector = || Some(Selector::parse("dns=yes").unwrap());
    let zone = |text: &str| Zone::new(text).unwrap();
    match choice {
        0 | 1 => Settings::default(),
        2 => Settings { labels: selector(), ..Settings::default() },
        3 => Settings { namespace_labels: selector(), ..Settings::default() },
        4 => Settings { empty_services: false, endpoints: false, ..Settings::default() },
        5 => Settings {
            zones: vec![zone("cluster.local"), zone("k8s.example.org")],
            namespaces: Some([name("demo")].into()),
            ..Settings::default()
        },
        _ => Settings {
            zones: vec![zone("cluster.local"), zone("shop.svc.cluster.local")],
            ..Settings::default()
        },
    }
}

fn names_asked() -> impl Strategy<Value = String> {
    let services = prop::sample::select(&SERVICES[..]);
    let namespaces = prop::sample::select(&["demo", "shop", "svc", "other"][..]);
    let zone = prop::sample::select(&["cluster.local", "Cluster.LOCAL", "k8s.example.org"][..]);
    let below = prop::sample::select(
        &["", "_http._tcp.", "_HTTP._tcp.", "http.tcp.", "10-1-0-0.", "_tcp.", "x.y.z.", "www."][..],
    );
    let usual = (below, services, namespaces, zone.clone()).prop_map(
        |(below, service, namespace, zone)| format!("{below}{service}.{namespace}.svc.{zone}"),
    );
    let odd = prop::sample::select(
        &[
            "",
            "svc.",
            "pod.",
            "demo.svc.",
            "dns.",
            "ns.dns.",
            "dns-version.",
            "hostmaster.",
            "com.",
            "example.com.",
            "example.com.demo.svc.",
            "example.com.svc.",
            "registry.",
            "demo.registry.",
            "com.example.api.demo.registry.",
            "10-0-0-1.demo.pod.",
            "x\\.y.demo.svc.",
            "x\\000.svc.",
            "cluster.local.",
            "hostmaster.demo.svc.",
            "ns.demo.svc.",
        ][..],
    );
    let odd = (odd, zone).prop_map(|(odd, zone)| format!("{odd}{zone}"));
    let case = |text: String, bits: u64| {
        let turned = text.chars().enumerate().map(|(place, one)| match bits >> (place % 64) & 1 {
            1 => one.to_ascii_uppercase(),
            _ => one,
        });
        turned.collect::<String>()
    };
    let text = prop_oneof![3 => usual, 1 => odd, 1 => Just("example.org".to_owned())];
    let bits = prop_oneof![2 => Just(0_u64), 1 => any::<u64>()];
    (text, bits).prop_map(move |(text, bits)| case(text, bits))
}

/// A query, some of them bent.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![
        4 => Just(Rtype::A), 2 => Just(Rtype::AAAA), 2 => Just(Rtype::SRV), 1 => Just(Rtype::TXT),
        1 => Just(Rtype::ANY), 1 => Just(Rtype::AXFR), 1 => Just(Rtype::CNAME),
    ];
    let edns = prop_oneof![
        1 => Just(None),
        2 => (any::<u16>(), prop_oneof![9 => Just(0_u8), 1 => any::<u8>()], any::<bool>())
            .prop_map(Some),
    ];
    let bent = prop::option::weighted(0.15, (any::<prop::sample::Index>(), any::<u8>()));
    (names_asked(), kind, edns, any::<[u8; 2]>(), any::<u8>(), bent).prop_map(
        |(name, kind, edns, id, flags, bent)| {
            let mut packet = packet(&name, kind);
            packet[..2].copy_from_slice(&id);
            packet[2] = flags & 0x07;
            packet[3] = flags & 0xf0;
            if let Some((size, version, cookie)) = edns {
                packet[11] = 1;
                let cookie: &[u8] = if cookie { &[0, 10, 0, 2, 7, 7] } else { &[] };
                packet.extend(opt(size, version, cookie));
            }
            if let Some((place, byte)) = bent {
                let place = place.index(packet.len());
                packet[place] = byte;
            }
            packet
        },
    )
}

struct Face {
    live: Live,
    subscriber: Subscriber,
    names: Arc<ArcSwap<Names>>,
    general: Responder,
}

impl Face {
    fn new(settings: Settings, world: &World) -> Self {
        Self::by(crate::chain::Chain::direct(None), settings, world)
    }

    /// A face by a Corefile.
    fn of(corefile: &str, world: &World) -> Self {
        let (metrics, tasks) = (Metrics::new(), Tasks::new(Shutdown::new()));
        let read = corefile::read(corefile, Path::new("Corefile"), &corefile::Disk);
        let face = read.unwrap_or_else(|fault| panic!("{fault}\n{corefile}")).config;
        Self::from_config(&face, world, &metrics, &tasks)
    }

    fn from_config(face: &FaceConfig, world: &World, metrics: &Metrics, tasks: &Tasks) -> Self {
        let metrics = ForwardMetrics::register(metrics);
        let earlier = crate::chain::Chain::default();
        let parts =
            crate::chain::Parts { metrics: &metrics, tasks, earlier: &earlier, stand_in: None };
        let built = crate::chain::build(Some(face), &Settings::default(), &parts).unwrap();
        Self::by(built.chain, built.settings, world)
    }

    fn by(chain: crate::chain::Chain, settings: Settings, world: &World) -> Self {
        let live = Live::new(world);
        let mut subscriber = live.hub().subscribe();
        subscriber.poll();
        let names = Names::new(Arc::new(settings), live.hub().snapshot());
        let names = Arc::new(ArcSwap::from_pointee(names));
        let metrics = Arc::new(DnsMetrics::register(&Metrics::new()));
        let general = {
            let chain = Arc::new(ArcSwap::from_pointee(chain));
            Responder::new(names.clone(), metrics, chain)
        };
        Self { live, subscriber, names, general }
    }

    fn set(&mut self, world: &World) {
        self.live.set(world);
        if let Some(update) = self.subscriber.poll() {
            assert!(matches!(update, Update::Diff(..)));
            let next = self.names.load().follow(&update);
            self.names.store(Arc::new(next));
        }
    }

    /// The general path's reply, and the compiled one where there is one.
    fn ask(&self, packet: &[u8], udp: bool, turn: usize) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let proto = if udp { Proto::Udp } else { Proto::Tcp };
        let mut slow = Vec::new();
        let client = [127, 0, 0, 1].into();
        let slow = match self.general.respond(proto, client, packet, turn, &mut slow) {
            Met::Silence => None,
            Met::Reply => Some(slow),
            Met::Later(_) | Met::Transfer(_) => panic!("nobody else is asked"),
        };
        let mut fast = vec![7; 3];
        let replied = self.names.load().compiled.reply(packet, udp, turn, &mut fast);
        (slow, replied.map(|_| fast))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn compiled_equals_general(
        choice in 0..7_u8,
        worlds in prop::collection::vec((specs(), any::<bool>()), 1..4),
        asked in prop::collection::vec((packets(), any::<bool>(), any::<u16>()), 1..40),
    ) {
        let mut face = Face::new(settings(choice), &World::new());
        for (specs, labelled) in &worlds {
            face.set(&world(specs, *labelled));
            for (packet, udp, turn) in &asked {
                let (slow, fast) = face.ask(packet, *udp, usize::from(*turn));
                if let Some(fast) = fast {
                    prop_assert_eq!(Some(fast), slow);
                }
            }
        }
    }
}

#[test]
fn what_is_compiled() {
    let spec = |kind, ports, endpoints| Spec {
        namespace: 0,
        kind,
        ports,
        endpoints,
        v6: true,
        labelled: false,
    };
    let world = world(
        &[(0, spec(0, 2, 3)), (1, spec(2, 1, 90)), (3, spec(3, 0, 0)), (4, spec(4, 1, 3))],
        false,
    );
    let face = Face::new(Settings::default(), &world);
    for (name, kind, expected) in [
        ("web.demo.svc.cluster.local", Rtype::A, true),
        ("WEB.demo.svc.cluster.local", Rtype::A, true),
        ("web.demo.svc.cluster.local", Rtype::AAAA, true),
        ("web.demo.svc.cluster.local", Rtype::HTTPS, true),
        ("web.demo.svc.cluster.local", Rtype::SRV, true),
        ("WEB.demo.svc.cluster.local", Rtype::SRV, false),
        ("web.demo.svc.Cluster.LOCAL", Rtype::SRV, false),
        ("_http._tcp.web.demo.svc.cluster.local", Rtype::SRV, true),
        ("_http._tcp.web.demo.svc.cluster.local", Rtype::A, false),
        ("db.demo.svc.cluster.local", Rtype::A, true),
        ("db.demo.svc.cluster.local", Rtype::SRV, false),
        ("10-1-1-1.db.demo.svc.cluster.local", Rtype::A, false),
        ("a-b.demo.svc.cluster.local", Rtype::A, false),
        ("dns.demo.svc.cluster.local", Rtype::A, false),
        ("none.demo.svc.cluster.local", Rtype::A, true),
        ("example.com.demo.svc.cluster.local", Rtype::A, true),
        ("example.com.svc.cluster.local", Rtype::A, true),
        ("example.com.cluster.local", Rtype::A, true),
        ("demo.svc.cluster.local", Rtype::A, false),
        ("demo.registry.cluster.local", Rtype::A, false),
        ("cluster.local", Rtype::SOA, false),
        ("example.com", Rtype::A, false),
    ] {
        let (slow, fast) = face.ask(&packet(name, kind), true, 5);
        assert_eq!(fast.is_some(), expected, "{name} {kind}");
        assert!(slow.is_some());
    }
    // Before everything is known, nothing is.
    let names = Names::new(Arc::new(Settings::default()), world.unsynced());
    let packet = packet("web.demo.svc.cluster.local", Rtype::A);
    assert_eq!(names.compiled.reply(&packet, true, 0, &mut Vec::new()), None);
}

fn small_world() -> World {
    World::new()
        .namespace("demo")
        .service(cluster_ip(
            "demo",
            "web",
            &[[10, 0, 0, 1].into()],
            vec![port("http", Transport::Tcp, 80)],
        ))
        .pod("demo", "client", [127, 0, 0, 1].into())
}

/// Which of the usual questions are answered from compiled bytes: an address, a SRV
/// record, a name that is not there, the first step of a search path, and ANY. What is
/// must be what the stages answer.
fn compiled_of(face: &Face) -> String {
    let web = "web.demo.svc.cluster.local";
    let asked = [
        ('a', web, Rtype::A),
        ('s', web, Rtype::SRV),
        ('n', "none.demo.svc.cluster.local", Rtype::A),
        ('p', "example.com.demo.svc.cluster.local", Rtype::AAAA),
        ('*', web, Rtype::ANY),
    ];
    let compiled = asked.into_iter().filter(|(_, name, kind)| {
        let packet = packet(name, *kind);
        let mut fast = Vec::new();
        let reply = face.names.load().compiled.reply(&packet, true, 3, &mut fast);
        if reply.is_some() {
            assert_eq!(face.ask(&packet, true, 3).0, Some(fast), "{name} {kind}");
        }
        reply.is_some()
    });
    compiled.map(|(letter, ..)| letter).collect()
}

/// kubeadm's default.
const KUBEADM: &str = "\
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . 127.0.0.1:1 {
       max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
";

#[tokio::test]
async fn the_usual_configurations_stay_compiled() {
    let world = small_world();
    assert_eq!(compiled_of(&Face::of(KUBEADM, &world)), "asnp*");
    // The smallest file, and one with a bit of everything that is on by default.
    for native in [
        "[[server]]\n[server.kubernetes]\nzones = [\"cluster.local\"]\n",
        "[health]\n[ready]\n[prometheus]\n[reload]\n[[server]]\n[server.cache]\n\
         [server.kubernetes]\nzones = [\"cluster.local\", \"in-addr.arpa\"]\n\
         fallthrough = [\"in-addr.arpa\"]\n[[server.forward]]\nto = [\"127.0.0.1:1\"]\n",
    ] {
        let config = read_native(native, Path::new("dns.toml")).unwrap();
        let (metrics, tasks) = (Metrics::new(), Tasks::new(Shutdown::new()));
        let face = Face::from_config(&config, &world, &metrics, &tasks);
        assert_eq!(compiled_of(&face), "asnp*", "{native}");
    }
}

/// What a directive beside `kubernetes` leaves compiled.
#[tokio::test]
async fn stages_switch_off_what_they_bear_on() {
    let world = small_world();
    for (directives, expected) in [
        ("", "asnp*"),
        // As k3s has it.
        ("hosts {\n10.0.0.9 node.example.org\nfallthrough\n}", "asnp*"),
        ("hosts {\n10.0.0.9 node.example.org\n}", ""),
        ("hosts {\n10.0.0.9 x.demo.svc.cluster.local\nfallthrough\n}", ""),
        ("hosts {\n10.0.0.9 *.cluster.local\nfallthrough\n}", ""),
        ("hosts /none example.org {\n10.0.0.9 node.example.org\n}", "asnp*"),
        ("rewrite name exact old.example.org web.demo.svc.cluster.local", "asnp*"),
        ("rewrite name suffix .example.org .demo.svc.cluster.local", "asnp*"),
        ("rewrite name suffix .local .example.org", ""),
        ("rewrite name exact old.demo.svc.cluster.local web.demo.svc.cluster.local", ""),
        ("rewrite name substring web db", ""),
        ("rewrite type ANY HINFO", ""),
        ("template IN A example.net {\nrcode NXDOMAIN\n}", "asnp*"),
        ("template IN AAAA {\nrcode NOERROR\n}", ""),
        ("acl example.org {\nblock\n}", "asnp*"),
        ("acl {\nblock type TXT\n}", ""),
        ("autopath @kubernetes", "as*"),
        ("any", "asnp"),
        ("minimal", "anp*"),
        ("local", "asnp*"),
        ("log example.org", "asnp*"),
        ("log", ""),
        ("header {\nresponse set ra\n}", ""),
        ("bufsize 512", ""),
    ] {
        let corefile =
            format!(".:53 {{\nkubernetes cluster.local\nloadbalance\n{directives}\n}}\n");
        assert_eq!(compiled_of(&Face::of(&corefile, &world)), expected, "{directives}");
    }
    for (corefile, expected) in [
        // Without loadbalance the order stays, compiled all the same.
        (". {\nkubernetes cluster.local\n}", "asnp*"),
        (". {\nkubernetes cluster.local {\nfallthrough\n}\nloadbalance\n}", "as*"),
        (". {\nkubernetes cluster.local\nloadbalance\n}\nexample.org {\nlog\n}", "asnp*"),
        (". {\nkubernetes cluster.local\n}\nsvc.cluster.local {\nlog\n}", ""),
    ] {
        assert_eq!(compiled_of(&Face::of(corefile, &world)), expected, "{corefile}");
    }
}
