//! Whatever happened before: what is shown is what a publisher that has only just begun
//! would show.

use portolan_model::{Hints, Service, TrafficPolicy, Transport};
use portolan_testkit::{Live, World, cluster_ip, endpoint, external_name, headless, port};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    store::{Kind, Resource},
    view::{Dialect, Place},
};

fn view(dialect: Dialect, namespace: Option<&str>, node: Option<&str>) -> View {
    let place = Place { zone: None, node: node.map(name) };
    View { dialect, namespace: namespace.map(name), place }
}

/// Views that differ in all that views differ in.
fn views() -> Vec<View> {
    let envoy = |last| Dialect::Envoy([127, 0, 0, last].into());
    vec![
        view(envoy(1), None, None),
        view(envoy(1), Some("a"), Some("n1")),
        view(envoy(2), Some("b"), Some("n2")),
        view(Dialect::Grpc, None, Some("n1")),
        view(Dialect::Grpc, Some("a"), None),
    ]
}

type Content = BTreeMap<(Kind, Name), Arc<Resource>>;

fn content(reader: &Reader) -> Content {
    reader.show(|shown| {
        let of = |kind| shown.all(kind).map(move |own| ((kind, own.name.clone()), own.clone()));
        Kind::ALL.into_iter().flat_map(of).collect()
    })
}

fn names(reader: &Reader, kind: Kind) -> Vec<String> {
    reader.show(|shown| shown.all(kind).map(|own| own.name.to_string()).collect())
}

/// One service of a world, from few choices.
#[derive(Clone, Debug)]
struct One {
    namespace: &'static str,
    name: &'static str,
    shape: u8,
    port: (&'static str, u16),
    endpoints: Vec<(u8, Option<u8>)>,
    is_local: bool,
}

fn one() -> impl Strategy<Value = One> {
    let port = (
        prop::sample::select(vec!["http", "grpc", "tcp", "https", ""]),
        prop::sample::select(vec![80_u16, 81, 5432]),
    );
    let endpoints = vec((1..6_u8, proptest::option::of(1..3_u8)), 0..3);
    let namespace = prop::sample::select(vec!["a", "b"]);
    let name = prop::sample::select(vec!["x", "y", "z"]);
    (namespace, name, 0..4_u8, port, endpoints, any::<bool>()).prop_map(
        |(namespace, name, shape, port, endpoints, is_local)| One {
            namespace,
            name,
            shape,
            port,
            endpoints,
            is_local,
        },
    )
}

impl One {
    fn service(&self) -> Service {
        let ports = vec![port(self.port.0, Transport::Tcp, self.port.1)];
        let last = self.name.as_bytes()[0] ^ self.namespace.as_bytes()[0];
        let mut service = match self.shape {
            0 => headless(self.namespace, self.name, ports),
            1 => external_name(self.namespace, self.name, "x.a.svc.cluster.local"),
            _ => cluster_ip(self.namespace, self.name, &[[127, 96, 0, last].into()], ports),
        };
        if self.is_local {
            service.internal_policy = TrafficPolicy::Local;
        }
        service
    }

    fn add_to(&self, world: World) -> World {
        let service = self.service();
        let key = service.key.clone();
        let to = |(last, node): &(u8, Option<u8>)| {
            let ports = [(self.port.0, Transport::Tcp, 8080)];
            let mut own = endpoint([127, 10, 0, *last].into(), &ports);
            own.node = node.map(|node| name(&format!("n{node}")));
            let hints = |node| Hints { nodes: vec![name(&format!("n{node}"))], ..Hints::default() };
            own.particulars.hints = node.map(|node| Arc::new(hints(node)));
            own
        };
        let list = self.endpoints.iter().map(to).collect();
        let object = format!("{}-{}", self.namespace, self.name);
        world.service(service).endpoints(&object, &key, list)
    }
}

fn world(all: &[One]) -> World {
    let namespaces = World::new().namespace("a").namespace("b");
    all.iter().fold(namespaces, |world, own| own.add_to(world))
}

proptest! {
    #[test]
    fn what_is_shown_does_not_depend_on_what_was(
        history in vec(vec(one(), 0..6), 1..8),
        reset in any::<bool>(),
    ) {
        let mut live = Live::new(&World::new());
        let publisher = Publisher::new("cluster.local", live.hub());
        let mut subscriber = live.hub().subscribe();
        let readers: Vec<Reader> =
            views().into_iter().map(|view| publisher.read(view).unwrap()).collect();
        for services in &history {
            let snapshot = live.set(&world(services));
            if let Some(update) = subscriber.poll() {
                let update = if reset { Update::Reset(snapshot.clone()) } else { update };
                publisher.update(&update);
            }
            let fresh = Publisher::new("cluster.local", live.hub());
            fresh.update(&Update::Reset(snapshot));
            for reader in &readers {
                let expected = fresh.read(reader.view().clone()).unwrap();
                prop_assert_eq!(content(reader), content(&expected), "{:?}", reader.view());
            }
        }
    }

    #[test]
    fn endpoints_alone_change_nothing_but_endpoints(
        services in vec(one(), 1..6),
        endpoints in vec((1..6_u8, proptest::option::of(1..3_u8)), 0..3),
    ) {
        let mut live = Live::new(&world(&services));
        let publisher = Publisher::new("cluster.local", live.hub());
        let mut subscriber = live.hub().subscribe();
        publisher.update(&subscriber.poll().unwrap());
        let readers: Vec<Reader> =
            views().into_iter().map(|view| publisher.read(view).unwrap()).collect();
        let before = publisher.revision();
        let mut after = services;
        for own in &mut after {
            own.endpoints = endpoints.clone();
        }
        live.set(&world(&after));
        if let Some(update) = subscriber.poll() {
            publisher.update(&update);
        }
        for reader in &readers {
            for kind in [Kind::Cluster, Kind::Listener, Kind::Routes] {
                let changed = reader.show(|shown| shown.changed(kind, before));
                prop_assert_eq!(changed, crate::store::Changed::Names(BTreeSet::new()));
            }
        }
    }
}

#[test]
fn a_name_goes_from_a_service_to_the_one_that_it_means_now() {
    let http = || vec![port("http", Transport::Tcp, 80)];
    let mut live = Live::new(&World::new().service(headless("b", "z", http())));
    let publisher = Publisher::new("cluster.local", live.hub());
    let mut subscriber = live.hub().subscribe();
    publisher.update(&subscriber.poll().unwrap());
    let reader = publisher.read(view(Dialect::Grpc, None, None)).unwrap();
    let alias = external_name("b", "z", "x.a.svc.cluster.local");
    live.set(&World::new().service(headless("a", "x", http())).service(alias));
    publisher.update(&subscriber.poll().unwrap());
    let listeners = names(&reader, Kind::Listener);
    assert!(listeners.contains(&"z.b:80".to_owned()), "{listeners:?}");
}

#[test]
fn what_nobody_reads_is_thrown_away() {
    let live = Live::new(&World::new());
    let publisher = Publisher::new("cluster.local", live.hub());
    let one = publisher.read(view(Dialect::Grpc, Some("a"), None)).unwrap();
    let other = publisher.read(view(Dialect::Grpc, Some("b"), None)).unwrap();
    // Only listeners are by namespace.
    assert_eq!(publisher.shelves(), 5);
    drop(one);
    assert_eq!(publisher.shelves(), 4);
    drop(other);
    assert_eq!(publisher.shelves(), 0);
}

#[test]
fn views_are_bounded() {
    let live = Live::new(&World::new());
    let publisher = Publisher::new("cluster.local", live.hub());
    let of = |number: usize| view(Dialect::Grpc, Some(&format!("n{number}")), None);
    let readers: Vec<Reader> =
        (0..SHELVES_MAX - 3).map(|number| publisher.read(of(number)).unwrap()).collect();
    assert_eq!(publisher.shelves(), SHELVES_MAX);
    assert_eq!(publisher.read(of(SHELVES_MAX)).unwrap_err(), TooManyViews);
    assert!(publisher.read(of(0)).is_ok(), "what is shown already is shown to more");
    drop(readers);
    assert_eq!(publisher.shelves(), 0);
}

#[test]
fn a_version_is_that_of_what_is_shown() {
    let mut live = Live::new(&World::new());
    let publisher = Publisher::new("cluster.local", live.hub());
    let mut subscriber = live.hub().subscribe();
    let reader = publisher.read(view(Dialect::Grpc, None, None)).unwrap();
    let mut step = |world: &World| {
        live.set(world);
        publisher.update(&subscriber.poll().unwrap());
        (publisher.revision(), live.hub().snapshot().version())
    };
    let web = || headless("a", "x", vec![port("http", Transport::Tcp, 80)]);
    let (first, with_web) = step(&World::new().service(web()));
    assert_eq!(names(&reader, Kind::Cluster), ["outbound|80||x.a.svc.cluster.local"]);
    // A namespace changes no resource: the revision stands, the version goes on.
    let (second, with_namespace) = step(&World::new().service(web()).namespace("a"));
    assert_eq!(first, second);
    assert_ne!(with_web, with_namespace);
    assert_eq!(publisher.version_at(first), Some(with_namespace));
    let (third, gone) = step(&World::new().namespace("a"));
    assert!(third > second);
    assert_eq!(publisher.version_at(first), Some(with_namespace));
    assert_eq!(publisher.version_at(third), Some(gone));
    assert_eq!(publisher.version_at(0), None, "nothing was read");
}
