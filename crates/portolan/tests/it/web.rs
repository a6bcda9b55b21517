//! Plain YAML from anywhere: a Deployment and a Service of any image give
//! endpoints, a name, a virtual IP, and answers that rotate.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::{Up, address_query, eventually, expect, up};

const WEB: &str = include_str!("../../../../examples/web.yaml");

fn serving(up: &Up, service: &str) -> BTreeSet<String> {
    up.api(&format!("/v1/instances?service={service}"))["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|instance| instance["state"] == "serving")
        .map(|instance| instance["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn two_replicas_have_endpoints_a_name_and_a_virtual_ip_that_rotates() {
    let up = up(&[]);
    up.apply(WEB);
    up.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let pods = eventually("two serving instances", || {
        let serving = serving(&up, "web");
        if serving.len() == 2 { Ok(serving) } else { Err(format!("{serving:?}")) }
    });
    up.portolan(&["wait", "svc/web"]);

    let endpoints = up.kubectl(&[
        "get",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=web",
        "-o",
        "jsonpath={.items[*].endpoints[*].addresses[0]}",
    ]);
    assert_eq!(endpoints.split_whitespace().count(), 2, "{endpoints}");
    let endpoints =
        up.kubectl(&["get", "endpoints", "web", "-o", "jsonpath={.subsets[*].addresses[*].ip}"]);
    assert_eq!(endpoints.split_whitespace().count(), 2, "{endpoints}");

    // The name resolves to the virtual IP, by dig and by portolan dig alike.
    let address = up.cluster_ip("default", "web");
    assert_eq!(up.dig("web.default.svc.cluster.local", "A"), [address.as_str()]);
    let ours = up.portolan(&[
        "dig",
        "web.default.svc.cluster.local",
        "--short",
        "--dns",
        up.addresses.dns.as_deref().unwrap(),
    ]);
    assert_eq!(ours.trim(), address);
    let expanded = up.portolan(&[
        "dig",
        "web",
        "--from",
        "default",
        "--short",
        "--dns",
        up.addresses.dns.as_deref().unwrap(),
    ]);
    assert_eq!(expanded.trim(), address);

    how_names_are_answered(&up, &address);

    // Every fresh connection to the virtual IP may take another Pod: over some
    // calls, both answer, in equal parts.
    let mut answers: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..10 {
        let body = up.curl(&format!("http://{address}:8081/")).expect("the virtual IP answers");
        *answers.entry(body.trim().to_owned()).or_default() += 1;
    }
    assert_eq!(answers.keys().cloned().collect::<BTreeSet<_>>(), pods);
    assert!(answers.values().all(|count| *count == 5), "round robin: {answers:?}");

    // The Pods say that they only pretend.
    let hollow = up.kubectl(&[
        "get",
        "pods",
        "-o",
        "jsonpath={.items[*].metadata.annotations.portolan\\.dev/hollow}",
    ]);
    assert_eq!(hollow.trim(), "true true");
    assert!(up.portolan(&["get", "instances", "web"]).contains("(hollow)"));
}

/// The answer as a Pod gets it, and stage by stage why.
fn how_names_are_answered(up: &Up, address: &str) {
    let dns = up.addresses.dns.as_deref().unwrap();
    let pod = up.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"]);
    let from = format!("default/{}", pod.lines().next().unwrap().trim_start_matches("pod/"));
    let traced = up.portolan(&["dig", "web.default", "--from", &from, "+trace", "--dns", dns]);
    let told = [
        ";; web.default.default.svc.cluster.local -> NXDOMAIN",
        "answer     NXDOMAIN: the namespace has no service \"default\"",
        ";; web.default.svc.cluster.local -> NOERROR",
        "service default/web, 2 of 2 endpoints served",
        address,
    ];
    let mut rest = traced.as_str();
    for words in told {
        let (_, after) = rest.split_once(words).unwrap_or_else(|| panic!("{words:?} in {traced}"));
        rest = after;
    }
    for (target, exit, words) in [
        ("svc/web", 0, "answer        1 records"),
        (
            "nosuch.default.svc.cluster.local",
            1,
            "NXDOMAIN: the namespace has no service \"nosuch\"",
        ),
        (address, 0, ".in-addr.arpa PTR"),
    ] {
        let why = up.try_portolan(&["why", target, "--on", "dns"]);
        assert!(why.code == Some(exit) && why.out.contains(words), "{target}: {why:?}");
    }
    let why = up.try_portolan(&["why", "svc/web"]);
    assert!(!why.out.contains("cluster.local. (services"), "nobody asked about DNS: {why:?}");
    who_asks_in_vain(up);
}

/// A client that floods the server with names that do not exist is found out.
fn who_asks_in_vain(up: &Up) {
    let socket = std::net::UdpSocket::bind("127.0.0.9:0").unwrap();
    socket.connect(up.addresses.dns.as_deref().unwrap()).unwrap();
    let query = address_query("nosuch.default.svc.cluster.local");
    eventually("the flood is seen", || {
        for _ in 0..100 {
            socket.send(&query).unwrap();
        }
        let clients = up.portolan(&["get", "dns-clients"]);
        let line = clients.lines().find(|line| line.starts_with("127.0.0.9 "));
        match line {
            Some(line) if line.contains("100 %") => Ok(()),
            _ => Err(clients),
        }
    });
}

#[test]
fn scaling_and_deleting_reaches_every_face() {
    let up = up(&[]);
    up.apply(WEB);
    up.kubectl(&["scale", "deployment", "web", "--replicas=3"]);
    eventually("three serving", || expect(serving(&up, "web").len(), 3));
    up.kubectl(&["scale", "deployment", "web", "--replicas=0"]);
    eventually("none serving", || expect(serving(&up, "web").len(), 0));
    // No endpoints: the connection is refused at once, not left hanging.
    let address = up.cluster_ip("default", "web");
    eventually("a refused connection", || {
        expect(up.curl(&format!("http://{address}:8081/")), None)
    });
    let why = up.try_portolan(&["why", "svc/web"]);
    assert_eq!(why.code, Some(1), "{why:?}");
    assert!(why.out.contains("PTL0105"), "{why:?}");

    up.kubectl(&["delete", "service", "web"]);
    eventually("NXDOMAIN", || {
        let answer = up.dig_full(&["web.default.svc.cluster.local", "A"]);
        if answer.contains("status: NXDOMAIN") { Ok(()) } else { Err(answer) }
    });
    let items = up.api("/v1/services?service=web");
    assert_eq!(items["items"].as_array().map(Vec::len), Some(0));
}

#[test]
fn headless_external_and_node_port_services() {
    let up = up(&[]);
    up.apply(WEB);
    up.apply(
        "apiVersion: v1
kind: Service
metadata: {name: headless}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{name: http, port: 8081}]
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: example.com}
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 8081}]
",
    );
    eventually("two addresses of the headless Service", || {
        expect(up.dig("headless.default.svc.cluster.local", "A").len(), 2)
    });
    let srv = up.dig("_http._tcp.headless.default.svc.cluster.local", "SRV");
    assert_eq!(srv.len(), 2, "{srv:?}");
    assert!(srv.iter().all(|line| line.contains(" 8081 ")), "{srv:?}");
    assert_eq!(up.dig("alias.default.svc.cluster.local", "CNAME"), ["example.com."]);
    let address = up.cluster_ip("default", "front");
    let reverse = up.dig_full(&["-x", &address, "+short"]);
    assert_eq!(reverse.trim(), "front.default.svc.cluster.local.");
    let port = up.kubectl(&["get", "svc", "front", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
    eventually("an answer on the node port", || {
        up.curl(&format!("http://127.0.0.1:{port}/")).map(|_| ()).ok_or("no answer".to_owned())
    });
    // NODATA and NXDOMAIN are told apart.
    let nodata = up.dig_full(&["front.default.svc.cluster.local", "MX"]);
    assert!(nodata.contains("status: NOERROR") && nodata.contains("SOA"), "{nodata}");
    let nxdomain = up.dig_full(&["nothing.default.svc.cluster.local", "A"]);
    assert!(nxdomain.contains("status: NXDOMAIN") && nxdomain.contains("SOA"), "{nxdomain}");
}

#[test]
fn names_of_others_are_asked_for_where_a_flag_says() {
    // One Portolan is the upstream of another, with a domain of its own.
    let upstream = up(&["--without", "proxy", "--cluster-domain", "other.example"]);
    let flag = format!("--dns-upstream={}", upstream.addresses.dns.as_deref().unwrap());
    let up = up(&["--without", "proxy", &flag]);
    let address = upstream.cluster_ip("default", "kubernetes");
    assert_eq!(up.dig("kubernetes.default.svc.other.example", "A"), [address]);
    // Own names are never asked for elsewhere, and without the flag others' are refused.
    assert_eq!(
        up.dig("kubernetes.default.svc.cluster.local", "A"),
        [up.cluster_ip("default", "kubernetes")]
    );
    let refused = upstream.dig_full(&["kubernetes.default.svc.cluster.local", "A"]);
    assert!(refused.contains("status: REFUSED"), "{refused}");
}
