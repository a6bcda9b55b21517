//! Small catalogs, one per rule of the generators, and some that are spoiled.

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::{Context, Result};
use portolan_envoy_proto::config::bootstrap::v3::Bootstrap;
use portolan_model::{ClientView, Endpoint, Name, Particular, Service, Transport, name};
use portolan_testkit::{World, cluster_ip, endpoint, external_name, headless, port};
use portolan_xds::{Aliases, Protocol, backends, endpoints, envoy};

use crate::bootstrap::Resources;

const DOMAIN: &str = "cluster.local";

/// A catalog as Envoy reads it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) bootstrap: Bootstrap,
    /// Envoy must refuse it.
    pub(crate) is_spoiled: bool,
}

/// Something that is done to good resources, so that they are good no more.
type Spoil = fn(&mut Resources) -> Option<()>;

pub(crate) fn all() -> Result<Vec<Case>> {
    let good = [
        ("nothing at all", World::new()),
        ("HTTP services that share a port", http()),
        ("TLS, TCP and what is looked at, on one port", mixed()),
        ("every protocol on its own port", each_protocol()),
        ("headless services, aliases and other origins", names()),
        ("zones, weights and both families", endpoints_of_all_sorts()),
        ("ports that two services want", conflicts()),
    ];
    let spoiled: [(&str, World, Spoil); 3] = [
        ("spoiled: a domain comes twice", http(), |resources| {
            let hosts = &mut resources.routes.first_mut()?.virtual_hosts;
            let again = hosts.first()?.domains.first()?.clone();
            hosts.last_mut()?.domains.push(again);
            Some(())
        }),
        ("spoiled: two chains for one server name", mixed(), |resources| {
            let chains = &mut resources.listeners.first_mut()?.filter_chains;
            let again = chains.first()?.clone();
            chains.push(again);
            Some(())
        }),
        ("spoiled: a weight of 0", endpoints_of_all_sorts(), |resources| {
            let locality = resources.assignments.first_mut()?.endpoints.first_mut()?;
            locality.lb_endpoints.first_mut()?.load_balancing_weight.as_mut()?.value = 0;
            Some(())
        }),
    ];
    let mut cases = Vec::new();
    for (name, world) in good {
        let bootstrap = resources(&world).bootstrap().context(name)?;
        cases.push(Case { name, bootstrap, is_spoiled: false });
    }
    for (name, world, spoil) in spoiled {
        let mut resources = resources(&world);
        spoil(&mut resources).with_context(|| format!("{name}: there is nothing to spoil"))?;
        cases.push(Case { name, bootstrap: resources.bootstrap()?, is_spoiled: true });
    }
    Ok(cases)
}

/// All that a proxy in namespace `demo` is told.
fn resources(world: &World) -> Resources {
    let snapshot = world.snapshot();
    let view = ClientView { namespace: Some(name("demo")), ..ClientView::default() };
    let aliases = Aliases::of(&snapshot, DOMAIN);
    let backends: Vec<_> =
        snapshot.services().flat_map(|entry| backends(entry, DOMAIN, &view)).collect();
    let http = || backends.iter().filter(|backend| backend.protocol.is_http());
    let ports: BTreeSet<u16> = http().map(|backend| backend.port).collect();
    let of_port = |port: u16| {
        let here = http().filter(move |backend| backend.port == port);
        envoy::routes_of_port(port, here, &aliases, DOMAIN, view.namespace.as_deref())
    };
    let sniffed = backends.iter().filter(|backend| backend.protocol == Protocol::Sniffed);
    let own = Ipv4Addr::LOCALHOST.into();
    Resources {
        clusters: backends.iter().map(envoy::cluster).collect(),
        assignments: backends.iter().map(endpoints::assignment).collect(),
        listeners: envoy::listeners(own, &backends, &aliases, DOMAIN).listeners,
        routes: ports
            .into_iter()
            .map(of_port)
            .chain(sniffed.map(envoy::routes_of_sniffed))
            .collect(),
    }
}

/// A service of `demo` with one port, `last` being the end of its virtual IP.
fn service(text: &str, last: u8, ports: &[(&str, u16)]) -> Service {
    let ports = ports.iter().map(|(own, number)| port(own, Transport::Tcp, *number)).collect();
    cluster_ip("demo", text, &[[127, 96, 0, last].into()], ports)
}

fn world(services: impl IntoIterator<Item = Service>) -> World {
    services.into_iter().fold(World::new(), World::service)
}

fn http() -> World {
    world([
        service("web", 1, &[("http", 8080), ("http-admin", 8081)]),
        service("api", 2, &[("grpc", 8080)]),
    ])
}

fn mixed() -> World {
    world([
        service("secure", 1, &[("https", 8443)]),
        service("store", 2, &[("tls", 8443)]),
        service("unknown", 3, &[("", 8443)]),
    ])
}

fn each_protocol() -> World {
    let protocols = ["http", "http2", "grpc", "grpc-web", "https", "tls", "tcp", "mongo", "x"];
    let ports: Vec<(&str, u16)> = protocols.into_iter().zip(8080..).collect();
    world([service("all", 1, &ports)])
}

fn names() -> World {
    let target = "web.demo.svc.cluster.local";
    let registered = ("dubbo", Transport::Tcp, 20880);
    world([
        service("web", 1, &[("http", 8080)]),
        headless("demo", "db", vec![port("http", Transport::Tcp, 8080)]),
        external_name("demo", "alias", target),
        external_name("shop", "alias", target),
        external_name("demo", "outside", "example.com"),
        cluster_ip(
            "demo",
            "six",
            &["fd00:96::1".parse().expect("an address")],
            vec![port("http", Transport::Tcp, 8080)],
        ),
    ])
    .registered(
        "registry",
        "demo",
        "com.example.Api",
        vec![endpoint([127, 10, 0, 1].into(), &[registered])],
    )
}

fn endpoints_of_all_sorts() -> World {
    let at = |last: u8, zone: &str, weight: u32| Endpoint {
        zone: (!zone.is_empty()).then(|| -> Name { name(zone) }),
        particulars: Particular { weight, ..Particular::NONE }.into(),
        ..endpoint([127, 10, 0, last].into(), &[("http", Transport::Tcp, 8080)])
    };
    let heaviest = u32::MAX;
    let web = service("web", 1, &[("http", 8080)]);
    let key = web.key.clone();
    let six = endpoint("fd00:10::1".parse().expect("an address"), &[("http", Transport::Tcp, 80)]);
    let list = vec![at(1, "a", 100), at(2, "a", heaviest), at(3, "b", heaviest), at(4, "", 1), six];
    world([web]).endpoints("s", &key, list)
}

fn conflicts() -> World {
    world([
        service("first", 1, &[("tcp", 6379), ("tcp-web", 8080)]),
        service("second", 2, &[("redis", 6379), ("tls", 8080)]),
        service("third", 3, &[("x", 6379), ("http", 8080)]),
    ])
}
