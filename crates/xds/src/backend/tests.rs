//! Which backends a service has, as text: `PORT PROTOCOL zone=ADDRESS*WEIGHT,...`.

use portolan_model::{Conditions, EndpointPort, Particular, Service, TrafficPolicy, name};
use portolan_testkit::{World, cluster_ip, endpoint, external_name, headless, port};

use super::*;

fn ep(address: &str, number: u16) -> Endpoint {
    endpoint(address.parse().unwrap(), &[("http", Transport::Tcp, number)])
}

fn web(edit: impl FnOnce(&mut Service)) -> Service {
    let addresses = ["127.96.0.1".parse().unwrap(), "fd00:96::1".parse().unwrap()];
    let mut service = cluster_ip("demo", "web", &addresses, vec![port("http", Transport::Tcp, 80)]);
    edit(&mut service);
    service
}

fn found(service: Service, list: Vec<Endpoint>, view: &ClientView) -> Vec<String> {
    let key = service.key.clone();
    let snapshot = World::new().service(service).endpoints("s", &key, list).snapshot();
    let locality = |(at, list): (&Locality, &Vec<Destination>)| {
        let list: Vec<String> =
            list.iter().map(|one| format!("{}*{}", one.address, one.weight)).collect();
        format!("{}={}", at.zone.as_deref().unwrap_or_default(), list.join(","))
    };
    backends(snapshot.service(&key).unwrap(), "cluster.local", view)
        .iter()
        .map(|backend| {
            let localities: Vec<String> = backend.localities.iter().map(locality).collect();
            let text = format!("{} {:?} {}", backend.port, backend.protocol, localities.join(" "));
            text.trim_end().to_owned()
        })
        .collect()
}

fn check(service: Service, list: Vec<Endpoint>, expected: &[&str]) {
    assert_eq!(found(service, list, &ClientView::default()), expected);
}

#[test]
fn endpoints_of_the_virtual_ips_family_take_the_traffic() {
    let both = || vec![ep("127.10.0.1", 8080), ep("fd00:10::1", 8080)];
    check(web(|_| {}), both(), &["80 Http =127.10.0.1:8080*100"]);
    check(web(|web| web.addresses.reverse()), both(), &["80 Http =[fd00:10::1]:8080*100"]);
}

#[test]
fn a_headless_service_takes_the_family_that_it_has() {
    let service = || headless("demo", "db", vec![port("http", Transport::Tcp, 80)]);
    let both = vec![ep("127.10.0.1", 8080), ep("fd00:10::1", 8080)];
    check(service(), both, &["80 Http =127.10.0.1:8080*100"]);
    check(service(), vec![ep("fd00:10::1", 8080)], &["80 Http =[fd00:10::1]:8080*100"]);
}

#[test]
fn readiness_is_the_catalogs_to_decide() {
    let with = |conditions: Conditions, address: &str| Endpoint { conditions, ..ep(address, 80) };
    let draining = Conditions { ready: false, serving: true, terminating: true };
    check(
        web(|_| {}),
        vec![
            ep("127.10.0.1", 80),
            with(Conditions::NOT_READY, "127.10.0.2"),
            with(draining, "127.10.0.3"),
        ],
        &["80 Http =127.10.0.1:80*100"],
    );
    // Nobody is ready: those that still serve are better than nobody.
    check(
        web(|_| {}),
        vec![with(Conditions::NOT_READY, "127.10.0.2"), with(draining, "127.10.0.3")],
        &["80 Http =127.10.0.3:80*100"],
    );
    check(
        web(|web| web.publish_not_ready = true),
        vec![with(Conditions::NOT_READY, "127.10.0.2")],
        &["80 Http =127.10.0.2:80*100"],
    );
    check(web(|_| {}), vec![], &["80 Http"]);
}

#[test]
fn endpoints_stand_with_their_zone_and_weight() {
    let at = |address: &str, zone: &str, weight: u32| Endpoint {
        zone: (!zone.is_empty()).then(|| name(zone)),
        particulars: Particular { weight, ..Particular::NONE }.into(),
        ..ep(address, 80)
    };
    check(
        web(|_| {}),
        vec![
            at("127.10.0.1", "b", 100),
            at("127.10.0.2", "a", 50),
            at("127.10.0.3", "b", 0),
            at("127.10.0.4", "", 7),
        ],
        &["80 Http =127.10.0.4:80*7 a=127.10.0.2:80*50 b=127.10.0.1:80*100"],
    );
}

#[test]
fn weights_fit_into_32_bits_together() {
    let weighed = |address: &str, weight| Endpoint {
        particulars: Particular { weight, ..Particular::NONE }.into(),
        ..ep(address, 80)
    };
    let heavy = |address: &str| weighed(address, u32::MAX);
    let light = weighed("127.10.0.9", 1);
    check(
        web(|_| {}),
        vec![heavy("127.10.0.1"), heavy("127.10.0.2"), light],
        &["80 Http =127.10.0.1:80*1431655765,127.10.0.2:80*1431655765,127.10.0.9:80*1"],
    );
}

#[test]
fn a_local_policy_keeps_to_the_clients_node() {
    let on = |address: &str, node: &str| Endpoint { node: Some(name(node)), ..ep(address, 80) };
    let service = web(|web| web.internal_policy = TrafficPolicy::Local);
    let list = vec![on("127.10.0.1", "here"), on("127.10.0.2", "there")];
    let view = ClientView { node: Some(name("here")), ..ClientView::default() };
    assert_eq!(found(service, list, &view), ["80 Http =127.10.0.1:80*100"]);
}

#[test]
fn ports_that_no_proxy_carries_and_aliases_have_no_backend() {
    let ports = vec![
        port("dns", Transport::Udp, 53),
        port("dns-tcp", Transport::Tcp, 53),
        port("x", Transport::Sctp, 9),
    ];
    check(web(|web| web.ports = ports), vec![], &["53 Tcp"]);
    check(external_name("demo", "alias", "example.com"), vec![], &[]);
}

#[test]
fn a_service_that_only_endpoints_tell_of_has_their_ports() {
    let key = ServiceKey::registry("demo", "com.example.Api");
    let with = |address: &str, number: u16| {
        let port = |port_name: &str, number| EndpointPort {
            name: name(port_name),
            transport: Transport::Tcp,
            port: Some(number),
            app_protocol: None,
        };
        let ports = [port("dubbo", number), port("http", 8080)];
        Endpoint::new(address.parse().unwrap(), ports.into())
    };
    check(
        Service::bare(key),
        vec![with("127.10.0.1", 20881), with("127.10.0.2", 20880)],
        &[
            "8080 Http =127.10.0.1:8080*100,127.10.0.2:8080*100",
            "20880 Sniffed =127.10.0.1:20881*100,127.10.0.2:20880*100",
        ],
    );
}
