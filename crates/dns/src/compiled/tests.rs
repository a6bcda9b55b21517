//! Compiled answers against those of the general path: byte for byte the same, for
//! any world, any packet, and after any change.

use std::sync::Arc;

use arc_swap::ArcSwap;
use portolan_catalog::{Subscriber, Update};
use portolan_model::{
    Exposure, Fact, FactKey, Namespace, Selector, Service, ServiceKey, TrafficDistribution,
    Transport, name,
};
use portolan_runtime::Metrics;
use portolan_testkit::{Live, World, cluster_ip, endpoint, external_name, headless, port};
use proptest::prelude::*;

use super::*;
use crate::{
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
        let live = Live::new(world);
        let mut subscriber = live.hub().subscribe();
        subscriber.poll();
        let names = Names::new(Arc::new(settings), live.hub().snapshot());
        let names = Arc::new(ArcSwap::from_pointee(names));
        let metrics = Arc::new(DnsMetrics::register(&Metrics::new()));
        let general = {
            let chain = Arc::new(ArcSwap::from_pointee(crate::chain::Chain::direct(None)));
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
