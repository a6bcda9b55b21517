//! A world from one number: objects, a configuration, and the questions that they suggest.

use std::{collections::BTreeSet, net::IpAddr, net::SocketAddr};

use domain::base::Rtype;
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};

use crate::{
    ask::Question,
    upstream::{ABSENT, FAILING, KNOWN},
};

const ZONE: &str = "cluster.local.";
/// Some are words that names are made of.
const NAMESPACES: [&str; 5] = ["demo", "shop", "svc", "pod", "hidden"];
const SERVICES: [&str; 9] = ["web", "db", "api", "a-b", "svc", "dns", "x1", "cache", "c-2"];
const HOSTNAMES: [&str; 3] = ["a", "b-0", "web-1"];

/// The Service that is made last.
const LAST: &str = "last";

/// Endpoints of a slice that does not fit into a reply over UDP.
const MANY: usize = 95;

/// What a port is called and over what it is spoken.
const PORTS: [(&str, &str, u16); 4] =
    [("http", "TCP", 80), ("dns", "UDP", 53), ("dns-tcp", "TCP", 53), ("metrics", "TCP", 9153)];

/// How the `kubernetes` directive is written.
#[derive(Debug)]
struct Settings {
    pods: &'static str,
    ttl: u32,
    endpoint_pod_names: bool,
    noendpoints: bool,
    ignore_empty: bool,
    /// All but `hidden`.
    narrowed: bool,
}

/// A world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) objects: Vec<Value>,
    /// Namespace, name and status.
    pub(crate) pod_statuses: Vec<(String, String, Value)>,
    settings: Settings,
    /// Namespace and service of each slice, with its endpoints.
    slices: Vec<(String, String, Vec<Value>)>,
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn texts(value: &Value, pointer: &str) -> Vec<String> {
    let items = value.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

impl World {
    pub(crate) fn generate(random: &mut StdRng) -> Self {
        let settings = Settings {
            pods: ["disabled", "insecure", "verified"]
                .choose(random)
                .copied()
                .unwrap_or("disabled"),
            ttl: [5, 30, 600].choose(random).copied().unwrap_or(5),
            endpoint_pod_names: random.random_bool(0.4),
            noendpoints: random.random_bool(0.25),
            ignore_empty: random.random_bool(0.25),
            narrowed: random.random_bool(0.4),
        };
        let mut world =
            Self { objects: Vec::new(), pod_statuses: Vec::new(), settings, slices: Vec::new() };
        for namespace in NAMESPACES {
            let meta = json!({"name": namespace});
            world.objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": meta}));
        }
        for namespace in NAMESPACES {
            for service in SERVICES {
                if random.random_bool(0.45) {
                    world.add_service(random, namespace, service);
                }
            }
            // Slices of a Service that is not there.
            if random.random_bool(0.3) {
                world.add_slice(random, namespace, "gone", &[PORTS[0]], 2);
            }
            for number in 0..random.random_range(0..3) {
                world.add_pod(random, namespace, &format!("pod-{number}"));
            }
        }
        world
    }

    /// An object that has only a name and a spec.
    fn service(namespace: &str, name: &str, spec: Value) -> Value {
        let meta = json!({"name": name, "namespace": namespace});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    }

    fn add_service(&mut self, random: &mut StdRng, namespace: &str, name: &str) {
        let kind = random.random_range(0..10);
        if kind == 9 {
            let other = SERVICES.choose(random).copied().unwrap_or("web");
            let targets = [
                format!("host.{KNOWN}"),
                format!("host.{ABSENT}"),
                format!("host.{FAILING}"),
                format!("{other}.demo.svc.cluster.local"),
                format!("{name}.{namespace}.svc.cluster.local"),
                "nothing.demo.svc.cluster.local".to_owned(),
                "192.0.2.1".to_owned(),
            ];
            let target = targets.choose(random);
            let spec = json!({"type": "ExternalName", "externalName": target});
            self.objects.push(Self::service(namespace, name, spec));
            return;
        }
        let headless = kind < 4;
        let count = random.random_range(usize::from(!headless)..4);
        let ports: Vec<_> = PORTS.choose_multiple(random, count).copied().collect();
        let unnamed = ports.len() == 1 && random.random_bool(0.5);
        let ports: Vec<_> = ports
            .into_iter()
            .map(|(name, transport, port)| (if unnamed { "" } else { name }, transport, port))
            .collect();
        let listed: Vec<_> = ports
            .iter()
            .map(|(name, transport, port)| json!({"name": name, "protocol": transport, "port": port}))
            .collect();
        let mut spec = json!({"ports": listed});
        if headless {
            spec["clusterIP"] = json!("None");
        }
        if random.random_bool(0.4) {
            spec["ipFamilyPolicy"] = json!("PreferDualStack");
        }
        let published = random.random_bool(0.2);
        if published {
            spec["publishNotReadyAddresses"] = json!(true);
        }
        self.objects.push(Self::service(namespace, name, spec));
        let slices = random.random_range(0..4);
        for slice in 0..slices {
            let many = headless && slice == 0 && random.random_bool(0.15);
            let count = if many { MANY } else { random.random_range(0..5) };
            self.add_slice(random, namespace, name, &ports, count);
            // As the controller of EndpointSlices writes it.
            let object = self.objects.last_mut().filter(|_| published);
            let endpoints = object.and_then(|slice| slice.get_mut("endpoints")?.as_array_mut());
            for endpoint in endpoints.into_iter().flatten() {
                endpoint["conditions"]["ready"] = json!(true);
            }
        }
    }

    fn add_slice(
        &mut self,
        random: &mut StdRng,
        namespace: &str,
        service: &str,
        ports: &[(&str, &str, u16)],
        count: usize,
    ) {
        let v6 = random.random_bool(0.25);
        let endpoints: Vec<Value> =
            (0..count).map(|place| endpoint(random, namespace, service, v6, place)).collect();
        let name = format!("{service}-{}", self.slices.len());
        let labels = json!({"kubernetes.io/service-name": service});
        let ports: Vec<_> = ports
            .iter()
            .map(|(name, transport, port)| {
                json!({"name": name, "protocol": transport, "port": u32::from(*port) + 8000})
            })
            .collect();
        self.objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "addressType": if v6 { "IPv6" } else { "IPv4" },
            "endpoints": endpoints,
            "ports": ports,
        }));
        self.slices.push((namespace.to_owned(), service.to_owned(), endpoints));
    }

    fn add_pod(&mut self, random: &mut StdRng, namespace: &str, name: &str) {
        let containers = json!([{"name": "c", "image": "none"}]);
        let meta = json!({"name": name, "namespace": namespace});
        let spec = json!({"containers": containers});
        self.objects
            .push(json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}));
        let address = format!("10.20.0.{}", random.random_range(1..40));
        let status = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]});
        let status = json!({"status": status});
        self.pod_statuses.push((namespace.to_owned(), name.to_owned(), status));
    }

    /// A Service with an endpoint, to be made last: who knows it knows all.
    pub(crate) fn last() -> [Value; 2] {
        let [namespace, ..] = NAMESPACES;
        let labels = json!({"kubernetes.io/service-name": LAST});
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": LAST, "namespace": namespace, "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.20.1.1"], "conditions": {"ready": true}}],
            "ports": [{"port": 80}],
        });
        [slice, Self::service(namespace, LAST, json!({"ports": [{"port": 80}]}))]
    }

    /// Its name.
    pub(crate) fn last_name() -> String {
        let [namespace, ..] = NAMESPACES;
        format!("{LAST}.{namespace}.svc.{ZONE}")
    }

    /// What kind of world it is.
    pub(crate) fn summary(&self) -> String {
        let Settings { pods, ttl, endpoint_pod_names, noendpoints, ignore_empty, narrowed } =
            self.settings;
        let mut words = vec![format!("pods {pods}, ttl {ttl}")];
        let switches = [
            (endpoint_pod_names, "endpoint_pod_names"),
            (noendpoints, "noendpoints"),
            (ignore_empty, "ignore empty_service"),
            (narrowed, "namespaces"),
        ];
        words.extend(switches.iter().filter(|(on, _)| *on).map(|(_, word)| (*word).to_owned()));
        words.join(", ")
    }

    /// The configuration of both.
    pub(crate) fn corefile(&self, port: u16, upstream: SocketAddr, more: &str) -> String {
        let settings = &self.settings;
        let shown: Vec<&str> = NAMESPACES.into_iter().filter(|name| *name != "hidden").collect();
        let namespaces = format!("namespaces {}", shown.join(" "));
        let lines = [
            (!more.is_empty(), more),
            (true, "fallthrough in-addr.arpa ip6.arpa"),
            (settings.endpoint_pod_names, "endpoint_pod_names"),
            (settings.noendpoints, "noendpoints"),
            (settings.ignore_empty, "ignore empty_service"),
            (settings.narrowed, namespaces.as_str()),
        ];
        let lines: String =
            lines.iter().filter(|(on, _)| *on).map(|(_, line)| format!("    {line}\n")).collect();
        format!(
            ".:{port} {{\n  bind 127.0.0.1\n  errors\n  \
             kubernetes cluster.local in-addr.arpa ip6.arpa {{\n    pods {}\n    ttl {}\n{lines}  \
             }}\n  forward . {upstream}\n  loadbalance\n}}\n",
            settings.pods, settings.ttl
        )
    }

    /// Everything that a world gives reason to ask. `services` are those of the API.
    pub(crate) fn questions(&self, services: &[Value]) -> Vec<Question> {
        let mut names = Names::default();
        for name in [
            "",
            "svc.",
            "pod.",
            "dns-version.",
            "ns.dns.",
            "dns.",
            "hostmaster.",
            "none.",
            "a.b.c.",
            "*.demo.svc.",
            "any.demo.svc.",
            "*.svc.",
            "example.com.",
            "example.com.demo.svc.",
        ] {
            names.in_zone(name);
        }
        for name in ["host.known.test.", "host.absent.test.", "host.failing.test.", "."] {
            names.with(name, &[Rtype::A, Rtype::AAAA]);
        }
        for namespace in NAMESPACES.into_iter().chain(["absent"]) {
            names.in_zone(&format!("{namespace}.svc."));
            names.in_zone(&format!("{namespace}.pod."));
            for label in
                ["10-20-0-1", "10-20-0-2", "10-20-0-17", "fd00-1--1", "1-2-3", "x", "300-1-1-1"]
            {
                names.in_zone(&format!("{label}.{namespace}.pod."));
            }
            names.in_zone(&format!("absent.{namespace}.svc."));
            names.in_zone(&format!("_http._tcp.absent.{namespace}.svc."));
        }
        for service in services {
            let name = format!(
                "{}.{}.svc.",
                text(service, "/metadata/name"),
                text(service, "/metadata/namespace")
            );
            names.in_zone(&name);
            for (port, transport, _) in
                PORTS.into_iter().chain([("none", "TCP", 0), ("", "UDP", 0)])
            {
                let transport = transport.to_lowercase();
                names.in_zone(&format!("_{port}._{transport}.{name}"));
            }
            for below in
                ["_tcp", "_udp", "http.tcp", "_http._sctp", "x", "x.y", "x._http._tcp", "a", "b-0"]
            {
                names.in_zone(&format!("{below}.{name}"));
            }
            for address in texts(service, "/spec/clusterIPs") {
                names.reverse(&address);
            }
        }
        for (namespace, service, endpoints) in &self.slices {
            for endpoint in endpoints.iter().take(6) {
                let mut labels =
                    vec![text(endpoint, "/hostname"), text(endpoint, "/targetRef/name")];
                for address in texts(endpoint, "/addresses") {
                    names.reverse(&address);
                    labels.push(address.replace(['.', ':'], "-"));
                }
                for label in labels.iter().filter(|label| !label.is_empty()) {
                    names.in_zone(&format!("{label}.{service}.{namespace}.svc."));
                }
            }
        }
        for address in ["10.20.99.99", "192.0.2.1", "fd00:1::dead"] {
            names.reverse(address);
        }
        for name in
            ["10.in-addr.arpa.", "20.10.in-addr.arpa.", "in-addr.arpa.", "x.0.20.10.in-addr.arpa."]
        {
            names.with(name, &[Rtype::PTR, Rtype::SOA, Rtype::NS, Rtype::A]);
        }
        names.0.into_iter().collect()
    }
}

fn endpoint(random: &mut StdRng, namespace: &str, service: &str, v6: bool, place: usize) -> Value {
    let address = match v6 {
        true => format!("fd00:1::{:x}", random.random_range(1..40)),
        false if place >= 5 => format!("10.21.{}.{}", place / 200, place % 200 + 1),
        false => format!("10.20.0.{}", random.random_range(1..40)),
    };
    let conditions = match random.random_range(0..6) {
        0 => json!({"ready": false, "serving": false}),
        1 => json!({}),
        2 => json!({"ready": false, "serving": true, "terminating": true}),
        _ => json!({"ready": true}),
    };
    let mut endpoint = json!({"addresses": [address], "conditions": conditions});
    // Whatever slice it stands in, an address of a Service has one name.
    let number = address.bytes().chain(service.bytes()).map(usize::from).sum::<usize>();
    if number % 3 == 0 {
        endpoint["hostname"] = json!(HOSTNAMES[number % 7 % HOSTNAMES.len()]);
    }
    if number % 5 < 2 {
        let name = format!("pod-{}", number % 6);
        endpoint["targetRef"] = json!({"kind": "Pod", "name": name, "namespace": namespace});
    }
    endpoint
}

/// Questions, each once.
#[derive(Default)]
struct Names(BTreeSet<Question>);

impl Names {
    fn with(&mut self, name: &str, kinds: &[Rtype]) {
        for kind in kinds {
            self.0.insert(Question { name: name.to_owned(), kind: *kind });
        }
        // Some clients mix case on purpose.
        if let [kind, ..] = kinds {
            let mixed = name.chars().enumerate().map(|(place, letter)| match place % 3 {
                0 => letter.to_ascii_uppercase(),
                _ => letter,
            });
            self.0.insert(Question { name: mixed.collect(), kind: *kind });
        }
    }

    fn in_zone(&mut self, name: &str) {
        const KINDS: [Rtype; 9] = [
            Rtype::A,
            Rtype::AAAA,
            Rtype::SRV,
            Rtype::TXT,
            Rtype::CNAME,
            Rtype::NS,
            Rtype::SOA,
            Rtype::PTR,
            Rtype::HTTPS,
        ];
        self.with(&format!("{name}{ZONE}"), &KINDS);
    }

    fn reverse(&mut self, address: &str) {
        let name = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(v4)) => {
                let [a, b, c, d] = v4.octets();
                format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
            }
            Ok(IpAddr::V6(v6)) => {
                let digits = v6.octets().into_iter().rev().flat_map(|byte| [byte & 0xf, byte >> 4]);
                let labels: String = digits.map(|digit| format!("{digit:x}.")).collect();
                format!("{labels}ip6.arpa.")
            }
            Err(_) => return,
        };
        self.with(&name, &[Rtype::PTR, Rtype::A, Rtype::SOA, Rtype::TXT]);
    }
}
